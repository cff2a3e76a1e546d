"""Where a fit begins: the palm's rotation from points in closed form, and the few explanations that 2D points leave
open.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jhand.fitting.terms import FreeWeakCamera
from jhand.geometry.camera import Camera, WeakCamera
from jhand.geometry.rotations import so3_exp, so3_log
from jhand.hand.landmark_sets import LandmarkSet, landmarks
from jhand.hand.model import HandModel, HandParams
from jhand.hand.skeleton import keypoint_names

HIGHEST = lax.Precision.HIGHEST
_NUM_VIEWS = 64
_NUM_STARTS_2D = 4
_FARTHEST = 1e-4  # 1 / metres: nothing is fitted beyond ten kilometres
_AT_HAND = 0.5  # metres
_FINGER_POINTS = np.arange(1, 21).reshape(5, 4)  # thumb to little, base to tip, in openpose21
_FINGER_JOINTS = np.array([[12, 13, 14], [0, 1, 2], [3, 4, 5], [9, 10, 11], [6, 7, 8]])  # the same of `hand_pose`


def _rest_poses(hand: HandModel, landmark_set: LandmarkSet, betas: Array) -> tuple[Array, Array]:
    """Poses (2, 15, 3) to begin with, flat and mean, and their landmarks (N, 2, K, 3) for shapes (N, B)."""
    poses = jnp.stack([jnp.zeros((15, 3)), hand.hands_mean.reshape(15, 3)])
    num = betas.shape[0]
    params = HandParams(
        jnp.zeros((num, 2, 3)), jnp.broadcast_to(poses, (num, 2, 15, 3)), betas[:, None], jnp.zeros((num, 2, 3))
    )
    return poses, landmarks(hand, params, landmark_set)


def _rotation_about_root(root: Array, R: Array, t: Array) -> Array:
    """Translation of a hand that rotates about `root` so that its points go through x -> R x + t."""
    return jnp.einsum("...ij,...j->...i", R, root, precision=HIGHEST) + t - root


def start_3d(hand: HandModel, landmark_set: LandmarkSet, points: Array, weights: Array, betas: Array) -> HandParams:
    """The rest hand laid on measured points (N, K, 3) by its palm (Kabsch 1976): parameters (N, 1, ...).

    Fingers are flat or in the mean pose, whichever is nearer; where the points are the 21 keypoints, they are turned
    bone by bone to where these point.
    """
    poses, rest = _rest_poses(hand, landmark_set, betas)
    num = rest.shape[0]
    # the palm is rigid; fingers help only where it is not seen
    w = weights[:, None, :] * (0.02 + landmark_set.weights[:, 0])
    w = w / jnp.maximum(jnp.sum(w, -1, keepdims=True), 1e-12)
    centre_from = jnp.einsum("nsk,nskc->nsc", jnp.broadcast_to(w, rest.shape[:3]), rest, precision=HIGHEST)
    centre_to = jnp.einsum("nsk,nkc->nsc", w, points, precision=HIGHEST)
    spread = jnp.einsum(
        "nsk,nska,nkb->nsab",
        jnp.broadcast_to(w, rest.shape[:3]),
        rest - centre_from[:, :, None],
        points,
        precision=HIGHEST,
    )
    U, _, Vt = jnp.linalg.svd(spread)
    sign = jnp.sign(jnp.linalg.det(jnp.matmul(U, Vt, precision=HIGHEST)))
    keep = jnp.stack([jnp.ones_like(sign), jnp.ones_like(sign), sign], -1)
    V, Ut = jnp.swapaxes(Vt, -1, -2), jnp.swapaxes(U, -1, -2)
    R = jnp.matmul(V * keep[..., None, :], Ut, precision=HIGHEST)
    t = centre_to - jnp.einsum("nsij,nsj->nsi", R, centre_from, precision=HIGHEST)
    laid = jnp.einsum("nsij,nskj->nski", R, rest, precision=HIGHEST) + t[:, :, None]
    misfit = jnp.sum(weights[:, None, :] * jnp.linalg.norm(laid - points[:, None], axis=-1), -1)
    row, best = jnp.arange(num), jnp.argmin(misfit, 1)
    R, t = R[row, best], t[row, best]
    hand_pose = poses[best]
    if landmark_set.names == keypoint_names("openpose21"):
        hand_pose = _swing_bones(rest[:, 0], points, weights, R, hand_pose)
    found = HandParams(so3_log(R), hand_pose, betas, _rotation_about_root(_roots(hand, betas), R, t))
    return jax.tree.map(lambda a: a[:, None], found)


def _swing_bones(rest: Array, points: Array, weights: Array, R: Array, otherwise: Array) -> Array:
    """Poses (N, 15, 3) that turn each bone from its rest direction (N, 21, 3) to the measured one without twist, below
    wrists turned by R; `otherwise` where an end of the bone was not seen.
    """
    G, turns = R[:, None], []  # each finger's bone before, (N, 5, 3, 3)
    ends = _FINGER_POINTS
    for level in range(3):
        a = _unit(rest[:, ends[:, level + 1]] - rest[:, ends[:, level]])
        b = _unit(points[:, ends[:, level + 1]] - points[:, ends[:, level]])
        b = jnp.einsum("nfji,nfj->nfi", jnp.broadcast_to(G, (*b.shape, 3)), b, precision=HIGHEST)
        axis, cos = jnp.cross(a, b), jnp.sum(a * b, -1, keepdims=True)
        sin = jnp.linalg.norm(axis, axis=-1, keepdims=True)
        turn = axis / jnp.maximum(sin, 1e-6) * jnp.arctan2(sin, cos)
        seen = (weights[:, ends[:, level + 1]] > 0) & (weights[:, ends[:, level]] > 0) & (sin[..., 0] > 1e-6)
        turn = jnp.where(seen[..., None], turn, otherwise[:, _FINGER_JOINTS[:, level]])
        G = jnp.matmul(G, so3_exp(turn), precision=HIGHEST)
        turns.append(turn)
    by_finger = jnp.stack(turns, 2)  # (N, 5, 3, 3): finger, level
    return jnp.zeros_like(otherwise).at[:, _FINGER_JOINTS].set(by_finger)


def _unit(v: Array) -> Array:
    return v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _roots(hand: HandModel, betas: Array) -> Array:
    """Wrist joint of rest hands (N, 3)."""
    return hand.joint_basis[0, 0] + jnp.matmul(betas, hand.joint_basis[1:, 0], precision=HIGHEST)


def _view_directions() -> np.ndarray:
    """Rotations (V, 3, 3) that turn each of V evenly spread directions towards the camera (a Fibonacci sphere)."""
    i = np.arange(_NUM_VIEWS) + 0.5
    z = 1 - 2 * i / _NUM_VIEWS
    azimuth = np.pi * (1 + 5**0.5) * i
    d = np.stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], -1)
    x = np.cross(d, np.where(np.abs(d[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]]))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(d, x), d], 1).astype(np.float32)


def starts_2d(
    hand: HandModel,
    landmark_set: LandmarkSet,
    points: Array,
    weights: Array,
    camera: Camera | WeakCamera | FreeWeakCamera,
    betas: Array,
) -> HandParams:
    """Explanations of image points (N, K, 2): parameters (N, S, ...).

    Every view direction is tried with rotation in the picture, scale and shift in closed form; the best are kept that
    lie at least 45 degrees apart, since the one mirrored in depth is nearly as good.
    """
    poses, rest = _rest_poses(hand, landmark_set, betas)
    num, num_poses = rest.shape[:2]
    points = _normalise(points, camera)
    views = jnp.asarray(_view_directions())
    w = weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-12)

    seen = jnp.einsum("vij,nskj->nsvki", views[:, :2], rest, precision=HIGHEST)
    a = seen[..., 0] + 1j * seen[..., 1]
    b = points[..., 0] + 1j * points[..., 1]
    b_mean = jnp.sum(w * b, -1)
    a_mean = jnp.sum(w[:, None, None] * a, -1)
    a0, b0 = a - a_mean[..., None], b - b_mean[:, None]
    # complex least squares b0 ~ c a0: |c| is the scale, arg c the turn in the picture
    power = jnp.sum(w[:, None, None] * jnp.abs(a0) ** 2, -1)
    c = jnp.sum(w[:, None, None] * jnp.conj(a0) * b0[:, None, None], -1) / jnp.maximum(power, 1e-12)
    misfit = jnp.sum(w[:, None, None] * jnp.abs(b0[:, None, None] - c[..., None] * a0) ** 2, -1).reshape(num, -1)

    angle = jnp.angle(c)
    axis = jnp.array([0.0, 0.0, 1.0])
    R = jnp.matmul(so3_exp(angle[..., None] * axis), views, precision=HIGHEST)
    R = R.reshape(num, -1, 3, 3)
    shift = (b_mean[:, None, None] - c * a_mean).reshape(num, -1)
    scale = jnp.abs(c).reshape(num, -1)
    pose_id = jnp.broadcast_to(jnp.arange(num_poses)[:, None], (num_poses, _NUM_VIEWS)).reshape(-1)

    rows = jnp.arange(num)
    taken = jnp.zeros_like(misfit, bool)
    chosen = []
    for _ in range(_NUM_STARTS_2D):
        best = jnp.argmin(jnp.where(taken, jnp.inf, misfit), -1)
        chosen.append(best)
        cos = (jnp.einsum("nvij,nij->nv", R, R[rows, best], precision=HIGHEST) - 1) / 2
        taken = taken | (cos > np.cos(np.pi / 4))
    pick = jnp.stack(chosen, -1)
    R, shift, scale = (
        jnp.take_along_axis(x, pick.reshape(num, -1, *(1,) * (x.ndim - 2)), 1) for x in (R, shift, scale)
    )
    # scale is 1 / depth in normalised coordinates; the rest hand's origin lands at shift
    z = jnp.where(scale > _FARTHEST, 1 / scale, _AT_HAND)  # points in one place show no distance
    t = jnp.stack([shift.real * z, shift.imag * z, z], -1)
    R, t = _to_world(R, t, camera)
    root = jnp.broadcast_to(_roots(hand, betas)[:, None], t.shape)
    num_starts = pick.shape[1]
    return HandParams(
        global_orient=so3_log(R),
        hand_pose=poses[pose_id[pick]],
        betas=jnp.broadcast_to(betas[:, None], (num, num_starts, betas.shape[-1])),
        transl=_rotation_about_root(root, R, t),
    )


def _normalise(points: Array, camera: Camera | WeakCamera | FreeWeakCamera) -> Array:
    """Image points (N, K, 2) in units in which a point at depth z appears at (x, y) / z, distortion left out of a
    start.
    """
    if isinstance(camera, FreeWeakCamera):
        return points / camera.focal[:, None, None]
    if isinstance(camera, WeakCamera):
        return (points - camera.offset[:, None]) / camera.scale[:, None, None]
    focal = jnp.stack([camera.K[:, 0, 0], camera.K[:, 1, 1]], -1)
    return (points - camera.K[:, None, :2, 2]) / focal[:, None]


def _to_world(R: Array, t: Array, camera: Camera | WeakCamera | FreeWeakCamera) -> tuple[Array, Array]:
    """Rotations (N, S, 3, 3) and translations (N, S, 3) from the camera's frame to the world's."""
    if not isinstance(camera, Camera):
        return R, t
    R_world_cam = jnp.swapaxes(camera.T_cam_world[:, :3, :3], -1, -2)
    t = t - camera.T_cam_world[:, None, :3, 3]
    return (
        jnp.einsum("nij,nsjk->nsik", R_world_cam, R, precision=HIGHEST),
        jnp.einsum("nij,nsj->nsi", R_world_cam, t, precision=HIGHEST),
    )
