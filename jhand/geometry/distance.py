"""Distances between points and triangle meshes."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

HIGHEST = lax.Precision.HIGHEST


def _closest_on_segment(p: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Squared distance of p from segment ab, and where along it the closest point lies, 0 at a, 1 at b."""
    ab = b - a
    t = jnp.sum((p - a) * ab, -1) / jnp.maximum(jnp.sum(ab * ab, -1), 1e-20)
    t = jnp.clip(t, 0, 1)
    return jnp.sum(jnp.square(a + t[..., None] * ab - p), -1), t


def _closest_in_triangle(p: Array, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Squared distance of p from triangle abc, and the closest point's barycentric coordinates (..., 3)."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = jnp.sum(ab * ab, -1), jnp.sum(ab * ac, -1), jnp.sum(ac * ac, -1)
    d20, d21 = jnp.sum(ap * ab, -1), jnp.sum(ap * ac, -1)
    area2 = jnp.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / area2, (d00 * d21 - d01 * d20) / area2
    face = jnp.stack([1 - v - w, v, w], -1)
    foot = face[..., 0, None] * a + face[..., 1, None] * b + face[..., 2, None] * c
    inside = jnp.all(face >= 0, -1)
    candidates = [(jnp.where(inside, jnp.sum(jnp.square(foot - p), -1), jnp.inf), face)]
    o = jnp.zeros_like(v)
    for (x, y), place in (((a, b), (0, 1)), ((b, c), (1, 2)), ((c, a), (2, 0))):
        squared, t = _closest_on_segment(p, x, y)
        weights = [o, o, o]
        weights[place[0]], weights[place[1]] = 1 - t, t
        candidates.append((squared, jnp.stack(weights, -1)))
    distances = jnp.stack([d for d, _ in candidates], -1)
    best = jnp.argmin(distances, -1)
    barycentric = jnp.stack([b for _, b in candidates], -2)
    chosen = jnp.take_along_axis(barycentric, best[..., None, None], -2)[..., 0, :]
    return jnp.min(distances, -1), chosen


@jax.jit
def closest_on_mesh(
    points: ArrayLike, vertices: ArrayLike, faces: ArrayLike
) -> tuple[Float[Array, "p 3"], Int[Array, "p"], Float[Array, "p 3"]]:
    """Closest points of one mesh: exact, every triangle is tried.

    Args:
        points: (P, 3) metres.
        vertices: (V, 3) metres.
        faces: (F, 3).

    Returns:
        Closest points (P, 3), their triangles (P,), and their barycentric coordinates (P, 3).
    """
    p, v = jnp.asarray(points), jnp.asarray(vertices)
    corners = v[jnp.asarray(faces)]

    def one(point: Array) -> tuple[Array, Array, Array]:
        squared, barycentric = _closest_in_triangle(point, corners[:, 0], corners[:, 1], corners[:, 2])
        face = jnp.argmin(squared)
        b = barycentric[face]
        return jnp.matmul(b, corners[face], precision=HIGHEST), face, b

    return lax.map(one, p)
