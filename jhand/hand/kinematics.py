"""Forward kinematics: from shape and pose to joints, keypoints and the skinned mesh.

`forward` is `shape_hand`, `pose_hand` and `skin` in one; the stages are public so that what does not change is done
once. The five fingers move in parallel, three levels deep, and keypoints never pay for the mesh.

Give many hands as leading axes rather than by `vmap`: a CPU then skins them in chunks that fit its cache.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import so3_exp
from jhand.hand.model import HandModel, HandParams, check_params, rest_joints

HIGHEST = lax.Precision.HIGHEST
"""TPUs and Ampere GPUs multiply float32 with less by default: 0.2 mm a joint."""

_CHUNK = 128
"""Meshes that a CPU skins at a time: larger chunks leave its cache, smaller ones are slower products."""

_KEYPOINTS_FROM_JOINTS_AND_TIPS = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""openpose21 from the 16 joints followed by the tips of thumb, index, middle, ring and little finger."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ShapedHand:
    """The flat hand of one shape."""

    vertices: Float[Array, "*b vertices 3"]
    joints: Float[Array, "*b 16 3"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PosedHand:
    """Where each bone went. `rotations @ x + translations` carries a rest point `x` along with its bone."""

    rotations: Float[Array, "*b 16 3 3"]
    translations: Float[Array, "*b 16 3"]
    joints: Float[Array, "*b 16 3"]
    pose_features: Float[Array, "*b 135"]
    """R_1 - I .. R_15 - I, row-major: what the pose correctives answer to."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HandMesh:
    """A posed hand, metres."""

    vertices: Float[Array, "*b vertices 3"]
    joints: Float[Array, "*b 16 3"]
    """MANO order."""
    keypoints: Float[Array, "*b 21 3"]
    """openpose21 order."""


def _blend(basis: Array, coefficients: Array) -> Array:
    """Weighted rows of a planar basis (F, 3, N): points (..., 3, N)."""
    flat = basis.reshape(basis.shape[0], -1)
    return jnp.matmul(coefficients, flat, precision=HIGHEST).reshape(*coefficients.shape[:-1], *basis.shape[1:])


def _coefficients(betas: Array, pose_features: Array) -> Array:
    """Coefficients of the whole basis: 1, betas, pose features."""
    batch = jnp.broadcast_shapes(betas.shape[:-1], pose_features.shape[:-1])
    b, f = (jnp.broadcast_to(x, (*batch, x.shape[-1])) for x in (betas, pose_features))
    return jnp.concatenate([jnp.ones((*batch, 1), b.dtype), b, f], -1)


def _bones(posed: PosedHand) -> Array:
    """Bone transforms (..., 16, 3, 4): rotation and translation side by side."""
    return jnp.concatenate([posed.rotations, posed.translations[..., None]], -1)


def _carry(weights: Array, bones: Array, points: Array) -> Array:
    """Linear blend skinning of planar rest points (..., 3, N) with weights (N, 16): points (..., N, 3).

    The twelve entries of the blended transforms are planes over the points, so that applying them vectorises over N.
    """
    entries = jnp.moveaxis(bones.reshape(*bones.shape[:-2], 12), -1, -2)
    planes = jnp.matmul(entries, weights.T, precision=HIGHEST)
    planes = planes.reshape(*planes.shape[:-2], 3, 4, planes.shape[-1])
    x, y, z = points[..., None, 0, :], points[..., None, 1, :], points[..., None, 2, :]
    carried = planes[..., 0, :] * x + planes[..., 1, :] * y + planes[..., 2, :] * z + planes[..., 3, :]
    return jnp.stack([carried[..., 0, :], carried[..., 1, :], carried[..., 2, :]], -1)  # its gradient beats swapaxes'


def _in_chunks(skin_some: Callable[..., Array], batch: tuple[int, ...], *arrays: Array) -> Array:
    """`skin_some` of arrays with leading axes `batch`: on a CPU a few hands at a time, elsewhere all at once.

    What a chunk computes on its way stays in the cache, and is computed again for the gradient rather than kept: twice
    as fast from a few hundred hands on. An accelerator gains nothing, and would lose the sharding of the batch.
    """
    hands = math.prod(batch)
    if hands <= _CHUNK or jax.default_backend() != "cpu":
        return skin_some(*arrays)
    flat = [x.reshape(hands, *x.shape[len(batch) :]) for x in arrays]
    recomputed = jax.checkpoint(skin_some, prevent_cse=False)  # a loop already keeps XLA from merging the two
    out = lax.map(lambda one: recomputed(*one), flat, batch_size=_CHUNK)
    return out.reshape(*batch, *out.shape[1:])


@jax.jit
def shape_hand(hand: HandModel, betas: ArrayLike) -> ShapedHand:
    """The flat hand of shape `betas` (..., B): rest vertices (..., V, 3) and joints (..., 16, 3), metres."""
    b = jnp.asarray(betas)
    vertices = _blend(hand.basis[: 1 + hand.num_betas], _coefficients(b, b[..., :0]))
    return ShapedHand(jnp.swapaxes(vertices, -1, -2), rest_joints(hand, b))


@jax.jit
def pose_hand(joints: ArrayLike, global_orient: ArrayLike, hand_pose: ArrayLike, transl: ArrayLike) -> PosedHand:
    """Pose the skeleton of a shaped hand.

    Args:
        joints: rest joints (..., 16, 3), from `shape_hand` or `rest_joints`, metres.
        global_orient: (..., 3) axis-angle about the wrist joint.
        hand_pose: (..., 15, 3) axis-angle relative to the flat hand.
        transl: (..., 3) metres.

    Returns:
        Bone transforms, posed joints and pose features.
    """
    w, theta = jnp.asarray(global_orient), jnp.asarray(hand_pose)
    batch = jnp.broadcast_shapes(w.shape[:-1], theta.shape[:-2])
    w, theta = jnp.broadcast_to(w, (*batch, 3)), jnp.broadcast_to(theta, (*batch, 15, 3))
    return pose_hand_by_matrices(joints, so3_exp(jnp.concatenate([w[..., None, :], theta], -2)), transl)


@jax.jit
def pose_hand_by_matrices(joints: ArrayLike, rotations: ArrayLike, transl: ArrayLike) -> PosedHand:
    """`pose_hand` from rotation matrices, which networks regress: no logarithm stands between them and a loss.

    Args:
        joints: rest joints (..., 16, 3), metres.
        rotations: (..., 16, 3, 3), the wrist's and those of the fingers relative to the flat hand.
        transl: (..., 3) metres.

    Returns:
        Bone transforms, posed joints and pose features.
    """
    J, R, t = map(jnp.asarray, (joints, rotations, transl))
    batch = jnp.broadcast_shapes(J.shape[:-2], R.shape[:-3], t.shape[:-1])
    J, t = jnp.broadcast_to(J, (*batch, 16, 3)), jnp.broadcast_to(t, (*batch, 3))
    R = jnp.broadcast_to(R, (*batch, 16, 3, 3))
    features = (R - jnp.broadcast_to(jnp.eye(3, dtype=R.dtype), R.shape))[..., 1:, :, :].reshape(*batch, 135)

    # all five fingers at once: each bone's rotation, and beside it the way to its joint from the one before
    first, fingers = J[..., None, :1, :], J[..., 1:, :].reshape(*batch, 5, 3, 3)
    steps = fingers - jnp.concatenate([jnp.broadcast_to(first, (*batch, 5, 1, 3)), fingers[..., :-1, :]], -2)
    local = jnp.concatenate([R[..., 1:, :, :].reshape(*batch, 5, 3, 3, 3), steps[..., None]], -1)

    wrist = J[..., 0, :] + t
    G, p = R[..., None, 0, :, :], wrist[..., None, :]
    turns, positions = [], []
    for level in range(3):
        turned = jnp.matmul(G, local[..., level, :, :], precision=HIGHEST)
        G, p = turned[..., :3], p + turned[..., 3]
        turns.append(G)
        positions.append(p)
    G = jnp.concatenate([R[..., :1, :, :], jnp.stack(turns, -3).reshape(*batch, 15, 3, 3)], -3)
    p = jnp.concatenate([wrist[..., None, :], jnp.stack(positions, -2).reshape(*batch, 15, 3)], -2)
    # as a product: summed entry by entry, XLA works the chain out again for each of them, at twice the time
    carried = jnp.matmul(G, J[..., None], precision=HIGHEST)[..., 0]
    return PosedHand(G, p - carried, p, features)


@jax.jit
def skin(hand: HandModel, shaped: ShapedHand, posed: PosedHand) -> Float[Array, "*b vertices 3"]:
    """Vertices of a shaped and posed hand: pose correctives, then linear blend skinning. Metres."""
    batch = jnp.broadcast_shapes(shaped.vertices.shape[:-2], posed.joints.shape[:-2])
    correctives = hand.basis[1 + hand.num_betas :]

    def skin_some(vertices: Array, features: Array, bones: Array) -> Array:
        return _carry(hand.weights, bones, jnp.swapaxes(vertices, -1, -2) + _blend(correctives, features))

    return _in_chunks(
        skin_some,
        batch,
        jnp.broadcast_to(shaped.vertices, (*batch, hand.num_vertices, 3)),
        jnp.broadcast_to(posed.pose_features, (*batch, 135)),
        jnp.broadcast_to(_bones(posed), (*batch, 16, 3, 4)),
    )


def _pose(hand: HandModel, params: HandParams) -> PosedHand:
    return pose_hand(rest_joints(hand, params.betas), params.global_orient, params.hand_pose, params.transl)


def _order_keypoints(joints: Array, tips: Array) -> Array:
    return jnp.concatenate([joints, tips], -2)[..., _KEYPOINTS_FROM_JOINTS_AND_TIPS, :]


@jax.jit
def forward(hand: HandModel, params: HandParams) -> HandMesh:
    """Mesh, joints and keypoints of posed hands (Romero et al. 2017, eq. 1-4).

    Args:
        hand: the model.
        params: parameters with any leading axes.

    Returns:
        vertices (..., V, 3), joints (..., 16, 3) in MANO order, keypoints (..., 21, 3) in openpose21 order; metres, in
        the frame that `global_orient` and `transl` lead to.

    Raises:
        ValueError: a parameter of another shape than the model expects.
    """
    params = check_params(params, hand)
    posed = _pose(hand, params)

    def skin_some(coefficients: Array, bones: Array) -> Array:
        return _carry(hand.weights, bones, _blend(hand.basis, coefficients))

    coefficients = _coefficients(params.betas, posed.pose_features)
    vertices = _in_chunks(skin_some, params.batch, coefficients, _bones(posed))
    tips = vertices[..., hand.tips, :]
    return HandMesh(vertices, posed.joints, _order_keypoints(posed.joints, tips))


@jax.jit
def keypoints(hand: HandModel, params: HandParams) -> Float[Array, "*b 21 3"]:
    """The 21 keypoints of `forward` without its mesh: openpose21 order, metres.

    Args:
        hand: the model.
        params: parameters with any leading axes.

    Raises:
        ValueError: a parameter of another shape than the model expects.
    """
    params = check_params(params, hand)
    return posed_keypoints(hand, params.betas, _pose(hand, params))


@jax.jit
def posed_keypoints(hand: HandModel, betas: ArrayLike, posed: PosedHand) -> Float[Array, "*b 21 3"]:
    """The 21 keypoints of a posed hand of shape `betas` (..., B): openpose21 order, metres."""
    rest = _blend(hand.basis[..., hand.tips], _coefficients(jnp.asarray(betas), posed.pose_features))
    tips = _carry(hand.weights[hand.tips, :], _bones(posed), rest)
    return _order_keypoints(posed.joints, tips)


@jax.jit
def joints(hand: HandModel, params: HandParams) -> Float[Array, "*b 16 3"]:
    """The 16 posed joints in MANO order, metres.

    Args:
        hand: the model.
        params: parameters with any leading axes.

    Raises:
        ValueError: a parameter of another shape than the model expects.
    """
    return _pose(hand, check_params(params, hand)).joints
