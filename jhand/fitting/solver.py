"""Fit hands to measured landmarks: one frame at a time (`fit`) or a sequence of one shape, smooth in time
(`fit_sequence`).

Both run one batched Levenberg-Marquardt solve in a single jitted call. A hand by itself is a sequence of one frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jhand.fitting.banded import marginal_covariance, solve_bordered
from jhand.fitting.batches import for_each_hand, map_arrays
from jhand.fitting.evidence import (
    MIN_POINTS,
    Evidence,
    InSpace,
    InViews,
    Layout,
    gather,
    has_evidence,
    measurements,
    points_in_space,
)
from jhand.fitting.lm import damped_iterations, zeros_of
from jhand.fitting.measurements import (
    ORIENT,
    TRANSL,
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
)
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import transform
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams

_ANNEAL_RATE = 0.3
_ALONE = 15  # iterations in which frames by themselves are told apart
_ANOTHER = 0.005  # metres: explanations nearer than this are one
_WRIST_UNKNOWNS = np.r_[ORIENT, TRANSL]
_FAR_OFF = 10.0  # sigmas, root mean square
_ANYWHERE = 1.0  # metres or radians of standard deviation: that far a hand is not known at all

DOUBTS = (
    "none",
    "nothing was measured: this is a hand of the prior, anywhere",
    "the measurements leave open where the hand is or how it is turned: too few points, or points on one line",
    "the hand lies behind a camera that is said to see it: check that camera's pose",
    "no hand comes near the measurements: check their unit, order, side and camera, or the sigma that is stated",
    "the iterations ended before the fit settled: allow more of them, or start nearer",
)
"""What each number in `Fit.doubt` says."""


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
    doubt: Int[Array, "*b"]
    """0, or why not to trust this hand: `jhand.fitting.DOUBTS` says what each number means."""
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

    return for_each_hand(solve_one, seen, start)


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
    again = map_arrays(lambda a: jnp.repeat(a, num_starts, axis=0), seen, jnp.zeros((num * num_starts, 0)))
    cameras = jnp.zeros((num * num_starts, num_cameras, CAMERA_UNKNOWNS))
    start = State(replace(flat, betas=flat.betas[:, 0]), cameras)
    return _solve(hand, start, again, settings, 1.0, shape_is_free, iterations)


def _starts(
    hand: HandModel, landmark_set: LandmarkSet, points: InSpace | None, views: InViews | None, betas: Array
) -> HandParams:
    """Where to begin with frames by themselves (N, ...): parameters (N, S, ...).

    Args:
        hand: the model.
        landmark_set: what the points are.
        points: measured in space, or where views meet.
        views: what was seen; where views do not meet, the one that sees the most says more than nothing.
        betas: (N, B).
    """
    starts = (
        None
        if points is None
        else start_3d(hand, landmark_set, jnp.asarray(points.points), jnp.asarray(points.weights), betas)
    )
    if views is None:
        assert starts is not None  # something was measured
        return starts
    best = jnp.argmax(jnp.sum(views.weights > 0, -1), 1)
    view = jax.tree.map(lambda a: jnp.asarray(a)[jnp.arange(best.shape[0]), best], views)
    alone = starts_2d(hand, landmark_set, view.pixels, view.weights, view.camera, betas)
    if points is None or starts is None:
        return alone
    meet = jnp.sum(points.weights > 0, -1) >= MIN_POINTS
    choose = lambda a, b: jnp.where(meet.reshape(-1, *(1,) * (a.ndim - 1)), a, b[:, :1])  # noqa: E731
    return jax.tree.map(choose, starts, alone)


@partial(jax.jit, static_argnames="num_cameras")
def _fit_alone(
    hand: HandModel,
    starts: HandParams | None,
    landmark_set: LandmarkSet | None,
    evidence: Evidence,
    settings: FitSettings,
    betas: Any,
    shape_is_free: Any,
    iterations: Any,
    num_cameras: int,
) -> Fit:
    """The best of all starts for each of N hands, as (N, 1)."""
    landmark_set = keypoint_landmarks(hand) if landmark_set is None else landmark_set
    seen = measurements(landmark_set, evidence, settings)
    if starts is None:
        points, views = jax.tree.map(lambda a: a[:, 0], (points_in_space(evidence), evidence.views))
        starts = _starts(hand, landmark_set, points, None if evidence.space is not None else views, jnp.asarray(betas))
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
    fit = _describe(hand, pick(solved, best), landmark_set, evidence, seen, settings)
    return replace(
        fit,
        runner_up=replace(runner_up, betas=runner_up.betas[:, None]),
        runner_up_cost=jnp.min(others, axis=1)[:, None],
    )


@partial(jax.jit, static_argnames="num_cameras")
def _start_sequence(
    hand: HandModel,
    landmark_set: LandmarkSet | None,
    evidence: Evidence,
    settings: FitSettings,
    betas: Any,
    shape_is_free: Any,
    iterations: Any,
    num_cameras: int,
) -> HandParams:
    """Where to begin with N sequences: frames by themselves, and of each frame's explanations the one on the cheapest
    path.
    """
    landmark_set = keypoint_landmarks(hand) if landmark_set is None else landmark_set
    seen = measurements(landmark_set, evidence, settings)
    num, num_frames = seen.given.shape
    points = points_in_space(evidence)
    shown = has_evidence(evidence, points) & (seen.given > 0)
    flat = lambda a: a.reshape(num * num_frames, *a.shape[2:])  # noqa: E731
    points, views = jax.tree.map(flat, (points, evidence.views if evidence.space is None else None))
    candidates = _starts(hand, landmark_set, points, views, jnp.repeat(betas, num_frames, axis=0))
    final = jnp.zeros(candidates.transl.shape[:-1])
    if final.shape[1] > 1:  # ambiguous: what each explanation is worth is known when it is fitted
        alone = map_arrays(lambda a: flat(a)[:, None], seen, jnp.zeros((num * num_frames, 0)))
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
    params = jax.vmap(_cheapest_path)(candidates, final.reshape(shape), shown)
    counted = shown[..., None].astype(jnp.float32)
    mean_shape = jnp.sum(counted * params.betas, 1) / jnp.maximum(jnp.sum(counted, 1), 1)
    return replace(params, betas=jnp.where(shape_is_free > 0, mean_shape, betas))


@partial(jax.jit, static_argnames="num_cameras")
def _fit_together(
    hand: HandModel,
    params: HandParams,
    landmark_set: LandmarkSet | None,
    evidence: Evidence,
    settings: FitSettings,
    dt: Any,
    shape_is_free: Any,
    iterations: Any,
    num_cameras: int,
) -> Fit:
    """N sequences of T frames, each solved at once."""
    landmark_set = keypoint_landmarks(hand) if landmark_set is None else landmark_set
    seen = measurements(landmark_set, evidence, settings)
    start = State(params, jnp.zeros((params.betas.shape[0], num_cameras, CAMERA_UNKNOWNS)))
    solved = _solve(hand, start, seen, settings, dt, shape_is_free, iterations)
    return _describe(hand, solved, landmark_set, evidence, seen, settings)


def _describe(
    hand: HandModel,
    solved: _Solved,
    landmark_set: LandmarkSet,
    evidence: Evidence,
    seen: Measurements,
    settings: FitSettings,
) -> Fit:
    """What users see of a solution (N, T) with betas (N, B)."""
    params, cameras = solved.state.params, solved.state.cameras
    points = jax.vmap(lambda p: predict_3d(hand, p, landmark_set))(params)
    batch = params.transl.shape[:-1]
    errors = weights = jnp.zeros((*batch, len(landmark_set.names)))
    camera, views = None, jax.tree.map(jnp.asarray, evidence.views)
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
    converged = jnp.broadcast_to(solved.converged[:, None], batch)
    deviation = jnp.sqrt(jnp.diagonal(covariance, axis1=-2, axis2=-1)[..., _WRIST_UNKNOWNS])
    doubt = jnp.select(
        [
            ~_anything(seen)[:, None],
            jnp.max(deviation, -1) > _ANYWHERE,
            _is_behind(views, points, params.transl, cameras),
            rms > _FAR_OFF * (settings.sigma_2d if evidence.space is None else settings.sigma_3d),
            ~converged,
        ],
        list(range(1, len(DOUBTS))),
    )
    params = replace(params, betas=jnp.broadcast_to(params.betas[:, None], (*batch, hand.num_betas)))
    return Fit(
        params=params,
        keypoints=keypoints(hand, params),
        landmarks=points,
        errors=errors,
        rms=rms,
        cost=jnp.broadcast_to(solved.cost[:, None], batch),
        converged=converged,
        doubt=doubt,
        covariance=covariance,
        camera=camera,
        runner_up=None,
        runner_up_cost=None,
    )


def _anything(seen: Measurements) -> Array:
    """Whether anything was measured of each sequence (N,); what is matched with the hand may be."""
    counts = [jnp.sum(t.weights > 0, (1, 2)) if t.correspond is None else jnp.ones(len(t.weights)) for t in seen.terms]
    return sum(counts[1:], counts[0]) > 0


def _is_behind(views: InViews | None, points: Array, transl: Array, cameras: Array) -> Array:
    """Whether a landmark (N, T, K, 3) that was seen lies behind its camera: (N, T)."""
    if views is None or not isinstance(views.camera, Camera):
        return jnp.zeros(transl.shape[:-1], bool)
    camera = adjust_camera(views.camera, cameras[:, None]) if cameras.shape[1] else views.camera
    depth = transform(camera.T_cam_world, points[:, :, None])[..., 2]  # (N, T, V, K)
    return jnp.any((depth <= 0) & (views.weights > 0), (-1, -2))


def _images(camera: Any, points: Array, transl: Array, cameras: Array) -> Array:
    """Pixels (T, V, K, 2) of landmarks (T, K, 3) in cameras (T, V)."""
    num_views = jax.tree.leaves(camera)[0].shape[1]

    def image(point: Array, transl: Array, camera: Any, view: Array) -> Array:
        return image_point(Pixel(jnp.zeros(2), camera, view), point, transl, cameras)

    over_points = jax.vmap(image, in_axes=(0, None, None, None))
    over_views = jax.vmap(over_points, in_axes=(None, None, 0, 0))
    return jax.vmap(over_views, in_axes=(0, 0, 0, None))(points, transl, camera, jnp.arange(num_views))


def _of_either_side(hand: HandModel) -> HandModel:
    """The arrays of a hand: what is compiled for one side serves the other."""
    return replace(hand, side="right", name="")


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
        terms: other measurements, made by `jhand.fitting`; without keypoints they need a `start`.
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
    num_landmarks = 21 if landmarks is None else len(landmarks.names)
    evidence, layout = gather(0, keypoints3d, keypoints2d, camera, views, weights, weights2d, num_landmarks, terms)
    if start is not None:
        start = _laid_out(hand, start, layout)
        start = start if betas is None else replace(start, betas=jnp.asarray(_known(hand, betas, layout))[:, None])
    else:
        _check_start(evidence)
    found = _fit_alone(
        hand,
        start,
        landmarks,
        evidence,
        settings,
        _known(hand, betas, layout),
        np.float32(betas is None),
        iterations,
        num_cameras=_num_cameras(evidence, refine_cameras),
    )
    return _unpad(found, layout.num, 1, layout.batch)


@partial(jax.jit, static_argnames=("num", "frames", "batch"))
def _unpad(fit: Fit, num: int, frames: int, batch: tuple[int, ...]) -> Fit:
    """(N, T, ...) as it came."""
    return jax.tree.map(lambda a: a[:num, :frames].reshape(*batch, *a.shape[2:]), fit)


def _known(hand: HandModel, betas: ArrayLike | None, layout: Layout, num_time_axes: int = 0) -> Any:
    """Shapes (N, B) that are kept, or to begin from."""
    if betas is None:
        return np.zeros((layout.size[0], hand.num_betas), np.float32)
    batch = layout.batch[: len(layout.batch) - num_time_axes]
    b = jnp.broadcast_to(jnp.asarray(betas, float), (*batch, hand.num_betas)).reshape(layout.num, hand.num_betas)
    return b.take(np.minimum(np.arange(layout.size[0]), layout.num - 1), axis=0)


def _laid_out(hand: HandModel, start: HandParams, layout: Layout) -> HandParams:
    """A start that broadcasts to the measurements, as (N, T)."""
    zeros = HandParams.zeros(layout.batch, hand.num_betas)
    return jax.tree.map(lambda a, z: layout.lay_out(jnp.broadcast_to(a, z.shape)), start, zeros)


def _check_start(evidence: Evidence) -> None:
    if evidence.space is None and evidence.views is None:
        raise ValueError("terms alone do not say where the hand is: give a start, or keypoints")


def _num_cameras(evidence: Evidence, refine: bool) -> int:
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
        terms: other measurements (..., T, ...), made by `jhand.fitting`.
        betas: (..., B) known shape of each sequence, which is kept; by default it is estimated.
        start: (..., T) where to begin; by default from the points.
        refine_cameras: whether the full cameras of the 2D points are estimated too, the same in all frames.
        settings: sigmas, priors and rates.
        iterations: the most to take.

    Returns:
        The fit, with leading axes (..., T); the shape is repeated over time.

    Raises:
        ValueError: points of another shape than the landmarks, or not finite under a positive weight.
    """
    hand = _of_either_side(hand)
    num_landmarks = 21 if landmarks is None else len(landmarks.names)
    evidence, layout = gather(1, keypoints3d, keypoints2d, camera, views, weights, weights2d, num_landmarks, terms)
    if not fps > 0:
        raise ValueError(f"fps: expected a positive number, got {fps}")
    num_cameras = _num_cameras(evidence, refine_cameras)
    shape_is_free = np.float32(betas is None)
    known = _known(hand, betas, layout, 1)
    if start is None:
        _check_start(evidence)
        params = _start_sequence(
            hand,
            landmarks,
            evidence,
            settings,
            known,
            shape_is_free,
            min(iterations, _ALONE) if isinstance(iterations, int) else jnp.minimum(iterations, _ALONE),
            num_cameras=num_cameras,
        )
    else:
        params = _laid_out(hand, start, layout)
        mean_shape = params.betas[:, : layout.frames].mean(1)
        params = replace(params, betas=mean_shape if betas is None else jnp.asarray(known))
    found = _fit_together(
        hand, params, landmarks, evidence, settings, 1.0 / fps, shape_is_free, iterations, num_cameras=num_cameras
    )
    return _unpad(found, layout.num, layout.frames, layout.batch)


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
