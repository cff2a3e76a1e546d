"""How well pictures are segmented. A mean runs over the classes of one picture, never over pictures."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.metrics import _points


@partial(jax.jit, static_argnames="classes")
def iou(
    pred: ArrayLike, target: ArrayLike, classes: int, valid: ArrayLike | None = None
) -> Float[Array, "*b {classes}"]:
    """Intersection over union of each class (Jaccard 1912; Everingham et al., IJCV 2010, sec. 4.3).

    Benchmarks count the pixels of a whole data set as if it were one picture: put its pictures side by side for that.

    Args:
        pred: labels (..., H, W), whole numbers from 0 to classes - 1. Others belong to no class.
        target: labels (..., H, W), leading axes broadcast.
        classes: how many there are.
        valid: (..., H, W) which pixels count; by default all.

    Returns:
        (..., classes) from 0 to 1, NaN where a class is in neither picture. It is a count: its gradient is zero.

    Raises:
        ValueError: pictures of unlike size.
    """
    p, t, counts = _pictures(pred, target, valid)

    def one(label: Array) -> Array:
        a, b = (p == label) & counts, (t == label) & counts
        return _points.ratio(jnp.sum(a & b, (-1, -2)), jnp.sum(a | b, (-1, -2)))

    return jnp.moveaxis(lax.map(one, jnp.arange(classes)), 0, -1)


@partial(jax.jit, static_argnames="classes")
def mean_iou(pred: ArrayLike, target: ArrayLike, classes: int, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean of `iou` over the classes that are in either picture (Everingham et al., IJCV 2010, sec. 4.3).

    Args:
        pred: labels (..., H, W), whole numbers from 0 to classes - 1. Others belong to no class.
        target: labels (..., H, W), leading axes broadcast.
        classes: how many there are, the background's included if it is one.
        valid: (..., H, W) which pixels count; by default all.

    Returns:
        (...,) from 0 to 1, NaN where no pixel counts.

    Raises:
        ValueError: pictures of unlike size.
    """
    each = iou(pred, target, classes, valid)
    return _points.masked_mean(each, ~jnp.isnan(each))


@partial(jax.jit, static_argnames="tolerance")
def boundary_f(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, *, tolerance: float = 0.008
) -> Float[Array, "*b"]:
    """F-measure of the outlines of masks, matched within a tolerance (Perazzi et al., CVPR 2016, DAVIS: F).

    A pixel is on the outline if it differs from its neighbour to the right, below, or below to the right. Precision is
    the share of the predicted outline within the tolerance of the true one, recall the share of the true one within
    that of the predicted. DAVIS's own evaluation matches by dilating with a disc, as here.

    Args:
        pred: truth values (..., H, W).
        target: truth values (..., H, W), leading axes broadcast.
        valid: (..., H, W) which pixels count, by default all. Others are outside of both masks, as DAVIS's void pixels.
        tolerance: share of the picture's diagonal, rounded up to whole pixels.

    Returns:
        (...,) from 0 to 1; as in DAVIS, 1 where neither mask has an outline and 0 where one alone has. It is a count:
        its gradient is zero.

    Raises:
        ValueError: pictures of unlike size, or not of truth values.
    """
    p, t, counts = _pictures(pred, target, valid)
    if p.dtype != bool or t.dtype != bool:
        raise ValueError(f"expected truth values (..., H, W), got {p.dtype} and {t.dtype}; of labels, `labels == hand`")
    radius = math.ceil(tolerance * math.hypot(*p.shape[-2:]))
    p, t = _outline(p & counts), _outline(t & counts)
    precision, recall = (
        _points.ratio(jnp.sum(a & _dilated(b, radius), (-1, -2)), jnp.sum(a, (-1, -2))) for a, b in ((p, t), (t, p))
    )
    # Of no outline everything is right: then an F of 1 needs that there is none to find.
    return _points.f1(*(jnp.where(jnp.isnan(share), 1, share) for share in (precision, recall)))


def _pictures(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None) -> tuple[Array, Array, Array]:
    p, t = jnp.asarray(pred), jnp.asarray(target)
    if p.ndim < 2 or p.shape[-2:] != t.shape[-2:]:
        raise ValueError(f"expected pred and target of one size (..., H, W), got {p.shape} and {t.shape}")
    counts = _points.mask(valid, p.shape[-2:])
    p, t, counts = jnp.broadcast_arrays(p, t, counts)
    return p, t, counts


def _outline(mask: Array) -> Array:
    """Pixels that differ from the next one to the right, below, or both; beyond the picture its edge goes on."""
    edge = [(0, 0)] * (mask.ndim - 2) + [(0, 1), (0, 1)]
    wide = jnp.pad(mask, edge, mode="edge")
    right, below, diagonal = wide[..., :-1, 1:], wide[..., 1:, :-1], wide[..., 1:, 1:]
    return (mask != right) | (mask != below) | (mask != diagonal)


def _dilated(mask: Array, radius: int) -> Array:
    """Pixels no further than `radius` from one of the mask: a disc is a stack of rows, a row a difference of sums."""
    height, width = mask.shape[-2:]
    around = [(0, 0)] * (mask.ndim - 2) + [(radius, radius), (radius + 1, radius)]
    sums = jnp.cumsum(jnp.pad(mask, around), -1, dtype=int)
    hit = jnp.zeros_like(mask)
    for dy in range(-radius, radius + 1):
        half = math.isqrt(radius**2 - dy**2)
        row = sums[..., radius + dy : radius + dy + height, :]
        left, right = radius - half, radius + 1 + half
        hit |= row[..., right : right + width] > row[..., left : left + width]
    return hit
