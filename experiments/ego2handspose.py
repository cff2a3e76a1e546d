"""Ego2HandsPose: canonical hands beside pixels, and frames that begin where the one before ended.

Claims  the incremental analysis: closed form, a fit to pixels, the fit in stages that also knows a canonical hand, and
        tracking with ten steps a frame; and the regulariser of unnatural turns where keypoints are missing; Lin and
        Martinez, WACV 2024 (arXiv 2206.04927)
Shows   error in the camera's space of two hands before one's eyes, whose key bone is taken for 10 cm; keypoints with
        noise of 3 to 5 pixels of 400, canonical hands with noise and a wrong turn (cpu), or both from networks trained
        on renders (pictures)
Cost    cpu: about 5 minutes on two cores; gpu: not run yet
Command python -m experiments.ego2handspose claims --preset cpu --seeds 5 --claim all
        python -m experiments.ego2handspose claims --preset pictures --claim seen
Expect  a canonical hand 40 % lower error than pixels alone; tracking 30 % less jitter than frame by frame
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from jhand import metrics
from jhand.claims import Claim
from jhand.data.compositing import Composing, compose_hands
from jhand.data.made import Rows
from jhand.data.world import load_assets
from jhand.data.world.assets import Assets
from jhand.data.world.cameras import look_at
from jhand.data.world.scripts import before_the_eyes
from jhand.geometry import geodesic_distance, make_camera, procrustes, project, rigid, so3_exp, so3_log, transform
from jhand.hand import (
    HandModel,
    HandParams,
    forward,
    joint_angles,
    load_hand,
    mirror_points,
    sample_poses,
    with_T_world_wrist,
)
from jhand.nn import gaussian_maps
from jhand.render import Light, make_mesh, make_scene, render
from jhand.solving import Problems, SolveExperiment, main, trained_once
from jhand.systems import ego2handspose as system
from jhand.systems.ego2handspose import (
    CROP,
    KEY_BONE,
    LEFT,
    MAP,
    MIDDLE,
    WRIST,
    Inputs,
    Outputs,
    Pictures,
    Readings,
)
from jhand.track.regions import boxes_around
from jhand.train import LossAux, ModelCard, Stage, Update, adamw


@dataclass(frozen=True)
class Scene:
    """Two hands before one's eyes, and what is wrong with what networks say of them."""

    frames: int = 40
    fps: float = 30.0
    noise: tuple[float, float] = (3.0, 5.0)
    """Standard deviation of keypoints, pixels of 400."""
    canonical: float = 0.06
    """Of canonical points, in key bones."""
    turn: float = 0.1
    """Of the canonical hand's rotation in each frame, radians."""
    missing: float = 0.0
    """Share of keypoints that are not seen."""
    behind: float = 0.1
    """How far behind the eyes the camera is, metres."""
    turned: float = 1.0
    """Of each hand, otherwise its back towards the eyes: standard deviation, radians."""
    shape: float = 0.0
    """Share of people's shapes. 0 as in the paper, whose truth is fitted with the same fixed shape."""


@dataclass(frozen=True)
class PictureScene(Scene):
    """A scene whose pictures are there, and what the two networks learn from."""

    frames: int = 20
    size: int = 320
    """Pixels of a picture, square, of 60 degrees."""
    cut_outs: int = 4000
    """Single hands that training pictures are composed of."""
    composed: int = 12_000
    """Training pictures."""
    steps: int = 6000
    batch: int = 16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truth:
    """Hands, right and left, of a size at which their key bone is 10 cm."""

    keypoints: Float[Array, "n t 2 21 3"]
    """Metres, camera frame."""
    angles: Float[Array, "n t 2 15 3"]
    """Flexion, abduction, twist."""


def problems(seed: int, preset: Problems, folder: Path) -> tuple[Inputs, Truth]:
    """Two hands before one's eyes."""
    scene = preset.scene
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), seed), preset.number)
    if isinstance(scene, PictureScene):
        networks = trained_networks(scene, folder)
        spread = lambda x: jnp.broadcast_to(x, (preset.number, *x.shape))  # noqa: E731
        make = jax.jit(partial(_filmed, scene, load_assets()))
        points, angles, frames, boxes = (jnp.stack(x) for x in zip(*(make(key) for key in keys), strict=True))
        camera, networks = jax.tree.map(spread, (picture_camera(scene.size), networks))
        return Inputs(camera, Pictures(frames, boxes, networks)), Truth(points, angles)
    points, angles, *read = jax.jit(jax.vmap(partial(_simulated, scene, load_assets())))(keys)
    camera = jax.tree.map(lambda x: jnp.broadcast_to(x, (preset.number, *x.shape)), paper_camera())
    return Inputs(camera, Readings(*read)), Truth(points, angles)


def paper_camera():
    """Of 400 pixels and 60 degrees."""
    return make_camera(focal=np.full(2, system.FOCAL), principal=np.full(2, system.CENTRE))


def picture_camera(size: int):
    """The same, of a picture of another size."""
    return make_camera(focal=np.full(2, system.FOCAL * size / 400), principal=np.full(2, (size - 1) / 2))


def hands_of(scene: Scene, assets: Assets, key: Array) -> tuple[Array, Array, Array]:
    """Keypoints (T, 2, 21, 3) and vertices (T, 2, V, 3) of hands, metres, and angles (T, 2, 15, 3), seen by a camera at
    the eyes that looks at both, as head-mounted ones are tilted to.
    """
    motion, turns = jax.random.split(key)
    actors = before_the_eyes(motion, assets, jnp.arange(scene.frames) / scene.fps)
    meshes, angles = [], []
    for m, (hand, turn) in enumerate(zip((assets.right, assets.left), jax.random.split(turns), strict=True)):
        params = jax.tree.map(lambda x, m=m: x[m], actors.params)
        params = replace(params, betas=scene.shape * params.betas)
        other_way = rigid(so3_exp(scene.turned * jax.random.normal(turn, (3,))), jnp.zeros(3))
        T = jnp.matmul(actors.T_world_wrist[m], other_way, precision="highest")
        meshes.append(forward(hand, with_T_world_wrist(hand, params, T)))
        angles.append(joint_angles(hand, params.hand_pose))
    points, vertices = (jnp.stack([getattr(mesh, name) for mesh in meshes], 1) for name in ("keypoints", "vertices"))
    T = look_at(jnp.array([0.0, 0.0, -scene.behind]), jnp.mean(points, (0, 1, 2)))
    seen = lambda x: transform(T, x.reshape(-1, 3)).reshape(x.shape)  # noqa: E731
    return seen(points), seen(vertices), jnp.stack(angles, 1)


def at_key_bone(points: Array) -> Array:
    """As large, and as far away, as the key bone wants them: the pixels are the same."""
    bone = jnp.linalg.norm(points[..., MIDDLE, :] - points[..., WRIST, :], axis=-1)[..., None, None]
    return KEY_BONE / 100 * points / bone


def _simulated(scene: Scene, assets: Assets, key: Array) -> tuple[Array, ...]:
    """Hands, and what networks would say: truth, pixels, weights, canonical hands."""
    keys = jax.random.split(key, 6)
    points, _, angles = hands_of(scene, assets, keys[0])
    points = at_key_bone(points)
    sigma = jax.random.uniform(keys[1], minval=scene.noise[0], maxval=scene.noise[1])
    pixels = project(paper_camera(), points)
    pixels = pixels + sigma * jax.random.normal(keys[2], pixels.shape)
    seen = jax.random.uniform(keys[3], points.shape[:-1]) >= scene.missing
    R = so3_exp(scene.turn * jax.random.normal(keys[4], (*points.shape[:2], 3)))
    canonical = jnp.einsum("tmij,tmkj->tmki", R, system.normalised_canonical(points), precision="highest")
    canonical = canonical + scene.canonical * jax.random.normal(keys[5], canonical.shape)
    return points, angles, pixels, seen.astype(jnp.float32), canonical


def _filmed(scene: PictureScene, assets: Assets, key: Array) -> tuple[Array, ...]:
    """Hands, and pictures of them with boxes around them: truth, frames, boxes."""
    keys = jax.random.split(key, 3)
    points, vertices, angles = hands_of(scene, assets, keys[0])
    camera = picture_camera(scene.size)
    skin = jnp.array([0.55, 0.33, 0.24]) * jax.random.uniform(keys[1], minval=0.5, maxval=1.2)
    ground = _ground(keys[2], scene.size)

    def frame(meshes: Array) -> Array:
        parts = [make_mesh(x, hand.faces, skin) for x, hand in zip(meshes, (assets.right, assets.left), strict=True)]
        picture = render(make_scene(parts), camera, (scene.size, scene.size))
        light = picture.rgb + (1 - picture.alpha[..., None]) * ground
        return (255 * jnp.clip(light, 1e-4, 1) ** (1 / 2.2)).astype(jnp.uint8)

    return at_key_bone(points), angles, jax.lax.map(frame, vertices), _around(project(camera, points))


def _around(pixels: Array | np.ndarray) -> Array:
    """Squares around all keypoints: what segmentation would say."""
    return boxes_around(pixels, np.ones(pixels.shape[:-1]))


def _ground(key: Array, size: int) -> Array:
    """Clutter without hands, linear light."""
    keys = jax.random.split(key)
    coarse = jax.random.uniform(keys[0], (6, 6, 3)) ** 2
    fine = jax.random.uniform(keys[1], (size // 8, size // 8, 1), minval=0.5, maxval=1.5)
    return jax.image.resize(coarse, (size, size, 3), "cubic") * jax.image.resize(fine, (size, size, 1), "linear")


CUT_OUT = 96
"""Pixels of single hands."""


@jax.jit
def _cut_out(hand: HandModel, key: Array) -> tuple[Array, Array, Array]:
    """A right hand alone, turned as those of a scene are: RGBA (96, 96, 4), pixels (21, 2), canonical (21, 3)."""
    keys = jax.random.split(key, 5)
    spread = jnp.array([1.0, 1.0, 1.3]) * jax.random.normal(keys[1], (3,))
    R = jnp.matmul(so3_exp(spread), so3_exp(system.first_rotation(hand)), precision="highest")
    params = HandParams(so3_log(R), sample_poses(keys[0], hand), jnp.zeros(hand.num_betas), jnp.zeros(3))
    mesh = forward(hand, params)
    middle = (jnp.max(mesh.keypoints, 0) + jnp.min(mesh.keypoints, 0)) / 2
    move = jnp.array([0.0, 0.0, 0.5]) - middle
    from_above = jax.random.normal(keys[2], (3,)) + jnp.array([0.0, -1.0, -1.0])
    light = Light(from_above / jnp.linalg.norm(from_above), jnp.full(3, 0.8))
    skin = jnp.array([0.55, 0.33, 0.24]) * jax.random.uniform(keys[3], minval=0.5, maxval=1.2)
    camera = make_camera(focal=np.full(2, 0.5 * CUT_OUT / 0.26), principal=np.full(2, (CUT_OUT - 1) / 2))
    scene = make_scene([make_mesh(mesh.vertices + move, hand.faces, skin)], [light])
    picture = render(scene, camera, (CUT_OUT, CUT_OUT))
    colour = jnp.clip(picture.rgb / jnp.maximum(picture.alpha[..., None], 1e-3), 1e-4, 1) ** (1 / 2.2)
    rgba = jnp.concatenate([colour, picture.alpha[..., None]], -1)
    points = mesh.keypoints + move
    return (255 * jnp.clip(rgba, 0, 1)).astype(jnp.uint8), project(camera, points), system.normalised_canonical(points)


def _training_pictures(scene: PictureScene) -> dict[str, np.ndarray]:
    """Crops (P, 64, 64, 3) of composed hands as right ones, points (P, 21, 2) from 0 to 1, canonical hands."""
    hand, rng = load_hand(), np.random.default_rng(2**20)
    keys = jax.random.split(jax.random.key(2**20), scene.cut_outs)
    cut_outs = [jax.device_get(_cut_out(hand, key)) for key in keys]
    grounds = jax.vmap(partial(_ground, size=scene.size))(jax.random.split(jax.random.key(2**21), 64))
    grounds = np.asarray(255 * jnp.clip(grounds, 1e-4, 1) ** (1 / 2.2), np.uint8)
    settings = Composing(size=(128, 192), energy=8.0, border=3, kernels=(3, 5))
    found: dict[str, list[np.ndarray]] = {"crops": [], "points": [], "canonical": []}
    for _ in range(scene.composed):
        each = [cut_outs[k] for k in rng.integers(0, len(cut_outs), 2)]  # left, right
        ground = grounds[rng.integers(len(grounds))]
        picture = compose_hands(rng, each[1][0], each[0][0], ground, settings)
        for m in np.flatnonzero(picture.present):
            T = picture.to_picture[m]
            pixels = each[m][1] @ T[:2, :2].T + T[:2, 2]
            image, turn = picture.image, T[:2, :2] / np.sqrt(abs(np.linalg.det(T[:2, :2])))
            if m == 0:  # the left hand is read in the mirror
                image, pixels = image[:, ::-1], pixels * [-1, 1] + [image.shape[1] - 1, 0]
                turn = np.diag([-1.0, 1.0]) @ turn
            left, top, side, _ = np.asarray(_around(pixels))
            centre = np.array([left, top]) + side / 2 + 0.06 * side * rng.normal(size=2)
            side = side * rng.uniform(0.85, 1.2)
            canonical = each[m][2].copy()
            canonical[:, :2] = canonical[:, :2] @ turn.T
            found["crops"].append(_cropped(image, centre, side))
            found["points"].append((pixels - centre) / side + 0.5)
            found["canonical"].append(canonical)
    return {name: np.stack(x).astype(np.uint8 if name == "crops" else np.float32) for name, x in found.items()}


def _cropped(image: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    place = np.diag([side / CROP, side / CROP, 1.0])
    place[:2, 2] = centre + 0.5 - side / 2  # PIL's pixels have their centres at halves
    return np.asarray(
        Image.fromarray(image).transform(
            (CROP, CROP), Image.Transform.AFFINE, tuple(place[:2].ravel()), Image.Resampling.BILINEAR
        )
    )


def trained_networks(scene: PictureScene, folder: Path) -> dict:
    """Both networks, trained on composed pictures of single hands; once, then read."""

    def init(key: Array) -> dict:
        keys = jax.random.split(key)
        maps = system.Keypoints2d().init(keys[0], jnp.zeros((1, CROP, CROP, 3)))["params"]
        lifter = system.Lifter().init(keys[1], jnp.zeros((1, 21, MAP, MAP)))["params"]
        return {"keypoints2d": maps, "lifter": lifter}

    def loss(variables, batch, *, key):
        wanted = gaussian_maps(batch["points"] * MAP - 0.5, (MAP, MAP), 1.0) / (2 * jnp.pi)
        networks = variables["params"]
        crops = batch["crops"].astype(jnp.float32) / 255
        logits = system.Keypoints2d().apply({"params": networks["keypoints2d"]}, crops)
        maps = jax.lax.stop_gradient(system.heat_maps(logits))
        lifted = system.Lifter().apply({"params": networks["lifter"]}, maps)
        said = jax.nn.log_softmax(logits.reshape(*logits.shape[:-2], -1))
        terms = {
            "maps": -jnp.mean(jnp.sum(wanted.reshape(said.shape) * said, -1)),
            "canonical": jnp.mean(jnp.square(system.normalised_canonical(batch["canonical"]) - lifted)),
        }
        return terms["maps"] + terms["canonical"], LossAux(terms=terms)

    stage = Stage("both", scene.steps, (Update("fit", loss, adamw(2e-3, scene.steps)),), ema=0.999)
    card = ModelCard("ego2handspose", {}, "composed renders of single hands", {}, "Apache-2.0", notes="stand-in")
    known_by = f"networks-{scene.cut_outs}-{scene.composed}-{scene.steps}-{scene.batch}"
    rows = lambda: Rows(_training_pictures(scene), scene.batch, 0)  # noqa: E731
    return trained_once(folder, known_by, init, stage, rows, card)


def error(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """In the camera's space."""
    return jnp.mean(metrics.mpjpe(outputs.keypoints, truth.keypoints), (1, 2))


def canonical_error(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Of canonical hands, in key bones."""
    found, true = (system.normalised_canonical(x) for x in (outputs.keypoints, truth.keypoints))
    return jnp.mean(metrics.mpjpe(found, true), (1, 2))


def pixel_error(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Of projected keypoints, pixels of 400."""
    return jnp.mean(metrics.mpjpe(*(project(paper_camera(), x) for x in (outputs.keypoints, truth.keypoints))), (1, 2))


def jitter(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Mean length of second differences, a frame."""
    return jnp.mean(metrics.acceleration(jnp.moveaxis(outputs.keypoints, 1, 2), 1.0), 1)


def flipped(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Share of hands whose palm is turned by more than a radian."""
    palm = np.array([WRIST, 5, MIDDLE, system.LITTLE])
    found, true = (x[..., palm, :] - x[..., WRIST : WRIST + 1, :] for x in (outputs.keypoints, truth.keypoints))
    R, *_ = procrustes(found, true)
    return jnp.mean(geodesic_distance(R, jnp.eye(3)) > 1.0, (1, 2))


def twist(outputs: Outputs, truth: Truth, hand: HandModel) -> Array:
    """Error of the joints' twists; a hand without angles has a flat one's."""
    found = jnp.zeros_like(truth.angles) if outputs.angles is None else outputs.angles
    return jnp.mean(jnp.abs(found[..., 2] - truth.angles[..., 2]), (1, 2, 3))


def average_hand(inputs: Inputs, truth: Truth, hand: HandModel) -> Outputs:
    """The trivial answer: a flat hand half a metre away, where the wrist is seen, as one sees one's own."""
    readings, ready = system.prepared(inputs)
    rest = system.points_of(hand, system.begin_state(hand))
    depth = rest[WRIST, 2]
    at = (ready.keypoints2d[..., WRIST, :] - system.CENTRE) / system.FOCAL * depth
    points = rest + jnp.pad(at, [(0, 0)] * 3 + [(0, 1)])[..., None, :]
    return Outputs(jnp.where(LEFT[:, None, None], mirror_points(points), points) / 100, readings, None, None)


METHODS = {
    "projection": {"method": "projection"},
    "pixels": {"method": "pixels"},
    "staged": {"method": "staged"},
    "tracked": {"method": "tracked"},
    "free": {"method": "staged", "regulariser": 0.0},
}
WHOLE, GAPS, SEEN = ("cpu", "gpu", "paper"), ("gaps",), ("pictures",)


def claim(name, statement, metric, sides, expected, presets=WHOLE, **more) -> Claim:
    variants = {side: METHODS[side] for side in sides}
    return Claim(name, statement, metric, variants, sides, expected=expected, presets=presets, **more)


experiment = SolveExperiment(
    system=system,
    presets={
        "cpu": Problems(system.Config.tiny(), number=12, scene=Scene()),
        "gaps": Problems(system.Config.tiny(), number=12, scene=Scene(missing=0.3)),
        "pictures": Problems(system.Config.tiny(), number=6, scene=PictureScene()),
        "gpu": Problems(system.Config.small(), number=512, scene=Scene(frames=120)),
        "paper": Problems(system.Config.paper(), number=512, scene=Scene(frames=120)),
    },
    problems=problems,
    metrics={
        "error": error,
        "canonical": canonical_error,
        "pixels": pixel_error,
        "jitter": jitter,
        "flipped": flipped,
        "twist": twist,
    },
    units={
        "error": ("cm", 100.0),
        "canonical": ("bones", 1.0),
        "pixels": ("px", 1.0),
        "jitter": ("cm", 100.0),
        "flipped": ("%", 100.0),
        "twist": ("degrees", 180 / np.pi),
    },
    baseline=average_hand,
    claims=[
        claim(
            "canonical",
            "a canonical hand tells what pixels do not",
            "error",
            ("staged", "pixels"),
            (0.4, 0.9),
            primary=True,
        ),
        claim("fitted", "a fit is better than closed form", "error", ("staged", "projection"), (0.1, 0.6)),
        claim(
            "steady",
            "ten steps from the frame before jitter less",
            "jitter",
            ("tracked", "staged"),
            (0.3, 0.9),
            beats_trivial=False,
        ),
        claim(
            "seen",
            "a canonical hand read in pictures tells what pixels do not",
            "error",
            ("staged", "pixels"),
            (0.4, 0.9),
            SEEN,
        ),
        claim("followed", "and are no less right", "error", ("tracked", "staged"), (0.0, 0.5)),
        claim(
            "natural",
            "unnatural turns are to be held where keypoints are missing",
            "twist",
            ("staged", "free"),
            (0.1, 0.9),
            GAPS,
            beats_trivial=False,  # a flat hand has no twist, which is nearly right
        ),
    ],
    stand_ins=(
        "cpu: simulated keypoints and canonical hands with noise",
        "pictures: an HRNet of 16 channels for HRNet-W32 and a small residual network for lifting, trained on renders; "
        " true boxes for the segmentation of hands",
    ),
)

if __name__ == "__main__":
    main(experiment)
