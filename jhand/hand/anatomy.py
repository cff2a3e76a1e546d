"""Anatomical joint angles, the limits of their motion, and poses drawn over their whole range.

Each finger joint turns by flexion, then abduction, then twist about its own axes (`HandModel.axes`):
R = F(flexion) A(abduction) T(twist). On fingers flexion towards the palm is positive and abduction towards the thumb's
side; the thumb's flexion carries it across the palm, its abduction away from the palm. The same angles mean the same
pose on either side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.draws import between, normals, uniforms
from jhand.geometry.rotations import so3_exp, so3_log
from jhand.hand.model import HandModel

HIGHEST = lax.Precision.HIGHEST

# Degrees. Flexion and extension: American Academy of Orthopaedic Surgeons, Joint Motion (1965), and Norkin and White,
# Measurement of Joint Motion (5th ed., 2016): finger MCP 90 and 20-45 of extension, PIP 100-110, DIP 80-90, thumb CMC
# 15-45 and abduction to 70, MCP 50-60, IP 80 and 20 of extension. Finger MCP abduction: 20 to 25 to either side. Twist,
# and the sideways play of hinge joints, are passive: a few degrees (Spurr et al., ECCV 2020, allow similar ones).
_FINGER = (((-30, 95), (-25, 25), (-10, 10)), ((-10, 115), (-5, 5), (-5, 5)), ((-10, 90), (-5, 5), (-5, 5)))
_THUMB = (((-25, 45), (-25, 65), (-25, 25)), ((-15, 60), (-15, 15), (-12, 12)), ((-20, 85), (-5, 5), (-5, 5)))

JOINT_LIMITS: np.ndarray = np.deg2rad(np.array(_FINGER * 4 + _THUMB, np.float32))
"""(15, 3, 2) radians: least and greatest flexion, abduction and twist of each finger joint, MANO order."""


def joint_angles(hand: HandModel, hand_pose: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Flexion, abduction and twist of poses; singular only at 90 degrees of abduction, out of any joint's reach.

    Args:
        hand: the model, for its axes.
        hand_pose: (..., 15, 3) axis-angle relative to the flat hand.

    Returns:
        (..., 15, 3) radians.
    """
    R = so3_exp(hand_pose)
    local = jnp.einsum("jba,...jbc,jcd->...jad", hand.axes, R, hand.axes, precision=HIGHEST)
    flexion = jnp.arctan2(-local[..., 1, 2], local[..., 2, 2])
    abduction = jnp.arctan2(local[..., 0, 2], jnp.hypot(local[..., 0, 0], local[..., 0, 1]))
    twist = jnp.arctan2(-local[..., 0, 1], local[..., 0, 0])
    return jnp.stack([flexion, abduction, twist], -1)


def pose_from_angles(hand: HandModel, angles: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Poses of given joint angles: the inverse of `joint_angles`.

    Args:
        hand: the model, for its axes.
        angles: (..., 15, 3) flexion, abduction, twist, radians.

    Returns:
        hand_pose (..., 15, 3), axis-angle relative to the flat hand.
    """
    return so3_log(rotations_from_angles(hand, angles))


def rotations_from_angles(hand: HandModel, angles: ArrayLike) -> Float[Array, "*b 15 3 3"]:
    """`pose_from_angles` as matrices, for `pose_hand_by_matrices`: what descends over angles needs no logarithm.

    Args:
        hand: the model, for its axes.
        angles: (..., 15, 3) flexion, abduction, twist, radians.
    """
    a = jnp.asarray(angles)
    turns = [so3_exp(a[..., k, None] * jnp.eye(3)[k]) for k in range(3)]
    local = jnp.matmul(jnp.matmul(turns[0], turns[1], precision=HIGHEST), turns[2], precision=HIGHEST)
    return jnp.einsum("jab,...jbc,jdc->...jad", hand.axes, local, hand.axes, precision=HIGHEST)


def limit_excess(hand: HandModel, hand_pose: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Radians by which each angle is beyond its limit, signed; 0 within.

    Args:
        hand: the model.
        hand_pose: (..., 15, 3).
    """
    angles = joint_angles(hand, hand_pose)
    lower, upper = JOINT_LIMITS[..., 0], JOINT_LIMITS[..., 1]
    return jnp.maximum(angles - upper, 0) + jnp.minimum(angles - lower, 0)


def limit_penalty(hand: HandModel, hand_pose: ArrayLike) -> Float[Array, "*b 15 3"]:
    """Squared `limit_excess`, rad^2, without reduction: differentiable, 0 within the limits.

    Args:
        hand: the model.
        hand_pose: (..., 15, 3).
    """
    return jnp.square(limit_excess(hand, hand_pose))


def sample_poses(key: Array, hand: HandModel, shape: tuple[int, ...] = ()) -> Float[Array, "*shape 15 3"]:
    """Plausible poses over the full range of motion.

    Fingers close together or each by itself, in equal parts; knuckle and middle joint of a finger go with its closing,
    loosely; the end joint follows the middle one at two thirds (Lin, Wu and Huang 2000), loosely; spread shrinks as a
    finger closes. All within `JOINT_LIMITS`.

    Args:
        key: random key.
        hand: the model, for its axes.
        shape: leading axes.

    Returns:
        hand_pose (*shape, 15, 3).
    """
    keys = jax.random.split(key, 9)
    together = jax.random.uniform(keys[0], (*shape, 1), minval=-0.1, maxval=1.1)
    alone = jax.random.uniform(keys[1], (*shape, 4), minval=-0.1, maxval=1.1)
    as_one = jax.random.bernoulli(keys[2], 0.5, (*shape, 1))
    angles = _full_range(
        jnp.where(as_one, together + 0.08 * jax.random.normal(keys[3], (*shape, 4)), alone),
        loose=jax.random.normal(keys[4], (*shape, 4, 2)),
        looser=jax.random.normal(keys[5], (*shape, 4)),
        twisted=jax.random.truncated_normal(keys[6], -3.0, 3.0, (*shape, 15, 3)),
        aside=jax.random.uniform(keys[7], (*shape, 4), minval=-1, maxval=1),
        thumb=jax.random.beta(keys[8], 1.2, 1.2, (*shape, 3, 3)),
    )
    return pose_from_angles(hand, angles)


def sample_angles(key: Array, shape: tuple[int, ...] = ()) -> Float[Array, "*shape 15 3"]:
    """Joint angles of poses as `sample_poses` has them, thumbs evenly within their limits.

    From two draws instead of nine and a gamma variate: for programs that draw much else, and would compile for longer.

    Args:
        key: random key.
        shape: leading axes.

    Returns:
        Flexion, abduction and twist (*shape, 15, 3), within `JOINT_LIMITS`.
    """
    keys = jax.random.split(key)
    as_one, together, alone, aside, thumb = uniforms(
        keys[0], (*shape, 1), (*shape, 1), (*shape, 4), (*shape, 4), (*shape, 3, 3)
    )
    apart, loose, looser, twisted = normals(keys[1], (*shape, 4), (*shape, 4, 2), (*shape, 4), (*shape, 15, 3))
    closing = jnp.where(as_one < 0.5, between(together, -0.1, 1.1) + 0.08 * apart, between(alone, -0.1, 1.1))
    return _full_range(
        closing, loose=loose, looser=looser, twisted=twisted, aside=between(aside, -1.0, 1.0), thumb=thumb
    )


def _full_range(
    closing: Array, *, loose: Array, looser: Array, twisted: Array, aside: Array, thumb: Array
) -> Float[Array, "*shape 15 3"]:
    """Angles from how far the four fingers close, what loosens their joints, and shares of the thumb's range."""
    lower, upper = jnp.asarray(JOINT_LIMITS[..., 0]), jnp.asarray(JOINT_LIMITS[..., 1])
    share = jnp.clip(closing[..., None] + 0.25 * loose, 0, 1)
    first, middle = np.arange(0, 12, 3), np.arange(1, 12, 3)
    knuckle = lower[first, 0] + share[..., 0] * (upper - lower)[first, 0]
    pip = lower[middle, 0] + share[..., 1] * (upper - lower)[middle, 0]
    dip = 2 / 3 * pip + 0.2 * looser

    angles = 0.3 * upper * twisted
    flexion = jnp.stack([knuckle, pip, dip], -1).reshape(*closing.shape[:-1], 12)
    spread = 1 - jnp.clip(closing, 0, 0.9)
    abduction = upper[first, 1] * spread * aside
    thumb = lower[12:] + (upper - lower)[12:] * thumb
    angles = angles.at[..., :12, 0].set(flexion).at[..., first, 1].set(abduction).at[..., 12:, :].set(thumb)
    return jnp.clip(angles, lower, upper)
