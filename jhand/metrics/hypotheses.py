"""How good many answers to one question are: the best of them, and whether they are spread as the truth is.

Hypotheses have an axis N before the points. The error of each is any metric of `target[..., None, :, :]`; the best is
their least. That rewards many guesses anywhere, so look at calibration beside it (Pierzchlewicz et al., 2022).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.metrics import _points

_HINT = "; hypotheses are (..., N, K, C) and their targets (..., K, C)"


@jax.jit
def correct_pose_score(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, thresholds: ArrayLike | None = None
) -> Float[Array, "*b"]:
    """CPS: the share of thresholds at which some hypothesis has all points right, after a similarity (Wandt et al.,
    CVPR 2021). Where PCK counts points, it counts poses: one wrong joint makes a wrong hand.

    Args:
        pred: (..., N, K, 3).
        target: (..., K, 3), leading axes broadcast.
        valid: (..., K) which points count, in the alignment too; by default all.
        thresholds: (S,) in the unit of the points; by default 1 to 50 mm, in metres (of bodies it is 1 to 300 mm, and
            the area in millimetres is reported: this times 300).

    Returns:
        (...,) from 0 to 1; NaN where no point is valid. It is a count: its gradient is zero.

    Raises:
        ValueError: points of unlike shapes; thresholds that are not a list.
    """
    x, y, counts = _pair(pred, target, valid)
    limits = jnp.linspace(0.001, 0.05, 50) if thresholds is None else jnp.asarray(thresholds, float)
    if limits.ndim != 1:
        raise ValueError(f"thresholds: expected shape (S,), got {limits.shape}")
    off = _points.length(_points.similarity_aligned(x, y, counts) - y)
    worst = jnp.min(jnp.max(jnp.where(counts, off, 0), -1), -1)
    score = jnp.mean((worst[..., None] <= limits).astype(limits.dtype), -1)
    return jnp.where(jnp.any(counts, (-1, -2)), score, jnp.nan)


@jax.jit
def hypothesis_spread(pred: ArrayLike) -> Float[Array, "*b k"]:
    """Standard deviation of each point over hypotheses (..., N, K, C): the root of its total variance.

    Returns:
        (..., K) in the unit of the points.

    Raises:
        ValueError: points without an axis of hypotheses.
    """
    x = _hypotheses(pred)
    return jnp.sqrt(jnp.sum(jnp.var(x, -3), -1))


@jax.jit
def truth_rank(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b k"]:
    """Where the truth lies among hypotheses: the share of them that is nearer to their median than it is.

    Of calibrated hypotheses it is even from 0 to 1, over many hands; `expected_calibration_error` says how far from it.

    Args:
        pred: (..., N, K, C).
        target: (..., K, C), leading axes broadcast.
        valid: (..., K) which points count; by default all.

    Returns:
        (..., K) from 0 to 1, NaN where a point is not valid.

    Raises:
        ValueError: points of unlike shapes.
    """
    x, y, counts = _pair(pred, target, valid)
    middle = jnp.median(x, -3, keepdims=True)
    nearer = _points.length(x - middle) < _points.length(y - middle)
    return jnp.where(counts[..., 0, :], jnp.mean(nearer.astype(x.dtype), -2), jnp.nan)


@jax.jit
def expected_calibration_error(ranks: ArrayLike, levels: ArrayLike | None = None) -> Float[Array, ""]:
    """ECE of hypotheses: how far the share of truths within their q-quantile is from q, on average over q
    (Pierzchlewicz et al., 2022).

    Args:
        ranks: (...) of `truth_rank`; all together, NaN left out.
        levels: (Q,) quantiles; by default 0.05 to 0.95 in steps of 0.05.

    Returns:
        From 0 to 0.5: a hundredth is calibrated, 0.5 is always or never.

    Raises:
        ValueError: levels that are not a list.
    """
    q = jnp.linspace(0.05, 0.95, 19) if levels is None else jnp.asarray(levels, float)
    if q.ndim != 1:
        raise ValueError(f"levels: expected shape (Q,), got {q.shape}")
    flat = jnp.ravel(jnp.asarray(ranks))
    counts = jnp.isfinite(flat)
    within = _points.masked_mean((flat[:, None] <= q).astype(q.dtype), counts[:, None], 0)
    return jnp.mean(jnp.abs(within - q))


@jax.jit
def rank_correlation(a: ArrayLike, b: ArrayLike) -> Float[Array, "*b"]:
    """Spearman's correlation of numbers along the last axis; those that are equal share their mean rank.

    Args:
        a: (..., K).
        b: (..., K), leading axes broadcast.

    Returns:
        (...,) from -1 to 1, NaN where all of one side are equal.

    Raises:
        ValueError: lists of unlike lengths.
    """
    x, y = jnp.asarray(a, float), jnp.asarray(b, float)
    if x.ndim == 0 or x.shape[-1:] != y.shape[-1:]:
        raise ValueError(f"expected a and b of one shape (..., K), got {x.shape} and {y.shape}")

    def centred_ranks(v: Array) -> Array:
        other = v[..., None, :]
        below = jnp.sum(other < v[..., None], -1) + (jnp.sum(other == v[..., None], -1) - 1) / 2
        return below - (v.shape[-1] - 1) / 2

    rx, ry = centred_ranks(x), centred_ranks(y)
    return _points.ratio(jnp.sum(rx * ry, -1), jnp.sqrt(jnp.sum(rx * rx, -1) * jnp.sum(ry * ry, -1)))


def matched_gaussian(key: Array, pred: ArrayLike) -> Float[Array, "*b n k c"]:
    """As many draws from an isotropic Gaussian of the same mean and the same total variance as hypotheses have: what a
    best-of-N owes to their spread alone.

    Args:
        key: of the draws.
        pred: (..., N, K, C).

    Returns:
        As pred.

    Raises:
        ValueError: points without an axis of hypotheses.
    """
    x = _hypotheses(pred)
    mean = jnp.mean(x, -3, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.var(x, -3, keepdims=True), (-1, -2), keepdims=True))
    return mean + deviation * jax.random.normal(key, x.shape, x.dtype)


def _hypotheses(pred: ArrayLike) -> Array:
    x = jnp.asarray(pred)
    if x.ndim < 3:
        raise ValueError(f"expected hypotheses (..., N, K, C), got {x.shape}")
    return x


def _pair(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Hypotheses and the target of each, (..., N, K, C), and what counts, (..., N, K)."""
    x = _hypotheses(pred)
    counts = None if valid is None else jnp.asarray(valid)[..., None, :]
    return _points.pair(x, jnp.asarray(target)[..., None, :, :], counts, ("K",), _HINT)
