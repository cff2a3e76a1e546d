"""Soft silhouettes: masks that have a gradient, since they fall off with the distance from the outline."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jhand.geometry.camera import Camera
from jhand.render.meshes import Scene, all_as_one, see
from jhand.render.rasterise import homogeneous_pixels

_BESIDE = 0.75  # pixels beyond an edge where the background must begin
_ALONG = (0.2, 0.5, 0.8)  # where along an edge that is looked at


def soft_mask(
    scene: Scene, camera: Camera, size: tuple[int, int], sigma_px: float = 1.0, *, near: float = 0.01, edges: int = 512
) -> Float[Array, "h w"]:
    """How surely each pixel is covered: a logistic function of its signed distance from the scene's outline.

    Outside, the distance is that from the nearest triangle, as in Liu et al., ICCV 2019 (Soft Rasterizer); inside, that
    from the outline and not from every edge of a triangle, so the mask of a mesh has no seams. The outline is made of
    the edges beside which the background is seen; which those are is decided without a gradient.

    Args:
        scene: one scene; use `jax.vmap` for several.
        camera: full, with or without a lens.
        size: height and width, pixels.
        sigma_px: pixels: scale of the fall, 0.73 at one sigma inside.
        near: metres along the camera's z; nothing nearer is seen.
        edges: the most that an outline may have; those beyond are left out.

    Returns:
        (H, W), 0 to 1.
    """
    vertices, faces = all_as_one(scene)
    q = homogeneous_pixels(camera, vertices, near)
    ahead = q[:, 2] > near
    uv = q[:, :2] / jnp.where(ahead, q[:, 2], 1)[:, None]
    covered = see(vertices, faces, camera, size, near, None).face >= 0
    pairs, beyond = _outline(lax.stop_gradient(uv), ahead, faces, covered, edges)

    a, b = uv[pairs[:, 0]], uv[pairs[:, 1]]
    pixels = jnp.stack(jnp.meshgrid(jnp.arange(size[1], dtype=float), jnp.arange(size[0], dtype=float)), -1)

    def squared_distance(pixel: Array) -> Array:
        along = b - a
        share = jnp.sum((pixel - a) * along, -1) / jnp.maximum(jnp.sum(along * along, -1), 1e-12)
        foot = a + jnp.clip(share, 0, 1)[:, None] * along
        return jnp.min(jnp.where(beyond, jnp.inf, jnp.sum(jnp.square(pixel - foot), -1)))

    far = float(size[0] ** 2 + size[1] ** 2)  # without any outline
    squared = jnp.minimum(jax.vmap(squared_distance)(pixels.reshape(-1, 2)), far)
    distance = jnp.sqrt(squared + 1e-12).reshape(size)
    return jax.nn.sigmoid(jnp.where(covered, distance, -distance) / sigma_px)


def _outline(uv: Array, ahead: Array, faces: Array, covered: Array, edges: int) -> tuple[Array, Array]:
    """Vertices (E, 2) of the edges that part a mesh from its background, and which of the E are none."""
    height, width = covered.shape
    half = jnp.concatenate([faces[:, [0, 1, 2]], faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]])  # edge, third vertex
    p = uv[half]
    along = p[:, 1] - p[:, 0]
    turned = jnp.sign(along[:, 0] * (p[:, 2] - p[:, 0])[:, 1] - along[:, 1] * (p[:, 2] - p[:, 0])[:, 0])
    # two halves of an edge follow each other once sorted; an edge with one half is a rim
    low, high = jnp.min(half[:, :2], 1), jnp.max(half[:, :2], 1)
    order = jnp.lexsort((high, low))
    low, high, facing = low[order], high[order], turned[order]
    twin = (low == jnp.roll(low, -1)) & (high == jnp.roll(high, -1))
    shared = twin | jnp.roll(twin, 1)
    other = jnp.where(twin, jnp.roll(facing, -1), jnp.roll(facing, 1))
    bends = ~shared | (facing != other)

    p, along = p[order], along[order]
    normal = jnp.stack([along[:, 1], -along[:, 0]], -1) * facing[:, None]  # away from the third vertex
    normal = normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    beside_background = jnp.zeros(len(half), bool)
    for share in _ALONG:
        column, row = jnp.moveaxis(jnp.round(p[:, 0] + share * along + _BESIDE * normal).astype(jnp.int32), -1, 0)
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        there = covered[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
        beside_background |= ~(within & there)
    is_outline = bends & beside_background & jnp.all(ahead[half[order]], -1)
    which = jnp.nonzero(is_outline, size=edges, fill_value=len(half))[0]
    beyond = which == len(half)
    return half[order][jnp.minimum(which, len(half) - 1), :2], beyond
