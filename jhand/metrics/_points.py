"""What the metrics of points share: pairs with their mask, distances, masked means, alignment, neighbours."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike

from jhand.geometry.alignment import procrustes

# Pairs of points that `nearest_distance` looks at in one step: 16 MiB of float32.
_PAIRS_IN_A_STEP = 2**22


def pair(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None, axes: tuple[str, ...], hint: str = ""
) -> tuple[Array, Array, Array]:
    """Both point sets (..., *axes, C) and their mask (..., *axes), leading axes broadcast; 0 where not valid.

    `axes` names the axes that both must share, such as ("T", "K"); `hint` ends the error where only those differ.
    """
    x, y = jnp.asarray(pred), jnp.asarray(target)
    rank = len(axes) + 1
    if x.ndim < rank or x.shape[-rank:] != y.shape[-rank:]:
        shape, hint = ", ".join(axes), hint if x.shape[-1:] == y.shape[-1:] else ""
        raise ValueError(f"expected pred and target of one shape (..., {shape}, C), got {x.shape} and {y.shape}{hint}")
    counts = mask(valid, x.shape[-rank:-1])
    batch = jnp.broadcast_shapes(x.shape[:-rank], y.shape[:-rank], counts.shape[: counts.ndim - len(axes)])
    counts = jnp.broadcast_to(counts, (*batch, *x.shape[-rank:-1]))
    return jnp.where(counts[..., None], x, 0), jnp.where(counts[..., None], y, 0), counts


def mask(valid: ArrayLike | None, shape: tuple[int, ...], name: str = "valid") -> Array:
    """A mask (..., *shape), true by default."""
    counts = jnp.ones(shape, bool) if valid is None else jnp.asarray(valid, bool)
    if counts.shape[-len(shape) :] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected shape (..., {expected}), one for each point, got {counts.shape}")
    return counts


def length(v: Array) -> Array:
    """Lengths (...) of vectors (..., C), with a gradient of zero where a vector is zero."""
    squared = jnp.sum(jnp.square(v), -1)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def masked_mean(values: Array, counts: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Mean of what counts; NaN, with a gradient of zero, where nothing does."""
    number = jnp.sum(counts, axis)
    return ratio(jnp.sum(jnp.where(counts, values, 0), axis), number)


def ratio(part: Array, whole: Array) -> Array:
    """part / whole; NaN, with a gradient of zero, where the whole is not positive."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), jnp.nan)


def f1(precision: Array, recall: Array) -> Array:
    """Harmonic mean of precision and recall; 0 where both are, NaN where one is."""
    total = precision + recall
    return jnp.where(total == 0, 0, 2 * precision * recall / jnp.where(total == 0, 1, total))


def similarity_aligned(x: Array, y: Array, fitted: Array) -> Array:
    """Points x (..., K, 3) after the similarity that carries those that are `fitted` (..., K) onto y best."""
    R, scale, t = procrustes(x, y, fitted.astype(x.dtype))
    turned = jnp.einsum("...ij,...kj->...ki", R, x, precision=lax.Precision.HIGHEST)
    return scale[..., None, None] * turned + t[..., None, :]


def nearest_distance(x: Array, y: Array, y_counts: Array) -> Array:
    """Distance (..., N) of each point x (..., N, 3) to the nearest of y (..., M, 3) that counts (..., M).

    Exact: every pair is looked at, a few rows at a time, so that memory stays small. The gradient goes through the
    nearest point. Infinite where no y counts.
    """
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], y_counts.shape[:-1])
    x, y = (jnp.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (x, y))
    y_counts = jnp.broadcast_to(y_counts, (*batch, y.shape[-2]))
    fixed = lax.stop_gradient(y)

    def index_of_nearest(point: Array) -> Array:
        squared = jnp.sum(jnp.square(point[..., None, :] - fixed), -1)
        return jnp.argmin(jnp.where(y_counts, squared, jnp.inf), -1)

    rows = max(1, min(x.shape[-2], _PAIRS_IN_A_STEP // max(1, y_counts.size)))
    index = lax.map(index_of_nearest, jnp.moveaxis(lax.stop_gradient(x), -2, 0), batch_size=rows)
    nearest = jnp.take_along_axis(y, jnp.moveaxis(index, 0, -1)[..., None], -2)
    return jnp.where(jnp.any(y_counts, -1, keepdims=True), length(x - nearest), jnp.inf)
