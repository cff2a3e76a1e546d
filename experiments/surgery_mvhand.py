"""Surgery hands: frames held by the frame before instead of each triangulated by itself.

Claims  the loss ladder of the paper: reprojection alone, with smoothness, with shape, with biomechanical limits, which
        harm; and tracking from the best frames against a detector's boxes frame by frame; arXiv 2601.15918, its tables
Shows   MPJPE of two hands above a table. Ladder (cpu): twelve cameras, simulated detections: noise of 2 to 5 pixels of
        4K pictures, bursts in which views, or nearly all of them, do not see a hand and make one up, 2 to 5 % gross
        outliers of which some are trusted; three speeds. Tracking (video): six cameras, rendered pictures, a coarse
        detector that drops out and jumps, and a hand keypoint model trained on renders
Cost    cpu: about 10 minutes on two cores; gpu: not run yet
Command python -m experiments.surgery_mvhand claims --preset cpu --seeds 5
        python -m experiments.surgery_mvhand claims --preset video --claim tracked
Expect  smoothness 80 to 95 % lower than reprojection alone; shape 5 to 10 % lower where hands are fast
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jhand import metrics
from jhand.claims import Claim
from jhand.data.world.cameras import look_at
from jhand.data.world.scripts import finger_motion, wander
from jhand.geometry import Camera, make_camera, project, so3_exp
from jhand.hand import HandModel, HandParams, forward, load_hand, mirror_points, pose_from_angles
from jhand.nn import simcc_loss
from jhand.render import make_mesh, make_scene, render
from jhand.solving import Problems, SolveExperiment, main, trained_once
from jhand.systems import surgery_mvhand as system
from jhand.systems.surgery_mvhand import CROP, Detections, HandKeypoints, Inputs, Outputs, Video
from jhand.track.regions import Region, crop
from jhand.train import LossAux, ModelCard, Stage, Update, adamw

LEVELS = ("static", "slow", "fast")
PIXELS = (5.0, 10.0, 20.0, 30.0)
METRES = (0.005, 0.010, 0.025, 0.050)


@dataclass(frozen=True)
class Scene:
    """A table, cameras around it, and what goes wrong in their pictures."""

    frames: int = 60
    fps: float = 30.0
    views: int = 12
    size: tuple[int, int] = (2160, 3840)
    focal: float = 1900.0
    distance: float = 1.5
    """Of cameras from the table's middle, metres."""
    paces: tuple[float, ...] = (0.05, 0.2, 0.4)
    """Of the three levels: seconds of the world's motion in a second."""
    noise: tuple[float, float] = (2.0, 5.0)
    """Standard deviation of a view's detections, pixels."""
    outliers: tuple[float, float] = (0.02, 0.05)
    """Share of joints that are somewhere else."""
    away: float = 150.0
    """Standard deviation of how far, pixels."""
    trusted: float = 0.3
    """Share of outliers that the model is sure of."""
    hidden: tuple[float, float] = (0.3, 0.5)
    """Share of time that a view does not see a hand, and seconds that it does not, in the mean."""
    covered: float = 0.15
    """Share of time that a hand is under something, which nine of ten views do not see through."""


@dataclass(frozen=True)
class VideoScene(Scene):
    """A scene whose pictures are there, at a hand's size in a crop of 4K ones, and a detector that fails."""

    frames: int = 40
    views: int = 6
    size: tuple[int, int] = (360, 480)
    focal: float = 900.0
    fails: tuple[float, float] = (0.25, 0.3)
    """Share of views in which a coarse hand is wrong, and seconds that it is, in the mean; as `hidden`."""
    pictures: int = 12_000
    """That the hand keypoint model is trained on."""
    steps: int = 6000
    batch: int = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truth:
    """Where the hands are."""

    keypoints: Float[Array, "n t 2 21 3"]
    """Metres."""
    cameras: Camera
    level: Int[Array, "n"]
    """Index into `LEVELS`."""


def problems(seed: int, preset: Problems, folder: Path) -> tuple[Inputs, Truth]:
    """Two hands above a table, at three speeds in turn."""
    scene, hand = preset.scene, load_hand()
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), seed), preset.number)
    level = jnp.arange(preset.number) % len(LEVELS)
    if not isinstance(scene, VideoScene):
        make = jax.jit(jax.vmap(partial(_detections, scene, hand)))
        points, cameras, wrists, seen = make(keys, level)
        return Inputs(cameras, *wrists, seen), Truth(points, cameras, level)
    weights = trained_detector(scene, hand, folder)
    detector = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (preset.number, *leaf.shape)), weights)
    make = jax.jit(partial(_video, scene, hand))
    points, cameras, wrists, frames, coarse = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(make(k, n) for k, n in zip(keys, level, strict=True))
    )
    return Inputs(cameras, *wrists, Video(frames, *coarse, detector)), Truth(points, cameras, level)


def _detections(scene: Scene, hand: HandModel, key: Array, level: Array) -> tuple:
    """A sequence of which only detections are there."""
    keys = jax.random.split(key, 3)
    points, _, cameras, exact = _sequence(scene, hand, keys[0], level)
    uv, trust = _detected(scene, keys[1], exact)
    return points, cameras, _wrists(keys[2], exact, trust[..., 0] > 0.1), Detections(uv, trust)


def _video(scene: VideoScene, hand: HandModel, key: Array, level: Array) -> tuple:
    """A sequence with its pictures, and what a coarse detector says of them."""
    keys = jax.random.split(key, 4)
    points, meshes, cameras, exact = _sequence(scene, hand, keys[0], level)
    frames = _pictures(scene, hand, keys[1], meshes, cameras)
    coarse = _coarse(scene, keys[2], exact)
    return points, cameras, _wrists(keys[3], exact, coarse[1][..., 0] > 0.3), frames, coarse


def _sequence(scene: Scene, hand: HandModel, key: Array, level: Array) -> tuple[Array, Array, Camera, Array]:
    """Keypoints (T, 2, 21, 3), vertices (T, 2, V, 3), cameras, and where keypoints are seen (T, V, 2, 21, 2)."""
    keys = jax.random.split(key, 3)
    times = jnp.arange(scene.frames) / scene.fps * jnp.asarray(scene.paces)[level]
    right, left = (_hand(hand, k, times) for k in keys[:2])
    points, meshes = (jnp.stack([a, mirror_points(b)], 1) for a, b in zip(right, left, strict=True))
    cameras = _around(scene, keys[2])
    return points, meshes, cameras, project(jax.tree.map(lambda x: x[None, :, None], cameras), points[:, None])


def _hand(hand: HandModel, key: Array, times: Array) -> tuple[Array, Array]:
    """A right hand that works above the table, its back up, more or less: keypoints and vertices, (T, ., 3)."""
    keys = jax.random.split(key, 5)
    betas = jnp.clip(jax.random.normal(keys[0], (hand.num_betas,)), -2, 2)
    pose = pose_from_angles(hand, finger_motion(keys[1], hand, times))
    zeros = jnp.zeros((len(times), 3))
    mesh = forward(hand, HandParams(zeros, pose, jnp.broadcast_to(betas, (len(times), hand.num_betas)), zeros))
    R = so3_exp(0.4 * jax.random.normal(keys[2], (3,)))
    place = jnp.array([0.1, 0.0, -0.1]) + 0.03 * jax.random.normal(keys[3], (3,))
    T = wander(keys[4], R, place, times)
    wrist = mesh.keypoints[:, :1]
    moved = lambda x: jnp.einsum("tij,tkj->tki", T[:, :3, :3], x - wrist, precision="highest") + T[:, None, :3, 3]  # noqa: E731
    return moved(mesh.keypoints), moved(mesh.vertices)


def _wrists(key: Array, exact: Array, trusted: Array) -> tuple[Array, Array]:
    """Of the body model: rough, where it sees a hand."""
    size = jnp.max(jnp.ptp(exact, -2), -1)[..., None]
    return exact[..., 0, :] + 0.03 * size * jax.random.normal(key, exact[..., 0, :].shape), trusted.astype(jnp.float32)


def _around(scene: Scene, key: Array) -> Camera:
    """Cameras on a ring above the table, which all look at its middle; the world's y points down."""
    height, distance = jax.random.uniform(key, (2, scene.views), minval=0.8, maxval=1.2)
    angle = 2 * jnp.pi * jnp.arange(scene.views) / scene.views
    eye = scene.distance * distance[:, None] * jnp.stack([jnp.cos(angle), -0.6 * height, jnp.sin(angle)], -1)
    T = jax.vmap(look_at, (0, None))(eye, jnp.array([0.0, 0, -0.1]))
    height, width = scene.size
    centre = jnp.broadcast_to(jnp.array([(width - 1) / 2, (height - 1) / 2]), (scene.views, 2))
    return make_camera(focal=jnp.full((scene.views, 2), scene.focal), principal=centre, T_cam_world=T)


def _detected(scene: Scene, key: Array, exact: Array) -> tuple[Array, Array]:
    """Where a model says that points (T, V, 2, 21, 2) are, and how sure it is of each."""
    keys = jax.random.split(key, 10)
    seen, shape = exact.shape[:-1], exact.shape[:3]
    hidden = _bursts(scene, keys[0], shape)[..., None]
    sigma = jax.random.uniform(keys[1], (1, scene.views, 1, 1, 1), minval=scene.noise[0], maxval=scene.noise[1])
    share = jax.random.uniform(keys[2], minval=scene.outliers[0], maxval=scene.outliers[1])
    wrong = jax.random.uniform(keys[3], seen) < share
    uv = exact + sigma * jax.random.normal(keys[4], exact.shape)
    uv = uv + jnp.where(wrong[..., None], scene.away * jax.random.normal(keys[5], exact.shape), 0)
    # of a hand that it does not see, a network makes up a whole one
    made_up = jax.random.normal(keys[8], (*shape, 1, 2)) + 0.2 * jax.random.normal(keys[9], exact.shape)
    uv = uv + jnp.where(hidden[..., None], scene.away * made_up, 0)
    unsure = hidden | (wrong & (jax.random.uniform(keys[6], seen) > scene.trusted))
    low, high = jax.random.uniform(keys[7], (2, *seen))
    return uv, jnp.where(unsure, 0.3 * low, 0.5 + 0.5 * high)


def _bursts(scene: Scene, key: Array, shape: tuple[int, int, int]) -> Array:
    """Which views (T, V, 2) do not see a hand: each goes and comes back; when somebody leans over the table, all views
    of one side do at once; when something covers the hand, nearly all.
    """
    share, seconds = scene.hidden
    keys = jax.random.split(key, 5)
    leave = 1 / (seconds * scene.fps)

    def chain(key: Array, share: float, shape: tuple[int, ...]) -> Array:
        enter = leave * share / (1 - share)
        begin, draws = jax.random.split(key)
        state = jax.random.uniform(begin, shape[1:]) < share

        def step(state: Array, draw: Array) -> tuple[Array, Array]:
            state = jnp.where(state, draw > leave, draw < enter)
            return state, state

        return jax.lax.scan(step, state, jax.random.uniform(draws, shape))[1]

    alone, leaning = chain(keys[0], share, shape), chain(keys[1], share, (shape[0], 1, 1))
    covered = chain(keys[3], scene.covered, (shape[0], 1, 2)) & (jax.random.uniform(keys[4], (1, *shape[1:])) < 0.9)
    side = jnp.arange(shape[1]) / shape[1] - jax.random.uniform(keys[2])
    near = jnp.abs((side + 0.5) % 1 - 0.5) < 0.3
    return alone | (leaning & near[None, :, None]) | covered


def _pictures(scene: VideoScene, hand: HandModel, key: Array, meshes: Array, cameras: Camera) -> Array:
    """Frames (T, V, H, W, 3) uint8: two hands over a ground that does not move, lit from somewhere, with noise."""
    keys = jax.random.split(key, 4)
    height, width = scene.size
    skin = jnp.array([0.55, 0.33, 0.24]) * jax.random.uniform(keys[0], minval=0.5, maxval=1.2)
    cloth = 0.3 * jax.random.uniform(keys[3], (3,))
    folds = jax.random.uniform(keys[1], (scene.views, height // 24, width // 24, 1), minval=0.4, maxval=1.6)
    ground = cloth * jax.image.resize(folds, (scene.views, height, width, 1), "cubic")

    def one(place: tuple[Array, Array]) -> Array:
        t, v = place
        camera = jax.tree.map(lambda x: x[v], cameras)
        parts = [make_mesh(meshes[t, m], hand.faces if m == 0 else hand.faces[:, ::-1], skin) for m in range(2)]
        picture = render(make_scene(parts), camera, scene.size)
        light = picture.rgb + (1 - picture.alpha[..., None]) * ground[v]
        grain = 0.01 * jax.random.normal(jax.random.fold_in(keys[2], t * scene.views + v), light.shape)
        return (255 * jnp.clip(jnp.clip(light, 1e-4, 1) ** (1 / 2.2) + grain, 0, 1)).astype(jnp.uint8)

    t, v = jnp.meshgrid(jnp.arange(meshes.shape[0]), jnp.arange(scene.views), indexing="ij")
    frames = jax.lax.map(one, (t.reshape(-1), v.reshape(-1)))
    return frames.reshape(meshes.shape[0], scene.views, height, width, 3)


def _coarse(scene: VideoScene, key: Array, exact: Array) -> tuple[Array, Array]:
    """Hands of a whole-body model: right in most frames; in others gone, or somewhere else, and mostly less sure."""
    keys = jax.random.split(key, 7)
    seen = exact.shape[:3]
    wrong = _bursts(replace(scene, hidden=scene.fails, covered=0.0), keys[0], seen)
    gone = wrong & (jax.random.uniform(keys[1], seen) < 0.3)
    size = jnp.max(jnp.ptp(exact, -2), -1)[..., None, None]
    jump = jnp.where(wrong[..., None, None], 0.7 * jax.random.normal(keys[2], (*seen, 1, 2)), 0)
    uv = exact + size * (jump + 0.04 * jax.random.normal(keys[3], exact.shape))
    good, poor = 0.5 + 0.4 * jax.random.uniform(keys[4], seen), 0.1 + 0.35 * jax.random.uniform(keys[5], seen)
    sure = jnp.where(gone, 0, jnp.where(wrong, poor, good))
    return uv, sure[..., None] * jnp.clip(1 + 0.1 * jax.random.normal(keys[6], exact.shape[:-1]), 0.5, 1.5)


def trained_detector(scene: VideoScene, hand: HandModel, folder: Path) -> dict:
    """The hand keypoint model, trained on renders of other sequences; once, then read."""

    def init(key: Array) -> dict:
        return HandKeypoints().init(key, jnp.zeros((1, CROP, CROP, 3)))["params"]

    def batches():
        crops, points = (np.asarray(x) for x in _training_pictures(scene, hand))
        rng = np.random.default_rng(0)
        while True:
            rows = rng.integers(0, len(crops), scene.batch)
            yield {"crops": crops[rows], "points": points[rows]}

    def loss(variables, batch, *, key):
        logits = HandKeypoints().apply({"params": variables["params"]}, batch["crops"].astype(jnp.float32) / 255)
        return simcc_loss(logits, batch["points"], jnp.ones(batch["points"].shape[:-1])), LossAux()

    stage = Stage("keypoints", scene.steps, (Update("fit", loss, adamw(1e-3, scene.steps)),), ema=0.999)
    card = ModelCard("surgery_mvhand", {}, "renders of hands above a table", {}, "Apache-2.0", notes="stand-in")
    return trained_once(folder, f"detector-{scene.pictures}-{scene.steps}", init, stage, batches, card)


def _training_pictures(scene: VideoScene, hand: HandModel) -> tuple[Array, Array]:
    """Crops (P, 64, 64, 3) uint8 of right hands, left ones mirrored, and their points (P, 21, 2) from 0 to 1."""
    few = replace(scene, frames=5, fps=2.0, paces=(1.0, 1.0, 1.0))
    each = few.frames * few.views * 2

    @jax.jit
    def some(key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, 4)
        _, meshes, cameras, exact = _sequence(few, hand, keys[0], jnp.array(0))
        frames = _pictures(few, hand, keys[1], meshes, cameras)
        low, high = jnp.min(exact, -2), jnp.max(exact, -2)
        side = jnp.max(high - low, -1) * jax.random.uniform(keys[2], low.shape[:-1], minval=1.2, maxval=1.9)
        centre = (low + high) / 2 + 0.1 * side[..., None] * jax.random.normal(keys[3], low.shape)
        crops = crop(frames, Region(centre, side, jnp.zeros_like(side)), CROP)  # (t, v, 2, 64, 64, 3)
        points = (exact - centre[..., None, :]) / side[..., None, None] + 0.5
        left = jnp.arange(2)[:, None, None, None] == 1
        crops = jnp.where(left, crops[..., ::-1, :], crops)
        points = jnp.where(left[..., 0] & (jnp.arange(2) == 0), 1 - points, points)
        return (255 * crops).astype(jnp.uint8).reshape(each, CROP, CROP, 3), points.reshape(each, 21, 2)

    keys = jax.random.split(jax.random.key(2**20), -(-scene.pictures // each))
    return tuple(jnp.concatenate(x) for x in zip(*(some(key) for key in keys), strict=True))


def by_level(metric, level: str):
    """A metric of the sequences of one level."""
    return lambda outputs, truth, hand: jnp.where(
        truth.level == LEVELS.index(level), metric(outputs, truth, hand), jnp.nan
    )


def mpjpe(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return jnp.mean(metrics.mpjpe(outputs.keypoints, truth.keypoints), (1, 2))


def _pixels(outputs: Outputs, truth: Truth) -> tuple[Array, Array]:
    """Where found and true points are seen, (N, T, V, 2, 21, 2)."""
    cameras = jax.tree.map(lambda x: x[:, None, :, None], truth.cameras)
    return project(cameras, outputs.keypoints[:, :, None]), project(cameras, truth.keypoints[:, :, None])


def reprojection(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """MRE: mean distance in the pictures."""
    return jnp.mean(metrics.mpjpe(*_pixels(outputs, truth)), (1, 2, 3))


def mje(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """2D MJE of what was read in the pictures; a hand that was not found does not count."""
    read = outputs.detections
    return jnp.nanmean(metrics.mpjpe(read.keypoints2d, _pixels(outputs, truth)[1], read.confidence > 0), (1, 2, 3))


def ap(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """COCO's AP of what was read in the pictures: each picture's two hands, scored by the mean of their confidences; a
    hand's area is that of the box around its keypoints.
    """
    read, true = outputs.detections, _pixels(outputs, truth)[1]
    score = jnp.mean(read.confidence, -1)
    area = jnp.prod(jnp.ptp(true, -2), -1)
    flat = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # noqa: E731
    each = metrics.oks_ap(flat(read.keypoints2d), flat(score), flat(true), flat(area), flat(score > 0))
    return jnp.mean(each, -1)


def mpck2d(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    found, true = _pixels(outputs, truth)
    return jnp.mean(metrics.pck(found, true, thresholds=np.array(PIXELS)), (1, 2, 3, 4))


def mpck3d(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    return jnp.mean(metrics.pck(outputs.keypoints, truth.keypoints, thresholds=np.array(METRES)), (1, 2, 3))


def canonical(inputs: Inputs, truth: Truth, hand: HandModel) -> Outputs:
    """The trivial answer: the first points, which never move."""
    first = system.first_points(inputs.cameras, inputs.wrist2d, inputs.wrist_confidence, hand)
    points = jnp.broadcast_to(first[:, None], truth.keypoints.shape)
    cameras = jax.tree.map(lambda x: x[:, None, :, None], truth.cameras)
    uv = project(cameras, points[:, :, None])
    return Outputs(points, Detections(uv, jnp.ones(uv.shape[:-1])))


LADDER = {
    "reprojection": {"smooth": 0.0, "shape": 0.0},
    "smooth": {"shape": 0.0},
    "full": {},
    "biomechanics": {"biomechanics": 10.0},
}
CROPS = {"tracked": {}, "detected": {"crops": "detected"}}
SIMULATED, RENDERED = ("cpu", "gpu", "paper"), ("video",)


def claim(name, statement, metric, ours, ablation, expected, presets=SIMULATED, primary=False) -> Claim:
    sides = {side: (LADDER | CROPS)[side] for side in (ours, ablation)}
    return Claim(name, statement, metric, sides, (ours, ablation), expected=expected, primary=primary, presets=presets)


experiment = SolveExperiment(
    system=system,
    presets={
        "cpu": Problems(system.Config.tiny(), number=12, scene=Scene()),
        # pixels weigh as many millimetres as those of the ladder's cameras do
        "video": Problems(system.Config.tiny(reprojection=(1900 / 900) ** 2), number=6, scene=VideoScene()),
        "gpu": Problems(system.Config.small(), number=60, scene=Scene(frames=300)),
        "paper": Problems(system.Config.paper(), number=60, scene=Scene(frames=300)),
    },
    problems=problems,
    metrics={
        "mpjpe": mpjpe,
        **{f"mpjpe_{level}": by_level(mpjpe, level) for level in LEVELS},
        "mre": reprojection,
        "mje": mje,
        "ap": ap,
        "mpck2d": mpck2d,
        "mpck3d": mpck3d,
    },
    units={
        **dict.fromkeys(("mpjpe", *(f"mpjpe_{level}" for level in LEVELS)), ("mm", 1000.0)),
        "mre": ("px", 1.0),
        "mje": ("px", 1.0),
        "ap": ("%", 100.0),
        "mpck2d": ("%", 100.0),
        "mpck3d": ("%", 100.0),
    },
    baseline=canonical,
    claims=[
        claim(
            "smooth",
            "a frame is to be held by the one before",
            "mpjpe",
            "smooth",
            "reprojection",
            (0.8, 0.95),
            primary=True,
        ),
        claim(
            "shape", "fast hands keep their shape better than their place", "mpjpe_fast", "full", "smooth", (0.05, 0.1)
        ),
        claim(
            "tracked",
            "boxes are to be tracked from the best frames",
            "mje",
            "tracked",
            "detected",
            (0.25, 0.4),
            RENDERED,
        ),
        claim("tracked_3d", "so that hands in 3D are right", "mpjpe", "tracked", "detected", (0.5, 0.8), RENDERED),
        claim("limits_harm", "biomechanical limits do harm", "mpjpe", "full", "biomechanics", (0.5, 0.8)),
    ],
    stand_ins=(
        "ladder: simulated detections with the confidences and failures of networks",
        "tracking: a small SimCC network trained on renders, for RTMPose's hand model; simulated coarse hands, for "
        "YOLOv11 and the whole-body model; a template tracker, for Efficient Track Anything",
    ),
)

if __name__ == "__main__":
    main(experiment)
