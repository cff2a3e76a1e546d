"""Bones and the angles between them from keypoints alone, without a model: what biomechanical constraints look at."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.anatomy import sample_poses
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams

HIGHEST = lax.Precision.HIGHEST
_POSES = 4096  # that limits are measured on
_CORNERS = 24  # of a hull


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bones:
    """A right hand's bones, by finger from thumb to little (Spurr et al., ECCV 2020, section 4)."""

    lengths: Float[Array, "*b 5 4"]
    """Metres, from the wrist outwards."""
    curvature: Float[Array, "*b 4"]
    """Of the palm between neighbouring fingers, 1 / metre: how its normal turns."""
    spread: Float[Array, "*b 4"]
    """Angles between neighbouring fingers' first bones, radians."""
    flexion: Float[Array, "*b 5 3"]
    """Of the three outer bones against the one before, radians, towards the palm positive."""
    abduction: Float[Array, "*b 5 3"]
    """Likewise sideways, towards the thumb's side positive."""


def bone_measures(points: ArrayLike) -> Bones:
    """Lengths and angles of a right hand's bones; of a left hand's, mirror its points first.

    The frame of a finger's first bone has the palm's normal at that finger; those further out are carried along by the
    least turn from one bone to the next.

    Args:
        points: (..., 21, 3) keypoints, metres.

    Raises:
        ValueError: points of another shape.
    """
    x = jnp.asarray(points)
    if x.shape[-2:] != (21, 3):
        raise ValueError(f"points: expected keypoints (..., 21, 3), got {x.shape}")
    fingers = x[..., 1:, :].reshape(*x.shape[:-2], 5, 4, 3)
    first = fingers[..., 0, :] - x[..., :1, :]
    outer = jnp.diff(fingers, axis=-2)
    between = _unit(jnp.cross(first[..., 1:, :], first[..., :-1, :]))
    normals = jnp.concatenate(
        [between[..., :1, :], _unit(between[..., 1:, :] + between[..., :-1, :]), between[..., -1:, :]], -2
    )
    aside = first[..., 1:, :] - first[..., :-1, :]
    curvature = jnp.sum(jnp.diff(normals, axis=-2) * aside, -1) / jnp.maximum(jnp.sum(aside * aside, -1), 1e-12)

    def carried(frame: tuple[Array, Array, Array], bone: Array) -> tuple[tuple[Array, Array, Array], Array]:
        up, side, along = frame
        to_palm, to_side, ahead = (jnp.sum(bone * axis, -1) for axis in (-up, side, along))
        flat = jnp.sqrt(to_palm**2 + ahead**2 + 1e-18)
        angles = jnp.stack([jnp.arctan2(to_palm, ahead), jnp.arctan2(to_side, flat)], -1)
        there = _unit(bone)
        turn, cosine = jnp.cross(along, there), jnp.sum(along * there, -1, keepdims=True)

        def turned(v: Array) -> Array:
            once = jnp.cross(turn, v)
            return v + once + jnp.cross(turn, once) / jnp.maximum(1 + cosine, 1e-6)

        return (turned(up), turned(side), there), angles

    along = _unit(first)
    up = _unit(normals - jnp.sum(normals * along, -1, keepdims=True) * along)
    _, angles = lax.scan(carried, (up, jnp.cross(up, along), along), jnp.moveaxis(outer, -2, 0))
    angles = jnp.moveaxis(angles, 0, -2)
    return Bones(
        lengths=jnp.concatenate([_length(first)[..., None], _length(outer)], -1),
        curvature=curvature,
        spread=_angle(first[..., 1:, :], first[..., :-1, :]),
        flexion=angles[..., 0],
        abduction=angles[..., 1],
    )


@cache
def bone_limits(margin: float = 0.02) -> tuple[Bones, Bones]:
    """What the built-in hand's bones can be: lower and upper limits, over its range of motion and of shapes.

    Measured on `sample_poses` and shapes of a standard normal distribution.

    Args:
        margin: share of samples that lie beyond each limit.

    Returns:
        Lower and upper, numpy.
    """
    with jax.ensure_compile_time_eval():
        low, high = (
            jax.tree.map(lambda x, q=q: jnp.asarray(np.quantile(np.asarray(x), q, 0), jnp.float32), _sampled_bones())
            for q in (margin, 1 - margin)
        )
    return low, high


@cache
def bone_hulls() -> Float[np.ndarray, "5 3 corners 2"]:
    """Which flexions and abductions go together: of each outer bone, a convex polygon around the pairs that those of
    the built-in hand take over its range of motion and of shapes (Spurr et al., ECCV 2020, section 4.3).

    Measured on what `bone_limits` is measured on; a corner is the farthest sample in each of 24 directions.

    Returns:
        (5, 3, 24, 2) corners (flexion, abduction), radians, counter-clockwise; a corner may be there several times.
    """
    with jax.ensure_compile_time_eval():
        found = _sampled_bones()
        pairs = np.stack([np.asarray(found.flexion), np.asarray(found.abduction)], -1)
    around = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    directions = np.stack([np.cos(around), np.sin(around)])
    scaled = pairs / np.maximum(pairs.std(0), 1e-6)
    farthest = np.argmax(scaled @ directions, 0)  # (5, 3, corners)
    finger, bone = np.arange(5)[:, None, None], np.arange(3)[None, :, None]
    return pairs[farthest, finger, bone].astype(np.float32)


def hull_excess(flexion: ArrayLike, abduction: ArrayLike, hulls: ArrayLike) -> Float[Array, "*b 5 3"]:
    """How far pairs of angles are outside of their hulls: |cos a - cos b| + |sin a - sin b| of each angle a and that of
    the closest point b of the hull's edges, both angles together; 0 within.

    Args:
        flexion: (..., 5, 3) radians, as of `bone_measures`.
        abduction: (..., 5, 3) radians.
        hulls: (5, 3, C, 2) of `bone_hulls`.

    Returns:
        (..., 5, 3), no unit; for small distances radians along both axes.
    """
    a, b = jnp.asarray(flexion), jnp.asarray(abduction)
    x, y = jnp.moveaxis(jnp.asarray(hulls), -1, 0)  # (5, 3, C)
    edges = x, y, jnp.roll(x, -1, -1) - x, jnp.roll(y, -1, -1) - y

    def closest(a: Array, b: Array, edges: tuple[Array, ...]) -> tuple[Array, Array]:
        x, y, ex, ey = edges
        share = jnp.clip(((a - x) * ex + (b - y) * ey) / jnp.maximum(ex * ex + ey * ey, 1e-12), 0, 1)
        return x + share * ex, y + share * ey

    # which edge is the closest has no slope; that edge alone is gone back to
    held = lax.stop_gradient((a[..., None], b[..., None]))
    there = closest(*held, edges)
    nearest = jnp.argmin(jnp.square(there[0] - held[0]) + jnp.square(there[1] - held[1]), -1)
    outside = jnp.any(edges[2] * (held[1] - y) < edges[3] * (held[0] - x), -1)
    finger, bone = np.arange(5)[:, None], np.arange(3)
    there = closest(a, b, tuple(e[finger, bone, nearest] for e in edges))
    away = (
        jnp.abs(jnp.cos(p) - jnp.cos(q)) + jnp.abs(jnp.sin(p) - jnp.sin(q)) for p, q in zip((a, b), there, strict=True)
    )
    return jnp.where(outside, sum(away, jnp.zeros(())), 0)


@cache
def _sampled_bones() -> Bones:
    """Of many poses and shapes of the built-in hand."""
    hand = load_hand()
    poses, shapes = jax.random.split(jax.random.key(0))
    params = HandParams(
        jnp.zeros((_POSES, 3)),
        sample_poses(poses, hand, (_POSES,)),
        jax.random.normal(shapes, (_POSES, hand.num_betas)),
        jnp.zeros((_POSES, 3)),
    )
    return bone_measures(keypoints(hand, params))


def bone_excess(points: ArrayLike, limits: tuple[Bones, Bones]) -> Bones:
    """By how much each length and angle is beyond its limits, not negative; 0 within.

    Args:
        points: (..., 21, 3) keypoints of a right hand, metres.
        limits: lower and upper, as from `bone_limits`.
    """
    return jax.tree.map(
        lambda x, low, high: jnp.maximum(low - x, 0) + jnp.maximum(x - high, 0), bone_measures(points), *limits
    )


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, -1) + 1e-18)


def _unit(v: Array) -> Array:
    return v / _length(v)[..., None]


def _angle(a: Array, b: Array) -> Array:
    return jnp.arctan2(_length(jnp.cross(a, b)), jnp.sum(a * b, -1))
