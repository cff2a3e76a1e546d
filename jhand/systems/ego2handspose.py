"""Ego2HandsPose: two hands in the camera's space, fitted to keypoints and to a network's canonical hand (WACV 2024).

A network reads where keypoints are; another one turns its heat maps into a hand in 3D without place and size: a
canonical one, since it learns from synthetic hands alone. Closed form brings that hand to a depth; the fit brings a
hand model there, stage by stage: rotation, then pose, to the canonical hand; then the place, to the joints that move
least; then all, to the pixels. In a video one goes on where the frame before ended, with the optimiser as it was left,
and ten steps do.

All is in the paper's units. **The key bone, wrist to middle knuckle, is 10 cm long by decree**: one picture does not
tell a large hand far away from a small one near by, so depths are those of a hand of that size. Points of a picture are
those of a square camera of 400 pixels and 60 degrees, whatever took it. Left hands are fitted in the mirror.

The paper's limits and weights are of MANO's axis-angle, along whose axes joints nearly bend; here they are of flexion,
abduction and twist about each joint's own axes, so that the little finger needs no repair after each step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt8

from jhand.geometry import Camera, nearest_rotation, normalised_points, so3_exp, so3_log
from jhand.hand import (
    JOINT_LIMITS,
    HandModel,
    HandParams,
    bone_lengths,
    keypoints,
    mirror_params,
    mirror_points,
    pose_from_angles,
    pose_hand_by_matrices,
    posed_keypoints,
    rest_joints,
    rotations_from_angles,
    with_bone_lengths,
)
from jhand.nn import HRNet, ResNet, map_peaks
from jhand.track.regions import crop, points_in_image, regions_of_boxes

HIGHEST = lax.Precision.HIGHEST
KEY_BONE = 10.0
"""Centimetres from the wrist to the middle knuckle."""
FOCAL, CENTRE = 357.0, 200.0
WRIST, MIDDLE, LITTLE = 0, 9, 17
MIDDLE_JOINT = 4
"""The middle knuckle in MANO's order."""
STABLE = np.array([0, 1, 5, 9, 13, 17])
"""Joints that place a hand."""
CROP, MAP = 64, 16
"""Pixels of what the networks read, and of their heat maps."""
LEFT = np.array([False, True])

_BEND, _SIDE, _TWIST = range(3)
_KNUCKLES = np.arange(0, 15, 3)


def _limits() -> np.ndarray:
    """The paper's boxes where it gives them, elsewhere anatomy's: outer finger joints only bend."""
    limits = JOINT_LIMITS.copy()
    limits[_KNUCKLES[:4]] = [[-1.0, 1.5], [-0.5, 0.5], [-0.25, 0.25]]
    outer = np.setdiff1d(np.arange(12), _KNUCKLES)
    limits[outer, _SIDE:] = 0
    return limits


LIMITS: np.ndarray = _limits()
"""(15, 3, 2) radians."""
UNNATURAL: np.ndarray = np.zeros((15, 3), np.float32)
"""Of the regulariser: 1 for every twist, and for sideways turns but those of knuckles."""
UNNATURAL[:, _TWIST] = 1
UNNATURAL[np.setdiff1d(np.arange(15), _KNUCKLES), _SIDE] = 1


@dataclass(frozen=True)
class Config:
    """Weights, rates and iterations of the paper, and what its incremental analysis changes."""

    method: Literal["projection", "pixels", "staged", "tracked"] = "tracked"
    """Closed form; a fit to pixels alone; the four stages, frame by frame; tracking."""
    canonical: float = 1e5
    """Of the mean squared error of canonical points, in key bones."""
    regulariser: float = 1e4
    """Of squared radians of unnatural turns."""
    stages: tuple[int, int, int, int] = (100, 100, 100, 300)
    """Iterations: rotation, pose, place, all."""
    rates: tuple[float, float, float, float] = (1.0, 0.1, 1.0, 0.4)
    """Of Adam in each stage."""
    begin: tuple[int, int, int] = (50, 50, 50)
    """Iterations of the first three stages where tracking begins."""
    track: tuple[int, int] = (50, 10)
    """Iterations of the first frame and of each later one."""
    track_rates: tuple[float, float, float] = (0.5, 0.05, 0.05)
    """Of place, rotation, pose."""
    enough: tuple[float, float, float] = (20000.0 / 63, 1000.0, 1000.0)
    """Losses at which tracking stops early: canonical, place, pixels. The first is 20000 of a sum over 63 coordinates
    (inferred: of their mean it would be a hand turned by a radian)."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """On a CPU: the paper's, which is small."""
        return cls(**changes)

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """On an accelerator: likewise."""
        return cls(**changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Readings:
    """What networks say of both hands, right and left."""

    keypoints2d: Float[Array, "*n t 2 21 2"]
    """Pixels of the picture."""
    weights: Float[Array, "*n t 2 21"]
    """0 where a keypoint is missing."""
    canonical: Float[Array, "*n t 2 21 3"]
    """Camera axes; only directions and proportions count: place and size are taken off."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pictures:
    """Video, where the hands are in it, and the two networks."""

    frames: UInt8[Array, "*n t h w 3"]
    boxes: Float[Array, "*n t 2 4"]
    """Squares around the right and the left hand: left, top, width, height."""
    networks: Any
    """Parameters of `Keypoints2d` and `Lifter`, under these names, once for each sequence."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """N videos of T frames of one camera."""

    camera: Camera
    """(N,), pose and all; hands are in its frame."""
    seen: Pictures | Readings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Hands whose key bone is 10 cm, right and left, in the camera's frame."""

    keypoints: Float[Array, "*n t 2 21 3"]
    """Metres."""
    readings: Readings
    params: HandParams | None
    """Of the hand model of each side at its own size, (N, T, 2); a closed form has none."""
    angles: Float[Array, "*n t 2 15 3"] | None
    """Flexion, abduction and twist, radians."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What is fitted, of a right hand."""

    root: Float[Array, "*n 3"]
    """Of the wrist, centimetres."""
    rotation: Float[Array, "*n 3"]
    """Axis-angle."""
    angles: Float[Array, "*n 15 3"]


class Keypoints2d(nn.Module):
    """Crops (b, 64, 64, 3) of right hands, from 0 to 1, to logits of 21 heat maps (b, 21, 16, 16)."""

    @nn.compact
    def __call__(self, crops: Array) -> Array:
        features = HRNet.tiny(width=16, name="backbone")((crops - 0.5) / 0.25)
        return jnp.moveaxis(nn.Conv(21, (1, 1), name="maps")(features), -1, -3)


def heat_maps(logits: Array) -> Float[Array, "*b 21 h w"]:
    """Where each keypoint may be, (..., 21, H, W): a softmax, scaled so that a Gaussian of sigma 1 would be 1 high."""
    chance = jax.nn.softmax(logits.reshape(*logits.shape[:-2], -1), -1)
    return 2 * jnp.pi * chance.reshape(logits.shape)


class Lifter(nn.Module):
    """Heat maps (b, 21, 16, 16) to canonical hands (b, 21, 3): a residual network and three linear maps, without
    anything between them, as published.
    """

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        x = jnp.moveaxis(maps, -3, -1)
        x = jax.image.resize(x, (*x.shape[:-3], 2 * MAP, 2 * MAP, 21), "bilinear")  # the network halves it three times
        x = jnp.mean(ResNet(blocks=(1, 1), width=32, name="backbone")(x)[-1], (-3, -2))
        for features in (512, 512, 63):
            x = nn.Dense(features)(x)
        return x.reshape(*x.shape[:-1], 21, 3)


@jax.jit
def read_hands(networks: Any, frames: ArrayLike, boxes: ArrayLike, left: ArrayLike) -> tuple[Array, Array, Array]:
    """One hand in pictures; left hands are read in the mirror.

    A canonical hand is as a camera sees it that looks at the middle of the box: only the crop is known.

    Args:
        networks: parameters of `Keypoints2d` and `Lifter`.
        frames: (T, H, W, 3).
        boxes: (T, 4), square.
        left: whether it is a left hand.

    Returns:
        Pixels (T, 21, 2), the peaks' heights (T, 21), canonical hands (T, 21, 3).
    """
    regions = regions_of_boxes(boxes)
    crops = crop(frames, regions, CROP)
    logits: Any = Keypoints2d().apply({"params": networks["keypoints2d"]}, jnp.where(left, crops[:, :, ::-1], crops))
    maps = heat_maps(logits)
    canonical: Any = Lifter().apply({"params": networks["lifter"]}, maps)
    places, heights = map_peaks(maps)
    share = (places + 0.5) / MAP
    share = jnp.where(jnp.asarray(left) & (jnp.arange(2) == 0), 1 - share, share)
    canonical = jnp.where(left, mirror_points(canonical), canonical)
    return points_in_image(regions, share), jnp.clip(heights, 0, 1), canonical


def read_pictures(pictures: Pictures, camera: Camera) -> Readings:
    """What the networks say of videos of cameras (N,); a keypoint whose peak is lower than 0.1 is missing."""
    each = jax.vmap(read_hands, (None, None, 1, 0), 1)
    parts = [
        each(jax.tree.map(lambda leaf, n=n: leaf[n], pictures.networks), pictures.frames[n], pictures.boxes[n], LEFT)
        for n in range(pictures.frames.shape[0])
    ]
    points, heights, canonical = (jnp.stack(x) for x in zip(*parts, strict=True))
    middles = pictures.boxes[..., :2] + pictures.boxes[..., 2:] / 2
    R = towards(normalised_points(jax.tree.map(lambda x: x[:, None], camera), middles))
    canonical = jnp.einsum("...ij,...kj->...ki", R, canonical, precision=HIGHEST)
    return Readings(points, jnp.where(heights < 0.1, 0.0, heights), canonical)


def towards(seen: Array) -> Float[Array, "*b 3 3"]:
    """The smallest turn that takes the optical axis to what is seen at normalised points (..., 2): pictures there are
    stretched by it, and not turned.
    """
    beside = jnp.linalg.norm(seen, axis=-1, keepdims=True)
    axis = jnp.stack([-seen[..., 1], seen[..., 0], jnp.zeros_like(seen[..., 0])], -1) / jnp.maximum(beside, 1e-9)
    return so3_exp(jnp.arctan(beside) * axis)


def key_length(hand: HandModel) -> Float[Array, ""]:
    """Of the model's own key bone, metres, at its mean shape."""
    joints = rest_joints(hand, _mean_shape(hand))  # both ends are joints of one rigid palm
    return jnp.linalg.norm(joints[MIDDLE_JOINT] - joints[WRIST])


def points_of(hand: HandModel, state: State) -> Float[Array, "21 3"]:
    """Keypoints of a right hand of the mean shape whose key bone is 10 cm; centimetres, camera frame."""
    points = posed_keypoints(hand, _mean_shape(hand), _posed(hand, so3_exp(state.rotation), state.angles))
    return state.root + KEY_BONE / key_length(hand) * (points - points[WRIST])


def _mean_shape(hand: HandModel) -> Array:
    return jnp.zeros(hand.num_betas)


def _flat(hand: HandModel) -> Array:
    """Keypoints (21, 3) of the flat hand, metres."""
    return keypoints(hand, HandParams.zeros(num_betas=hand.num_betas))


def _posed(hand: HandModel, rotation: Array, angles: Array) -> Any:
    rotations = jnp.concatenate([rotation[None], rotations_from_angles(hand, angles)])
    return pose_hand_by_matrices(rest_joints(hand, _mean_shape(hand)), rotations, jnp.zeros(3))


def pixels_of(points: Array) -> Float[Array, "*b 2"]:
    """Where points (..., 3) are seen by the paper's camera: 400 pixels, 60 degrees."""
    return FOCAL * points[..., :2] / jnp.maximum(points[..., 2:], 1e-3) + CENTRE


def canonical_of(points: Array) -> Float[Array, "*b 21 3"]:
    """Points (..., 21, 3), centimetres, about the middle knuckle, in key bones."""
    return (points - points[..., MIDDLE : MIDDLE + 1, :]) / KEY_BONE


def normalised_canonical(points: ArrayLike) -> Float[Array, "*b 21 3"]:
    """Any hand (..., 21, 3) as canonical: about its middle knuckle, its key bone of length 1."""
    x = jnp.asarray(points)
    about = x - x[..., MIDDLE : MIDDLE + 1, :]
    return about / jnp.maximum(jnp.linalg.norm(about[..., WRIST, :], axis=-1), 1e-6)[..., None, None]


def retargeted(hand: HandModel, canonical: Array) -> Float[Array, "*b 21 3"]:
    """A canonical hand (..., 21, 3) with the model's bones: what its directions say, no more."""
    points = with_bone_lengths(canonical, KEY_BONE / key_length(hand) * bone_lengths(_flat(hand)))
    return canonical_of(points)


def pixel_loss(points: Array, pixels: Array, weights: Array) -> Float[Array, ""]:
    """Sum of squared pixels between projected points (21, 3) and what was read (21, 2), times weights (21,)."""
    return jnp.sum(weights * jnp.sum(jnp.square(pixels_of(points) - pixels), -1))


def canonical_loss(points: Array, target: Array, config: Config) -> Float[Array, ""]:
    """The weighted mean squared error of a canonical hand (21, 3), in key bones."""
    return config.canonical * jnp.mean(jnp.square(canonical_of(points) - target))


def regulariser(angles: Array, config: Config) -> Float[Array, ""]:
    """Twists, and sideways turns of what cannot turn sideways, of angles (15, 3); bending is free."""
    return config.regulariser * jnp.sum(UNNATURAL * jnp.square(angles))


ADAM: Any = optax.scale_by_adam()


def descend(
    loss: Callable[[State], tuple[Array, Array]],
    state: State,
    rates: tuple[float, float, float],
    iterations: ArrayLike,
    *,
    adam: Any = None,
    enough: float = 0.0,
) -> tuple[State, Any, Int[Array, ""]]:
    """Adam with a rate for each of place, rotation and pose, within the joints' limits.

    Args:
        loss: `state -> (loss, what is watched)`.
        state: where to begin; no leading axes: root (3,).
        rates: 0 keeps a group.
        iterations: at most.
        adam: its moments, to go on with; by default it begins.
        enough: stop once what is watched is less.

    Returns:
        The last state, Adam's moments, and how many iterations it took.
    """
    moments = ADAM.init(state) if adam is None else adam

    def going(carry: tuple[Array, State, Any, Array]) -> Bool[Array, ""]:
        return (carry[0] < iterations) & (carry[3] >= enough)

    def step(carry: tuple[Array, State, Any, Array]) -> tuple[Array, State, Any, Array]:
        n, now, moments, _ = carry
        (_, watched), slope = jax.value_and_grad(loss, has_aux=True)(now)
        change, moments = ADAM.update(slope, moments)
        moved = State(
            now.root - rates[0] * change.root,
            now.rotation - rates[1] * change.rotation,
            now.angles - rates[2] * change.angles,
        )
        kept = jax.tree.map(lambda old, new: jnp.where(watched < enough, old, new), now, moved)
        return n + 1, within(kept), moments, watched

    n, state, moments, _ = lax.while_loop(going, step, (jnp.array(0), within(state), moments, jnp.array(jnp.inf)))
    return state, moments, n


def within(state: State) -> State:
    """Angles within their limits, hands before the camera."""
    angles = jnp.clip(state.angles, LIMITS[..., 0], LIMITS[..., 1])
    return State(state.root.at[2].max(1.0), state.rotation, angles)


def first_rotation(hand: HandModel) -> Float[Array, "3"]:
    """As one sees one's own right hand: fingers up and away, its back towards the eyes."""
    rest = _flat(hand)
    finger, thumb = rest[MIDDLE] - rest[WRIST], rest[5] - rest[LITTLE]
    frame = lambda a, b: jnp.stack([a, b, jnp.cross(a, b)], 1)  # noqa: E731
    finger = finger / jnp.linalg.norm(finger)
    thumb = thumb - jnp.dot(thumb, finger) * finger
    seen = frame(jnp.array([0.0, -1.0, 1.0]) / np.sqrt(2), jnp.array([-1.0, 0.0, 0.0]))
    own = frame(finger, thumb / jnp.linalg.norm(thumb))
    return so3_log(nearest_rotation(jnp.matmul(seen, own.T, precision=HIGHEST)))


def begin_state(hand: HandModel) -> State:
    """A flat hand half a metre away."""
    return State(jnp.array([0.0, 0.0, 50.0]), first_rotation(hand), jnp.zeros((15, 3)))


def project_alone(canonical: ArrayLike, pixels: ArrayLike) -> Float[Array, "21 3"]:
    """The place of a canonical hand in closed form, from two of its points in the picture.

    The middle or the little knuckle, whichever is further from the wrist in the picture, is turned onto the optical
    axis; the wrist then is h beside it and w behind it, and is seen at |j| = f h / depth of the wrist.

    Args:
        canonical: (21, 3) in key bones.
        pixels: (21, 2) of the paper's camera.

    Returns:
        Centimetres, camera frame.
    """
    x, uv = KEY_BONE * jnp.asarray(canonical), (jnp.asarray(pixels) - CENTRE) / FOCAL

    def place(knuckle: int) -> tuple[Array, Array]:
        ray = jnp.append(uv[knuckle], 1.0)
        pan = jnp.arctan2(ray[0], ray[2])
        tilt = -jnp.arctan2(ray[1], jnp.hypot(ray[0], ray[2]))
        about_y, about_x = so3_exp(jnp.array([0.0, -pan, 0.0])), so3_exp(jnp.array([-tilt, 0.0, 0.0]))
        R = jnp.matmul(about_x, about_y, precision=HIGHEST)
        partner = jnp.matmul(R, jnp.append(uv[WRIST], 1.0), precision=HIGHEST)
        bone = jnp.matmul(R, x[WRIST] - x[knuckle], precision=HIGHEST)
        beside, behind = jnp.hypot(bone[0], bone[1]), bone[2]
        seen = jnp.hypot(partner[0], partner[1]) / jnp.maximum(partner[2], 1e-6)
        depth = jnp.maximum(beside / jnp.maximum(seen, 1e-6) - behind, 1.0)
        root = jnp.matmul(R.T, jnp.array([0.0, 0.0, 1.0]) * depth, precision=HIGHEST)
        return x - x[knuckle] + root, jnp.linalg.norm(uv[knuckle] - uv[WRIST])

    (by_middle, length), (by_little, other) = place(MIDDLE), place(LITTLE)
    return jnp.where(length >= other, by_middle, by_little)


def fit_pixels(
    hand: HandModel, pixels: Array, weights: Array, config: Config, rotation: ArrayLike | None = None
) -> State:
    """Algorithm 1: the place from the wrist, then everything from pixels alone.

    Args:
        hand: right.
        pixels: (21, 2) of the paper's camera; any subset counts.
        weights: (21,), 0 for those that are missing.
        config: weights and iterations; as many as the four stages take.
        rotation: a person's rough guess, axis-angle; by default that of one's own hand. She also sees which of the two
            hands that look alike is meant: this does not.
    """
    state = begin_state(hand)
    if rotation is not None:
        state = State(state.root, jnp.asarray(rotation, float), state.angles)
    wrist = jnp.zeros(21).at[WRIST].set(1.0)

    def place(s: State) -> tuple[Array, Array]:
        missed = pixel_loss(points_of(hand, s), pixels, wrist)
        return missed, missed

    state, *_ = descend(place, state, (config.rates[2], 0.0, 0.0), config.stages[2])
    iterations = config.stages[0] + config.stages[1] + config.stages[3]
    return _fit_all(hand, state, pixels, weights, config, iterations)


def _fit_all(hand: HandModel, state: State, pixels: Array, weights: Array, config: Config, iterations: int) -> State:
    rate = config.rates[3]

    def everything(s: State) -> tuple[Array, Array]:
        missed = pixel_loss(points_of(hand, s), pixels, weights)
        return missed + regulariser(s.angles, config), missed

    return descend(everything, state, (rate, rate, rate), iterations)[0]


def initialise(
    hand: HandModel,
    pixels: Array,
    weights: Array,
    target: Array,
    config: Config,
    iterations: tuple[ArrayLike, ArrayLike, ArrayLike],
    enough: tuple[float, float] = (0.0, 0.0),
) -> State:
    """The first three of Algorithm 2's stages: rotation, rotation and pose, place.

    Args:
        hand: right.
        pixels: (21, 2) of the paper's camera.
        weights: (21,).
        target: (21, 3) canonical, retargeted.
        config: weights and rates.
        iterations: of each stage.
        enough: canonical and place losses at which a stage ends.
    """

    def turned(s: State) -> tuple[Array, Array]:
        missed = canonical_loss(points_of(hand, s), target, config)
        return missed, missed

    def posed(s: State) -> tuple[Array, Array]:
        missed = canonical_loss(points_of(hand, s), target, config)
        return missed + regulariser(s.angles, config), missed

    stable = jnp.zeros(21).at[STABLE].set(1.0) * weights

    def placed(s: State) -> tuple[Array, Array]:
        missed = pixel_loss(points_of(hand, s), pixels, stable)
        return missed, missed

    rotation, pose, place, _ = config.rates
    state, *_ = descend(turned, begin_state(hand), (0.0, rotation, 0.0), iterations[0], enough=enough[0])
    state, *_ = descend(posed, state, (0.0, pose, pose), iterations[1], enough=enough[0])
    return descend(placed, state, (place, 0.0, 0.0), iterations[2], enough=enough[1])[0]


def fit_staged(hand: HandModel, pixels: Array, weights: Array, target: Array, config: Config) -> State:
    """Algorithm 2, of one picture: pixels (21, 2), weights (21,), a target (21, 3); arguments as `initialise`."""
    state = initialise(hand, pixels, weights, target, config, config.stages[:3])
    return _fit_all(hand, state, pixels, weights, config, config.stages[3])


def fit_tracked(
    hand: HandModel, pixels: Array, weights: Array, target: Array, config: Config
) -> tuple[State, Int[Array, "t"]]:
    """Algorithm 3, of one hand in a video: each frame from the one before, Adam as it was left.

    Args:
        hand: right.
        pixels: (T, 21, 2) of the paper's camera.
        weights: (T, 21).
        target: (T, 21, 3) canonical, retargeted.
        config: weights, rates, iterations, early stops.

    Returns:
        States (T,), and the iterations that each frame took.
    """

    def everything(s: State, pixels: Array, weights: Array, target: Array) -> tuple[Array, Array]:
        points = points_of(hand, s)
        missed = pixel_loss(points, pixels, weights)
        return missed + canonical_loss(points, target, config) + regulariser(s.angles, config), missed

    *stages, pixels_enough = config.enough
    first, later = config.track
    state = initialise(hand, pixels[0], weights[0], target[0], config, config.begin, (stages[0], stages[1]))

    def frame(carry: tuple[State, Any], now: tuple[Array, Array, Array, Array]) -> tuple[tuple[State, Any], Any]:
        *seen, most = now
        loss = lambda s: everything(s, *seen)  # noqa: E731
        state, adam, n = descend(loss, carry[0], config.track_rates, most, adam=carry[1], enough=pixels_enough)
        return (state, adam), (state, n)

    most = jnp.full(len(pixels), later).at[0].set(first)
    return lax.scan(frame, (state, ADAM.init(state)), (pixels, weights, target, most))[1]


def mirrored(readings: Readings) -> Readings:
    """Left hands as right ones; pixels are of the paper's camera."""
    left = LEFT[:, None]
    pixels = readings.keypoints2d.at[..., 0].set(
        jnp.where(left, 2 * CENTRE - readings.keypoints2d[..., 0], readings.keypoints2d[..., 0])
    )
    canonical = jnp.where(left[..., None], mirror_points(readings.canonical), readings.canonical)
    return Readings(pixels, readings.weights, canonical)


def prepared(inputs: Inputs) -> tuple[Readings, Readings]:
    """What was read, and the same as the fit wants it: of the paper's camera, in the mirror, normalised."""
    seen = inputs.seen
    readings = read_pictures(seen, inputs.camera) if isinstance(seen, Pictures) else seen
    camera = jax.tree.map(lambda x: x[:, None, None], inputs.camera)
    clean = jnp.where(readings.weights[..., None] > 0, readings.keypoints2d, 0)  # what is missing may hold anything
    pixels = FOCAL * normalised_points(camera, clean) + CENTRE
    return readings, mirrored(Readings(pixels, readings.weights, normalised_canonical(readings.canonical)))


def solve(inputs: Inputs, config: Config, hand: HandModel) -> Outputs:
    """Both hands of N videos.

    Args:
        inputs: see `Inputs`.
        config: weights, and the method.
        hand: right; left hands are its mirror image.

    Returns:
        Keypoints in the camera's frame, of hands whose key bone is 10 cm.
    """
    readings, ready = prepared(inputs)
    return {"projection": _project, "pixels": _by_pixels, "staged": _staged, "tracked": _tracked}[config.method](
        hand, readings, ready, config
    )


@partial(jax.jit, static_argnames="config")
def _project(hand: HandModel, readings: Readings, ready: Readings, config: Config) -> Outputs:
    points = jax.vmap(jax.vmap(jax.vmap(project_alone)))(ready.canonical, ready.keypoints2d)
    return Outputs(_as_they_are(points), readings, None, None)


@partial(jax.jit, static_argnames="config")
def _by_pixels(hand: HandModel, readings: Readings, ready: Readings, config: Config) -> Outputs:
    one = lambda pixels, weights: fit_pixels(hand, pixels, weights, config)  # noqa: E731
    return _outputs(hand, readings, jax.vmap(jax.vmap(jax.vmap(one)))(ready.keypoints2d, ready.weights))


@partial(jax.jit, static_argnames="config")
def _staged(hand: HandModel, readings: Readings, ready: Readings, config: Config) -> Outputs:
    target = retargeted(hand, ready.canonical)
    one = lambda *seen: fit_staged(hand, *seen, config)  # noqa: E731
    return _outputs(hand, readings, jax.vmap(jax.vmap(jax.vmap(one)))(ready.keypoints2d, ready.weights, target))


@partial(jax.jit, static_argnames="config")
def _tracked(hand: HandModel, readings: Readings, ready: Readings, config: Config) -> Outputs:
    target = retargeted(hand, ready.canonical)
    one = lambda *seen: fit_tracked(hand, *seen, config)[0]  # noqa: E731
    both = jax.vmap(jax.vmap(one, 1, 1))
    return _outputs(hand, readings, both(ready.keypoints2d, ready.weights, target))


def _outputs(hand: HandModel, readings: Readings, state: State) -> Outputs:
    """States (N, T, 2) as metres and parameters."""
    points = jax.vmap(jax.vmap(jax.vmap(partial(points_of, hand))))(state)
    betas = jnp.zeros((*state.angles.shape[:-2], hand.num_betas))
    wrist = key_length(hand) * state.root / KEY_BONE  # where the model at its own size is seen at the same pixels
    transl = wrist - rest_joints(hand, betas)[..., 0, :]
    params = HandParams(state.rotation, pose_from_angles(hand, state.angles), betas, transl)
    other = mirror_params(params)
    params = jax.tree.map(lambda a, b: jnp.where(_left_of(a, state), b, a), params, other)
    return Outputs(_as_they_are(points), readings, params, state.angles)


def _left_of(leaf: Array, state: State) -> np.ndarray:
    return LEFT.reshape(2, *(1,) * (leaf.ndim - state.root.ndim + 1))


def _as_they_are(points: Array) -> Array:
    """Centimetres in the mirror (N, T, 2, 21, 3) as metres of both sides."""
    return jnp.where(LEFT[:, None, None], mirror_points(points), points) / 100
