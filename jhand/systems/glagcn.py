"""GLA-GCN: a hand's motion in 3D from its keypoints in a picture, by adaptive graphs in time (Yu et al., ICCV 2023).

A window of 2D keypoints goes through blocks that first let joints hear each other, along the skeleton, along edges that
are learned and along a graph that is computed from the whole window, and then frames. Every second block makes three
frames one, and what the middle one of the three was is added, until the frame in the middle of the window is left: the
global part. The local part reads each joint's place from that joint's own channels, not from all joints' together.

Numbers not in the paper are those of the released code. Other than there: windows are of a hand's 21 joints, from the
wrist; a hand has no left and right half to be exchanged, so that a mirrored hand is one of the other side, and the
network is told which side it sees. Hands before any camera are small or large in the picture, where people before the
four cameras of Human3.6M are not, so that keypoints are seen about the wrist and over their spread, and the network is
told both. The readout's maps are one for each joint, as the paper says; the released code has one for all, which is
`Config.readout = "shared"`.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from jhand import metrics
from jhand.hand import HandModel
from jhand.nn import HAND_EDGES, AdaptiveGraphConv, directed_adjacency
from jhand.train import LossAux, Stage, Update, ranger

JOINTS = 21
SKELETON = directed_adjacency(HAND_EDGES, JOINTS)


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    widths: tuple[int, ...] = (3, 3, 3, 3, 3)
    """Frames that each stage makes one, odd: a window has their product."""
    channels: int = 96
    kernel: int = 9
    """Frames that a block looks at, odd."""
    fixed: bool = True
    """Whether joints hear each other along the skeleton."""
    learned: bool = True
    """Whether they do along learned edges."""
    computed: bool = True
    """Whether they do along a graph computed from the window."""
    readout: Literal["local", "shared", "global"] = "local"
    """A map for each joint of its own channels, one map for all joints, or one of all joints' channels together."""
    pyramid: bool = True
    """Whether stages make few frames of many; else all frames stay to the end, where the mean is taken."""
    causal: bool = False
    """Whether the last frame of a window is wanted instead of the middle one."""
    mirror: bool = True
    """Whether half of what is trained on is mirrored, and a prediction is the mean with that of the mirror image. Else
    the network sees right hands alone, and left ones as if in a mirror."""
    dropout: float = 0.1
    scale: float = 10.0
    """What is predicted are metres times this, so that a hand is as large as a person is in metres."""
    rate: float = 1e-2
    """Learning rate at first; it goes down to `last_rate` by a cosine."""
    last_rate: float = 1e-5
    memory: float = 0.999
    """Decay of the optimiser's mean of squared gradients. Rectified Adam begins slowly, for as long as it remembers."""
    at_once: int = 81
    """Windows that one program predicts."""

    @property
    def frames(self) -> int:
        """Of a window."""
        return prod(self.widths)

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For a CPU: windows of 27 frames."""
        # from afar, a hand in a mirror looks like one of the true side with its depth turned round, so that what depth
        # there is depends on the side that is told: more to learn than few steps are enough for
        sizes: dict[str, Any] = {"widths": (3, 3, 3), "channels": 16, "dropout": 0.0, "memory": 0.99, "mirror": False}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """Windows of 81 frames, the published width."""
        sizes: dict[str, Any] = {"widths": (3, 3, 3, 3)}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published: windows of 243 frames."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """A hand over time, as it is seen."""

    keypoints2d: Float[Array, "*b t 21 2"]
    """Pixels; all frames of a sequence, however long."""
    size: Float[Array, "*b 2"]
    """Width and height of the picture, pixels."""
    right: Bool[Array, "*b"]
    """Whether it is a right hand."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """The same frames in 3D."""

    keypoints: Float[Array, "*b t 21 3"]
    """Metres in the axes of the camera, from the wrist of each frame."""


needs = ("image", "camera.T_cam_world", *(f"hands.right.keypoints{what}" for what in ("2d", "3d", "3d_valid")))


def prepare(clip: dict[str, Any], config: Config) -> dict[str, Any]:
    """All frames of the first view of a clip: arrays of a batch."""
    hand, R = clip["hands"]["right"], clip["camera"]["T_cam_world"][:, 0, :3, :3]
    points, valid = hand["keypoints3d"], hand["keypoints3d_valid"]
    height, width = clip["image"].shape[2:4]
    return {
        "keypoints2d": hand["keypoints2d"][:, 0],
        "keypoints3d": (points - points[:, :1]) @ R.swapaxes(-1, -2),
        "keypoints3d_valid": valid & valid[:, :1],
        "size": np.array([width, height], np.float32),
        "right": np.ones((), bool),
    }


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...)."""
    return Inputs(*(jnp.asarray(batch[name]) for name in ("keypoints2d", "size", "right")))


class Block(nn.Module):
    """Joints hear each other in each frame, then frames in each joint: (b, T, 21, C) to every `stride`-th frame."""

    config: Config
    stride: int = 1
    residual: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c, norm = self.config, partial(nn.BatchNorm, not train, momentum=0.9)
        # the sum of the graphs begins at next to nothing: a block begins as what it adds to
        y = AdaptiveGraphConv(c.channels, c.fixed, c.learned, c.computed, name="joints")(x, SKELETON)
        y = norm(scale_init=nn.initializers.constant(1e-6), name="joints_norm")(y)
        y = nn.Dropout(c.dropout)(y, deterministic=not train)
        kept = x if x.shape[-1] == c.channels else norm(name="kept_norm")(nn.Dense(c.channels, name="kept")(x))
        y = nn.relu(y + kept)
        around = c.kernel // 2
        along = nn.Conv(c.channels, (c.kernel, 1), (self.stride, 1), ((around, around), (0, 0)), name="frames")
        y = norm(name="frames_norm")(along(y))
        if self.residual:
            y = y + (x if x.shape[-1] == c.channels else norm(name="past_norm")(nn.Dense(c.channels, name="past")(x)))
        return nn.relu(y)


class Network(nn.Module):
    """Joints (b, 21, 3), scaled, in the wanted frame of windows (b, T, 21, 2) from -1 to 1 across the picture."""

    config: Config

    @nn.compact
    def __call__(self, windows: Array, right: Array, train: bool) -> Array:
        c, drop = self.config, nn.Dropout(self.config.dropout, deterministic=not train)
        seen, place = about_wrist(windows, c)
        flat = seen.reshape(*seen.shape[:2], -1)
        x = nn.BatchNorm(not train, momentum=0.9, name="seen_norm")(flat).reshape(seen.shape)
        told = jnp.concatenate([place, jnp.where(right, 1.0, -1.0)[:, None]], -1)[:, None, None]
        x = jnp.concatenate([x, jnp.broadcast_to(told, (*x.shape[:-1], told.shape[-1]))], -1)
        x = Block(c, name="expand")(x, train)
        for number, width in enumerate(c.widths):
            stride = width if c.pyramid else 1
            wanted = stride - 1 if c.causal else stride // 2
            middle = x[:, wanted::stride]
            x = drop(Block(c, name=f"stage{number}_all")(x, train))
            x = middle + drop(Block(c, stride, residual=False, name=f"stage{number}_few")(x, train))
        return Readout(c, name="readout")(jnp.mean(x, 1))


def about_wrist(windows: Array, config: Config) -> tuple[Float[Array, "b t 21 2"], Float[Array, "b 3"]]:
    """Windows (B, T, 21, 2) about the wrist of the wanted frame, over the size of the hand in the picture, which is the
    deviation of joints from their mean; and what they lack then, (B, 3): where that wrist was, and the size.
    """
    wanted = config.frames - 1 if config.causal else config.frames // 2
    wrist = windows[:, wanted, :1]
    size = jnp.sqrt(jnp.mean(jnp.var(windows, 2), (1, 2))) + 1e-6
    return (windows - wrist[:, None]) / size[:, None, None, None], jnp.concatenate([wrist[:, 0], size[:, None]], -1)


class Readout(nn.Module):
    """Places (b, 21, 3) of joints with channels (b, 21, C)."""

    config: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")  # all joints begin near the wrist
        if self.config.readout == "shared":
            return nn.Dense(3, kernel_init=small)(x)
        if self.config.readout == "global":
            return nn.Dense(JOINTS * 3, kernel_init=small)(x.reshape(len(x), -1)).reshape(-1, JOINTS, 3)
        # a matrix (C, 63) and a vector, so that gradients are centred over what one output is made of and no more
        kernel = self.param("kernel", small, (x.shape[-1], JOINTS * 3))
        bias = self.param("bias", nn.initializers.zeros_init(), (JOINTS * 3,))
        return jnp.einsum("bjc,cjx->bjx", x, kernel.reshape(-1, JOINTS, 3)) + bias.reshape(JOINTS, 3)


def init(key: Array, config: Config, hand: HandModel | None = None) -> dict[str, Any]:
    """`{"params", "stats"}` of the first values; `hand` is not used."""
    seen, right = jnp.zeros((1, config.frames, JOINTS, 2)), jnp.ones(1, bool)
    variables = Network(config).init(key, seen, right, False)
    return {"params": variables["params"], "stats": variables["batch_stats"]}


def in_picture(inputs: Inputs) -> Float[Array, "*b t 21 2"]:
    """Keypoints from -1 to 1 across the picture's width, its middle at 0 (Pavllo et al., CVPR 2019)."""
    width, height = inputs.size[..., 0], inputs.size[..., 1]
    middle = jnp.stack([jnp.ones_like(width), height / width], -1)
    return 2 * inputs.keypoints2d / width[..., None, None, None] - middle[..., None, None, :]


def window_frames(centres: Array, total: int, config: Config) -> Array:
    """Frames (..., T) of the windows whose wanted frame is `centres` (...), of a sequence of so many frames.

    Beyond both ends the first and the last frame stand still.
    """
    before = config.frames - 1 if config.causal else config.frames // 2
    return jnp.clip(centres[..., None] + jnp.arange(config.frames) - before, 0, total - 1)


def mirrored(points: Array, turned: Array) -> Array:
    """Points (B, ..., C) in the picture or in the axes of the camera, where `turned` (B,) as in a mirror: x is -x."""
    x = points[..., :1]
    turned = turned.reshape(-1, *(1,) * (points.ndim - 1))
    return jnp.concatenate([jnp.where(turned, -x, x), points[..., 1:]], -1)


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel | None = None, *, key: Array
) -> tuple[Array, LossAux]:
    """Mean distance from the true joints, in one frame of each sequence, about the wrist; scaled as predictions are.

    Args:
        variables: of `init`.
        batch: what `inputs_of` reads; `keypoints3d` (B, T, 21, 3) metres in the axes of the camera and
            `keypoints3d_valid` (B, T, 21): joints that are not valid do not count, nor frames without a wrist.
        config: sizes.
        hand: not used.
        key: of the frames, of which hands are mirrored, and of dropout.
    """
    keys = jax.random.split(key, 3)
    seen, right = in_picture(inputs_of(batch)), batch["right"]
    number, total = seen.shape[:2]
    centres = jax.random.randint(keys[0], (number,), 0, total)
    rows = jnp.arange(number)
    windows = seen[rows[:, None], window_frames(centres, total, config)]
    target, valid = batch["keypoints3d"][rows, centres], batch["keypoints3d_valid"][rows, centres]
    target = target - target[:, :1]
    turned = jax.random.bernoulli(keys[1], 0.5, (number,)) if config.mirror else ~right
    windows, target, right = mirrored(windows, turned), mirrored(target, turned), right ^ turned
    found, changed = Network(config).apply(
        {"params": variables["params"], "batch_stats": variables["stats"]},
        windows,
        right,
        True,
        mutable="batch_stats",
        rngs={"dropout": keys[2]},
    )
    error = metrics.mpjpe(found, config.scale * target, valid & valid[:, :1])
    counts = jnp.isfinite(error)
    mean = jnp.sum(jnp.where(counts, error, 0)) / jnp.maximum(jnp.sum(counts), 1)
    return mean, LossAux(changed["batch_stats"], {"mpjpe": mean / config.scale})


def apply(variables: dict[str, Any], inputs: Inputs, config: Config, hand: HandModel | None = None) -> Outputs:
    """Every frame of whole sequences, each from the window about it.

    Args:
        variables: of `init`.
        inputs: leading axes as they come, sequences of any length.
        config: sizes.
        hand: not used.

    Raises:
        ValueError: keypoints that are not 21 over time.
    """
    if inputs.keypoints2d.ndim < 3 or inputs.keypoints2d.shape[-2:] != (JOINTS, 2):
        shape = inputs.keypoints2d.shape
        raise ValueError(f"keypoints2d: expected shape (..., T, {JOINTS}, 2), a sequence of pixels, got {shape}")
    seen = in_picture(inputs)
    *batch, total = seen.shape[:-2]
    flat, right = seen.reshape(-1, total, JOINTS, 2), inputs.right.reshape(-1)

    def one(number: Array) -> Array:
        sequence, centre = number // total, number % total
        window = flat[sequence, window_frames(centre, total, config)][None]
        return lift(variables, window, right[sequence][None], config)[0]

    found = jax.lax.map(one, jnp.arange(len(flat) * total), batch_size=min(config.at_once, len(flat) * total))
    return Outputs(found.reshape(*batch, total, JOINTS, 3))


predict = apply


def lift(variables: dict[str, Any], windows: Array, right: Array, config: Config) -> Float[Array, "b 21 3"]:
    """The wanted frame of windows (B, T, 21, 2) of keypoints `in_picture`, in metres from the wrist; where trained with
    mirrored hands, the mean with what the mirror shows.
    """
    network: Any = partial(Network(config).apply, {"params": variables["params"], "batch_stats": variables["stats"]})

    def seen(turned: Array) -> Array:
        return mirrored(network(mirrored(windows, turned), right ^ turned, False), turned) / config.scale

    return (seen(right) + seen(~right)) / 2 if config.mirror else seen(~right)


def stages(config: Config, hand: HandModel | None, steps: int) -> tuple[Stage, ...]:
    """One: Ranger, whose learning rate goes down by a cosine."""
    rate = optax.cosine_decay_schedule(config.rate, steps, config.last_rate / config.rate)
    optimiser = ranger(rate, b2=config.memory)
    return (Stage("lift", steps, (Update("lift", partial(loss, config=config, hand=hand), optimiser),)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: all."""
    return params
