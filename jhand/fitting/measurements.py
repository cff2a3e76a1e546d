"""What was measured, how much it is trusted, and the linearised terms of a fit.

Every residual is divided by a stated sigma, so weights have no unit; a missing measurement has weight 0. The unknowns
of a frame are a left perturbation of the wrist's rotation, the pose and the translation (51), those of a sequence its
shape (betas).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.geometry.camera import Camera, WeakCamera, project
from jhand.geometry.rotations import skew, so3_exp, so3_left_jacobian, so3_log
from jhand.hand.anatomy import limit_excess
from jhand.hand.kinematics import pose_hand
from jhand.hand.landmark_sets import LandmarkSet, carry_landmarks, rest_landmarks
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
    anneal: Array | float = 0.009
    """Metres: no point is trusted further than this in the first iteration; its variance then falls by 0.3 each
    iteration to that of its sigma. Twist is barely seen by points, and a gentle start keeps it from running away."""
    tolerance: Array | float = 1e-4
    """Relative decrease of the cost under which a step counts as the last."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeWeakCamera:
    """Scaled orthography of unknown scale: u = focal * (x, y) / z of the hand's translation. Its focal length is
    nominal.
    """

    focal: Float[Array, "*b"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InSpace:
    """Landmarks measured in metres."""

    points: Float[Array, "*b k 3"]
    weights: Float[Array, "*b k"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InPicture:
    """Landmarks measured in pixels."""

    points: Float[Array, "*b k 2"]
    weights: Float[Array, "*b k"]
    camera: Camera | WeakCamera | FreeWeakCamera


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measurements:
    """Landmarks seen in T frames; what was not measured at all is None."""

    space: InSpace | None
    picture: InPicture | None
    linked: Float[Array, "*b steps"]
    """(T - 1): 1 where a frame follows the one before, 0 where they are unrelated."""

    @property
    def weights(self) -> Float[Array, "*b k"]:
        """Those of the points in space, or where there are none of those in the picture."""
        seen = self.picture if self.space is None else self.space
        if seen is None:
            raise ValueError("nothing was measured")
        return seen.weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton blocks of T frames of n unknowns that share m: sum of squares = cost + 2 g.d + d.H.d."""

    cost: Float[Array, ""]
    A: Float[Array, "t n n"]
    """Each frame with itself."""
    q: Float[Array, "steps n"]
    """Smoothness: minus the diagonal coupling of each frame with the next; 0 where unrelated."""
    B: Float[Array, "t n m"]
    """Each frame with the shared unknowns."""
    C: Float[Array, "m m"]
    g: Float[Array, "t n"]
    g_shared: Float[Array, "m"]


def _image_point(camera: Camera | WeakCamera | FreeWeakCamera, point: Array, transl: Array) -> Array:
    """Pixel (2,) of one landmark (3,) of a hand translated by `transl` (3,)."""
    if isinstance(camera, FreeWeakCamera):
        return camera.focal * point[:2] / transl[2]
    return project(camera, point[None])[0]


def predict_2d(camera: Camera | WeakCamera | FreeWeakCamera, points: Array, transl: Array) -> Array:
    """Pixels (T, K, 2) of landmarks (T, K, 3); the camera has a leading axis T."""
    over_points = jax.vmap(_image_point, in_axes=(None, 0, None))
    return jax.vmap(over_points)(camera, points, transl)


def point_precision(seen: Measurements, transl: Array, settings: FitSettings) -> Array:
    """About how sharply a landmark of weight 1 is seen on hands at `transl` (T, 3): 1 / variance, in 1 / metres^2."""
    precision = jnp.zeros(())
    if seen.space is not None:
        precision = precision + 1 / jnp.square(settings.sigma_3d)
    if seen.picture is not None:
        by_point = jax.vmap(jax.jacfwd(_image_point, argnums=1))(seen.picture.camera, transl, transl)
        squared_scale = jnp.median(jnp.sum(jnp.square(by_point), (-1, -2))) / 2  # of pixels per metre
        precision = precision + squared_scale / jnp.square(settings.sigma_2d)
    return precision


def predict_3d(hand: HandModel, params: HandParams, landmark_set: LandmarkSet) -> Array:
    """Landmarks (T, K, 3) of T frames (T, ...) of one shape (B,)."""
    num_frames = params.transl.shape[0]
    betas = jnp.broadcast_to(params.betas, (num_frames, *params.betas.shape))
    posed = pose_hand(rest_joints(hand, betas), params.global_orient, params.hand_pose, params.transl)
    return carry_landmarks(landmark_set, posed, rest_landmarks(landmark_set, betas, posed.pose_features))


def _landmark_jacobian(hand: HandModel, params: HandParams, landmark_set: LandmarkSet) -> tuple[Array, Array]:
    """Landmarks (T, K, 3) and their derivatives (T, K, 3, 51 + B): closed form, about nine times cheaper than forward
    mode.
    """
    num_frames, K, B = params.transl.shape[0], landmark_set.weights.shape[0], hand.num_betas
    w = landmark_set.weights
    betas = jnp.broadcast_to(params.betas, (num_frames, B))
    posed = pose_hand(rest_joints(hand, betas), params.global_orient, params.hand_pose, params.transl)
    rest = rest_landmarks(landmark_set, betas, posed.pose_features)
    G = posed.rotations

    # A rotation omega (world axes) of joint a moves x by omega x (S - W p_a): the part of x below a, about a.
    carried = jnp.einsum("tjab,tkb->tkja", G, rest, precision=HIGHEST) + posed.translations[:, None]
    carried = w[None, :, :, None] * carried
    points = carried.sum(2)
    below = jnp.einsum("aj,tkjc->tkac", _ANCESTORS, carried, precision=HIGHEST)
    share = jnp.matmul(w, _ANCESTORS.T, precision=HIGHEST)
    levers = below - share[None, :, :, None] * posed.joints[:, None]
    turn = -skew(levers)  # (T, K, 16, 3, 3)

    # hand_pose + d turns the joint by J_l d in its parent's axes
    J_left = so3_left_jacobian(params.hand_pose)
    omega = jnp.matmul(G[:, _PARENT_OF_FINGER_JOINTS], J_left, precision=HIGHEST)
    by_pose = jnp.einsum("tkjab,tjbc->tkajc", turn[:, :, 1:], omega, precision=HIGHEST)

    # the pose correctives answer to the entries of R_j
    M = jnp.einsum("kj,tjab->tkab", w, G, precision=HIGHEST)
    R = so3_exp(params.hand_pose)
    dR = jnp.matmul(skew(jnp.swapaxes(J_left, -1, -2)), R[:, :, None], precision=HIGHEST)  # (T, 15, c, 3, 3)
    correctives = landmark_set.basis[1 + B :].reshape(15, 9, 3, K)
    d_rest = jnp.einsum("jfak,tjcf->tkajc", correctives, dR.reshape(num_frames, 15, 3, 9), precision=HIGHEST)
    by_pose = by_pose + jnp.einsum("tkab,tkbjc->tkajc", M, d_rest, precision=HIGHEST)

    # betas move the rest landmark and, down the chain of bones, every joint
    d_joints = jnp.moveaxis(hand.joint_basis[1:], 0, -1)  # (16, 3, B)
    d_bones = jnp.einsum(
        "tjab,jbs->tjas",
        G[:, _PARENT_OF_FINGER_JOINTS],
        d_joints[1:] - d_joints[_PARENT_OF_FINGER_JOINTS],
        precision=HIGHEST,
    )
    d_posed = d_joints[0] + jnp.einsum("aj,tacs->tjcs", _ANCESTORS[1:], d_bones, precision=HIGHEST)
    d_transl = d_posed - jnp.einsum("tjab,jbs->tjas", G, d_joints, precision=HIGHEST)
    d_shape = jnp.moveaxis(landmark_set.basis[1 : 1 + B], (2, 1, 0), (0, 1, 2))  # (K, 3, B)
    by_shape = jnp.einsum("tkab,kbs->tkas", M, d_shape, precision=HIGHEST)
    by_shape = by_shape + jnp.einsum("kj,tjas->tkas", w, d_transl, precision=HIGHEST)

    by_transl = jnp.broadcast_to(jnp.eye(3), (num_frames, K, 3, 3))
    by_pose = by_pose.reshape(num_frames, K, 3, 45)
    return points, jnp.concatenate([turn[:, :, 0], by_pose, by_transl, by_shape], -1)


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


def cost(
    hand: HandModel,
    params: HandParams,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    prior_weight: Array | float,
) -> Array:
    """Sum of squares that `linearise` expands: data (robust), limits, smoothness, and the priors times
    `prior_weight`.
    """
    points = predict_3d(hand, params, landmark_set)
    total = jnp.zeros(())
    if seen.space is not None:
        squared = jnp.sum(jnp.square(points - seen.space.points), -1) / jnp.square(settings.sigma_3d)
        total = total + jnp.sum(seen.space.weights * _pseudo_huber(squared, settings.robust)[0])
    if seen.picture is not None:
        uv = predict_2d(seen.picture.camera, points, params.transl)
        squared = jnp.sum(jnp.square(uv - seen.picture.points), -1) / jnp.square(settings.sigma_2d)
        # multiplying a masked infinity by 0 would give NaN
        robust_cost = jnp.where(seen.picture.weights > 0, _pseudo_huber(squared, settings.robust)[0], 0)
        total = total + jnp.sum(seen.picture.weights * robust_cost)
    total = total + jnp.sum(jnp.square(limit_excess(hand, params.hand_pose) / settings.sigma_limit))
    total = total + jnp.sum(seen.linked[:, None] * _rates(settings, dt) * jnp.square(_steps(params)))
    pose = params.hand_pose.reshape(-1, 45) - hand.hands_mean
    prior = jnp.sum(jnp.square(jnp.matmul(pose, _whitening(hand).T, precision=HIGHEST) / settings.sigma_pose))
    total = total + prior_weight * (prior + jnp.sum(jnp.square(params.betas / settings.sigma_shape)))
    return total + params.transl.shape[0] * jnp.sum(jnp.square(_shape_excess(params.betas, settings)))


def linearise(
    hand: HandModel,
    params: HandParams,
    landmark_set: LandmarkSet,
    seen: Measurements,
    settings: FitSettings,
    dt: Array | float,
    prior_weight: Array | float,
    shape_is_free: Array | float,
) -> NormalEquations:
    """Gauss-Newton blocks at `params` (T frames, one shape). `shape_is_free` 0 keeps the shape where it is."""
    n, B = NUM_FRAME_UNKNOWNS, hand.num_betas
    num_frames = params.transl.shape[0]
    points, J = _landmark_jacobian(hand, params, landmark_set)
    H = jnp.zeros((num_frames, n + B, n + B))
    g = jnp.zeros((num_frames, n + B))
    total = cost(hand, params, landmark_set, seen, settings, dt, prior_weight)

    def add(H: Array, g: Array, weights: Array, residual: Array, jacobian: Array) -> tuple[Array, Array]:
        weighted = weights[..., None, None] * jacobian
        H = H + jnp.einsum("tkcx,tkcy->txy", weighted, jacobian, precision=HIGHEST)
        return H, g + jnp.einsum("tkcx,tkc->tx", weighted, residual, precision=HIGHEST)

    if seen.space is not None:
        residual = points - seen.space.points
        squared = jnp.sum(jnp.square(residual), -1) / jnp.square(settings.sigma_3d)
        weights = seen.space.weights * _pseudo_huber(squared, settings.robust)[1] / jnp.square(settings.sigma_3d)
        H, g = add(H, g, weights, residual, J)
    if seen.picture is not None:
        camera = seen.picture.camera
        over_points = jax.vmap(jax.jacfwd(_image_point, argnums=(1, 2)), in_axes=(None, 0, None))
        by_point, by_transl = jax.vmap(over_points)(camera, points, params.transl)
        J2 = jnp.einsum("tkuc,tkcx->tkux", by_point, J, precision=HIGHEST).at[..., TRANSL].add(by_transl)
        visible = seen.picture.weights > 0
        residual = jnp.where(visible[..., None], predict_2d(camera, points, params.transl) - seen.picture.points, 0)
        squared = jnp.sum(jnp.square(residual), -1) / jnp.square(settings.sigma_2d)
        weights = seen.picture.weights * _pseudo_huber(squared, settings.robust)[1] / jnp.square(settings.sigma_2d)
        H, g = add(H, g, weights, residual, jnp.where(visible[..., None, None], J2, 0))

    free = jnp.concatenate([jnp.ones(n), jnp.full(B, shape_is_free)])
    H, g = H * free[:, None] * free, g * free

    over, d_over = _limit_jacobian(hand, params.hand_pose)
    over, d_over = over / settings.sigma_limit, d_over / settings.sigma_limit
    blocks = jnp.einsum("tjab,tjac->tjbc", d_over, d_over, precision=HIGHEST)
    joint_diagonal = jnp.eye(15)[:, None, :, None]
    limit_H = (joint_diagonal * blocks[:, :, :, None, :]).reshape(num_frames, 45, 45)
    limit_g = jnp.einsum("tjab,tja->tjb", d_over, over, precision=HIGHEST).reshape(num_frames, 45)
    W = _whitening(hand) / settings.sigma_pose
    prior_H = prior_weight * jnp.matmul(W.T, W, precision=HIGHEST)
    pose = params.hand_pose.reshape(num_frames, 45) - hand.hands_mean
    H = H.at[:, POSE, POSE].add(limit_H + prior_H)
    g = g.at[:, POSE].add(limit_g + jnp.matmul(pose, prior_H, precision=HIGHEST))

    rate, steps = _rates(settings, dt), _steps(params)
    q = seen.linked[:, None] * rate
    around = jnp.pad(q, ((1, 0), (0, 0))) + jnp.pad(q, ((0, 1), (0, 0)))
    pull = q * steps
    # a floor keeps what nothing sees (the depth of a known weak camera) solvable
    frame = jnp.arange(n)
    H = H.at[:, frame, frame].add(around + 1e-4)
    g = g.at[:, :n].add(jnp.pad(pull, ((1, 0), (0, 0))) - jnp.pad(pull, ((0, 1), (0, 0))))

    shape_prior = prior_weight / jnp.square(settings.sigma_shape)
    excess = _shape_excess(params.betas, settings)
    excess_H = num_frames * jnp.where(excess != 0, 1 / _SIGMA_SHAPE_EXCESS**2, 0)
    excess_g = num_frames * excess / _SIGMA_SHAPE_EXCESS
    return NormalEquations(
        cost=total,
        A=H[:, :n, :n],
        q=q,
        B=H[:, :n, n:],
        C=H[:, n:, n:].sum(0) + shape_prior * jnp.eye(B) + jnp.diag(excess_H),
        g=g[:, :n],
        g_shared=g[:, n:].sum(0) + shape_is_free * (shape_prior * params.betas + excess_g),
    )


def retract(params: HandParams, frame_step: Array, shared_step: Array) -> HandParams:
    """`params` (T frames, one shape) moved by steps (T, 51) and (B,) of their unknowns."""
    turn = jnp.matmul(so3_exp(frame_step[:, ORIENT]), so3_exp(params.global_orient), precision=HIGHEST)
    return HandParams(
        global_orient=so3_log(turn),
        hand_pose=params.hand_pose + frame_step[:, POSE].reshape(-1, 15, 3),
        betas=params.betas + shared_step,
        transl=params.transl + frame_step[:, TRANSL],
    )
