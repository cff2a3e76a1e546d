"""Frames in which a hand was not seen: where they are, and what lies between the frames beside them."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.geometry.rotations import slerp

SEEN = 1
"""What `frame_states` says of a frame that was seen,"""
MISSING = 0
"""of one that is missing within a track,"""
OUTSIDE = -1
"""and of one before or after it."""


def frame_states(seen: ArrayLike) -> Int[Array, "*b t"]:
    """Of each frame of a track, whether it was seen, is missing within it, or is outside (Yu et al., CVPR 2025).

    Args:
        seen: bool (..., T).

    Returns:
        (..., T): `SEEN`, `MISSING` between the first and the last that was seen, else `OUTSIDE`.
    """
    s = jnp.asarray(seen, bool)
    axis = s.ndim - 1
    began, goes_on = (lax.cummax(s.astype(int), axis, reverse=reverse) for reverse in (False, True))
    return jnp.where(s, SEEN, jnp.where(began * goes_on > 0, MISSING, OUTSIDE))


def fill_gaps(values: ArrayLike, seen: ArrayLike) -> Float[Array, "*b t c"]:
    """Missing frames on the straight line between those beside them; before the first and after the last, those.

    Args:
        values: (..., T, C), not read in frames that were not seen.
        seen: bool (..., T).

    Returns:
        (..., T, C); all 0 where no frame was seen.
    """
    before, after, share = _beside(seen)
    x = jnp.where(jnp.asarray(seen, bool)[..., None], jnp.asarray(values, float), 0)
    a, b = (jnp.take_along_axis(x, index[..., None], -2) for index in (before, after))
    return a + share[..., None] * (b - a)


def fill_gaps_rotations(rotations: ArrayLike, seen: ArrayLike) -> Float[Array, "*b t 3 3"]:
    """`fill_gaps` for rotations (..., T, 3, 3), by `slerp`; the identity where no frame was seen."""
    before, after, share = _beside(seen)
    there = jnp.asarray(seen, bool)[..., None, None]
    R = jnp.where(there, jnp.asarray(rotations, float), jnp.eye(3))
    a, b = (jnp.take_along_axis(R, index[..., None, None], -3) for index in (before, after))
    return slerp(a, b, share)


def _beside(seen: ArrayLike) -> tuple[Array, Array, Array]:
    """Of each frame, the nearest ones seen before and after, itself if seen, and where it lies between, 0 to 1."""
    s = jnp.asarray(seen, bool)
    axis, number = s.ndim - 1, s.shape[-1]
    t = jnp.broadcast_to(jnp.arange(number), s.shape)
    before = lax.cummax(jnp.where(s, t, -1), axis)
    after = lax.cummin(jnp.where(s, t, number), axis, reverse=True)
    first, last = (jnp.where(before < 0, after, before), jnp.where(after >= number, before, after))
    first, last = (jnp.clip(index, 0, number - 1) for index in (first, last))
    span = last - first
    return first, last, jnp.where(span > 0, (t - first) / jnp.maximum(span, 1), 0.0)
