"""Dyn-HaMR: two hands in a world frame from the video of a moving camera (Yu et al., CVPR 2025, arXiv 2412.12861).

Three stages, and nothing is learned but a motion prior. First, what a regressor says of single frames becomes tracks,
whose missing frames are interpolated, and the path that a SLAM system gives lifts them from the camera to the world.
Second, descents on a reprojection, on joints that move smoothly in the world and on what hands can do: wrists alone,
then everything, the unknown scale of the path included. Third, poses become those that a latent of the motion prior
decodes to; where nothing was seen, the prior moves the fingers.

The scale multiplies the translations of the path and nothing else. Hands have a metric size, so they are as far from
the camera as they are; a wrong scale then shows as motion of the hands in the world, which smoothness charges. Where
hands ride along with the camera, smoothness is wrong about them, and the scale is too small.

The paper's weights mean pixels, metres and radians, as everything here does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jhand.fitting import lbfgs
from jhand.geometry import (
    Camera,
    close_holes,
    closest_on_mesh,
    geodesic_distance,
    invert_transform,
    project,
    so3_exp,
    so3_log,
    winding_number,
)
from jhand.hand import (
    HandModel,
    HandParams,
    bone_hulls,
    bone_limits,
    bone_measures,
    hull_excess,
    mirror_points,
    mirror_rotation,
    pose_hand_by_matrices,
    posed_keypoints,
    rest_joints,
    shape_hand,
    skin,
)
from jhand.motion import (
    OUTSIDE,
    PriorConfig,
    decode_motion,
    encode_motion,
    fill_gaps,
    fill_gaps_rotations,
    frame_states,
)

HIGHEST = lax.Precision.HIGHEST
UNITS = {"transl": 0.01, "global_orient": 0.1, "hand_pose": 0.2, "betas": 0.3, "world_scale": 0.3}
"""What a step of 1 in the descents' unknowns is: metres, radians, radians. A change of variables, not of the cost."""


@dataclass(frozen=True)
class Config:
    """Weights by stage, in the order root, smooth, prior; those of the authors' configuration."""

    reprojection: tuple[float, float, float] = (0.001, 0.001, 0.05)
    """Of squared pixels, robust, times squared confidence."""
    robust: float = 100.0
    """Pixels, beyond which a residual hardly counts more."""
    smooth: tuple[float, float] = (1.0, 10.0)
    """Of half the squared steps of joints, metres."""
    bio: tuple[float, float, float] = (10.0, 10.0, 1.0)
    """Of what is beyond a hand's limits."""
    pose: float = 0.04
    """Of squared axis-angles of the fingers, radians, in the first two stages."""
    shape: tuple[float, float, float] = (0.05, 0.05, 10.0)
    """Of squared shape coefficients; the first two, which count in every frame."""
    penetration: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of metres that one hand is in the other. Published as 0, with (0, 1, 10) beside it."""
    to_previous: float = 10.0
    """Of metres between translations of the third stage and of the second."""
    translation_smooth: float = 10.0
    """Of metres that the wrist moves from frame to frame, in the third stage."""
    orientation_smooth: float = 1.0
    """Of radians that the wrist turns from frame to frame, in the third stage."""
    latent: float = 200 / 1024
    """Of the squares of z_l: the published 200 weighs the mean over 1024 numbers."""
    scale: bool = True
    """Whether the scale of the path is found, or stays 1."""
    still: bool = False
    """Whether the path is ignored, as if the camera stood still."""
    last: Literal["lift", "smooth", "slerp", "prior"] = "prior"
    """What gives the answer: the first stage, the second, it with missing frames interpolated anew, or the third."""
    root_iterations: int = 600
    """Of L-BFGS; published as 30 times 20."""
    smooth_iterations: int = 1200
    """Published as 60 times 20."""
    memory: int = 100
    """Of L-BFGS."""
    prior_iterations: tuple[int, int] = (400, 400)
    """Of Adam: with the fingers held, then with z_l."""
    rate: float = 0.05
    """Of Adam, which decays by a factor."""
    decay: float = 0.7
    decay_every: int = 200
    prior: PriorConfig = field(default_factory=PriorConfig)

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For clips of two seconds on a CPU."""
        iterations = {"root_iterations": 60, "smooth_iterations": 160, "memory": 10, "prior_iterations": (200, 400)}
        return cls(**dict[str, Any](iterations, prior=PriorConfig.tiny()) | changes)

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """For many clips at a time on one accelerator."""
        sizes = {"root_iterations": 200, "smooth_iterations": 600, "memory": 20, "prior": PriorConfig.small()}
        return cls(**dict[str, Any](sizes) | changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published, but for the search along a direction: until the cost decreases enough, not strong Wolfe."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """N clips of T frames, with tracks of B hands, one or two."""

    cameras: Camera
    """Leading axes (N, T): the path of a SLAM system, metres times an unknown number, and intrinsics."""
    moving: Bool[Array, "*n"]
    """False where the camera is known to stand still: then its path is not read."""
    right: Bool[Array, "*n b"]
    """Which hand a track is."""
    keypoints2d: Float[Array, "*n b t 21 2"]
    """Pixels."""
    confidence: Float[Array, "*n b t 21"]
    """0 where a keypoint was not found."""
    estimates: HandParams
    """Leading axes (N, B, T): of a regressor, frame by frame, in camera axes; of the model of the hand's own side."""
    seen: Bool[Array, "*n b t"]
    """Frames that the regressor has seen; in others, neither estimates nor keypoints are read."""
    prior: Any
    """Parameters of the motion prior, the same for all clips and repeated N times, so that clips can be picked; an
    empty dict where the third stage is not wanted."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Hands in the world, which is that of the SLAM system with its lengths in metres."""

    params: HandParams
    """Leading axes (N, B, T); of the model of the hand's own side."""
    keypoints: Float[Array, "*n b t 21 3"]
    """Metres."""
    world_scale: Float[Array, "*n"]
    """Metres in a unit of the path."""
    cameras: Camera
    """Leading axes (N, T): the path in metres."""
    states: Int[Array, "*n b t"]
    """Of frames: seen, missing or outside, as `jhand.motion.frame_states` has them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Motion:
    """The unknowns of a clip: B hands in the world, and the scale of the path."""

    transl: Float[Array, "*n b t 3"]
    global_orient: Float[Array, "*n b t 3"]
    hand_pose: Float[Array, "*n b t 15 3"]
    betas: Float[Array, "*n b s"]
    world_scale: Float[Array, "*n"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What a clip's motion is compared with."""

    cameras: Camera
    """(T,), not scaled."""
    moving: Bool[Array, "*n"]
    right: Bool[Array, "*n b"]
    keypoints2d: Float[Array, "*n b t 21 2"]
    confidence: Float[Array, "*n b t 21"]
    inside: Bool[Array, "*n b t"]
    """Frames of the tracks, missing ones included."""


# Stage I: tracks without holes, in the world


def root_joint(hand: HandModel, betas: Array, right: Array) -> Float[Array, "*b 3"]:
    """The joint that orientations turn about, at zero translation: of a right hand, or mirrored.

    Args:
        hand: right.
        betas: (..., B) shape.
        right: bool (...).
    """
    root = rest_joints(hand, betas)[..., 0, :]
    return jnp.where(jnp.asarray(right)[..., None], root, mirror_points(root))


def fill_tracks(estimates: HandParams, seen: Array) -> tuple[HandParams, Int[Array, "*b t"]]:
    """Tracks whose missing frames are interpolated: rotations by slerp, each joint's and the root's, translation and
    shape along lines; frames outside hold the nearest.

    Args:
        estimates: leading axes (..., T).
        seen: bool (..., T).

    Returns:
        Parameters (..., T), their shape the mean over the frames of the track, the same in all; states (..., T).
    """
    states = frame_states(seen)
    turns = jnp.concatenate([estimates.global_orient[..., None, :], estimates.hand_pose], -2)
    by_joint = jnp.moveaxis(so3_exp(turns), -3, -4)  # (..., 16, T, 3, 3)
    turns = so3_log(jnp.moveaxis(fill_gaps_rotations(by_joint, jnp.asarray(seen)[..., None, :]), -4, -3))
    inside = (states != OUTSIDE)[..., None]
    betas = jnp.sum(jnp.where(inside, fill_gaps(estimates.betas, seen), 0), -2, keepdims=True)
    betas = betas / jnp.maximum(jnp.sum(inside, -2, keepdims=True), 1)
    transl = fill_gaps(estimates.transl, seen)
    return HandParams(
        turns[..., 0, :], turns[..., 1:, :], jnp.broadcast_to(betas, estimates.betas.shape), transl
    ), states


def lift(params: HandParams, cameras: Camera, hand: HandModel, right: Array) -> HandParams:
    """Hands from camera axes to the world: x_w = R^T (x_c + root) + c - root, since hands turn about their root joint.

    Args:
        params: leading axes (B, T).
        cameras: (T,), T_cam_world = (R, t), which stand at c = -R^T t.
        hand: right.
        right: bool (B,).
    """
    R, centre = cameras.T_cam_world[..., :3, :3], camera_centres(cameras)
    root = root_joint(hand, params.betas, right[:, None])
    transl = jnp.einsum("tji,btj->bti", R, params.transl + root, precision=HIGHEST) + centre - root
    turned = jnp.einsum("tji,btjk->btik", R, so3_exp(params.global_orient), precision=HIGHEST)
    return replace(params, global_orient=so3_log(turned), transl=transl)


def camera_centres(cameras: Camera) -> Float[Array, "*b 3"]:
    """Where cameras (...) stand."""
    return invert_transform(cameras.T_cam_world)[..., :3, 3]


def scaled(cameras: Camera, world_scale: Array) -> Camera:
    """Cameras (T,) whose translations are multiplied."""
    return replace(cameras, T_cam_world=cameras.T_cam_world.at[..., :3, 3].multiply(world_scale))


# Terms of the cost


def hand_rotations(motion: Motion) -> Float[Array, "b t 16 3 3"]:
    """The wrist's and the fingers'."""
    return so3_exp(jnp.concatenate([motion.global_orient[..., None, :], motion.hand_pose], -2))


def hand_points(hand: HandModel, motion: Motion, rotations: Array, right: Array) -> Float[Array, "b t 21 3"]:
    """Keypoints in the world; left hands are mirror images of right ones.

    Args:
        hand: right.
        motion: its translations and shapes.
        rotations: (B, T, 16, 3, 3) in place of the motion's own.
        right: bool (B,).
    """
    posed, betas, side = _posed(hand, motion, rotations, right)
    points = posed_keypoints(hand, betas, posed)
    return jnp.where(side, points, mirror_points(points))


def hand_vertices(hand: HandModel, motion: Motion, rotations: Array, right: Array) -> Float[Array, "b t v 3"]:
    """`hand_points` for the skin: vertices (B, T, V, 3)."""
    posed, betas, side = _posed(hand, motion, rotations, right)
    vertices = skin(hand, shape_hand(hand, betas), posed)
    return jnp.where(side, vertices, mirror_points(vertices))


def _posed(hand: HandModel, motion: Motion, rotations: Array, right: Array) -> tuple:
    """Right hands, of which left ones are the mirror images; their shapes (B, T, S); sides (B, 1, 1, 1)."""
    side = right[:, None, None, None]
    betas = jnp.broadcast_to(motion.betas[:, None], (*motion.transl.shape[:2], motion.betas.shape[-1]))
    transl = jnp.where(side[..., 0], motion.transl, mirror_points(motion.transl))
    R = jnp.where(side[..., None], rotations, mirror_rotation(rotations))
    return pose_hand_by_matrices(rest_joints(hand, betas), R, transl), betas, side


def reprojection_term(points: Array, cameras: Camera, pixels: Array, confidence: Array, robust: float) -> Array:
    """sum c^2 s^2 r^2 / (s^2 + r^2) of each coordinate's residual r in pixels (Geman and McClure 1987).

    Args:
        points: (B, T, 21, 3) metres, world frame.
        cameras: (T,).
        pixels: (B, T, 21, 2).
        confidence: (B, T, 21); points of 0 are not read.
        robust: s, pixels.
    """
    missed = jnp.where(confidence[..., None] > 0, project(cameras, points) - pixels, 0)
    squared = missed * missed
    return jnp.sum(confidence[..., None] ** 2 * robust**2 * squared / (robust**2 + squared))


def smooth_term(points: Array, inside: Array) -> Array:
    """Half the sum of squared steps of points (B, T, 21, 3) between frames of a track (B, T), world frame."""
    both = inside[:, 1:] & inside[:, :-1]
    return 0.5 * jnp.sum(jnp.where(both[..., None, None], jnp.square(jnp.diff(points, axis=1)), 0))


def biomechanics_term(points: Array, right: Array, inside: Array) -> Array:
    """What is beyond a hand's limits, of each kind the mean over bones, summed over the frames of tracks (Spurr et al.,
    ECCV 2020, section 4): lengths in metres, the palm's curvature in 1 / metre and spread in radians, and pairs of
    flexion and abduction outside of their convex hulls.

    Args:
        points: (B, T, 21, 3) metres.
        right: bool (B,).
        inside: bool (B, T).
    """
    found = bone_measures(jnp.where(right[:, None, None, None], points, mirror_points(points)))
    low, high = bone_limits()
    beyond = lambda x, low, high: jnp.maximum(low - x, 0) + jnp.maximum(x - high, 0)  # noqa: E731
    excess = (
        beyond(found.lengths, low.lengths, high.lengths),
        beyond(found.curvature, low.curvature, high.curvature)[..., None],
        beyond(found.spread, low.spread, high.spread)[..., None],
        hull_excess(found.flexion, found.abduction, bone_hulls()),
    )
    each = sum((jnp.mean(x, (-1, -2)) for x in excess), jnp.zeros(inside.shape))
    return jnp.sum(jnp.where(inside, each, 0))


def penetration_term(vertices: Array, faces: Array, right: Array, inside: Array) -> Array:
    """Sum of distances, metres, of the vertices of each of two hands that are in the other from its surface.

    A vertex is in a hand whose watertight mesh goes around it: its wrist is closed by a fan of triangles, and the
    winding number is 0.99 or more.

    Args:
        vertices: (2, T, V, 3) metres.
        faces: (F, 3) of the right hand; not traced.
        right: bool (2,).
        inside: bool (2, T).
    """
    closed = close_holes(np.asarray(faces))
    turned = lambda f, side: jnp.where(side, f, f[:, ::-1])  # noqa: E731  # a mirrored triangle faces inwards

    def of_frame(both: Array) -> Array:
        depth = jnp.zeros(())
        for one, other in ((0, 1), (1, 0)):
            p, v = both[one], both[other]
            deep = winding_number(*lax.stop_gradient((p, v)), turned(jnp.asarray(closed), right[other])) >= 0.99
            away = p - closest_on_mesh(p, v, turned(jnp.asarray(faces), right[other]))[0]
            depth += jnp.sum(jnp.where(deep, jnp.sqrt(jnp.sum(away * away, -1) + 1e-12), 0))
        return depth

    each = lax.map(of_frame, jnp.moveaxis(vertices, 1, 0))
    return jnp.sum(jnp.where(jnp.all(inside, 0), each, 0))


# Stage II: descents


def clip_cost(motion: Motion, seen: Seen, config: Config, hand: HandModel, stage: int) -> Array:
    """What the first two descents make small; `stage` 0 has the weights of root, 1 those of smooth."""
    rotations = hand_rotations(motion)
    points = hand_points(hand, motion, rotations, seen.right)
    cameras = scaled(seen.cameras, motion.world_scale)
    total = config.reprojection[stage] * reprojection_term(
        points, cameras, seen.keypoints2d, seen.confidence, config.robust
    )
    if config.smooth[stage]:
        total += config.smooth[stage] * smooth_term(points, seen.inside)
    if config.bio[stage]:
        total += config.bio[stage] * biomechanics_term(points, seen.right, seen.inside)
    total += config.pose * jnp.sum(jnp.where(seen.inside[..., None, None], jnp.square(motion.hand_pose), 0))
    total += config.shape[stage] * jnp.sum(jnp.sum(seen.inside, -1) * jnp.sum(jnp.square(motion.betas), -1))
    return total + _weighted_penetration(config.penetration[stage], motion, rotations, seen, hand)


def _weighted_penetration(weight: float, motion: Motion, rotations: Array, seen: Seen, hand: HandModel) -> Array:
    if not weight or seen.right.shape[0] < 2:
        return jnp.zeros(())
    vertices = hand_vertices(hand, motion, rotations, seen.right)
    return weight * penetration_term(vertices, hand.faces, seen.right, seen.inside)


def moved(motion: Motion, steps: Mapping[str, Array], seen: Seen) -> Motion:
    """A motion after steps of some of its fields, in `UNITS`, of the fields' shapes, such as (B, T, 3).

    With the scale, hands ride along with their camera, as what is seen of them demands: as unknowns, translations are
    those from the camera. The cost and its minimum are the same; a descent gets there sooner.
    """
    changed = {name: getattr(motion, name) + UNITS[name] * step for name, step in steps.items()}
    if "world_scale" in steps:
        scale = jnp.where(seen.moving, changed["world_scale"], motion.world_scale)
        ride = (scale - motion.world_scale) * camera_centres(seen.cameras)
        changed |= {"world_scale": scale, "transl": changed.get("transl", motion.transl) + ride}
    return replace(motion, **changed)


def descend(
    cost: Callable[[Motion], Array], motion: Motion, free: tuple[str, ...], seen: Seen, iterations: int, memory: int
) -> Motion:
    """A motion moved downhill in some of its fields, the others held; fields as of a clip, such as (B, T, 3)."""
    flat, fields = ravel_pytree({name: jnp.zeros_like(getattr(motion, name)) for name in free})
    found = lbfgs(lambda x: cost(moved(motion, fields(x), seen)), flat, iterations=iterations, memory=memory)
    return moved(motion, fields(found.x), seen)


def optimise(motion: Motion, seen: Seen, config: Config, hand: HandModel) -> Motion:
    """The second stage: wrists, then everything.

    Args:
        motion: of the first stage.
        seen: of one clip.
        config: weights and iterations.
        hand: right.
    """
    root = partial(clip_cost, seen=seen, config=config, hand=hand, stage=0)
    motion = descend(root, motion, ("transl", "global_orient"), seen, config.root_iterations, config.memory)
    smooth = partial(clip_cost, seen=seen, config=config, hand=hand, stage=1)
    free = ("transl", "global_orient", "betas", "hand_pose", *(("world_scale",) if config.scale else ()))
    return descend(smooth, motion, free, seen, config.smooth_iterations, config.memory)


# Stage III: the motion prior


def encode_hands(prior: Any, motion: Motion, right: Array, config: PriorConfig) -> Float[Array, "b w l"]:
    """z_l (B, W, L) of the hands' motion, in as many clips W of the prior's length as it takes; the last frame fills
    them up.
    """
    R = hand_rotations(motion)
    R = jnp.where(right[:, None, None, None, None], R, mirror_rotation(R))
    frames = R.shape[1]
    clips = -(-frames // config.frames)
    R = jnp.pad(R, [(0, 0), (0, clips * config.frames - frames), *[(0, 0)] * 3], mode="edge")
    return encode_motion(prior, R.reshape(R.shape[0], clips, config.frames, 16, 3, 3), config).local


def decode_hands(prior: Any, latents: Array, right: Array, frames: int, config: PriorConfig) -> Array:
    """Rotations (B, T, 15, 3, 3) of the fingers from z_l (B, W, L); the global latent is 0, and the wrist that goes
    with it is not used.
    """
    whole = jnp.zeros((*latents.shape[:-1], config.whole))
    R = decode_motion(prior, latents, whole, jnp.linspace(-1, 1, config.frames), config)
    R = R.reshape(R.shape[0], -1, 16, 3, 3)[:, :frames, 1:]
    return jnp.where(right[:, None, None, None, None], R, mirror_rotation(R))


def prior_cost(
    unknowns: Mapping[str, Array], before: Motion, seen: Seen, config: Config, hand: HandModel, prior: Any
) -> Array:
    """What the third stage makes small, over `transl` and `global_orient` (B, T, 3), `betas` and `latents` (B, W, L).

    Missing frames have no confidence: there the decoded latent and smoothness are alone.
    """
    motion = replace(before, **{name: x for name, x in unknowns.items() if name != "latents"})
    wrist = so3_exp(motion.global_orient)
    fingers = decode_hands(prior, unknowns["latents"], seen.right, wrist.shape[1], config.prior)
    rotations = jnp.concatenate([wrist[:, :, None], fingers], 2)
    points = hand_points(hand, motion, rotations, seen.right)
    cameras = scaled(seen.cameras, motion.world_scale)
    both = seen.inside[:, 1:] & seen.inside[:, :-1]
    steps, turns = jnp.abs(jnp.diff(motion.transl, axis=1)), geodesic_distance(wrist[:, 1:], wrist[:, :-1])
    total = config.reprojection[2] * reprojection_term(
        points, cameras, seen.keypoints2d, seen.confidence, config.robust
    )
    if config.bio[2]:
        total += config.bio[2] * biomechanics_term(points, seen.right, seen.inside)
    total += config.to_previous * jnp.sum(jnp.where(seen.inside[..., None], jnp.abs(motion.transl - before.transl), 0))
    total += config.translation_smooth * jnp.sum(jnp.where(both[..., None], steps, 0))
    total += config.orientation_smooth * jnp.sum(jnp.where(both, turns, 0))
    total += config.shape[2] * jnp.sum(jnp.square(motion.betas))
    total += config.latent * jnp.sum(jnp.square(unknowns["latents"]))
    return total + _weighted_penetration(config.penetration[2], motion, rotations, seen, hand)


def refill(motion: Motion, found: Array) -> Motion:
    """A motion whose missing frames are interpolated from those beside them, as the first stage does; for in them, a
    descent has followed the prior of poses alone, to the flat hand.

    Args:
        motion: of the second stage.
        found: bool (B, T), frames that were seen.
    """
    betas = jnp.zeros((*found.shape, 0))
    filled, _ = fill_tracks(HandParams(motion.global_orient, motion.hand_pose, betas, motion.transl), found)
    return replace(motion, transl=filled.transl, global_orient=filled.global_orient, hand_pose=filled.hand_pose)


def infill(motion: Motion, seen: Seen, config: Config, hand: HandModel, prior: Any) -> Motion:
    """The third stage: the fingers' motion becomes one that the prior decodes.

    Args:
        motion: of the second stage, refilled.
        seen: of one clip.
        config: weights and iterations.
        hand: right.
        prior: parameters of the motion prior.
    """
    cost = partial(prior_cost, before=motion, seen=seen, config=config, hand=hand, prior=prior)
    unknowns = {name: getattr(motion, name) for name in ("transl", "global_orient", "betas")}
    latents = encode_hands(prior, motion, seen.right, config.prior)
    held = adam(lambda x: cost(x | {"latents": latents}), unknowns, config, config.prior_iterations[0])
    found = adam(cost, held | {"latents": latents}, config, config.prior_iterations[1])
    fingers = decode_hands(prior, found.pop("latents"), seen.right, motion.transl.shape[1], config.prior)
    return replace(motion, hand_pose=so3_log(fingers), **found)


def adam(cost: Callable[[dict], Array], start: dict[str, Array], config: Config, iterations: int) -> dict[str, Array]:
    """Unknowns after steps of Adam (Kingma and Ba 2015) whose rate, in `UNITS`, decays in steps; each of any shape,
    such as (B, T, 3).
    """
    rate = optax.exponential_decay(config.rate, config.decay_every, config.decay, staircase=True)
    optimiser = optax.adam(rate)
    after = lambda steps: {name: x + UNITS.get(name, 1.0) * steps[name] for name, x in start.items()}  # noqa: E731

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        steps, moments = state
        change, moments = optimiser.update(jax.grad(lambda s: cost(after(s)))(steps), moments)
        return (optax.apply_updates(steps, change), moments), None

    zero = jax.tree.map(jnp.zeros_like, start)
    (steps, _), _ = lax.scan(step, (zero, optimiser.init(zero)), None, length=iterations)
    return after(steps)


# All of it


def solve(inputs: Inputs, config: Config, hand: HandModel) -> Outputs:
    """Hands and camera of N clips in the world.

    Args:
        inputs: of N clips.
        config: weights, iterations, and the stage that is the last.
        hand: right.

    Raises:
        ValueError: inputs whose axes do not fit together, more than two hands, or no motion prior for the third stage.
    """
    _check(inputs, config, hand)
    prior = jax.tree.map(lambda x: x[0], inputs.prior) if config.last == "prior" else {}
    return _solve_all(replace(inputs, prior={}), prior, config, hand)


@partial(jax.jit, static_argnames="config")
def _solve_all(inputs: Inputs, prior: Any, config: Config, hand: HandModel) -> Outputs:
    return jax.vmap(partial(solve_one, config=config), (0, None, None))(inputs, prior, hand)


def solve_one(inputs: Inputs, prior: Any, hand: HandModel, config: Config) -> Outputs:
    """One clip, its inputs without the axis N."""
    moving = inputs.moving & (not config.still)
    T = jnp.where(moving, inputs.cameras.T_cam_world, jnp.eye(4))
    cameras = replace(inputs.cameras, T_cam_world=T)
    tracks, states = fill_tracks(inputs.estimates, inputs.seen)
    world = lift(tracks, cameras, hand, inputs.right)
    motion = Motion(world.transl, world.global_orient, world.hand_pose, world.betas[:, 0], jnp.ones(()))
    confidence = jnp.where(inputs.seen[..., None], inputs.confidence, 0)
    pixels = jnp.where(confidence[..., None] > 0, inputs.keypoints2d, 0)
    seen = Seen(cameras, moving, inputs.right, pixels, confidence, states != OUTSIDE)
    if config.last != "lift":
        motion = optimise(motion, seen, config, hand)
    if config.last in ("slerp", "prior"):
        motion = refill(motion, inputs.seen)
    if config.last == "prior":
        motion = infill(motion, seen, config, hand, prior)
    betas = jnp.broadcast_to(motion.betas[:, None], tracks.betas.shape)
    return Outputs(
        params=HandParams(motion.global_orient, motion.hand_pose, betas, motion.transl),
        keypoints=hand_points(hand, motion, hand_rotations(motion), inputs.right),
        world_scale=motion.world_scale,
        cameras=scaled(cameras, motion.world_scale),
        states=states,
    )


def _check(inputs: Inputs, config: Config, hand: HandModel) -> None:
    if hand.side != "right":
        raise ValueError("hand: expected the right one; left hands are its mirror images")
    batch = inputs.seen.shape
    if len(batch) != 3 or not 1 <= batch[1] <= 2:
        raise ValueError(f"seen: expected (N, B, T) with one or two hands, got {batch}")
    n, b, t = batch
    expected = {
        "cameras.T_cam_world": (inputs.cameras.T_cam_world, (n, t, 4, 4)),
        "right": (inputs.right, (n, b)),
        "moving": (inputs.moving, (n,)),
        "keypoints2d": (inputs.keypoints2d, (n, b, t, 21, 2)),
        "confidence": (inputs.confidence, (n, b, t, 21)),
        "estimates.transl": (inputs.estimates.transl, (n, b, t, 3)),
        "estimates.betas": (inputs.estimates.betas, (n, b, t, hand.num_betas)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected {shape} beside seen {batch}, got {array.shape}")
    if config.last == "prior" and not inputs.prior:
        raise ValueError('prior: the third stage needs a motion prior; without one, set last="slerp"')
