"""Motion at other times: points along straight lines, rotations along shortest turns."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import slerp
from jhand.geometry.se3 import rigid


@jax.jit
def resample(points: ArrayLike, times: ArrayLike, new_times: ArrayLike) -> Float[Array, "*b s k c"]:
    """Points at other times, between the frames before and after; before the first and after the last, those.

    Args:
        points: (..., T, K, C).
        times: (T,) seconds, increasing.
        new_times: (S,) seconds.

    Returns:
        (..., S, K, C).

    Raises:
        ValueError: as many times as there are frames were not given.
    """
    before, after, share = _between(points, 3, times, new_times)
    return before + share[:, None, None] * (after - before)


@jax.jit
def resample_rotations(rotations: ArrayLike, times: ArrayLike, new_times: ArrayLike) -> Float[Array, "*b s k 3 3"]:
    """`resample` for rotations (..., T, K, 3, 3), by `slerp`."""
    before, after, share = _between(rotations, 4, times, new_times)
    return slerp(before, after, share[:, None])


@jax.jit
def resample_transforms(transforms: ArrayLike, times: ArrayLike, new_times: ArrayLike) -> Float[Array, "*b s k 4 4"]:
    """`resample` for rigid transforms (..., T, K, 4, 4): rotations and translations apart, as a hand or a camera moves.

    For the path of a camera give `T_world_cam`: its translation is where the camera stands.
    """
    before, after, share = _between(transforms, 4, times, new_times)
    t = before[..., :3, 3] + share[:, None, None] * (after[..., :3, 3] - before[..., :3, 3])
    return rigid(slerp(before[..., :3, :3], after[..., :3, :3], share[:, None]), t)


def _between(values: ArrayLike, axes: int, times: ArrayLike, new_times: ArrayLike) -> tuple[Array, Array, Array]:
    """The frames before and after each new time, and where between them it lies, 0 to 1 (S,)."""
    x, t, new = jnp.asarray(values, float), jnp.asarray(times, float), jnp.asarray(new_times, float)
    if x.ndim < axes or t.shape != x.shape[-axes : 1 - axes] or new.ndim != 1:
        raise ValueError(
            f"expected {x.shape[-axes] if x.ndim >= axes else 'T'} times (T,) and new times (S,), got {t.shape} and "
            f"{new.shape} for values {x.shape}"
        )
    if t.shape[0] == 1:
        still = jnp.repeat(x, new.shape[0], axis=-axes)
        return still, still, jnp.zeros_like(new)
    left = jnp.clip(jnp.searchsorted(t, new, side="right") - 1, 0, t.shape[0] - 2)
    share = jnp.clip((new - t[left]) / (t[left + 1] - t[left]), 0, 1)
    return jnp.take(x, left, axis=-axes), jnp.take(x, left + 1, axis=-axes), share
