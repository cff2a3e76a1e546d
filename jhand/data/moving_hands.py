"""Hands in motion as keypoints that a camera sees, without pictures: what lifting from 2D to 3D is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jhand.data.made import read_once
from jhand.data.world.assets import load_assets
from jhand.data.world.cameras import standing
from jhand.data.world.scripts import one_hand
from jhand.geometry.camera import Camera, project
from jhand.geometry.se3 import transform
from jhand.hand.kinematics import keypoints

_assets = read_once(load_assets)


@dataclass(frozen=True)
class MotionScene:
    """What of `moving_hand` can be chosen."""

    frames: int = 81
    fps: float = 30.0
    size: int = 1000
    """Side of the picture, pixels."""
    camera: Callable[[Array, Array, Array, tuple[int, int]], Camera] = standing
    """One of `jhand.data.world.cameras`."""
    noise: float = 0.0
    """Standard deviation of keypoints in the picture, pixels; 0 sees them where they are."""


def moving_hand(key: Array, scene: MotionScene) -> dict[str, Any]:
    """Right hands that move as those of the synthetic world, and the pixels of their keypoints.

    Args:
        key: random key.
        scene: sizes.

    Returns:
        `keypoints2d` (T, 21, 2) pixels; `keypoints3d` (T, 21, 3) metres in the axes of the camera, about the wrist of
        each frame; `keypoints3d_valid` (T, 21); `size` (2,) width and height, pixels; `right` () true.
    """
    moving, looking, missing = jax.random.split(key, 3)
    assets, times = _assets(), jnp.arange(scene.frames) / scene.fps
    actors = one_hand(moving, assets, times)
    points = keypoints(assets.right, jax.tree.map(lambda x: x[0], actors.params))
    camera = scene.camera(looking, points, times, (scene.size, scene.size))
    off = scene.noise * jax.random.normal(missing, (*points.shape[:2], 2))
    seen = transform(camera.T_cam_world, points)
    return {
        "keypoints2d": project(camera, points) + off,
        "keypoints3d": seen - seen[:, :1],
        "keypoints3d_valid": jnp.ones(points.shape[:2], bool),
        "size": jnp.full(2, float(scene.size)),
        "right": jnp.ones((), bool),
    }
