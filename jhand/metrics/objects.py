"""Errors of the poses of rigid objects, in metres. A mean runs over the points of one object, never over objects."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry import transform
from jhand.metrics import _points


@jax.jit
def add(
    T_cam_object_pred: ArrayLike, T_cam_object: ArrayLike, points: ArrayLike, valid: ArrayLike | None = None
) -> Float[Array, "*b"]:
    """Average distance of an object's points between two poses, ADD (Hinterstoisser et al., ACCV 2012, eq. 6).

    Args:
        T_cam_object_pred: (..., 4, 4) the predicted pose.
        T_cam_object: (..., 4, 4) the true one, leading axes broadcast.
        points: (..., N, 3) of the object, metres, in its own frame.
        valid: (..., N) which points count; by default all.

    Returns:
        (...,) metres.

    Raises:
        ValueError: poses or points of another shape.
    """
    x, y, counts = _posed(T_cam_object_pred, T_cam_object, points, valid)
    return _points.masked_mean(_points.length(x - y), counts)


@jax.jit
def add_s(
    T_cam_object_pred: ArrayLike, T_cam_object: ArrayLike, points: ArrayLike, valid: ArrayLike | None = None
) -> Float[Array, "*b"]:
    """`add` for objects that look alike from several sides: each point to the nearest (Xiang et al., RSS 2018, ADD-S).

    The mean, over the points in the true pose, of the distance to the nearest point in the predicted pose
    (Hinterstoisser et al., ACCV 2012, eq. 7).

    Args:
        T_cam_object_pred: (..., 4, 4) the predicted pose.
        T_cam_object: (..., 4, 4) the true one, leading axes broadcast.
        points: (..., N, 3) of the object, metres, in its own frame.
        valid: (..., N) which points count; by default all.

    Returns:
        (...,) metres; the gradient goes through the nearest points.

    Raises:
        ValueError: poses or points of another shape.
    """
    x, y, counts = _posed(T_cam_object_pred, T_cam_object, points, valid)
    near = _points.nearest_distance(y, x, counts)
    return _points.masked_mean(jnp.where(counts, near, 0), counts)


@jax.jit
def add_auc(distance: ArrayLike, limit: ArrayLike = 0.1) -> Float[Array, "*b"]:
    """Area under the curve of accuracy over threshold, from 0 to a limit (Xiang et al., RSS 2018, PoseCNN, sec. V).

    Of one pose the curve is a step at its distance, and its area 1 - distance / limit, or 0. The mean over poses is
    exactly the area under the curve of all of them. PoseCNN's own sum takes each step at its end, which adds at most
    one over the number of poses.

    Args:
        distance: (...,) metres, of `add` or `add_s`. One that is not a number is of no pose, and stays NaN.
        limit: metres, the greatest threshold.

    Returns:
        (...,) from 0 to 1.
    """
    return jnp.maximum(1 - jnp.asarray(distance) / jnp.asarray(limit, float), 0)


@jax.jit
def add_accuracy(distance: ArrayLike, diameter: ArrayLike, share: ArrayLike = 0.1) -> Bool[Array, "*b"]:
    """Whether poses are right: their distance is at most a share of the diameter (Hinterstoisser et al., ACCV 2012).

    Args:
        distance: (...,) metres, of `add` or `add_s`.
        diameter: (...,) metres, the largest distance between two points of the object.
        share: of the diameter.

    Returns:
        (...,); the mean over poses is the accuracy.
    """
    return jnp.asarray(distance) <= jnp.asarray(share) * jnp.asarray(diameter)


def _posed(
    T_pred: ArrayLike, T_true: ArrayLike, points: ArrayLike, valid: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Points in both poses (..., N, 3) and their mask (..., N), leading axes broadcast; 0 where not valid."""
    A, B, p = jnp.asarray(T_pred), jnp.asarray(T_true), jnp.asarray(points)
    if A.shape[-2:] != (4, 4) or B.shape[-2:] != (4, 4):
        raise ValueError(f"expected poses (..., 4, 4), got {A.shape} and {B.shape}; jhand.geometry.rigid makes them")
    if p.ndim < 2 or p.shape[-1] != 3:
        raise ValueError(f"points: expected shape (..., N, 3), got {p.shape}")
    counts = _points.mask(valid, p.shape[-2:-1])
    batch = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2], p.shape[:-2], counts.shape[:-1])
    p = jnp.broadcast_to(jnp.where(counts[..., None], p, 0), (*batch, *p.shape[-2:]))
    return transform(A, p), transform(B, p), jnp.broadcast_to(counts, p.shape[:-1])
