"""H2O's TA-GCN: actions of two hands and an object, by graphs whose edges between all three are learned (Kwon et al.).

After ICCV 2021. The left hand's 21 keypoints, the right one's and the object's 21 control points are 63 nodes on one
footing. A layer lets nodes hear each other along the skeletons and the box, along edges that are learned, and along a
graph computed from the sequence; the last two join any nodes, so that a fingertip may hear the object. Then each node
hears itself over time.

The network is not released: what the paper does not say is that of ST-GCN and of two-stream adaptive graphs, on which
it is built.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jhand.data.object_actions import ACTIONS, BOX_EDGES, OBJECTS
from jhand.hand import HandModel
from jhand.nn import HAND_EDGES, AdaptiveGraphConv, directed_adjacency
from jhand.nn.graph import Edges
from jhand.train import LossAux, Stage, Update

NODES = 63
ENTITIES = ("left", "right", "object")
EDGES = tuple(
    (21 * number + a, 21 * number + b)
    for number, edges in enumerate((HAND_EDGES, HAND_EDGES, BOX_EDGES))
    for a, b in edges
)
WITHIN = np.kron(np.eye(3), np.ones((21, 21))) > 0
"""(63, 63): which nodes are of the same hand or object."""
needs = ()
"""Examples, not clips: `points`, `estimated`, `valid`, `object`, `action`."""


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    classes: int = len(ACTIONS)
    objects: int = OBJECTS
    widths: tuple[int, ...] = (64, 64, 64, 128, 128, 128, 256, 256, 256)
    """Channels of the layers; where they double, every second frame is left out."""
    kernel: int = 9
    """Frames that a layer looks at, odd."""
    learned: bool = True
    """Whether there are learned edges, the same for all sequences."""
    computed: bool = True
    """Whether there are edges computed from the sequence."""
    between: bool = True
    """Whether those two join hands with each other and with the object; else only what is of one of the three."""
    object_class: bool = True
    """Whether the object's nodes say what it is."""
    without: Literal["", "left", "right", "object"] = ""
    """One of the three whose nodes are never seen."""
    trained: Literal["points", "estimated"] = "points"
    """What is trained on: true points, or estimates."""
    tested: Literal["points", "estimated"] = "points"
    """What is predicted from."""
    dropout: float = 0.0
    """Before the classifier."""
    scale: float = 5.0
    """Points are metres times this, so that what moves is about 1."""
    rate: float = 0.1
    decay: float = 1e-4
    """Of weights."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """Four narrow layers, for two CPU cores."""
        sizes: dict[str, Any] = {"widths": (16, 16, 32, 32)}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """The published widths, on one accelerator."""
        return cls(**changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published, for H2O's 36 actions."""
        sizes: dict[str, Any] = {"classes": 36}
        return cls(**(sizes | changes))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """Sequences."""

    points: Float[Array, "*b t 63 3"]
    """Metres, in the axes of one camera: the left hand's keypoints, the right one's, the object's control points."""
    estimated: Float[Array, "*b t 63 3"]
    """The same as a network found them; the points again, where there are no others."""
    valid: Bool[Array, "*b t 3"]
    """Whether each of the three is seen."""
    object: Int[Array, "*b"]
    """Its class, from 0."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Of each sequence."""

    logits: Float[Array, "*b c"]
    topology: Float[Array, "*b 3 3"]
    """How much nodes of a row's entity hear those of a column's by learned edges: the mean size of these over layers
    and nodes, of the left hand, the right one and the object; 0 without them."""


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...)."""
    return Inputs(*(jnp.asarray(batch[name]) for name in ("points", "estimated", "valid", "object")))


def features(points: Array, valid: Array, thing: Array, config: Config) -> Float[Array, "b t 63 c"]:
    """Channels of nodes: the place from the hands' mean wrist in the first frame that shows one, whether it is seen,
    and the object's class.

    Args:
        points: (B, T, 63, 3) metres.
        valid: (B, T, 3) of the three.
        thing: (B,) classes.
        config: which of the three are seen at all.
    """
    seen = valid & (jnp.array([name != config.without for name in ENTITIES]))
    wrists = points[:, :, jnp.array([0, 21, 42])]  # of the object its centre, for when no hand is seen
    counts = seen & jnp.where(jnp.any(seen[..., :2], (1, 2), keepdims=True), jnp.array([True, True, False]), True)
    first = jnp.argmax(jnp.any(counts, -1), 1)
    here = jnp.take_along_axis(counts, first[:, None, None], 1)[:, 0]
    there = jnp.take_along_axis(wrists, first[:, None, None, None], 1)[:, 0]
    origin = jnp.sum(jnp.where(here[..., None], there, 0), 1) / jnp.maximum(jnp.sum(here, 1), 1)[:, None]
    of_node = jnp.repeat(seen, 21, -1)[..., None]
    place = jnp.where(of_node, config.scale * (points - origin[:, None, None]), 0)
    found = [place, of_node.astype(place.dtype)]
    if config.object_class and config.without != "object":
        said = jax.nn.one_hot(thing, config.objects)[:, None, None] * (jnp.arange(NODES) >= 42)[:, None]
        found.append(jnp.broadcast_to(said, (*place.shape[:-1], config.objects)))
    return jnp.concatenate(found, -1)


class Layer(nn.Module):
    """Nodes hear each other in each frame, then themselves over time: (b, T, N, C) to every `stride`-th frame."""

    config: Config
    width: int
    stride: int = 1
    edges: Edges = EDGES

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c, norm = self.config, partial(nn.BatchNorm, not train, momentum=0.9)
        # the graphs' sum begins at next to nothing, so that a layer begins as what it adds to
        nodes = AdaptiveGraphConv(self.width, True, c.learned, c.computed, name="nodes")
        y = norm(scale_init=nn.initializers.constant(1e-6), name="nodes_norm")(
            nodes(x, directed_adjacency(self.edges, x.shape[-2]), None if c.between else WITHIN)
        )
        past = x if x.shape[-1] == self.width else norm(name="past_norm")(nn.Dense(self.width, name="past")(x))
        y = nn.relu(y + past)
        around = c.kernel // 2
        along = nn.Conv(self.width, (c.kernel, 1), (self.stride, 1), ((around, around), (0, 0)), name="frames")
        return nn.relu(norm(name="frames_norm")(along(y)) + past[:, :: self.stride])


class Network(nn.Module):
    """Logits of actions, from channels (b, T, N, C) of nodes along whose edges they hear each other: by default two
    hands and an object; `Config.between` is of these.
    """

    config: Config
    edges: Edges = EDGES

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = self.config
        flat = x.reshape(*x.shape[:2], -1)
        x = nn.BatchNorm(not train, momentum=0.9, name="seen_norm")(flat).reshape(x.shape)
        for number, width in enumerate(c.widths):
            stride = 2 if number and width > c.widths[number - 1] else 1
            x = Layer(c, width, stride, self.edges, name=f"layer{number}")(x, train)
        x = nn.Dropout(c.dropout, deterministic=not train)(jnp.mean(x, (1, 2)))
        return nn.Dense(c.classes, name="classes")(x)


def init(key: Array, config: Config, hand: HandModel | None = None) -> dict[str, Any]:
    """`{"params", "stats"}` of the first values; `hand` is not used."""
    none = jnp.zeros((1, 2 ** len(config.widths), NODES, 3))
    seen = features(none, jnp.ones((1, none.shape[1], 3), bool), jnp.zeros(1, jnp.int32), config)
    variables = Network(config).init(key, seen, False)
    return {"params": variables["params"], "stats": variables["batch_stats"]}


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel | None = None, *, key: Array
) -> tuple[Array, LossAux]:
    """Cross-entropy of the actions.

    Args:
        variables: of `init`.
        batch: what `inputs_of` reads, `points` (B, T, 63, 3) and so on, and `action` (B,).
        config: sizes.
        hand: not used.
        key: of dropout.
    """
    x = features(jnp.asarray(batch[config.trained]), batch["valid"], batch["object"], config)
    logits, changed = Network(config).apply(
        {"params": variables["params"], "batch_stats": variables["stats"]},
        x,
        True,
        mutable="batch_stats",
        rngs={"dropout": key},
    )
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["action"]))
    return value, LossAux(changed["batch_stats"], {"accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["action"])})


def apply(
    variables: dict[str, Any],
    inputs: Inputs,
    config: Config,
    hand: HandModel | None = None,
    *,
    key: Array | None = None,
) -> Outputs:
    """Actions of whole sequences.

    Args:
        variables: of `init`.
        inputs: leading axes as they come; any number of frames.
        config: sizes; which points are read.
        hand: not used.
        key: not used.

    Raises:
        ValueError: points that are not 63 over time.
    """
    points = inputs.points if config.tested == "points" else inputs.estimated
    if points.ndim < 3 or points.shape[-2:] != (NODES, 3):
        raise ValueError(f"points: expected shape (..., T, {NODES}, 3), of two hands and an object, got {points.shape}")
    batch = points.shape[:-3]
    number = int(np.prod(batch))
    flat = (points.reshape(-1, *points.shape[-3:]), inputs.valid.reshape(number, -1, 3), inputs.object.reshape(-1))
    network: Any = partial(Network(config).apply, {"params": variables["params"], "batch_stats": variables["stats"]})
    logits = network(features(*flat, config), False)
    topology = jnp.zeros((3, 3))
    if config.learned:
        layers = [variables["params"][f"layer{n}"]["nodes"]["learned"] for n in range(len(config.widths))]
        learned = jnp.mean(jnp.abs(jnp.stack(layers)), (0, -1)) * (1.0 if config.between else WITHIN)
        topology = jnp.mean(learned.reshape(3, 21, 3, 21), (1, 3))
    return Outputs(logits.reshape(*batch, -1), jnp.broadcast_to(topology, (*batch, 3, 3)))


predict = apply


def stages(config: Config, hand: HandModel | None, steps: int) -> tuple[Stage, ...]:
    """One: gradient descent with Nesterov's momentum, a tenth of the rate after 60 and after 85 % of the steps."""
    rate = optax.piecewise_constant_schedule(config.rate, {int(0.6 * steps): 0.1, int(0.85 * steps): 0.1})
    descent = optax.chain(optax.add_decayed_weights(config.decay), optax.sgd(rate, 0.9, nesterov=True))
    return (Stage("actions", steps, (Update("actions", partial(loss, config=config, hand=hand), descent),)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: all."""
    return params
