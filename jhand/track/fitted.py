"""The hand behind the landmarks: tracked hands sorted out over a sequence, and parameters fitted to each of them.

The landmark network says where points lie in the picture, and how they lie to each other in metres. The fit takes both:
pixels through a camera, which place the hand, and the vectors along its bones, which say what the picture leaves open.
Where the whole hand is in metres the network does not know; the camera's focal length and the size of the hand decide.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jhand.fitting.batches import size_class
from jhand.fitting.calibrate import fit_landmarks
from jhand.fitting.measurements import FitSettings
from jhand.fitting.solver import Fit, fit_sequence
from jhand.fitting.starts import start_3d
from jhand.fitting.terms import Term
from jhand.geometry.camera import Camera, make_camera
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams
from jhand.hand.skeleton import bones
from jhand.track.hands import Hands

_BONES = np.array(bones("openpose21"))
_NEAREST = 0.1  # metres from the camera
_SAME = 0.5  # seconds for which a hand may be lost and be the same one, near where it was
_DOUBLE = 0.4  # of a hand's size: two hands of one side cannot be as near to each other
_ENOUGH = 30  # frames from which landmarks are learned on the sequence itself
_LEARNED_ON = 48  # at most
_AT_ONCE = 1024  # frames: memory is linear in them
_OVERLAP = 32

SIGMA_PIXELS = 0.02
"""Standard deviation of a landmark in the picture, of the length of the hand there."""
SIGMA_BONE = 0.006
"""Metres: the same of a vector along a bone, where it is known what the tracker calls its points."""
SIGMA_BONE_PLAIN = 0.010
"""Metres: the same where its points are taken for the hand's own keypoints."""


@dataclass(frozen=True)
class TrackedHand:
    """One hand in T frames as a tracker saw it, in numpy; all is 0 in frames that do not show it.

    Keypoints as of `Hands`.
    """

    right: float
    """Probability that it is a right hand, mean over the frames that show it."""
    score: np.ndarray
    """(T,)"""
    keypoints2d: np.ndarray
    """(T, 21, 2)"""
    depth: np.ndarray
    """(T, 21)"""
    keypoints3d: np.ndarray
    """(T, 21, 3)"""

    @property
    def side(self) -> str:
        """`"right"` or `"left"`."""
        return "right" if self.right >= 0.5 else "left"

    @property
    def present(self) -> np.ndarray:
        """(T,) bool: frames that show it."""
        return self.score > 0


def hands_over_time(hands: Hands, *, fps: float = 30.0, min_frames: int = 1) -> list[TrackedHand]:
    """The hands of a video, put together from what a tracker's slots held.

    A slot that lost its hand may hold another one later. What comes back near where a hand was lost, within half a
    second, is that hand; what comes later is the hand of the same side that is not in the picture, and otherwise a new
    one. Two slots with hands of one side in the same place hold one hand, and the surer slot is believed. Which side a
    hand is, all its frames decide together.

    Args:
        hands: of T frames with N slots each, (T, N), as `track_hands` gave them frame by frame.
        fps: frames per second.
        min_frames: hands seen in fewer are left out.

    Returns:
        The hands, in the order in which they came.
    """
    score, right, uv, depth, xyz = (
        np.asarray(a) for a in (hands.score, hands.right, hands.keypoints2d, hands.depth, hands.keypoints3d)
    )
    score = _without_doubles(score, right, uv)
    found: list[list[tuple[int, int, int]]] = []  # of each hand, its stretches: slot, first frame, last frame
    for stretch in sorted(_stretches(score > 0), key=lambda s: (s[1], s[0])):
        slot, first, last = stretch
        free = [hand for hand in found if hand[-1][2] < first]
        size = np.ptp(uv[first, slot], axis=0).max()
        apart = [np.linalg.norm(uv[hand[-1][2], hand[-1][0]].mean(0) - uv[first, slot].mean(0)) for hand in free]
        near = [
            (distance, i)
            for i, (hand, distance) in enumerate(zip(free, apart, strict=True))
            if distance < size and first - hand[-1][2] <= _SAME * fps + 1
        ]
        is_right = right[first : last + 1, slot].mean() >= 0.5
        alike = [
            (distance, i)
            for i, (hand, distance) in enumerate(zip(free, apart, strict=True))
            if (_mean_right(right, hand) >= 0.5) == is_right
        ]
        if near or alike:
            free[min(near or alike)[1]].append(stretch)
        else:
            found.append([stretch])
    result = []
    for hand in found:
        slots, frames = (np.concatenate(a) for a in zip(*map(_indices, hand), strict=True))
        if len(frames) < min_frames:
            continue
        place = lambda a, at=(frames, slots): _placed(a[at], at[0], len(score))  # noqa: E731
        result.append(TrackedHand(_mean_right(right, hand), *map(place, (score, uv, depth, xyz))))
    return result


def hands_of_one_person(found: Sequence[TrackedHand], num_frames: int) -> tuple[TrackedHand, TrackedHand]:
    """The right and the left hand: of the two that are seen longest, the one that more probably is a right one is. A
    single one is what it is by itself; of one that was not found, all is 0.

    Args:
        found: from `hands_over_time`.
        num_frames: T of the video.
    """
    none = np.zeros((num_frames, 21), np.float32)
    nobody = TrackedHand(0.0, none[:, 0], none[..., None].repeat(2, -1), none, none[..., None].repeat(3, -1))
    longest = sorted(found, key=lambda hand: -hand.present.sum())[:2]
    if len(longest) == 1:
        return (longest[0], nobody) if longest[0].side == "right" else (nobody, longest[0])
    left, right = sorted(longest, key=lambda hand: hand.right) if longest else (nobody, nobody)
    return right, left


def _without_doubles(score: np.ndarray, right: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Scores (T, N), 0 where another slot is surer of a hand of the same side in the same place: fast hands can be read
    in two ways, whose regions differ too much for the tracker to tell.
    """
    score, centre, size = score.copy(), uv.mean(2), np.ptp(uv, axis=2).max(-1)
    for a, b in itertools.combinations(range(score.shape[1]), 2):
        both = (score[:, a] > 0) & (score[:, b] > 0) & ((right[:, a] >= 0.5) == (right[:, b] >= 0.5))
        near = np.linalg.norm(centre[:, a] - centre[:, b], axis=-1) < _DOUBLE * np.maximum(size[:, a], size[:, b])
        surer = score[:, a] >= score[:, b]
        score[both & near & surer, b] = 0
        score[both & near & ~surer, a] = 0
    return score


def _stretches(present: np.ndarray) -> list[tuple[int, int, int]]:
    """Slot, first and last frame of every stretch in which a slot (T, N) holds a hand."""
    edges = np.diff(np.pad(present.astype(int), ((1, 1), (0, 0))), axis=0)
    return [
        (slot, int(first), int(last) - 1)
        for slot in range(present.shape[1])
        for first, last in zip(np.flatnonzero(edges[:, slot] > 0), np.flatnonzero(edges[:, slot] < 0), strict=True)
    ]


def _indices(stretch: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    slot, first, last = stretch
    frames = np.arange(first, last + 1)
    return np.full(len(frames), slot), frames


def _mean_right(right: np.ndarray, hand: Sequence[tuple[int, int, int]]) -> float:
    return float(np.concatenate([right[first : last + 1, slot] for slot, first, last in hand]).mean())


def _placed(values: np.ndarray, frames: np.ndarray, number: int) -> np.ndarray:
    whole = np.zeros((number, *values.shape[1:]), np.float32)
    whole[frames] = values
    return whole


def guess_camera(size: tuple[int, int], focal: float | None = None) -> Camera:
    """A camera that looks straight through the middle of its picture.

    Args:
        size: width and height, pixels.
        focal: focal length, pixels; by default the longer side, which is between a phone's (0.7 to 0.8 of it) and that
            of a 50 mm lens on 36 mm film (1.4). If the focal length is wrong by a factor, so is the hand's distance.
    """
    width, height = size
    return make_camera(
        focal=float(max(size) if focal is None else focal), principal=np.array([(width - 1) / 2, (height - 1) / 2])
    )


@jax.jit
def place_points(camera: Camera, points: ArrayLike, pixels: ArrayLike) -> Float[Array, "*b 3"]:
    """The shift that best brings points to where a camera sees them, in closed form.

    Args:
        camera: leading axes (...), without distortion; its frame is that of the points.
        points: (..., N, 3) metres, axes of the camera.
        pixels: (..., N, 2).

    Returns:
        (..., 3) metres: least squares of (x + t_x) - u (z + t_z) and the same of y, u in units of the focal length.
    """
    x, K = jnp.asarray(points), camera.K[..., None, :, :]
    uv = jnp.asarray(pixels)
    u = jnp.stack([(uv[..., 0] - K[..., 0, 2]) / K[..., 0, 0], (uv[..., 1] - K[..., 1, 2]) / K[..., 1, 1]], -1)
    # t_x and t_y are eliminated: they fit the mean
    right = u * x[..., 2:] - x[..., :2]
    centred, centred_u = right - right.mean(-2, keepdims=True), u - u.mean(-2, keepdims=True)
    z = -jnp.sum(centred * centred_u, (-1, -2)) / jnp.maximum(jnp.sum(jnp.square(centred_u), (-1, -2)), 1e-12)
    z = jnp.maximum(z, _NEAREST - jnp.min(x[..., 2], -1))
    xy = right.mean(-2) + u.mean(-2) * z[..., None]
    return jnp.concatenate([xy, z[..., None]], -1)


def bone_vectors(
    landmarks: LandmarkSet,
    keypoints3d: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = SIGMA_BONE,
    robust: Array | float = jnp.inf,
) -> Term:
    """A term for `fit` and `fit_sequence`: how 21 points lie to each other, wherever they all are.

    Args:
        landmarks: what the points are.
        keypoints3d: (..., 21, 3) metres, openpose21 order, in the axes of the fitted hand and about any origin.
        weights: (..., 21), 0 for what is missing.
        sigma: metres, of the vector along a bone.
        robust: see `Term`.
    """
    points = jnp.asarray(keypoints3d, jnp.float32)
    w = jnp.ones(points.shape[:-1]) if weights is None else jnp.asarray(weights, jnp.float32)
    start, end = _BONES.T
    data = points[..., end, :] - points[..., start, :]
    w = jnp.minimum(w[..., start], w[..., end])
    return Term(landmarks, jnp.asarray(_BONES), jnp.where(w[..., None] > 0, data, 0), w, sigma, robust, _bone_offset)


def _bone_offset(points: Array, _transl: Array, _cameras: Array, measured: Array) -> Array:
    """Metres (3,) between the vector along a bone and the one measured."""
    return points[1] - points[0] - measured


def learn_landmarks(hand: HandModel, tracked: TrackedHand, *, fps: float = 30.0) -> LandmarkSet | None:
    """What the tracker calls its points on this hand, learned on the sequence itself (`fit_landmarks`).

    Args:
        hand: the model.
        tracked: the hand.
        fps: frames per second.

    Returns:
        The landmarks, or None where fewer than 30 frames show the hand.
    """
    shown = np.flatnonzero(tracked.present)
    if len(shown) < _ENOUGH:
        return None
    pick = shown[np.unique(np.linspace(0, len(shown) - 1, _LEARNED_ON).round().astype(int))]
    apart = np.ptp(pick) / max(len(pick) - 1, 1)
    return fit_landmarks(hand, tracked.keypoints3d[pick], fps=fps / apart, settings=FitSettings(sigma_3d=SIGMA_BONE))


def fit_tracked(
    hand: HandModel,
    tracked: TrackedHand,
    camera: Camera,
    *,
    fps: float = 30.0,
    landmarks: LandmarkSet | None = None,
    betas: ArrayLike | None = None,
    settings: FitSettings | None = None,
) -> Fit:
    """Parameters of a tracked hand in the frame of its camera: one shape, smooth motion.

    Frames that do not show the hand are bridged: `tracked.present` says which. Errors of the tracker last for many
    frames, while the fit takes those of different frames for independent: the covariance is that of noise alone.

    Args:
        hand: a model of the hand's side.
        tracked: from `hands_over_time`.
        camera: one camera for all frames, without distortion, such as `guess_camera` makes.
        fps: frames per second.
        landmarks: what the tracker's points are, from `learn_landmarks`; by default the 21 keypoints, with less trust.
        betas: (B,) known shape; by default it is estimated.
        settings: rates and priors, and sigmas: `sigma_3d` metres along bones, `sigma_2d` pixels where the hand is as
            large in the picture as in the middle of its frames; it grows with the hand.

    Returns:
        The fit, leading axis (T,); errors in pixels.

    Raises:
        ValueError: a model of the other side, or a hand that no frame shows.
    """
    if hand.side != tracked.side:
        raise ValueError(f"the tracked hand is a {tracked.side} one, the model is a {hand.side} one")
    shown = tracked.present
    if not shown.any():
        raise ValueError("no frame shows the hand")
    points = keypoint_landmarks(hand) if landmarks is None else landmarks
    size = size_in_picture(tracked.keypoints2d)
    typical = float(np.median(size[shown]))
    if settings is None:
        sigma_3d = SIGMA_BONE_PLAIN if landmarks is None else SIGMA_BONE
        settings = FitSettings(sigma_2d=SIGMA_PIXELS * typical, sigma_3d=sigma_3d)
    trust = np.where(shown, tracked.score, 0)[:, None] * np.ones(21, np.float32)
    nearness = np.where(shown, typical / np.maximum(size, 1e-6), 0)  # a hand twice as large is placed half as well
    known = np.zeros(hand.num_betas, np.float32) if betas is None else np.asarray(betas, np.float32)
    start = hands_by_frame(hand, tracked, camera, landmarks=points, betas=known)

    def solve(frames: np.ndarray, betas: ArrayLike | None, fps: float) -> Fit:
        weights, xyz = trust[frames], tracked.keypoints3d[frames]
        return fit_sequence(
            hand,
            keypoints2d=tracked.keypoints2d[frames],
            weights=weights * np.square(nearness[frames])[:, None],
            camera=camera,
            landmarks=points,
            terms=[bone_vectors(points, xyz, weights, sigma=settings.sigma_3d, robust=settings.robust)],
            betas=betas,
            start=jax.tree.map(lambda a: a[frames], start),
            fps=fps,
            settings=settings,
        )

    every = np.arange(len(shown))
    if len(every) <= _AT_ONCE:
        return solve(every, betas, fps)
    if betas is None:
        pick = np.flatnonzero(shown)
        pick = pick[np.unique(np.linspace(0, len(pick) - 1, _AT_ONCE).round().astype(int))]
        betas = solve(pick, None, fps * (len(pick) - 1) / np.ptp(pick)).params.betas[0]
    parts = []
    for first in range(0, len(every) - _OVERLAP, _AT_ONCE - _OVERLAP):
        frames = every[first : first + _AT_ONCE]
        kept = slice(_OVERLAP // 2 if first else 0, None if frames[-1] == every[-1] else -_OVERLAP // 2)
        parts.append(jax.tree.map(lambda a, kept=kept: a[kept], solve(frames, betas, fps)))
    return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def size_in_picture(keypoints2d: np.ndarray) -> np.ndarray:
    """Pixels (T,) across each hand (T, 21, 2): the longer of its box's sides."""
    return np.ptp(keypoints2d, axis=1).max(-1)


def hands_by_frame(
    hand: HandModel,
    tracked: TrackedHand,
    camera: Camera,
    *,
    landmarks: LandmarkSet | None = None,
    betas: ArrayLike | None = None,
) -> HandParams:
    """Each frame by itself, in closed form: the hand laid on the tracked points, placed where the camera sees them.

    Args:
        hand: a model of the hand's side, which is not asked.
        tracked: from `hands_over_time`.
        camera: one camera for all frames, without distortion; hands are in its frame.
        landmarks: what the tracker's points are; by default the 21 keypoints, along whose bones fingers are turned.
        betas: (B,) shape; by default the mean.

    Returns:
        Leading axis (T,); frames that do not show the hand repeat the one before, the first ones the one after.

    Raises:
        ValueError: a hand that no frame shows.
    """
    if not tracked.present.any():
        raise ValueError("no frame shows the hand")
    points = keypoint_landmarks(hand) if landmarks is None else landmarks
    known = np.zeros(hand.num_betas, np.float32) if betas is None else np.asarray(betas, np.float32)
    number = len(tracked.score)
    shown = np.flatnonzero(tracked.present)
    frames = shown[np.maximum(np.searchsorted(shown, np.arange(number), side="right") - 1, 0)]
    frames = frames[np.minimum(np.arange(size_class(number)), number - 1)]  # few sizes, few compilations
    xyz, uv = tracked.keypoints3d[frames], tracked.keypoints2d[frames]
    placed = xyz + np.asarray(place_points(camera, xyz, uv))[:, None]
    shapes = np.broadcast_to(known, (len(frames), hand.num_betas))
    laid = _laid_on(replace(hand, side="right", name=""), points, placed, np.ones(placed.shape[:2]), shapes)
    return jax.tree.map(lambda a: a[:number, 0], laid)


_laid_on: Any = jax.jit(start_3d)
