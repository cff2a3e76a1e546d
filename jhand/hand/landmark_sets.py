"""Landmark sets: named points on a hand, carried along by its bones.

Keypoints, fingertips, motion-capture markers and a tracker's idea of a joint are all landmark sets. A tracker's joints
are not anatomical joints: fitted as if they were, they bend the shape by many standard deviations.
`jhand.fitting.fit_landmarks` estimates where a source's points lie on the rest hand, once.
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.kinematics import PosedHand, pose_hand
from jhand.hand.model import PARENTS, HandModel, HandParams, check_params, rest_joints
from jhand.hand.skeleton import keypoint_names

_KEYPOINT_JOINTS = (0, 13, 14, 15, -1, 1, 2, 3, -1, 4, 5, 6, -1, 10, 11, 12, -1, 7, 8, 9, -1)
"""MANO joint of each openpose21 keypoint, -1 for the fingertips."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LandmarkSet:
    """Named points with a rest position and skinning weights, laid out like the vertices of a `HandModel`."""

    basis: Float[Array, "features 3 landmarks"]
    """Rows: rest position (1), shape directions (B), pose correctives (135); metres."""
    weights: Float[Array, "landmarks 16"]
    """Skinning weights; rows sum to 1."""
    names: tuple[str, ...] = field(metadata={"static": True})


def vertex_landmarks(hand: HandModel, vertices: tuple[int, ...], names: tuple[str, ...]) -> LandmarkSet:
    """Vertices of the mesh as landmarks, such as the fingertips (`hand.tips`)."""
    ids = np.asarray(vertices)
    return LandmarkSet(hand.basis[..., ids], hand.weights[ids], tuple(names))


def keypoint_landmarks(hand: HandModel) -> LandmarkSet:
    """The 21 keypoints (openpose21) as landmarks: the starting point for a tracker's own idea of them.

    A joint moves with its own bone and its parent's alike, so each holds it with weight one half: where a tracker puts
    the joint somewhere else, the point follows the mean of the two.
    """
    num_features = hand.basis.shape[0]
    basis = jnp.zeros((num_features, 3, 21))
    weights = np.zeros((21, 16), np.float32)
    at_joint = np.flatnonzero(np.asarray(_KEYPOINT_JOINTS) >= 0)
    at_tip = np.flatnonzero(np.asarray(_KEYPOINT_JOINTS) < 0)
    joints = np.asarray(_KEYPOINT_JOINTS)[at_joint]
    basis = basis.at[: 1 + hand.num_betas, :, at_joint].set(jnp.swapaxes(hand.joint_basis, 1, 2)[:, :, joints])
    basis = basis.at[:, :, at_tip].set(hand.basis[..., list(hand.tips)])
    for point, joint in zip(at_joint, joints, strict=True):
        weights[point, joint] += 0.5
        weights[point, max(PARENTS[joint], 0)] += 0.5
    all_weights = jnp.asarray(weights).at[at_tip].set(hand.weights[list(hand.tips), :])
    return LandmarkSet(basis, all_weights, keypoint_names("openpose21"))


def surface_landmarks(
    hand: HandModel, faces: ArrayLike, barycentric: ArrayLike, height: ArrayLike, names: tuple[str, ...]
) -> LandmarkSet:
    """Points above the skin, such as motion-capture markers.

    Args:
        hand: the model.
        faces: (K,) triangle under each point.
        barycentric: (K, 3) foot of each point in its triangle.
        height: (K,) metres above the rest surface, along the triangle's normal.
        names: K names.
    """
    corners = hand.faces[jnp.asarray(faces)]
    b = jnp.asarray(barycentric)
    basis = jnp.einsum("fckv,kv->fck", hand.basis[..., corners], b, precision=lax.Precision.HIGHEST)
    weights = jnp.einsum("kvj,kv->kj", hand.weights[corners], b, precision=lax.Precision.HIGHEST)
    a, e, g = jnp.moveaxis(hand.v_template[corners], 1, 0)
    normal = jnp.cross(e - a, g - a)
    normal = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    return shift_landmarks(LandmarkSet(basis, weights, tuple(names)), normal * jnp.asarray(height)[:, None])


def shift_landmarks(landmark_set: LandmarkSet, offsets: ArrayLike) -> LandmarkSet:
    """The same landmarks, moved by `offsets` (K, 3) metres on the rest hand."""
    basis = landmark_set.basis.at[0].add(jnp.asarray(offsets).T)
    return replace(landmark_set, basis=basis)


def rest_landmarks(landmark_set: LandmarkSet, betas: ArrayLike, pose_features: ArrayLike) -> Float[Array, "*b k 3"]:
    """Landmarks before skinning: shape `betas` (..., B) and `pose_features` (..., 135) blended. Metres."""
    b, f = jnp.asarray(betas), jnp.asarray(pose_features)
    batch = jnp.broadcast_shapes(b.shape[:-1], f.shape[:-1])
    b, f = jnp.broadcast_to(b, (*batch, b.shape[-1])), jnp.broadcast_to(f, (*batch, f.shape[-1]))
    coefficients = jnp.concatenate([jnp.ones((*batch, 1), b.dtype), b, f], -1)
    return jnp.einsum("...f,fck->...kc", coefficients, landmark_set.basis, precision=lax.Precision.HIGHEST)


def carry_landmarks(landmark_set: LandmarkSet, posed: PosedHand, rest: Array) -> Float[Array, "*b k 3"]:
    """Skin rest landmarks (..., K, 3) with the bones of `posed`. Metres."""
    w, hi = landmark_set.weights, lax.Precision.HIGHEST
    M = jnp.einsum("kj,...jab->...kab", w, posed.rotations, precision=hi)
    t = jnp.einsum("kj,...ja->...ka", w, posed.translations, precision=hi)
    return jnp.einsum("...kab,...kb->...ka", M, rest, precision=hi) + t


@jax.jit
def landmarks(hand: HandModel, params: HandParams, landmark_set: LandmarkSet) -> Float[Array, "*b k 3"]:
    """Landmarks of posed hands.

    Args:
        hand: the model.
        params: parameters with any leading axes.
        landmark_set: K points.

    Returns:
        (..., K, 3) metres.
    """
    params = check_params(params, hand)
    posed = pose_hand(rest_joints(hand, params.betas), params.global_orient, params.hand_pose, params.transl)
    return carry_landmarks(landmark_set, posed, rest_landmarks(landmark_set, params.betas, posed.pose_features))
