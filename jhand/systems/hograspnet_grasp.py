"""HOGraspNet's grasp benchmark: the type of a grasp from a hand's pose and where it touches (Cho et al., ECCV 2024).

A pose is 21 keypoints as a camera sees them, a contact map has a value for each vertex of the hand. Each has an encoder
of its own, and what both find is classified. What is trained on and what is tested is one of the dataset's five splits:
unseen trials, subjects, a camera, objects, grasp types. A type that was never seen cannot be named; what of it can be
right are its attributes: power, opposition, fingers, thumb.

The networks of the original's benchmark are not released: these are inferred.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jhand.contact import HOGRASPNET_GRASPS, grasp_attributes
from jhand.data.readers.hograspnet import CAMERAS, SPLITS, TEST_CAMERA, TEST_GRASPS, TEST_OBJECTS, TRAIN_SUBJECTS
from jhand.hand import HandModel
from jhand.train import LossAux, Stage, Update, adamw

needs = ()
"""Examples, not clips: `grasp`, `subject`, `object`, `camera`, `keypoints3d`, `contact`."""
_DECIMETRE = 10.0


@dataclass(frozen=True)
class Config:
    """What is read, how it is split, and how large the network is."""

    reads: tuple[str, ...] = ("pose", "contact")
    split: str = "s0"
    classes: tuple[int, ...] = HOGRASPNET_GRASPS
    """Numbers of the taxonomy, in the order of the classes."""
    width: int = 256
    layers: int = 3
    dropout: float = 0.2
    peak: float = 1e-3

    def __post_init__(self) -> None:
        if not self.reads or not set(self.reads) <= {"pose", "contact"}:
            raise ValueError(f"reads: expected pose, contact or both, got {self.reads}")
        if self.split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}")

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For two CPU cores."""
        return replace(cls(width=96, layers=2), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """For one GPU."""
        return replace(cls(), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As large as the benchmark may have been."""
        return replace(cls(width=1024, layers=4), **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """Of each example."""

    keypoints: Float[Array, "b 21 3"]
    """Metres, the camera's axes; the wrist need not be the origin."""
    contact: Float[Array, "b v"]
    """From 0 to 1 on the object."""
    grasp: Int[Array, "b"]
    """The taxonomy's number, which like those below only says what a split trains and tests on."""
    subject: Int[Array, "b"]
    """From 0, in order."""
    object: Int[Array, "b"]
    """The dataset's number."""
    camera: Int[Array, "b"]
    """Index into the dataset's cameras."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Of each example."""

    logits: Float[Array, "b c"]
    """Of the configuration's classes."""
    grasp: Int[Array, "b"]
    """The taxonomy's number of the likeliest."""
    tested: Bool[Array, "b"]
    """Whether the split tests on it."""


class Network(nn.Module):
    """An encoder for each of pose and contact, and a classifier."""

    config: Config

    @nn.compact
    def __call__(self, inputs: Inputs, train: bool = False) -> Array:
        config = self.config
        points = _DECIMETRE * (inputs.keypoints - inputs.keypoints[:, :1])
        seen = {"pose": points.reshape(len(points), -1), "contact": inputs.contact}
        found = []
        for name in config.reads:
            x = nn.relu(nn.LayerNorm()(nn.Dense(config.width, name=f"{name}_in")(seen[name])))
            for n in range(config.layers - 1):
                x = x + nn.relu(nn.Dense(config.width, name=f"{name}_{n}")(x))
            found.append(nn.Dropout(config.dropout, deterministic=not train)(x))
        x = nn.relu(nn.Dense(config.width, name="both")(jnp.concatenate(found, -1)))
        return nn.Dense(len(config.classes), name="classes")(x)


def is_tested(inputs: Inputs, config: Config) -> Bool[Array, "b"]:
    """Which examples (B,) the split tests on; of unseen trials all, since what is held out are other trials."""
    held_out = {
        "s0": jnp.ones_like(inputs.subject, bool),
        "s1": inputs.subject >= TRAIN_SUBJECTS,
        "s2": inputs.camera == CAMERAS.index(TEST_CAMERA),
        "s3": jnp.isin(inputs.object, np.array(TEST_OBJECTS)),
        "s4": jnp.isin(inputs.grasp, np.array(TEST_GRASPS)),
    }
    return held_out[config.split]


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What `apply` reads of a batch of examples, leaves (B, ...)."""
    names = ("keypoints3d", "contact", "grasp", "subject", "object", "camera")
    return Inputs(*(jnp.asarray(batch[name]) for name in names))


def init(key: Array, config: Config, hand: HandModel) -> dict[str, Any]:
    """`{"params", "stats"}`, the latter empty."""
    one = Inputs(jnp.zeros((1, 21, 3)), jnp.zeros((1, hand.num_vertices)), *(jnp.zeros(1, int) for _ in range(4)))
    return {"params": Network(config).init(key, one)["params"], "stats": {}}


def apply(
    variables: dict[str, Any], inputs: Inputs, config: Config, hand: HandModel, *, key: Array | None = None
) -> Outputs:
    """Logits (B, C) in test mode; `hand` and `key` are not used."""
    network: Any = Network(config)
    return _outputs(network.apply({"params": variables["params"]}, inputs), inputs, config)


predict = apply


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """Cross-entropy over the examples of a batch, leaves (B, ...), that the split trains on."""
    inputs = inputs_of(batch)
    network: Any = Network(config)
    logits = network.apply({"params": variables["params"]}, inputs, True, rngs={"dropout": key})
    label = jnp.argmax(inputs.grasp[:, None] == np.array(config.classes), -1)
    tested = is_tested(inputs, config)
    kept = jnp.ones_like(tested) if config.split == "s0" else ~tested
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    value = jnp.sum(kept * each) / jnp.maximum(jnp.sum(kept), 1)
    return value, LossAux({}, {"entropy": value}, _outputs(logits, inputs, config))


def stages(config: Config, hand: HandModel, steps: int) -> tuple[Stage, ...]:
    """One, in which all parameters are trained."""
    update = Update("classes", partial(loss, config=config, hand=hand), adamw(config.peak, steps))
    return (Stage("classes", steps, (update,)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that `predict` reads: all."""
    return params


def right_attributes(found: Array, true: Array) -> Float[Array, "b"]:
    """Which share of power, opposition, number of fingers and thumb two grasp types (B,) have in common."""
    table = jnp.asarray(grasp_attributes(range(1, 34)))
    return jnp.mean(table[found - 1] == table[true - 1], -1)


def _outputs(logits: Array, inputs: Inputs, config: Config) -> Outputs:
    return Outputs(logits, jnp.asarray(config.classes)[jnp.argmax(logits, -1)], is_tested(inputs, config))
