"""Terms about the skin: scans and depth, outlines, objects that are touched, fingers that do not cross.

A measurement does not say which point of the hand it belongs to: each is matched with the hand again as that moves.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.fitting.terms import (
    Pixel,
    Residual,
    Term,
    all_vertices,
    each,
    for_each,
    measured,
    pixel_offset,
    repeat_camera,
)
from jhand.geometry.camera import Camera, WeakCamera, project, unproject
from jhand.geometry.distance import closest_on_mesh
from jhand.hand.landmark_sets import LandmarkSet
from jhand.hand.model import PARENTS, HandModel

HIGHEST = lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Foot:
    """A measured point over a triangle of the hand."""

    point: Array
    normal: Array
    barycentric: Array


def _surface_offset(points: Array, _transl: Array, _cameras: Array, foot: _Foot) -> Array:
    return jnp.matmul(foot.barycentric, points, precision=HIGHEST) - foot.point


def _plane_offset(points: Array, _transl: Array, _cameras: Array, foot: _Foot) -> Array:
    return jnp.sum(foot.normal * _surface_offset(points, _transl, _cameras, foot))[None]


def _normal_offset(points: Array, _transl: Array, _cameras: Array, foot: _Foot) -> Array:
    return _triangle_normal(points) - foot.normal


def _triangle_normal(corners: Array) -> Array:
    """Unit normals (..., 3) of triangles (..., 3, 3); 0 of those without area."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    n = jnp.cross(b - a, c - a)
    squared = jnp.sum(n * n, -1, keepdims=True)
    return jnp.where(squared > 0, n / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def _nearest_triangle(source: Any, vertices: Array) -> tuple[Array, _Foot, Array]:
    """For each measured point its foot on the hand; farther than `reach` none.

    A normal that is known must not point the other way: the back of a finger is not its palm side.
    """
    points, normals, weights, faces, reach = source
    feet, face, barycentric = closest_on_mesh(points, vertices, faces)
    near = jnp.sum(jnp.square(feet - points), -1) < jnp.square(reach)
    has_normal = jnp.sum(jnp.square(normals), -1) > 0
    facing = jnp.sum(normals * _triangle_normal(vertices[faces[face]]), -1) > 0
    weights = jnp.where(near & (facing | ~has_normal), weights, 0)
    return faces[face], _Foot(points, normals, barycentric), weights


def _on_surface(
    hand: HandModel,
    points: ArrayLike,
    normals: ArrayLike | None,
    weights: ArrayLike | None,
    sigma: Array | float,
    robust: Array | float,
    reach: float,
    residual: Residual,
) -> Term:
    p, w = measured(points, weights, "points")
    n = jnp.zeros_like(p) if normals is None else measured(normals, w, "normals")[0]
    if p.ndim < 2 or p.shape[-1] != 3 or n.shape != p.shape:
        raise ValueError(f"points and normals: expected one shape (..., P, 3), got {p.shape} and {n.shape}")
    batch = p.shape[:-2]
    faces = jnp.broadcast_to(hand.faces, (*batch, *hand.faces.shape))
    source = (p, n, w, faces, jnp.full(batch, reach))
    blank = _Foot(p, n, jnp.zeros_like(p).at[..., 0].set(1))
    groups = jnp.zeros((p.shape[-2], 3), jnp.int32)
    return Term(all_vertices(hand), groups, blank, w, sigma, robust, residual, _nearest_triangle, source)


def point_cloud(
    hand: HandModel,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    normals: ArrayLike | None = None,
    sigma: Array | float = 0.002,
    robust: Array | float = 3.0,
    reach: float = 0.03,
) -> Term:
    """Points on the skin, of a scan or a depth camera (`points_from_depth`): each is drawn to the closest triangle.

    Args:
        hand: the model.
        points: (..., P, 3) metres.
        weights: (..., P), 0 for what is missing.
        normals: (..., P, 3) outward unit normals, 0 where unknown: skin that faces the other way is not matched.
        sigma: metres.
        robust: see `Term`.
        reach: metres: farther points do not count for now.
    """
    return _on_surface(hand, points, normals, weights, sigma, robust, reach, _surface_offset)


def point_cloud_planes(
    hand: HandModel,
    points: ArrayLike,
    normals: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = 3.0,
    reach: float = 0.03,
) -> Term:
    """As `point_cloud`, by distance along the normals: skin may slide under the points (Chen and Medioni 1992).

    Args:
        hand: the model.
        points: (..., P, 3) metres.
        normals: (..., P, 3) outward unit normals.
        weights: (..., P), 0 for what is missing.
        sigma: metres.
        robust: see `Term`.
        reach: metres: farther points do not count for now.
    """
    return _on_surface(hand, points, normals, weights, sigma, robust, reach, _plane_offset)


def surface_normals(
    hand: HandModel,
    points: ArrayLike,
    normals: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.2,
    robust: Array | float = 3.0,
    reach: float = 0.03,
) -> Term:
    """Directions of the skin, measured at points near it.

    Args:
        hand: the model.
        points: (..., P, 3) metres.
        normals: (..., P, 3) outward unit normals.
        weights: (..., P), 0 for what is missing.
        sigma: radians, nearly: the length of the difference of unit vectors.
        robust: see `Term`.
        reach: metres: farther points do not count for now.
    """
    return _on_surface(hand, points, normals, weights, sigma, robust, reach, _normal_offset)


# Silhouettes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Outline:
    """A frame's mask and points on its outline."""

    mask: Array
    contour: Array
    contour_weights: Array
    camera: Camera | WeakCamera
    faces: Array
    rim_always: Array


def _nearest_outline(source: _Outline, vertices: Array) -> tuple[Array, Pixel, Array]:
    """Each contour pixel with the nearest vertex of the hand's own outline; each vertex seen outside of the mask with
    the nearest contour pixel.
    """
    uv = project(source.camera, vertices)
    a, b, c = jnp.moveaxis(uv[source.faces], 1, 0)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    corner = source.faces.reshape(-1)
    signs = jnp.repeat(jnp.sign(area), 3)
    most = jnp.full(uv.shape[0], -1.0).at[corner].max(signs)
    least = jnp.full(uv.shape[0], 1.0).at[corner].min(signs)
    on_rim = (most > 0) & (least < 0) | source.rim_always
    between = jnp.sum(jnp.square(source.contour[:, None] - uv[None]), -1)
    rim = jnp.argmin(jnp.where(on_rim, between, jnp.inf), 1)
    seen = jnp.where(source.contour_weights[:, None] > 0, between, jnp.inf)
    target = source.contour[jnp.argmin(seen, 0)]

    height, width = source.mask.shape
    column, row = jnp.moveaxis(jnp.round(uv).astype(jnp.int32), -1, 0)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside = within & source.mask[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    groups = jnp.concatenate([rim, jnp.arange(uv.shape[0])])[:, None]
    num = groups.shape[0]
    camera = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), source.camera)
    data = Pixel(jnp.concatenate([source.contour, target]), camera, jnp.zeros(num, jnp.int32))
    any_contour = jnp.any(source.contour_weights > 0)
    return groups, data, jnp.concatenate([source.contour_weights, (~inside & any_contour).astype(jnp.float32)])


def silhouette(
    hand: HandModel,
    camera: Camera | WeakCamera,
    mask: ArrayLike,
    *,
    num_points: int = 128,
    sigma: Array | float = 2.0,
    robust: Array | float = 3.0,
) -> Term:
    """The hand's outline in a picture: contour pixels draw the hand's rim, and what is seen outside is drawn in.

    Args:
        hand: the model.
        camera: leading axes (...) or none.
        mask: (..., H, W) true where the hand is; nothing but the hand's own picture may hide it.
        num_points: contour pixels to use.
        sigma: pixels.
        robust: see `Term`.
    """
    m = np.asarray(mask, bool)
    if m.ndim < 2:
        raise ValueError(f"mask: expected shape (..., H, W), got {m.shape}")
    batch = m.shape[:-2]
    padded = np.pad(m, [(0, 0)] * len(batch) + [(1, 1), (1, 1)])
    around = padded[..., :-2, 1:-1] & padded[..., 2:, 1:-1] & padded[..., 1:-1, :-2] & padded[..., 1:-1, 2:]
    edges = (m & ~around).reshape(-1, *m.shape[-2:])
    contour, counted = np.zeros((len(edges), num_points, 2), np.float32), np.zeros((len(edges), num_points), np.float32)
    for i, edge in enumerate(edges):
        rows, columns = np.nonzero(edge)
        pick = np.unique(np.linspace(0, len(rows) - 1, num_points).round().astype(int)) if len(rows) else np.arange(0)
        contour[i, : len(pick)] = np.stack([columns[pick], rows[pick]], -1)
        counted[i, : len(pick)] = 1
    contour, counted = contour.reshape(*batch, num_points, 2), counted.reshape(*batch, num_points)

    over = lambda a: jnp.broadcast_to(a, (*batch, *a.shape))  # noqa: E731
    cameras = repeat_camera(camera, batch)
    source = _Outline(
        jnp.asarray(m), jnp.asarray(contour), jnp.asarray(counted), cameras, over(hand.faces), over(_open_edge(hand))
    )
    num = num_points + hand.num_vertices
    zero = jnp.zeros((*batch, num))
    blank = Pixel(jnp.zeros((*batch, num, 2)), for_each(cameras, len(batch), num), zero.astype(jnp.int32))
    groups = jnp.zeros((num, 1), jnp.int32)
    return Term(all_vertices(hand), groups, blank, zero, sigma, robust, pixel_offset, _nearest_outline, source)


def _open_edge(hand: HandModel) -> np.ndarray:
    """(V,) bool: vertices around the open wrist."""
    faces = np.asarray(hand.faces)
    sides, uses = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0, return_counts=True)
    found = np.zeros(hand.num_vertices, bool)
    found[sides[uses == 1]] = True
    return found


# Objects and the hand itself


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Tangent:
    """A point of an object's surface and its outward normal."""

    point: Array
    normal: Array


def _height(points: Array, _transl: Array, _cameras: Array, near: _Tangent) -> Array:
    """Metres (1,) above the surface, negative inside."""
    return jnp.sum((points[0] - near.point) * near.normal)[None]


def _depth_inside(points: Array, _transl: Array, _cameras: Array, near: _Tangent) -> Array:
    return jnp.minimum(_height(points, _transl, _cameras, near), 0)


def _nearest_tangent(source: Any, landmarks: Array) -> tuple[Array, _Tangent, Array]:
    points, normals, weights, reach = source
    squared = jnp.sum(jnp.square(landmarks[:, None] - points[None]), -1)
    nearest = jnp.argmin(squared, 1)
    weights = jnp.where(jnp.min(squared, 1) < jnp.square(reach), weights, 0)
    return each(landmarks.shape[0]), _Tangent(points[nearest], normals[nearest]), weights


def _on_object(
    landmarks: LandmarkSet,
    points: ArrayLike,
    normals: ArrayLike,
    weights: ArrayLike | None,
    sigma: Array | float,
    robust: Array | float,
    reach: float,
    residual: Residual,
) -> Term:
    p, n = jnp.asarray(points, jnp.float32), jnp.asarray(normals, jnp.float32)
    if p.ndim < 2 or p.shape[-1] != 3 or n.shape != p.shape:
        raise ValueError(f"points and normals of the object: expected one shape (..., P, 3), got {p.shape}, {n.shape}")
    batch, K = p.shape[:-2], len(landmarks.names)
    w = jnp.ones(K) if weights is None else jnp.asarray(weights, jnp.float32)
    if w.shape[-1:] != (K,):
        raise ValueError(f"weights: expected shape (..., {K}), one for each landmark, got {w.shape}")
    w = jnp.broadcast_to(w, (*batch, K))
    blank = _Tangent(jnp.zeros((*batch, K, 3)), jnp.zeros((*batch, K, 3)))
    source = (p, n, w, jnp.full(batch, reach))
    return Term(landmarks, each(K), blank, jnp.zeros_like(w), sigma, robust, residual, _nearest_tangent, source)


def contact(
    landmarks: LandmarkSet,
    points: ArrayLike,
    normals: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = 3.0,
    reach: float = 0.03,
) -> Term:
    """Landmarks that touch an object: their height above its surface is zero.

    Args:
        landmarks: K points of the hand, such as `vertex_landmarks(hand, hand.tips, ...)`.
        points: (..., P, 3) metres, on the object's surface in the frame of the hands.
        normals: (..., P, 3) outward unit normals there.
        weights: (..., K) in how far each touches.
        sigma: metres.
        robust: see `Term`.
        reach: metres: landmarks farther away do not count for now.
    """
    return _on_object(landmarks, points, normals, weights, sigma, robust, reach, _height)


def object_penetration(
    hand: HandModel,
    points: ArrayLike,
    normals: ArrayLike,
    *,
    sigma: Array | float = 0.001,
    reach: float = 0.03,
) -> Term:
    """No vertex of the hand is inside an object; see `contact`.

    Args:
        hand: the model.
        points: (..., P, 3) metres, on the object's surface in the frame of the hands.
        normals: (..., P, 3) outward unit normals there.
        sigma: metres of depth.
        reach: metres: deeper than this is not felt.
    """
    return _on_object(all_vertices(hand), points, normals, None, sigma, jnp.inf, reach, _depth_inside)


def collision_spheres(hand: HandModel) -> tuple[LandmarkSet, np.ndarray]:
    """Spheres that fill the hand: along each finger bone, and along the metacarpals.

    Args:
        hand: the model, not traced.

    Returns:
        Their centres as landmarks, and their radii (S,) in metres, to just under the nearest skin.
    """
    basis, skin = np.asarray(hand.basis), np.asarray(hand.v_template)
    joint_basis = np.asarray(hand.joint_basis)
    tips = np.moveaxis(basis[: 1 + hand.num_betas][..., list(hand.tips)], 1, 2)  # (1 + B, 5, 3)
    ends = {3: tips[:, 1], 6: tips[:, 2], 9: tips[:, 4], 12: tips[:, 3], 15: tips[:, 0]}
    centres, owners, names = [], [], []
    for bone in range(1, 16):
        end = ends[bone] if bone in ends else joint_basis[:, bone + 1]
        shares = (0.15, 0.45, 0.72) if bone in ends else (0.1, 0.5, 0.9)
        for share in shares:
            centres.append((1 - share) * joint_basis[:, bone] + share * end)
            owners.append(bone)
            names.append(f"bone{bone}_{share}")
    for knuckle in (1, 4, 7, 10):
        for share in (0.35, 0.6, 0.85):
            centres.append((1 - share) * joint_basis[:, 0] + share * joint_basis[:, knuckle])
            owners.append(0)
            names.append(f"palm{knuckle}_{share}")
    placed = np.stack(centres, -1)  # (1 + B, 3, S)
    radii = np.array([np.linalg.norm(skin - c, axis=1).min() for c in placed[0].T])
    full = np.zeros((basis.shape[0], 3, len(names)), np.float32)
    full[: len(placed)] = placed
    weights = np.eye(16, dtype=np.float32)[owners]
    return LandmarkSet(jnp.asarray(full), jnp.asarray(weights), tuple(names)), radii


def _overlap(points: Array, _transl: Array, _cameras: Array, reach: Array) -> Array:
    """Metres (1,) by which two spheres overlap, of radii that sum to `reach`."""
    apart = points[0] - points[1]
    squared = jnp.sum(apart * apart)
    distance = jnp.sqrt(jnp.where(squared > 1e-12, squared, 1e-12))
    return jnp.maximum(reach - distance, 0)[None]


def self_penetration(hand: HandModel, batch: tuple[int, ...] = (), *, sigma: Array | float = 0.001) -> Term:
    """Fingers do not pass through each other or the palm: spheres within them do not overlap.

    Args:
        hand: the model, not traced.
        batch: leading axes of the hands.
        sigma: metres of overlap.
    """
    spheres, radii = collision_spheres(hand)
    centres, owners = np.asarray(spheres.basis[0].T), np.asarray(spheres.weights).argmax(1)
    finger = np.where(owners > 0, (owners - 1) // 3, -1)
    i, j = np.triu_indices(len(radii), 1)
    gap = np.linalg.norm(centres[i] - centres[j], axis=1) - radii[i] - radii[j]
    # what overlaps in the flat hand is one piece of flesh
    apart = (gap > 0.001) & (finger[i] != finger[j]) & (np.array(PARENTS)[owners[i]] != owners[j])
    pairs = np.stack([i[apart], j[apart]], -1)
    reach = jnp.asarray(radii[pairs].sum(1), jnp.float32)
    over = lambda a: jnp.broadcast_to(a, (*batch, *a.shape))  # noqa: E731
    return Term(
        spheres, jnp.asarray(pairs), over(reach), over(jnp.ones(len(pairs))), sigma, jnp.inf, _overlap
    )  # fmt: skip


def points_from_depth(
    camera: Camera, depth: ArrayLike, mask: ArrayLike | None = None, *, num_points: int = 512
) -> tuple[Float[np.ndarray, "*b p 3"], Float[np.ndarray, "*b p"]]:
    """Points in space from a depth picture, for `point_cloud`: evenly chosen pixels that have a reading.

    Args:
        camera: leading axes (...) or none; without distortion.
        depth: (..., H, W) metres along the camera's z, 0 where there is no reading.
        mask: (..., H, W) true on the hand; by default all readings are of the hand.
        num_points: P.

    Returns:
        Points (..., P, 3) in the world's frame, metres, and weights (..., P), 0 where there were fewer readings.
    """
    d = np.asarray(depth, np.float32)
    if d.ndim < 2:
        raise ValueError(f"depth: expected shape (..., H, W), got {d.shape}")
    counted = (d > 0) & np.isfinite(d)
    if mask is not None:
        counted &= np.broadcast_to(np.asarray(mask, bool), d.shape)
    batch = d.shape[:-2]
    depths, readings = d.reshape(-1, *d.shape[-2:]), counted.reshape(-1, *d.shape[-2:])
    pixels, z, weights = (np.zeros((len(depths), num_points, *tail), np.float32) for tail in ((2,), (), ()))
    for n, (one, reading) in enumerate(zip(depths, readings, strict=True)):
        rows, columns = np.nonzero(reading)
        num = min(num_points, len(rows))
        pick = np.linspace(0, len(rows) - 1, num).round().astype(int)
        pixels[n, :num] = np.stack([columns[pick], rows[pick]], -1)
        z[n, :num], weights[n, :num] = one[rows[pick], columns[pick]], 1
    shape = (*batch, num_points)
    points = unproject(repeat_camera(camera, batch), pixels.reshape(*shape, 2), z.reshape(shape))
    return np.asarray(points), weights.reshape(shape)
