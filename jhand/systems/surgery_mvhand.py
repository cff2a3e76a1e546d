"""Surgery hands: 3D hands from calibrated videos around an operating table, without training (IJCARS 2026,
arXiv 2601.15918).

A whole-body model's hands are coarse, but it knows when it is sure. The frames where it is surest begin: a tracker of
anything follows the hand's box from there, forwards and backwards, until it is lost; what it reached is taken out, and
the next best frame begins again. A hand keypoint model reads each tracked box. Then, frame after frame, 21 free points
are moved until all views agree, held by the frame before: where points were (smooth), and how they stood to each other,
whatever the hand's turn (shape). Anatomical limits are here as the paper's negative result, with weight 0.

The paper's weights mean pixels of a reprojection and millimetres between frames. Points in and out are in metres.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, UInt8

from jhand.fitting import lbfgs
from jhand.geometry import Camera, nearest_rotation, project, triangulate_robust
from jhand.hand import HandModel, HandParams, bone_excess, bone_limits, keypoints, mirror_points
from jhand.nn import ResNet, SimCCHead, simcc_points
from jhand.track.regions import boxes_around, crop, points_in_image, regions_of_boxes
from jhand.track.template import propagate

HIGHEST = lax.Precision.HIGHEST
MM = 1000.0
CROP = 64
"""Pixels of what the hand keypoint model reads."""
LEFT = np.array([False, True])
"""Which of the two hands is mirrored."""


@dataclass(frozen=True)
class Config:
    """Weights of the paper's final model, and what its ablations change."""

    reprojection: float = 1.0
    """Of squared pixels, times confidence."""
    smooth: float = 20.0
    """Of squared millimetres to the frame before."""
    shape: float = 50.0
    """Of squared millimetres to the frame before, once turned onto it about the wrist."""
    biomechanics: float = 0.0
    """Of squared millimetres and degrees beyond a hand's limits."""
    keyframe: float = 0.3
    """A hand's confidence, the mean of its joints', above which a frame may begin."""
    least: float = 0.1
    """Confidence of joints below which they are dropped before 3D."""
    lost: float = 0.5
    """Of the tracker: below this score a hand is lost."""
    margin: float = 1.5
    """Sides of boxes over those of the points in them."""
    iterations: int = 40
    """Of L-BFGS, a frame; four times as many for the first."""
    crops: Literal["tracked", "detected"] = "tracked"
    """What the hand keypoint model reads in a video: tracked boxes, or those of the coarse hands, frame by frame."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For a few cameras and seconds, on a CPU."""
        return cls(**dict[str, Any](iterations=15) | changes)

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """For whole recordings on one accelerator."""
        return cls(**changes)

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published: it goes on until it converges."""
        return cls(**dict[str, Any](iterations=200) | changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Video:
    """N sequences of T pictures in V views, and what the frozen networks need and say of them."""

    frames: UInt8[Array, "*n t v h w 3"]
    coarse2d: Float[Array, "*n t v 2 21 2"]
    """Hands of the whole-body model, pixels: right, then left."""
    coarse_confidence: Float[Array, "*n t v 2 21"]
    detector: Any
    """Parameters of `HandKeypoints`, once for each sequence."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Detections:
    """What the hand keypoint model says: pixels, and how sure it is."""

    keypoints2d: Float[Array, "*n t v 2 21 2"]
    confidence: Float[Array, "*n t v 2 21"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """N sequences of T frames in V calibrated views, of a right and a left hand."""

    cameras: Camera
    """Leading axes (N, V); they stand still."""
    wrist2d: Float[Array, "*n t v 2 2"]
    """Of the body model, pixels: right, then left."""
    wrist_confidence: Float[Array, "*n t v 2"]
    seen: Video | Detections
    """Pictures, or what was read in them before."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Both hands, frame after frame."""

    keypoints: Float[Array, "*n t 2 21 3"]
    """Metres, world frame."""
    detections: Detections


class HandKeypoints(nn.Module):
    """A hand keypoint model of the kind of RTMPose's: crops (b, 64, 64, 3) of right hands, from 0 to 1, to logits of
    `SimCCHead` (b, 21, 2, 128).
    """

    @nn.compact
    def __call__(self, crops: Array) -> Array:
        return SimCCHead(21, 2 * CROP, name="head")(
            ResNet(blocks=(2, 2, 2), width=32, name="backbone")((crops - 0.5) / 0.25)[-1]
        )


def hand_confidence(confidence: ArrayLike) -> Float[Array, "*b"]:
    """How sure a model is of a hand: the mean of its joints' (..., 21)."""
    return jnp.mean(jnp.asarray(confidence), -1)


def track_boxes(
    confidence: ArrayLike, follow: Callable[[int, bool], tuple[np.ndarray, np.ndarray]], config: Config
) -> tuple[Float[np.ndarray, "t 4"], Float[np.ndarray, "t"]]:
    """One hand in one view, best frames first: each is followed both ways, and what was reached is no candidate any
    more.

    Args:
        confidence: (T,) of the coarse hand.
        follow: `(frame, forwards) -> (boxes (T, 4), scores (T,))`: a tracker that begins with a frame's coarse box;
            scores are 0 from where it is lost.
        config: thresholds.

    Returns:
        Boxes (T, 4) and scores (T,), 1 at keyframes and 0 where the hand was never found. A frame keeps the box of the
        better keyframe.
    """
    sure = np.array(confidence, float)
    boxes, scores = np.zeros((len(sure), 4)), np.zeros(len(sure))
    candidates = sure > config.keyframe
    while candidates.any():
        key = int(np.argmax(np.where(candidates, sure, -np.inf)))
        for forwards in (True, False):
            found, score = (np.asarray(x) for x in follow(key, forwards))
            new = (score > 0) & (scores == 0)
            ahead = np.arange(len(sure)) >= key if forwards else np.arange(len(sure)) <= key
            # a frame that a better keyframe reached ends this one's way
            blocked = np.flatnonzero(ahead & ~new & (np.arange(len(sure)) != key))
            if len(blocked):
                ahead &= np.arange(len(sure)) < blocked[0] if forwards else np.arange(len(sure)) > blocked[-1]
            reached = ahead & new
            boxes[reached], scores[reached] = found[reached], score[reached]
        candidates &= scores == 0
        candidates[key] = False
    return boxes, scores


def track_video(
    frames: ArrayLike, boxes: ArrayLike, confidence: ArrayLike, config: Config
) -> tuple[Float[np.ndarray, "t 4"], Float[np.ndarray, "t"]]:
    """`track_boxes` with the template tracker of `jhand.track.template` in one view's frames.

    Args:
        frames: (T, H, W, 3).
        boxes: (T, 4) of the coarse hand.
        confidence: (T,) of it.
        config: thresholds.
    """
    x, coarse = jnp.asarray(frames), jnp.asarray(boxes)
    follow = lambda t, forwards: propagate(x, coarse[t], t, forwards=forwards, least=config.lost)  # noqa: E731
    return track_boxes(confidence, follow, config)


@jax.jit
def read_hands(detector: Any, frames: ArrayLike, boxes: ArrayLike, left: ArrayLike) -> tuple[Array, Array]:
    """Keypoints in boxes by the hand keypoint model; left hands are read in the mirror.

    Args:
        detector: parameters of `HandKeypoints`.
        frames: (T, H, W, 3).
        boxes: (T, 4), square.
        left: whether they are of a left hand.

    Returns:
        Pixels (T, 21, 2) and confidences (T, 21).
    """
    regions = regions_of_boxes(boxes)
    crops = crop(frames, regions, CROP)
    crops = jnp.where(left, crops[:, :, ::-1], crops)
    logits: Any = HandKeypoints().apply({"params": detector}, crops)
    points, sure = simcc_points(logits)
    points = jnp.where(jnp.asarray(left) & (jnp.arange(2) == 0), 1 - points, points)
    return points_in_image(regions, points), sure


def read_video(video: Video, config: Config) -> Detections:
    """Hands in pictures: boxes of either kind, then their keypoints; without a box, the confidence is 0."""
    coarse = np.asarray(boxes_around(video.coarse2d, video.coarse_confidence, config.margin))
    sure = np.asarray(hand_confidence(video.coarse_confidence))
    points = np.zeros(video.coarse2d.shape, np.float32)
    confidence = np.zeros(video.coarse_confidence.shape, np.float32)
    for n, v, m in np.ndindex(sure.shape[0], *sure.shape[2:]):
        frames, one = video.frames[n, :, v], np.s_[n, :, v, m]
        boxes, found = coarse[one], sure[one] > 0
        if config.crops == "tracked":
            boxes, scores = track_video(frames, boxes, sure[one], config)
            found = scores > 0
        detector = jax.tree.map(lambda leaf, n=n: leaf[n], video.detector)
        points[one], trust = read_hands(detector, frames, boxes, LEFT[m])
        confidence[one] = np.where(found[:, None], trust, 0)
    return Detections(jnp.asarray(points), jnp.asarray(confidence))


def reprojection_term(points: Array, cameras: Camera, pixels: Array, confidence: Array) -> Array:
    """sum_vj c |pi_v(X_j) - x_vj|^2.

    Args:
        points: (21, 3) millimetres.
        cameras: (V,).
        pixels: (V, 21, 2).
        confidence: (V, 21).
    """
    missed = project(cameras, points[None] / MM) - pixels
    return jnp.sum(confidence * jnp.sum(missed * missed, -1))


def smooth_term(points: Array, before: Array) -> Array:
    """sum_j |X_j - X'_j|^2 to the frame before; (21, 3) millimetres both."""
    return jnp.sum(jnp.square(points - before))


def shape_term(points: Array, before: Array) -> Array:
    """|Xc R^T - X'c|_F^2 of points about their wrists: what is left of the change once the hand is turned back.

    R is the nearest rotation, its determinant 1. It minimises the term, so that the gradient is that with R held fixed
    (envelope theorem).

    Args:
        points: (21, 3) millimetres.
        before: (21, 3) of the frame before.
    """
    x, y = points - points[:1], before - before[:1]
    R = nearest_rotation(lax.stop_gradient(jnp.einsum("ki,kj->ij", y, x, precision=HIGHEST)))
    return jnp.sum(jnp.square(jnp.einsum("ij,kj->ki", R, x, precision=HIGHEST) - y))


def biomechanics_term(points: Array, left: Array) -> Array:
    """Squares of what is beyond a hand's limits: bones in millimetres, angles in degrees, the palm's curvature in
    1 / metre (Spurr et al., ECCV 2020).

    Args:
        points: (21, 3) millimetres.
        left: whether it is a left hand.
    """
    mirrored = jnp.where(left, mirror_points(points), points) / MM
    excess = bone_excess(mirrored, bone_limits())
    degrees = 180 / np.pi
    scaled = (MM * excess.lengths, excess.curvature, degrees * excess.spread)
    scaled += (degrees * excess.flexion, degrees * excess.abduction)
    return sum((jnp.sum(x * x) for x in scaled), jnp.zeros(()))


def frame_loss(
    points: Array, before: Array, cameras: Camera, pixels: Array, confidence: Array, left: Array, config: Config
) -> Array:
    """What a frame's points (21, 3), millimetres, should make small; `before` are those of the last frame."""
    total = config.reprojection * reprojection_term(points, cameras, pixels, confidence)
    total += config.smooth * smooth_term(points, before)
    if config.shape:
        total += config.shape * shape_term(points, before)
    if config.biomechanics:
        total += config.biomechanics * biomechanics_term(points, left)
    return total


@jax.jit
def first_points(
    cameras: Camera, wrist2d: ArrayLike, wrist_confidence: ArrayLike, hand: HandModel
) -> Float[Array, "n 2 21 3"]:
    """A canonical hand at each body wrist, triangulated in the first frame that has it; metres.

    Args:
        cameras: (N, V).
        wrist2d: (N, T, V, 2, 2) pixels, right and left.
        wrist_confidence: (N, T, V, 2).
        hand: right; the left hand is its mirror image.
    """
    rest = keypoints(hand, HandParams.zeros(num_betas=hand.num_betas))
    rest = rest - rest[:1]
    canonical = jnp.stack([rest, mirror_points(rest)])
    seen = jax.vmap(jax.vmap(lambda c, uv, w: triangulate_robust(c, uv, w, threshold=30.0)[0], (None, 0, 0)))
    wrists = seen(cameras, jnp.asarray(wrist2d), jnp.asarray(wrist_confidence))  # (n, t, 2)
    first = jnp.argmax(wrists.valid, 1)  # of either hand, the first frame that has it
    return jnp.take_along_axis(wrists.points, first[:, None, :, None], 1)[:, 0, :, None] + canonical


def reconstruct(
    start: Array, cameras: Camera, pixels: Array, confidence: Array, left: Array, config: Config
) -> Float[Array, "t 21 3"]:
    """One hand through one sequence, each frame from the result of the one before.

    Args:
        start: (21, 3) metres.
        cameras: (V,).
        pixels: (T, V, 21, 2).
        confidence: (T, V, 21).
        left: whether it is a left hand.
        config: weights.

    Returns:
        (T, 21, 3) metres.
    """
    sure = jnp.where(confidence >= config.least, confidence, 0)
    seen = jnp.where(sure[..., None] > 0, pixels, 0)  # what is dropped may hold anything

    def solved(loss: Callable[[Array], Array], before: Array, iterations: int) -> Array:
        flat = before.reshape(-1)
        return lbfgs(lambda x: loss(x.reshape(21, 3)), flat, iterations=iterations, first_step=10.0).x.reshape(21, 3)

    alone = lambda x: reprojection_term(x, cameras, seen[0], sure[0])  # noqa: E731  # nothing comes before it
    begin = solved(alone, MM * start, 4 * config.iterations)

    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        points = solved(lambda x: frame_loss(x, before, cameras, *now, left, config), before, config.iterations)
        return points, points

    _, rest = lax.scan(step, begin, (seen[1:], sure[1:]))
    return jnp.concatenate([begin[None], rest]) / MM


def solve(inputs: Inputs, config: Config, hand: HandModel) -> Outputs:
    """Both hands of N sequences.

    Args:
        inputs: of N sequences.
        config: thresholds and weights.
        hand: right, for the first points.
    """
    seen = inputs.seen if isinstance(inputs.seen, Detections) else read_video(inputs.seen, config)
    start = first_points(inputs.cameras, inputs.wrist2d, inputs.wrist_confidence, hand)
    return Outputs(reconstruct_all(start, inputs.cameras, seen, config), seen)


@partial(jax.jit, static_argnames="config")
def reconstruct_all(start: Array, cameras: Camera, seen: Detections, config: Config) -> Float[Array, "n t 2 21 3"]:
    """`reconstruct` of both hands of all sequences; arguments as there, with leading axes N, and 2 for hands."""
    of_hands = jax.vmap(partial(reconstruct, config=config), (0, None, 2, 2, 0), 1)
    of_all = jax.vmap(of_hands, (0, 0, 0, 0, None))
    return of_all(start, cameras, seen.keypoints2d, seen.confidence, jnp.asarray(LEFT))
