"""Normals of triangle meshes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.jit
def vertex_normals(vertices: ArrayLike, faces: ArrayLike) -> Float[Array, "*b v 3"]:
    """Unit normals of vertices: means of those of the triangles around, by area; 0 of vertices without triangles.

    Args:
        vertices: (..., V, 3) metres.
        faces: (F, 3).

    Returns:
        (..., V, 3).
    """
    v, f = jnp.asarray(vertices), jnp.asarray(faces)
    a, b, c = (v[..., f[:, k], :] for k in range(3))
    of_corners = jnp.repeat(jnp.cross(b - a, c - a), 3, axis=-2)
    n = jnp.zeros_like(v).at[..., f.reshape(-1), :].add(of_corners)
    squared = jnp.sum(n * n, -1, keepdims=True)
    return jnp.where(squared > 0, n / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
