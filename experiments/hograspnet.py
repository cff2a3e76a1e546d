"""HOGraspNet: hands around objects, fitted to four RGB-D views by MANO's parameters or by an implicit hand's keypoints.

Claims  an implicit hand (HALO) that keypoints carry fits about as well as MANO, without anything to tune for a subject;
        limits of joints' axes keep MANO's angles plausible; Cho et al., ECCV 2024
Shows   surfaces, keypoints, angles and contact of hands that are not average, each bone of its own length, in grasps of
        thirteen types of the taxonomy around five kinds of solids; detections with outliers, noisy depth with holes
Cost    cpu: HALO's training 4 minutes of a quiet core, once; a variant's seed about a minute; gpu: not run yet
Command python -m experiments.hograspnet claims --preset cpu --seeds 3
        python -m experiments.hograspnet claims --preset read --claim all --seeds 3
Expect  HALO's surface within 10 % of MANO's
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jhand import metrics
from jhand.claims import Claim
from jhand.contact import grasping_skin, sample_solid, solid_faces, solid_vertices
from jhand.contact.templates import grasp_of_type, gripped_part
from jhand.data.world.backgrounds import clutter
from jhand.data.world.cameras import look_at
from jhand.data.world.forearm import forearm_colours, forearm_faces, forearm_rings, wrist_loop
from jhand.data.world.skin import make_skin_map, skin_colour
from jhand.geometry import (
    Camera,
    close_holes,
    closest_on_mesh,
    crossing_number,
    make_camera,
    project,
    signed_distance,
    so3_exp,
    transform,
    vertex_normals,
)
from jhand.hand import HandModel, HandParams, forward, load_hand, pose_from_angles, sample_poses
from jhand.nn.occupancy import HALO
from jhand.render import Light, make_mesh, make_scene, render
from jhand.solving import Problems, SolveExperiment, main, trained_once
from jhand.systems import hograspnet as system
from jhand.systems.hograspnet import Inputs, Outputs
from jhand.track.hands import hands_in_regions
from jhand.track.networks import load_networks
from jhand.track.regions import Region, boxes_around, region_from_keypoints, regions_of_boxes
from jhand.train import LossAux, ModelCard, Stage, Update, adamw

GRASPS = (1, 4, 17, 31, 18, 16, 23, 25, 9, 14, 7, 12, 22)
"""Of the taxonomy's types."""
FINGERS = np.array([[13, 14, 15], [1, 2, 3], [4, 5, 6], [10, 11, 12], [7, 8, 9]])
"""Joints of the thumb to the little finger, MANO's numbers."""


@dataclass(frozen=True)
class Scene:
    """Subjects, cameras, what goes wrong in their pictures, and what HALO is trained on."""

    frames: int = 3
    views: int = 4
    size: int = 48
    """Of the crops, pixels, and `focal` length."""
    focal: float = 145.0
    distance: float = 0.8
    betas: float = 1.3
    scale: tuple[float, float] = (0.82, 1.15)
    bones: tuple[float, float] = (0.88, 1.12)
    """Of each finger's bones, against the average."""
    noise: float = 0.6
    """Of detections, pixels; hidden joints have three times as much."""
    outliers: float = 0.03
    away: float = 6.0
    depth_noise: float = 0.003
    holes: float = 0.08
    hands: int = 20_000
    """That HALO is trained on, with `points` each, in steps of `batch` hands."""
    points: int = 64
    steps: int = 6000
    batch: int = 16
    labels: float = 0.5
    """Weight of what the part of a bone says by itself near the bone's skin. Without it some parts stay without a bone,
    which others then fill badly."""


@dataclass(frozen=True)
class PictureScene(Scene):
    """A scene whose keypoints are read in colour pictures by the networks of `jhand.track`."""

    pixels: int = 192
    """Of the colour pictures, which show what the depth crops show."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truth:
    """What there was."""

    keypoints: Float[Array, "n t 21 3"]
    vertices: Float[Array, "n t v 3"]
    angles: Float[Array, "n t 15 3"]
    contact: Bool[Array, "n t v"]
    cameras: Camera
    T_world_object: Float[Array, "n t 4 4"]
    object_vertices: Float[Array, "n p 3"]


def stretched(hand: HandModel, factors: Array) -> HandModel:
    """The model of a subject whose fingers' bones (5, 3), thumb first, are longer or shorter by factors."""
    joints = hand.joint_basis[0]
    moved = jnp.zeros_like(joints)
    rest = hand.v_template
    change = jnp.zeros_like(rest)
    for finger in range(5):
        shift = jnp.zeros(3)
        for level in range(3):
            joint = FINGERS[finger, level]
            tip = rest[hand.tips[finger]]
            end = joints[FINGERS[finger, level + 1]] if level < 2 else tip
            bone = end - joints[joint]
            moved = moved.at[joint].set(shift)
            share = jnp.clip((rest - joints[joint]) @ bone / jnp.dot(bone, bone), 0, 1)
            grown = (factors[finger, level] - 1) * bone
            change = change + hand.weights[:, joint, None] * (shift + share[:, None] * grown)
            shift = shift + grown
    basis = hand.basis.at[0].add(change.T)
    return replace(hand, basis=basis, joint_basis=hand.joint_basis.at[0].add(moved))


def subject(scene: Scene, hand: HandModel, key: Array) -> tuple[HandModel, Array, Array]:
    """A hand with bones of its own, its shape, and its size against the average."""
    keys = jax.random.split(key, 3)
    factors = jax.random.uniform(keys[0], (5, 3), minval=scene.bones[0], maxval=scene.bones[1])
    betas = jnp.clip(scene.betas * jax.random.normal(keys[1], (hand.num_betas,)), -2.5, 2.5)
    return stretched(hand, factors), betas, jax.random.uniform(keys[2], minval=scene.scale[0], maxval=scene.scale[1])


def problems(seed: int, preset: Problems, folder: Path) -> tuple[Inputs, Truth]:
    """Subjects who are not average, closing a hand around an object in front of four RGB-D cameras."""
    scene, hand = preset.scene, load_hand()
    halo = trained_halo(scene, preset.config, hand, folder)
    skin = grasping_skin(hand)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(7), seed), preset.number)
    number = jnp.asarray(GRASPS)[(jnp.arange(preset.number) + 5 * seed) % len(GRASPS)]
    inputs, truth = jax.jit(partial(jax.lax.map, lambda pair: _sequence(scene, hand, skin, *pair)))((keys, number))
    if isinstance(scene, PictureScene):
        inputs = read_pictures(scene, inputs, pictures(scene, hand, jax.random.key(seed), inputs, truth))
    return replace(inputs, halo=jax.tree.map(lambda x: jnp.broadcast_to(x, (preset.number, *x.shape)), halo)), truth


def _sequence(scene: Scene, average: HandModel, skin, key: Array, number: Array) -> tuple[Inputs, Truth]:
    keys = jax.random.split(key, 12)
    hand, betas, scale = subject(scene, average, keys[0])
    solid = gripped_part(sample_solid(keys[1]), number)
    grasp = grasp_of_type(keys[2], average, betas, skin, solid, number, tries=4)
    # the hand closes; the object is where it will be held, and both move a little
    share = jnp.linspace(0.6, 1, scene.frames)[:, None, None]
    angles = grasp.open_angles + share * (grasp.angles - grasp.open_angles)
    frames = (scene.frames, 3)
    mesh = forward(
        hand,
        HandParams(
            jnp.zeros(frames),
            pose_from_angles(hand, angles),
            jnp.broadcast_to(betas, (scene.frames, hand.num_betas)),
            jnp.zeros(frames),
        ),
    )
    wrist = mesh.keypoints[:1, :1]
    start = jax.random.normal(keys[3], (3,)) * 0.8
    turns = start + jnp.linspace(0, 1, scene.frames)[:, None] * 0.15 * jax.random.normal(keys[4], (3,))
    R = so3_exp(turns)
    middle = jnp.einsum("tij,j->ti", R, scale * (mesh.keypoints[0, 9] - wrist[0, 0]), precision="highest")
    t = -middle + 0.02 * jax.random.normal(keys[5], (3,)) * jnp.linspace(0, 1, scene.frames)[:, None]
    place = lambda x: jnp.einsum("tij,tkj->tki", R, scale * x, precision="highest") + t[:, None]  # noqa: E731
    points, vertices = place(mesh.keypoints - wrist), place(mesh.vertices - wrist)
    T_wrist = grasp.T_wrist_object
    R_object = jnp.matmul(R, T_wrist[:3, :3], precision="highest")
    t_object = place(jnp.broadcast_to(T_wrist[:3, 3], (scene.frames, 1, 3)))
    T = jnp.concatenate(
        [jnp.concatenate([R_object, t_object.mT], -1), jnp.broadcast_to(jnp.eye(4)[3:], (scene.frames, 1, 4))], -2
    )
    shape = scale * solid_vertices(solid)
    cameras = _around(scene, keys[6])
    depth, mask, hides = _pictures(scene, average, keys[7], cameras, vertices, transform(T, shape[None]))
    exact = project(jax.tree.map(lambda x: x[None], cameras), points[:, None])
    uv, trust = _detected(scene, keys[8], cameras, exact, points, depth)
    away = signed_distance(vertices, transform(T, shape[None]), solid_faces())
    inputs = Inputs(cameras, uv, trust, depth, mask, hides, T, shape, solid_faces())
    return inputs, Truth(points, vertices, angles, away < 0.0025, cameras, T, shape)


def _around(scene: Scene, key: Array) -> Camera:
    """Cameras on an arc in front and above."""
    turn, height = jax.random.uniform(key, (2, scene.views), minval=-0.15, maxval=0.15)
    angle = jnp.linspace(-1.2, 1.2, scene.views) + turn
    eye = scene.distance * jnp.stack([jnp.sin(angle), -0.6 + height, -jnp.cos(angle)], -1)
    T = jax.vmap(look_at, (0, None))(eye, jnp.zeros(3))
    middle = jnp.full((scene.views, 2), (scene.size - 1) / 2)
    return make_camera(focal=jnp.full((scene.views, 2), scene.focal), principal=middle, T_cam_world=T)


def _pictures(scene: Scene, hand: HandModel, key: Array, cameras: Camera, vertices: Array, objects: Array) -> tuple:
    """Depth, and masks of hand and object, (T, V, H, W): noise, holes, and outlines a pixel off."""
    size = (scene.size, scene.size)

    def view(camera: Camera, vertices: Array, objects: Array) -> tuple[Array, Array]:
        parts = [make_mesh(vertices, hand.faces), make_mesh(objects, solid_faces())]
        picture = render(make_scene(parts), camera, size)
        return picture.depth, picture.mesh_id

    over_views = jax.vmap(view, (0, None, None))
    depth, mesh = jax.vmap(over_views, (None, 0, 0))(cameras, vertices, objects)
    keys = jax.random.split(key, 3)
    measured = depth + scene.depth_noise * jax.random.normal(keys[0], depth.shape)
    hole = jax.random.uniform(keys[1], depth.shape) < scene.holes
    other = jnp.roll(mesh, 1, -1) != mesh
    mesh = jnp.where(other & (jax.random.uniform(keys[2], mesh.shape) < 0.3), jnp.roll(mesh, 1, -1), mesh)
    return jnp.where((depth > 0) & ~hole, measured, 0), (mesh == 0).astype(float), (mesh == 1).astype(float)


def _detected(scene: Scene, key: Array, cameras: Camera, exact: Array, points: Array, depth: Array) -> tuple:
    """What a network would say of (T, V, 21) joints: less sure, and less right, where they are hidden."""
    keys = jax.random.split(key, 4)
    z = transform(cameras.T_cam_world[None], points[:, None])[..., 2]
    at = jnp.clip(jnp.round(exact), 0, scene.size - 1).astype(int)
    front = jax.vmap(jax.vmap(lambda d, p: d[p[:, 1], p[:, 0]]))(depth, at)
    hidden = (front > 0) & (front < z - 0.025)
    sigma = scene.noise * jnp.where(hidden, 3.0, 1.0)[..., None]
    wrong = jax.random.uniform(keys[0], hidden.shape) < scene.outliers
    uv = exact + sigma * jax.random.normal(keys[1], exact.shape)
    uv = uv + jnp.where(wrong[..., None], scene.away * jax.random.normal(keys[2], exact.shape), 0)
    sure = jax.random.uniform(keys[3], hidden.shape, minval=0.7, maxval=1.0)
    return uv, sure * jnp.where(hidden | wrong, 0.25, 1.0)


def pictures(scene: PictureScene, hand: HandModel, key: Array, inputs: Inputs, truth: Truth) -> Array:
    """Colour pictures (N, T, V, P, P, 3) of each sequence: skin of some tone with a forearm, a coloured object, clutter
    behind them, which does not move.
    """
    size, times = (scene.pixels, scene.pixels), scene.pixels / scene.size
    loop = np.array(wrist_loop(hand))
    faces = jnp.concatenate([hand.faces, jnp.asarray(forearm_faces(hand.num_vertices, tuple(loop.tolist())))])
    marks = make_skin_map(hand)

    def view(one: tuple[Array, ...]) -> Array:
        camera, ground, arm, colours, objects, paint, lamp, grain = one
        shown = [make_mesh(arm, faces, colours), make_mesh(objects, inputs.object_faces[0], paint)]
        lights = (Light(lamp / jnp.linalg.norm(lamp), jnp.full(3, 0.9)),)
        picture = render(make_scene(shown, lights=lights), camera, size)
        light = picture.rgb + (1 - picture.alpha[..., None]) * ground
        noise = 0.01 * jax.random.normal(grain, light.shape)
        return (255 * jnp.clip(jnp.clip(light, 1e-4, 1) ** (1 / 2.2) + noise, 0, 1)).astype(jnp.uint8)

    @jax.jit
    def sequence(key: Array, cameras: Camera, points: Array, vertices: Array, objects: Array) -> Array:
        keys = jax.random.split(key, 5)
        away = points[:, 0] - points[:, 9]
        away = away / jnp.linalg.norm(away, axis=-1, keepdims=True)
        rings = jax.vmap(forearm_rings, (0, 0, None, None))(vertices[:, loop], away, jnp.zeros(3), 0.0)
        skin = skin_colour(keys[0], marks)
        colours = jnp.concatenate([skin, forearm_colours(skin[loop], jnp.zeros(3), 0.0)])
        paint = jax.random.uniform(keys[1], (3,), minval=0.02, maxval=0.8)
        grounds = jax.vmap(clutter, (0, None))(jax.random.split(keys[2], scene.views), size)
        lamp = jnp.array([0.0, -1.0, 0.0]) + 0.6 * jax.random.normal(keys[3], (3,))
        arms = jnp.concatenate([vertices, rings], 1)
        t, v = (x.reshape(-1) for x in np.meshgrid(np.arange(scene.frames), np.arange(scene.views), indexing="ij"))
        same = lambda x: jnp.broadcast_to(x, (len(t), *x.shape))  # noqa: E731
        seen = jax.lax.map(
            view,
            (
                jax.tree.map(lambda x: x[v], finer(cameras, times)),
                grounds[v],
                arms[t],
                same(colours),
                objects[t],
                same(paint),
                same(lamp),
                jax.random.split(keys[4], len(t)),
            ),
        )
        return seen.reshape(scene.frames, scene.views, *size, 3)

    objects = transform(truth.T_world_object, truth.object_vertices[:, None])
    keys = jax.random.split(key, len(objects))
    each = zip(keys, truth.keypoints, truth.vertices, objects, strict=True)
    cameras = [jax.tree.map(lambda x, n=n: x[n], truth.cameras) for n in range(len(objects))]
    return jnp.stack([sequence(k, c, *rest) for c, (k, *rest) in zip(cameras, each, strict=True)])


def finer(cameras: Camera, times: float) -> Camera:
    """With more pixels of the same view, their centres at integers."""
    return replace(cameras, K=cameras.K.at[..., :2, :].multiply(times).at[..., :2, 2].add((times - 1) / 2))


def read_pictures(scene: PictureScene, inputs: Inputs, images: Array) -> Inputs:
    """Keypoints of all views by the hand landmark network: in the square around the mask, turned to four sides, of
    which the surest counts; then once more where these keypoints say that the hand is, fingers up.
    """
    networks, times = load_networks("lite"), scene.pixels / scene.size
    at = jnp.stack(jnp.meshgrid(jnp.arange(scene.size), jnp.arange(scene.size)), -1).reshape(-1, 2)
    at = (at + 0.5) * times - 0.5
    on = inputs.hand_mask.reshape(-1, scene.size**2)
    boxes = boxes_around(jnp.broadcast_to(at, (len(on), *at.shape)), on, 1.3)
    upright = regions_of_boxes(boxes)
    turns = jnp.arange(4) * jnp.pi / 2

    @jax.jit
    def one(pair: tuple[Array, Region]) -> tuple[Array, Array]:
        image, region = pair
        around = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), region)
        hands = hands_in_regions(networks, image, replace(around, angle=region.angle + turns))
        surest = jnp.argmax(hands.score)
        hands = hands_in_regions(networks, image, region_from_keypoints(hands.keypoints2d[surest]))
        return hands.keypoints2d, hands.score

    uv, score = jax.lax.map(one, (images.reshape(-1, *images.shape[-3:]), upright))
    uv = (uv.reshape(inputs.keypoints2d.shape) + 0.5) / times - 0.5
    trust = jnp.broadcast_to(score.reshape(*uv.shape[:3], 1), uv.shape[:-1])
    return replace(inputs, keypoints2d=uv, confidence=trust)


def trained_halo(scene: Scene, config: system.Config, hand: HandModel, folder: Path) -> dict:
    """HALO, trained on hands of other subjects; once, then read."""
    network = HALO(config.width, config.layers)

    def init(key: Array) -> dict:
        return network.init(key, jnp.arange(63.0).reshape(1, 21, 3), jnp.zeros((1, 1, 3)))["params"]

    def batches():
        keypoints, points, inside, part = occupancy_samples(scene, hand, jax.random.key(2**20), scene.hands)
        rng = np.random.default_rng(0)
        while True:
            rows = rng.integers(0, len(points), scene.batch)
            yield {"keypoints": keypoints[rows], "points": points[rows], "inside": inside[rows], "part": part[rows]}

    def loss(variables, batch, *, key):
        """To the occupancy; and by themselves near the skin of their bones, so that each part has a bone."""
        found = network.apply(
            {"params": variables["params"]}, batch["keypoints"], batch["points"], method=network.of_parts
        )
        near = batch["part"].shape[-1]
        own = jnp.take_along_axis(found[..., :near], batch["part"].astype(int)[None], 0)[0]
        whole = jnp.mean((jnp.max(found, 0) - batch["inside"]) ** 2)
        return whole + scene.labels * jnp.mean((own - batch["inside"][..., :near]) ** 2), LossAux()

    stage = Stage("occupancy", scene.steps, (Update("fit", loss, adamw(4e-3, scene.steps)),), ema=0.995)
    card = ModelCard("hograspnet", {}, "hands of the built-in model", {}, "Apache-2.0", notes="HALO")
    sizes = (config.width, config.layers, scene.hands, scene.points, scene.steps, scene.batch, scene.labels)
    known_by = "halo-" + "-".join(f"{size:g}" for size in sizes)
    return trained_once(folder, known_by, init, stage, batches, card)


def occupancy_iou(halo: dict, scene: Scene, config: system.Config, hand: HandModel, number: int = 256) -> float:
    """Intersection over union of a trained HALO with hands that it was not trained on, the mean of each one's; half of
    the points near the skin.
    """
    scene = replace(scene, points=1024)
    keypoints, points, inside, _ = occupancy_samples(scene, hand, jax.random.key(2**21), number)
    network = HALO(config.width, config.layers)
    apply = jax.jit(lambda k, p: network.apply({"params": halo}, k, p) > 0.5)
    found = np.concatenate([apply(keypoints[n : n + 32], points[n : n + 32]) for n in range(0, number, 32)])
    true = inside > 0.5
    return float(np.mean((found & true).sum(1) / (found | true).sum(1)))


def occupancy_samples(scene: Scene, hand: HandModel, key: Array, number: int) -> tuple[np.ndarray, ...]:
    """Keypoints (M, 21, 3) of hands of many subjects, points (M, P, 3) around them, which are inside (M, P), and of the
    first half (M, P / 2), which are near the skin, the part that moves the skin there; the others are anywhere around.
    """
    part = np.zeros(16, np.int8)
    part[FINGERS] = 1 + np.arange(5)[:, None] + 5 * np.arange(3)
    moved_by = jnp.asarray(part)[jnp.argmax(hand.weights, -1)]

    closed = jnp.asarray(close_holes(hand.faces))

    @jax.jit
    def some(key: Array) -> tuple[Array, ...]:
        def one(key: Array) -> tuple[Array, ...]:
            keys = jax.random.split(key, 7)
            own, betas, scale = subject(scene, hand, keys[0])
            mesh = forward(own, HandParams(jnp.zeros(3), sample_poses(keys[1], hand), betas, jnp.zeros(3)))
            R = so3_exp(2 * jax.random.normal(keys[2], (3,)))
            place = lambda x: scale * jnp.einsum("ij,kj->ki", R, x - mesh.keypoints[0], precision="highest")  # noqa: E731
            vertices = place(mesh.vertices)
            vertex = jax.random.randint(keys[3], (scene.points // 2,), 0, len(vertices))
            near = vertices[vertex]
            near = near + 0.006 * jax.random.normal(keys[4], near.shape)
            low, high = jnp.min(vertices, 0) - 0.02, jnp.max(vertices, 0) + 0.02
            around = low + (high - low) * jax.random.uniform(keys[5], (scene.points - len(near), 3))
            points = jnp.concatenate([near, around])
            return place(mesh.keypoints), points, crossing_number(points, vertices, closed) > 0, moved_by[vertex]

        return jax.vmap(one)(jax.random.split(key, min(64, number)))

    parts = [jax.device_get(some(k)) for k in jax.random.split(key, -(-number // 64))]
    keypoints, points, inside, part = (np.concatenate(x)[:number] for x in zip(*parts, strict=True))
    return keypoints, points, inside.astype(np.float32), part


def mpjpe(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return jnp.mean(metrics.mpjpe(outputs.keypoints, truth.keypoints), 1)


def surface(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """From the found surface to the true one, and from the true one to the found, half of each; the latter along the
    true normal to the nearest point, so that it does not matter how far apart points are.
    """
    foot, _, _ = closest_on_mesh(outputs.surface, truth.vertices, hand.faces)
    there = jnp.linalg.norm(outputs.surface - foot, axis=-1)
    nearest = jnp.take_along_axis(outputs.surface, _nearest(outputs, truth)[..., None], -2)
    normals = vertex_normals(truth.vertices, hand.faces)
    back = jnp.abs(jnp.sum((nearest - truth.vertices) * normals, -1))
    return (jnp.mean(there, (1, 2)) + jnp.mean(back, (1, 2))) / 2


def _nearest(outputs: Outputs, truth: Truth) -> Array:
    """Of each true vertex, the point of the found surface that is nearest, (N, T, V)."""

    def frame(pair: tuple[Array, Array]) -> Array:
        return jnp.argmin(jnp.sum((pair[0][:, None] - pair[1]) ** 2, -1), -1)

    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    return jax.lax.map(frame, (flat(truth.vertices), flat(outputs.surface))).reshape(truth.vertices.shape[:3])


def reprojection(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    cameras = jax.tree.map(lambda x: x[:, None], truth.cameras)
    found, true = project(cameras, outputs.keypoints[:, :, None]), project(cameras, truth.keypoints[:, :, None])
    return jnp.mean(metrics.mpjpe(found, true), (1, 2))


def angle_error(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return jnp.mean(jnp.abs(outputs.angles - truth.angles), (1, 2, 3))


def excess(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """How far angles are beyond the limits of their axes; keypoints have no twist, which counts as none."""
    limits = system.axis_limits()
    beyond = jnp.maximum(limits[..., 0] - outputs.angles, 0) + jnp.maximum(outputs.angles - limits[..., 1], 0)
    return jnp.mean(beyond, (1, 2, 3))


def contact_iou(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Of vertices in contact in the last frame, where the object is held."""
    near = jnp.take_along_axis(outputs.contact[:, -1], _nearest(outputs, truth)[:, -1], -1) > 0.5
    true = truth.contact[:, -1]
    union = jnp.sum(near | true, -1)
    return jnp.where(jnp.any(true, -1), jnp.sum(near & true, -1) / jnp.maximum(union, 1), jnp.nan)


def depth_inside(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """How deep the found surface is in the object, at most."""
    objects = transform(truth.T_world_object, truth.object_vertices[:, None])
    return jnp.mean(metrics.penetration_depth(signed_distance(outputs.surface, objects, solid_faces())), 1)


def open_hand(inputs: Inputs, truth: Truth, hand: HandModel) -> Outputs:
    """The trivial answer: the average hand, half open, laid on the triangulated palm."""

    def one(inputs: Inputs) -> Outputs:
        state = replace(system.start_mano(inputs, hand), log_scale=jnp.zeros(()))
        keypoints, vertices = system.mano_surface(state, hand)
        contact = system.contact_values(vertices, inputs, system.Config())
        return Outputs(keypoints, vertices, contact, state.angles, state)

    return jax.lax.map(one, replace(inputs, halo=None))


TRACKS = {
    "halo": {"track": "halo"},
    "mano": {},
    "mano_average": {"shape": False},
    "mano_free": {"limits": 0.0},
    "mano_keypoints": {"depth": 0.0, "mask": 0.0, "penetration": 0.0},
}


SIMULATED, READ = ("cpu", "gpu", "paper"), ("read",)


def claim(name, statement, metric, ours, ablation, expected=None, primary=False, presets=SIMULATED) -> Claim:
    sides = {side: TRACKS[side] for side in (ours, ablation)}
    return Claim(name, statement, metric, sides, (ours, ablation), expected=expected, primary=primary, presets=presets)


experiment = SolveExperiment(
    system=system,
    presets={
        "cpu": Problems(system.Config.tiny(), 8, Scene(), system.Config.tiny(steps=(2, 2, 2), halo_steps=2, cells=10)),
        "read": Problems(system.Config.tiny(sigma_px=2.0), 4, PictureScene()),
        "gpu": Problems(
            system.Config.small(), 64, Scene(size=96, focal=290.0, frames=10, points=512, steps=20_000, batch=64)
        ),
        "paper": Problems(
            system.Config.paper(),
            64,
            Scene(size=480, focal=1450.0, frames=60, hands=200_000, points=2048, steps=50_000, batch=64),
        ),
    },
    problems=problems,
    metrics={
        "surface": surface,
        "mpjpe": mpjpe,
        "mre": reprojection,
        "angles": angle_error,
        "excess": excess,
        "contact": contact_iou,
        "inside": depth_inside,
    },
    units={
        "surface": ("mm", 1000.0),
        "mpjpe": ("mm", 1000.0),
        "mre": ("px", 1.0),
        "angles": ("deg", 180 / np.pi),
        "excess": ("deg", 180 / np.pi),
        "contact": ("%", 100.0),
        "inside": ("mm", 1000.0),
    },
    baseline=open_hand,
    claims=[
        claim(
            "implicit",
            "an implicit hand fits at least as well as MANO's shape and pose, without parameters of a subject",
            "surface",
            "halo",
            "mano",
            (-0.1, 0.1),
            primary=True,
        ),
        claim("implicit_keypoints", "and its keypoints are as right", "mpjpe", "halo", "mano", (-0.1, 0.1)),
        claim(
            "subject", "hands that are not average need more than a scaled average hand", "surface", "halo",
            "mano_average",
        ),
        claim("limits", "without limits of each axis angles are not plausible", "angles", "mano", "mano_free"),
        claim("pictures", "depth and masks tell more than keypoints alone", "surface", "mano", "mano_keypoints"),
        claim(
            "read", "an implicit hand fits as well from keypoints that a network read in colour pictures", "surface",
            "halo", "mano", (-0.1, 0.1), presets=READ,
        ),
        claim(
            "read_pictures", "read keypoints alone are not enough: depth and masks tell more", "surface", "mano",
            "mano_keypoints", presets=READ,
        ),
    ],
    stand_ins=(
        "simulated 2D detections with the failures of networks; in read, MediaPipe's landmarks in pictures, for joints",
        "objects' poses are exact, as from markers",
    ),
)  # fmt: skip

if __name__ == "__main__":
    main(experiment)
