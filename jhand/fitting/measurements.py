"""The sum of squares that a fit minimises, and its linearisation.

Every residual is divided by a stated sigma, so weights have no unit; a missing measurement has weight 0. The unknowns
of a frame are a left perturbation of the wrist's rotation, the pose and the translation (51); those that all frames of
a sequence share are its shape (betas) and, where they are not quite known, its cameras.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.fitting.terms import CAMERA_UNKNOWNS, Term
from jhand.geometry.rotations import skew, so3_exp, so3_left_jacobian, so3_log
from jhand.hand.anatomy import limit_excess
from jhand.hand.kinematics import pose_hand
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks, landmarks, rest_landmarks
from jhand.hand.model import PARENTS, HandModel, HandParams, rest_joints

HIGHEST = lax.Precision.HIGHEST

NUM_FRAME_UNKNOWNS = 51
ORIENT, POSE, TRANSL = slice(0, 3), slice(3, 48), slice(48, 51)
"""Order of a frame's unknowns; betas follow in covariances."""

_ANCESTORS = np.zeros((16, 16), np.float32)  # [a, j] = 1 where joint j is a or hangs below it
for _joint in range(16):
    _ancestor = _joint
    while _ancestor >= 0:
        _ANCESTORS[_ancestor, _joint] = 1
        _ancestor = PARENTS[_ancestor]
_SIGMA_SHAPE_EXCESS = 0.1
_PARENT_OF_FINGER_JOINTS = np.array(PARENTS[1:])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FitSettings:
    """What a fit trusts. All are traced: another value does not recompile."""

    sigma_3d: Array | float = 0.002
    """Metres: standard deviation of a 3D measurement of weight 1."""
    sigma_2d: Array | float = 2.0
    """Pixels: standard deviation of a 2D measurement of weight 1."""
    robust: Array | float = jnp.inf
    """Residual, in sigmas, from which a measurement counts linearly (pseudo-Huber) instead of squared."""
    sigma_pose: Array | float = 1.0
    """Multiple of the pose prior's standard deviations."""
    sigma_shape: Array | float = 1.0
    """Standard deviation of each shape coefficient."""
    max_beta: Array | float = 3.0
    """Shape coefficients beyond this are charged in every frame, 0.1 beyond it as much as one sigma: what a tracker
    gets wrong it gets wrong in each frame alike, and many frames would otherwise buy an impossible shape."""
    sigma_limit: Array | float = 0.02
    """Radians beyond a joint limit that cost as much as one sigma."""
    orient_rate: Array | float = 3.0
    """Radians per second: standard deviation of the wrist's angular speed, in sequences."""
    pose_rate: Array | float = 3.0
    """Radians per second: standard deviation of the speed of each joint, in sequences."""
    transl_rate: Array | float = 0.5
    """Metres per second: standard deviation of the wrist's speed, in sequences."""
    keypoint_rate: Array | float | None = None
    """Metres per second: standard deviation of the speed of each keypoint, in sequences; None leaves it free."""
    camera_turn: Array | float = 0.02
    """Radians: standard deviation of the direction of a camera that is not quite known."""
    camera_shift: Array | float = 0.02
    """Metres: the same of its place."""
    camera_zoom: Array | float = 0.05
    """The same of the logarithm of its focal length."""
    refresh: Array | int = 5
    """Iterations after which points of a surface are matched with the hand again."""
    anneal: Array | float = 0.009
    """Metres: no point is trusted further than this in the first iteration; its variance then falls by 0.3 each
    iteration to that of its sigma. Twist is barely seen by points, and a gentle start keeps it from running away."""
    tolerance: Array | float = 1e-4
    """Relative change of the cost under which a step counts as the last."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What is solved for: T frames that share a shape and cameras."""

    params: HandParams
    """Frames (T, ...) with betas (B,)."""
    cameras: Float[Array, "*b views 7"]
    """How each camera differs from what was given; no rows where all are known."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measurements:
    """What was measured in T frames."""

    terms: tuple[Term, ...]
    given: Float[Array, "*b frames"]
    """1, or 0 for a frame that only pads the sequence."""
    linked: Float[Array, "*b steps"]
    """(T - 1): 1 where a frame follows the one before, 0 where they are unrelated."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton blocks of T frames of n unknowns that share m: sum of squares = cost + 2 g.d + d.H.d."""

    cost: Float[Array, "*b"]
    A: Float[Array, "*b t n n"]
    """Each frame with itself."""
    Q: Float[Array, "*b steps n n"]
    """Smoothness: minus the coupling of each frame with the next; 0 where unrelated."""
    B: Float[Array, "*b t n m"]
    """Each frame with the shared unknowns."""
    C: Float[Array, "*b m m"]
    g: Float[Array, "*b t n"]
    g_shared: Float[Array, "*b m"]


_FRAMES_AT_A_TIME = 8
_DENSE = 100  # landmarks from which Jacobians of all frames at once would fill the memory


def _over_frames(dense: bool, function: Callable[..., Any], *arrays: Any) -> Any:
    """`function` of one frame, mapped over the leading axis of `arrays`."""
    if dense:
        return lax.map(lambda one: function(*one), arrays, batch_size=_FRAMES_AT_A_TIME)
    return jax.vmap(function)(*arrays)


def _per_frame(params: HandParams) -> HandParams:
    """T frames of one shape with the shape repeated."""
    return replace(params, betas=jnp.broadcast_to(params.betas, (params.transl.shape[0], *params.betas.shape)))


def match(hand: HandModel, params: HandParams, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Terms whose measurements are matched with the hand where it is now."""

    def matched(term: Term) -> Term:
        find = term.correspond
        if find is None:
            return term
        points = predict_3d(hand, params, term.landmarks)
        groups, data, weights = _over_frames(True, find, term.source, points)
        return replace(term, groups=groups, data=data, weights=weights, correspond=None)

    return tuple(matched(term) for term in terms)


def _groups(term: Term, num_frames: int) -> Array:
    """Groups (T, G, m)."""
    return jnp.broadcast_to(term.groups, (num_frames, *term.groups.shape[-2:]))


def _linearise_term(hand: HandModel, state: State, term: Term, given: Array) -> tuple[Array, Array, Array]:
    """H (T, D, D), g (T, D) over frame, shape and camera unknowns, and the cost (T,) of one term."""
    params, cameras = _per_frame(state.params), state.cameras
    num_shared = hand.num_betas + cameras.size

    def one(frame: HandParams, groups: Array, data: Any, weights: Array) -> tuple[Array, Array, Array]:
        points, J = landmark_jacobian(hand, frame, term.landmarks)
        inputs = points[groups]

        def both(x: Array, datum: Any) -> tuple[Array, tuple[Array, ...]]:
            by = jax.jacfwd(term.residual, argnums=(0, 1, 2))(x, frame.transl, cameras, datum)
            return term.residual(x, frame.transl, cameras, datum), by

        residual, (by_points, by_transl, by_cameras) = jax.vmap(both)(inputs, data)
        used = (weights > 0)[:, None]
        residual = jnp.where(used, residual, 0)
        # a sum of a few products, not a product of matrices: thousands of three by three would be called one by one
        full = jnp.sum(by_points[..., None] * J[groups][:, None], (2, 3))
        full = full.at[..., TRANSL].add(by_transl)
        full = jnp.concatenate([full, by_cameras.reshape(*residual.shape, cameras.size)], -1)
        squared = jnp.sum(jnp.square(residual), -1) / jnp.square(term.sigma)
        robust_cost, slope = _pseudo_huber(squared, term.robust)
        root = jnp.sqrt(weights * slope)[:, None] / term.sigma
        rows = jnp.where(used[..., None], root[..., None] * full, 0).reshape(-1, NUM_FRAME_UNKNOWNS + num_shared)
        H = jnp.matmul(rows.T, rows, precision=HIGHEST)
        g = jnp.matmul(rows.T, (root * residual).reshape(-1), precision=HIGHEST)
        return H, g, jnp.sum(weights * robust_cost)

    weights = term.weights * given[:, None]
    dense = term.groups.shape[-2] > _DENSE
    return _over_frames(dense, one, params, _groups(term, given.shape[0]), term.data, weights)


def precision(hand: HandModel, state: State, seen: Measurements) -> Array:
    """About how sharply the hand is seen: the largest precision of a term's landmarks, in 1 / metres^2."""
    sharpest = jnp.zeros(())
    for term in seen.terms:
        points = predict_3d(hand, state.params, term.landmarks)

        def slope(x: Array, transl: Array, datum: Any, residual: Any = term.residual) -> Array:
            J = jax.jacfwd(residual)(x, transl, state.cameras, datum)
            return jnp.sum(jnp.square(J)) / J.shape[0]

        inputs = jax.vmap(lambda p, g: p[g])(points, _groups(term, points.shape[0]))
        slopes = jax.vmap(jax.vmap(slope, in_axes=(0, None, 0)))(inputs, state.params.transl, term.data)
        counted = (term.weights > 0) & (seen.given[:, None] > 0)
        typical = jnp.nanmedian(jnp.where(counted, slopes, jnp.nan)) / jnp.square(term.sigma)
        sharpest = jnp.maximum(sharpest, jnp.nan_to_num(typical))
    return sharpest


def predict_3d(hand: HandModel, params: HandParams, landmark_set: LandmarkSet) -> Array:
    """Landmarks (T, K, 3) of T frames (T, ...) of one shape (B,)."""
    return landmarks(hand, _per_frame(params), landmark_set)


def landmark_jacobian(hand: HandModel, params: HandParams, landmark_set: LandmarkSet) -> tuple[Array, Array]:
    """Landmarks (K, 3) of one frame and their derivatives (K, 3, 51 + B): closed form, about nine times cheaper than
    forward mode.
    """
    K, B = landmark_set.weights.shape[0], hand.num_betas
    w = landmark_set.weights
    posed = pose_hand(rest_joints(hand, params.betas), params.global_orient, params.hand_pose, params.transl)
    rest = rest_landmarks(landmark_set, params.betas, posed.pose_features)
    G = posed.rotations

    # A rotation omega (world axes) of joint a moves x by omega x (S - W p_a): the part of x below a, about a.
    carried = jnp.einsum("jab,kb->kja", G, rest, precision=HIGHEST) + posed.translations
    carried = w[:, :, None] * carried
    points = carried.sum(1)
    below = jnp.einsum("aj,kjc->kac", _ANCESTORS, carried, precision=HIGHEST)
    share = jnp.matmul(w, _ANCESTORS.T, precision=HIGHEST)
    levers = below - share[:, :, None] * posed.joints
    turn = -skew(levers)  # (K, 16, 3, 3)

    # hand_pose + d turns the joint by J_l d in its parent's axes
    J_left = so3_left_jacobian(params.hand_pose)
    omega = jnp.matmul(G[_PARENT_OF_FINGER_JOINTS], J_left, precision=HIGHEST)
    by_pose = jnp.einsum("kjab,jbc->kajc", turn[:, 1:], omega, precision=HIGHEST)

    # the pose correctives answer to the entries of R_j
    M = jnp.einsum("kj,jab->kab", w, G, precision=HIGHEST)
    R = so3_exp(params.hand_pose)
    dR = jnp.matmul(skew(jnp.swapaxes(J_left, -1, -2)), R[:, None], precision=HIGHEST)  # (15, c, 3, 3)
    correctives = landmark_set.basis[1 + B :].reshape(15, 9, 3, K)
    d_rest = jnp.einsum("jfak,jcf->kajc", correctives, dR.reshape(15, 3, 9), precision=HIGHEST)
    by_pose = by_pose + jnp.einsum("kab,kbjc->kajc", M, d_rest, precision=HIGHEST)

    # betas move the rest landmark and, down the chain of bones, every joint
    d_joints = jnp.moveaxis(hand.joint_basis[1:], 0, -1)  # (16, 3, B)
    ways = d_joints[1:] - d_joints[_PARENT_OF_FINGER_JOINTS]
    d_bones = jnp.einsum("jab,jbs->jas", G[_PARENT_OF_FINGER_JOINTS], ways, precision=HIGHEST)
    d_posed = d_joints[0] + jnp.einsum("aj,acs->jcs", _ANCESTORS[1:], d_bones, precision=HIGHEST)
    d_transl = d_posed - jnp.einsum("jab,jbs->jas", G, d_joints, precision=HIGHEST)
    d_shape = jnp.moveaxis(landmark_set.basis[1 : 1 + B], (2, 1, 0), (0, 1, 2))  # (K, 3, B)
    by_shape = jnp.einsum("kab,kbs->kas", M, d_shape, precision=HIGHEST)
    by_shape = by_shape + jnp.einsum("kj,jas->kas", w, d_transl, precision=HIGHEST)

    by_transl = jnp.broadcast_to(jnp.eye(3), (K, 3, 3))
    return points, jnp.concatenate([turn[:, 0], by_pose.reshape(K, 3, 45), by_transl, by_shape], -1)


def _pseudo_huber(squared: Array, robust: Array | float) -> tuple[Array, Array]:
    """Cost and weight of squared residuals in sigmas (Charbonnier et al. 1997), written to hold for an infinite
    `robust`.
    """
    root = jnp.sqrt(1 + squared / jnp.square(robust))
    return 2 * squared / (1 + root), 1 / root


def _limit_jacobian(hand: HandModel, hand_pose: Array) -> tuple[Array, Array]:
    """Limit residuals (T, 15, 3) and their derivatives (T, 15, 3, 3): joints do not meet, so three tangents serve
    all.
    """
    tangents = jnp.broadcast_to(jnp.eye(3)[:, None, None, :], (3, *hand_pose.shape))
    residual, push = jax.linearize(lambda pose: limit_excess(hand, pose), hand_pose)
    return residual, jnp.moveaxis(jax.vmap(push)(tangents), 0, -1)


def _shape_excess(betas: Array, settings: FitSettings) -> Array:
    """Sigmas (B,) by which shape coefficients leave the range of people."""
    return (betas - jnp.clip(betas, -settings.max_beta, settings.max_beta)) / _SIGMA_SHAPE_EXCESS


def _whitening(hand: HandModel) -> Array:
    """(45, 45) W so that W (pose - mean) has unit variance under the pose prior."""
    return hand.hands_components / hand.hands_sd[:, None]


def _rates(settings: FitSettings, dt: Array | float) -> Array:
    """Precision (51,) of the step from one frame to the next."""
    rates = jnp.concatenate(
        [
            jnp.full(3, settings.orient_rate),
            jnp.full(45, settings.pose_rate),
            jnp.full(3, settings.transl_rate),
        ]
    )
    return 1 / jnp.square(rates * dt)


def _steps(params: HandParams) -> Array:
    """Motion (T - 1, 51) from each frame to the next, in the unknowns of a frame."""
    R = so3_exp(params.global_orient)
    turn = so3_log(jnp.matmul(R[1:], jnp.swapaxes(R[:-1], -1, -2), precision=HIGHEST))
    num_steps = turn.shape[0]
    d_pose = jnp.diff(params.hand_pose.reshape(-1, 45), axis=0).reshape(num_steps, 45)
    return jnp.concatenate([turn, d_pose, jnp.diff(params.transl, axis=0)], -1)


def _keypoint_steps(hand: HandModel, params: HandParams) -> Array:
    """Motion (T - 1, 21, 3) of the keypoints from each frame to the next, metres."""
    return jnp.diff(predict_3d(hand, params, keypoint_landmarks(hand)), axis=0)


def _camera_precision(settings: FitSettings) -> Array:
    """(7,) of the unknowns of a camera."""
    sigmas = [settings.camera_turn] * 3 + [settings.camera_shift] * 3 + [settings.camera_zoom]
    return 1 / jnp.square(jnp.stack([jnp.asarray(s, jnp.float32) for s in sigmas]))


def _regular_cost(hand: HandModel, state: State, seen: Measurements, settings: FitSettings, dt: Array | float) -> Array:
    """The part of the cost that is neither measured nor prior."""
    params = state.params
    total = jnp.sum(jnp.square(limit_excess(hand, params.hand_pose) / settings.sigma_limit))
    total = total + jnp.sum(seen.linked[:, None] * _rates(settings, dt) * jnp.square(_steps(params)))
    if settings.keypoint_rate is not None:
        steps = jnp.sum(jnp.square(_keypoint_steps(hand, params)), (-1, -2))
        total = total + jnp.sum(seen.linked * steps) / jnp.square(settings.keypoint_rate * dt)
    total = total + jnp.sum(_camera_precision(settings) * jnp.square(state.cameras))
    return total + params.transl.shape[0] * jnp.sum(jnp.square(_shape_excess(params.betas, settings)))


def prior_cost(hand: HandModel, params: HandParams, settings: FitSettings) -> Array:
    """Sum of squares of the pose prior of every frame and the shape prior."""
    pose = params.hand_pose.reshape(-1, 45) - hand.hands_mean
    whitened = jnp.matmul(pose, _whitening(hand).T, precision=HIGHEST) / settings.sigma_pose
    return jnp.sum(jnp.square(whitened)) + jnp.sum(jnp.square(params.betas / settings.sigma_shape))


def add_priors(
    hand: HandModel,
    params: HandParams,
    equations: NormalEquations,
    settings: FitSettings,
    weight: Array | float,
    shape_is_free: Array | float,
) -> NormalEquations:
    """`equations` at `params` with the priors of pose and shape, times `weight`."""
    W = _whitening(hand) / settings.sigma_pose
    H = weight * jnp.matmul(W.T, W, precision=HIGHEST)
    pose = params.hand_pose.reshape(-1, 45) - hand.hands_mean
    shape = weight / jnp.square(settings.sigma_shape)
    index = jnp.arange(hand.num_betas)
    return replace(
        equations,
        cost=equations.cost + weight * prior_cost(hand, params, settings),
        A=equations.A.at[:, POSE, POSE].add(H),
        C=equations.C.at[index, index].add(shape),
        g=equations.g.at[:, POSE].add(jnp.matmul(pose, H, precision=HIGHEST)),
        g_shared=equations.g_shared.at[index].add(shape_is_free * shape * params.betas),
    )


def linearise(
    hand: HandModel,
    state: State,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
) -> NormalEquations:
    """Gauss-Newton blocks at `state` (T frames) of all but the priors: terms (robust, matched already), limits,
    smoothness and cameras. `shape_is_free` 0 keeps the shape where it is.
    """
    params = state.params
    n, B, C = NUM_FRAME_UNKNOWNS, hand.num_betas, state.cameras.size
    num_frames = params.transl.shape[0]
    H = jnp.zeros((num_frames, n + B + C, n + B + C))
    g = jnp.zeros((num_frames, n + B + C))
    total = _regular_cost(hand, state, seen, settings, dt)
    for term in seen.terms:
        H_term, g_term, cost_term = _linearise_term(hand, state, term, seen.given)
        H, g, total = H + H_term, g + g_term, total + jnp.sum(cost_term)
    free = jnp.concatenate([jnp.ones(n), jnp.full(B, shape_is_free), jnp.ones(C)])
    H, g = H * free[:, None] * free, g * free

    limit_H, limit_g = _linearise_limits(hand, params.hand_pose, settings)
    H = H.at[:, POSE, POSE].add(limit_H)
    g = g.at[:, POSE].add(limit_g)

    rate, steps = _rates(settings, dt), _steps(params)
    q = seen.linked[:, None] * rate
    around = jnp.pad(q, ((1, 0), (0, 0))) + jnp.pad(q, ((0, 1), (0, 0)))
    pull = q * steps
    # a floor keeps what nothing sees (the depth of a known weak camera) solvable
    frame = jnp.arange(n)
    H = H.at[:, frame, frame].add(around + 1e-4)
    g = g.at[:, :n].add(jnp.pad(pull, ((1, 0), (0, 0))) - jnp.pad(pull, ((0, 1), (0, 0))))
    Q = q[:, :, None] * jnp.eye(n)
    if settings.keypoint_rate is not None:
        H, g, Q_keypoints = _add_keypoint_smoothness(hand, params, seen.linked, settings, dt, shape_is_free, H, g)
        Q = Q + Q_keypoints

    excess = _shape_excess(params.betas, settings)
    excess_H = num_frames * jnp.where(excess != 0, 1 / _SIGMA_SHAPE_EXCESS**2, 0)
    excess_g = num_frames * excess / _SIGMA_SHAPE_EXCESS
    camera_prior = jnp.tile(_camera_precision(settings), state.cameras.shape[0])
    diagonal = jnp.concatenate([excess_H, camera_prior])
    pull_shared = jnp.concatenate([shape_is_free * excess_g, camera_prior * state.cameras.reshape(-1)])
    return NormalEquations(
        cost=total,
        A=H[:, :n, :n],
        Q=Q,
        B=H[:, :n, n:],
        C=H[:, n:, n:].sum(0) + jnp.diag(diagonal),
        g=g[:, :n],
        g_shared=g[:, n:].sum(0) + pull_shared,
    )


def _linearise_limits(hand: HandModel, hand_pose: Array, settings: FitSettings) -> tuple[Array, Array]:
    """H (T, 45, 45) and g (T, 45) of the joint limits."""
    over, d_over = _limit_jacobian(hand, hand_pose)
    over, d_over = over / settings.sigma_limit, d_over / settings.sigma_limit
    blocks = jnp.einsum("tjab,tjac->tjbc", d_over, d_over, precision=HIGHEST)
    joint_diagonal = jnp.eye(15)[:, None, :, None]
    H = (joint_diagonal * blocks[:, :, :, None, :]).reshape(-1, 45, 45)
    return H, jnp.einsum("tjab,tja->tjb", d_over, over, precision=HIGHEST).reshape(-1, 45)


def _add_keypoint_smoothness(
    hand: HandModel,
    params: HandParams,
    linked: Array,
    settings: FitSettings,
    dt: Array | float,
    shape_is_free: Array | float,
    H: Array,
    g: Array,
) -> tuple[Array, Array, Array]:
    """H and g with the steps of the keypoints, and their coupling (T - 1, n, n)."""
    n, m = NUM_FRAME_UNKNOWNS, NUM_FRAME_UNKNOWNS + hand.num_betas
    assert settings.keypoint_rate is not None
    weight = linked / jnp.square(settings.keypoint_rate * dt)
    points, J = jax.vmap(lambda p: landmark_jacobian(hand, p, keypoint_landmarks(hand)))(_per_frame(params))
    J = J.reshape(*J.shape[:1], 63, m)
    step = jnp.diff(points, axis=0).reshape(-1, 63)
    by_shape = shape_is_free * jnp.diff(J[..., n:], axis=0)
    here = jnp.concatenate([-J[:-1, :, :n], by_shape], -1)
    there = jnp.concatenate([J[1:, :, :n], by_shape], -1)
    times = lambda a, b: jnp.einsum("t,tkx,tky->txy", weight, a, b, precision=HIGHEST)  # noqa: E731
    pull = lambda a: jnp.einsum("t,tkx,tk->tx", weight, a, step, precision=HIGHEST)  # noqa: E731
    # the shape's own block belongs to one of the two frames only
    H = H.at[:-1, :m, :m].add(times(here, here)).at[1:, :m, :m].add(times(there, there).at[:, n:, n:].set(0))
    g = g.at[:-1, :m].add(pull(here)).at[1:, :m].add(pull(there).at[:, n:].set(0))
    return H, g, times(-here[..., :n], there[..., :n])


def retract(state: State, frame_step: Array, shared_step: Array) -> State:
    """`state` moved by steps (T, 51) of its frames and (B + 7 V,) of what they share."""
    params, B = state.params, state.params.betas.shape[0]
    turn = jnp.matmul(so3_exp(frame_step[:, ORIENT]), so3_exp(params.global_orient), precision=HIGHEST)
    moved = HandParams(
        global_orient=so3_log(turn),
        hand_pose=params.hand_pose + frame_step[:, POSE].reshape(-1, 15, 3),
        betas=params.betas + shared_step[:B],
        transl=params.transl + frame_step[:, TRANSL],
    )
    return State(moved, state.cameras + shared_step[B:].reshape(-1, CAMERA_UNKNOWNS))
