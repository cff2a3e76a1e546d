"""What happens in a clip: hands that move by themselves, in pairs, before one's eyes, and around objects.

A script is a function `(key, assets, times) -> Actors` of a random key, what can appear, and the instants (T,) at which
it is wanted, in seconds; the instants of a clip may lie anywhere and any number of them asks for the same motion.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.contact.between_hands import clearance_along
from jhand.contact.grasping import palm_normal, sample_grasp
from jhand.contact.solids import Solid, sample_solid
from jhand.data.world.assets import Assets
from jhand.data.world.forearm import towards_elbow
from jhand.draws import between, normals, uniforms
from jhand.geometry.mesh import vertex_normals
from jhand.geometry.rotations import rotation_from_quaternion, so3_exp
from jhand.geometry.se3 import invert_transform, rigid, transform
from jhand.hand.anatomy import JOINT_LIMITS, joint_angles, pose_from_angles, sample_angles
from jhand.hand.kinematics import forward
from jhand.hand.model import HandModel, HandParams, with_T_world_wrist
from jhand.motion.keyframes import between_keyframes, move_points, move_rotations

HIGHEST = lax.Precision.HIGHEST
LONGEST = 10.0
"""Seconds that the motion of a clip may last."""
_CLOSEST, _CHECKED = 3, 12  # to keep two hands apart, every so many vertices and so many instants are looked at
_MOST_BENT = 1.2  # radians
_UP = np.array([0.0, -1.0, 0.0], np.float32)  # the world's axes are a level camera's: x right, y down, z forward


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Actors:
    """Hands (H) and objects (O) at T instants, world frame, metres. Hand 0 is the right one, hand 1 the left."""

    params: HandParams
    """Leading axes (H, T); of the model of their own side."""
    T_world_wrist: Float[Array, "*b h t 4 4"]
    forearm_bend: Float[Array, "*b h t 3"]
    """Axis-angle of the forearm beside the hand, wrist frame."""
    solids: Solid
    """Leading axis (O,)."""
    T_world_object: Float[Array, "*b o t 4 4"]


# How people move, from the recordings that the world's motion is compared with (docs/world.md): medians and log-normal
# spreads of how long a move of the wrist and of the fingers takes, of the rest that follows, and how far moves go
_WRIST_MOVE, _WRIST_REST, _WRIST_STEP, _WRIST_TURN = (1.7, 0.35), (0.1, 0.8), 0.22, 0.55
_SWAY, _SWINGS, _FASTEST = 0.0007, 8, 20.0  # metres, how many, and radians a second of the fastest
_FINGER_MOVE, _FINGER_REST, _FINGER_SHARE, _FINGER_SWAY = (0.45, 0.4), (0.25, 0.9), 0.9, 0.004


def one_hand(key: Array, assets: Assets, times: ArrayLike) -> Actors:
    """A right hand that moves before the camera, turned any way, more often upright than not; at instants (T,)."""
    keys = jax.random.split(key, 5)
    t, hand = jnp.asarray(times), assets.right
    path = wander(keys[0], _any_orientation(keys[1], hand), jnp.zeros(3), t)
    fingers = finger_motion(keys[2], hand, t)
    return _actors(assets, [(sample_shape(keys[3], hand), fingers, path, _bend(keys[4], hand, t))])


def two_hands(key: Array, assets: Assets, times: ArrayLike) -> Actors:
    """Both hands of one person: in half of the clips skins are up to 5 mm apart at the closest instant, in the
    others up to 20 cm; at instants (T,).
    """
    keys = jax.random.split(key, 12)
    t = jnp.asarray(times)
    hands = (assets.right, assets.left)
    close, near, far, upside_down = uniforms(keys[7], (), (), (), ())
    betas = sample_shape(keys[0], assets.right)
    angles = [finger_motion(k, hand, t) for k, hand in zip(keys[1:3], hands, strict=True)]

    # each at the end of its arm; then, in the right wrist's frame, some place of the left hand's skin is brought before
    # some place of the right hand's
    between_elbows = jnp.array([0.0, -0.35, 0.35]) + 0.12 * jax.random.normal(keys[3], (3,))
    turned = [
        _at_the_end_of(k, hand, between_elbows - jnp.array([side * 0.22, 0, 0]), jnp.array([-side, 0, 0]), 1.0)
        for k, hand, side in zip(keys[5:7], hands, (1, -1), strict=True)
    ]
    R = jnp.matmul(turned[0].T, turned[1], precision=HIGHEST)
    few = np.unique(np.linspace(0, t.shape[0] - 1, _CHECKED).round().astype(int))
    shapes = jnp.broadcast_to(betas, (len(few), betas.shape[-1]))
    skins = []
    for hand, orientation, angle in zip(hands, (jnp.eye(3), R), angles, strict=True):
        zeros = jnp.zeros((len(few), 3))
        params = HandParams(zeros, pose_from_angles(hand, angle[few]), shapes, zeros)
        v = forward(hand, with_T_world_wrist(hand, params, rigid(orientation, jnp.zeros(3)))).vertices
        skins.append((v[:, ::_CLOSEST], vertex_normals(v, hand.faces)[:, ::_CLOSEST]))
    (a, na), (b, nb) = skins
    likely = 1 - 0.9 * assets.right.weights[::_CLOSEST, 0]  # fingers meet more often than wrists
    at_a, at_b = jax.random.choice(keys[4], likely.shape[0], (2,), p=likely / jnp.sum(likely))
    middle = len(few) // 2
    apart = na[middle, at_a]
    brought = a[middle, at_a] - b[middle, at_b]
    gap = jnp.where(close < 0.5, between(near, 0.0, 0.005), between(far, 0.01, 0.2))
    needed = lax.map(
        lambda m: clearance_along(m[0] + brought, m[1], m[2], m[3], apart, jnp.minimum(gap, 0.005)), (b, nb, a, na)
    )
    away = brought + (jnp.max(needed) + gap - jnp.minimum(gap, 0.005)) * apart

    # people lean over and lie down, and cameras are held anyhow
    tilted = jnp.matmul(_any_rotation(keys[11]), turned[0], precision=HIGHEST)
    path = wander(keys[8], jnp.where(upside_down < 0.25, tilted, turned[0]), jnp.zeros(3), t)
    left = jnp.matmul(path, rigid(R, away), precision=HIGHEST)
    bends = [_bend(k, hand, t) for k, hand in zip(keys[9:11], hands, strict=True)]
    return _actors(assets, [(betas, angles[0], path, bends[0]), (betas, angles[1], left, bends[1])])


def before_the_eyes(key: Array, assets: Assets, times: ArrayLike) -> Actors:
    """Both hands of one person as she sees them herself, her eyes at the origin, along z; at instants (T,)."""
    keys = jax.random.split(key, 8)
    t = jnp.asarray(times)
    betas = sample_shape(keys[0], assets.right)
    reach = jax.random.uniform(
        keys[7], (2, 3), minval=jnp.array([0.0, 0.08, 0.25]), maxval=jnp.array([0.22, 0.38, 0.5])
    )
    hands = []
    for number, (hand, side) in enumerate(((assets.right, 1), (assets.left, -1))):
        wrist = reach[number] * jnp.array([side, 1, 1])
        elbow = jnp.array([side * 0.26, 0.48, 0.08])
        # the palm faces down and inwards, more or less
        R = _at_the_end_of(keys[1 + number], hand, wrist - elbow, jnp.array([-0.64 * side, 0.76, 0.2]), 0.5)
        path = wander(keys[5 + number], R, wrist, t)
        hands.append((betas, finger_motion(keys[3 + number], hand, t), path, _bend_towards(hand, path, elbow)))
    return _actors(assets, hands)


def hand_and_object(key: Array, assets: Assets, times: ArrayLike) -> Actors:
    """A right hand that reaches for an object, closes around it and carries it; clips begin anywhere in between, most
    often when it is held; at instants (T,).
    """
    keys = jax.random.split(key, 8)
    t = jnp.asarray(times)
    hand = assets.right
    betas = sample_shape(keys[0], hand)
    solid = sample_solid(keys[1])
    grasp = sample_grasp(keys[2], hand, betas, assets.right_points, solid)
    since = t - jax.random.uniform(keys[3], minval=-3.0, maxval=0.9)

    # reaching ends, the fingers close, and then both move as one
    reaching = between_keyframes(since, jnp.array([-0.9]), jnp.array([0.9]))
    closing = between_keyframes(since, jnp.array([-0.25]), jnp.array([0.45]))
    angles = grasp.open_angles + closing[..., None] * (grasp.angles - grasp.open_angles)
    from_afar = 0.12 * (1 - reaching) * -grasp.approach  # in the wrist frame, the object is so much further away
    T_wrist_object = rigid(
        jnp.broadcast_to(grasp.T_wrist_object[:3, :3], (*t.shape, 3, 3)), grasp.T_wrist_object[:3, 3] + from_afar
    )
    held = wander(keys[4], _any_orientation(keys[5], hand), jnp.zeros(3), jnp.maximum(since - 0.25, 0))
    T_hold = jnp.matmul(held, grasp.T_wrist_object, precision=HIGHEST)
    T_object_wrist = jnp.linalg.inv(T_wrist_object)
    path = jnp.matmul(T_hold, T_object_wrist, precision=HIGHEST)
    objects = jax.tree.map(lambda x: x[None], solid)
    return _actors(assets, [(betas, angles, path, _bend(keys[6], hand, t))], objects, T_hold[None])


def sample_shape(key: Array, hand: HandModel) -> Float[Array, "b"]:
    """Shape of one person, |beta| up to 2.5."""
    return jnp.clip(jax.random.normal(key, (hand.num_betas,)), -2.5, 2.5)


def no_solids() -> Solid:
    """What is held where nothing is."""
    return Solid(jnp.zeros(0, jnp.int32), jnp.zeros((0, 3)), jnp.zeros((0, 2)))


def angles_to_pass(key: Array, hand: HandModel, number: int) -> Float[Array, "n 15 3"]:
    """Joint angles of the poses that a clip's fingers pass: of half of the clips from the prior, of the others over the
    full range, within the limits.
    """
    keys = jax.random.split(key, 3)
    weights = hand.hands_sd * jax.random.normal(keys[1], (number, 45))
    usual = hand.hands_mean + jnp.matmul(weights, hand.hands_components, precision=HIGHEST)
    of_prior = jax.random.bernoulli(keys[2], 0.5)
    usual = joint_angles(hand, usual.reshape(number, 15, 3))
    angles = jnp.where(of_prior, usual, sample_angles(keys[0], (number,)))
    return jnp.clip(angles, JOINT_LIMITS[..., 0], JOINT_LIMITS[..., 1])


def finger_motion(key: Array, hand: HandModel, times: Array) -> Float[Array, "t 15 3"]:
    """Joint angles at instants (T,), seconds: fingers move from pose to pose, each a little before or after others."""
    keys = jax.random.split(key, 4)
    starts, durations = _moves(keys[0], _FINGER_MOVE, _FINGER_REST)
    poses = angles_to_pass(keys[1], hand, starts.shape[0] + 1)
    lag, swing = normals(keys[2], (5,), (_SWINGS, 15))
    share, pace, phase = uniforms(keys[3], (starts.shape[0] + 1, 5, 1, 1), (_SWINGS,), (_SWINGS,))
    share = between(share, 0.1, 1.0) ** _FINGER_SHARE  # most moves change a part of the pose
    poses = poses.reshape(-1, 5, 3, 3)

    def follow(pose: Array, target: tuple[Array, Array]) -> tuple[Array, Array]:
        wanted, part = target
        moved = pose + part * (wanted - pose)
        return moved, moved

    _, path = lax.scan(follow, poses[0], (poses[1:], share[1:]))
    path = jnp.concatenate([poses[:1], path])
    move = lambda lag, path: move_points(between_keyframes(times - lag, starts, durations), path)  # noqa: E731
    angles = jax.vmap(move, (0, 1), 1)(0.05 * lag, path).reshape(-1, 15, 3)
    angles = angles.at[..., 0].add(_swings(times, _FINGER_SWAY * swing, pace, phase))
    return jnp.clip(angles, JOINT_LIMITS[..., 0], JOINT_LIMITS[..., 1])


def wander(key: Array, R: ArrayLike, place: ArrayLike, times: Array) -> Float[Array, "t 4 4"]:
    """A path of the wrist about a place (3,), at instants (T,), seconds: it goes and rests, and turns as it goes.

    Args:
        key: random key.
        R: (3, 3) how the wrist is turned, more or less.
        place: (3,) metres, where the path begins.
        times: (T,) seconds.

    Returns:
        (T, 4, 4) of the wrist.
    """
    keys = jax.random.split(key, 3)
    starts, durations = _moves(keys[0], _WRIST_MOVE, _WRIST_REST)
    number = starts.shape[0] + 1
    steps, turns, swing = normals(keys[1], (number, 3), (number, 3), (_SWINGS, 3))
    pace, phase = uniforms(keys[2], (_SWINGS,), (_SWINGS,))
    places = jnp.asarray(place) + _WRIST_STEP / np.sqrt(3) * steps
    turns = so3_exp(_WRIST_TURN / np.sqrt(3) * turns)
    progress = between_keyframes(times, starts, durations)
    turned = move_rotations(progress, jnp.matmul(turns, jnp.asarray(R), precision=HIGHEST))
    # wherever the clip begins is the place that was asked for
    path = move_points(progress, places) + _swings(times, _SWAY * swing, pace, phase)
    return rigid(turned, path - path[:1] + jnp.asarray(place))


def _moves(key: Array, move: tuple[float, float], rest: tuple[float, float]) -> tuple[Array, Array]:
    """Starts and durations of enough moves for `LONGEST` seconds, the first of them under way at 0."""
    keys = jax.random.split(key)
    number = int(LONGEST / (move[0] + rest[0])) + 4
    last, pause = normals(keys[0], (number,), (number,))
    last, pause = move[0] * jnp.exp(move[1] * last), rest[0] * jnp.exp(rest[1] * pause)
    starts = jnp.cumsum(last + pause) - last - pause
    return starts - jax.random.uniform(keys[1]) * (starts[1] + last[1]), last


def _swings(times: Array, swing: Array, pace: Array, phase: Array) -> Float[Array, "t n"]:
    """Nobody holds a hand quite still: a few slow swings (S, N), each its own way; pace and phase from 0 to 1."""
    angle = times[:, None] * _FASTEST * pace + 2 * jnp.pi * phase
    return jnp.matmul(jnp.sin(angle), swing, precision=HIGHEST)


def _at_the_end_of(key: Array, hand: HandModel, forearm: Array, facing: Array, loose: float) -> Float[Array, "3 3"]:
    """Rotation of a wrist whose forearm points along a direction and whose palm faces another, loosely."""
    around, bent, aside = normals(key, (3,), (3,), (3,))
    R = _aim(hand, forearm + 0.04 * aside, facing + loose * around)
    return jnp.matmul(R, so3_exp(0.35 * bent), precision=HIGHEST)


def _aim(hand: HandModel, along: Array, facing: Array) -> Float[Array, "3 3"]:
    """Rotation of a wrist whose hand points along a direction and whose palm faces another, as far as it can."""
    rest = hand.joint_basis[0]
    own = _frame(rest[4] - rest[0], palm_normal(hand))
    return jnp.matmul(_frame(along, facing), own.T, precision=HIGHEST)


def _frame(along: Array, facing: Array) -> Float[Array, "3 3"]:
    x = along / jnp.linalg.norm(along)
    y = facing - jnp.sum(facing * x) * x
    y = y / jnp.linalg.norm(y)
    return jnp.stack([x, y, jnp.cross(x, y)], -1)


def _any_orientation(key: Array, hand: HandModel) -> Float[Array, "3 3"]:
    """A third of the time any at all; else the fingers point up, more or less, and the palm anywhere."""
    keys = jax.random.split(key, 3)
    aside, facing = normals(keys[0], (3,), (3,))
    upright = _aim(hand, jnp.asarray(_UP) + 0.45 * aside, facing)
    return jnp.where(jax.random.uniform(keys[1]) < 1 / 3, _any_rotation(keys[2]), upright)


def _any_rotation(key: Array) -> Float[Array, "3 3"]:
    """Evenly over all rotations: four normal numbers are a quaternion's direction."""
    return rotation_from_quaternion(jax.random.normal(key, (4,)))


def _actors(
    assets: Assets,
    hands: list[tuple[Array, Array, Array, Array]],
    solids: Solid | None = None,
    T_world_object: Array | None = None,
) -> Actors:
    """Hands as (betas, angles (T, 15, 3), T_world_wrist (T, 4, 4), forearm_bend (T, 3)), right one first."""
    params, instants = [], hands[0][1].shape[0]
    for hand, (betas, angles, T, _) in zip((assets.right, assets.left), hands, strict=False):
        zeros = jnp.zeros((instants, 3))
        shared = jnp.broadcast_to(betas, (instants, betas.shape[-1]))
        params.append(with_T_world_wrist(hand, HandParams(zeros, pose_from_angles(hand, angles), shared, zeros), T))
    if solids is None or T_world_object is None:
        solids, T_world_object = no_solids(), jnp.zeros((0, instants, 4, 4))
    return Actors(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *params),
        jnp.stack([T for _, _, T, _ in hands]),
        jnp.stack([bend for _, _, _, bend in hands]),
        solids,
        T_world_object,
    )


def _bend(key: Array, hand: HandModel, times: Array) -> Float[Array, "t 3"]:
    """How a wrist is bent over time: flexion up to 50 degrees, deviation up to 20."""
    keys = jax.random.split(key, 2)
    starts, durations = _moves(keys[0], _WRIST_MOVE, _WRIST_REST)
    amounts = jnp.array([0.4, 0.15]) * jnp.clip(jax.random.normal(keys[1], (starts.shape[0] + 1, 2)), -2, 2)
    over_time = move_points(between_keyframes(times, starts, durations), amounts)
    out = palm_normal(hand)
    along = hand.joint_basis[0, 4] - hand.joint_basis[0, 0]
    across = jnp.cross(along / jnp.linalg.norm(along), out)
    return over_time[:, :1] * across + over_time[:, 1:] * out


def _bend_towards(hand: HandModel, T_world_wrist: Array, elbow: Array) -> Float[Array, "t 3"]:
    """How a wrist is bent whose forearm reaches for an elbow (3,), as far as wrists go."""
    away = towards_elbow(hand)
    there = transform(invert_transform(T_world_wrist), jnp.broadcast_to(elbow, (T_world_wrist.shape[0], 1, 3)))[:, 0]
    axis = jnp.cross(away, there / jnp.linalg.norm(there, axis=-1, keepdims=True))
    sine = jnp.linalg.norm(axis, axis=-1, keepdims=True)
    angle = jnp.arctan2(sine, jnp.sum(away * there, -1, keepdims=True) / jnp.linalg.norm(there, axis=-1, keepdims=True))
    return jnp.minimum(angle, _MOST_BENT) * axis / jnp.maximum(sine, 1e-6)
