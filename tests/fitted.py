"""Fits that nothing had to be solved for: the truth with known errors, as results and as recordings."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jhand.data.recording import Recording, make_recording
from jhand.fitting.solver import Fit
from jhand.geometry.camera import WeakCamera
from jhand.hand.anatomy import sample_poses
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandModel, HandParams
from jhand.results import Result, result_of
from jhand.studies import Study

SCALE = 640.0  # pixels per metre


NUM_POSES = 16


@jax.jit
def _poses(hand: HandModel, key: jax.Array) -> tuple[HandParams, jax.Array]:
    k = jax.random.split(key, 4)
    betas = jnp.clip(jax.random.normal(k[2], (hand.num_betas,)), -2, 2)
    params = HandParams(
        global_orient=jax.random.normal(k[0], (NUM_POSES, 3)),
        hand_pose=sample_poses(k[1], hand, (NUM_POSES,)),
        betas=jnp.broadcast_to(betas, (NUM_POSES, hand.num_betas)),
        transl=0.2 * jax.random.normal(k[3], (NUM_POSES, 3)) + jnp.array([0.0, 0.0, 1.0]),
    )
    return params, keypoints(hand, params)


def poses_of(hand: HandModel, num_frames: int, seed: int = 0) -> tuple[HandParams, np.ndarray]:
    """Poses of one hand, which repeat after the first few, and their keypoints; compiled once whatever their number."""
    frames = np.arange(num_frames) % NUM_POSES
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[frames]), _poses(hand, jax.random.key(seed)))


def study_of(hand: HandModel, num_frames: int = 7, *, name: str = "clip", dims: int = 3, seed: int = 0) -> Study:
    """A recording near its hand (2 mm or 1 px); point 4 is unseen in frame 1, and all of frame 2."""
    params, points = poses_of(hand, num_frames, seed)
    off = np.random.default_rng(seed).normal(size=(num_frames, 21, dims))
    seen = np.ones((num_frames, 21), bool)
    seen[1 % num_frames, 4] = False
    seen[2:3] = False
    weak = WeakCamera(scale=jnp.full(num_frames, SCALE), offset=jnp.zeros((num_frames, 2)))
    if dims == 3:
        measured = np.asarray(points) + 2e-3 * off
        errors = np.linalg.norm(2e-3 * off, axis=-1)
        camera = None
    else:
        measured = SCALE * np.asarray(points)[..., :2] + off
        errors = np.linalg.norm(off, axis=-1)
        camera = weak
    fields = {"keypoints3d" if dims == 3 else "keypoints2d": measured}
    recording: Recording = make_recording(
        name, side=hand.side, fps=25.0, confidence=seen.astype(np.float32), size=(640, 480), **fields
    )
    found = Fit(
        params=params,
        keypoints=points,
        landmarks=points,
        errors=jnp.asarray(np.where(seen, errors, 0), jnp.float32),
        rms=jnp.asarray(errors.mean(-1), jnp.float32),
        cost=jnp.zeros(num_frames),
        converged=jnp.ones(num_frames, bool),
        doubt=jnp.zeros(num_frames, int),
        covariance=jnp.zeros((num_frames, 51 + hand.num_betas, 51 + hand.num_betas)),
        camera=camera,
        runner_up=None,
        runner_up_cost=None,
    )
    unit = "mm" if dims == 3 else "px"
    return Study(recording, found, np.asarray(found.errors) * (1e3 if dims == 3 else 1), seen, unit, "made for a test")


def fitted(hand: HandModel, num_frames: int = 7, **rest) -> Result:
    return result_of(hand, study_of(hand, num_frames, **rest))


def renamed(result: Result, name: str) -> Result:
    return replace(result, name=name)
