"""Heat maps: keypoints as pictures of where they are likely to be."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def gaussian_maps(points: ArrayLike, size: tuple[int, int], sigma: float) -> Float[Array, "*b k h w"]:
    """Gaussians of height 1 about points; a point far outside leaves its map empty.

    Args:
        points: (..., K, 2) pixels of the map, x and y.
        size: of the maps, (height, width).
        sigma: pixels of the map.
    """
    p = jnp.asarray(points)
    h, w = size
    columns = jnp.exp(-jnp.square((jnp.arange(w) - p[..., :1]) / sigma) / 2)
    rows = jnp.exp(-jnp.square((jnp.arange(h) - p[..., 1:]) / sigma) / 2)
    return rows[..., :, None] * columns[..., None, :]


def map_peaks(maps: ArrayLike) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Highest places, moved a quarter of a pixel towards the higher neighbour (Newell et al., ECCV 2016), and heights.

    Args:
        maps: (..., K, H, W).

    Returns:
        Pixels of the map (..., K, 2), and values (..., K).
    """
    m = jnp.asarray(maps)
    h, w = m.shape[-2:]
    flat = m.reshape(*m.shape[:-2], h * w)
    place = jnp.argmax(flat, -1)
    y, x = place // w, place % w

    def at(rows: Array, columns: Array) -> Array:
        index = jnp.clip(rows, 0, h - 1) * w + jnp.clip(columns, 0, w - 1)
        return jnp.take_along_axis(flat, index[..., None], -1)[..., 0]

    aside = jnp.stack([jnp.sign(at(y, x + 1) - at(y, x - 1)), jnp.sign(at(y + 1, x) - at(y - 1, x))], -1)
    return jnp.stack([x, y], -1) + 0.25 * aside, at(y, x)


def map_means(maps: ArrayLike, temperature: ArrayLike = 1.0) -> Float[Array, "*b k 2"]:
    """Soft argmax: the mean place under a softmax of each map (Sun et al., ECCV 2018).

    Args:
        maps: (..., K, H, W), logits.
        temperature: multiplies them; broadcasts to (..., K).

    Returns:
        Pixels of the map (..., K, 2).
    """
    m = jnp.asarray(maps)
    h, w = m.shape[-2:]
    logits = jnp.asarray(temperature)[..., None] * m.reshape(*m.shape[:-2], h * w)
    chance = jax.nn.softmax(logits, -1).reshape(m.shape)
    x = jnp.sum(jnp.sum(chance, -2) * jnp.arange(w), -1)
    return jnp.stack([x, jnp.sum(jnp.sum(chance, -1) * jnp.arange(h), -1)], -1)
