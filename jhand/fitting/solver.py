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
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.fitting.banded import marginal_covariance, solve_bordered
from jhand.fitting.batches import for_each_hand, map_arrays, pad, repeat_last, size_class
from jhand.fitting.evidence import Evidence, check_evidence, gather, has_evidence, points_in_space
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
)
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.rotations import so3_exp
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams

_ANNEAL_RATE = 0.3
_ANOTHER = 0.005  # metres: explanations nearer than this are one


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


def _starts(hand: HandModel, landmark_set: LandmarkSet, evidence: Evidence, betas: Array) -> HandParams:
    """Where to begin with frames by themselves (N, ...): parameters (N, S, ...)."""
    points = points_in_space(evidence)
    if points is not None:
        return start_3d(hand, landmark_set, points.points, points.weights, betas)
    assert evidence.views is not None  # something was measured
    view = jax.tree.map(lambda a: a[:, 0], evidence.views)
    return starts_2d(hand, landmark_set, view.pixels, view.weights, view.camera, betas)


@partial(jax.jit, static_argnames="num_cameras")
def _fit_alone(
    hand: HandModel,
    starts: HandParams | None,
    landmark_set: LandmarkSet,
    evidence: Evidence,
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
    evidence: Evidence,
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
    shown = has_evidence(evidence) & (seen.given > 0)
    flat = lambda a: a.reshape(num * num_frames, *a.shape[2:])  # noqa: E731
    candidates = _starts(hand, landmark_set, jax.tree.map(flat, evidence), jnp.repeat(betas, num_frames, axis=0))
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
    mean_shape = jnp.sum(counted * params.betas, 1) / jnp.sum(counted, 1)
    return replace(params, betas=jnp.where(shape_is_free > 0, mean_shape, betas))


@jax.jit
def _fit_together(
    hand: HandModel,
    start: State,
    landmark_set: LandmarkSet,
    evidence: Evidence,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    iterations: Array | int,
) -> Fit:
    """N sequences of T frames, each solved at once."""
    solved = _solve(hand, start, seen, settings, dt, shape_is_free, iterations)
    return _describe(hand, solved, landmark_set, evidence)


def _describe(hand: HandModel, solved: _Solved, landmark_set: LandmarkSet, evidence: Evidence) -> Fit:
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
    landmark_set, evidence, seen, batch = gather(
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
        start = repeat_last(start, size_class(num), 1)
    elif evidence.space is None and evidence.views is None:
        raise ValueError("terms alone do not say where the hand is: give a start, or keypoints")
    size = size_class(num)
    evidence, seen = repeat_last(evidence, size, 1), pad(seen, size, 1)
    found = _fit_alone(
        hand,
        start,
        landmark_set,
        evidence,
        seen,
        settings,
        repeat_last(known[:, None], size, 1)[:, 0],
        shape_is_free,
        iterations,
        num_cameras=_num_cameras(evidence, refine_cameras),
    )
    return jax.tree.map(lambda a: a[:num].reshape(*batch, *a.shape[2:]), found)


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
        ValueError: points of another shape than the landmarks, or not finite under a positive weight, or a sequence
            without any.
    """
    hand = _of_either_side(hand)
    landmark_set, evidence, seen, batch = gather(
        hand, 1, keypoints3d, keypoints2d, camera, views, weights, weights2d, landmarks, terms, settings
    )
    num, num_frames = seen.given.shape
    if not fps > 0:
        raise ValueError(f"fps: expected a positive number, got {fps}")
    num_cameras = _num_cameras(evidence, refine_cameras)
    shape_is_free = jnp.asarray(betas is None, jnp.float32)
    known = jnp.zeros(hand.num_betas) if betas is None else jnp.asarray(betas)
    known = jnp.broadcast_to(known, (*batch[:-1], hand.num_betas)).reshape(num, hand.num_betas)
    size = size_class(num), size_class(num_frames)
    evidence, seen = repeat_last(evidence, *size), pad(seen, *size)
    known = repeat_last(known[:, None], size[0], 1)[:, 0]

    if start is None:
        check_evidence(evidence)
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
        params = repeat_last(params, *size)
        params = replace(params, betas=params.betas[:, :num_frames].mean(1) if betas is None else known)
    state = State(params, jnp.zeros((size[0], num_cameras, CAMERA_UNKNOWNS)))
    found = _fit_together(hand, state, landmark_set, evidence, seen, settings, 1.0 / fps, shape_is_free, iterations)
    return jax.tree.map(lambda a: a[:num, :num_frames].reshape(*batch, *a.shape[2:]), found)


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
