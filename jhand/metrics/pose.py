"""Errors of hand poses, in the unit of the points (metres). A mean runs over the points of one hand, never over hands.

`valid` says which points a hand has; the others are not read. A hand without any valid point has no error: NaN, with a
gradient of zero, so that `jnp.nanmean` can be used on it.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.alignment import procrustes


@jax.jit
def mpjpe(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean per-joint position error: the mean distance between points as they stand (Ionescu et al., PAMI 2014, eq. 8).

    Args:
        pred: (..., K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count; by default all.

    Returns:
        (...,) in the unit of the points; the gradient where a point is exact is zero.

    Raises:
        ValueError: points of unlike shapes.
    """
    return _mean_distance(*_pair(pred, target, valid))


@jax.jit
def root_aligned_mpjpe(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, root: ArrayLike = 0
) -> Float[Array, "*b"]:
    """`mpjpe` after both hands are moved to put their root at the origin (Zimmermann & Brox, ICCV 2017, sec. 6).

    The root counts among the K points, with its error of zero, as most papers have it.

    Args:
        pred: (..., K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count; by default all. A hand whose root is not valid has no error: NaN.
        root: index of the root point, by default 0, the wrist.

    Returns:
        (...,) in the unit of the points.

    Raises:
        ValueError: points of unlike shapes.
    """
    x, y, counts = _pair(pred, target, valid)
    x_root, y_root, rooted = (
        jnp.take(a, jnp.asarray(root)[None], axis) for a, axis in ((x, -2), (y, -2), (counts, -1))
    )
    return _mean_distance(x - x_root, y - y_root, counts & rooted)


@jax.jit
def pa_mpjpe(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """`mpjpe` after the similarity (rotation, scale, translation) that fits `pred` to `target` best in least squares.

    As in Zimmermann et al., ICCV 2019 (FreiHAND): what remains is the error of pose and proportions.

    Args:
        pred: (..., K, 3).
        target: (..., K, 3), leading axes broadcast.
        valid: (..., K) which points count, in the alignment and in the mean; by default all.

    Returns:
        (...,) in the unit of the points.

    Raises:
        ValueError: points of unlike shapes.
    """
    x, y, counts = _pair(pred, target, valid)
    R, scale, t = procrustes(x, y, counts.astype(x.dtype))
    aligned = (
        scale[..., None, None] * jnp.einsum("...ij,...kj->...ki", R, x, precision=lax.Precision.HIGHEST)
        + t[..., None, :]
    )
    return _mean_distance(aligned, y, counts)


def _pair(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Both point sets and their mask with leading axes broadcast; 0 where a point does not count."""
    x, y = jnp.asarray(pred), jnp.asarray(target)
    if x.ndim < 2 or x.shape[-2:] != y.shape[-2:]:
        hint = "; convert_keypoints brings both to one order" if x.shape[-1:] == y.shape[-1:] else ""
        raise ValueError(f"expected pred and target of one shape (..., K, C), got {x.shape} and {y.shape}{hint}")
    counts = jnp.ones(x.shape[-2:-1], bool) if valid is None else jnp.asarray(valid, bool)
    if counts.shape[-1:] != x.shape[-2:-1]:
        raise ValueError(f"valid: expected shape (..., {x.shape[-2]}), one for each point, got {counts.shape}")
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], counts.shape[:-1])
    counts = jnp.broadcast_to(counts, (*batch, counts.shape[-1]))
    return jnp.where(counts[..., None], x, 0), jnp.where(counts[..., None], y, 0), counts


def _mean_distance(x: Array, y: Array, counts: Array) -> Array:
    squared = jnp.where(counts, jnp.sum(jnp.square(x - y), -1), 0)
    apart = squared > 0
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)  # a root that has a gradient at zero
    number = jnp.sum(counts, -1)
    return jnp.where(number > 0, jnp.sum(distance, -1) / jnp.maximum(number, 1), jnp.nan)
