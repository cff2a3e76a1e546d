"""How well hands are found in pictures: similarity of keypoints, and average precision over a data set."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.metrics import _points

HAND_SIGMAS = (
    *(0.029,),
    *(0.022, 0.035, 0.037, 0.047),
    *(0.026, 0.025, 0.024, 0.035),
    *(0.018, 0.024, 0.022, 0.026),
    *(0.017, 0.021, 0.021, 0.032),
    *(0.020, 0.019, 0.022, 0.031),
)  # fmt: skip
"""How far apart annotators put the 21 keypoints, wrist then thumb to little finger, as a share of the square root of
the area (Jin et al., ECCV 2020, COCO-WholeBody; its released evaluation)."""

OKS_THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
"""COCO's."""


@jax.jit
def oks(
    pred: ArrayLike,
    target: ArrayLike,
    area: ArrayLike,
    valid: ArrayLike | None = None,
    sigmas: ArrayLike | None = None,
) -> Float[Array, "*b"]:
    """Object keypoint similarity of COCO: the mean over keypoints of exp(-d^2 / (2 area (2 sigma)^2)).

    Args:
        pred: (..., K, 2) pixels.
        target: (..., K, 2) pixels, leading axes broadcast.
        area: (...,) square pixels of the object. COCO takes that of its segment, and COCO-WholeBody's sigmas are for
            the area of the whole person.
        valid: (..., K) which keypoints of the target are annotated; by default all.
        sigmas: (K,) shares of the square root of the area; by default `HAND_SIGMAS`, of 21 keypoints.

    Returns:
        (...,) from 0 to 1; NaN where no keypoint is annotated or the area is not positive.

    Raises:
        ValueError: keypoints of unlike shapes; sigmas of another number.
    """
    x, y, counts = _points.pair(pred, target, valid, ("K",), "; convert_keypoints brings both to one order")
    spread = 2 * jnp.asarray(HAND_SIGMAS if sigmas is None else sigmas, float)
    if spread.shape != x.shape[-2:-1]:
        raise ValueError(f"sigmas: expected one for each of {x.shape[-2]} keypoints, got shape {spread.shape}")
    size = jnp.asarray(area, float)[..., None]
    positive = size > 0
    squared = jnp.sum(jnp.square(x - y), -1)
    alike = jnp.exp(-squared / (2 * jnp.where(positive, size, 1) * spread**2))
    return _points.masked_mean(alike, counts & positive)


@jax.jit
def oks_ap(
    pred: ArrayLike,
    scores: ArrayLike,
    target: ArrayLike,
    area: ArrayLike,
    pred_valid: ArrayLike | None = None,
    target_valid: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    sigmas: ArrayLike | None = None,
    thresholds: ArrayLike | None = None,
) -> Float[Array, "*b s"]:
    """Average precision of found hands at thresholds of `oks` (COCO, keypoint evaluation).

    COCO's AP is the mean over the thresholds, AP50 the first and AP75 the sixth. COCO keeps the 20 predictions of a
    picture with the highest scores. A target without any annotated keypoint does not count, and what is found there is
    a false positive; COCO forgives predictions within twice its box, which `average_precision` can be given as
    `ignored`.

    Args:
        pred: (..., I, D, K, 2) pixels, D predictions in each of I pictures.
        scores: (..., I, D) confidences.
        target: (..., I, G, K, 2) pixels, G hands in each picture.
        area: (..., I, G) square pixels, as in `oks`.
        pred_valid: (..., I, D) which predictions there are; by default all. The others only fill up the shape.
        target_valid: (..., I, G) which hands there are, likewise.
        valid: (..., I, G, K) which keypoints are annotated; by default all.
        sigmas: (K,) as in `oks`.
        thresholds: (S,) by default COCO's ten from 0.5 to 0.95.

    Returns:
        (..., S) from 0 to 1; NaN where there is no hand. It is a count: its gradient is zero.

    Raises:
        ValueError: arrays whose shapes do not fit each other.
    """
    p, t, size = jnp.asarray(pred), jnp.asarray(target), jnp.asarray(area)
    if p.ndim < 4 or t.ndim < 4 or p.shape[-2:] != t.shape[-2:]:
        raise ValueError(f"expected pred (..., I, D, K, 2) and target (..., I, G, K, 2), got {p.shape} and {t.shape}")
    annotated = _points.mask(valid, t.shape[-4:-1])
    similarity = oks(
        p[..., :, None, :, :], t[..., None, :, :, :], size[..., None, :], annotated[..., None, :, :], sigmas
    )
    there = _points.mask(target_valid, t.shape[-4:-2], "target_valid") & jnp.any(annotated, -1)
    return average_precision(similarity, scores, pred_valid, there, thresholds=thresholds)


@jax.jit
def average_precision(
    similarity: ArrayLike,
    scores: ArrayLike,
    pred_valid: ArrayLike | None = None,
    target_valid: ArrayLike | None = None,
    ignored: ArrayLike | None = None,
    thresholds: ArrayLike | None = None,
) -> Float[Array, "*b s"]:
    """Average precision over a data set, at thresholds of any similarity (Lin et al., ECCV 2014, COCO evaluation).

    In each picture predictions choose in order of their scores, each the most similar target that is left and no less
    similar than the threshold. Precision, made to fall with recall, is averaged at recalls 0, 0.01, ..., 1. Recalls are
    compared in whole numbers, where COCO's own rounding can move one by a step.

    Args:
        similarity: (..., I, D, G) of D predictions and G targets in each of I pictures, such as `oks` or the overlap of
            boxes.
        scores: (..., I, D) confidences.
        pred_valid: (..., I, D) which predictions there are; by default all. The others only fill up the shape.
        target_valid: (..., I, G) which targets there are, likewise.
        ignored: (..., I, G) targets that need not be found: a prediction that has no other target takes one of them
            and is then neither right nor wrong. By default none.
        thresholds: (S,) by default COCO's ten from 0.5 to 0.95.

    Returns:
        (..., S) from 0 to 1; NaN where there is no target to be found. It is a count: its gradient is zero.

    Raises:
        ValueError: arrays whose shapes do not fit each other, or are empty.
    """
    s, score = jnp.asarray(similarity), jnp.asarray(scores)
    if s.ndim < 3 or s.shape[-3:-1] != score.shape[-2:] or 0 in s.shape[-3:]:
        raise ValueError(f"expected similarity (..., I, D, G) and scores (..., I, D), got {s.shape} and {score.shape}")
    per_pred, per_target = s.shape[-3:-1], (s.shape[-3], s.shape[-1])
    found = _points.mask(pred_valid, per_pred, "pred_valid")
    there = _points.mask(target_valid, per_target, "target_valid")
    skip = there & (False if ignored is None else _points.mask(ignored, per_target, "ignored"))
    limits = jnp.asarray(OKS_THRESHOLDS if thresholds is None else thresholds, float)
    if limits.ndim != 1:
        raise ValueError(f"thresholds: expected shape (S,), got {limits.shape}")
    every_batch = jnp.vectorize(_average_precision, signature="(i,d,g),(i,d),(i,d),(i,g),(i,g),(s)->(s)")
    return every_batch(lax.stop_gradient(s), lax.stop_gradient(score), found, there, skip, limits)


def _average_precision(
    similarity: Float[Array, "i d g"],
    scores: Float[Array, "i d"],
    found: Bool[Array, "i d"],
    there: Bool[Array, "i g"],
    skip: Bool[Array, "i g"],
    limits: Float[Array, "s"],
) -> Float[Array, "s"]:
    order = jnp.argsort(jnp.where(found, -scores, jnp.inf), -1)  # stable: among equals the earlier chooses first
    similarity = jnp.take_along_axis(similarity, order[..., None], 1)
    scores, found = (jnp.take_along_axis(a, order, 1) for a in (scores, found))
    in_pictures = jax.vmap(_matches, (0, 0, 0, 0, None))
    right, passed = jax.vmap(in_pictures, (None, None, None, None, 0))(similarity, found, there, skip, limits)
    rank = jnp.argsort(jnp.where(found, -scores, jnp.inf).reshape(-1))
    wrong = found & ~right & ~passed
    right, wrong = (jnp.cumsum(a.reshape(len(limits), -1)[:, rank], -1) for a in (right, wrong))
    precision = lax.cummax(right / jnp.maximum(right + wrong, 1), 1, reverse=True)
    number = jnp.sum(there & ~skip)

    def at_recalls(right: Array, precision: Array) -> Array:
        first = jnp.searchsorted(100 * right, jnp.arange(101) * number)
        return jnp.mean(jnp.append(precision, 0)[first])  # a recall that is never reached has no precision

    return jnp.where(number > 0, jax.vmap(at_recalls)(right, precision), jnp.nan)


def _matches(
    similarity: Float[Array, "d g"],
    found: Bool[Array, "d"],
    there: Bool[Array, "g"],
    skip: Bool[Array, "g"],
    limit: Float[Array, ""],
) -> tuple[Bool[Array, "d"], Bool[Array, "d"]]:
    """Predictions of one picture, best score first, to its targets: which hit one to be found, which an ignored one."""
    last = there.shape[0] - 1

    def choose(left: Array, prediction: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        alike, exists = prediction
        possible = left & exists & (alike >= limit)
        possible &= ~skip | ~jnp.any(possible & ~skip)  # an ignored target only where there is no other
        best = last - jnp.argmax(jnp.where(possible, alike, -jnp.inf)[::-1])  # among equals the last, as COCO has it
        hit = jnp.any(possible)
        return left.at[best].set(left[best] & ~hit), (hit & ~skip[best], hit & skip[best])

    return lax.scan(choose, there, (similarity, found))[1]
