"""Errors of hand poses, in the unit of the points (metres). A mean runs over the points of one hand, never over hands.

`valid` says which points a hand has; the others are not read. A hand without any valid point has no error: NaN, with a
gradient of zero, so that `jnp.nanmean` can be used on it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import geodesic_distance
from jhand.metrics import _points

_HINT = "; convert_keypoints brings both to one order"


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
    x, y, counts = _points.pair(pred, target, valid, ("K",), _HINT)
    return _points.masked_mean(_points.length(x - y), counts)


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
    x, y, counts = _about_root(pred, target, valid, root)
    return _points.masked_mean(_points.length(x - y), counts)


@jax.jit
def scale_aligned_mpjpe(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, root: ArrayLike = 0
) -> Float[Array, "*b"]:
    """`root_aligned_mpjpe` after the scale s that fits best, least in sum |s pred - target|^2.

    The N-MPJPE of Rhodin et al., CVPR 2018: what a picture alone cannot tell, position and size, is forgiven.

    Args:
        pred: (..., K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count, in the scale and in the mean; by default all. A hand whose root is not valid
            has no error: NaN.
        root: index of the root point, by default 0, the wrist.

    Returns:
        (...,) in the unit of the points. A prediction whose points coincide has no size, and its scale is 1.

    Raises:
        ValueError: points of unlike shapes.
    """
    x, y, counts = _about_root(pred, target, valid, root)
    size = jnp.sum(x * x, (-1, -2), keepdims=True)
    has_size = size > 0
    scale = jnp.where(has_size, jnp.sum(x * y, (-1, -2), keepdims=True) / jnp.where(has_size, size, 1), 1)
    return _points.masked_mean(_points.length(scale * x - y), counts)


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
    x, y, counts = _points.pair(pred, target, valid, ("K",), _HINT)
    return _points.masked_mean(_points.length(_points.similarity_aligned(x, y, counts) - y), counts)


@jax.jit
def pck(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, thresholds: ArrayLike | None = None
) -> Float[Array, "*b s"]:
    """Percentage of correct keypoints, as a curve: the share of points no further off than each threshold.

    As in Zimmermann & Brox, ICCV 2017. Points are compared as they stand: align them first where a protocol does.

    Args:
        pred: (..., K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count; by default all.
        thresholds: (S,) in the unit of the points; by default FreiHAND's 100 from 0 to 0.05 m, both included.

    Returns:
        (..., S) from 0 to 1. It is a count: its gradient is zero.

    Raises:
        ValueError: points of unlike shapes; thresholds that are not a list.
    """
    x, y, counts = _points.pair(pred, target, valid, ("K",), _HINT)
    limits = _thresholds(thresholds)
    near = _points.length(x - y)[..., None] <= limits
    return _points.masked_mean(near.astype(limits.dtype), counts[..., None], -2)


@jax.jit
def pck_auc(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, thresholds: ArrayLike | None = None
) -> Float[Array, "*b"]:
    """Area under the curve of `pck` over its range of thresholds, by the trapezoid rule (FreiHAND's evaluation).

    Where all points are valid, the mean over hands is the number that FreiHAND's evaluation prints; it takes the mean
    over hands first and over keypoints last, which differs where hands lack points.

    Args:
        pred: (..., K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count; by default all.
        thresholds: (S,) ascending, in the unit of the points; by default FreiHAND's 100 from 0 to 0.05 m.

    Returns:
        (...,) from 0 to 1. It is a count: its gradient is zero.

    Raises:
        ValueError: points of unlike shapes; fewer than two thresholds.
    """
    limits = _thresholds(thresholds)
    if limits.shape[0] < 2:
        raise ValueError("thresholds: an area needs two or more; pck gives the share of points at one")
    curve = pck(pred, target, valid, limits)
    return jnp.trapezoid(curve, limits, axis=-1) / (limits[-1] - limits[0])


@jax.jit
def angular_error(pred: ArrayLike, target: ArrayLike) -> Float[Array, "*b"]:
    """Angle of the rotation between two rotations, their geodesic distance (Huynh, JMIV 2009, the sixth).

    Args:
        pred: rotation matrices (..., 3, 3).
        target: rotation matrices (..., 3, 3), leading axes broadcast.

    Returns:
        (...,) radians, from 0 to pi; the gradient at 0 and at pi, where there is none, is zero.

    Raises:
        ValueError: not matrices of 3 by 3.
    """
    a, b = jnp.asarray(pred), jnp.asarray(target)
    if a.shape[-2:] != (3, 3) or b.shape[-2:] != (3, 3):
        hint = "so3_exp makes them from axis-angle vectors"
        raise ValueError(f"expected rotation matrices (..., 3, 3), got {a.shape} and {b.shape}; {hint}")
    return geodesic_distance(a, b)


def _about_root(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None, root: ArrayLike
) -> tuple[Array, Array, Array]:
    x, y, counts = _points.pair(pred, target, valid, ("K",), _HINT)
    x_root, y_root, rooted = (
        jnp.take(a, jnp.asarray(root)[None], axis) for a, axis in ((x, -2), (y, -2), (counts, -1))
    )
    counts = counts & rooted
    return jnp.where(counts[..., None], x - x_root, 0), jnp.where(counts[..., None], y - y_root, 0), counts


def _thresholds(thresholds: ArrayLike | None) -> Array:
    limits = jnp.linspace(0, 0.05, 100) if thresholds is None else jnp.asarray(thresholds, float)
    if limits.ndim != 1:
        raise ValueError(f"thresholds: expected shape (S,), got {limits.shape}")
    return limits
