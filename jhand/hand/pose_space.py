"""Pose spaces: relative to the flat hand, relative to the mean pose, and principal components (Romero et al. 2017).

Everything else in jhand takes poses relative to the flat hand (smplx's `flat_hand_mean=True`). Poses relative to the
mean pose (its default, and what many recordings hold) come through `pose_from_mean_relative` or, as coefficients
(`use_pca=True`), through `pose_from_pca`. MANO adds and blends axis-angle vectors as they are, and so does this.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.model import HandModel

HIGHEST = lax.Precision.HIGHEST
POSE_SPACES = ("flat", "mean", "pca", "flat_pca")
"""What numbers of a hand's pose can mean: axis-angle relative to the flat hand or to the mean pose; coefficients of
components added to the mean pose, or to the flat hand. smplx's (use_pca, flat_hand_mean) in this order: (False, True),
(False, False), (True, False), (True, True)."""


def pose_from_pca(hand: HandModel, coefficients: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Poses of principal component coefficients: mean + coefficients @ components.

    Args:
        hand: the model, for its mean and components.
        coefficients: (..., n), n <= 45, of the first n components, radians.

    Returns:
        hand_pose (..., 15, 3), axis-angle relative to the flat hand.

    Raises:
        ValueError: more coefficients than components.
    """
    c = jnp.asarray(coefficients)
    if c.ndim == 0 or c.shape[-1] > 45:
        raise ValueError(f"coefficients: expected shape (..., n) with n from 1 to 45, got {c.shape}")
    offsets = jnp.matmul(c, hand.hands_components[: c.shape[-1]], precision=HIGHEST)
    return pose_from_mean_relative(hand, offsets.reshape(*c.shape[:-1], 15, 3))


def pose_to_pca(hand: HandModel, hand_pose: ArrayLike, num_components: int) -> Float[Array, "*b n"]:
    """Coefficients of poses over the first components: the nearest pose that these can make, in axis-angle.

    Components are orthonormal, in MANO's files and in the built-in hands. With all 45 it is the inverse of
    `pose_from_pca`.

    Args:
        hand: the model, for its mean and components.
        hand_pose: (..., 15, 3), axis-angle relative to the flat hand.
        num_components: how many, 1 to 45.

    Returns:
        Coefficients (..., num_components), radians.

    Raises:
        ValueError: another number of components, or a pose of another shape.
    """
    if not 1 <= num_components <= 45:
        raise ValueError(f"num_components: expected 1 to 45, got {num_components}")
    offsets = pose_to_mean_relative(hand, hand_pose)
    flat = offsets.reshape(*offsets.shape[:-2], 45)
    return jnp.matmul(flat, hand.hands_components[:num_components].T, precision=HIGHEST)


def pose_from_mean_relative(hand: HandModel, pose: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Poses relative to the flat hand, from poses (..., 15, 3) relative to the mean pose. Axis-angle.

    Raises:
        ValueError: a pose of another shape.
    """
    return _finger_poses("pose", pose) + hand.hands_mean.reshape(15, 3)


def pose_to_mean_relative(hand: HandModel, hand_pose: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Poses relative to the mean pose, from poses (..., 15, 3) relative to the flat hand. Axis-angle.

    Raises:
        ValueError: a pose of another shape.
    """
    return _finger_poses("hand_pose", hand_pose) - hand.hands_mean.reshape(15, 3)


def pose_from_space(hand: HandModel, values: ArrayLike, space: str) -> Float[Array, "*b 15 3"]:
    """Poses from what a file holds, by the name of its pose space.

    Args:
        hand: the model that the file was made with, for its mean and components.
        values: (..., 45) axis-angle, or (..., n) coefficients.
        space: one of `POSE_SPACES`.

    Returns:
        hand_pose (..., 15, 3), axis-angle relative to the flat hand.

    Raises:
        ValueError: another space, or values of another shape.
    """
    v = jnp.asarray(values)
    _check_space(space)
    if space in ("flat", "mean"):
        if v.shape[-1:] != (45,):
            hint = "; fewer are coefficients: space pca or flat_pca" if v.ndim and v.shape[-1] < 45 else ""
            raise ValueError(f"values: expected shape (..., 45) of axis-angle, got {v.shape}{hint}")
        pose = v.reshape(*v.shape[:-1], 15, 3)
        return pose if space == "flat" else pose_from_mean_relative(hand, pose)
    pose = pose_from_pca(hand, v)
    return pose if space == "pca" else pose_to_mean_relative(hand, pose)


def pose_to_space(hand: HandModel, hand_pose: ArrayLike, space: str, num_components: int = 45) -> Float[Array, "*b n"]:
    """The inverse of `pose_from_space`: what a file holds of poses.

    Args:
        hand: the model that the file is for.
        hand_pose: (..., 15, 3), axis-angle relative to the flat hand.
        space: one of `POSE_SPACES`.
        num_components: how many coefficients, 1 to 45; of axis-angle there are always 45 numbers.

    Returns:
        (..., 45), or (..., num_components).

    Raises:
        ValueError: another space, or poses of another shape.
    """
    _check_space(space)
    pose = _finger_poses("hand_pose", hand_pose)
    if space in ("flat", "mean"):
        pose = pose if space == "flat" else pose_to_mean_relative(hand, pose)
        return pose.reshape(*pose.shape[:-2], 45)
    return pose_to_pca(hand, pose if space == "pca" else pose_from_mean_relative(hand, pose), num_components)


def _check_space(space: str) -> None:
    if space not in POSE_SPACES:
        raise ValueError(f"space: expected one of {', '.join(POSE_SPACES)}, got {space!r}")


def _finger_poses(name: str, pose: ArrayLike) -> Array:
    p = jnp.asarray(pose)
    if p.shape[-2:] != (15, 3):
        hint = "; reshape it to (..., 15, 3)" if p.shape[-1:] == (45,) else ""
        raise ValueError(f"{name}: expected shape (..., 15, 3), got {p.shape}{hint}")
    return p
