"""Fit hands to measured landmarks: one frame at a time (`fit`) or a sequence of one shape, smooth in time
(`fit_sequence`).

Both run one batched Levenberg-Marquardt solve in a single jitted call. A hand by itself is a sequence of one frame.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.fitting.banded import marginal_covariance, solve_bordered
from jhand.fitting.lm import damped_iterations
from jhand.fitting.measurements import (
    FitSettings,
    FreeWeakCamera,
    InPicture,
    InSpace,
    Measurements,
    cost,
    linearise,
    point_precision,
    predict_2d,
    predict_3d,
    retract,
)
from jhand.fitting.starts import start_3d, starts_2d
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.rotations import so3_exp
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams

_ANNEAL_RATE = 0.3
_MIN_POINTS = 3  # fewer do not place a hand
_NOMINAL_FOCAL = 1000.0
"""Pixels: sets only the depth at which a hand seen without a camera is reported."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fit:
    """Fitted hands. Leading axes are those of the measurements, the last of them time for a sequence."""

    params: HandParams
    keypoints: Float[Array, "*b 21 3"]
    """openpose21 keypoints of the fitted hand, metres."""
    landmarks: Float[Array, "*b k 3"]
    """The fitted points that the measurements were compared with, metres."""
    errors: Float[Array, "*b k"]
    """Distance of each landmark from its measurement: metres in 3D, pixels where only 2D was given; 0 where nothing was
    seen."""
    rms: Float[Array, "*b"]
    """Weighted root mean square of `errors`."""
    converged: Bool[Array, "*b"]
    covariance: Float[Array, "*b d d"]
    """Of wrist rotation (3, left perturbation), hand_pose (45), transl (3) and betas; what nothing observes shows the
    prior's."""
    camera: Camera | WeakCamera | None
    """The camera of the 2D measurements; for a hand seen without a camera the weak one that was estimated; None without
    any."""


def _solve(
    hand: HandModel,
    start: HandParams,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> tuple[HandParams, Array, Array]:
    """Sequences (N, T): parameters with betas (N, B), final cost (N,) and whether each converged (N,)."""

    def solve_one(start: HandParams, seen: Measurements) -> tuple[HandParams, Array, Array]:
        # less trust in the measurements is more weight on the priors
        first_weight = jnp.maximum(jnp.square(settings.anneal) * point_precision(seen, start.transl, settings), 1.0)
        warm_up = jnp.ceil(jnp.log(first_weight) / -np.log(_ANNEAL_RATE))

        def prior_weight(i: Array) -> Array:
            return jnp.maximum(first_weight * _ANNEAL_RATE**i, 1.0)

        def propose(params: HandParams, i: Array, damping: Array) -> tuple[Array, HandParams]:
            eq = linearise(hand, params, landmark_set, seen, settings, dt, prior_weight(i), shape_is_free)
            frame = jnp.arange(eq.A.shape[-1])
            A = eq.A.at[:, frame, frame].multiply(1 + damping)
            C = eq.C + jnp.diag(damping * jnp.diag(eq.C))
            frames, shared = solve_bordered(A, eq.q, eq.B, C, -eq.g, -eq.g_shared)
            return eq.cost, retract(params, frames, shape_is_free * shared)

        def total(params: HandParams, i: Array) -> Array:
            return cost(hand, params, landmark_set, seen, settings, dt, prior_weight(i))

        end = damped_iterations(
            propose, total, start, iterations=iterations, tolerance=settings.tolerance, warm_up=warm_up
        )
        return end.x, end.cost, end.converged

    return jax.vmap(solve_one)(start, seen)


def _solve_alone(
    hand: HandModel,
    starts: HandParams,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> tuple[HandParams, Array, Array]:
    """Frames by themselves (N, 1) from S starts each (N, S): parameters, costs and convergence of all (N, S, ...)."""
    num, num_starts = starts.transl.shape[:2]
    flat = jax.tree.map(lambda a: a.reshape(num * num_starts, 1, *a.shape[2:]), starts)
    again = jax.tree.map(lambda a: jnp.repeat(a, num_starts, axis=0), seen)
    params, final, converged = _solve(
        hand, replace(flat, betas=flat.betas[:, 0]), landmark_set, again, settings, 1.0, shape_is_free, iterations
    )
    params = replace(params, betas=params.betas[:, None])
    unflat = lambda a: a.reshape(num, num_starts, *a.shape[2:])  # noqa: E731
    return jax.tree.map(unflat, params), unflat(final[:, None]), unflat(converged[:, None])


def _starts(hand: HandModel, landmark_set: LandmarkSet, seen: Measurements, betas: Array) -> HandParams:
    """Where to begin with frames by themselves (N, 1, ...): parameters (N, S, ...)."""
    first = _map_points(lambda a: a[:, 0], seen, seen.linked)
    if first.space is not None:
        return start_3d(hand, landmark_set, first.space.points, first.space.weights, betas)
    assert first.picture is not None  # something was measured
    points, weights = first.picture.points, first.picture.weights
    return starts_2d(hand, landmark_set, points, weights, first.picture.camera, betas)


@jax.jit
def _fit_alone(
    hand: HandModel,
    starts: HandParams | None,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    betas: Array,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> Fit:
    """The best of all starts for each of N hands, as (N, 1)."""
    if starts is None:
        starts = _starts(hand, landmark_set, seen, betas)
    params, final, converged = _solve_alone(hand, starts, landmark_set, seen, settings, shape_is_free, iterations)
    best, row = jnp.argmin(final, axis=1), jnp.arange(final.shape[0])
    params = jax.tree.map(lambda a: a[row, best][:, None], params)
    params = replace(params, betas=params.betas[:, 0])
    return _describe(hand, params, converged[row, best], landmark_set, seen, settings, 1.0, shape_is_free)


@jax.jit
def _start_sequence(
    hand: HandModel,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    betas: Array,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> HandParams:
    """Frames of N sequences fitted by themselves, and of each frame's explanations the one on the cheapest path."""
    num, num_frames = seen.weights.shape[:2]
    has_evidence = jnp.sum(seen.weights > 0, -1) >= _MIN_POINTS
    alone = _map_points(lambda a: a.reshape(num * num_frames, 1, *a.shape[2:]), seen, jnp.zeros((num * num_frames, 0)))
    starts = _starts(hand, landmark_set, alone, jnp.repeat(betas, num_frames, axis=0))
    candidates, final, _ = _solve_alone(hand, starts, landmark_set, alone, settings, shape_is_free, iterations)
    shape = (num, num_frames, final.shape[-1])
    candidates = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[2:]), candidates)
    params = jax.vmap(_cheapest_path)(candidates, final.reshape(shape), has_evidence)
    evidence = has_evidence[..., None].astype(jnp.float32)
    mean_shape = jnp.sum(evidence * params.betas, 1) / jnp.sum(evidence, 1)
    return replace(params, betas=jnp.where(shape_is_free > 0, mean_shape, betas))


@jax.jit
def _fit_together(
    hand: HandModel,
    start: HandParams,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> Fit:
    """N sequences of T frames, each solved at once."""
    params, _, converged = _solve(hand, start, landmark_set, seen, settings, dt, shape_is_free, iterations)
    return _describe(hand, params, converged, landmark_set, seen, settings, dt, shape_is_free)


def _describe(
    hand: HandModel,
    params: HandParams,
    converged: Array,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
) -> Fit:
    """What users see of a solution (N, T) with betas (N, B)."""
    points = jax.vmap(lambda p: predict_3d(hand, p, landmark_set))(params)
    camera, weights = None, seen.weights
    errors = jnp.zeros_like(weights)
    if seen.picture is not None:
        camera = seen.picture.camera
        uv = jax.vmap(predict_2d)(camera, points, params.transl)
        errors = jnp.linalg.norm(uv - seen.picture.points, axis=-1)
    if seen.space is not None:
        errors = jnp.linalg.norm(points - seen.space.points, axis=-1)
    errors = jnp.where(weights > 0, errors, 0)
    total = jnp.sum(weights, -1)
    rms = jnp.sqrt(jnp.sum(weights * jnp.square(errors), -1) / jnp.where(total > 0, total, 1))

    def covariance(params: HandParams, seen: Measurements) -> Array:
        eq = linearise(hand, params, landmark_set, seen, settings, dt, 1.0, shape_is_free)
        return marginal_covariance(eq.A, eq.q, eq.B, eq.C)

    if isinstance(camera, FreeWeakCamera):
        scale = camera.focal / params.transl[..., 2]
        camera = WeakCamera(scale=scale, offset=jnp.zeros((*scale.shape, 2)))
    covariances = jax.vmap(covariance)(params, seen)
    params = replace(params, betas=jnp.broadcast_to(params.betas[:, None], (*rms.shape, hand.num_betas)))
    return Fit(
        params=params,
        keypoints=keypoints(hand, params),
        landmarks=points,
        errors=errors,
        rms=rms,
        converged=jnp.broadcast_to(converged[:, None], rms.shape),
        covariance=covariances,
        camera=camera,
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


def _gather(
    hand: HandModel,
    num_time_axes: int,
    keypoints3d: ArrayLike | None,
    keypoints2d: ArrayLike | None,
    camera: Camera | WeakCamera | None,
    weights: ArrayLike | None,
    weights2d: ArrayLike | None,
    landmarks: LandmarkSet | None,
) -> tuple[LandmarkSet, Measurements, tuple[int, ...]]:
    """Measurements as (N, T, ...) and the leading axes they came with."""
    landmark_set = keypoint_landmarks(hand) if landmarks is None else landmarks
    space = picture = None
    if keypoints3d is not None:
        space = InSpace(*_points("keypoints3d", keypoints3d, weights, landmark_set, 3))
    if keypoints2d is not None:
        if keypoints3d is not None and camera is None:
            raise ValueError("keypoints2d beside keypoints3d need a camera: their frame is known in metres")
        trust = weights if weights2d is None else weights2d
        points, trust = _points("keypoints2d", keypoints2d, trust, landmark_set, 2)
        batch = points.shape[:-2]
        seen_by = FreeWeakCamera(jnp.full(batch, _NOMINAL_FOCAL)) if camera is None else _repeat(camera, batch)
        picture = InPicture(points, trust, seen_by)
    measured = picture if space is None else space
    if measured is None:
        raise ValueError("nothing to fit: give keypoints3d (..., 21, 3), keypoints2d (..., 21, 2), or both")
    batch = measured.weights.shape[:-1]
    if space is not None and picture is not None and picture.weights.shape != space.weights.shape:
        raise ValueError(f"keypoints3d and keypoints2d: leading axes differ, {batch} and {picture.weights.shape[:-1]}")
    if len(batch) < num_time_axes:
        raise ValueError("fit_sequence needs a time axis: (..., T, 21, 3) or (..., T, 21, 2); for one frame use fit")
    frames = batch[-1] if num_time_axes else 1
    num = int(np.prod(batch)) // max(frames, 1)
    seen = Measurements(space, picture, jnp.ones((num, max(frames - 1, 0))))
    return landmark_set, _map_points(lambda a: a.reshape(num, frames, *a.shape[len(batch) :]), seen, seen.linked), batch


def _map_points(change: Callable[[Array], Array], seen: Measurements, linked: Array) -> Measurements:
    """Every array of the measured points changed alike."""
    return Measurements(jax.tree.map(change, seen.space), jax.tree.map(change, seen.picture), linked)


def _repeat(camera: Camera | WeakCamera, batch: tuple[int, ...]) -> Camera | WeakCamera:
    """A camera for every frame."""
    core = {"K": 2, "T_cam_world": 2, "distortion": 1, "scale": 0, "offset": 1}
    repeated = {}
    for field in fields(camera):
        array = jnp.asarray(getattr(camera, field.name))
        tail = array.shape[array.ndim - core[field.name] :]
        repeated[field.name] = jnp.broadcast_to(array, (*batch, *tail))
    return replace(camera, **repeated)


def fit(
    hand: HandModel,
    *,
    keypoints3d: ArrayLike | None = None,
    keypoints2d: ArrayLike | None = None,
    camera: Camera | WeakCamera | None = None,
    weights: ArrayLike | None = None,
    weights2d: ArrayLike | None = None,
    landmarks: LandmarkSet | None = None,
    betas: ArrayLike | None = None,
    start: HandParams | None = None,
    settings: FitSettings = FitSettings(),
    iterations: int = 60,
) -> Fit:
    """Recover independent hands from landmarks.

    Args:
        hand: the model.
        keypoints3d: (..., 21, 3) metres, openpose21 order; with `landmarks` (..., K, 3).
        keypoints2d: (..., 21, 2) pixels.
        camera: of the 2D points, leading axes broadcast; None for 2D points of an unknown camera, which are fitted by
            scaled
            orthography: their depth and true size stay unknown and are the prior's.
        weights: (..., 21) trust in each point, 0 for what is missing; measurements have sigma / sqrt(weight).
        weights2d: the same for the 2D points; by default `weights`.
        landmarks: what the points are, by default the 21 keypoints.
        betas: (..., B) known shape, which is kept; by default it is estimated.
        start: where to begin; by default from the points.
        settings: sigmas and priors.
        iterations: the most to take.

    Returns:
        The fit, with leading axes (...).

    Raises:
        ValueError: points of another shape than the landmarks, or not finite under a positive weight.
    """
    landmark_set, seen, batch = _gather(hand, 0, keypoints3d, keypoints2d, camera, weights, weights2d, landmarks)
    num = seen.weights.shape[0]
    shape_is_free = jnp.asarray(betas is None, jnp.float32)
    known = jnp.zeros(hand.num_betas) if betas is None else jnp.asarray(betas)
    known = jnp.broadcast_to(known, (*batch, hand.num_betas)).reshape(num, hand.num_betas)

    if start is not None:
        start = jax.tree.map(lambda a, z: jnp.broadcast_to(a, z.shape), start, HandParams.zeros(batch, hand.num_betas))
        start = jax.tree.map(lambda a: a.reshape(num, 1, *a.shape[len(batch) :]), start)
        start = start if betas is None else replace(start, betas=known[:, None])
    found = _fit_alone(hand, start, landmark_set, seen, settings, known, shape_is_free, iterations)
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[2:]), found)


def fit_sequence(
    hand: HandModel,
    *,
    keypoints3d: ArrayLike | None = None,
    keypoints2d: ArrayLike | None = None,
    camera: Camera | WeakCamera | None = None,
    weights: ArrayLike | None = None,
    weights2d: ArrayLike | None = None,
    fps: float = 30.0,
    landmarks: LandmarkSet | None = None,
    betas: ArrayLike | None = None,
    start: HandParams | None = None,
    settings: FitSettings = FitSettings(),
    iterations: int = 40,
) -> Fit:
    """Recover hands over time: one shape a sequence, smooth motion.

    Frames are first fitted by themselves; where a start is ambiguous (2D), the cheapest path through the candidates is
    taken. Then the whole sequence is solved at once, in time and memory linear in its length. Frames without evidence
    are bridged.

    Args:
        hand: the model.
        keypoints3d: (..., T, 21, 3) metres, openpose21 order; with `landmarks` (..., T, K, 3).
        keypoints2d: (..., T, 21, 2) pixels.
        camera: of the 2D points, leading axes broadcast; None as in `fit`.
        weights: (..., T, 21) trust in each point, 0 for what is missing.
        weights2d: the same for the 2D points; by default `weights`.
        fps: frames per second.
        landmarks: what the points are, by default the 21 keypoints.
        betas: (..., B) known shape of each sequence, which is kept; by default it is estimated.
        start: (..., T) where to begin; by default from the points.
        settings: sigmas, priors and rates.
        iterations: the most to take.

    Returns:
        The fit, with leading axes (..., T); the shape is repeated over time.

    Raises:
        ValueError: points of another shape than the landmarks, or not finite under a positive weight, or a sequence
            without any.
    """
    landmark_set, seen, batch = _gather(hand, 1, keypoints3d, keypoints2d, camera, weights, weights2d, landmarks)
    num, num_frames = seen.weights.shape[:2]
    if not fps > 0:
        raise ValueError(f"fps: expected a positive number, got {fps}")
    has_evidence = jnp.sum(seen.weights > 0, -1) >= _MIN_POINTS
    if not isinstance(has_evidence, Tracer) and not np.asarray(has_evidence).any(-1).all():
        raise ValueError(
            "a sequence has no frame with at least three points of positive weight: there is no hand to fit"
        )
    shape_is_free = jnp.asarray(betas is None, jnp.float32)
    known = jnp.zeros(hand.num_betas) if betas is None else jnp.asarray(betas)
    known = jnp.broadcast_to(known, (*batch[:-1], hand.num_betas)).reshape(num, hand.num_betas)
    seen = _pad_time(seen, _size_class(num_frames))

    if start is None:
        params = _start_sequence(hand, landmark_set, seen, settings, known, shape_is_free, jnp.minimum(iterations, 15))
    else:
        start = jax.tree.map(lambda a, z: jnp.broadcast_to(a, z.shape), start, HandParams.zeros(batch, hand.num_betas))
        params = jax.tree.map(lambda a: a.reshape(num, num_frames, *a.shape[len(batch) :]), start)
        shape = params.betas.mean(1) if betas is None else known
        params = replace(_repeat_last(params, seen.linked.shape[1] + 1), betas=shape)
    found = _fit_together(hand, params, landmark_set, seen, settings, 1.0 / fps, shape_is_free, iterations)
    return jax.tree.map(lambda a: a[:, :num_frames].reshape(*batch, *a.shape[2:]), found)


def _size_class(num_frames: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, ...: sequences of nearly the same length share one compiled solve."""
    power = 1 << (num_frames - 1).bit_length()
    return power * 3 // 4 if num_frames <= power * 3 // 4 else power


def _repeat_last(tree: Any, num_frames: int) -> Any:
    """Arrays (N, T, ...) lengthened to `num_frames` by repeating their last frame."""
    return jax.tree.map(lambda a: a[:, jnp.minimum(jnp.arange(num_frames), a.shape[1] - 1)], tree)


def _pad_time(seen: Measurements, num_frames: int) -> Measurements:
    """Unrelated frames without evidence appended."""
    given = seen.linked.shape[1] + 1
    linked = jnp.pad(seen.linked, ((0, 0), (0, num_frames - given)))
    longer = _map_points(lambda a: _repeat_last(a, num_frames), seen, linked)
    is_given = (jnp.arange(num_frames) < given).astype(jnp.float32)[:, None]
    if longer.space is not None:
        longer = replace(longer, space=replace(longer.space, weights=longer.space.weights * is_given))
    if longer.picture is not None:
        longer = replace(longer, picture=replace(longer.picture, weights=longer.picture.weights * is_given))
    return longer


def _cheapest_path(candidates: HandParams, final: Array, has_evidence: Array) -> HandParams:
    """One of S candidates for each of T frames (T, S, ...), by fit and continuity of orientation (Viterbi 1967).

    A hand seen in 2D has near-equal explanations mirrored in depth; alone, frames would flip between them. Frames
    without evidence repeat the last one that had some.
    """
    num_frames = final.shape[0]
    frames = jnp.arange(num_frames)
    source = lax.cummax(jnp.where(has_evidence, frames, -1))
    source = jnp.where(source < 0, jnp.argmax(has_evidence), source)
    candidates = jax.tree.map(lambda a: a[source], candidates)
    unary = jnp.where(has_evidence[:, None], final, 0)
    R = so3_exp(candidates.global_orient)
    # |R_a - R_b|^2 / 2 is the squared angle between near rotations and saturates for far ones; sigma 0.3 rad a frame
    turn = jnp.sum(jnp.square(R[1:, :, None] - R[:-1, None]), (-1, -2)) / 2 / 0.3**2

    def forward(best: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        cost_t, turn_t = step
        through = best + turn_t  # (to, from)
        return cost_t + jnp.min(through, -1), jnp.argmin(through, -1)

    last, came_from = lax.scan(forward, unary[0], (unary[1:], turn))
    end = jnp.argmin(last)
    _, path = lax.scan(lambda s, back: (back[s], back[s]), end, came_from, reverse=True)
    chosen = jnp.concatenate([path, end[None]])
    return jax.tree.map(lambda a: a[frames, chosen], candidates)
