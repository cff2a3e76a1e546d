"""Fewer triangles for the same hand: half-edge collapse by quadric error (Garland and Heckbert 1997), seen in several
poses at once.

A collapsed vertex vanishes into a neighbour and the others stay where they are, so that every per-vertex array is
simply subsampled.
"""

import heapq

import numpy as np

_MIN_NORMAL_AGREEMENT = 0.2  # cosine by which a triangle may turn in one collapse
_SLIVER_COST = 2e-10  # metres^4: what a needle of a triangle costs, beside quadrics of area times squared distance


def decimate(
    poses: np.ndarray,
    faces: np.ndarray,
    num_vertices: int,
    num_boundary: int,
    keep: set[int],
    importance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Collapse a disc to `num_vertices` with `num_boundary` boundary edges.

    Args:
        poses: (P, V, 3) the mesh in several poses; the error is their sum.
        faces: (F, 3).
        num_vertices: to keep.
        num_boundary: boundary edges to keep.
        keep: vertices that must stay.
        importance: (V,) factor on the error of the surface around each vertex.

    Returns:
        Kept vertices (num_vertices,) and faces (F', 3) in the old numbering.
    """
    mesh = _Mesh(poses, faces, keep, importance)
    mesh.collapse_until(lambda: mesh.num_boundary_edges() <= num_boundary, boundary=True)
    mesh.collapse_until(lambda: len(mesh.alive) <= num_vertices, boundary=False)
    return np.array(sorted(mesh.alive)), np.array([f for f in mesh.faces if f is not None])


class _Mesh:
    """Faces by vertex, and a quadric per vertex and pose; the state of a decimation."""

    def __init__(self, poses: np.ndarray, faces: np.ndarray, keep: set[int], importance: np.ndarray) -> None:
        self.poses, self.keep = poses, keep
        self.faces: list[tuple[int, int, int] | None] = [tuple(map(int, f)) for f in faces]
        self.around: list[set[int]] = [set() for _ in range(poses.shape[1])]
        for i, f in enumerate(self.faces):
            for v in f:
                self.around[v].add(i)
        self.alive = {v for v in range(poses.shape[1]) if self.around[v]}
        self.quadrics = self._quadrics() * importance[:, None, None]
        self.version = np.zeros(poses.shape[1], int)

    def _quadrics(self) -> np.ndarray:
        Q = np.zeros((*self.poses.shape[:2], 4, 4))
        for f in self.faces:
            a, b, c = (self.poses[:, v] for v in f)
            n = np.cross(b - a, c - a)
            area = np.linalg.norm(n, axis=-1, keepdims=True) / 2
            n = n / (2 * area)
            plane = np.concatenate([n, -np.sum(n * a, -1, keepdims=True)], -1)
            for v in f:
                Q[:, v] += area[..., None] / 3 * plane[:, :, None] * plane[:, None, :]
            for u, v in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0])):
                if len(self._shared(u, v)) == 1:  # a wall on the boundary keeps its outline
                    edge = self.poses[:, v] - self.poses[:, u]
                    wall = np.cross(edge, n)
                    length = np.linalg.norm(wall, axis=-1, keepdims=True)
                    wall = wall / length
                    plane = np.concatenate([wall, -np.sum(wall * self.poses[:, u], -1, keepdims=True)], -1)
                    for w in (u, v):
                        Q[:, w] += 3 * length[..., None] ** 2 * plane[:, :, None] * plane[:, None, :]
        return Q

    def _shared(self, u: int, v: int) -> set[int]:
        return self.around[u] & self.around[v]

    def _neighbours(self, v: int) -> set[int]:
        return {w for i in self.around[v] for w in self.faces[i]} - {v}

    def _on_boundary(self, v: int) -> bool:
        return any(len(self._shared(v, w)) == 1 for w in self._neighbours(v))

    def num_boundary_edges(self) -> int:
        return sum(len(self._shared(u, v)) == 1 for u in self.alive for v in self._neighbours(u) if u < v)

    def _cost(self, u: int, v: int) -> float | None:
        """Error of moving u onto v; None where that would tear or fold the mesh."""
        if u in self.keep:
            return None
        shared, boundary = self._shared(u, v), self._on_boundary(u)
        if boundary and len(shared) != 1:
            return None
        if len(self._neighbours(u) & self._neighbours(v)) != len(shared):
            return None
        p = np.concatenate([self.poses[:, v], np.ones((len(self.poses), 1))], -1)
        total = float(np.einsum("pi,pij,pj->", p, self.quadrics[:, u] + self.quadrics[:, v], p))
        for i in self.around[u] - shared:
            f = self.faces[i]
            moved = tuple(v if w == u else w for w in f)
            before, after = self._normals(f), self._normals(moved)
            size = np.linalg.norm(after, axis=-1)
            if (np.sum(before * after, -1) < _MIN_NORMAL_AGREEMENT * np.linalg.norm(before, axis=-1) * size).any():
                return None
            longest = max(np.sum((self.poses[0, moved[k]] - self.poses[0, moved[k - 1]]) ** 2) for k in range(3))
            total += _SLIVER_COST * max(0.0, longest / size[0] - 2.5)  # 1.15 for an equilateral triangle
        return total

    def _normals(self, f: tuple[int, int, int]) -> np.ndarray:
        a, b, c = (self.poses[:, v] for v in f)
        return np.cross(b - a, c - a)

    def _collapse(self, u: int, v: int) -> None:
        touched = self._neighbours(u)
        for i in list(self.around[u]):
            f = self.faces[i]
            if v in f:
                for w in f:
                    self.around[w].discard(i)
                self.faces[i] = None
            else:
                self.faces[i] = tuple(v if w == u else w for w in f)
                self.around[v].add(i)
        self.around[u].clear()
        self.alive.discard(u)
        self.quadrics[:, v] += self.quadrics[:, u]
        for w in touched:
            self.version[w] += 1

    def collapse_until(self, done, boundary: bool) -> None:
        """Cheapest collapse first; along the boundary only, or in the interior only."""
        heap: list[tuple[float, int, int, int, int]] = []

        def push(u: int, v: int) -> None:
            if self._on_boundary(u) == boundary and (cost := self._cost(u, v)) is not None:
                heapq.heappush(heap, (cost, u, v, self.version[u], self.version[v]))

        for u in self.alive:
            for v in self._neighbours(u):
                push(u, v)
        while not done():
            _, u, v, version_u, version_v = heapq.heappop(heap)
            if (
                u not in self.alive
                or v not in self.alive
                or (version_u, version_v) != (self.version[u], self.version[v])
            ):
                continue
            if self._cost(u, v) is None:
                continue
            self._collapse(u, v)
            ring = self._neighbours(v) | {v}
            for w in ring:
                for x in self._neighbours(w):
                    push(w, x)
