"""Deformer: a hand in the middle of a few frames, fused from all of them by learned motions (Fu et al., ICCV 2023).

Each frame says how the hand is posed, how it changes to the next frame and to the one before, and how sure it is. By
sums of these changes the poses of all frames are carried to the middle, and averaged as sure as they are, as two
columns of each rotation, before these are made orthonormal. One shape is read of all frames.

Numbers not in the paper are those of the released code. Other than there: transformers are the library's, whose norms
come first and whose tokens get their positions once; the pyramid begins from nothing; hands are right ones, left ones
being mirrored before. For small machines, keypoints and confidences of a detector can stand for the pictures.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jhand.geometry.rotations import rotation_from_6d, so3_exp, so3_log
from jhand.hand import HandModel, HandParams, pose_hand_by_matrices, posed_keypoints
from jhand.hand.kinematics import shape_hand, skin
from jhand.hand.model import rest_joints
from jhand.nn import (
    FPN,
    MLP,
    Decoder,
    Encoder,
    MotionDiscriminator,
    ResNet,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
    map_means,
    max_mse,
    mean_estimate,
    roi_align,
    sinusoidal_places,
    sinusoidal_positions,
)
from jhand.train import LossAux, Stage, Update, adamw


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    sees: Literal["pictures", "keypoints"] = "pictures"
    frames: int = 7
    """Of a window, odd; the middle one is wanted."""
    fusion: Literal["confident", "even", "middle"] = "confident"
    """How frames carried to the middle are averaged: as sure as they are, evenly, or not at all: the middle alone, and
    nothing is learned of motions."""
    steps_supervised: bool = True
    """Whether single steps to the next frame and the one before are trained to be right, not only their sums."""
    error: Literal["max", "mean"] = "max"
    """Squared distances weighted by themselves, or alike."""
    adversarial: float = 10.0
    """Weight of the discriminator's judgement of the frames' poses; 0 trains without it."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Of the backbone, whose blocks are bottlenecks where there are more than two in a stage."""
    backbone: int = 64
    region: int = 32
    """Side of a hand's features."""
    channels: int = 256
    heads: int = 8
    layers: int = 3
    mlp_ratio: float = 1.0
    fused: tuple[int, int] = (1024, 512)
    """Hidden channels of what reads poses, motions and confidences."""
    judge: int = 1024
    """Hidden channels of the discriminator."""
    vertices: int = 1
    """Every so-manieth vertex counts in the loss."""
    rate: float = 1e-5
    decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.frames % 2 == 0 or self.frames < 3:
            raise ValueError(f"frames: expected an odd number of 3 or more, got {self.frames}")

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """What a detector says of keypoints, for a CPU."""
        sizes: dict[str, Any] = {"sees": "keypoints", "channels": 64, "heads": 4, "layers": 2, "fused": (128, 64)}
        sizes |= {"judge": 32, "vertices": 16, "rate": 1e-3, "blocks": (1, 1), "backbone": 16, "region": 8}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """Pictures, on one accelerator."""
        sizes: dict[str, Any] = {"blocks": (2, 2, 2, 2), "region": 16, "rate": 1e-4, "judge": 256}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """A window of frames; of `image` and `box` or of the other two one pixel and zeros, where `Config.sees` not."""

    image: Float[Array, "*b t h w 3"]
    """From 0 to 1."""
    box: Float[Array, "*b t 4"]
    """Region about the hand: left, top, right, bottom, pixels."""
    keypoints2d: Float[Array, "*b t 21 2"]
    """From 0 to 1 across the region."""
    confidence: Float[Array, "*b t 21"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frames:
    """What is read of each frame, and of all together."""

    pose: Float[Array, "*b t 16 6"]
    """First two columns of the wrist's rotation in the axes of the camera, and of the fingers'."""
    forward: Float[Array, "*b t 16 6"]
    """What is added to the pose to get that of the next frame."""
    backward: Float[Array, "*b t 16 6"]
    """And that of the frame before."""
    confidence: Float[Array, "*b t"]
    """A logit."""
    betas: Float[Array, "*b 10"]
    keypoints2d: Float[Array, "*b t 21 2"]
    """From 0 to 1 across the region."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """The hand of the middle frame."""

    params: HandParams
    """In the axes of the camera, the wrist at the origin."""
    keypoints: Float[Array, "*b 21 3"]
    """Metres, in the axes of the camera, about the wrist."""
    weights: Float[Array, "*b t"]
    """How much each frame counts, 1 together."""
    keypoints2d: Float[Array, "*b t 21 2"]


needs = (
    "image",
    "camera.T_cam_world",
    *(f"hands.right.{name}" for name in ("keypoints2d", "visible", "keypoints3d", "keypoints3d_valid")),
    *(f"hands.right.params.{name}" for name in ("global_orient", "hand_pose", "betas")),
)


def prepare(clip: dict[str, Any], config: Config) -> dict[str, Any]:
    """All frames of the first view of a clip, as many as a window has: arrays of a batch. A region is a square of 1.5
    times the longer side of the keypoints' box. For a frame whose hand is not known stands the last before it, from the
    middle outwards, whose hand is; where the middle's is not, the window does not count.
    """
    hand, number = clip["hands"]["right"], clip["hands"]["right"]["keypoints2d"].shape[0]
    if number != config.frames:
        raise ValueError(f"deformer: expected clips of {config.frames} frames, got {number}")
    known = hand["keypoints3d_valid"].all(-1)
    taken = frames_taken(known)
    uv = hand["keypoints2d"][taken, 0]
    low, high = uv.min(1), uv.max(1)
    half = 0.75 * (high - low).max(-1)[:, None] + 1e-6
    middle = (low + high) / 2
    region = (uv - (middle - half)[:, None]) / (2 * half)[:, None]
    hidden = hand["visible"][taken, 0] < 0.5
    join = jnp.concatenate if isinstance(uv, jax.Array) else np.concatenate
    return {
        "image": clip["image"][taken, 0],
        "box": join([middle - half, middle + half], -1),
        "keypoints2d": region,
        "region2d": region,
        "confidence": 1.0 - hidden,
        "hidden": hidden,
        "counts": known[number // 2],
        "keypoints3d": hand["keypoints3d"][taken],
        "R_cam_world": clip["camera"]["T_cam_world"][taken, 0, :3, :3],
        "global_orient": hand["params"]["global_orient"][taken],
        "hand_pose": hand["params"]["hand_pose"][taken],
        "betas": hand["params"]["betas"][number // 2],
    }


def frames_taken(known: Any) -> Any:
    """Indices (T,) of the frames that stand for those of a window, of which (T,) are known: the furthest known one
    between the middle and each, or the middle itself.
    """
    place = np.arange(len(known)) - len(known) // 2
    between = (np.abs(place) <= np.abs(place)[:, None]) & (place * place[:, None] > 0)
    return ((between & known) * np.abs(place) + 0.5 * (place == 0)).argmax(-1)


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...); pictures may be missing."""
    shape = batch["confidence"].shape[:2]
    image = batch["image"].astype(jnp.float32) / 255 if "image" in batch else jnp.zeros((*shape, 1, 1, 3))
    box = jnp.asarray(batch["box"], jnp.float32) if "box" in batch else jnp.zeros((*shape, 4))
    return Inputs(image, box, jnp.asarray(batch["keypoints2d"]), jnp.asarray(batch["confidence"], jnp.float32))


class FromPictures(nn.Module):
    """One token (b, C) and keypoints (b, 21, 2) of each picture and box, from features of the region."""

    config: Config

    @nn.compact
    def __call__(self, image: Array, box: Array) -> tuple[Array, Array]:
        c = self.config
        pyramid = ResNet(c.blocks, c.backbone, max(c.blocks) > 2, name="backbone")((image - 0.45) / 0.225)
        finest = FPN(c.channels, name="pyramid")(pyramid)[0]
        stride = image.shape[1] / finest.shape[1]
        region = roi_align(finest, (box + 0.5) / stride - 0.5, c.region)
        along = jnp.arange(c.region) / c.region
        places = sinusoidal_places(jnp.stack(jnp.meshgrid(along, along), -1), c.channels)
        tokens = (region + places).reshape(len(region), -1, c.channels)
        memory = Encoder(c.layers, c.heads, c.mlp_ratio, name="encoder")(tokens)
        query = self.param("query", nn.initializers.normal(1.0), (1, c.channels))
        asked = jnp.broadcast_to(query, (len(memory), 1, c.channels))
        token = Decoder(c.layers, c.heads, c.mlp_ratio, name="decoder")(asked, memory)[:, 0]
        x = memory
        for _ in range(2):
            x = nn.relu(nn.Dense(c.channels)(x))
        maps = jnp.moveaxis(nn.Dense(21)(x), -1, 1).reshape(-1, 21, c.region, c.region)
        sharpness = self.param("sharpness", nn.initializers.ones_init(), (21,))
        return token, (map_means(maps, sharpness) + 0.5) / c.region


class FromKeypoints(nn.Module):
    """The same from what a detector says: keypoints stay as they are."""

    config: Config

    @nn.compact
    def __call__(self, points: Array, confidence: Array) -> tuple[Array, Array]:
        c = self.config
        seen = jnp.concatenate([2 * points - 1, confidence[..., None]], -1).reshape(len(points), -1)
        return MLP(2 * c.channels, c.channels, name="token")(seen), points


class Network(nn.Module):
    """What is read of windows (b, T, ...)."""

    config: Config

    @nn.compact
    def __call__(self, inputs: Inputs, hand: HandModel) -> Frames:
        c = self.config
        b, t = inputs.confidence.shape[:2]
        each = jax.tree.map(lambda x: x.reshape(b * t, *x.shape[2:]), inputs)
        if c.sees == "pictures":
            token, points = FromPictures(c, name="seen")(each.image, each.box)
        else:
            token, points = FromKeypoints(c, name="seen")(each.keypoints2d, each.confidence)
        token, points = token.reshape(b, t, -1), points.reshape(b, t, 21, 2)
        memory = Encoder(c.layers, c.heads, c.mlp_ratio, name="over_time")(
            token + sinusoidal_positions(jnp.arange(t), c.channels)
        )
        query = self.param("query", nn.initializers.normal(1.0), (1, c.channels))
        asked = jnp.broadcast_to(query, (b, 1, c.channels))
        shape = Decoder(c.layers, c.heads, c.mlp_ratio, name="of_shape")(asked, memory)[:, 0]
        x = jnp.concatenate([memory, points.reshape(b, t, -1)], -1)
        for width in c.fused:
            x = nn.leaky_relu(nn.Dense(width)(x))
        small = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
        pose, forward, backward = (
            nn.Dense(96, kernel_init=small, name=name)(x).reshape(b, t, 16, 6) for name in ("pose", "next", "last")
        )
        confidence = nn.Dense(1, name="confidence")(x)[..., 0]
        betas = nn.Dense(10, kernel_init=small, name="betas")(shape)
        return Frames(mean_estimate(hand).pose + pose, forward, backward, confidence, betas, points)


def carried_to_the_middle(frames: Frames) -> Float[Array, "*b t 16 6"]:
    """The poses of all frames (..., T, 16, 6) as they are in the middle one: with the sum of all steps in between."""
    middle = frames.pose.shape[-3] // 2
    before, after = frames.forward[..., :middle, :, :], frames.backward[..., middle + 1 :, :, :]
    ahead = jnp.flip(jnp.cumsum(jnp.flip(before, -3), -3), -3)
    back = jnp.cumsum(after, -3)
    return frames.pose + jnp.concatenate([ahead, jnp.zeros_like(frames.pose[..., :1, :, :]), back], -3)


def fused(frames: Frames, config: Config) -> tuple[Float[Array, "*b 16 6"], Float[Array, "*b t"]]:
    """The pose of the middle frame (..., 16, 6), and the weights (..., T) of all frames in it."""
    t = frames.confidence.shape[-1]
    if config.fusion == "middle":
        weights = jnp.broadcast_to(jnp.arange(t) == t // 2, frames.confidence.shape).astype(jnp.float32)
    elif config.fusion == "even":
        weights = jnp.full_like(frames.confidence, 1 / t)
    else:
        weights = nn.softmax(frames.confidence, -1)
    return jnp.einsum("...t,...tjd->...jd", weights, carried_to_the_middle(frames)), weights


def init(key: Array, config: Config, hand: HandModel) -> dict[str, Any]:
    """`{"params": {"network", "judge"}, "stats"}` of the first values."""
    keys = jax.random.split(key)
    side = 64 if config.sees == "pictures" else 1
    t = config.frames
    inputs = Inputs(
        jnp.zeros((1, t, side, side, 3)), jnp.ones((1, t, 4)), jnp.zeros((1, t, 21, 2)), jnp.zeros((1, t, 21))
    )
    network = Network(config).init(keys[0], inputs, hand)
    judge = _judge(config).init(keys[1], jnp.zeros((1, t, 46)))
    return {"params": {"network": network["params"], "judge": judge["params"]}, "stats": {}}


def _judge(config: Config) -> MotionDiscriminator:
    return MotionDiscriminator(config.judge, config.judge)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """True hands of windows, in the axes of the camera, the wrist at the origin."""

    rotations: Float[Array, "b t 16 3 3"]
    betas: Float[Array, "b 10"]
    keypoints: Float[Array, "b t 21 3"]
    vertices: Float[Array, "b t v 3"]
    counts: Float[Array, "b"]
    """0 for windows of whose middle nothing is known, which no loss looks at."""


def targets(batch: dict[str, Array], config: Config, hand: HandModel) -> Targets:
    """Of a batch (B, T, ...) of `prepare` or `jhand.data.hidden_hands.hidden_hand`."""
    turns = jnp.concatenate([batch["global_orient"][..., None, :], batch["hand_pose"]], -2)
    rotations = so3_exp(turns)
    wrist = jnp.matmul(batch["R_cam_world"], rotations[..., 0, :, :], precision="highest")
    rotations = jnp.concatenate([wrist[..., None, :, :], rotations[..., 1:, :, :]], -3)
    betas = jnp.asarray(batch["betas"])
    keypoints, vertices = posed(rotations, betas[:, None], config, hand)
    return Targets(rotations, betas, keypoints, vertices, jnp.asarray(batch["counts"], jnp.float32))


def posed(
    rotations: Array, betas: Array, config: Config, hand: HandModel
) -> tuple[Float[Array, "*b 21 3"], Float[Array, "*b v 3"]]:
    """Keypoints and some of the vertices, metres, of rotations (..., 16, 3, 3) and betas (..., 10), about the wrist."""
    every = slice(None, None, config.vertices)
    few = _few(hand, every)
    betas = jnp.broadcast_to(betas, (*rotations.shape[:-3], betas.shape[-1]))
    shaped = shape_hand(few, betas)
    placed = pose_hand_by_matrices(shaped.joints, rotations, -shaped.joints[..., 0, :])
    return posed_keypoints(hand, betas, placed), skin(few, shaped, placed)


def _few(hand: HandModel, every: slice) -> HandModel:
    """The hand with a part of its vertices: for their places alone."""
    return replace(
        hand, basis=hand.basis[..., every], weights=hand.weights[every], J_regressor=hand.J_regressor[:, every]
    )


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """The hand of each frame, single steps between frames, the middle's fused one, and what the discriminator thinks.

    Args:
        variables: of `init`.
        batch: of `prepare` or `jhand.data.hidden_hands.hidden_hand`: `confidence` (B, T, 21) and so on.
        config: sizes.
        hand: a right one.
        key: not used.
    """
    params = variables["params"]
    frames: Any = Network(config).apply({"params": params["network"]}, inputs_of(batch), hand)
    wanted = targets(batch, config, hand)
    terms = loss_terms(frames, wanted, batch, config, hand)
    if config.adversarial:
        judge = {"params": jax.lax.stop_gradient(params["judge"])}
        score: Any = _judge(config).apply(judge, motion_of(so3_log(rotation_from_6d(frames.pose[..., 1:, :]))))
        terms["adversarial"] = config.adversarial * mean_over(lsgan_generator_loss(score), wanted.counts)
    return sum(terms.values(), jnp.zeros(())), LossAux(terms=terms, outputs=frames)


def loss_terms(
    frames: Frames, wanted: Targets, batch: dict[str, Array], config: Config, hand: HandModel
) -> dict[str, Array]:
    """The terms of `loss` but the discriminator's, weighted; `batch` has `region2d` (B, T, 21, 2)."""
    terms = _hand_terms("each", frames.pose, frames.betas[:, None], wanted, config, hand)
    terms["betas"] = 0.1 * mean_over(jnp.square(frames.betas - wanted.betas), wanted.counts)
    counts = jnp.all(batch["region2d"] > 0, -1, keepdims=True) & (wanted.counts[:, None, None, None] > 0)
    off = jnp.where(counts, jnp.square(frames.keypoints2d - batch["region2d"]), 0)
    terms["keypoints2d"] = 100 * jnp.sum(off) / jnp.maximum(2 * jnp.sum(counts), 1)
    if config.fusion != "middle" and config.steps_supervised:
        later, earlier = (_at(wanted, part) for part in (slice(1, None), slice(None, -1)))
        forward = (frames.pose + frames.forward)[:, :-1]
        backward = (frames.pose + frames.backward)[:, 1:]
        terms |= _hand_terms("next", forward, frames.betas[:, None], later, config, hand)
        terms |= _hand_terms("last", backward, frames.betas[:, None], earlier, config, hand)
    middle = config.frames // 2
    whole = fused(frames, config)[0][:, None]
    terms |= _hand_terms("middle", whole, frames.betas[:, None], _at(wanted, slice(middle, middle + 1)), config, hand)
    return terms


def _at(wanted: Targets, part: slice) -> Targets:
    return Targets(
        wanted.rotations[:, part], wanted.betas, wanted.keypoints[:, part], wanted.vertices[:, part], wanted.counts
    )


def mean_over(values: Array, counts: Array) -> Array:
    """The mean of values (B, ...) over the windows that count (B,); what the others hold is not looked at."""
    each = jnp.mean(values.reshape(len(values), -1), -1)
    return jnp.sum(jnp.where(counts > 0, each, 0)) / jnp.maximum(jnp.sum(counts), 1)


def _hand_terms(
    name: str, pose: Array, betas: Array, wanted: Targets, config: Config, hand: HandModel
) -> dict[str, Array]:
    """Vertices, keypoints and rotations of poses (B, T, 16, 6) against true ones."""
    rotations = rotation_from_6d(pose)
    keypoints, vertices = posed(rotations, betas, config, hand)

    def error(found: Array, true: Array) -> Array:
        if config.error == "max":
            return mean_over(max_mse(found, true), wanted.counts)
        return mean_over(jnp.sum(jnp.square(found - true), -1), wanted.counts)

    return {
        f"{name}_vertices": 1e4 * error(vertices, wanted.vertices),
        f"{name}_keypoints": 1e4 * error(keypoints, wanted.keypoints),
        f"{name}_pose": 10 * mean_over(jnp.square(rotations - wanted.rotations), wanted.counts),
    }


def motion_of(hand_pose: Array) -> Float[Array, "b t 46"]:
    """What the discriminator sees of fingers' axis-angles (B, T, 15, 3): the side of the hand, a right one, and these;
    not how the wrist is turned.
    """
    fingers = hand_pose.reshape(*hand_pose.shape[:2], 45)
    return jnp.concatenate([jnp.ones_like(fingers[..., :1]), fingers], -1)


def loss_judge(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """What is read of frames is to be told from true motions; arguments as `loss`, batches of leaves (B, T, ...)."""
    params = variables["params"]
    frames: Any = Network(config).apply({"params": params["network"]}, inputs_of(batch), hand)
    made = motion_of(so3_log(rotation_from_6d(jax.lax.stop_gradient(frames.pose)[..., 1:, :])))
    real = motion_of(batch["hand_pose"])
    keys = jax.random.split(key)
    judge: Any = partial(_judge(config).apply, {"params": params["judge"]}, deterministic=False)
    scores = [judge(motion, rngs={"dropout": k}) for motion, k in zip((real, made), keys, strict=True)]
    counts = jnp.asarray(batch["counts"], jnp.float32)
    return mean_over(lsgan_discriminator_loss(*scores), counts), LossAux()


def apply(
    variables: dict[str, Any], inputs: Inputs, config: Config, hand: HandModel, *, key: Array | None = None
) -> Outputs:
    """The hands of windows' middle frames.

    Args:
        variables: of `init`.
        inputs: leading axes as they come.
        config: sizes.
        hand: a right one.
        key: not used.

    Raises:
        ValueError: windows of another number of frames.
    """
    batch, t = inputs.confidence.shape[:-2], inputs.confidence.shape[-2]
    if t != config.frames:
        raise ValueError(f"confidence: expected windows (..., {config.frames}, 21), got {inputs.confidence.shape}")
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), inputs)
    frames: Any = Network(config).apply({"params": variables["params"]["network"]}, flat, hand)
    pose, weights = fused(frames, config)
    rotations = rotation_from_6d(pose)
    keypoints, _ = posed(rotations, frames.betas, config, hand)
    turns = so3_log(rotations)
    root = rest_joints(hand, frames.betas)[:, 0]
    params = HandParams(turns[:, 0], turns[:, 1:], frames.betas, -root)
    found = Outputs(params, keypoints, weights, frames.keypoints2d)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)


predict = apply


def stages(config: Config, hand: HandModel, steps: int) -> tuple[Stage, ...]:
    """One: AdamW; the discriminator, where there is one, with a rate of 1e-3."""
    bound = {"config": config, "hand": hand}
    optimiser = adamw(config.rate, steps, weight_decay=config.decay)
    updates = [Update("hands", partial(loss, **bound), optimiser, ("network",))]
    if config.adversarial:
        updates.append(Update("judge", partial(loss_judge, **bound), optax.adamw(1e-3), ("judge",)))
    return (Stage("all", steps, tuple(updates)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: those of the network."""
    return {"network": params["network"]}
