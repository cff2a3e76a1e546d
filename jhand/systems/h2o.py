"""H2O's network of a grid: two hands and an object from one picture, each by the cell that is surest of it.

After Kwon et al., ICCV 2021, on the unified network of Tekin et al., CVPR 2019 (H+O). The picture and the depth before
the camera are cut into cells. Each says, for the left hand, the right one and the object alike, where its 21 points
are, how sure it is of them, and what object it is about. What is taken of each is what its surest cell says.

The network is not released: thresholds and weights are those of H+O.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jhand.data.object_actions import HALF_SIZES, OBJECTS, box_points
from jhand.geometry.alignment import rigid_procrustes
from jhand.geometry.camera import Camera, make_camera, project, unproject
from jhand.hand import HandModel
from jhand.train import LossAux, Stage, Update

ENTITIES = ("left", "right", "object")
needs = ()
"""Examples, not clips: `image`, `points`, `valid`, `classes`, `object`, `K`."""


@dataclass(frozen=True)
class Config:
    """Sizes, thresholds and weights, and what the ablations change."""

    size: int = 416
    """Side of pictures, pixels."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of the trunk; after each the picture is halved, so that a cell is 2 to their number pixels wide."""
    deepest: int = 1024
    """Channels of the cells."""
    depths: int = 5
    """Cells one behind the other."""
    nearest: float = 0.25
    """Where the first of them begins, metres."""
    furthest: float = 1.0
    """Where the last of them ends."""
    classes: int = OBJECTS
    confidence: Literal["distance", "cell"] = "distance"
    """What a cell is to be sure of: how near the points are that it says; or that it has the root in it."""
    pixels: float = 75.0 / 416
    """Distance from which on points are wrong, in sides of the picture."""
    metres: float = 0.075
    """And in space."""
    sharpness: float = 2.0
    pose: float = 1.0
    """Weight of squared differences of points, in cells beside each other and in `unit`s of depth."""
    unit: float = 0.15
    """Metres of depth: as deep as published cells are. Where cells are deeper, a difference weighs no less."""
    sure: float = 5.0
    """Weight of the confidence of cells that have a root in them."""
    unsure: float = 0.1
    """And of all others."""
    rate: float = 1e-4

    @property
    def cells(self) -> int:
        """Cells beside each other."""
        return self.size // 2 ** len(self.widths)

    @property
    def depth(self) -> float:
        """Of a cell, metres."""
        return (self.furthest - self.nearest) / self.depths

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """Small pictures in 6 x 6 x 5 cells, for two CPU cores.

        All cells weigh the same: with the published weights, made for more and emptier ones, those one behind the other
        are equally sure, since each is told of its confidence hardly ever but when the root is in it. Points weigh
        less, or little else is learned in short.
        """
        sizes: dict[str, Any] = {"size": 96, "widths": (8, 16, 32, 64), "deepest": 128, "rate": 2e-3}
        sizes |= {"pose": 0.1, "unsure": 5.0}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """Pictures of 224 pixels in 7 x 7 x 5 cells, on one accelerator."""
        sizes: dict[str, Any] = {"size": 224, "rate": 3e-4}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published: 416 pixels in 13 x 13 x 5 cells."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """Pictures."""

    image: Array
    """(..., S, S, 3) uint8, or from 0 to 1."""
    K: Float[Array, "*b 3 3"]
    """Of their cameras, pixels."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Of each picture: the left hand, the right one, the object."""

    points: Float[Array, "*b 3 21 3"]
    """Metres, in the axes of the camera."""
    confidence: Float[Array, "*b 3"]
    classes: Float[Array, "*b 3 c"]
    """Logits of what each is about: no object, then the objects."""
    R_object: Float[Array, "*b 3 3"]
    """Of the box of the class that the object is taken for, onto its control points."""
    t_object: Float[Array, "*b 3"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cells:
    """What each cell says, in units of cells from the corner of the first one."""

    points: Float[Array, "b h w d 3 21 3"]
    confidence: Float[Array, "b h w d 3"]
    """Logits."""
    classes: Float[Array, "b h w d 3 c"]


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...)."""
    return Inputs(jnp.asarray(batch["image"]), jnp.asarray(batch["K"]))


def camera_of(K: Array) -> Camera:
    """Cameras (...,) of intrinsics (..., 3, 3), in the camera's own axes."""
    return make_camera(focal=jnp.stack([K[..., 0, 0], K[..., 1, 1]], -1), principal=K[..., :2, 2])


def cells_from_points(points: Array, K: Array, config: Config) -> Float[Array, "*b k 3"]:
    """Points (..., K, 3) metres as pixels and depth, in cells: (0, 0, 0) is the first cell's upper left near corner."""
    stride = 2 ** len(config.widths)
    uv = (project(camera_of(K), points) + 0.5) / stride
    z = (points[..., 2:] - config.nearest) / config.depth
    return jnp.concatenate([uv, z], -1)


def points_from_cells(cells: Array, K: Array, config: Config) -> Float[Array, "*b k 3"]:
    """The inverse of `cells_from_points`: (..., K, 3) to metres."""
    stride = 2 ** len(config.widths)
    z = jnp.maximum(config.nearest + config.depth * cells[..., 2], 1e-2)
    return unproject(camera_of(K), stride * cells[..., :2] - 0.5, z)


class Network(nn.Module):
    """Pictures (b, S, S, 3), from 0 to 1, to what cells say."""

    config: Config

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Cells:
        c = self.config

        def block(x: Array, width: int, kernel: int = 3) -> Array:
            x = nn.Conv(width, (kernel, kernel), use_bias=False)(x)
            return nn.leaky_relu(nn.BatchNorm(not train, momentum=0.9)(x), 0.1)

        x = 2 * x - 1
        for number, width in enumerate(c.widths):
            x = block(x, width)
            if number > 1:  # as in Darknet: through fewer channels and back
                x = block(block(x, width // 2, 1), width)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = block(block(x, c.deepest), c.deepest)
        x = nn.Conv(c.depths * 3 * (63 + 1 + 1 + c.classes), (1, 1), name="cells")(x)
        x = x.reshape(*x.shape[:3], c.depths, 3, -1)
        offsets = x[..., :63].reshape(*x.shape[:-1], 21, 3)
        # the root stays in its cell, the others go where they like
        root, others = jax.nn.sigmoid(offsets[..., :1, :]), offsets[..., 1:, :]
        corner = jnp.stack(jnp.meshgrid(*map(jnp.arange, (c.cells, c.cells, c.depths)), indexing="ij"), -1)
        corner = corner[..., jnp.array([1, 0, 2])].astype(x.dtype)  # columns are u
        return Cells(corner[..., None, None, :] + jnp.concatenate([root, others], -2), x[..., 63], x[..., 64:])


def confidence_of(pixels: Array, metres: Array, config: Config) -> Array:
    """How sure one should be of points that are as far off: from 1 to 0, the mean of both in the picture and in space.

    exp(a (1 - D / d)) below the distance d and 0 beyond it (Tekin et al.), over its largest value exp(a): a sigmoid
    can say that.

    Args:
        pixels: (...) mean distances in the picture, in its sides.
        metres: (...) mean distances in space.
        config: distances and sharpness.
    """
    one = lambda far, most: jnp.where(far < most, jnp.exp(-config.sharpness * far / most), 0)  # noqa: E731
    return (one(pixels, config.pixels) + one(metres, config.metres)) / 2


def init(key: Array, config: Config, hand: HandModel | None = None) -> dict[str, Any]:
    """`{"params", "stats"}` of the first values; `hand` is not used."""
    variables = Network(config).init(key, jnp.zeros((1, config.size, config.size, 3)), False)
    return {"params": variables["params"], "stats": variables["batch_stats"]}


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel | None = None, *, key: Array
) -> tuple[Array, LossAux]:
    """Points and classes of the cells that have a root in them, and the confidence of all.

    Args:
        variables: of `init`.
        batch: `image` (B, S, S, 3), `points` (B, 3, 21, 3) metres, `valid` (B, 3), `classes` (B, 3), `K` (B, 3, 3).
        config: sizes and weights.
        hand: not used.
        key: not used.
    """
    said, changed = Network(config).apply(
        {"params": variables["params"], "batch_stats": variables["stats"]},
        seen(batch["image"]),
        True,
        mutable="batch_stats",
    )
    terms = loss_terms(said, batch, config)
    return sum(terms.values(), jnp.zeros(())), LossAux(changed["batch_stats"], terms)


def loss_terms(said: Cells, batch: dict[str, Array], config: Config) -> dict[str, Array]:
    """`points`, `confidence` and `classes`, weighted: sums over cells, means over pictures.

    Args:
        said: cells (B, H, W, D).
        batch: `points` (B, 3, 21, 3) metres, `valid` (B, 3), `classes` (B, 3), `K` (B, 3, 3).
        config: sizes and weights.
    """
    c, K = config, batch["K"]
    truth = cells_from_points(batch["points"].reshape(-1, 63, 3), K, c).reshape(-1, 3, 21, 3)
    at = jnp.floor(truth[:, :, 0]).astype(jnp.int32)  # (B, 3, 3): u, v, z of the responsible cells
    grid = jnp.array([c.cells, c.cells, c.depths])
    valid = batch["valid"] & jnp.all((at >= 0) & (at < grid), -1)
    hot = [
        jax.nn.one_hot(at[..., axis], number)
        for axis, number in zip((1, 0, 2), (c.cells, c.cells, c.depths), strict=True)
    ]
    mine = jnp.einsum("beh,bew,bed,be->bhwde", *hot, valid.astype(jnp.float32))
    units = jnp.array([1.0, 1.0, c.depth / c.unit])
    missed = jnp.sum(jnp.square(units * (said.points - truth[:, None, None, None])), (-2, -1))
    logs = jax.nn.log_softmax(said.classes)
    label = jax.nn.one_hot(batch["classes"], c.classes + 1)
    crossed = -jnp.sum(logs * label[:, None, None, None], -1)
    wanted = mine
    if c.confidence == "distance":
        wanted = _right(jax.lax.stop_gradient(said.points), batch, truth, c) * valid[:, None, None, None]
    weight = jnp.where(mine > 0, c.sure, c.unsure)
    unsure = weight * jnp.square(jax.nn.sigmoid(said.confidence) - wanted)
    # masked before they are summed: far cells' points are far off, and 0 times a large number is not always 0
    of_mine = lambda x: jnp.sum(jnp.where(mine > 0, x, 0)) / len(K)  # noqa: E731
    return {
        "points": c.pose * of_mine(missed),
        "confidence": jnp.sum(unsure) / len(K),
        "classes": of_mine(crossed),
    }


def _right(points: Array, batch: dict[str, Array], truth: Array, config: Config) -> Float[Array, "b h w d 3"]:
    """How right every cell is about each of the three; `points` and `truth` in cells."""
    far = jnp.mean(jnp.linalg.norm(points[..., :2] - truth[:, None, None, None, :, :, :2], axis=-1), -1)
    shape = points.shape
    flat = points.reshape(shape[0], -1, 3)
    metres = points_from_cells(flat, batch["K"], config).reshape(shape)
    away = jnp.mean(jnp.linalg.norm(metres - batch["points"][:, None, None, None], axis=-1), -1)
    return confidence_of(far / config.cells, away, config)


def seen(image: Array) -> Array:
    """Pictures (..., S, S, 3) from 0 to 1: uint8, or as they are."""
    return image / 255.0 if image.dtype == jnp.uint8 else image


def surest(said: Cells) -> tuple[Float[Array, "b 3 21 3"], Float[Array, "b 3"], Float[Array, "b 3 c"]]:
    """Points, in cells, confidence from 0 to 1, and logits of classes, of the surest cell of each of the three."""
    flat = lambda x: x.reshape(x.shape[0], -1, *x.shape[4:])  # noqa: E731
    best = jnp.argmax(flat(said.confidence), 1)  # (b, 3)
    pick = jax.vmap(jax.vmap(lambda x, n: x[n], (1, 0)))
    points, confidence, classes = (pick(flat(x), best) for x in (said.points, said.confidence, said.classes))
    return points, jax.nn.sigmoid(confidence), classes


def boxes_of(classes: Float[Array, "b 3 c"]) -> Float[Array, "b 21 3"]:
    """Control points, metres, of boxes of the classes (B, 3, C) that objects are taken for, in their own axes."""
    boxes = jax.vmap(box_points)(jnp.asarray(HALF_SIZES))
    return boxes[jnp.argmax(classes[:, 2, 1:], -1)]


def outputs_of(said: Cells, K: Float[Array, "b 3 3"], config: Config) -> Outputs:
    """What the surest cells (B, H, W, D) say, in metres, and the box that fits the object's control points.

    Args:
        said: of `Network`.
        K: (B, 3, 3) intrinsics.
        config: sizes.
    """
    cells, confidence, classes = surest(said)
    points = points_from_cells(cells.reshape(-1, 63, 3), K, config).reshape(cells.shape)
    R, t = rigid_procrustes(boxes_of(classes), points[:, 2])
    return Outputs(points, confidence, classes, R, t)


def apply(
    variables: dict[str, Any],
    inputs: Inputs,
    config: Config,
    hand: HandModel | None = None,
    *,
    key: Array | None = None,
) -> Outputs:
    """Two hands and an object in each picture, whether they are there or not: `Outputs.confidence` tells.

    Args:
        variables: of `init`.
        inputs: leading axes as they come.
        config: sizes.
        hand: not used.
        key: not used.

    Raises:
        ValueError: pictures of another size.
    """
    *batch, height, width, _ = inputs.image.shape
    if (height, width) != (config.size, config.size):
        raise ValueError(
            f"image: expected {config.size} x {config.size} pixels, got {height} x {width}; resize it and K"
        )
    flat, K = inputs.image.reshape(-1, height, width, 3), inputs.K.reshape(-1, 3, 3)
    network: Any = Network(config).apply
    said = network({"params": variables["params"], "batch_stats": variables["stats"]}, seen(flat), False)
    found = outputs_of(said, K, config)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)


predict = apply


def stages(config: Config, hand: HandModel | None, steps: int) -> tuple[Stage, ...]:
    """One: Adam, a tenth of the rate after 70 and after 90 % of the steps."""
    rate = optax.piecewise_constant_schedule(config.rate, {int(0.7 * steps): 0.1, int(0.9 * steps): 0.1})
    return (Stage("cells", steps, (Update("cells", partial(loss, config=config, hand=hand), optax.adam(rate)),)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: all."""
    return params
