"""Dyn-HaMR: hands in the world from a moving camera, against single frames put together.

Claims  placeholder
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jhand import metrics
from jhand.claims import Claim
from jhand.data.world.cameras import look_at
from jhand.data.world.scripts import finger_motion, sample_shape, wander
from jhand.draws import between, normals, uniforms
from jhand.geometry import Camera, invert_transform, make_camera, project, so3_exp, so3_log, transform
from jhand.hand import (
    HandModel,
    HandParams,
    bone_hulls,
    bone_measures,
    hull_excess,
    keypoints,
    load_hand,
    mirror_params,
    mirror_points,
    pose_from_angles,
    rest_joints,
    with_T_world_wrist,
)
from jhand.motion import between_keyframes, init_motion_prior, motion_prior_loss, move_points
from jhand.solving import Problems, SolveExperiment, main
from jhand.systems import dynhamr as system
from jhand.systems.dynhamr import Config, Inputs, Outputs
from jhand.train import LossAux, ModelCard, Stage, Update, adamw, load_weights, save_weights, train

RIGHT = np.array([True, False])


@dataclass(frozen=True)
class Scene:
    """Two hands, a camera that somebody carries, and what goes wrong between them and the system."""

    frames: int = 64
    fps: float = 30.0
    size: tuple[int, int] = (1080, 1920)
    focal: float = 1400.0
    pace: float = 0.6
    """Seconds of the world's hands in a second."""
    distance: float = 0.7
    """Of the camera from the hands, metres."""
    walk: float = 0.2
    """Standard deviation of each coordinate of the places that the camera goes to, one each half second, metres."""
    gaze: float = 0.08
    """The same of what it looks at, about the middle of the hands."""
    noise: tuple[float, float] = (2.0, 6.0)
    """Standard deviation of keypoints in the picture, pixels; a surer one has less."""
    depth: tuple[float, float] = (0.05, 0.10)
    """Of the regressor's distance from the camera, a share of it, by clip."""
    turns: tuple[float, float] = (0.1, 0.15)
    """Of its wrists and of its fingers' joints, radians."""
    shape: float = 0.3
    """Of its shape coefficients, by clip, and again by frame."""
    gap: tuple[int, int] = (20, 40)
    """Frames in which a hand is not seen, once a clip."""
    lost: float = 0.03
    """Share of other frames in which it is not."""
    scale: tuple[float, float] = (0.3, 3.0)
    """Metres in the unit of the path."""
    drift: tuple[float, float] = (0.01, 0.02)
    """Of the path at its end: a share of its length, and radians."""
    clips: int = 8192
    """That the motion prior is trained on."""
    steps: int = 8000
    batch: int = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truth:
    """What was there."""

    keypoints: Float[Array, "n 2 t 21 3"]
    """Metres, axes of the first camera."""
    cameras: Camera
    """(N, T), metres."""
    world_scale: Float[Array, "n"]
    with_head: Bool[Array, "n"]
    """Whether the hands ride along with the camera."""
    missing: Bool[Array, "n 2 t"]
    """Frames in which hands were not seen, but before and after."""


def problems(seed: int, preset: Problems, folder: Path) -> tuple[Inputs, Truth]:
    """Two hands before a camera that is carried, by somebody else or by whose hands they are, in turn."""
    scene, hand = preset.scene, load_hand()
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), seed), preset.number)
    with_head = jnp.arange(preset.number) % 2 == 1
    inputs, truth = jax.jit(jax.vmap(partial(_clip, scene, hand)))(keys, with_head)
    prior = trained_prior(scene, preset.config.prior, hand, folder)
    prior = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (preset.number, *leaf.shape)), prior)
    return replace(inputs, prior=prior), truth


def _clip(scene: Scene, hand: HandModel, key: Array, with_head: Array) -> tuple[Inputs, Truth]:
    """A clip in which all is known, and what a regressor, a detector of keypoints and a SLAM system say of it."""
    keys = jax.random.split(key, 5)
    times = jnp.arange(scene.frames) / scene.fps
    params, cameras = _world(scene, hand, keys[0], times, with_head)
    points = _points(hand, params)
    seen = _seen(scene, keys[1])
    exact = project(cameras, points)
    sigma, spread = jax.random.uniform(keys[2], exact.shape[:-1]), jax.random.normal(keys[3], exact.shape)
    uv = exact + between(sigma, *scene.noise)[..., None] * spread
    estimates, path, world_scale = _said(scene, hand, keys[4], params, cameras)
    inputs = Inputs(
        cameras=path,
        moving=jnp.array(True),
        right=jnp.asarray(RIGHT),
        keypoints2d=jnp.where(seen[..., None, None], uv, 0),
        confidence=jnp.where(seen[..., None], 1 - 0.5 * sigma, 0),
        estimates=estimates,
        seen=seen,
        prior={},
    )
    inside = jax.lax.cummax(seen.astype(int), 1) * jax.lax.cummax(seen.astype(int), 1, reverse=True) > 0
    return inputs, Truth(points, cameras, world_scale, with_head, inside & ~seen)


def _world(scene: Scene, hand: HandModel, key: Array, times: Array, with_head: Array) -> tuple[HandParams, Camera]:
    """Hands (2, T), the left one of a left hand's model, and the cameras (T,), in the axes of the first."""
    keys = jax.random.split(key, 6)
    betas = jnp.broadcast_to(sample_shape(keys[0], hand), (scene.frames, hand.num_betas))
    walk, gaze, eye = normals(keys[1], (8, 3), (8, 3), (3,))
    progress = between_keyframes(times, 0.5 * jnp.arange(7) - 0.5, jnp.full(7, 1.0))
    path = move_points(progress, scene.walk * walk)
    path = path - path[:1]
    ride = jnp.where(with_head, path, 0)
    right, left = (_hand(hand, k, times * scene.pace, betas, ride) for k in keys[2:4])
    left = mirror_params(left)
    left = replace(left, transl=left.transl + ride - mirror_points(ride))
    params = jax.tree.map(lambda a, b: jnp.stack([a, b]), right, left)
    middle = jnp.mean(_points(hand, params), (0, 1, 2)) - jnp.mean(ride, 0)
    eye = middle + scene.distance * jnp.array([0.0, -0.5, -0.85]) + 0.1 * eye + path
    T = jax.vmap(look_at)(eye, middle + ride + move_points(progress, scene.gaze * gaze))
    T_first_world = T[0]
    height, width = scene.size
    cameras = make_camera(
        focal=jnp.full((scene.frames, 2), scene.focal),
        principal=jnp.broadcast_to(jnp.array([(width - 1) / 2, (height - 1) / 2]), (scene.frames, 2)),
        T_cam_world=jnp.matmul(T, invert_transform(T_first_world), precision="highest"),
        distortion=jnp.zeros((scene.frames, 8)),
    )
    return _carried(hand, params, T_first_world), cameras


def _hand(hand: HandModel, key: Array, times: Array, betas: Array, ride: Array) -> HandParams:
    """A right hand (T,) that works beside another."""
    keys = jax.random.split(key, 4)
    pose = pose_from_angles(hand, finger_motion(keys[0], hand, times))
    aside, turned = normals(keys[1], (3,), (3,))
    T = wander(keys[2], so3_exp(0.8 * turned), jnp.array([0.13, 0.0, 0.0]) + 0.03 * aside, times)
    T = T.at[:, :3, 3].add(ride)
    zeros = jnp.zeros((len(times), 3))
    return with_T_world_wrist(hand, HandParams(zeros, pose, betas, zeros), T)


def _points(hand: HandModel, params: HandParams) -> Float[Array, "2 t 21 3"]:
    """Keypoints of a right and a left hand."""
    right, left = (jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2))
    return jnp.stack([keypoints(hand, right), mirror_points(keypoints(hand, mirror_params(left)))])


def _roots(hand: HandModel, betas: Array) -> Array:
    """Root joints (2, T, 3) at zero translation."""
    return system.root_joint(hand, betas, jnp.broadcast_to(RIGHT[:, None], betas.shape[:-1]))


def _carried(hand: HandModel, params: HandParams, T: Array) -> HandParams:
    """Hands (2, T) in the axes that rigid transforms (4, 4) or (T, 4, 4) lead to."""
    root = _roots(hand, params.betas)
    R, wrist = T[..., :3, :3], params.transl + root
    orient = so3_log(jnp.matmul(R, so3_exp(params.global_orient), precision="highest"))
    there = jnp.einsum("...ij,...j->...i", R, wrist, precision="highest") + T[..., :3, 3]
    return replace(params, global_orient=orient, transl=there - root)


def _seen(scene: Scene, key: Array) -> Bool[Array, "2 t"]:
    """Frames that show each hand: not a stretch of them, and not a few others; the first and the last are there."""
    length, begin, others = uniforms(key, (2, 1), (2, 1), (2, scene.frames))
    t = jnp.arange(scene.frames)
    length = jnp.floor(between(length, scene.gap[0], scene.gap[1] + 1))
    begin = jnp.floor(between(begin, 6, scene.frames - 6 - length))
    seen = ((t < begin) | (t >= begin + length)) & (others > scene.lost)
    return seen | (t == 0) | (t == scene.frames - 1)


def _said(
    scene: Scene, hand: HandModel, key: Array, params: HandParams, cameras: Camera
) -> tuple[HandParams, Camera, Array]:
    """What a regressor says of each frame, in camera axes; the path that a SLAM system gives; metres in its unit."""
    keys = jax.random.split(key, 3)
    hands, frames = params.transl.shape[:2]
    far, fingers, turned, shape, by_frame, slip, tilt = normals(
        keys[0],
        (hands, frames, 1),
        (hands, frames, 15, 3),
        (hands, frames, 3),
        (hands, 1, hand.num_betas),
        (hands, frames, hand.num_betas),
        (3,),
        (3,),
    )
    worst, unit = uniforms(keys[1], (), ())
    seen = _carried(hand, params, cameras.T_cam_world)
    betas = seen.betas + scene.shape * (shape + by_frame)
    wrist = (seen.transl + _roots(hand, seen.betas)) * jnp.exp(between(worst, *scene.depth) * far)
    estimates = HandParams(
        global_orient=so3_log(
            jnp.matmul(so3_exp(scene.turns[0] * turned), so3_exp(seen.global_orient), precision="highest")
        ),
        hand_pose=so3_log(
            jnp.matmul(so3_exp(seen.hand_pose), so3_exp(scene.turns[1] * fingers), precision="highest")
        ),
        betas=betas,
        transl=wrist - _roots(hand, betas),
    )
    world_scale = jnp.exp(between(unit, np.log(scene.scale[0]), np.log(scene.scale[1])))
    T_world_cam = invert_transform(cameras.T_cam_world)
    centre, share = T_world_cam[:, :3, 3], jnp.linspace(0, 1, frames)[:, None]
    length = jnp.sum(jnp.linalg.norm(jnp.diff(centre, axis=0), axis=-1))
    drifted = centre + scene.drift[0] * length * share * slip
    R = jnp.matmul(so3_exp(scene.drift[1] * share * tilt), T_world_cam[:, :3, :3], precision="highest")
    T = T_world_cam.at[:, :3, :3].set(R).at[:, :3, 3].set(drifted / world_scale)
    return estimates, replace(cameras, T_cam_world=invert_transform(T)), world_scale
