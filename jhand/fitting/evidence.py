"""What users give to a fit, checked and laid out as (N, T, ...): its terms, and the landmarks that were measured one by
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from jhand.fitting.batches import map_term
from jhand.fitting.measurements import FitSettings, Measurements
from jhand.fitting.terms import FreeWeakCamera, Term, points_2d, points_3d, repeat_camera
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.multiview import triangulate
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel

_MIN_POINTS = 3  # fewer do not place a hand
_NOMINAL_FOCAL = 1000.0
"""Pixels: sets only the depth at which a hand seen without a camera is reported."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InSpace:
    """Landmarks measured in metres."""

    points: Array
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InViews:
    """Landmarks measured in pixels."""

    pixels: Array
    """(..., V, K, 2)."""
    weights: Array
    camera: Camera | WeakCamera | FreeWeakCamera
    """(..., V)."""
    triangulated: InSpace | None
    """Where several views meet, to start from."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evidence:
    """Landmarks that were measured one by one: where fits begin, and what their errors are told of. Space, where it is
    there, goes before pictures.
    """

    space: InSpace | None
    views: InViews | None


def points_in_space(evidence: Evidence) -> InSpace | None:
    """What was measured in space, or where views meet there."""
    if evidence.space is None and evidence.views is not None:
        return evidence.views.triangulated
    return evidence.space


def has_evidence(evidence: Evidence) -> Array:
    """Frames (N, T) with enough points to place a hand."""
    points = points_in_space(evidence)
    if points is None and evidence.views is not None:
        return jnp.sum(evidence.views.weights[:, :, 0] > 0, -1) >= _MIN_POINTS
    weights = jnp.zeros((1, 1, 0)) if points is None else points.weights
    return jnp.sum(weights > 0, -1) >= _MIN_POINTS


def check_evidence(evidence: Evidence) -> None:
    if evidence.space is None and evidence.views is None:
        raise ValueError("terms alone do not say where the hand is: give a start, or keypoints")
    enough = has_evidence(evidence)
    if not isinstance(enough, Tracer) and not np.asarray(enough).any(-1).all():
        raise ValueError(
            "a sequence has no frame with at least three points of positive weight: there is no hand to fit"
        )


def _points(name: str, points: ArrayLike, weights: ArrayLike | None, landmark_set: LandmarkSet, size: int) -> tuple:
    """Checked measurements and weights; missing values replaced by 0."""
    points = jnp.asarray(points, jnp.float32)
    K = len(landmark_set.names)
    if points.ndim < 2 or points.shape[-2:] != (K, size):
        hint = ""
        if K == 21 and points.ndim >= 2 and points.shape[-2] == 16:
            hint = (
                "; these look like the 16 joints of MANO: convert_keypoints(..., source='mano16', target='openpose21')"
            )
        elif points.ndim >= 2 and points.shape[-2] == K and points.shape[-1] != size:
            hint = f"; each point needs {size} numbers"
        raise ValueError(f"{name}: expected shape (..., {K}, {size}), got {points.shape}{hint}")
    if weights is None:
        weights = jnp.ones(points.shape[:-1])
    weights = jnp.asarray(weights, jnp.float32)
    try:
        weights = jnp.broadcast_to(weights, points.shape[:-1])
    except ValueError:
        raise ValueError(f"weights of {name}: expected shape {points.shape[:-1]}, got {weights.shape}") from None
    if not isinstance(points, Tracer) and not isinstance(weights, Tracer):
        p, w = np.asarray(points), np.asarray(weights)
        if not np.isfinite(w).all() or (w < 0).any():
            raise ValueError(f"weights of {name}: expected finite numbers of at least 0")
        broken = ~np.isfinite(p).all(-1) & (w > 0)
        if broken.any():
            where = tuple(int(i) for i in np.argwhere(broken)[0])
            raise ValueError(
                f"{name}: {broken.sum()} points are not finite but have a positive weight, the first at {where}; "
                "give what is missing weight 0"
            )
    return jnp.where(weights[..., None] > 0, points, 0), weights


def gather(
    hand: HandModel,
    num_time_axes: int,
    keypoints3d: ArrayLike | None,
    keypoints2d: ArrayLike | None,
    camera: Camera | WeakCamera | None,
    views: int | None,
    weights: ArrayLike | None,
    weights2d: ArrayLike | None,
    landmarks: LandmarkSet | None,
    terms: Sequence[Term],
    settings: FitSettings,
) -> tuple[LandmarkSet, Evidence, Measurements, tuple[int, ...]]:
    """Measurements as (N, T, ...) and the leading axes they came with."""
    landmark_set = keypoint_landmarks(hand) if landmarks is None else landmarks
    space = views_seen = None
    every, batches = [], {}
    if keypoints3d is not None:
        space = InSpace(*_points("keypoints3d", keypoints3d, weights, landmark_set, 3))
        sigma, robust = settings.sigma_3d, settings.robust
        every.append(points_3d(landmark_set, space.points, space.weights, sigma=sigma, robust=robust))
        batches["keypoints3d"] = space.weights.shape[:-1]
    if keypoints2d is not None:
        if camera is None and (space is not None or views is not None):
            raise ValueError(
                "keypoints2d beside keypoints3d, or in several views, need a camera: their frame is known in metres"
            )
        trust = weights if weights2d is None else weights2d
        if views is not None and space is not None and weights2d is None:
            trust = space.weights[..., None, :]
        views_seen = _see(landmark_set, keypoints2d, camera, views, trust)
        uv, sigma, robust = views_seen.pixels, settings.sigma_2d, settings.robust
        every.append(points_2d(landmark_set, uv, views_seen.camera, views_seen.weights, sigma=sigma, robust=robust))
        batches["keypoints2d"] = views_seen.weights.shape[:-2]
    for term in terms:
        every.append(term)
        batches[f"a term of {len(term.landmarks.names)} landmarks"] = term.weights.shape[:-1]
    if not batches:
        raise ValueError("nothing to fit: give keypoints3d (..., 21, 3), keypoints2d (..., 21, 2), or terms")
    batch = next(iter(batches.values()))
    if any(other != batch for other in batches.values()):
        differ = ", ".join(f"{name} {shape}" for name, shape in batches.items())
        raise ValueError(f"measurements of the same hands have the same leading axes, got {differ}")
    if len(batch) < num_time_axes:
        raise ValueError("fit_sequence needs a time axis: (..., T, 21, 3) or (..., T, 21, 2); for one frame use fit")
    frames = batch[-1] if num_time_axes else 1
    num = int(np.prod(batch)) // max(frames, 1)
    into = lambda a: a.reshape(num, frames, *a.shape[len(batch) :])  # noqa: E731
    seen = Measurements(
        tuple(map_term(into, term) for term in every), jnp.ones((num, frames)), jnp.ones((num, max(frames - 1, 0)))
    )
    return landmark_set, jax.tree.map(into, Evidence(space, views_seen)), seen, batch


def _see(
    landmark_set: LandmarkSet,
    keypoints2d: ArrayLike,
    camera: Camera | WeakCamera | None,
    views: int | None,
    weights: ArrayLike | None,
) -> InViews:
    """Checked pixels (..., V, K, 2) and a camera for each view of each hand."""
    pixels, trust = _points("keypoints2d", keypoints2d, weights, landmark_set, 2)
    if views is None:
        pixels, trust = pixels[..., None, :, :], trust[..., None, :]
    elif pixels.ndim < 3 or pixels.shape[-3] != views:
        raise ValueError(f"keypoints2d of {views} views: expected shape (..., {views}, K, 2), got {pixels.shape}")
    batch = pixels.shape[:-3]
    if camera is None:
        seen_by = FreeWeakCamera(jnp.full((*batch, 1), _NOMINAL_FOCAL))
    elif views is None:
        seen_by = jax.tree.map(lambda a: jnp.expand_dims(a, len(batch)), repeat_camera(camera, batch))
    else:
        seen_by = repeat_camera(camera, (*batch, views))
    if views is None or views < 2:
        return InViews(pixels, trust, seen_by, None)
    if not isinstance(seen_by, Camera):
        raise ValueError("several views need full cameras: their places in space are what makes them several")
    found = triangulate(seen_by, pixels, trust)
    return InViews(pixels, trust, seen_by, InSpace(found.points, found.valid.astype(jnp.float32)))
