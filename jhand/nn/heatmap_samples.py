"""Heat maps as what they say of places: points drawn from them, and embeddings of points whose sums are histograms."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HeatmapSamples:
    """Points of heat maps, and what these say there."""

    points: Float[Array, "*b s 2"]
    """x then y, 2 (u - W / 2) / W of pixel u: from -1 to nearly 1 across the map."""
    values: Float[Array, "*b s"]
    """Of the map, as it is: not a density."""


def sample_heatmaps(key: Array, heatmaps: ArrayLike, number: int) -> HeatmapSamples:
    """Pixels drawn with replacement, each as often as its map says; what is negative counts as 0.

    A row by the sums of rows, then a column within it, which is the same as a pixel of the whole. A map without
    anything positive says nothing: all its pixels are equally likely, and their value is 0.

    Args:
        key: of the draw.
        heatmaps: (..., H, W).
        number: of points of each map, S.

    Returns:
        Leading axes as those of heatmaps.

    Raises:
        ValueError: no maps, or fewer than one point.
    """
    maps = _maps(heatmaps)
    if number < 1:
        raise ValueError(f"number: expected 1 or more points of each map, got {number}")
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, height, width)
    share = jax.random.uniform(key, (2, flat.shape[0], number))
    row = _draw(share[0], jnp.sum(flat, -1)[:, None])
    column = _draw(share[1], jnp.take_along_axis(flat, row[..., None], 1))
    values = jnp.take_along_axis(flat.reshape(len(flat), -1), row * width + column, -1)
    return _samples(column, row, values, maps.shape)


def argmax_heatmaps(heatmaps: ArrayLike) -> HeatmapSamples:
    """The likeliest pixel of each map (..., H, W), as one sample, S = 1.

    Raises:
        ValueError: no maps.
    """
    maps = _maps(heatmaps)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1])
    best = jnp.argmax(flat, -1, keepdims=True)
    return _samples(*divmod(best, maps.shape[-1])[::-1], jnp.take_along_axis(flat, best, -1), maps.shape)


def channel_embedding(places: ArrayLike, channels: int = 64) -> Float[Array, "*b c"]:
    """Places from -1 to 1 as smooth histograms, squared cosines about `channels` centres (Felsberg et al. 2006).

    With C centres evenly from -1 to 1, channel k is cos^2(f (x - c_k)) with f = pi C / 8, and 0 beyond the first zero
    of the cosine, 4 / C away: three or four channels know of a place, and the sum over a set of places is a histogram.

    Args:
        places: (...), of one coordinate; beyond -1 and 1 they fade to 0.
        channels: C.

    Returns:
        (..., C) from 0 to 1.
    """
    angle = jnp.pi * channels / 8 * (jnp.asarray(places)[..., None] - jnp.linspace(-1, 1, channels))
    return jnp.square(jnp.cos(jnp.clip(angle, -jnp.pi / 2, jnp.pi / 2)))


def _maps(heatmaps: ArrayLike) -> Float[Array, "*b h w"]:
    maps = jnp.maximum(jnp.asarray(heatmaps, jnp.float32), 0)
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ValueError(f"heatmaps: expected shape (..., H, W), got {maps.shape}")
    return maps


def _draw(share: Array, weights: Array) -> Array:
    """Indices (b, S) that a share (b, S) from 0 to 1 of the sums of weights (b, S or 1, n) falls on."""
    weights = jnp.where(jnp.any(weights > 0, -1, keepdims=True), weights, 1)
    # sums by a product: XLA's cumulative ones are slow on CPUs; they are rounded, so the very end is left alone
    upto = jnp.matmul(weights, jnp.triu(jnp.ones((weights.shape[-1],) * 2)), precision=lax.Precision.HIGHEST)
    return jnp.sum(upto <= (1 - 1e-5) * share[..., None] * upto[..., -1:], -1)


def _samples(column: Array, row: Array, values: Array, shape: tuple[int, ...]) -> HeatmapSamples:
    size = jnp.array(shape[:-3:-1], jnp.float32)
    points = 2 * (jnp.stack([column, row], -1) - size / 2) / size
    batch = shape[:-2]
    return HeatmapSamples(points.reshape(*batch, -1, 2), values.reshape(*batch, -1))
