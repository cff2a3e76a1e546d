"""Fit hands to measured landmarks: one frame at a time (`fit`) or a sequence of one shape, smooth in time
(`fit_sequence`).

Both run one batched Levenberg-Marquardt solve in a single jitted call. A hand by itself is a sequence of one frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.fitting.banded import marginal_covariance, solve_bordered
from jhand.fitting.lm import damped_iterations, zeros_of
from jhand.fitting.measurements import (
    FitSettings,
    Measurements,
    NormalEquations,
    State,
    add_priors,
    linearise,
    match,
    precision,
    predict_3d,
    prior_cost,
    retract,
)
from jhand.fitting.starts import start_3d, starts_2d
from jhand.fitting.terms import (
    CAMERA_UNKNOWNS,
    FreeWeakCamera,
    Pixel,
    Term,
    adjust_camera,
    image_point,
    points_2d,
    points_3d,
    repeat_camera,
)
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.multiview import triangulate
from jhand.geometry.rotations import so3_exp
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams

_ANNEAL_RATE = 0.3
_MIN_POINTS = 3  # fewer do not place a hand
_ANOTHER = 0.005  # metres: explanations nearer than this are one
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
    """The fitted points that keypoints3d and keypoints2d were compared with, metres."""
    errors: Float[Array, "..."]
    """(..., K), or (..., V, K) for V views: distance of each landmark from its measurement, metres in 3D, pixels where
    only 2D was given; 0 where nothing was seen."""
    rms: Float[Array, "*b"]
    """Weighted root mean square of `errors`."""
    cost: Float[Array, "*b"]
    """What was minimised: the sum of squared residuals in sigmas, priors included; of a sequence in every frame."""
    converged: Bool[Array, "*b"]
    covariance: Float[Array, "*b d d"]
    """Of wrist rotation (3, left perturbation), hand_pose (45), transl (3), betas and, where they were refined, cameras
    (7 each); what nothing observes shows the prior's."""
    camera: Camera | WeakCamera | None
    """The camera of the 2D measurements, refined where that was asked for; for a hand seen without a camera the weak
    one that was estimated; None without any."""
    runner_up: HandParams | None
    """The best explanation that is another one, from several starts: its keypoints lie over 5 mm off on average. The
    solution itself where all starts agree; None for sequences."""
    runner_up_cost: Float[Array, "*b"] | None
    """Its cost: near `cost` where the measurements leave open which of both it was; infinite where there is none."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _InSpace:
    """Landmarks measured in metres."""

    points: Array
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _InViews:
    """Landmarks measured in pixels."""

    pixels: Array
    """(..., V, K, 2)."""
    weights: Array
    camera: Camera | WeakCamera | FreeWeakCamera
    """(..., V)."""
    triangulated: _InSpace | None
    """Where several views meet, to start from."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Evidence:
    """Landmarks that were measured one by one: where fits begin, and what their errors are told of. Space, where it is
    there, goes before pictures.
    """

    space: _InSpace | None
    views: _InViews | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Solved:
    """Where sequences ended (N, ...)."""

    state: State
    """Frames (N, T, ...), betas (N, B)."""
    cost: Array
    converged: Array
    equations: NormalEquations
    """There, priors included."""


def _solve(
    hand: HandModel,
    start: State,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> _Solved:
    """Solve N sequences of T frames."""
    moving = any(term.correspond is not None for term in seen.terms)

    def solve_one(one: Measurements, start: State) -> _Solved:
        matched = replace(one, terms=match(hand, start.params, one.terms))
        # less trust in the measurements is more weight on the priors
        first_weight = jnp.maximum(jnp.square(settings.anneal) * precision(hand, start, matched), 1.0)
        warm_up = jnp.ceil(jnp.log(first_weight) / -np.log(_ANNEAL_RATE)).astype(jnp.int32)

        def iterate(state: State, seen: Measurements, done: Array | int, num: Array | int) -> _Solved:
            def prior_weight(i: Array) -> Array:
                return jnp.maximum(first_weight * _ANNEAL_RATE ** (i + done), 1.0)

            def equations_at(state: State) -> NormalEquations:
                return linearise(hand, state, seen, settings, dt, shape_is_free)

            def propose(state: State, equations: NormalEquations, i: Array, damping: Array) -> State:
                eq = add_priors(hand, state.params, equations, settings, prior_weight(i), shape_is_free)
                frame = jnp.arange(eq.A.shape[-1])
                A = eq.A.at[:, frame, frame].multiply(1 + damping)
                C = eq.C + jnp.diag(damping * jnp.diag(eq.C))
                frames, shared = solve_bordered(A, eq.Q, eq.B, C, -eq.g, -eq.g_shared)
                return retract(state, frames, shared.at[: hand.num_betas].multiply(shape_is_free))

            def total(state: State, equations: NormalEquations, i: Array) -> Array:
                return equations.cost + prior_weight(i) * prior_cost(hand, state.params, settings)

            end, equations = damped_iterations(
                equations_at,
                propose,
                total,
                state,
                iterations=num,
                tolerance=settings.tolerance,
                warm_up=warm_up - done,
            )
            eq = add_priors(hand, end.x.params, equations, settings, 1.0, shape_is_free)
            return _Solved(end.x, end.cost, end.converged, eq)

        if not moving:
            return iterate(start, matched, 0, iterations)

        def rematch(i: Array, solved: _Solved) -> _Solved:
            matched = replace(one, terms=match(hand, solved.state.params, one.terms))
            return iterate(solved.state, matched, i * settings.refresh, settings.refresh)

        blank = zeros_of(lambda: iterate(start, matched, 0, 0))
        rounds = -(-jnp.asarray(iterations) // settings.refresh)
        return lax.fori_loop(0, rounds, rematch, replace(blank, state=start))

    return _for_each_hand(solve_one, seen, start)


def _solve_alone(
    hand: HandModel,
    starts: HandParams,
    num_cameras: int,
    seen: Measurements,
    settings: FitSettings,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> _Solved:
    """Frames by themselves (N, 1) from S starts each (N, S), as N S sequences of one frame."""
    num, num_starts = starts.transl.shape[:2]
    flat = jax.tree.map(lambda a: a.reshape(num * num_starts, 1, *a.shape[2:]), starts)
    again = _map_arrays(lambda a: jnp.repeat(a, num_starts, axis=0), seen, jnp.zeros((num * num_starts, 0)))
    cameras = jnp.zeros((num * num_starts, num_cameras, CAMERA_UNKNOWNS))
    start = State(replace(flat, betas=flat.betas[:, 0]), cameras)
    return _solve(hand, start, again, settings, 1.0, shape_is_free, iterations)


def _starts(hand: HandModel, landmark_set: LandmarkSet, evidence: _Evidence, betas: Array) -> HandParams:
    """Where to begin with frames by themselves (N, ...): parameters (N, S, ...)."""
    points = _points_in_space(evidence)
    if points is not None:
        return start_3d(hand, landmark_set, points.points, points.weights, betas)
    assert evidence.views is not None  # something was measured
    view = jax.tree.map(lambda a: a[:, 0], evidence.views)
    return starts_2d(hand, landmark_set, view.pixels, view.weights, view.camera, betas)


def _points_in_space(evidence: _Evidence) -> _InSpace | None:
    """What was measured in space, or where views meet there."""
    if evidence.space is None and evidence.views is not None:
        return evidence.views.triangulated
    return evidence.space


@partial(jax.jit, static_argnames="num_cameras")
def _fit_alone(
    hand: HandModel,
    starts: HandParams | None,
    landmark_set: LandmarkSet,
    evidence: _Evidence,
    seen: Measurements,
    settings: FitSettings,
    betas: Array,
    shape_is_free: Array | float,
    iterations: Array | int,
    num_cameras: int,
) -> Fit:
    """The best of all starts for each of N hands, as (N, 1)."""
    if starts is None:
        starts = _starts(hand, landmark_set, jax.tree.map(lambda a: a[:, 0], evidence), betas)
    num, num_starts = starts.transl.shape[:2]
    solved = _solve_alone(hand, starts, num_cameras, seen, settings, shape_is_free, iterations)
    final = solved.cost.reshape(num, num_starts)
    best, row = jnp.argmin(final, axis=1), jnp.arange(num)
    every = jax.vmap(lambda p: predict_3d(hand, p, keypoint_landmarks(hand)))(solved.state.params)
    every = every.reshape(num, num_starts, 21, 3)
    apart = jnp.linalg.norm(every - every[row, best][:, None], axis=-1).mean(-1)
    others = jnp.where(apart > _ANOTHER, final, jnp.inf)
    second = jnp.where(jnp.isfinite(others).any(1), jnp.argmin(others, axis=1), best)
    pick = lambda tree, which: jax.tree.map(lambda a: a[row * num_starts + which], tree)  # noqa: E731
    runner_up = pick(solved.state.params, second)
    fit = _describe(hand, pick(solved, best), landmark_set, evidence)
    return replace(
        fit,
        runner_up=replace(runner_up, betas=runner_up.betas[:, None]),
        runner_up_cost=jnp.min(others, axis=1)[:, None],
    )


@partial(jax.jit, static_argnames="num_cameras")
def _start_sequence(
    hand: HandModel,
    landmark_set: LandmarkSet,
    evidence: _Evidence,
    seen: Measurements,
    settings: FitSettings,
    betas: Array,
    shape_is_free: Array | float,
    iterations: Array | int,
    num_cameras: int,
) -> HandParams:
    """Where to begin with N sequences: frames by themselves, and of each frame's explanations the one on the cheapest
    path.
    """
    num, num_frames = seen.given.shape
    has_evidence = _has_evidence(evidence) & (seen.given > 0)
    flat = lambda a: a.reshape(num * num_frames, *a.shape[2:])  # noqa: E731
    candidates = _starts(hand, landmark_set, jax.tree.map(flat, evidence), jnp.repeat(betas, num_frames, axis=0))
    final = jnp.zeros(candidates.transl.shape[:-1])
    if final.shape[1] > 1:  # ambiguous: what each explanation is worth is known when it is fitted
        alone = _map_arrays(lambda a: flat(a)[:, None], seen, jnp.zeros((num * num_frames, 0)))
        solved = _solve_alone(hand, candidates, num_cameras, alone, settings, shape_is_free, iterations)
        candidates = replace(solved.state.params, betas=solved.state.params.betas[:, None])
        final = solved.cost.reshape(final.shape)
    shape = (num, num_frames, final.shape[-1])
    candidates = HandParams(
        *(
            a.reshape(*shape, *tail)
            for a, tail in (
                (candidates.global_orient, (3,)),
                (candidates.hand_pose, (15, 3)),
                (candidates.betas, (hand.num_betas,)),
                (candidates.transl, (3,)),
            )
        )
    )
    params = jax.vmap(_cheapest_path)(candidates, final.reshape(shape), has_evidence)
    counted = has_evidence[..., None].astype(jnp.float32)
    mean_shape = jnp.sum(counted * params.betas, 1) / jnp.sum(counted, 1)
    return replace(params, betas=jnp.where(shape_is_free > 0, mean_shape, betas))


@jax.jit
def _fit_together(
    hand: HandModel,
    start: State,
    landmark_set: LandmarkSet,
    evidence: _Evidence,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> Fit:
    """N sequences of T frames, each solved at once."""
    solved = _solve(hand, start, seen, settings, dt, shape_is_free, iterations)
    return _describe(hand, solved, landmark_set, evidence)


def _describe(hand: HandModel, solved: _Solved, landmark_set: LandmarkSet, evidence: _Evidence) -> Fit:
    """What users see of a solution (N, T) with betas (N, B)."""
    params, cameras = solved.state.params, solved.state.cameras
    points = jax.vmap(lambda p: predict_3d(hand, p, landmark_set))(params)
    batch = params.transl.shape[:-1]
    errors = weights = jnp.zeros((*batch, len(landmark_set.names)))
    camera, views = None, evidence.views
    if views is not None:
        uv = jax.vmap(_images)(views.camera, points, params.transl, cameras)
        errors, weights, camera = jnp.linalg.norm(uv - views.pixels, axis=-1), views.weights, views.camera
        if isinstance(camera, FreeWeakCamera):
            scale = camera.focal / params.transl[..., 2:]
            camera = WeakCamera(scale=scale, offset=jnp.zeros((*scale.shape, 2)))
        elif isinstance(camera, Camera) and cameras.shape[1]:
            camera = adjust_camera(camera, cameras[:, None])
        if views.pixels.shape[2] == 1:
            errors, weights, camera = jax.tree.map(lambda a: a[:, :, 0], (errors, weights, camera))
    if evidence.space is not None:
        errors, weights = jnp.linalg.norm(points - evidence.space.points, axis=-1), evidence.space.weights
    errors = jnp.where(weights > 0, errors, 0)
    over = tuple(range(2, errors.ndim))
    total = jnp.sum(weights, over)
    rms = jnp.sqrt(jnp.sum(weights * jnp.square(errors), over) / jnp.where(total > 0, total, 1))

    eq = solved.equations
    covariance = jax.vmap(marginal_covariance)(eq.A, eq.Q, eq.B, eq.C)
    params = replace(params, betas=jnp.broadcast_to(params.betas[:, None], (*batch, hand.num_betas)))
    return Fit(
        params=params,
        keypoints=keypoints(hand, params),
        landmarks=points,
        errors=errors,
        rms=rms,
        cost=jnp.broadcast_to(solved.cost[:, None], batch),
        converged=jnp.broadcast_to(solved.converged[:, None], batch),
        covariance=covariance,
        camera=camera,
        runner_up=None,
        runner_up_cost=None,
    )


def _images(camera: Any, points: Array, transl: Array, cameras: Array) -> Array:
    """Pixels (T, V, K, 2) of landmarks (T, K, 3) in cameras (T, V)."""
    num_views = jax.tree.leaves(camera)[0].shape[1]

    def image(point: Array, transl: Array, camera: Any, view: Array) -> Array:
        return image_point(Pixel(jnp.zeros(2), camera, view), point, transl, cameras)

    over_points = jax.vmap(image, in_axes=(0, None, None, None))
    over_views = jax.vmap(over_points, in_axes=(None, None, 0, 0))
    return jax.vmap(over_views, in_axes=(0, 0, 0, None))(points, transl, camera, jnp.arange(num_views))


def _has_evidence(evidence: _Evidence) -> Array:
    """Frames (N, T) with enough points to place a hand."""
    points = _points_in_space(evidence)
    if points is None and evidence.views is not None:
        return jnp.sum(evidence.views.weights[:, :, 0] > 0, -1) >= _MIN_POINTS
    weights = jnp.zeros((1, 1, 0)) if points is None else points.weights
    return jnp.sum(weights > 0, -1) >= _MIN_POINTS


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


def _of_either_side(hand: HandModel) -> HandModel:
    """The arrays of a hand: what is compiled for one side serves the other."""
    return replace(hand, side="right", name="")


def _gather(
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
) -> tuple[LandmarkSet, _Evidence, Measurements, tuple[int, ...]]:
    """Measurements as (N, T, ...) and the leading axes they came with."""
    landmark_set = keypoint_landmarks(hand) if landmarks is None else landmarks
    space = views_seen = None
    every, batches = [], {}
    if keypoints3d is not None:
        space = _InSpace(*_points("keypoints3d", keypoints3d, weights, landmark_set, 3))
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
        tuple(_map_term(into, term) for term in every), jnp.ones((num, frames)), jnp.ones((num, max(frames - 1, 0)))
    )
    return landmark_set, jax.tree.map(into, _Evidence(space, views_seen)), seen, batch


def _see(
    landmark_set: LandmarkSet,
    keypoints2d: ArrayLike,
    camera: Camera | WeakCamera | None,
    views: int | None,
    weights: ArrayLike | None,
) -> _InViews:
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
        return _InViews(pixels, trust, seen_by, None)
    if not isinstance(seen_by, Camera):
        raise ValueError("several views need full cameras: their places in space are what makes them several")
    found = triangulate(seen_by, pixels, trust)
    return _InViews(pixels, trust, seen_by, _InSpace(found.points, found.valid.astype(jnp.float32)))


def _arrays_of_hands(term: Term) -> tuple:
    """The arrays with leading axes of hands and frames: all but what the term's residuals have in common."""
    return term.data, term.weights, term.source


def _with_arrays(term: Term, arrays: tuple) -> Term:
    data, weights, source = arrays
    return replace(term, data=data, weights=weights, source=source)


def _map_term(change: Callable[[Array], Array], term: Term) -> Term:
    """Every array of hands and frames changed alike."""
    return _with_arrays(term, jax.tree.map(change, _arrays_of_hands(term)))


def _map_arrays(change: Callable[[Array], Array], seen: Measurements, linked: Array) -> Measurements:
    """Every array of hands and frames changed alike, and new links between the frames."""
    return Measurements(tuple(_map_term(change, term) for term in seen.terms), change(seen.given), linked)


def _for_each_hand(function: Callable[..., Any], seen: Measurements, *arrays: Any) -> Any:
    """`function(measurements of one sequence, ...)` over the leading axis."""

    def one(arrays_of_terms: tuple, given: Array, linked: Array, *rest: Any) -> Any:
        terms = tuple(_with_arrays(term, a) for term, a in zip(seen.terms, arrays_of_terms, strict=True))
        return function(Measurements(terms, given, linked), *rest)

    return jax.vmap(one)(tuple(map(_arrays_of_hands, seen.terms)), seen.given, seen.linked, *arrays)


def fit(
    hand: HandModel,
    *,
    keypoints3d: ArrayLike | None = None,
    keypoints2d: ArrayLike | None = None,
    camera: Camera | WeakCamera | None = None,
    views: int | None = None,
    weights: ArrayLike | None = None,
    weights2d: ArrayLike | None = None,
    landmarks: LandmarkSet | None = None,
    terms: Sequence[Term] = (),
    betas: ArrayLike | None = None,
    start: HandParams | None = None,
    refine_cameras: bool = False,
    settings: FitSettings = FitSettings(),
    iterations: int = 60,
) -> Fit:
    """Recover independent hands from what was measured of them, in any mix.

    Args:
        hand: the model.
        keypoints3d: (..., 21, 3) metres, openpose21 order; with `landmarks` (..., K, 3).
        keypoints2d: (..., 21, 2) pixels, or (..., V, 21, 2) in V views.
        camera: of the 2D points, leading axes broadcast; None for 2D points of an unknown camera, which are fitted by
            scaled orthography: their depth and true size stay unknown and are the prior's.
        views: V, where axis -3 of `keypoints2d` and the last leading axis of `camera` are views.
        weights: (..., 21) trust in each point, 0 for what is missing; measurements have sigma / sqrt(weight).
        weights2d: the same for the 2D points; by default `weights`.
        landmarks: what the points are, by default the 21 keypoints.
        terms: other measurements, from `jhand.fitting.terms`; without keypoints they need a `start`.
        betas: (..., B) known shape, which is kept; by default it is estimated.
        start: where to begin; by default from the points.
        refine_cameras: whether the full cameras of the 2D points are estimated too, about those given.
        settings: sigmas and priors.
        iterations: the most to take.

    Returns:
        The fit, with leading axes (...).

    Raises:
        ValueError: points of another shape than the landmarks, or not finite under a positive weight.
    """
    hand = _of_either_side(hand)
    landmark_set, evidence, seen, batch = _gather(
        hand, 0, keypoints3d, keypoints2d, camera, views, weights, weights2d, landmarks, terms, settings
    )
    num = seen.given.shape[0]
    shape_is_free = jnp.asarray(betas is None, jnp.float32)
    known = jnp.zeros(hand.num_betas) if betas is None else jnp.asarray(betas)
    known = jnp.broadcast_to(known, (*batch, hand.num_betas)).reshape(num, hand.num_betas)

    if start is not None:
        start = jax.tree.map(lambda a, z: jnp.broadcast_to(a, z.shape), start, HandParams.zeros(batch, hand.num_betas))
        start = jax.tree.map(lambda a: a.reshape(num, 1, *a.shape[len(batch) :]), start)
        start = start if betas is None else replace(start, betas=known[:, None])
        start = _repeat_last(start, _size_class(num), 1)
    elif evidence.space is None and evidence.views is None:
        raise ValueError("terms alone do not say where the hand is: give a start, or keypoints")
    size = _size_class(num)
    evidence, seen = _repeat_last(evidence, size, 1), _pad(seen, size, 1)
    found = _fit_alone(
        hand,
        start,
        landmark_set,
        evidence,
        seen,
        settings,
        _repeat_last(known[:, None], size, 1)[:, 0],
        shape_is_free,
        iterations,
        num_cameras=_num_cameras(evidence, refine_cameras),
    )
    return jax.tree.map(lambda a: a[:num].reshape(*batch, *a.shape[2:]), found)


def _num_cameras(evidence: _Evidence, refine: bool) -> int:
    if not refine:
        return 0
    if evidence.views is None or not isinstance(evidence.views.camera, Camera):
        raise ValueError("refine_cameras: there is no full camera to refine")
    return evidence.views.pixels.shape[2]


def fit_sequence(
    hand: HandModel,
    *,
    keypoints3d: ArrayLike | None = None,
    keypoints2d: ArrayLike | None = None,
    camera: Camera | WeakCamera | None = None,
    views: int | None = None,
    weights: ArrayLike | None = None,
    weights2d: ArrayLike | None = None,
    fps: float = 30.0,
    landmarks: LandmarkSet | None = None,
    terms: Sequence[Term] = (),
    betas: ArrayLike | None = None,
    start: HandParams | None = None,
    refine_cameras: bool = False,
    settings: FitSettings = FitSettings(),
    iterations: int = 40,
) -> Fit:
    """Recover hands over time: one shape a sequence, smooth motion.

    Where a start is ambiguous (2D), frames are first fitted by themselves, and the cheapest path through the candidates
    is taken. Then the whole sequence is solved at once, in time and memory linear in its length. Frames without
    evidence are bridged.

    Args:
        hand: the model.
        keypoints3d: (..., T, 21, 3) metres, openpose21 order; with `landmarks` (..., T, K, 3).
        keypoints2d: (..., T, 21, 2) pixels, or (..., T, V, 21, 2) in V views.
        camera: of the 2D points, leading axes broadcast; None as in `fit`.
        views: V, where axis -3 of `keypoints2d` and the last leading axis of `camera` are views.
        weights: (..., T, 21) trust in each point, 0 for what is missing.
        weights2d: the same for the 2D points; by default `weights`.
        fps: frames per second.
        landmarks: what the points are, by default the 21 keypoints.
        terms: other measurements (..., T, ...), from `jhand.fitting.terms`.
        betas: (..., B) known shape of each sequence, which is kept; by default it is estimated.
        start: (..., T) where to begin; by default from the points.
        refine_cameras: whether the full cameras of the 2D points are estimated too, the same in all frames.
        settings: sigmas, priors and rates.
        iterations: the most to take.

    Returns:
        The fit, with leading axes (..., T); the shape is repeated over time.

    Raises:
        ValueError: points of another shape than the landmarks, or not finite under a positive weight, or a sequence
            without any.
    """
    hand = _of_either_side(hand)
    landmark_set, evidence, seen, batch = _gather(
        hand, 1, keypoints3d, keypoints2d, camera, views, weights, weights2d, landmarks, terms, settings
    )
    num, num_frames = seen.given.shape
    if not fps > 0:
        raise ValueError(f"fps: expected a positive number, got {fps}")
    num_cameras = _num_cameras(evidence, refine_cameras)
    shape_is_free = jnp.asarray(betas is None, jnp.float32)
    known = jnp.zeros(hand.num_betas) if betas is None else jnp.asarray(betas)
    known = jnp.broadcast_to(known, (*batch[:-1], hand.num_betas)).reshape(num, hand.num_betas)
    size = _size_class(num), _size_class(num_frames)
    evidence, seen = _repeat_last(evidence, *size), _pad(seen, *size)
    known = _repeat_last(known[:, None], size[0], 1)[:, 0]

    if start is None:
        _check_evidence(evidence)
        params = _start_sequence(
            hand,
            landmark_set,
            evidence,
            seen,
            settings,
            known,
            shape_is_free,
            jnp.minimum(iterations, 15),
            num_cameras=num_cameras,
        )
    else:
        start = jax.tree.map(lambda a, z: jnp.broadcast_to(a, z.shape), start, HandParams.zeros(batch, hand.num_betas))
        params = jax.tree.map(lambda a: a.reshape(num, num_frames, *a.shape[len(batch) :]), start)
        params = _repeat_last(params, *size)
        params = replace(params, betas=params.betas[:, :num_frames].mean(1) if betas is None else known)
    state = State(params, jnp.zeros((size[0], num_cameras, CAMERA_UNKNOWNS)))
    found = _fit_together(hand, state, landmark_set, evidence, seen, settings, 1.0 / fps, shape_is_free, iterations)
    return jax.tree.map(lambda a: a[:num, :num_frames].reshape(*batch, *a.shape[2:]), found)


def _check_evidence(evidence: _Evidence) -> None:
    if evidence.space is None and evidence.views is None:
        raise ValueError("terms alone do not say where the hand is: give a start, or keypoints")
    enough = _has_evidence(evidence)
    if not isinstance(enough, Tracer) and not np.asarray(enough).any(-1).all():
        raise ValueError(
            "a sequence has no frame with at least three points of positive weight: there is no hand to fit"
        )


def _size_class(num: int) -> int:
    """The next power of two: batches and sequences of nearly the same size share one compiled solve."""
    return 1 << max(num - 1, 0).bit_length()


def _repeat_last(tree: Any, num_hands: int, num_frames: int) -> Any:
    """Arrays (N, T, ...) lengthened by repeating their last hand and frame."""

    def longer(a: Array) -> Array:
        a = a[jnp.minimum(jnp.arange(num_hands), a.shape[0] - 1)]
        return a[:, jnp.minimum(jnp.arange(num_frames), a.shape[1] - 1)]

    return jax.tree.map(longer, tree)


def _pad(seen: Measurements, num_hands: int, num_frames: int) -> Measurements:
    """Hands, and unrelated frames, without evidence appended."""
    num, given = seen.given.shape
    fill = lambda a: jnp.pad(a, ((0, num_hands - num), (0, num_frames - given)))  # noqa: E731
    longer = _map_arrays(lambda a: _repeat_last(a, num_hands, num_frames), seen, fill(seen.linked))
    return replace(longer, given=fill(seen.given))


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
