"""Surfaces of functions: where an occupancy passes a level, as a mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int

# Six tetrahedra around the diagonal from corner 0 to 7 fill a cube, and those of neighbouring cubes meet (Kuhn's
# triangulation). A corner's number has a bit for each axis: x 1, y 2, z 4.
_TETRAHEDRA = np.array([[0, 1, 3, 7], [0, 3, 2, 7], [0, 2, 6, 7], [0, 6, 4, 7], [0, 4, 5, 7], [0, 5, 1, 7]])
_CORNERS = np.array([[n & 1, n >> 1 & 1, n >> 2 & 1] for n in range(8)])


def marching_tetrahedra(
    values: ArrayLike, lower: ArrayLike | Sequence[float], pitch: float, level: float = 0.5
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """The surface on which values at the points of a grid pass a level.

    Every cube is cut into six tetrahedra, in each of which the function is taken as linear (Doi and Koide 1991): there
    are no ambiguous cases, and the mesh is closed wherever it does not leave the grid.

    Args:
        values: (X, Y, Z) larger inside.
        lower: (3,) where the grid's first point is.
        pitch: between points of the grid.
        level: of the surface.

    Returns:
        Vertices (V, 3), V = 0 where nothing passes the level, and triangles (F, 3), which turn outwards.

    Raises:
        ValueError: no grid, or one of a single point along an axis.
    """
    grid = np.asarray(values, np.float64) - level
    if grid.ndim != 3 or min(grid.shape) < 2:
        raise ValueError(f"values: expected (X, Y, Z), at least 2 along each axis, got {grid.shape}")
    inside = grid > 0
    strides = np.array([grid.shape[1] * grid.shape[2], grid.shape[2], 1])
    # cubes that the surface passes through
    corner_inside = np.stack(
        [inside[tuple(slice(o, o + n - 1) for o, n in zip(offset, grid.shape, strict=True))] for offset in _CORNERS], -1
    )
    mixed = np.argwhere(corner_inside.any(-1) & ~corner_inside.all(-1))
    corners = (mixed[:, None] + _CORNERS) @ strides  # (M, 8) numbers of grid points
    tetrahedra = corners[:, _TETRAHEDRA].reshape(-1, 4)
    is_in = inside.reshape(-1)[tetrahedra]
    order = np.argsort(~is_in, axis=-1, kind="stable")  # inside corners first
    tetrahedra, count = np.take_along_axis(tetrahedra, order, -1), is_in.sum(-1)
    a, b, c, d = tetrahedra.T
    edges = []  # triangles as three crossed edges, each from its inner to its outer end
    one, two, three = (count == n for n in (1, 2, 3))
    edges.append(np.stack([a, b, a, c, a, d], -1)[one])
    edges.append(np.stack([a, d, b, d, c, d], -1)[three])
    edges.append(np.stack([a, c, a, d, b, d], -1)[two])
    edges.append(np.stack([a, c, b, d, b, c], -1)[two])
    crossed = np.concatenate(edges).reshape(-1, 2)
    if not len(crossed):
        return np.zeros((0, 3)), np.zeros((0, 3), int)
    # an edge belongs to several tetrahedra, its vertex is one
    unique: Any = np.unique(np.sort(crossed, -1), axis=0, return_inverse=True)
    ends, faces = unique
    flat = grid.reshape(-1)
    share = flat[ends[:, 0]] / (flat[ends[:, 0]] - flat[ends[:, 1]])
    first, second = (np.stack(np.unravel_index(ends[:, k], grid.shape), -1) for k in range(2))
    vertices = np.asarray(lower, np.float64) + pitch * (first + share[:, None] * (second - first))
    faces = faces.reshape(-1, 3)
    # outwards: the way from a triangle's inner to its outer corners
    inner, outer = (np.stack(np.unravel_index(crossed[:, k], grid.shape), -1).reshape(-1, 3, 3) for k in range(2))
    out = np.sum(outer - inner, 1)
    x, y, z = (vertices[faces[:, k]] for k in range(3))
    turned = np.sum(np.cross(y - x, z - x) * out, -1) < 0
    faces = np.where(turned[:, None], faces[:, ::-1], faces)
    keep = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return vertices, faces[keep]


def extract_surface(
    occupancy: Callable[[np.ndarray], ArrayLike],
    lower: ArrayLike | Sequence[float],
    upper: ArrayLike | Sequence[float],
    *,
    cells: int = 16,
    refinements: int = 2,
    level: float = 0.5,
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """The surface of an occupancy function in a box, from coarse to fine.

    A coarse grid is asked first; each refinement halves the pitch and asks only about points near to where the grid
    before passes the level (multi-resolution isosurface extraction: Mescheder et al., CVPR 2019).

    Args:
        occupancy: points (N, 3) -> (N,), larger inside.
        lower: (3,) of the box, which should hold the whole surface.
        upper: (3,).
        cells: along the box's longest side, at first.
        refinements: how often the pitch is halved.
        level: of the surface.

    Returns:
        Vertices (V, 3) and triangles (F, 3) as of `marching_tetrahedra`.

    Raises:
        ValueError: a box without room in it.
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if low.shape != (3,) or high.shape != (3,) or not (high > low).all():
        raise ValueError(f"expected corners (3,) with lower below upper, got {low} and {high}")
    pitch = (high - low).max() / cells
    number = np.ceil((high - low) / pitch - 1e-6).astype(int) + 1
    ask = lambda index, pitch: np.asarray(occupancy(low + pitch * index), np.float64)  # noqa: E731
    values = ask(np.stack(np.meshgrid(*(np.arange(n) for n in number), indexing="ij"), -1).reshape(-1, 3), pitch)
    values = values.reshape(number)
    for _ in range(refinements):
        pitch, inside = pitch / 2, values > level
        near = _spread(_spread(inside) & _spread(~inside))
        finer = np.zeros([2 * n - 1 for n in values.shape])
        unknown = np.ones(finer.shape, bool)
        finer[::2, ::2, ::2], unknown[::2, ::2, ::2] = values, False
        # far from the surface any value of the right side will do: that of the coarse point
        coarse = tuple(np.arange(n) // 2 for n in finer.shape)
        finer = np.where(unknown, values[np.ix_(*coarse)], finer)
        asked = np.argwhere(unknown & near[np.ix_(*coarse)])
        if len(asked):
            finer[tuple(asked.T)] = ask(asked, pitch)
        values = finer
    return marching_tetrahedra(values, low, pitch, level)


def _spread(mask: np.ndarray) -> np.ndarray:
    """A mask, and the neighbours of it along each axis and diagonal."""
    for axis in range(mask.ndim):
        grown = mask.copy()
        ahead, behind = ([slice(None)] * mask.ndim for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        grown[tuple(ahead)] |= mask[tuple(behind)]
        grown[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown
    return mask
