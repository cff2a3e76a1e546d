"""Normals of triangle meshes, and their holes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int


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


def close_holes(faces: ArrayLike) -> Int[np.ndarray, "closed 3"]:
    """Triangles of a mesh and of fans over its holes, such as a hand's wrist: then it is watertight, as
    `winding_number` and `signed_distance` would have it.

    Args:
        faces: (F, 3) of a manifold mesh, all turned alike; not traced.

    Returns:
        (F + G, 3): the faces, then G more over the same vertices, turned as they are.

    Raises:
        ValueError: edges of a hole that make no single loop at a vertex.
    """
    f = np.asarray(faces)
    edges = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    there = set(map(tuple, edges.tolist()))
    border = [(a, b) for a, b in map(tuple, edges.tolist()) if (b, a) not in there]
    after = {b: a for a, b in border}  # a new triangle goes along an edge the other way
    if len(after) < len(border) or set(after) != set(after.values()):
        raise ValueError(f"faces: expected holes whose borders are loops, got {len(border)} edges that are not")
    more = []
    while after:
        first = min(after)
        a = after.pop(first)
        while (b := after.pop(a)) != first:
            more.append((first, a, b))
            a = b
    return np.concatenate([f, np.array(more, f.dtype).reshape(-1, 3)])
