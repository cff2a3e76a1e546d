"""HOGraspNet: hands that hold things, fitted to four RGB-D views, as MANO or as HALO (Cho et al., ECCV 2024).

Per sequence: cameras, 2D keypoints of each view with confidences, depth, masks of hand and object, and the object's
pose from its markers. Two tracks lead to a hand:

MANO    pose, shape, scale and root are optimised in stages: where the hand is, its pose, then everything with rendered
        depth and masks, limits of each axis of each joint, smoothness, and nothing inside the object.
HALO    an implicit hand that 21 keypoints carry. Only the keypoints are optimised, from their triangulation: they
        reproject to the detections, measured depth is on the surface, silhouettes agree, bones keep their lengths,
        nothing is inside the object. There is nothing to tune for a subject.

The order of the fit and all weights are inferred from the paper and the released annotations; the locked axes follow
what its released tables lock.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from jhand.geometry import (
    Camera,
    project,
    rigid_procrustes,
    signed_distance,
    so3_log,
    transform,
    triangulate,
    unproject,
    vertex_normals,
)
from jhand.geometry.isosurface import extract_surface
from jhand.hand import JOINT_LIMITS, HandModel, HandParams, forward, pose_from_angles
from jhand.nn.occupancy import HALO, BoneFrames, bone_frames
from jhand.render import make_mesh, make_scene, render, soft_mask

HIGHEST = lax.Precision.HIGHEST
THUMB_BASE = 12
"""Of the joints whose limits there are: the one that the original guards most."""
_MARGIN = 0.02  # metres around keypoints that hold the whole hand
_SURFACE_BLOCK = 8192
# finger bones of `bone_frames`, roots first and thumb first, to MANO's joints: index, middle, little, ring, thumb
_TO_MANO = np.array([5 * level + finger for finger in (1, 2, 4, 3, 0) for level in range(3)])


@dataclass(frozen=True)
class Config:
    """Which track, how long, and what weighs how much. Stages are those of the MANO track."""

    track: str = "mano"
    """`mano` or `halo`."""
    steps: tuple[int, int, int] = (60, 100, 60)
    """Of the three stages: place; pose and shape, to keypoints; all of it, to pictures too."""
    rates: tuple[float, float, float] = (0.03, 0.02, 0.008)
    shape: bool = True
    """Whether betas are fitted; without them the hand is the average one, scaled."""
    sigma_px: float = 1.0
    """Of detected keypoints, pixels."""
    robust: float = 3.0
    """Sigmas from which a detection counts linearly."""
    depth: float = 2.0
    """Weight of rendered or measured depth, in units of `sigma_depth`."""
    sigma_depth: float = 0.006
    """Metres; depth that is three times as far off is another thing's."""
    mask: float = 5.0
    limits: float = 1000.0
    thumb_limits: float = 10_000.0
    """The same at the base of the thumb."""
    betas: float = 0.01
    scale: float = 1.0
    smooth: float = 2.0
    """Of joint angles (rad^2) and, in decimetres, the root, between frames."""
    penetration: float = 2.0
    """Per square of 5 millimetres that hand and object share."""
    halo_steps: int = 120
    halo_rate: float = 0.0015
    """Metres."""
    points: int = 256
    """Of depth, in each frame."""
    pixels: int = 48
    """For silhouettes, in each frame."""
    samples: int = 10
    """Along the ray of each pixel."""
    surface: float = 20.0
    """Weight of occupancy 1/2 at depth points."""
    silhouette: float = 4.0
    bones: float = 2.0
    """Of changes of a bone's length between frames, per square of 2 millimetres."""
    inside: float = 20.0
    """Of occupancy beyond 1/2 on the object."""
    width: int = 64
    """Of HALO's parts."""
    layers: int = 4
    cells: int = 20
    """Of the coarse grid for meshes, along a hand's longest side."""
    refinements: int = 2
    spread: int = 3112
    """Points that stand for HALO's surface."""
    reach: float = 0.005
    """Metres from the object at which contact ends."""

    def __post_init__(self) -> None:
        if self.track not in ("mano", "halo"):
            raise ValueError(f"track: expected mano or halo, got {self.track!r}")

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For two CPU cores."""
        return replace(cls(width=32), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """For one GPU."""
        return replace(cls(steps=(100, 200, 200), halo_steps=300, points=512, pixels=128, samples=16), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As the paper's, as far as it says: grids of 64, refined three times."""
        return replace(cls.small(points=2048, pixels=512, samples=32, cells=64, refinements=3), **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """Sequences of T frames in V views of H x W pixels; an object of P vertices."""

    cameras: Camera
    """(N, V)."""
    keypoints2d: Float[Array, "*n t v 21 2"]
    """Pixels, of a right hand."""
    confidence: Float[Array, "*n t v 21"]
    depth: Float[Array, "*n t v h w"]
    """Metres along z, 0 where there is no reading."""
    hand_mask: Float[Array, "*n t v h w"]
    """1 where the hand is seen."""
    object_mask: Float[Array, "*n t v h w"]
    """1 where the object is seen, which may hide the hand."""
    T_world_object: Float[Array, "*n t 4 4"]
    object_vertices: Float[Array, "*n p 3"]
    """Metres, in the object's frame."""
    object_faces: Int[Array, "*n f 3"]
    halo: Any = None
    """Parameters of `HALO`, with a leading axis N as all else; only that track reads them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mano:
    """A hand as the annotations store it: x = (MANO's x - its root) / scale + root."""

    global_orient: Float[Array, "*n t 3"]
    """Which the files call `mano_trans`."""
    angles: Float[Array, "*n t 15 3"]
    """Flexion, abduction and twist; `pose_from_angles` makes the pose."""
    betas: Float[Array, "*n b"]
    log_scale: Float[Array, "*n"]
    """Of `mano_scale`, its logarithm."""
    root: Float[Array, "*n t 3"]
    """Metres, world: `mano_xyz_root`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Of either track, in the world's frame, metres."""

    keypoints: Float[Array, "*n t 21 3"]
    surface: Float[Array, "*n t s 3"]
    """MANO's vertices, or points spread evenly over HALO's mesh."""
    contact: Float[Array, "*n t s"]
    """Of each point of the surface, from 0 to 1 on the object."""
    angles: Float[Array, "*n t 15 3"]
    """Flexion, abduction, twist, radians, MANO order; from keypoints there is no twist."""
    mano: Mano
    """Zeros with HALO, which has no parameters."""


def axis_limits() -> Float[np.ndarray, "15 3 2"]:
    """Least and greatest flexion, abduction and twist, radians: those of anatomy, but fingers' middle and end joints
    and the thumb's end joint only flex, and knuckles do not twist: their axes are locked to 0.
    """
    limits = JOINT_LIMITS.copy()
    for finger in range(4):
        limits[3 * finger, 2] = 0
        limits[3 * finger + 1 : 3 * finger + 3, 1:] = 0
    limits[THUMB_BASE + 2, 1:] = 0
    return limits


def limit_loss(angles: Array, config: Config) -> Array:
    """max(0, least - x) + max(0, x - greatest), over axes of joints, the base of the thumb weighing most."""
    limits = axis_limits()
    excess = jnp.maximum(limits[..., 0] - angles, 0) + jnp.maximum(angles - limits[..., 1], 0)
    weight = np.full((15, 1), config.limits)
    weight[THUMB_BASE] = config.thumb_limits * (config.limits > 0)
    return jnp.mean(jnp.sum(weight * excess, (-2, -1))) / 45


def mano_surface(state: Mano, hand: HandModel) -> tuple[Array, Array]:
    """Keypoints (T, 21, 3) and vertices (T, V, 3) of one sequence, as stored: root-centred, scaled, moved."""
    frames = state.angles.shape[0]
    betas = jnp.broadcast_to(state.betas, (frames, state.betas.shape[-1]))
    mesh = forward(
        hand, HandParams(state.global_orient, pose_from_angles(hand, state.angles), betas, jnp.zeros((frames, 3)))
    )
    place = lambda x: (x - mesh.joints[:, :1]) / jnp.exp(state.log_scale) + state.root[:, None]  # noqa: E731
    return place(mesh.keypoints), place(mesh.vertices)


def keypoint_loss(keypoints: Array, one: Inputs, config: Config) -> Array:
    """Reprojection of (T, 21, 3) to the detections of all views, pseudo-Huber, weighted by confidence."""
    cameras = jax.tree.map(lambda x: x[None], one.cameras)
    squared = jnp.sum((project(cameras, keypoints[:, None]) - one.keypoints2d) ** 2, -1) / config.sigma_px**2
    huber = config.robust**2 * (jnp.sqrt(1 + squared / config.robust**2) - 1)
    return jnp.sum(one.confidence * huber) / jnp.maximum(jnp.sum(one.confidence), 1e-6)


def rendered_losses(vertices: Array, one: Inputs, hand: HandModel, config: Config) -> tuple[Array, Array]:
    """Of depth and of masks, over all frames and views of vertices (T, V, 3).

    Depth counts where the hand is both measured and rendered, up to three sigmas (Geman and McClure). Masks are
    compared at half the resolution, where the object does not hide the hand.
    """
    height, width = one.depth.shape[-2:]
    size, half = (height, width), (height // 2, width // 2)
    pool = lambda x: jnp.mean(x.reshape(half[0], 2, half[1], 2), (1, 3))  # noqa: E731
    shrink = jnp.array([[0.5], [0.5], [1.0]])

    def view(vertices: Array, camera: Camera, depth: Array, mask: Array, hidden: Array) -> tuple[Array, Array]:
        scene = make_scene([make_mesh(vertices, hand.faces)])
        picture = render(scene, camera, size)
        both = (picture.mesh_id >= 0) & (depth > 0) & (mask > 0.5)
        off = jnp.where(both, picture.depth - depth, 0) / config.sigma_depth
        squared = off**2
        residual = jnp.sum(squared / (1 + squared / 9)) / jnp.maximum(jnp.sum(mask), 1)
        smaller = replace(camera, K=camera.K * shrink + jnp.array([[0, 0, -0.25], [0, 0, -0.25], [0, 0, 0]]))
        soft = soft_mask(scene, smaller, half, 0.7, edges=256)
        counts = 1 - pool(hidden)
        return residual, jnp.sum(counts * (soft - pool(mask)) ** 2) / jnp.maximum(jnp.sum(pool(mask)), 1)

    over_views = jax.vmap(view, (None, 0, 0, 0, 0))
    depth, mask = jax.vmap(over_views, (0, None, 0, 0, 0))(
        vertices, one.cameras, one.depth, one.hand_mask, one.object_mask
    )
    return jnp.mean(depth), jnp.mean(mask)


def object_in_world(one: Inputs) -> tuple[Array, Array]:
    """Vertices (T, P, 3) of the object, and its normals."""
    points = transform(one.T_world_object, one.object_vertices[None])
    return points, vertex_normals(points, one.object_faces)


def penetration_loss(vertices: Array, points: Array, normals: Array) -> Array:
    """Squares of how deep vertices (T, V, 3) of the hand are below the nearest of the object's (T, P, 3), in 5 mm."""

    def frame(vertices: Array, points: Array, normals: Array) -> Array:
        squared = jnp.sum(vertices**2, -1)[:, None] - 2 * jnp.matmul(vertices, points.T, precision=HIGHEST)
        nearest = jnp.argmin(lax.stop_gradient(squared + jnp.sum(points**2, -1)), -1)
        depth = jnp.sum((points[nearest] - vertices) * normals[nearest], -1)
        near = jnp.sum((points[nearest] - vertices) ** 2, -1) < 0.03**2
        return jnp.sum(jnp.where(near, jnp.maximum(depth, 0), 0) ** 2) / 0.005**2 / 100

    return jnp.mean(jax.vmap(frame)(vertices, points, normals))


def mano_losses(state: Mano, one: Inputs, hand: HandModel, config: Config) -> dict[str, Array]:
    """All terms but those of pictures, weighted."""
    keypoints, vertices = mano_surface(state, hand)
    steps = lambda x: jnp.sum(jnp.diff(x, axis=0) ** 2) / max(x.shape[0] - 1, 1)  # noqa: E731
    return {
        "keypoints": keypoint_loss(keypoints, one, config),
        "limits": limit_loss(state.angles, config),
        "betas": config.betas * jnp.sum(state.betas**2),
        "scale": config.scale * state.log_scale**2,
        "smooth": config.smooth * (steps(state.angles) + steps(10 * state.root)),
        "penetration": config.penetration * penetration_loss(vertices, *object_in_world(one)),
    }


def start_keypoints(one: Inputs) -> Array:
    """Triangulated keypoints (T, 21, 3); those that too few views saw are where the others put a mean bone."""
    cameras = jax.tree.map(lambda x: jnp.broadcast_to(x, (one.depth.shape[0], *x.shape)), one.cameras)
    found = triangulate(cameras, one.keypoints2d, one.confidence)
    seen = found.valid[..., None]
    centre = jnp.sum(jnp.where(seen, found.points, 0), -2, keepdims=True) / jnp.maximum(
        jnp.sum(seen, -2, keepdims=True), 1
    )
    return jnp.where(seen, found.points, centre)


def start_mano(one: Inputs, hand: HandModel) -> Mano:
    """The average hand, half open, laid on the triangulated palm."""
    points = start_keypoints(one)
    frames = points.shape[0]
    angles = jnp.zeros((frames, 15, 3)).at[:, :12, 0].set(0.4).at[:, THUMB_BASE, 1].set(0.4)
    zeros = jnp.zeros((frames, 3))
    rest = forward(hand, HandParams(zeros, pose_from_angles(hand, angles), jnp.zeros((frames, hand.num_betas)), zeros))
    palm = np.array([0, 1, 5, 9, 13, 17])
    source = (rest.keypoints - rest.joints[:, :1])[:, palm]
    R, _ = rigid_procrustes(source, points[:, palm])
    size = lambda x: jnp.mean(jnp.linalg.norm(x[:, 1:] - x[:, :1], axis=-1))  # noqa: E731
    scale = jnp.clip(size(source) / size(points[:, palm]), 0.6, 1.6)
    return Mano(so3_log(R), angles, jnp.zeros(hand.num_betas), jnp.log(scale), points[:, 0])


def fit_mano(one: Inputs, config: Config, hand: HandModel) -> Mano:
    """One sequence by MANO's parameters, in three stages."""

    def to_keypoints(state: Mano) -> Array:
        return sum(mano_losses(state, one, hand, config).values(), jnp.zeros(()))

    def to_pictures(state: Mano) -> Array:
        depth, mask = rendered_losses(mano_surface(state, hand)[1], one, hand, config)
        return to_keypoints(state) + config.depth * depth + config.mask * mask

    state = start_mano(one, hand)
    every = jax.tree.map(jnp.ones_like, state)
    place = replace(every, angles=0 * state.angles, betas=0 * state.betas, root=0.1 * every.root)
    pose = replace(place, angles=every.angles, betas=3.0 * config.shape * every.betas)
    pictures = to_pictures if config.depth or config.mask else to_keypoints
    for loss, moves, steps, rate in zip(
        (to_keypoints, to_keypoints, pictures), (place, pose, pose), config.steps, config.rates, strict=True
    ):
        state = descend(loss, state, steps, rate, moves)
    return state


def descend(loss: Callable[[Any], Array], start: Any, steps: int, rate: float, moves: Any = None) -> Any:
    """Adam along a cosine to a tenth of the rate.

    Args:
        loss: of a state, () in all.
        start: the state to start from, leaves (T, ...) of a sequence.
        steps: how many; with none, nothing is traced.
        rate: at first.
        moves: how much faster or slower each leaf goes, 0 not at all; by default all go alike.
    """
    if not steps:
        return start
    schedule = optax.cosine_decay_schedule(rate, steps, 0.1)
    rule = optax.adam(schedule, b2=0.99)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        state, momenta = carry
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), jax.grad(loss)(state))
        change, momenta = rule.update(slope, momenta)
        if moves is not None:
            change = jax.tree.map(lambda c, m: c * m, change, moves)
        return (optax.apply_updates(state, change), momenta), None

    (state, _), _ = lax.scan(step, (start, rule.init(start)), None, length=steps)
    return state


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cloud:
    """What of depth and masks the HALO track asks about, chosen once."""

    points: Float[Array, "*n t q 3"]
    """On the hand's surface, metres, world."""
    weights: Float[Array, "*n t q"]
    rays: Float[Array, "*n t k s 3"]
    """Samples along rays of pixels at the hand's depth."""
    covered: Float[Array, "*n t k"]
    """1 where the hand is seen there."""
    counts: Float[Array, "*n t k"]


def sample_cloud(key: Array, one: Inputs, start: Array, config: Config) -> Cloud:
    """Points (T, Q, 3) of depth on the hand, and pixels (T, K) in and around it where the object hides nothing."""
    frames, views, height, width = one.depth.shape
    v, y, x = (a.reshape(-1) for a in np.meshgrid(*map(np.arange, (views, height, width)), indexing="ij"))
    uv = jnp.asarray(np.stack([x, y], -1), jnp.float32)
    cameras = jax.tree.map(lambda a: a[v], one.cameras)

    def frame(key: Array, depth: Array, mask: Array, hidden: Array, start: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key)
        on, flat = mask.reshape(-1) > 0.5, depth.reshape(-1)
        measured = on & (flat > 0)
        order = jax.random.uniform(keys[0], flat.shape) + jnp.where(measured, 0, 2)
        at = jnp.argsort(order)[: config.points]
        of = jax.tree.map(lambda a: a[at], cameras)
        points = jax.vmap(lambda c, p, d: unproject(c, p[None], d[None])[0])(of, uv[at], flat[at])
        # inside and outside of the outline, in equal parts
        grown = lax.reduce_window(mask, -jnp.inf, lax.max, (1, 5, 5), (1, 1, 1), "SAME").reshape(-1)
        free = ~on & (hidden.reshape(-1) < 0.5) & (grown > 0.5)
        draw = jax.random.uniform(keys[1], flat.shape)
        half = config.pixels // 2
        rim, body = jnp.argsort(draw + jnp.where(free, 0, 2))[:half], jnp.argsort(draw + jnp.where(on, 0, 2))[:half]
        chosen = jnp.concatenate([rim, body])
        counts = jnp.where(jnp.arange(2 * half) < half, free[chosen], on[chosen])
        middle = jnp.mean(start, 0)
        of = jax.tree.map(lambda a: a[chosen], cameras)
        z = jax.vmap(lambda c: transform(c.T_cam_world, middle[None])[0, 2])(of)
        reach = 0.11 * jnp.linspace(-1, 1, config.samples)
        pixel = jnp.broadcast_to(uv[chosen][:, None], (2 * half, config.samples, 2))
        rays = jax.vmap(unproject)(of, pixel, z[:, None] + reach)
        return points, measured[at].astype(float), rays, on[chosen].astype(float), counts.astype(float)

    keys = jax.random.split(key, frames)
    return Cloud(*jax.vmap(frame)(keys, one.depth, one.hand_mask, one.object_mask, start))


def halo_losses(
    keypoints: Array, one: Inputs, cloud: Cloud, occupancy: Callable[[Array, Array], Array], config: Config
) -> dict[str, Array]:
    """The terms of the HALO track for keypoints (T, 21, 3) of one sequence, weighted."""
    frames, samples = keypoints.shape[0], cloud.rays.shape[-2]
    asked = [cloud.points, cloud.rays.reshape(frames, -1, 3), object_in_world(one)[0]]
    ends = np.cumsum([part.shape[1] for part in asked])
    depth, rays, solid = jnp.split(occupancy(keypoints, jnp.concatenate(asked, 1)), ends[:2], -1)
    hit = jnp.max(rays.reshape(frames, -1, samples), -1)
    wrong = jnp.where(cloud.covered > 0.5, jnp.maximum(0.5 - hit, 0), jnp.maximum(hit - 0.5, 0))
    lengths = bone_frames(keypoints).lengths
    return {
        "keypoints": keypoint_loss(keypoints, one, config),
        "surface": config.surface * _mean((depth - 0.5) ** 2, cloud.weights),
        "silhouette": config.silhouette * _mean(wrong**2, cloud.counts),
        "bones": config.bones * jnp.mean((lengths - jnp.mean(lengths, 0)) ** 2) / 0.002**2,
        "penetration": config.inside * jnp.mean(jnp.maximum(solid - 0.5, 0) ** 2),
    }


def _mean(x: Array, weights: Array) -> Array:
    return jnp.sum(x * weights) / jnp.maximum(jnp.sum(weights), 1e-6)


def fit_halo(one: Inputs, config: Config) -> Array:
    """One sequence by its keypoints (T, 21, 3) alone; the network does not change."""
    network: Any = HALO(config.width, config.layers)
    occupancy = lambda k, p: network.apply({"params": one.halo}, k, p)  # noqa: E731
    start = start_keypoints(one)
    cloud = sample_cloud(jax.random.key(0), one, start, config)
    loss = lambda k: sum(halo_losses(k, one, cloud, occupancy, config).values(), jnp.zeros(()))  # noqa: E731
    return descend(loss, start, config.halo_steps, config.halo_rate)


def angles_of(frames: BoneFrames) -> Array:
    """(..., 15, 3) flexion, abduction and no twist, MANO order, of the frames that keypoints give."""
    return jnp.concatenate([frames.angles, jnp.zeros_like(frames.angles[..., :1])], -1)[..., _TO_MANO, :]


def halo_mesh(halo: Any, keypoints: Array, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Mesh of the hand of keypoints (21, 3), from a grid that is refined near the surface; not to be traced."""

    def occupancy(points: np.ndarray) -> np.ndarray:
        found = []
        for begin in range(0, len(points), _SURFACE_BLOCK):
            block = points[begin : begin + _SURFACE_BLOCK]
            padded = np.zeros((_SURFACE_BLOCK, 3), np.float32)
            padded[: len(block)] = block
            found.append(np.asarray(_occupancy(config.width, config.layers, halo, keypoints, padded))[: len(block)])
        return np.concatenate(found)

    box = np.asarray(keypoints)
    return extract_surface(
        occupancy, box.min(0) - _MARGIN, box.max(0) + _MARGIN, cells=config.cells, refinements=config.refinements
    )


@partial(jax.jit, static_argnums=(0, 1))
def _occupancy(width: int, layers: int, halo: Any, keypoints: Array, points: Array) -> Array:
    network: Any = HALO(width, layers)
    return network.apply({"params": halo}, keypoints, points)


def spread_points(vertices: np.ndarray, faces: np.ndarray, number: int) -> np.ndarray:
    """Points (number, 3) spread evenly over a mesh.

    Raises:
        ValueError: a mesh without triangles.
    """
    if not len(faces):
        raise ValueError("expected a mesh with triangles, got none: is the occupancy network trained?")
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=-1))
    face = np.searchsorted(area, area[-1] * (np.arange(number) + 0.5) / number)
    return (a + b + c)[np.minimum(face, len(faces) - 1)] / 3


def halo_surfaces(halo: Any, keypoints: Array, config: Config) -> Array:
    """Points (N, T, S, 3) on the surfaces of keypoints (N, T, 21, 3); `halo` has an axis N. Not to be traced."""
    surfaces = []
    for n, frames in enumerate(np.asarray(keypoints)):
        one = jax.tree.map(lambda leaf, n=n: leaf[n], halo)
        surfaces += [spread_points(*halo_mesh(one, jnp.asarray(points), config), config.spread) for points in frames]
    return jnp.asarray(np.array(surfaces, np.float32).reshape(*keypoints.shape[:2], -1, 3))


def contact_values(points: Array, one: Inputs, config: Config) -> Array:
    """(T, S): 1 on the object or in it, falling to 0 at `reach`."""
    away = signed_distance(points, object_in_world(one)[0], one.object_faces)
    return jnp.clip(1 - away / config.reach, 0, 1)


def solve(inputs: Inputs, config: Config, hand: HandModel) -> Outputs:
    """Hands of N sequences by the track that the configuration names.

    Raises:
        ValueError: the HALO track without its network, or pictures with an odd number of rows or columns.
    """
    if any(n % 2 for n in inputs.depth.shape[-2:]):
        raise ValueError(f"depth: expected an even height and width, got {inputs.depth.shape[-2:]}")
    if config.track == "mano":
        return _solve_mano(replace(inputs, halo=None), config, hand)
    if inputs.halo is None:
        raise ValueError("halo: expected the parameters of a trained HALO, got None")
    keypoints = _solve_halo(inputs, config)
    points = halo_surfaces(inputs.halo, keypoints, config)
    contact = _contact(inputs, points, config)
    none = jax.tree.map(jnp.zeros_like, _empty(keypoints, hand))
    return Outputs(keypoints, points, contact, angles_of(bone_frames(keypoints)), none)


def _empty(keypoints: Array, hand: HandModel) -> Mano:
    n, t = keypoints.shape[:2]
    return Mano(jnp.zeros((n, t, 3)), jnp.zeros((n, t, 15, 3)), jnp.zeros((n, hand.num_betas)), jnp.zeros(n),
                jnp.zeros((n, t, 3)))  # fmt: skip


@partial(jax.jit, static_argnames="config")
def _solve_mano(inputs: Inputs, config: Config, hand: HandModel) -> Outputs:
    def each(one: Inputs) -> Outputs:
        state = fit_mano(one, config, hand)
        keypoints, vertices = mano_surface(state, hand)
        return Outputs(keypoints, vertices, contact_values(vertices, one, config), state.angles, state)

    return lax.map(each, inputs)


@partial(jax.jit, static_argnames="config")
def _solve_halo(inputs: Inputs, config: Config) -> Array:
    return lax.map(lambda one: fit_halo(one, config), inputs)


@partial(jax.jit, static_argnames="config")
def _contact(inputs: Inputs, points: Array, config: Config) -> Array:
    return lax.map(lambda pair: contact_values(pair[1], pair[0], config), (inputs, points))
