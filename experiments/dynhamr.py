"""Dyn-HaMR: hands in the world from a moving camera, instead of single frames put together.

Claims  descents on a scaled path against frames put together as if the camera stood still; the scale found or 1; a
        motion prior or slerp in gaps; without biomechanical limits; without smoothness; the first of these again, of
        hands that `jhand.track` finds in rendered pictures (video); Yu et al., CVPR 2025
Shows   G-MPJPE (aligned by the first two frames) of two hands over 64 frames; half of the clips have hands that are
        independent of the camera, in the others they ride along with it, where the scale cannot be found: its bias is
        in the table. Full-HD keypoints with 2 to 6 pixels of noise, a regressor whose distance is wrong by 5 to 10 %
        in every frame, gaps of 20 to 40 frames, a path with drift whose unit is 0.3 to 3 metres
Cost    cpu: about 20 minutes on one core, half of it training the motion prior; gpu: not run yet
Command python -m experiments.dynhamr claims --preset cpu --seeds 3 --claim all
        python -m experiments.dynhamr claims --preset video --seeds 3 --claim tracked
Expect  G-MPJPE 60 to 90 % lower than frames put together; 20 to 40 % lower errors in gaps
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jhand import metrics
from jhand.claims import Claim
from jhand.data.world.cameras import look_at
from jhand.data.world.scripts import finger_motion, sample_shape, wander
from jhand.draws import between, normals, uniforms
from jhand.geometry import Camera, invert_transform, make_camera, project, so3_exp, so3_log
from jhand.hand import (
    HandModel,
    HandParams,
    bone_hulls,
    bone_measures,
    forward,
    hull_excess,
    keypoints,
    load_hand,
    mirror_hand,
    mirror_params,
    mirror_points,
    pose_from_angles,
    with_T_world_wrist,
)
from jhand.motion import (
    MISSING,
    PriorConfig,
    between_keyframes,
    frame_states,
    init_motion_prior,
    motion_prior_loss,
    move_points,
)
from jhand.render import make_mesh, make_scene, render
from jhand.solving import Problems, SolveExperiment, main, trained_once
from jhand.systems import dynhamr as system
from jhand.systems.dynhamr import Config, Inputs, Outputs
from jhand.track import (
    hands_by_frame,
    hands_of_one_person,
    hands_over_time,
    load_networks,
    track_frames,
)
from jhand.track.footage import MIN_FRAMES
from jhand.train import LossAux, ModelCard, Stage, Update, adamw

RIGHT = np.array([True, False])


@dataclass(frozen=True)
class Scene:
    """Two hands, a camera that somebody carries, and what goes wrong between them and the system."""

    frames: int = 64
    fps: float = 30.0
    size: tuple[int, int] = (1080, 1920)
    focal: float = 1400.0
    pace: float = 0.6
    """Seconds of the world's hands in a second."""
    distance: float = 0.7
    """Of the camera from the hands, metres."""
    walk: float = 0.35
    """Standard deviation of each coordinate of the places that the camera goes to, one each half second, metres."""
    gaze: float = 0.12
    """The same of what it looks at, about the middle of the hands."""
    noise: tuple[float, float] = (2.0, 6.0)
    """Standard deviation of keypoints in the picture, pixels; a surer one has less."""
    depth: tuple[float, float] = (0.05, 0.10)
    """Of the regressor's distance from the camera, a share of it, by clip."""
    turns: tuple[float, float] = (0.1, 0.15)
    """Of its wrists and of its fingers' joints, radians."""
    shape: float = 0.3
    """Of its shape coefficients, by clip, and again by frame."""
    gap: tuple[int, int] = (20, 40)
    """Frames in which a hand is not seen, once a clip."""
    lost: float = 0.03
    """Share of other frames in which it is not."""
    scale: tuple[float, float] = (0.3, 3.0)
    """Metres in the unit of the path."""
    drift: tuple[float, float] = (0.01, 0.02)
    """Of the path at its end: a share of its length, and radians."""
    clips: int = 8192
    """That the motion prior is trained on."""
    steps: int = 6000
    batch: int = 32


@dataclass(frozen=True)
class VideoScene(Scene):
    """A scene whose pictures are there: what is said of hands in them, `jhand.track` says."""

    size: tuple[int, int] = (360, 640)
    focal: float = 1400 / 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truth:
    """What was there."""

    params: HandParams
    """Leading axes (N, 2, T); the world is the first camera."""
    keypoints: Float[Array, "*n 2 t 21 3"]
    """Metres."""
    cameras: Camera
    """(N, T), metres."""
    world_scale: Float[Array, "*n"]
    with_head: Bool[Array, "*n"]
    """Whether the hands ride along with the camera."""
    seen: Bool[Array, "*n 2 t"]
    missing: Bool[Array, "*n 2 t"]
    """Frames in which hands were not seen, but before and after."""


def problems(seed: int, preset: Problems, folder: Path) -> tuple[Inputs, Truth]:
    """Two hands before a camera that is carried, by somebody else or by whose hands they are, in turn."""
    scene, hand = preset.scene, load_hand()
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), seed), preset.number)
    with_head = jnp.arange(preset.number) % 2 == 1
    if isinstance(scene, VideoScene):
        make, networks = jax.jit(partial(_film, scene, hand)), load_networks()
        clips = [_tracked(scene, hand, networks, *make(key, head)) for key, head in zip(keys, with_head, strict=True)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *clips)
    inputs, truth = jax.jit(jax.vmap(partial(_clip, scene, hand)))(keys, with_head)
    prior = trained_prior(scene, preset.config.prior, hand, folder)
    prior = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (preset.number, *leaf.shape)), prior)
    return replace(inputs, prior=prior), truth


def _clip(scene: Scene, hand: HandModel, key: Array, with_head: Array) -> tuple[Inputs, Truth]:
    """A clip in which all is known, and what a regressor, a detector of keypoints and a SLAM system say of it."""
    keys = jax.random.split(key, 5)
    times = jnp.arange(scene.frames) / scene.fps
    params, cameras = _world(scene, hand, keys[0], times, with_head)
    points = _points(hand, params)
    seen = _seen(scene, keys[1])
    exact = project(cameras, points)
    sigma, spread = jax.random.uniform(keys[2], exact.shape[:-1]), jax.random.normal(keys[3], exact.shape)
    uv = exact + between(sigma, *scene.noise)[..., None] * spread
    estimates, path, world_scale = _said(scene, hand, keys[4], params, cameras)
    inputs = Inputs(
        cameras=path,
        moving=jnp.array(True),
        right=jnp.asarray(RIGHT),
        keypoints2d=jnp.where(seen[..., None, None], uv, 0),
        confidence=jnp.where(seen[..., None], 1 - 0.5 * sigma, 0),
        estimates=estimates,
        seen=seen,
        prior={},
    )
    return inputs, Truth(params, points, cameras, world_scale, with_head, seen, frame_states(seen) == MISSING)


def _film(scene: VideoScene, hand: HandModel, key: Array, with_head: Array) -> tuple[Array, Inputs, Truth]:
    """A clip's pictures (T, H, W, 3) uint8, and what is known of it but for the hands that are found in them."""
    keys = jax.random.split(key, 4)
    params, cameras = _world(scene, hand, keys[0], jnp.arange(scene.frames) / scene.fps, with_head)
    points = _points(hand, params)
    estimates, path, world_scale = _said(scene, hand, keys[1], params, cameras)
    right, left = (jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2))
    meshes = jnp.stack([forward(hand, right).vertices, mirror_points(forward(hand, mirror_params(left)).vertices)], 1)
    skin = jnp.array([0.6, 0.4, 0.3]) * jax.random.uniform(keys[2], minval=0.9, maxval=1.2)
    height, width = scene.size
    folds = jax.random.uniform(keys[3], (height // 24, width // 24, 1), minval=0.3, maxval=0.6)
    ground = jnp.array([0.5, 0.6, 0.7]) * jax.image.resize(folds, (height, width, 1), "cubic")  # palms are found on it

    def frame(each: tuple[Array, Camera]) -> Array:
        vertices, camera = each
        faces = (hand.faces, hand.faces[:, ::-1])
        picture = render(
            make_scene([make_mesh(vertices[m], faces[m], skin) for m in range(2)]), camera, (height, width)
        )
        light = picture.rgb + (1 - picture.alpha[..., None]) * ground
        return (255 * jnp.clip(light, 1e-4, 1) ** (1 / 2.2)).astype(jnp.uint8)

    inside = jnp.zeros(points.shape[:2], bool)
    nothing = jnp.zeros(points.shape[:-1])
    inputs = Inputs(
        cameras=path,
        moving=jnp.array(True),
        right=jnp.asarray(RIGHT),
        keypoints2d=jnp.zeros((*points.shape[:-1], 2)),
        confidence=nothing,
        estimates=jax.tree.map(jnp.zeros_like, estimates),
        seen=inside,
        prior={},
    )
    truth = Truth(params, points, cameras, world_scale, with_head, inside, inside)
    return jax.lax.map(frame, (meshes, cameras)), inputs, truth


def _tracked(
    scene: Scene, hand: HandModel, networks: Any, frames: Array, inputs: Inputs, truth: Truth
) -> tuple[Inputs, Truth]:
    """A clip with what a tracker finds in its pictures; the hands of each frame by itself, of mean shape."""
    hands = track_frames(networks, np.asarray(frames))
    found = hands_over_time(hands, fps=scene.fps, min_frames=MIN_FRAMES)
    both = hands_of_one_person(found, scene.frames)
    lens = jax.tree.map(lambda leaf: leaf[0], truth.cameras)
    models = (hand, mirror_hand(hand))
    estimates = [
        hands_by_frame(model, one, lens) if one.present.any() else HandParams.zeros((scene.frames,))
        for model, one in zip(models, both, strict=True)
    ]
    of_both = lambda name: jnp.stack([jnp.asarray(getattr(one, name)) for one in both])  # noqa: E731
    seen = of_both("present")
    inputs = replace(
        inputs,
        keypoints2d=of_both("keypoints2d"),
        confidence=jnp.broadcast_to(of_both("score")[..., None], (*seen.shape, 21)),
        estimates=jax.tree.map(lambda *leaves: jnp.stack(leaves), *estimates),
        seen=seen,
    )
    return inputs, replace(truth, seen=seen, missing=frame_states(seen) == MISSING)


def _world(scene: Scene, hand: HandModel, key: Array, times: Array, with_head: Array) -> tuple[HandParams, Camera]:
    """Hands (2, T), the left one of a left hand's model, and the cameras (T,), in the axes of the first."""
    keys = jax.random.split(key, 6)
    betas = jnp.broadcast_to(sample_shape(keys[0], hand), (scene.frames, hand.num_betas))
    walk, gaze, eye = normals(keys[1], (8, 3), (8, 3), (3,))
    progress = between_keyframes(times, 0.5 * jnp.arange(7) - 0.5, jnp.full(7, 1.0))
    path = move_points(progress, scene.walk * walk)
    path = path - path[:1]
    ride = jnp.where(with_head, path, 0)
    right, left = (_hand(hand, k, times * scene.pace, betas, ride) for k in keys[2:4])
    left = mirror_params(left)
    left = replace(left, transl=left.transl + ride - mirror_points(ride))
    params = jax.tree.map(lambda a, b: jnp.stack([a, b]), right, left)
    middle = jnp.mean(_points(hand, params), (0, 1, 2)) - jnp.mean(ride, 0)
    eye = middle + scene.distance * jnp.array([0.0, -0.5, -0.85]) + 0.1 * eye + path
    T = jax.vmap(look_at)(eye, middle + ride + move_points(progress, scene.gaze * gaze))
    T_first_world = T[0]
    height, width = scene.size
    cameras = make_camera(
        focal=jnp.full((scene.frames, 2), scene.focal),
        principal=jnp.broadcast_to(jnp.array([(width - 1) / 2, (height - 1) / 2]), (scene.frames, 2)),
        T_cam_world=jnp.matmul(T, invert_transform(T_first_world), precision="highest"),
        distortion=jnp.zeros((scene.frames, 8)),
    )
    return _carried(hand, params, T_first_world), cameras


def _hand(hand: HandModel, key: Array, times: Array, betas: Array, ride: Array) -> HandParams:
    """A right hand (T,) that works beside another."""
    keys = jax.random.split(key, 4)
    pose = pose_from_angles(hand, finger_motion(keys[0], hand, times))
    aside, turned = normals(keys[1], (3,), (3,))
    T = wander(keys[2], so3_exp(0.8 * turned), jnp.array([0.13, 0.0, 0.0]) + 0.03 * aside, times)
    T = T.at[:, :3, 3].add(ride)
    zeros = jnp.zeros((len(times), 3))
    return with_T_world_wrist(hand, HandParams(zeros, pose, betas, zeros), T)


def _points(hand: HandModel, params: HandParams) -> Float[Array, "2 t 21 3"]:
    """Keypoints of a right and a left hand."""
    right, left = (jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2))
    return jnp.stack([keypoints(hand, right), mirror_points(keypoints(hand, mirror_params(left)))])


def _roots(hand: HandModel, betas: Array) -> Array:
    """Root joints (2, T, 3) at zero translation."""
    return system.root_joint(hand, betas, jnp.broadcast_to(RIGHT[:, None], betas.shape[:-1]))


def _carried(hand: HandModel, params: HandParams, T: Array) -> HandParams:
    """Hands (2, T) in the axes that rigid transforms (4, 4) or (T, 4, 4) lead to."""
    root = _roots(hand, params.betas)
    R, wrist = T[..., :3, :3], params.transl + root
    orient = so3_log(jnp.matmul(R, so3_exp(params.global_orient), precision="highest"))
    there = jnp.einsum("...ij,...j->...i", R, wrist, precision="highest") + T[..., :3, 3]
    return replace(params, global_orient=orient, transl=there - root)


def _seen(scene: Scene, key: Array) -> Bool[Array, "2 t"]:
    """Frames that show each hand: not a stretch of them, and not a few others; the first and the last are there."""
    length, begin, others = uniforms(key, (2, 1), (2, 1), (2, scene.frames))
    t = jnp.arange(scene.frames)
    length = jnp.floor(between(length, scene.gap[0], scene.gap[1] + 1))
    begin = jnp.floor(between(begin, 6, scene.frames - 6 - length))
    seen = ((t < begin) | (t >= begin + length)) & (others > scene.lost)
    return seen | (t == 0) | (t == scene.frames - 1)


def _said(
    scene: Scene, hand: HandModel, key: Array, params: HandParams, cameras: Camera
) -> tuple[HandParams, Camera, Array]:
    """What a regressor says of each frame, in camera axes; the path that a SLAM system gives; metres in its unit."""
    keys = jax.random.split(key, 3)
    hands, frames = params.transl.shape[:2]
    far, fingers, turned, shape, by_frame, slip, tilt = normals(
        keys[0],
        (hands, frames, 1),
        (hands, frames, 15, 3),
        (hands, frames, 3),
        (hands, 1, hand.num_betas),
        (hands, frames, hand.num_betas),
        (3,),
        (3,),
    )
    worst, unit = uniforms(keys[1], (), ())
    seen = _carried(hand, params, cameras.T_cam_world)
    betas = seen.betas + scene.shape * (shape + by_frame)
    wrist = (seen.transl + _roots(hand, seen.betas)) * jnp.exp(between(worst, *scene.depth) * far)
    estimates = HandParams(
        global_orient=so3_log(
            jnp.matmul(so3_exp(scene.turns[0] * turned), so3_exp(seen.global_orient), precision="highest")
        ),
        hand_pose=so3_log(jnp.matmul(so3_exp(seen.hand_pose), so3_exp(scene.turns[1] * fingers), precision="highest")),
        betas=betas,
        transl=wrist - _roots(hand, betas),
    )
    world_scale = jnp.exp(between(unit, np.log(scene.scale[0]), np.log(scene.scale[1])))
    T_world_cam = invert_transform(cameras.T_cam_world)
    centre, share = T_world_cam[:, :3, 3], jnp.linspace(0, 1, frames)[:, None]
    length = jnp.sum(jnp.linalg.norm(jnp.diff(centre, axis=0), axis=-1))
    drifted = centre + scene.drift[0] * length * share * slip
    R = jnp.matmul(so3_exp(scene.drift[1] * share * tilt), T_world_cam[:, :3, :3], precision="highest")
    T = T_world_cam.at[:, :3, :3].set(R).at[:, :3, 3].set(drifted / world_scale)
    return estimates, replace(cameras, T_cam_world=invert_transform(T)), world_scale


def trained_prior(scene: Scene, config: PriorConfig, hand: HandModel, folder: Path) -> dict:
    """The motion prior, trained on hands of the world that move as a clip's do; once, then read."""

    def batches():
        make = jax.jit(jax.vmap(partial(_motion, scene, hand, config.frames)))
        keys = jax.random.split(jax.random.key(2**20), (-(-scene.clips // 256), 256))
        clips = np.concatenate([np.asarray(make(key)) for key in keys])
        rng = np.random.default_rng(0)
        while True:
            yield {"rotations": clips[rng.integers(0, len(clips), scene.batch)]}

    def loss(variables, batch, *, key):
        total, terms = motion_prior_loss(variables["params"], batch["rotations"], hand, key, config)
        return total, LossAux(terms=terms)

    stage = Stage("motion", scene.steps, (Update("fit", loss, adamw(1e-3, scene.steps)),), ema=0.999)
    card = ModelCard("dynhamr", asdict(config), "motion of synthetic hands", {}, "Apache-2.0", notes="stand-in")
    known_by = f"prior-{config.frames}-{config.local}-{config.hidden}-{scene.pace}-{scene.clips}-{scene.steps}"
    return trained_once(folder, known_by, partial(init_motion_prior, config=config), stage, batches, card)


def _motion(scene: Scene, hand: HandModel, frames: int, key: Array) -> Array:
    """Rotations (T, 16, 3, 3) of a right hand, turned any way."""
    keys = jax.random.split(key)
    times = jnp.arange(frames) / scene.fps * scene.pace
    zeros = jnp.zeros((frames, 3))
    params = _hand(hand, keys[0], times, jnp.zeros((frames, hand.num_betas)), zeros)
    turned = so3_exp(2 * jax.random.normal(keys[1], (3,)))
    wrist = jnp.matmul(turned, so3_exp(params.global_orient), precision="highest")
    return jnp.concatenate([wrist[:, None], so3_exp(params.hand_pose)], 1)


# Metrics


def _both(points: Array) -> Array:
    """Points (N, 2, T, 21, 3) of both hands as (N, T, 42, 3)."""
    return jnp.moveaxis(points, 1, 2).reshape(points.shape[0], points.shape[2], 42, 3)


def _shown(truth: Truth) -> Array:
    """Which of 42 points were seen, (N, T, 42)."""
    return jnp.repeat(jnp.moveaxis(truth.seen, 1, 2), 21, -1)


def g_mpjpe(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Aligned by the first two frames, over frames in which hands were seen: gaps are another claim's."""
    found, true = _both(outputs.keypoints), _both(truth.keypoints)
    return metrics.w_mpjpe(found, true, _shown(truth), window=found.shape[1])


def ga_mpjpe(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Aligned as a whole, likewise."""
    return metrics.ga_mpjpe(_both(outputs.keypoints), _both(truth.keypoints), _shown(truth))


def _mpjpe(outputs: Outputs, truth: Truth, counts: Array) -> Array:
    """About the wrists, in camera axes, over some frames (N, 2, T)."""
    found, true = (
        jnp.einsum("ntij,nbtkj->nbtki", x.cameras.T_cam_world[..., :3, :3], x.keypoints, precision="highest")
        for x in (outputs, truth)
    )
    each = metrics.root_aligned_mpjpe(found, true)
    return jnp.sum(jnp.where(counts, each, 0), (1, 2)) / jnp.sum(counts, (1, 2))


def mpjpe_seen(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return _mpjpe(outputs, truth, truth.seen)


def mpjpe_gap(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return _mpjpe(outputs, truth, truth.missing)


def _acceleration(outputs: Outputs, truth: Truth, counts: Array, fps: float) -> Array:
    counts = jnp.broadcast_to(counts[..., None], truth.keypoints.shape[:-1])
    return jnp.nanmean(metrics.acceleration_error(outputs.keypoints, truth.keypoints, fps, counts), 1)


def acceleration_seen(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return _acceleration(outputs, truth, truth.seen, Scene.fps)


def acceleration_gap(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return _acceleration(outputs, truth, truth.missing, Scene.fps)


def implausible(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Share of joints in all frames whose angles lie outside of their hull by more than 0.1, about 4 degrees."""
    own = jnp.where(RIGHT[:, None, None, None], outputs.keypoints, mirror_points(outputs.keypoints))
    bones = bone_measures(own)
    return jnp.mean(hull_excess(bones.flexion, bones.abduction, bone_hulls()) > 0.1, (1, 2, 3, 4))


def scale_bias(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """How much too large the scale is, a share of the true one."""
    return outputs.world_scale / truth.world_scale - 1


def scale_error(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return jnp.abs(scale_bias(outputs, truth, hand))


def by_regime(metric, with_head: bool):
    """A metric of the clips in which hands ride along with the camera, or of the others."""
    return lambda outputs, truth, hand: jnp.where(truth.with_head == with_head, metric(outputs, truth, hand), jnp.nan)


def held(inputs: Inputs, truth: Truth, hand: HandModel) -> Outputs:
    """The trivial answer: the regressor's fingers on wrists that stay before the camera as it was carried along its
    path, where they were seen first, not turned and in the path's own unit.
    """
    said, _ = system.fill_tracks(inputs.estimates, inputs.seen)
    first = jnp.broadcast_to(said.transl[:, :, :1], said.transl.shape)
    still = replace(said, transl=first, global_orient=jnp.zeros_like(first))
    return system.solve(replace(inputs, estimates=still), Config(last="lift"), hand)


VARIANTS = {
    "static": {"last": "lift", "still": True},
    "lifted": {"last": "lift"},
    "unscaled": {"last": "slerp", "scale": False},
    "slerp": {"last": "slerp"},
    "prior": {},
    "no_limits": {"last": "slerp", "bio": (0.0, 0.0, 0.0)},
    "no_smoothness": {"last": "slerp", "smooth": (0.0, 0.0)},
}


SIMULATED, RENDERED = ("cpu", "gpu", "paper"), ("video",)


def claim(name, statement, metric, ours, ablation, expected, also=(), presets=SIMULATED, **more) -> Claim:
    sides = {side: VARIANTS[side] for side in (ours, ablation, *also)}
    return Claim(name, statement, metric, sides, (ours, ablation), expected=expected, presets=presets, **more)


REGIMES = {"apart": False, "head": True}

experiment = SolveExperiment(
    system=system,
    presets={
        "cpu": Problems(Config.tiny(), number=8, scene=Scene()),
        # pixels weigh as much of the picture as full-HD ones do
        "video": Problems(
            Config.tiny(reprojection=(9 * 0.001, 9 * 0.001, 9 * 0.05), robust=100 / 3), number=8, scene=VideoScene()
        ),
        "gpu": Problems(Config.small(), number=64, scene=Scene(frames=128, clips=65536, steps=30000)),
        "paper": Problems(Config.paper(), number=64, scene=Scene(frames=128, clips=262144, steps=100000, batch=128)),
    },
    problems=problems,
    metrics={
        **{f"g_mpjpe_{name}": by_regime(g_mpjpe, head) for name, head in REGIMES.items()},
        **{f"ga_mpjpe_{name}": by_regime(ga_mpjpe, head) for name, head in REGIMES.items()},
        **{f"scale_bias_{name}": by_regime(scale_bias, head) for name, head in REGIMES.items()},
        **{f"scale_error_{name}": by_regime(scale_error, head) for name, head in REGIMES.items()},
        "mpjpe_seen": mpjpe_seen,
        "mpjpe_gap": mpjpe_gap,
        "acceleration_seen": acceleration_seen,
        "acceleration_gap": acceleration_gap,
        "implausible": implausible,
    },
    units={
        **dict.fromkeys(
            (*(f"{g}_mpjpe_{name}" for g in ("g", "ga") for name in REGIMES), "mpjpe_seen", "mpjpe_gap"),
            ("mm", 1000.0),
        ),
        **dict.fromkeys((f"scale_{kind}_{name}" for kind in ("bias", "error") for name in REGIMES), ("%", 100.0)),
        **dict.fromkeys(("acceleration_seen", "acceleration_gap"), ("m/s^2", 1.0)),
        "implausible": ("%", 100.0),
    },
    baseline=held,
    claims=[
        claim(
            "world",
            "hands are to be lifted by a scaled path and moved together, not put together frame by frame",
            "g_mpjpe_apart",
            "slerp",
            "static",
            (0.6, 0.9),
            primary=True,
            also=("lifted",),
        ),
        claim("scale", "the scale of the path is to be found", "g_mpjpe_apart", "slerp", "unscaled", (0.5, 0.9)),
        claim("infill", "a motion prior fills gaps better than slerp", "mpjpe_gap", "prior", "slerp", (0.2, 0.4)),
        # of a hand that stays as it is, no joint leaves its limits further and nothing shakes: not to be beaten
        claim(
            "limits",
            "limits keep fingers plausible",
            "implausible",
            "slerp",
            "no_limits",
            (0.5, 1.0),
            beats_trivial=False,
        ),
        claim(
            "steady",
            "smoothness keeps motion steady",
            "acceleration_seen",
            "slerp",
            "no_smoothness",
            (0.3, 0.9),
            beats_trivial=False,
        ),
        claim(
            "tracked",
            "hands that a tracker sees in pictures are to be lifted and moved together, not put together by frame",
            "g_mpjpe_apart",
            "slerp",
            "static",
            (0.6, 0.9),
            also=("lifted",),
            presets=RENDERED,
        ),
    ],
    stand_ins=(
        "true hands with noise, for HaMeR and ViTPose; in the preset video `jhand.track`, MediaPipe's networks, on "
        "renders",
        "the true path in another unit, with drift, for DROID-SLAM",
        "a motion prior trained on synthetic hands, for the one trained on motion capture",
    ),
)

if __name__ == "__main__":
    main(experiment)
