"""Hands in motion that something hides now and then: what a detector says of a few frames, without pictures."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jhand.data.made import read_once
from jhand.data.world.assets import load_assets
from jhand.data.world.cameras import standing
from jhand.data.world.scripts import one_hand
from jhand.draws import between, normals, uniforms
from jhand.geometry.camera import project
from jhand.hand.kinematics import keypoints

_assets = read_once(load_assets)


@dataclass(frozen=True)
class HiddenScene:
    """What of `hidden_hand` can be chosen."""

    frames: int = 7
    """Of a window, odd."""
    gap: float = 1 / 6
    """Seconds from one to the next."""
    middle: float = 0.8
    """How often something is before the hand in the middle frame."""
    others: float = 0.25
    """And in each of the others."""
    margin: float = 1.5
    """Side of the region about a hand, in longer sides of its keypoints' box."""
    sure: float = 0.01
    """Standard deviation of a seen keypoint, in sides of the region."""
    unsure: float = 0.15
    """Of one that is hidden."""


def hidden_hand(key: Array, scene: HiddenScene) -> dict[str, Any]:
    """Right hands that move, a few frames apart; of keypoints that something hides a detector knows little.

    Args:
        key: random key.
        scene: sizes and chances.

    Returns:
        `keypoints2d` (T, 21, 2) as a detector finds them and `region2d`, where they are, from 0 to 1 across the region
        about the hand of each frame; `confidence` (T, 21) from 0 to 1; `hidden` (T, 21); `counts`, true; `keypoints3d`
        (T, 21, 3) metres and `R_cam_world` (T, 3, 3); `global_orient` (T, 3), `hand_pose` (T, 15, 3), `betas` (10,).
    """
    keys = jax.random.split(key, 4)
    assets, times = _assets(), scene.gap * jnp.arange(scene.frames)
    params = jax.tree.map(lambda x: x[0], one_hand(keys[0], assets, times).params)
    points = keypoints(assets.right, params)
    size = (256, 256)
    camera = standing(keys[1], points, times, size)
    seen = project(camera, points)
    low, high = jnp.min(seen, 1), jnp.max(seen, 1)
    side = scene.margin * jnp.max(high - low, -1)[:, None, None]
    region = (seen - (low + high)[:, None] / 2) / side + 0.5
    there, amount, place, doubt = uniforms(
        keys[2], (scene.frames,), (scene.frames,), (scene.frames,), (scene.frames, 21)
    )
    chance = jnp.where(jnp.arange(scene.frames) == scene.frames // 2, scene.middle, scene.others)
    many = jnp.where(there < chance, jnp.ceil(21 * amount), 0)
    about = jnp.take_along_axis(region, jnp.floor(21 * place).astype(jnp.int32)[:, None, None], 1)
    order = jnp.argsort(jnp.argsort(jnp.linalg.norm(region - about, axis=-1), -1), -1)
    hidden = order < many[:, None]  # what one thing hides lies together
    (off,) = normals(keys[3], region.shape)
    found = region + jnp.where(hidden, scene.unsure, scene.sure)[..., None] * off
    confidence = jnp.where(hidden, between(doubt, 0.0, 0.6), between(doubt, 0.4, 1.0))
    return {
        "keypoints2d": found,
        "region2d": region,
        "confidence": confidence,
        "hidden": hidden,
        "counts": jnp.ones((), bool),
        "keypoints3d": points,
        "R_cam_world": camera.T_cam_world[:, :3, :3],
        "global_orient": params.global_orient,
        "hand_pose": params.hand_pose,
        "betas": params.betas[0],
    }
