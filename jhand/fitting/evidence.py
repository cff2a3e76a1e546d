"""What users give to a fit: checked, and laid out as (N, T, ...), padded to a size class.

All on the host, in numpy: dozens of small operations, each dispatched by itself, would take longer than the fit of a
hand. Only what is traced stays where it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from jhand.fitting.batches import map_term, size_class
from jhand.fitting.measurements import FitSettings, Measurements
from jhand.fitting.terms import FreeWeakCamera, Term, points_2d, points_3d
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.multiview import triangulate
from jhand.hand.landmark_sets import LandmarkSet

MIN_POINTS = 3  # fewer do not place a hand
_NOMINAL_FOCAL = 1000.0
"""Pixels: sets only the depth at which a hand seen without a camera is reported."""

_Values = Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InSpace:
    """Landmarks measured in metres."""

    points: _Values
    weights: _Values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InViews:
    """Landmarks measured in pixels."""

    pixels: _Values
    """(..., V, K, 2)."""
    weights: _Values
    camera: Camera | WeakCamera | FreeWeakCamera
    """(..., V)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evidence:
    """What was measured of N sequences of T frames. Space, where it is there, goes before pictures."""

    space: InSpace | None
    views: InViews | None
    terms: tuple[Term, ...]
    given: _Values
    """(N, T): 1, or 0 for a frame that only pads."""
    linked: _Values
    """(N, T - 1): 1 where a frame follows the one before."""


@dataclass(frozen=True)
class Layout:
    """How measurements came, and how they are laid out."""

    batch: tuple[int, ...]
    """Leading axes, of a sequence with time."""
    num: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """N and T after padding."""
        return size_class(self.num), size_class(self.frames)

    def lay_out(self, a: Any) -> Any:
        """An array (*batch, ...) as (N, T, ...), lengthened by repeating its last hand and frame."""
        a = a.reshape(self.num, self.frames, *a.shape[len(self.batch) :])
        for axis, (length, given) in enumerate(zip(self.size, (self.num, self.frames), strict=True)):
            if length > given:
                a = a.take(np.minimum(np.arange(length), given - 1), axis=axis)
        return a


def points_in_space(evidence: Evidence) -> InSpace | None:
    """What was measured in space, or where views meet there (N, T, ...)."""
    views = evidence.views
    if evidence.space is not None or views is None or views.pixels.shape[2] < 2:
        return evidence.space
    assert isinstance(views.camera, Camera)
    found = triangulate(views.camera, views.pixels, views.weights)
    return InSpace(found.points, found.valid.astype(jnp.float32))


def has_evidence(evidence: Evidence, points: InSpace | None) -> Array:
    """Frames (N, T) with enough points to place a hand."""
    if points is not None:
        return jnp.sum(points.weights > 0, -1) >= MIN_POINTS
    assert evidence.views is not None
    return jnp.sum(evidence.views.weights[:, :, 0] > 0, -1) >= MIN_POINTS


def measurements(landmark_set: LandmarkSet, evidence: Evidence, settings: FitSettings) -> Measurements:
    """All that was measured as terms."""
    terms, robust = list(evidence.terms), settings.robust
    if (views := evidence.views) is not None:
        sigma = settings.sigma_2d
        terms.insert(0, points_2d(landmark_set, views.pixels, views.camera, views.weights, sigma=sigma, robust=robust))
    if (space := evidence.space) is not None:
        terms.insert(0, points_3d(landmark_set, space.points, space.weights, sigma=settings.sigma_3d, robust=robust))
    return Measurements(tuple(terms), jnp.asarray(evidence.given), jnp.asarray(evidence.linked))


def _on_host(a: ArrayLike, dtype: Any = np.float32) -> Any:
    return jnp.asarray(a, dtype) if isinstance(a, Tracer) else np.asarray(a, dtype)


def _numpy_of(a: Any) -> Any:
    """The module whose functions an array is for."""
    return jnp if isinstance(a, Tracer) else np


def _points(name: str, points: ArrayLike, weights: ArrayLike | None, K: int, size: int) -> tuple:
    """Checked measurements and weights; missing values replaced by 0."""
    points = _on_host(points)
    if points.ndim < 2 or points.shape[-2:] != (K, size):
        hint = ""
        if K == 21 and points.ndim >= 2 and points.shape[-2] == 16:
            hint = (
                "; these look like the 16 joints of MANO: convert_keypoints(..., source='mano16', target='openpose21')"
            )
        elif points.ndim >= 2 and points.shape[-2] == K and points.shape[-1] != size:
            hint = f"; each point needs {size} numbers"
        raise ValueError(f"{name}: expected shape (..., {K}, {size}), got {points.shape}{hint}")
    weights = np.ones(points.shape[:-1], np.float32) if weights is None else _on_host(weights)
    try:
        weights = _numpy_of(weights).broadcast_to(weights, points.shape[:-1])
    except ValueError:
        raise ValueError(f"weights of {name}: expected shape {points.shape[:-1]}, got {weights.shape}") from None
    if not isinstance(points, Tracer) and not isinstance(weights, Tracer):
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(f"weights of {name}: expected finite numbers of at least 0")
        broken = ~np.isfinite(points).all(-1) & (weights > 0)
        if broken.any():
            where = tuple(int(i) for i in np.argwhere(broken)[0])
            raise ValueError(
                f"{name}: {broken.sum()} points are not finite but have a positive weight, the first at {where}; "
                "give what is missing weight 0"
            )
    missing = ~(weights[..., None] > 0)
    if isinstance(missing, Tracer) or isinstance(points, Tracer):
        return jnp.where(missing, 0, points), weights
    return np.where(missing, np.float32(0), points) if missing.any() else points, weights


def gather(
    num_time_axes: int,
    keypoints3d: ArrayLike | None,
    keypoints2d: ArrayLike | None,
    camera: Camera | WeakCamera | None,
    views: int | None,
    weights: ArrayLike | None,
    weights2d: ArrayLike | None,
    num_landmarks: int,
    terms: Sequence[Term],
) -> tuple[Evidence, Layout]:
    """Everything measured, and how it is laid out."""
    space = seen = None
    batches = {}
    if keypoints3d is not None:
        space = InSpace(*_points("keypoints3d", keypoints3d, weights, num_landmarks, 3))
        batches["keypoints3d"] = space.weights.shape[:-1]
    if keypoints2d is not None:
        if camera is None and (space is not None or views is not None):
            raise ValueError(
                "keypoints2d beside keypoints3d, or in several views, need a camera: their frame is known in metres"
            )
        trust = weights if weights2d is None else weights2d
        if views is not None and space is not None and weights2d is None:
            trust = space.weights[..., None, :]
        seen = _see(num_landmarks, keypoints2d, camera, views, trust)
        batches["keypoints2d"] = seen.weights.shape[:-2]
    for term in terms:
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
    layout = Layout(batch, int(np.prod(batch)) // max(frames, 1), frames)
    given, linked = np.zeros(layout.size, np.float32), np.zeros((layout.size[0], layout.size[1] - 1), np.float32)
    given[: layout.num, :frames], linked[: layout.num, : max(frames - 1, 0)] = 1, 1
    space, seen = jax.tree.map(layout.lay_out, (space, seen))
    return Evidence(space, seen, tuple(map_term(layout.lay_out, term) for term in terms), given, linked), layout


_CAMERA_AXES = {"K": 2, "T_cam_world": 2, "distortion": 1, "scale": 0, "offset": 1}


def _see(
    num_landmarks: int,
    keypoints2d: ArrayLike,
    camera: Camera | WeakCamera | None,
    views: int | None,
    weights: ArrayLike | None,
) -> InViews:
    """Checked pixels (..., V, K, 2) and a camera for each view of each hand."""
    pixels, trust = _points("keypoints2d", keypoints2d, weights, num_landmarks, 2)
    if views is None:
        pixels, trust = pixels[..., None, :, :], trust[..., None, :]
    elif pixels.ndim < 3 or pixels.shape[-3] != views:
        raise ValueError(f"keypoints2d of {views} views: expected shape (..., {views}, K, 2), got {pixels.shape}")
    batch = pixels.shape[:-3]
    if camera is None:
        return InViews(pixels, trust, FreeWeakCamera(jnp.full((*batch, 1), _NOMINAL_FOCAL)))
    if views is not None and views > 1 and not isinstance(camera, Camera):
        raise ValueError("several views need full cameras: their places in space are what makes them several")

    def repeated(name: str, tail: int) -> Any:
        array = _on_host(getattr(camera, name))
        own = array.shape[array.ndim - tail :]
        lead = array.shape[: array.ndim - tail]
        array = array.reshape(*lead, 1, *own) if views is None else array
        return jnp.asarray(_numpy_of(array).broadcast_to(array, (*batch, views or 1, *own)))

    known = {name: repeated(name, tail) for name, tail in _CAMERA_AXES.items() if hasattr(camera, name)}
    return InViews(pixels, trust, replace(camera, **known))
