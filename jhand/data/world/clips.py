"""Clips of the synthetic world: sampled, rendered, annotated, each a pure function of a key.

Clip i of a world is made from `fold_in(key(seed), i)`, alone or among others, in a training step or to be written to
disk: on one kind of machine, the same numbers come out to the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.contact.solids import Solid, sample_solid, solid_distance, solid_vertices
from jhand.data.world.assets import Assets
from jhand.data.world.backgrounds import clutter, from_pictures
from jhand.data.world.cameras import standing
from jhand.data.world.forearm import forearm_colours, forearm_rings, towards_elbow
from jhand.data.world.scripts import LONGEST, Actors, no_solids, one_hand
from jhand.data.world.skin import skin_colour
from jhand.draws import between, normals, uniforms
from jhand.geometry.camera import Camera, project
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import invert_transform, rigid, transform
from jhand.hand.kinematics import HandMesh, forward
from jhand.hand.model import HandModel
from jhand.render.meshes import Light, Mesh, Picture, Scene, make_mesh, render

HIGHEST = lax.Precision.HIGHEST
BACKGROUND, RIGHT, LEFT, RIGHT_ARM, LEFT_ARM, OCCLUDER, OBJECT = range(7)
SEGMENTS = ("background", "right hand", "left hand", "right forearm", "left forearm", "occluder", "object")
"""What the ids of `segmentation` stand for."""
SURFACE_POINTS = 1024
_NEAR = 0.02  # metres before a camera, where nothing is seen
_HIDDEN = 0.006  # metres: beyond a keypoint's own flesh, how much may be before it


@dataclass(frozen=True)
class WorldConfig:
    """A world: what happens, how it is seen, how large and long its clips are."""

    script: Callable[[Array, Assets, Array], Actors] = one_hand
    """What happens: one of `jhand.data.world.scripts`, or the user's own."""
    camera: Callable[[Array, Array, Array, tuple[int, int]], Camera] = standing
    """Where it is seen from: one of `jhand.data.world.cameras`, or the user's own."""
    size: tuple[int, int] = (64, 64)
    """Height and width, pixels."""
    frames: int = 1
    fps: float = 30.0
    views: int = 1
    samples: int = 2
    """Pictures, within the time that the shutter is open and a pixel's width, whose mean is a frame."""
    occluders: int = 1
    """The most things before the hands."""
    occluded: float = 0.35
    """How often each of them is there."""
    surround: int = 1
    """How many pictures wide the background is drawn: 2 for cameras that turn."""
    at_once: int = 16
    """Clips that are made side by side, always as many: sizes decide how sums are rounded. More suit an accelerator."""

    def __post_init__(self) -> None:
        if (
            min(*self.size, self.frames, self.views, self.samples, self.surround, self.at_once) < 1
            or self.occluders < 0
        ):
            raise ValueError(f"world: sizes and counts must be positive, got {self}")
        if not 0 < self.frames / self.fps <= LONGEST:
            raise ValueError(f"world: {self.frames} frames at {self.fps} Hz last longer than {LONGEST} seconds")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WorldScene:
    """All that is there in a clip, at N = frames x samples instants; the first sample of a frame is its own instant."""

    actors: Actors
    cameras: Camera
    """Leading axes (views, N)."""
    hand_colours: tuple[Float[Array, "*b v 3"], ...]
    sleeve: Float[Array, "*b h"]
    cloth: Float[Array, "*b 3"]
    solid_colours: Float[Array, "*b s p 3"]
    """Of objects, then of occluders."""
    occluders: Solid
    T_world_occluder: Float[Array, "*b c 4 4"]
    lights: tuple[Light, ...]
    ambient: Float[Array, "*b 3"]
    gloss: Float[Array, "*b"]
    background: Float[Array, "*b views height width 3"]
    sensor: dict[str, Array]


def sample_scene(key: Array, config: WorldConfig, assets: Assets) -> WorldScene:
    """All that happens in one clip.

    Args:
        key: of the clip.
        config: of the world.
        assets: what can appear.
    """
    keys = jax.random.split(key, 10)
    times, jitter = _instants(keys[0], config)
    actors = config.script(keys[1], assets, times)
    num_hands, num_objects = actors.T_world_wrist.shape[0], actors.T_world_object.shape[0]
    seen = [actors.T_world_wrist[..., :3, 3]]
    for number in range(num_hands):
        hand = (assets.right, assets.left)[number]
        mesh = forward(hand, jax.tree.map(lambda leaf, n=number: leaf[n], actors.params))
        seen.append(jnp.moveaxis(mesh.keypoints, 1, 0))
    points = jnp.moveaxis(jnp.concatenate([seen[0], *seen[1:]]), 0, 1)
    views = jax.vmap(lambda k: config.camera(k, points, times, config.size))(jax.random.split(keys[2], config.views))
    cameras = Camera(views.K.at[..., :2, 2].add(jitter), views.T_cam_world, views.distortion)

    skin = [skin_colour(keys[3], marks) for marks in (assets.right_skin, assets.left_skin)[:num_hands]]
    occluders, T_world_occluder = _occluders(keys[4], config, points, cameras)
    solids = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), actors.solids, occluders)
    solid_colours = jax.vmap(_solid_colour)(jax.random.split(keys[5], num_objects + config.occluders), solids)
    lights, ambient = _lights(keys[6])
    sleeved, cloth, gloss = uniforms(keys[7], (), (3,), ())
    return WorldScene(
        actors=actors,
        cameras=cameras,
        hand_colours=tuple(skin),
        sleeve=jnp.broadcast_to(sleeved < 0.5, (num_hands,)).astype(jnp.float32),
        cloth=(0.9 * cloth) ** 1.5,
        solid_colours=solid_colours,
        occluders=occluders,
        T_world_occluder=T_world_occluder,
        lights=lights,
        ambient=ambient,
        gloss=0.35 * gloss**2,
        background=jax.vmap(lambda k: _background(k, config, assets))(jax.random.split(keys[8], config.views)),
        sensor=draw_sensor(keys[9]),
    )


def make_clip(key: Array, config: WorldConfig, assets: Assets) -> dict:
    """One clip with everything known: the entries of `jhand.data.clip` as arrays, without the words.

    Args:
        key: of the clip.
        config: of the world; static.
        assets: what can appear.
    """
    scene = sample_scene(key, config, assets)
    meshes = [
        forward(hand, jax.tree.map(lambda leaf, n=n: leaf[n], scene.actors.params))
        for n, hand in enumerate((assets.right, assets.left)[: scene.actors.T_world_wrist.shape[0]])
    ]
    per_frame = lambda x: x.reshape(config.frames, config.samples, *x.shape[1:])  # noqa: E731
    parts = [per_frame(p) for p in _vertices(scene, assets, meshes)]
    cameras = jax.tree.map(
        lambda x: x.reshape(config.views, config.frames, config.samples, *x.shape[2:]), scene.cameras
    )

    def frame(view: Array, number: Array) -> tuple[Array, Picture]:
        def take(sample: Array) -> tuple[Array, Picture]:
            camera = jax.tree.map(lambda x: x[view, number, sample], cameras)
            picture = render(_scene(scene, assets, [p[number, sample] for p in parts]), camera, config.size, near=_NEAR)
            behind = _behind(
                scene.background[view], camera, jax.tree.map(lambda x: x[view, 0, 0], cameras), config.size
            )
            return jnp.where(picture.alpha[..., None] > 0, picture.rgb, behind), picture

        light, pictures = lax.map(take, jnp.arange(config.samples))
        noise = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 1), view), number)
        return expose(noise, jnp.mean(light, 0), scene.sensor), jax.tree.map(lambda x: x[0], pictures)

    view, number = (axis.ravel() for axis in np.meshgrid(np.arange(config.views), np.arange(config.frames)))
    images, pictures = lax.map(lambda at: frame(*at), (jnp.asarray(view), jnp.asarray(number)))
    by_view = lambda x: x.reshape(config.frames, config.views, *x.shape[1:])  # noqa: E731
    return annotate(scene, config, assets, meshes, by_view(images), jax.tree.map(by_view, pictures))


def annotate(
    scene: WorldScene,
    config: WorldConfig,
    assets: Assets,
    meshes: list[HandMesh],
    image: Array,
    pictures: Picture,
) -> dict:
    """What is known of a rendered clip, as entries of the schema.

    Args:
        scene: what was rendered.
        config: of the world.
        assets: what could appear.
        meshes: of its hands at all instants.
        image: (T, V, H, W, 3) uint8.
        pictures: leading axes (T, V), at the frames' own instants.
    """
    first = slice(None, None, config.samples)
    actors = scene.actors
    cameras = jax.tree.map(lambda x: jnp.moveaxis(x[:, first], 0, 1), scene.cameras)  # (T, V)
    segmentation = _segmentation(pictures, assets, len(meshes), actors.T_world_object.shape[0])
    clip: dict = {
        "image": image,
        "depth": pictures.depth,
        "segmentation": segmentation,
        "camera": {"K": cameras.K, "T_cam_world": cameras.T_cam_world, "distortion": cameras.distortion},
        "hands": {},
    }
    present = jnp.ones(config.frames, bool)
    for number, mesh in enumerate(meshes):
        hand = (assets.right, assets.left)[number]
        keypoints = mesh.keypoints[first]
        in_each = jnp.broadcast_to(keypoints[:, None], (config.frames, config.views, 21, 3))
        away = transform(cameras.T_cam_world, in_each)[..., 2]
        before = away > _NEAR  # behind a camera there is no picture of a point
        uv = jnp.where(before[..., None], project(cameras, in_each), 0)
        visible = jax.vmap(jax.vmap(_visible, (0, 0, 0, 0, None)), (0, 0, 0, 0, None))(
            uv, away, segmentation == (RIGHT, LEFT)[number], pictures.depth, _flesh(hand)
        )
        params = jax.tree.map(lambda leaf, n=number: leaf[n, first], actors.params)
        entry = {
            "present": present,
            "keypoints3d": keypoints,
            "keypoints3d_valid": jnp.ones((config.frames, 21), bool),
            "keypoints2d": uv,
            "visible": visible,
            "confidence": before.astype(jnp.float32),
            "params": {name: getattr(params, name) for name in ("global_orient", "hand_pose", "betas", "transl")},
        }
        if actors.T_world_object.shape[0]:
            entry["contact"] = _contact(mesh.vertices[first], actors, first)
        clip["hands"][("right", "left")[number]] = entry
    if actors.T_world_object.shape[0]:
        clip["objects"] = {
            "present": jnp.ones((config.frames, actors.T_world_object.shape[0]), bool),
            "T_world_object": jnp.moveaxis(actors.T_world_object[:, first], 0, 1),
            "mesh_id": actors.solids.kind,
            "points": jax.vmap(partial(_surface_points, assets))(actors.solids),
            "half_size": actors.solids.half_size,
            "roundness": actors.solids.roundness,
        }
    return clip


@partial(jax.jit, static_argnames=("config",))
def make_clips(seed: ArrayLike, numbers: ArrayLike, config: WorldConfig, assets: Assets) -> dict:
    """Clips of a world by their numbers, with a leading axis: for a training step, or to be written.

    Clips are made `config.at_once` at a time, so that each is the same whatever it is made with; a number that is no
    multiple of it costs as much as the next one. On several devices, let each make its own: in `jax.shard_map` or
    `jax.pmap` over `numbers`. Hand seed and assets to a jitted step as arguments: what is closed over is a constant,
    which a compiler may round in another way.

    Args:
        seed: of the world.
        numbers: (B,) which clips.
        config: of the world.
        assets: what can appear.
    """
    root, wanted = jax.random.key(seed), jnp.asarray(numbers)
    several = jax.vmap(lambda number: make_clip(jax.random.fold_in(root, number), config, assets))
    blocks = jnp.pad(wanted, (0, -wanted.shape[0] % config.at_once), mode="edge").reshape(-1, config.at_once)
    made = lax.map(several, blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: wanted.shape[0]], made)


def _instants(key: Array, config: WorldConfig) -> tuple[Array, Array]:
    """Times (N,) and where in a pixel (N, 2) the samples of all frames are taken."""
    shutter, angle = uniforms(key, (), (config.frames, config.samples))
    shutter = (0.7 * shutter) ** 2 / config.fps
    share = jnp.arange(config.samples) / max(config.samples, 1)
    frames = jnp.arange(config.frames) / config.fps
    times = (frames[:, None] + shutter * share).reshape(-1)
    # half a pixel away from the first, which is the one that is annotated
    jitter = 0.5 * jnp.stack([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)], -1).at[:, 0].set(0)
    return times, jitter.reshape(-1, 2)


def _vertices(scene: WorldScene, assets: Assets, meshes: list[HandMesh]) -> list[Array]:
    """Vertices (N, V, 3) of all meshes: hands with their forearms, objects, occluders."""
    parts = []
    for number, mesh in enumerate(meshes):
        hand, loop = (assets.right, assets.left)[number], np.array(assets.loops[number])
        T = scene.actors.T_world_wrist[number]
        around = transform(invert_transform(T), mesh.vertices[:, loop])
        rings = jax.vmap(forearm_rings, (0, None, 0, None))(
            around, towards_elbow(hand), scene.actors.forearm_bend[number], scene.sleeve[number]
        )
        parts.append(jnp.concatenate([mesh.vertices, transform(T, rings)], 1))
    instants = scene.actors.T_world_wrist.shape[1]
    for number in range(scene.actors.T_world_object.shape[0]):
        v = solid_vertices(jax.tree.map(lambda x, n=number: x[n], scene.actors.solids))
        T = scene.actors.T_world_object[number]
        parts.append(transform(T, jnp.broadcast_to(v, (instants, *v.shape))))
    for number in range(scene.T_world_occluder.shape[0]):
        v = solid_vertices(jax.tree.map(lambda x, n=number: x[n], scene.occluders))
        moved = transform(scene.T_world_occluder[number], v)
        parts.append(jnp.broadcast_to(moved, (instants, *moved.shape)))
    return parts


def _scene(scene: WorldScene, assets: Assets, vertices: list[Array]) -> Scene:
    meshes: list[Mesh] = []
    for number, skin in enumerate(scene.hand_colours):
        loop = np.array(assets.loops[number])
        colours = jnp.concatenate([skin, forearm_colours(skin[loop], scene.cloth, scene.sleeve[number])])
        meshes.append(make_mesh(vertices[len(meshes)], assets.arm_faces[number], colours, object_id=number))
    for colours in scene.solid_colours:
        number = len(meshes)
        meshes.append(make_mesh(vertices[number], assets.solid_faces, colours, object_id=number))
    return Scene(tuple(meshes), scene.lights, scene.ambient, scene.gloss)


def _segmentation(pictures: Picture, assets: Assets, num_hands: int, num_objects: int) -> Array:
    """What each pixel shows, by mesh and, of hands with forearms, by triangle: uint8."""
    ids = jnp.zeros_like(pictures.mesh_id)
    for number in range(num_hands):
        of_hand = pictures.face_id < (assets.right, assets.left)[number].faces.shape[0]
        part = jnp.where(of_hand, (RIGHT, LEFT)[number], (RIGHT_ARM, LEFT_ARM)[number])
        ids = jnp.where(pictures.mesh_id == number, part, ids)
    solids = pictures.mesh_id - num_hands
    ids = jnp.where((solids >= 0) & (solids < num_objects), OBJECT + solids, ids)
    return jnp.where(solids >= num_objects, OCCLUDER, ids).astype(jnp.uint8)


def _visible(uv: Array, depth: Array, own: Array, surface: Array, flesh: Array) -> Array:
    """Whether each keypoint (21, 2) is seen: around its pixel, its own hand is before anything else, and nothing but
    its own flesh is before it.
    """
    height, width = own.shape
    column, row = jnp.moveaxis(jnp.round(uv).astype(jnp.int32), -1, 0)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > _NEAR)
    seen = jnp.zeros(uv.shape[:-1], bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = jnp.clip(row + dy, 0, height - 1), jnp.clip(column + dx, 0, width - 1)
            seen = seen | (own[y, x] & (surface[y, x] > depth - flesh - _HIDDEN))
    return (within & seen).astype(jnp.float32)


def _flesh(hand: HandModel) -> Array:
    """(21,) metres from each keypoint to the farthest skin around it, from its own cross-section of the rest hand."""
    joints = hand.joint_basis[0]
    nearest = jnp.min(jnp.linalg.norm(hand.v_template[None] - joints[:, None], axis=-1), 1)
    order = np.array((0, 13, 14, 15, -1, 1, 2, 3, -1, 4, 5, 6, -1, 10, 11, 12, -1, 7, 8, 9, -1))
    return jnp.where(order >= 0, 1.6 * nearest[np.maximum(order, 0)], 0.0)


def _contact(vertices: Array, actors: Actors, first: slice) -> Array:
    """(T, V) signed metres of a hand's vertices from the nearest object."""
    away = invert_transform(actors.T_world_object[:, first])  # (O, T)

    def one(solid: Solid, T: Array) -> Array:
        return jax.vmap(lambda T, v: solid_distance(solid, transform(T, v)))(T, vertices)

    return jnp.min(jax.vmap(one)(actors.solids, away), 0)


def _surface_points(assets: Assets, solid: Solid) -> Array:
    """Points of a solid's surface (1024, 3), evenly spread, in its own frame."""
    corners = solid_vertices(solid)[assets.solid_faces]
    area = jnp.linalg.norm(jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    reached = jnp.cumsum(area)
    share = (jnp.arange(SURFACE_POINTS) + 0.5) / SURFACE_POINTS
    face = jnp.searchsorted(reached, share * reached[-1])
    # a plastic number's multiples fill a square evenly (Roberts 2018)
    spread = np.arange(SURFACE_POINTS)[:, None] * np.array([0.7548776662, 0.5698402910]) % 1
    root = jnp.asarray(np.sqrt(spread[:, :1]), jnp.float32)
    b = jnp.concatenate([1 - root, root * (1 - spread[:, 1:]), root * spread[:, 1:]], -1)
    return jnp.einsum("pk,pkc->pc", b, corners[jnp.minimum(face, corners.shape[0] - 1)], precision=HIGHEST)


def _occluders(key: Array, config: WorldConfig, points: Array, cameras: Camera) -> tuple[Solid, Array]:
    """Things between the hands and the first camera; those that are absent stand far behind it."""
    number = config.occluders
    keys = jax.random.split(key, 3)
    solids = jax.vmap(sample_solid)(jax.random.split(keys[0], number)) if number else no_solids()
    scale, share, here = uniforms(keys[1], (number, 1), (number, 1), (number, 1))
    aside, turn = normals(keys[2], (number, 3), (number, 3))
    solids = Solid(solids.kind, solids.half_size * between(scale, 0.4, 1.0), solids.roundness)
    eye = invert_transform(cameras.T_cam_world[0, 0])[:3, 3]
    target = jnp.mean(points[0], 0) + 0.07 * aside
    towards = eye - target
    far = jnp.maximum(jnp.linalg.norm(towards, axis=-1, keepdims=True), 1e-6)
    there = target + between(share, 0.25, 0.8) * jnp.minimum(far, 0.6) * towards / far
    behind = eye + 50.0 * (eye - target)
    return solids, rigid(so3_exp(2 * turn), jnp.where(here < config.occluded, there, behind))


def _solid_colour(key: Array, solid: Solid) -> Array:
    """(386, 3) linear RGB: plain, striped, checkered or speckled."""
    keys = jax.random.split(key)
    two, patterned = uniforms(keys[0], (2, 3), ())
    waves, strengths = normals(keys[1], (3, 3), (3,))
    two = between(two, 0.01, 0.9) ** 1.5
    along = jnp.matmul(solid_vertices(solid), waves.T * jnp.array([120.0, 250.0, 500.0]), precision=HIGHEST)
    share = jax.nn.sigmoid(6 * jnp.sum(jnp.sin(along) * strengths, -1, keepdims=True))
    share = jnp.where(patterned < 0.4, share, 0.0)
    return two[0] * (1 - share) + two[1] * share


def _lights(key: Array) -> tuple[tuple[Light, ...], Array]:
    """A lamp that casts shadows, another that does not, and light from everywhere, all of a warm or cold white."""
    keys = jax.random.split(key)
    directions, warmth = normals(keys[0], (2, 3), (3, 1))
    directions = directions + jnp.array([[0.0, -0.8, 0.0], [0.0, -0.3, 0.0]])
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    power = jax.random.uniform(keys[1], (3, 1), minval=0.2, maxval=1.0) * jnp.array([[1.3], [0.7], [0.6]])
    colours = power * jnp.exp(0.15 * warmth * jnp.array([1.0, 0.1, -1.0]))
    return (Light(directions[0], colours[0], shadows=True), Light(directions[1], colours[1])), colours[2]


def _background(key: Array, config: WorldConfig, assets: Assets) -> Array:
    size = (config.surround * config.size[0], config.surround * config.size[1])
    keys = jax.random.split(key)
    own = assets.backgrounds
    picture = from_pictures(keys[0], own, size) if own.shape[0] else clutter(keys[0], size)
    return picture * jnp.exp(0.5 * jax.random.normal(keys[1]))


def _behind(background: Array, camera: Camera, reference: Camera, size: tuple[int, int]) -> Array:
    """What a camera sees far away: the background hangs before the reference camera, and reflects itself beyond its
    borders.
    """
    pixels = jnp.stack(jnp.meshgrid(jnp.arange(size[1], dtype=float), jnp.arange(size[0], dtype=float)), -1)
    K = camera.K
    x = (pixels[..., 0] - K[0, 2]) / K[0, 0]
    y = (pixels[..., 1] - K[1, 2]) / K[1, 1]
    turn = jnp.matmul(reference.T_cam_world[:3, :3], camera.T_cam_world[:3, :3].T, precision=HIGHEST)
    ray = jnp.einsum("ij,hwj->hwi", turn, jnp.stack([x, y, jnp.ones_like(x)], -1), precision=HIGHEST)
    z = jnp.maximum(ray[..., 2], 0.05)
    border = [(background.shape[axis] - size[axis]) / 2 for axis in (0, 1)]
    u = reference.K[0, 0] * ray[..., 0] / z + reference.K[0, 2] + border[1]
    v = reference.K[1, 1] * ray[..., 1] / z + reference.K[1, 2] + border[0]
    return _bilinear(background, u, v)


def _bilinear(picture: Array, u: Array, v: Array) -> Array:
    height, width = picture.shape[:2]
    mirrored = lambda i, n: jnp.abs((i + n - 1) % (2 * n - 2) - (n - 1))  # noqa: E731
    u0, v0 = jnp.floor(u), jnp.floor(v)
    du, dv = (u - u0)[..., None], (v - v0)[..., None]
    i, j = v0.astype(jnp.int32), u0.astype(jnp.int32)
    i0, i1, j0, j1 = mirrored(i, height), mirrored(i + 1, height), mirrored(j, width), mirrored(j + 1, width)
    top = picture[i0, j0] * (1 - du) + picture[i0, j1] * du
    return top * (1 - dv) + (picture[i1, j0] * (1 - du) + picture[i1, j1] * du) * dv


def draw_sensor(key: Array) -> dict[str, Array]:
    """A camera's electronics: exposure, white balance, noise of photons and of reading, blur, contrast."""
    keys = jax.random.split(key)
    photons, reading, blur = uniforms(keys[0], (), (), ())
    exposure, white, contrast = normals(keys[1], (), (3,), ())
    return {
        "exposure": jnp.exp(0.35 * exposure),
        "white": jnp.exp(0.08 * white),
        "photons": 0.03 * photons**2,
        "reading": 0.02 * reading**2,
        "blur": between(blur, 0.25, 0.8),
        "contrast": jnp.exp(0.12 * contrast),
    }


def expose(key: Array, light: Array, sensor: dict[str, Array]) -> Array:
    """Linear RGB (H, W, 3) as a camera would give it: uint8 sRGB."""
    # a lens that is not quite sharp; five taps a side
    taps = jnp.exp(-0.5 * jnp.square(jnp.arange(-2.0, 3.0) / sensor["blur"]))
    taps = taps / jnp.sum(taps)
    for axis in (0, 1):
        around = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(light, around, mode="edge")
        shifted = [lax.slice_in_dim(padded, k, k + light.shape[axis], axis=axis) for k in range(5)]
        light = sum((tap * s for tap, s in zip(taps, shifted, strict=True)), jnp.zeros_like(light))
    # cameras expose for the picture's mean, more or less
    gain = sensor["exposure"] * 0.3 / (jnp.mean(light) + 0.05)
    light = light * gain * sensor["white"]
    spread = jnp.sqrt(sensor["photons"] ** 2 * jnp.maximum(light, 0) + sensor["reading"] ** 2)
    light = jnp.clip(light + spread * jax.random.normal(key, light.shape), 0, 1)
    level = jnp.log(jnp.maximum(light, 1e-9)) * sensor["contrast"]  # powers by way of logarithms are far cheaper
    srgb = jnp.where(level <= np.log(0.0031308), 12.92 * jnp.exp(level), 1.055 * jnp.exp(level / 2.4) - 0.055)
    return jnp.round(255 * srgb).astype(jnp.uint8)
