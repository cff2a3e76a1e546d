"""Grasps of a given type of the taxonomy: each a way for a hand to open, a place for the object, and a way to close."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int

from jhand.contact.grasping import _DEEP, _FIRST, Grasp, close_around, come_near, palm_normal, posed_skin
from jhand.contact.solids import Solid
from jhand.contact.taxonomy import GRASP_TYPES
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import rigid
from jhand.hand.anatomy import JOINT_LIMITS, pose_from_angles
from jhand.hand.kinematics import pose_hand, posed_keypoints
from jhand.hand.landmark_sets import LandmarkSet
from jhand.hand.model import HandModel, rest_joints

HIGHEST = lax.Precision.HIGHEST
_ROW = {2: 0, 3: 1, 5: 2, 4: 3}  # fingers of the taxonomy, to MANO's: index, middle, little, ring


def _templates() -> np.ndarray:
    """Of each type: how much of the way the end joints close; radians by which fingers that do not press are flexed;
    half of the thickest that is held, metres.
    """
    rows = []
    for row in GRASP_TYPES:
        if row.opposition == "palm":
            template = [1.0, 1.0, 0.035]
        elif row.opposition == "pad":
            template = [0.8, 0.5, 0.028] if row.power == "power" else [0.5, 0.6, 0.018]
        else:
            template = [0.6, 1.1, 0.008]
        rows.append(template)
    table = np.array(rows)
    extended = [18, 22, 30]  # knuckles flex, the joints after them do not
    table[[n - 1 for n in extended], 0] = 0.1
    table[17 - 1, 1] = 0.1  # the index finger lies along the object
    table[23 - 1, 1] = 0.4
    thin = [2, 5]
    table[[n - 1 for n in thin], 2] = 0.016
    return table.astype(np.float32)


_TEMPLATES = _templates()
_PRESSES = np.zeros((len(GRASP_TYPES), 4), bool)
for _row in GRASP_TYPES:
    _PRESSES[_row.id - 1, [_ROW[finger] for finger in _row.fingers]] = True
_ADDUCTED = np.array([row.thumb == "adducted" for row in GRASP_TYPES])
_SIDE, _PAD = (np.array([row.opposition == what for row in GRASP_TYPES]) for what in ("side", "pad"))


def gripped_part(solid: Solid, number: ArrayLike) -> Solid:
    """A solid no thicker than what a grasp type holds: a large object is held where it is thin.

    Args:
        solid: one, of half_size (3,).
        number: of the type, 1 to 33; may be traced.
    """
    most = jnp.asarray(_TEMPLATES)[jnp.asarray(number) - 1, 2]
    thick = jnp.max(solid.half_size[:2])
    share = jnp.minimum(1, most / thick)
    return Solid(solid.kind, solid.half_size * jnp.array([1, 1, 0]) * share + solid.half_size * jnp.array([0, 0, 1]),
                 solid.roundness)  # fmt: skip


def grasp_of_type(
    key: Array,
    hand: HandModel,
    betas: ArrayLike,
    skin_points: LandmarkSet,
    solid: Solid,
    number: ArrayLike | Int[Array, ""],
    tries: int = 1,
) -> Grasp:
    """A hand that holds a solid by one of the 33 types: the fingers of the type close until they touch.

    Against the palm the object lies across it; between pads it is where thumb and pressing fingers will meet; by the
    side it lies along the index finger, under the thumb, or between index and middle finger.

    Args:
        key: random key.
        hand: the model.
        betas: (B,) its shape.
        skin_points: some of its vertices, `grasping_skin`.
        solid: what is grasped, `gripped_part` of an object.
        number: of the type; may be traced.
        tries: drawn; that in which most fingers of the type touch and the hand is least in the solid is kept.
    """
    number = jnp.asarray(number)
    each = lambda k: _try(k, hand, jnp.asarray(betas), skin_points, solid, number)  # noqa: E731
    grasps = jax.vmap(each)(jax.random.split(key, tries))
    wanted = jnp.concatenate([jnp.asarray(_PRESSES)[number - 1], jnp.ones(1, bool)])
    good = jnp.sum(grasps.touching & wanted, -1) - grasps.depth / _DEEP / 4
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(good)], grasps)


def _try(key: Array, hand: HandModel, betas: Array, skin: LandmarkSet, solid: Solid, number: Array) -> Grasp:
    keys = jax.random.split(key, 3)
    row = number - 1
    side, pad, between = jnp.asarray(_SIDE)[row], jnp.asarray(_PAD)[row], number == 23
    open_angles, closed_angles = _preshape(keys[0], row)
    shaped = rest_joints(hand, betas)
    posed, points = posed_skin(hand, betas, skin, open_angles)
    joints, out = posed.joints, palm_normal(hand)
    along = joints[4] / jnp.linalg.norm(joints[4])
    across = jnp.cross(along, out)
    across = across / jnp.linalg.norm(across)
    towards_thumb = across * jnp.sign(jnp.dot(joints[1] - joints[10], across))

    # which way the object comes: at the palm; at the index finger's side; from the tips, between two fingers
    finger = (joints[3] - joints[1]) / jnp.linalg.norm(joints[3] - joints[1])
    to_side = towards_thumb - jnp.dot(towards_thumb, finger) * finger + 0.4 * out
    to_side = to_side / jnp.linalg.norm(to_side)
    comes = jnp.where(between, finger, jnp.where(side, to_side, out))
    level = jnp.where(between, (joints[2] + joints[5]) / 2, joints[2] + 0.3 * (joints[3] - joints[2]))
    # where tips are halfway: between those of the thumb and of the pressing fingers
    half = pose_hand(shaped, jnp.zeros(3), pose_from_angles(hand, (open_angles + closed_angles) / 2), -shaped[0])
    tips = posed_keypoints(hand, betas, half)[jnp.array([8, 12, 20, 16, 4])]
    presses = jnp.asarray(_PRESSES)[row][:, None]
    meeting = (tips[4] + jnp.sum(presses * tips[:4], 0) / jnp.sum(presses)) / 2
    at = jnp.where(pad, meeting, jnp.where(side, level, joints[4]))
    jitter = jax.random.normal(keys[1], (3,)) * jnp.where(side, 0.003, 0.006)
    # the object's long axis: across the palm; along the finger it lies at; across both fingers' gap
    axes = jnp.stack([along, jnp.cross(across, along), across], -1)
    aside = jnp.stack([to_side, jnp.cross(finger, to_side), finger], -1)
    through = jnp.stack([towards_thumb, jnp.cross(out, towards_thumb), out], -1)
    axes = jnp.where(between, through, jnp.where(side, aside, axes))
    turn = so3_exp(jnp.array([0.2, 0.2, 0.5]) * jax.random.normal(keys[2], (3,)))
    R = jnp.matmul(axes, turn, precision=HIGHEST)
    at = at + jitter - jnp.sum(jitter * comes) * comes
    centre = come_near(solid, R, at + 0.12 * comes, comes, points, skin)
    # pads meet an object that the open hand does not touch yet
    further = jnp.maximum(jnp.sum((centre - at) * comes), 0)
    T_wrist_object = rigid(R, jnp.where(pad, at + further * comes, centre))
    return close_around(hand, betas, skin, solid, T_wrist_object, comes, open_angles, closed_angles)


def _preshape(key: Array, row: Array) -> tuple[Array, Array]:
    """Angles of the open hand of a type, and those it would close to."""
    keys = jax.random.split(key, 4)
    curl, rest, _ = jnp.asarray(_TEMPLATES)[row]
    presses, adducted, side = (jnp.asarray(table)[row] for table in (_PRESSES, _ADDUCTED, _SIDE))
    lower, upper = jnp.asarray(JOINT_LIMITS[..., 0]), jnp.asarray(JOINT_LIMITS[..., 1])
    # fingers that do not press are where they are, from knuckle to tip
    resting = rest * jnp.array([0.6, 1.0, 0.6]) * jax.random.uniform(keys[0], (4, 1), minval=0.7, maxval=1.3)
    ready = jax.random.uniform(keys[1], (4, 3), minval=-0.1, maxval=0.2)
    # beside an object, the pressing fingers are half flexed already; between two, straight
    beside = jnp.where(row == 22, 0.1, 0.6) * jnp.array([1.0, 1.4, 0.7]) + 0.1 * jax.random.normal(keys[2], (4, 3))
    ready = jnp.where(side, beside, ready)
    flexed = jnp.where(presses[:, None], ready, resting)
    spread = 0.12 * jax.random.normal(keys[3], (5,))
    open_angles = jnp.zeros((15, 3)).at[:12, 0].set(flexed.reshape(12)).at[_FIRST[:4], 1].set(spread[:4])
    # the index finger away from the middle one, to close on what is between them
    open_angles = open_angles.at[0, 1].set(jnp.where(row == 22, 0.35, open_angles[0, 1]))
    open_angles = open_angles.at[3, 1].set(jnp.where(row == 22, -0.1, open_angles[3, 1]))
    thumb = jnp.where(adducted, jnp.array([-0.2, 0.1, 0.0]), jnp.array([-0.1, 0.8, 0.0])) + 0.5 * spread[4]
    open_angles = open_angles.at[12].set(thumb * jnp.array([1.0, 1.0, 0.0]))
    share = jnp.stack([jnp.ones(()), curl, curl])
    fingers = jnp.where(presses[:, None] & ~side, share * upper[:12, 0].reshape(4, 3), flexed)
    closed_angles = open_angles.at[:12, 0].set(fingers.reshape(12)).at[12:, 0].set(upper[12:, 0] * 0.9)
    closed_angles = closed_angles.at[0, 1].set(jnp.where(row == 22, -0.3, closed_angles[0, 1]))
    return jnp.clip(open_angles, lower, upper), jnp.clip(closed_angles, lower, upper)
