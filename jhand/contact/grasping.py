"""Grasps made by closing fingers until they touch, joint after joint (the automatic grasp of GraspIt!, Miller and Allen
2004).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.contact.solids import Solid, solid_distance
from jhand.draws import between, normals, uniforms
from jhand.geometry.mesh import vertex_normals
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import invert_transform, rigid, transform
from jhand.hand.anatomy import JOINT_LIMITS, pose_from_angles
from jhand.hand.kinematics import PosedHand, pose_hand
from jhand.hand.landmark_sets import LandmarkSet, carry_landmarks, rest_landmarks, vertex_landmarks
from jhand.hand.model import HandModel, rest_joints

HIGHEST = lax.Precision.HIGHEST
_STEPS, _HALVINGS = 8, 3
_APPROACHES = 8
_YIELD = 0.0005  # metres: skin gives way so far where it is pressed
_TOUCHING = 0.002  # metres from the skin
_BACK = -0.35  # cosine below which the skin is that of the back, which does not grasp
_DEEP = 0.0005  # metres in the object that outweigh a finger
_FIRST = np.arange(0, 15, 3)  # joints of each finger nearest to the palm, without the wrist


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Grasp:
    """A hand around an object."""

    angles: Float[Array, "*b 15 3"]
    """Flexion, abduction, twist of the closed fingers; `pose_from_angles` makes the pose."""
    open_angles: Float[Array, "*b 15 3"]
    """Of the hand before it closed."""
    T_wrist_object: Float[Array, "*b 4 4"]
    """Where the object is, in the wrist frame."""
    touching: Bool[Array, "*b 5"]
    """Which fingers touch: index, middle, little, ring, thumb, in MANO's order."""
    approach: Float[Array, "*b 3"]
    """The way the object came to the palm, of length one, wrist frame."""
    depth: Float[Array, "*b"]
    """Metres that the hand is in the object, at most."""


def palm_normal(hand: HandModel) -> Float[Array, "3"]:
    """Out of the palm, of length one, in the rest frame: the way the middle finger goes when it flexes."""
    finger = hand.joint_basis[0, 5] - hand.joint_basis[0, 4]
    out = jnp.cross(hand.axes[3, :, 0], finger)
    return out / jnp.linalg.norm(out)


def link_axes(hand: HandModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the palm and the 15 links, MANO order, rest frame: the way to the tip (16, 3), its length (16,) in metres, and
    the way that the link goes as it flexes (16, 3).
    """
    joints, axes = np.asarray(hand.joint_basis[0], np.float64), np.asarray(hand.axes, np.float64)
    tips = dict(zip((15, 3, 6, 12, 9), np.asarray(hand.v_template, np.float64)[list(hand.tips)], strict=True))
    ends = [joints[4], *(tips[joint] if joint % 3 == 0 else joints[joint + 1] for joint in range(1, 16))]
    along = np.stack(ends) - joints
    length = np.linalg.norm(along, axis=-1)
    flexes_to = np.concatenate([np.asarray(palm_normal(hand))[None], np.cross(axes[:, :, 0], along[1:])])
    return along / length[:, None], length, flexes_to / np.linalg.norm(flexes_to, axis=-1, keepdims=True)


def palmar_cosine(hand: HandModel) -> np.ndarray:
    """(V,) 1 where the skin looks the way its link goes as it flexes, -1 on the back."""
    _, _, flexes_to = link_axes(hand)
    normals = np.asarray(vertex_normals(hand.v_template, hand.faces), np.float64)
    return np.sum(normals * flexes_to[np.asarray(hand.weights).argmax(1)], -1)


def grasping_skin(hand: HandModel) -> LandmarkSet:
    """The vertices that a grasp is found with: all but those of the back; found once, outside of jit."""
    chosen = tuple(int(v) for v in np.flatnonzero(palmar_cosine(hand) > _BACK))
    return vertex_landmarks(hand, chosen, tuple(str(v) for v in chosen))


def close_fingers(
    hand: HandModel,
    betas: ArrayLike,
    skin_points: LandmarkSet,
    distance: Callable[[Array], Array],
    open_angles: ArrayLike,
    closed_angles: ArrayLike,
) -> tuple[Float[Array, "15 3"], Bool[Array, "5"]]:
    """Joint angles of one hand whose fingers close until they touch.

    The joints nearest to the palm turn first, until any link of their finger touches; then those after them, then the
    last. Fingers do not wait for each other.

    Args:
        hand: the model.
        betas: (B,) its shape.
        skin_points: of the fingers, such as some of its vertices.
        distance: signed metres of points (N, 3), wrist frame, from what is to be grasped.
        open_angles: (15, 3) flexion, abduction, twist to start from: no finger touches.
        closed_angles: (15, 3) how far each joint would go.

    Returns:
        The angles (15, 3), and which fingers touch (5,), MANO order.
    """
    start, end = jnp.asarray(open_angles), jnp.asarray(closed_angles)
    shaped = rest_joints(hand, betas)
    link = jnp.argmax(skin_points.weights, -1) - 1  # -1 the palm
    finger, of_level = link // 3, link % 3

    def clearance(angles: Array, from_level: Array | int) -> Array:
        """(5,) least distance of each finger's links from `from_level` on."""
        posed = pose_hand(shaped, jnp.zeros(3), pose_from_angles(hand, angles), -shaped[0])
        points = carry_landmarks(skin_points, posed, rest_landmarks(skin_points, betas, posed.pose_features))
        away = distance(points)
        counts = (link >= 0) & (of_level >= from_level)
        of_finger = counts[:, None] & (finger[:, None] == jnp.arange(5))
        return jnp.min(jnp.where(of_finger, away[:, None], jnp.inf), 0) + _YIELD

    def turn(angles: Array, level: Array) -> tuple[Array, None]:
        turning = _FIRST + level

        def at(share: Array) -> Array:
            return angles.at[turning].set(start[turning] + share[:, None] * (end - start)[turning])

        def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            free, hit = bounds
            middle = (free + hit) / 2
            touches = clearance(at(middle), level) < 0
            return (jnp.where(touches, free, middle), jnp.where(touches, middle, hit)), None

        # a finger that curls can enter an object and leave it again: the first of several steps that touches counts
        steps = np.arange(1, _STEPS + 1, dtype=np.float32) / _STEPS
        touches = lax.map(lambda share: clearance(at(jnp.full(5, share)), level) < 0, steps)
        first = jnp.argmax(touches, 0)
        (free, _), _ = lax.scan(halve, (first / _STEPS, (first + 1) / _STEPS), None, length=_HALVINGS)
        return at(jnp.where(jnp.any(touches, 0), free, 1.0)), None

    angles, _ = lax.scan(turn, start, jnp.arange(3))
    return angles, clearance(angles, 0) < _TOUCHING


def sample_grasp(
    key: Array, hand: HandModel, betas: ArrayLike, skin_points: LandmarkSet, solid: Solid, tries: int = 4
) -> Grasp:
    """A hand that holds a solid: against the palm or before it, the thumb opposed; the best of several tries.

    Args:
        key: random key.
        hand: the model.
        betas: (B,) its shape.
        skin_points: some of its vertices, palm and fingers.
        solid: what is grasped.
        tries: drawn; the one whose thumb and most fingers touch without entering the solid is kept.
    """
    each = lambda k: _try_grasp(k, hand, jnp.asarray(betas), skin_points, solid)  # noqa: E731
    grasps = jax.vmap(each)(jax.random.split(key, tries))
    held = jnp.sum(grasps.touching[:, :4], -1) + 4 * grasps.touching[:, 4]
    good = held - grasps.depth / _DEEP  # a thumb that is in the object touches it, but holds nothing
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(good)], grasps)


def _try_grasp(key: Array, hand: HandModel, betas: Array, skin_points: LandmarkSet, solid: Solid) -> Grasp:
    keys = jax.random.split(key, 3)
    open_angles, closed_angles = _preshape(keys[0])
    beyond, aside, standoff = uniforms(keys[1], (), (), ())
    shaped = rest_joints(hand, betas)
    joints = shaped - shaped[0]
    out = palm_normal(hand)
    along = joints[4] / jnp.linalg.norm(joints[4])
    across = jnp.cross(along, out)
    across = across / jnp.linalg.norm(across)

    # long objects lie across the palm, more or less
    axes = jnp.stack([along, jnp.cross(across, along), across], -1)  # the solid's z along `across`
    turn = so3_exp(jnp.array([0.5, 0.5, 1.5]) * jax.random.normal(keys[2], (3,)))
    R = jnp.matmul(axes, turn, precision=HIGHEST)
    centre = joints[4] + between(beyond, -0.015, 0.035) * along + between(aside, -0.012, 0.012) * across + 0.12 * out
    standoff = jnp.maximum(between(standoff, -0.05, 0.035), 0)

    _, points = posed_skin(hand, betas, skin_points, open_angles)
    centre = come_near(solid, R, centre, out, points, skin_points)
    T_wrist_object = rigid(R, centre + standoff * out)
    return close_around(hand, betas, skin_points, solid, T_wrist_object, out, open_angles, closed_angles)


def posed_skin(hand: HandModel, betas: Array, skin_points: LandmarkSet, angles: Array) -> tuple[PosedHand, Array]:
    """A hand whose wrist is at the origin, and its skin points (K, 3)."""
    shaped = rest_joints(hand, betas)
    posed = pose_hand(shaped, jnp.zeros(3), pose_from_angles(hand, angles), -shaped[0])
    return posed, carry_landmarks(skin_points, posed, rest_landmarks(skin_points, betas, posed.pose_features))


def come_near(
    solid: Solid, R: Array, centre: Array, comes: Array, points: Array, skin_points: LandmarkSet
) -> Float[Array, "3"]:
    """Where a solid ends that comes against `comes` until it meets the skin, but for the thumb's, which goes around it.

    Args:
        solid: what is grasped.
        R: (3, 3), how it is turned.
        centre: (3,) where it begins.
        comes: (3,) the direction that it comes from.
        points: (K, 3) of the skin.
        skin_points: which they are.
    """
    of_thumb = jnp.argmax(skin_points.weights, -1) > 12

    def approach(centre: Array, _: None) -> tuple[Array, None]:
        away = solid_distance(solid, transform(invert_transform(rigid(R, centre)), points))
        gap = jnp.min(jnp.where(of_thumb, jnp.inf, away))
        return centre - jnp.clip(gap + _YIELD, -0.02, 0.12) * comes, None

    return lax.scan(approach, centre, None, length=_APPROACHES)[0]


def close_around(
    hand: HandModel,
    betas: Array,
    skin_points: LandmarkSet,
    solid: Solid,
    T_wrist_object: Array,
    comes: Array,
    open_angles: Array,
    closed_angles: Array,
) -> Grasp:
    """Fingers closed around a solid that is there; `comes` (3,) is the direction that it came from."""
    away = invert_transform(T_wrist_object)
    close_by = lambda p: solid_distance(solid, transform(away, p), steps=1)  # noqa: E731
    angles, touching = close_fingers(hand, betas, skin_points, close_by, open_angles, closed_angles)
    _, points = posed_skin(hand, betas, skin_points, angles)
    depth = jnp.max(jnp.maximum(-solid_distance(solid, transform(away, points)), 0))
    return Grasp(angles, open_angles, T_wrist_object, touching, -comes, depth)


def _preshape(key: Array) -> tuple[Array, Array]:
    """Angles of an open hand before a grasp, and those it would close to."""
    keys = jax.random.split(key)
    flexed, closing = uniforms(keys[0], (15,), (15,))
    spread, thumb_off = normals(keys[1], (5,), (3, 3))
    lower, upper = jnp.asarray(JOINT_LIMITS[..., 0]), jnp.asarray(JOINT_LIMITS[..., 1])
    open_angles = jnp.zeros((15, 3)).at[:, 0].set(between(flexed, -0.1, 0.25)).at[_FIRST, 1].set(0.15 * spread)
    # the thumb stands off the palm and across from the fingers
    thumb = jnp.array([[-0.1, 0.8, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    open_angles = open_angles.at[12:].set(thumb + 0.12 * thumb_off)
    closed = jnp.clip(upper[:, 0] * between(closing, 0.85, 1.0), 0, None)
    closed_angles = open_angles.at[:, 0].set(closed)
    return jnp.clip(open_angles, lower, upper), jnp.clip(closed_angles, lower, upper)
