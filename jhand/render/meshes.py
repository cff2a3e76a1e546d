"""Pictures of meshes: what is seen is decided by a z-buffer, how it looks is differentiable.

One scene and one camera at a time; `jax.vmap` renders many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jhand.geometry.camera import Camera, make_camera
from jhand.geometry.mesh import vertex_normals
from jhand.geometry.se3 import rigid
from jhand.render.rasterise import default_capacity, edge_functions, homogeneous_pixels, rasterise

HIGHEST = lax.Precision.HIGHEST
_BEHIND = 0.3  # how bright the back of a surface is, beside its front
_SHINE = 24  # exponent of highlights; whole, so that a few products make it
_LIGHT_DISTANCE = 4.0  # metres: from so far a light's shadow map looks
_BIAS = 1.5  # pixels of a shadow map: nearer than they are wide a surface does not shade itself


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mesh:
    """A surface to be rendered."""

    vertices: Float[Array, "*b v 3"]
    """Metres, world frame."""
    faces: Int[Array, "f 3"]
    """Triangles, counter-clockwise seen from outside."""
    colour: Float[Array, "*b v 3"]
    """Of each vertex, linear RGB, 0 to 1."""
    part_id: Int[Array, "f"]
    """Of each triangle: whatever it is a part of."""
    object_id: int = field(metadata={"static": True})
    """What the mesh is."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Light:
    """A light far away."""

    direction: Float[Array, "*b 3"]
    """Towards it, of length one, world frame."""
    colour: Float[Array, "*b 3"]
    """Linear RGB."""
    shadows: bool = field(default=False, metadata={"static": True})
    """Whether surfaces stand in its way."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scene:
    """All that is there."""

    meshes: tuple[Mesh, ...]
    lights: tuple[Light, ...]
    ambient: Float[Array, "*b 3"]
    """Light from everywhere, linear RGB."""
    gloss: Float[Array, "*b"]
    """Share of highlights, 0 to 1."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Picture:
    """What a camera sees, pixel by pixel (H, W); 0, or -1 for numbers, where that is nothing."""

    rgb: Float[Array, "*b h w 3"]
    """Linear."""
    alpha: Float[Array, "*b h w"]
    """1 where something is seen."""
    depth: Float[Array, "*b h w"]
    """Metres along the camera's z."""
    normal: Float[Array, "*b h w 3"]
    """Of the surface, of length one, camera axes; that of the side that is seen."""
    mesh_id: Int[Array, "*b h w"]
    """Which of the scene's meshes."""
    face_id: Int[Array, "*b h w"]
    """Which of that mesh's triangles."""
    barycentric: Float[Array, "*b h w 3"]
    """Where in that triangle."""
    complete: Bool[Array, "*b"]
    """Whether all triangles were drawn: if not, give `render` more capacity."""


def make_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    colour: ArrayLike = 0.6,
    *,
    part_id: ArrayLike = 0,
    object_id: int = 0,
) -> Mesh:
    """A mesh from its numbers.

    Args:
        vertices: (..., V, 3) metres, world frame.
        faces: (F, 3).
        colour: of all, (3,) or one number, or (..., V, 3) of each vertex; linear RGB.
        part_id: of each triangle (F,), or of all.
        object_id: what the mesh is.
    """
    v, f = jnp.asarray(vertices), jnp.asarray(faces)
    colours = jnp.broadcast_to(jnp.asarray(colour, float), v.shape)
    return Mesh(v, f, colours, jnp.broadcast_to(jnp.asarray(part_id), f.shape[:1]), object_id)


def make_scene(
    meshes: Mesh | Sequence[Mesh],
    lights: Sequence[Light] | None = None,
    *,
    ambient: ArrayLike = 0.35,
    gloss: ArrayLike = 0.0,
) -> Scene:
    """A scene of one or several meshes.

    Args:
        meshes: what is there.
        lights: by default one from the upper left before a camera with the world's axes.
        ambient: one number or (3,).
        gloss: share of highlights.
    """
    if lights is None:
        towards = np.array([-0.45, -0.6, -0.66], np.float32)
        lights = (Light(jnp.asarray(towards / np.linalg.norm(towards)), jnp.full(3, 0.7)),)
    meshes = (meshes,) if isinstance(meshes, Mesh) else tuple(meshes)
    return Scene(meshes, tuple(lights), jnp.broadcast_to(jnp.asarray(ambient, float), (3,)), jnp.asarray(gloss, float))


def render(
    scene: Scene, camera: Camera, size: tuple[int, int], *, near: float = 0.01, capacity: int | None = None
) -> Picture:
    """What a camera sees of a scene, with everything known about each pixel.

    Visibility is hard: it has no gradient. Colour, depth, normals and barycentric coordinates are differentiable in
    vertices, colours, lights and camera, as of surfaces that stay where they are seen. What a caller does not use
    costs nothing under jit.

    Args:
        scene: one scene; use `jax.vmap` for several.
        camera: full, with or without a lens; triangles are straight between their vertices' images.
        size: height and width, pixels.
        near: metres along the camera's z; nothing nearer is seen.
        capacity: tiles of 4 by 4 pixels that are tested; by default enough for triangles of a few pixels and six
            layers of large ones. See `Picture.complete`.

    Returns:
        The picture.

    Raises:
        ValueError: a scene without meshes, or a camera with leading axes.
    """
    if not scene.meshes:
        raise ValueError("scene: expected at least one mesh")
    if camera.K.ndim != 2:
        raise ValueError(f"camera: expected a single one, got leading axes {camera.K.shape[:-2]}; use jax.vmap")
    vertices, faces = all_as_one(scene)
    surface = see(vertices, faces, camera, size, near, capacity)
    seen = surface.face >= 0

    colour = jnp.concatenate([mesh.colour for mesh in scene.meshes])
    normals = jnp.concatenate([vertex_normals(m.vertices, m.faces) for m in scene.meshes])
    # side by side: corners are gathered once
    colour, normals, place = jnp.split(surface.interpolate(jnp.concatenate([colour, normals, vertices], -1)), 3, -1)
    normals = _unit(normals)
    R, t = camera.T_cam_world[:3, :3], camera.T_cam_world[:3, 3]
    eye = -jnp.matmul(R.T, t, precision=HIGHEST)
    towards_eye = _unit(eye - place)
    front = surface.front[..., None]  # of the triangle: at the rim, the smooth normal may look away from the camera
    normals = jnp.where(front, normals, -normals)

    light = jnp.broadcast_to(scene.ambient, colour.shape)
    shine = jnp.zeros_like(colour)
    for source in scene.lights:
        falls = jnp.maximum(jnp.sum(normals * source.direction, -1, keepdims=True), 0)
        half = _unit(towards_eye + source.direction)
        glint = jnp.maximum(jnp.sum(normals * half, -1, keepdims=True), 1e-6) ** _SHINE
        reaches = _reaches(vertices, faces, place, source)[..., None] if source.shadows else 1.0
        light = light + reaches * falls * source.colour
        shine = shine + reaches * (falls > 0) * glint * source.colour
    rgb = jnp.where(front, 1.0, _BEHIND) * (colour * light + scene.gloss * shine)

    bounds = np.cumsum([0, *(mesh.faces.shape[0] for mesh in scene.meshes)])
    mesh_id = jnp.searchsorted(jnp.asarray(bounds[1:]), surface.face, side="right")
    mesh_id = jnp.where(seen, jnp.minimum(mesh_id, len(scene.meshes) - 1), -1)
    face_id = jnp.where(seen, surface.face - jnp.asarray(bounds)[jnp.maximum(mesh_id, 0)], -1)
    over = seen[..., None]
    return Picture(
        rgb=jnp.where(over, rgb, 0),
        alpha=seen.astype(jnp.float32),
        depth=jnp.where(seen, surface.depth, 0),
        normal=jnp.where(over, jnp.einsum("ij,hwj->hwi", R, normals, precision=HIGHEST), 0),
        mesh_id=mesh_id.astype(jnp.int32),
        face_id=face_id.astype(jnp.int32),
        barycentric=jnp.where(over, surface.barycentric, 0),
        complete=surface.complete,
    )


def interpolate(picture: Picture, scene: Scene, values: Sequence[ArrayLike]) -> Float[Array, "h w c"]:
    """Values of vertices where they are seen: texture coordinates, places on the rest hand, distances to an object.

    Args:
        picture: of the scene.
        scene: what was rendered.
        values: (V, C) for each mesh of the scene.

    Returns:
        (H, W, C), 0 where nothing is seen.
    """
    found = []
    for number, (mesh, value) in enumerate(zip(scene.meshes, values, strict=True)):
        here = picture.mesh_id == number
        corners = jnp.asarray(value)[mesh.faces[jnp.where(here, picture.face_id, 0)]]  # (H, W, 3, C)
        mixed = jnp.einsum("hwk,hwkc->hwc", picture.barycentric, corners, precision=HIGHEST)
        found.append(jnp.where(here[..., None], mixed, 0))
    return sum(found[1:], found[0])


def segmentation(picture: Picture, scene: Scene) -> tuple[Int[Array, "h w"], Int[Array, "h w"]]:
    """What each pixel shows: `object_id` and `part_id` (H, W), -1 where nothing."""
    objects, parts = jnp.full_like(picture.mesh_id, -1), jnp.full_like(picture.mesh_id, -1)
    for number, mesh in enumerate(scene.meshes):
        here = picture.mesh_id == number
        objects = jnp.where(here, mesh.object_id, objects)
        parts = jnp.where(here, mesh.part_id[jnp.where(here, picture.face_id, 0)], parts)
    return objects, parts


@dataclass(frozen=True)
class Surface:
    """What is seen in each pixel of all meshes as one."""

    face: Array
    corners: Array
    """(H, W, 3) vertices."""
    barycentric: Array
    depth: Array
    front: Array
    """Whether it is seen from outside."""
    complete: Array

    def interpolate(self, values: Array) -> Array:
        """Of vertices (V, C) to pixels (H, W, C)."""
        return jnp.einsum("hwk,hwkc->hwc", self.barycentric, values[self.corners], precision=HIGHEST)


def all_as_one(scene: Scene) -> tuple[Array, Array]:
    """Vertices and faces of all meshes as one."""
    starts = np.cumsum([0, *(mesh.vertices.shape[-2] for mesh in scene.meshes)])
    faces = [mesh.faces + int(start) for mesh, start in zip(scene.meshes, starts, strict=False)]
    return jnp.concatenate([mesh.vertices for mesh in scene.meshes]), jnp.concatenate(faces)


def see(
    vertices: Array, faces: Array, camera: Camera, size: tuple[int, int], near: float, capacity: int | None
) -> Surface:
    q = homogeneous_pixels(camera, vertices, near)
    capacity = default_capacity(faces.shape[0], size) if capacity is None else capacity
    face, needed = rasterise(lax.stop_gradient(q), faces, size, near, capacity)
    corners = faces[jnp.maximum(face, 0)]
    pixel = jnp.stack(jnp.meshgrid(jnp.arange(size[1], dtype=float), jnp.arange(size[0], dtype=float)), -1)
    weights = edge_functions(q[corners], pixel)
    total = jnp.sum(weights, -1, keepdims=True)
    barycentric = weights / jnp.where(total == 0, 1, total)
    depth = jnp.sum(barycentric * q[corners, 2], -1)
    return Surface(face, corners, barycentric, depth, total[..., 0] < 0, needed <= capacity)


def _reaches(vertices: Array, faces: Array, place: Array, light: Light) -> Array:
    """Share of a light that reaches each place (H, W, 3): depth seen from the light, at the picture's own resolution,
    smoothed between its pixels. A hint of a shadow, without a gradient.
    """
    v, size = lax.stop_gradient(vertices), (place.shape[0], place.shape[1])
    centre = jnp.mean(v, 0)
    radius = jnp.max(jnp.linalg.norm(v - centre, axis=-1)) + 1e-3
    z = -light.direction
    x = _unit(jnp.cross(jnp.where(jnp.abs(z[1]) < 0.9, jnp.array([0.0, 1, 0]), jnp.array([1.0, 0, 0])), z))
    R = jnp.stack([x, jnp.cross(z, x), z])
    eye = centre + _LIGHT_DISTANCE * light.direction
    T = rigid(R, -jnp.matmul(R, eye, precision=HIGHEST))
    middle = (jnp.array(size[::-1], float) - 1) / 2
    camera = make_camera(focal=0.95 * min(size) / 2 * _LIGHT_DISTANCE / radius, principal=middle, T_cam_world=T)
    lit = see(v, faces, camera, size, 0.01, None)
    map_depth = jnp.where(lit.face >= 0, lit.depth, jnp.inf)
    q = homogeneous_pixels(camera, lax.stop_gradient(place).reshape(-1, 3), 0.01)
    uv = q[:, :2] / q[:, 2:]
    bias = _BIAS * _LIGHT_DISTANCE / camera.K[0, 0]
    corner = jnp.floor(uv)
    share = uv - corner
    reaching = jnp.zeros(q.shape[0])
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = (jnp.clip(corner[:, k] + d, 0, size[1 - k] - 1).astype(jnp.int32) for k, d in ((0, dx), (1, dy)))
        weight = jnp.abs(1 - dx - share[:, 0]) * jnp.abs(1 - dy - share[:, 1])
        reaching = reaching + weight * (q[:, 2] < map_depth[row, column] + bias)
    return reaching.reshape(size)


def _unit(v: Array) -> Array:
    squared = jnp.sum(v * v, -1, keepdims=True)
    return jnp.where(squared > 0, v / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
