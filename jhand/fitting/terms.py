"""What a fit minimises besides its priors: terms, each many small residuals of one kind.

A residual is a function of a few landmarks of one hand and of what was measured there; whatever is measured on a hand
is a choice of landmarks and such a function. Each constructor below is one kind of measurement. Their arrays carry the
leading axes of the hands to be fitted, time last in a sequence.

Some measurements do not say which point of the hand they belong to. Their terms find that out again every few
iterations (`Term.correspond`), in between it is held fixed (iterated closest points, Besl and McKay 1992).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.geometry.camera import Camera, WeakCamera, project, unproject
from jhand.geometry.distance import closest_on_mesh
from jhand.geometry.rotations import so3_exp
from jhand.hand.landmark_sets import LandmarkSet, vertex_landmarks
from jhand.hand.model import PARENTS, HandModel

HIGHEST = lax.Precision.HIGHEST
CAMERA_UNKNOWNS = 7
"""Of a camera that is not quite known: its turn (3), its shift (3), the logarithm of its focal length's factor."""

Residual = Callable[[Array, Array, Array, Any], Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Term:
    """G residuals on each hand. Made by the functions of this module."""

    landmarks: LandmarkSet
    """The points of the hand that the residuals read."""
    groups: Int[Array, "... g m"]
    """Which m landmarks each residual reads."""
    data: Any
    """What was measured: arrays with leading axes (..., G)."""
    weights: Float[Array, "... g"]
    """Trust in each, 0 for what is missing; a residual has sigma / sqrt(weight)."""
    sigma: Array | float
    """Standard deviation of a residual of weight 1."""
    robust: Array | float
    """Residual, in sigmas, from which it counts linearly (pseudo-Huber) instead of squared."""
    residual: Residual = field(metadata={"static": True})
    """`(points (m, 3), transl (3,), cameras (V, 7), datum) -> (R,)`."""
    correspond: Callable[[Any, Array], tuple[Array, Any, Array]] | None = field(default=None, metadata={"static": True})
    """`(frame's data, landmarks (K, 3)) -> groups (G, m), data, weights`, where the groups depend on the hand."""
    source: Any = None
    """What `correspond` reads: arrays with the leading axes of the hands."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeWeakCamera:
    """Scaled orthography of unknown scale: u = focal * (x, y) / z of the hand's translation. Its focal length is
    nominal.
    """

    focal: Float[Array, "*b"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixel:
    """A point seen in a picture."""

    uv: Float[Array, "*b 2"]
    camera: Camera | WeakCamera | FreeWeakCamera
    view: Int[Array, "*b"]
    """Which of the cameras it is, where they are not quite known."""


def offset(points: Array, _transl: Array, _cameras: Array, measured: Array) -> Array:
    """Metres (3,) from a measured point to the landmark."""
    return points[0] - measured


def pixel_offset(points: Array, transl: Array, cameras: Array, seen: Pixel) -> Array:
    """Pixels (2,) from where a point was seen to the landmark's image."""
    return image_point(seen, points[0], transl, cameras) - seen.uv


def image_point(seen: Pixel, point: Array, transl: Array, cameras: Array) -> Array:
    """Pixel (2,) of one landmark (3,) of a hand translated by `transl` (3,)."""
    camera = seen.camera
    if isinstance(camera, FreeWeakCamera):
        return camera.focal * point[:2] / transl[2]
    if isinstance(camera, Camera) and cameras.shape[0]:
        camera = adjust_camera(camera, cameras[seen.view])
    return project(camera, point[None])[0]


def adjust_camera(camera: Camera, unknowns: ArrayLike) -> Camera:
    """A camera turned and shifted in its own frame, its focal length scaled.

    Args:
        camera: leading axes (...).
        unknowns: (..., 7): axis-angle, metres, logarithm of the factor.
    """
    c = jnp.asarray(unknowns)
    turn = so3_exp(c[..., :3])
    R = jnp.matmul(turn, camera.T_cam_world[..., :3, :3], precision=HIGHEST)
    t = jnp.matmul(turn, camera.T_cam_world[..., :3, 3:], precision=HIGHEST) + c[..., 3:6, None]
    T = camera.T_cam_world.at[..., :3, :].set(jnp.concatenate([R, t], -1))
    factor = jnp.exp(c[..., 6])[..., None, None]
    return replace(camera, K=camera.K.at[..., :2, :2].multiply(factor), T_cam_world=T)


def _each(num: int) -> Int[Array, "g 1"]:
    """Groups of one landmark each."""
    return jnp.arange(num)[:, None]


def _measured(points: ArrayLike, weights: ArrayLike | None, what: str) -> tuple[Array, Array]:
    """Measurements (..., G, C) with 0 where their weight is 0, and the weights (..., G)."""
    p = jnp.asarray(points, jnp.float32)
    w = jnp.ones(p.shape[:-1]) if weights is None else jnp.asarray(weights, jnp.float32)
    if w.shape != p.shape[:-1]:
        raise ValueError(f"weights of {what}: expected shape {p.shape[:-1]}, one for each, got {w.shape}")
    return jnp.where(w[..., None] > 0, p, 0), w


def points_3d(
    landmarks: LandmarkSet,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = jnp.inf,
) -> Term:
    """Landmarks measured in space, whichever they are.

    Args:
        landmarks: K points of the hand.
        points: (..., K, 3) metres, where they were measured.
        weights: (..., K), 0 for what is missing.
        sigma: metres.
        robust: see `Term`.
    """
    p, w = _measured(points, weights, "points")
    K = len(landmarks.names)
    if p.shape[-2:] != (K, 3):
        raise ValueError(f"points: expected shape (..., {K}, 3), one for each landmark, got {p.shape}")
    return Term(landmarks, _each(K), p, w, sigma, robust, offset)


def mesh_vertices(
    hand: HandModel,
    vertices: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = jnp.inf,
) -> Term:
    """Every vertex measured, as a scan registered to the model gives them.

    Args:
        hand: the model.
        vertices: (..., V, 3) metres.
        weights: (..., V), 0 for what is missing.
        sigma: metres.
        robust: see `Term`.
    """
    return points_3d(_all_vertices(hand), vertices, weights, sigma=sigma, robust=robust)


def _all_vertices(hand: HandModel) -> LandmarkSet:
    ids = tuple(range(hand.num_vertices))
    return vertex_landmarks(hand, ids, tuple(f"v{i}" for i in ids))


def points_2d(
    landmarks: LandmarkSet,
    pixels: ArrayLike,
    camera: Camera | WeakCamera | FreeWeakCamera,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 2.0,
    robust: Array | float = jnp.inf,
) -> Term:
    """Landmarks seen by one or several cameras.

    Args:
        landmarks: K points of the hand.
        pixels: (..., V, K, 2) seen in V views.
        camera: leading axes (..., V) or what broadcasts to them.
        weights: (..., V, K), 0 for what is not seen.
        sigma: pixels.
        robust: see `Term`.
    """
    uv, w = _measured(pixels, weights, "pixels")
    K = len(landmarks.names)
    if uv.ndim < 3 or uv.shape[-2:] != (K, 2):
        raise ValueError(f"pixels: expected shape (..., V, {K}, 2), got {uv.shape}")
    *batch, V, _, _ = uv.shape
    seen = Pixel(uv, _for_each(repeat_camera(camera, (*batch, V)), len(batch) + 1, K), _views((*batch, V, K)))
    flat = lambda a: a.reshape(*batch, V * K, *a.shape[len(batch) + 2 :])  # noqa: E731
    groups = jnp.tile(_each(K), (V, 1))
    return Term(landmarks, groups, jax.tree.map(flat, seen), flat(w), sigma, robust, pixel_offset)


def _views(shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Number of the view of points (..., V, K)."""
    return jnp.broadcast_to(jnp.arange(shape[-2])[:, None], shape)


_CAMERA_AXES = {"K": 2, "T_cam_world": 2, "distortion": 1, "scale": 0, "offset": 1, "focal": 0}


def repeat_camera(camera: Any, batch: tuple[int, ...]) -> Any:
    """A camera whose leading axes broadcast to `batch`, with these leading axes."""

    def repeated(name: str) -> Array:
        array = jnp.asarray(getattr(camera, name))
        return jnp.broadcast_to(array, (*batch, *array.shape[array.ndim - _CAMERA_AXES[name] :]))

    return replace(camera, **{f.name: repeated(f.name) for f in fields(camera)})


def _for_each(tree: Any, axis: int, num: int) -> Any:
    """Arrays repeated along a new axis."""
    return jax.tree.map(lambda a: jnp.repeat(jnp.expand_dims(a, axis), num, axis), tree)


# Surfaces: which point of the mesh a measurement belongs to is found again as the hand moves.


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
    p, w = _measured(points, weights, "points")
    n = jnp.zeros_like(p) if normals is None else _measured(normals, w, "normals")[0]
    if p.ndim < 2 or p.shape[-1] != 3 or n.shape != p.shape:
        raise ValueError(f"points and normals: expected one shape (..., P, 3), got {p.shape} and {n.shape}")
    batch = p.shape[:-2]
    faces = jnp.broadcast_to(hand.faces, (*batch, *hand.faces.shape))
    source = (p, n, w, faces, jnp.full(batch, reach))
    blank = _Foot(p, n, jnp.zeros_like(p).at[..., 0].set(1))
    groups = jnp.zeros((p.shape[-2], 3), jnp.int32)
    return Term(_all_vertices(hand), groups, blank, w, sigma, robust, residual, _nearest_triangle, source)


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
    blank = Pixel(jnp.zeros((*batch, num, 2)), _for_each(cameras, len(batch), num), zero.astype(jnp.int32))
    groups = jnp.zeros((num, 1), jnp.int32)
    return Term(_all_vertices(hand), groups, blank, zero, sigma, robust, pixel_offset, _nearest_outline, source)


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
    return _each(landmarks.shape[0]), _Tangent(points[nearest], normals[nearest]), weights


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
    return Term(landmarks, _each(K), blank, jnp.zeros_like(w), sigma, robust, residual, _nearest_tangent, source)


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
    return _on_object(_all_vertices(hand), points, normals, None, sigma, jnp.inf, reach, _depth_inside)


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
