"""Errors of hand meshes, in the unit of the vertices (metres). A mean runs over the vertices of one hand."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.metrics import _points

_HINT = "; vertices are compared by their number: f_score compares surfaces of unlike meshes"


@jax.jit
def mpvpe(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean per-vertex position error (PVE): the mean distance between vertices of one mesh, as they stand.

    The mesh error of Zimmermann et al., ICCV 2019 (FreiHAND).

    Args:
        pred: (..., V, 3).
        target: (..., V, 3), leading axes broadcast.
        valid: (..., V) which vertices count; by default all.

    Returns:
        (...,) in the unit of the vertices; the gradient where a vertex is exact is zero.

    Raises:
        ValueError: vertices of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("V",), _HINT)
    return _points.masked_mean(_points.length(x - y), counts)


@jax.jit
def pa_mpvpe(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """`mpvpe` after the similarity that fits the vertices of `pred` to those of `target` best in least squares.

    Aligned by the vertices, not by the keypoints, as FreiHAND's evaluation does for meshes of one topology.

    Args:
        pred: (..., V, 3).
        target: (..., V, 3), leading axes broadcast.
        valid: (..., V) which vertices count, in the alignment and in the mean; by default all.

    Returns:
        (...,) in the unit of the vertices.

    Raises:
        ValueError: vertices of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("V",), _HINT)
    return _points.masked_mean(_points.length(_points.similarity_aligned(x, y, counts) - y), counts)


@jax.jit
def f_score(
    pred: ArrayLike,
    target: ArrayLike,
    threshold: ArrayLike | Sequence[float],
    pred_valid: ArrayLike | None = None,
    target_valid: ArrayLike | None = None,
) -> Float[Array, "*b"]:
    """F-score of two point sets: the harmonic mean of precision and recall at a distance (Knapitsch et al., TOG 2017).

    Precision is the share of predicted points nearer than `threshold` to some point of the target, recall the share of
    the target's nearer than that to some predicted one. FreiHAND and HO-3D print it at 5 and 15 mm, plain and after
    alignment; points are compared as they stand here.

    Args:
        pred: (..., V, 3) points of a surface, such as vertices.
        target: (..., W, 3), of any number, leading axes broadcast.
        threshold: (*S) in the unit of the points, such as 0.005 or [0.005, 0.015].
        pred_valid: (..., V) which points count; by default all.
        target_valid: (..., W) likewise.

    Returns:
        (..., *S) from 0 to 1; NaN where a set is empty. It is a count: its gradient is zero.

    Raises:
        ValueError: not points in space; a mask of another shape.
    """
    x, y, limits = jnp.asarray(pred), jnp.asarray(target), jnp.asarray(threshold)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ValueError(f"expected pred (..., V, 3) and target (..., W, 3), got {x.shape} and {y.shape}")
    x_counts = _points.mask(pred_valid, x.shape[-2:-1], "pred_valid")
    y_counts = _points.mask(target_valid, y.shape[-2:-1], "target_valid")

    def share_near(a: Array, a_counts: Array, b: Array, b_counts: Array) -> Array:
        near = _points.nearest_distance(a, b, b_counts)
        counts = jnp.broadcast_to(a_counts, near.shape)
        above = (..., *(None,) * limits.ndim)
        near = jnp.expand_dims(near, tuple(range(-limits.ndim, 0))) < limits
        return _points.masked_mean(near.astype(float), counts[above], -1 - limits.ndim)

    return _points.f1(share_near(x, x_counts, y, y_counts), share_near(y, y_counts, x, x_counts))
