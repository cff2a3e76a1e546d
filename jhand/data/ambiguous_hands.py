"""Hands as a detector of keypoints sees them: heat maps that are sure of some joints and not of others.

What is simulated is a detector that was trained by squares and errs no more than it says. Of a joint whose place it
knows up to a standard deviation s, its map is the mean of the Gaussians, sigma pixels wide, that it was trained on:
wider by s, and lower. Of joints that are hidden it can only say where they might be: those of two or three hands, each
with a chance, by which the true one is drawn; so the highest peak is often not where the joint is. Everywhere there are
faint blobs of other things.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.data.made import read_once
from jhand.data.world.cameras import upright
from jhand.draws import between, normals, uniforms
from jhand.geometry.camera import Camera, project
from jhand.hand.anatomy import pose_from_angles, sample_angles
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams

HIGHEST = lax.Precision.HIGHEST
_hand = read_once(load_hand)
MODES = 3
"""Hands that ambiguous joints may belong to, at most."""


@dataclass(frozen=True)
class AmbiguousScene:
    """What of `ambiguous_hand` can be chosen."""

    size: int = 64
    """Side of the heat maps, pixels."""
    camera: Callable[[Array, Array, Array, tuple[int, int]], Camera] = upright
    """One of `jhand.data.world.cameras`, of the hands in question."""
    hard: float = 0.5
    """Share of hands that have many ambiguous joints."""
    few: tuple[int, int] = (0, 4)
    """How many joints of the other hands are ambiguous, both ends included."""
    many: tuple[int, int] = (5, 12)
    turned: float = 0.35
    """By how much the wrists of the hands in question differ, standard deviation, radians."""
    unsure: tuple[float, float] = (1.0, 3.0)
    """Standard deviation of the place of an ambiguous joint within a mode, in 64ths of the map."""
    sure: tuple[float, float] = (0.2, 0.8)
    """Of the other joints."""
    clutter: float = 0.015
    """Height of the highest blobs of other things."""


def ambiguous_hand(key: Array, scene: AmbiguousScene) -> dict[str, Any]:
    """Right hands of any shape and pose before cameras on any side, and heat maps that are ambiguous of some joints.

    Args:
        key: random key.
        scene: sizes and chances.

    Returns:
        `heatmaps` (21, H, W) float16 from 0 to 1; `keypoints3d` (21, 3) metres in the axes of the camera, about the
        wrist; `keypoints3d_valid` (21,); `keypoints2d` (21, 2) pixels of the map; `ambiguous` (21,) bool.
    """
    keys = jax.random.split(key, 4)
    hand = _hand()
    turns, betas = normals(keys[0], (MODES, 3), (hand.num_betas,))
    pose = pose_from_angles(hand, sample_angles(keys[2], (MODES,)))
    betas = jnp.broadcast_to(jnp.clip(betas, -2.5, 2.5), (MODES, hand.num_betas))
    points = keypoints(hand, HandParams(scene.turned * turns, pose, betas, jnp.zeros((MODES, 3))))
    seen = ambiguous_view(keys[jnp.array([1, 3])], points, scene)
    return {name: x for name, x in seen.items() if name not in ("true", "R_cam_world")}


def ambiguous_view(keys: Array, points: ArrayLike, scene: AmbiguousScene) -> dict[str, Any]:
    """One of three right hands, as who cannot tell them apart in some joints sees it.

    Args:
        keys: (2,) random keys, of what is hidden and true, and of the camera and the detector.
        points: (3, 21, 3) keypoints, metres; wrists are laid on each other. A camera that looks at a palm looks at the
            first one's.
        scene: sizes and chances; hands are as much turned as they come.

    Returns:
        As `ambiguous_hand`, and `true` (), which of the three was drawn to be the true one, and `R_cam_world` (3, 3)
        from the axes of the points to the camera's.
    """
    points = jnp.asarray(points)
    points = points - points[:, :1]
    many, number, middle, two, chances, which = uniforms(keys[0], (), (), (), (), (MODES,), ())
    looking, mapping = jax.random.split(keys[1])
    # all of them are in the picture, so that where the camera looks does not tell which is meant
    cameras = scene.camera(looking, points[::-1].reshape(1, -1, 3), jnp.zeros(1), (scene.size, scene.size))
    camera = jax.tree.map(lambda x: x[0], cameras)
    seen = project(camera, points)

    chances = jnp.where((jnp.arange(MODES) == MODES - 1) & (two < 0.5), 0.0, between(chances, 0.2, 1.0))
    chances = chances / jnp.sum(chances)
    true = jnp.sum(which > jnp.cumsum(chances))
    true = jnp.minimum(true, MODES - 1)
    low, high = (jnp.where(many < scene.hard, a, b) for a, b in zip(scene.many, scene.few, strict=True))
    wanted = low + jnp.floor(number * (high - low + 1))
    about = seen[true, jnp.floor(21 * middle).astype(jnp.int32)]
    nearest = jnp.argsort(jnp.argsort(jnp.linalg.norm(seen[true] - about, axis=-1)))
    ambiguous = nearest < wanted  # what one thing hides lies together
    chances = jnp.where(ambiguous, chances[:, None], (jnp.arange(MODES) == true)[:, None])
    R = camera.T_cam_world[:3, :3]
    return {
        "heatmaps": simulate_heatmaps(mapping, seen, chances, ambiguous, scene).astype(jnp.float16),
        "keypoints3d": jnp.matmul(points[true], R.T, precision=HIGHEST),
        "keypoints3d_valid": jnp.ones(21, bool),
        "keypoints2d": seen[true],
        "ambiguous": ambiguous,
        "true": true,
        "R_cam_world": R,
    }


def simulate_heatmaps(
    key: Array, modes: ArrayLike, chances: ArrayLike, ambiguous: ArrayLike, scene: AmbiguousScene = AmbiguousScene()
) -> Float[Array, "k h w"]:
    """What a detector says of joints that may be at several places.

    Args:
        key: of its errors.
        modes: (M, K, 2) places, pixels of the map.
        chances: (M, K) of each, 1 together.
        ambiguous: (K,) whether a joint is also within a mode unsure.
        scene: size of the maps, errors, clutter.

    Returns:
        (K, H, W), 1 at the peak of a joint of which everything is known.
    """
    at, share = jnp.asarray(modes), jnp.asarray(chances)
    joints = share.shape[1]
    unit = scene.size / 64
    keys = jax.random.split(key)
    off = jax.random.normal(keys[0], at.shape)
    width, height, breadth, place = uniforms(keys[1], share.shape, (2, joints), (2, joints), (2, joints, 2))
    low, high = (jnp.where(jnp.asarray(ambiguous), a, b) for a, b in zip(scene.unsure, scene.sure, strict=True))
    spread = unit * between(width, low, high)
    sigma = 2 * unit
    wide = jnp.sqrt(sigma**2 + spread**2)
    peaks = at + spread[..., None] * off
    centres = jnp.concatenate([peaks, scene.size * place])  # behind the modes, two blobs of clutter for each joint
    widths = jnp.concatenate([wide, unit * between(breadth, 6.0, 12.0)])
    heights = jnp.concatenate([share * (sigma / wide) ** 2, scene.clutter * height])
    pixels = jnp.arange(scene.size)
    across = jnp.exp(-jnp.square((pixels - centres[..., None]) / widths[..., None, None]) / 2)  # (M + 2, K, 2, size)
    return jnp.einsum("mk,mkh,mkw->khw", heights, across[:, :, 1], across[:, :, 0], precision=HIGHEST)
