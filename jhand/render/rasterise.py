"""Which triangle each pixel sees: a z-buffer in fixed shapes.

Triangles are cut into tiles of pixels, as many as each needs; all tiles of all triangles are tested at once and meet in
a scatter. Edge functions are homogeneous (Olano and Greer 1997), so a triangle that reaches behind the camera needs no
clipping: its pixels are tested against the near plane one by one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jhand.geometry.camera import Camera, distort
from jhand.geometry.se3 import transform

_TILE = 4  # pixels a side
_TIE = 1e-6  # depths that differ by less, relatively, are one: they were rounded in two places


def homogeneous_pixels(camera: Camera, points: Array, near: Array | float) -> Float[Array, "v 3"]:
    """Points (V, 3), world, as (u z, v z, z): pixels times depth. Those before the near plane without the lens, which
    says nothing of them.
    """
    x = transform(camera.T_cam_world, points)
    z = x[:, 2:]
    ahead = z > near
    bent = distort(x[:, :2] / jnp.where(ahead, z, 1), camera.distortion) * z
    xy = jnp.where(ahead, bent, x[:, :2])
    K = camera.K
    u = K[0, 0] * xy[:, :1] + K[0, 1] * xy[:, 1:] + K[0, 2] * z
    return jnp.concatenate([u, K[1, 1] * xy[:, 1:] + K[1, 2] * z, z], -1)


def edge_functions(corners: Array, pixel: Array) -> Float[Array, "*b 3"]:
    """Weights of the corners (..., 3, 3) of triangles, homogeneous, where the ray of a pixel (..., 2) meets them.

    They are barycentric, perspective included, once divided by their sum; all of one sign inside. Coordinates count
    from the pixel: the products then hold no large numbers that cancel.
    """
    x, y = (corners[..., k] - pixel[..., None, k] * corners[..., 2] for k in (0, 1))
    xj, xk, yj, yk = jnp.roll(x, -1, -1), jnp.roll(x, -2, -1), jnp.roll(y, -1, -1), jnp.roll(y, -2, -1)
    return xj * yk - yj * xk


def rasterise(
    q: Float[Array, "v 3"], faces: Int[Array, "f 3"], size: tuple[int, int], near: Array | float, capacity: int
) -> tuple[Int[Array, "h w"], Int[Array, ""]]:
    """The triangle nearest to the camera in each pixel's centre.

    Args:
        q: vertices as `homogeneous_pixels`.
        faces: (F, 3).
        size: height and width.
        near: metres; nothing nearer is seen.
        capacity: tiles that are tested.

    Returns:
        Triangles (H, W), -1 where there is none; how many tiles were needed: more than `capacity` are left out.
    """
    height, width = size
    num_faces = faces.shape[0]
    corners = q[faces]
    z = corners[..., 2]
    ahead = z > near
    crossing, gone = ~jnp.all(ahead, -1), ~jnp.any(ahead, -1)
    uv = corners[..., :2] / jnp.where(ahead, z, 1)[..., None]
    last = jnp.array([width - 1, height - 1])
    # what crosses the near plane may be anywhere
    low = jnp.where(crossing[:, None], 0, jnp.ceil(jnp.min(uv, 1)))
    high = jnp.where(crossing[:, None], last, jnp.floor(jnp.max(uv, 1)))
    low = jnp.clip(low, 0, last + 1).astype(jnp.int32)
    high = jnp.clip(high, -1, last).astype(jnp.int32)
    tiles = jnp.maximum((high - low) // _TILE + 1, 0)
    tiles = jnp.where((gone | jnp.any(high < low, -1))[:, None], 0, tiles)
    count = tiles[:, 0] * tiles[:, 1]

    needed = jnp.sum(count)
    first = jnp.cumsum(count) - count
    face = jnp.repeat(jnp.arange(num_faces), count, total_repeat_length=capacity)
    slot = jnp.arange(capacity)
    within = slot - first[face]
    across = jnp.maximum(tiles[face, 0], 1)
    start = low[face] + _TILE * jnp.stack([within % across, within // across], -1)
    real = slot < needed

    # the edge functions of a triangle, linear in the pixel, about its first pixel
    origin = low.astype(jnp.float32)
    right, down = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    at = edge_functions(corners, origin)
    by_x = edge_functions(corners, origin + right) - at
    by_y = edge_functions(corners, origin + down) - at
    x, y = (start - low[face]).astype(jnp.float32).T
    steps = jnp.arange(_TILE)
    dx = (x[:, None] + steps)[:, None, :]  # (C, 1, tile)
    dy = (y[:, None] + steps)[:, :, None]
    weights = [
        at[face, i, None, None] + by_x[face, i, None, None] * dx + by_y[face, i, None, None] * dy for i in range(3)
    ]
    total = weights[0] + weights[1] + weights[2]
    depth = sum(w * z[face, i, None, None] for i, w in enumerate(weights)) / jnp.where(total == 0, 1, total)
    same = [w * jnp.sign(total) >= 0 for w in weights]
    column, row = start[:, 0, None, None] + steps, start[:, 1, None, None] + steps[:, None]
    inside = same[0] & same[1] & same[2] & (total != 0) & (depth > near) & real[:, None, None]
    inside = inside & (column <= high[face, 0, None, None]) & (row <= high[face, 1, None, None])

    nowhere = height * width
    address = jnp.where(inside, row * width + column, nowhere)
    nearest = jnp.full(nowhere, jnp.inf).at[address].min(depth, mode="drop")
    seen = inside & (depth <= nearest[jnp.minimum(address, nowhere - 1)] * (1 + _TIE))
    chosen = jnp.full(nowhere, num_faces).at[jnp.where(seen, address, nowhere)].min(face[:, None, None], mode="drop")
    return jnp.where(chosen < num_faces, chosen, -1).reshape(height, width), needed


def default_capacity(num_faces: int, size: tuple[int, int]) -> int:
    """Tiles for triangles that are small, and for a few layers of large ones."""
    return num_faces + num_faces // 2 + 6 * (-(-size[0] // _TILE)) * (-(-size[1] // _TILE))
