"""Reading maps of features between their pixels."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def sample_bilinear(
    features: ArrayLike, points: ArrayLike, *, outside: Literal["zeros", "border"] = "zeros"
) -> Float[Array, "*b k c"]:
    """Maps of features at points between pixels, bilinearly.

    Centres of pixels are at integers: (0, 0) is the centre of the first one, and the map reaches from -0.5 to W - 0.5.
    Coordinates from 0 to 1 across the map convert by `pixels_from_normalised`. The gradient with respect to a point is
    that of the plane through its four pixels, one-sided at integers.

    Args:
        features: (..., H, W, C).
        points: (..., K, 2), x then y; leading axes broadcast.
        outside: what pixels beyond the map are: 0, or like the nearest of its border.

    Returns:
        (..., K, C).
    """
    f, p = jnp.asarray(features), jnp.asarray(points)
    height, width, channels = f.shape[-3:]
    batch = jnp.broadcast_shapes(f.shape[:-3], p.shape[:-2])
    f = jnp.broadcast_to(f, (*batch, height, width, channels)).reshape(*batch, height * width, channels)
    p = jnp.broadcast_to(p, (*batch, *p.shape[-2:]))

    # A point far outside, or NaN, must not become an index; nothing is read there.
    limit = jnp.asarray([width, height], p.dtype)
    p = jnp.clip(p, 0, limit - 1) if outside == "border" else jnp.clip(p, -1, limit)
    low = jnp.floor(p)
    share = p - low
    column, row = jnp.moveaxis(low.astype(jnp.int32), -1, 0)
    columns, rows = jnp.stack([column, column + 1, column, column + 1], -1), jnp.stack([row, row, row + 1, row + 1], -1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    x, y = share[..., 0], share[..., 1]
    weights = jnp.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)
    places = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)  # (..., K, 4)
    corners = jnp.take_along_axis(f, places.reshape(*batch, -1, 1), -2).reshape(*places.shape, channels)
    return jnp.sum(jnp.where(inside, weights, 0)[..., None] * corners, -2)


def pixels_from_normalised(points: ArrayLike, size: tuple[int, int]) -> Float[Array, "*b k 2"]:
    """Pixels of points (..., K, 2) that go from 0 to 1 across a map of `size` (height, width): u = x W - 0.5.

    Coordinates from -1 to 1 (torch's grid_sample without align_corners) are 2 x - 1 of these.
    """
    return jnp.asarray(points) * jnp.asarray(size[::-1], float) - 0.5
