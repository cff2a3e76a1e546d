"""Two hands and an object in motion as 63 points: actions that differ by who does what to which end of it.

Every action is told by relations alone: which hand comes near which end, whether it comes or goes, and whether the
object then moves with it. Where things are, how hands are turned and posed, and how the camera moves does not tell.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.data.made import read_once
from jhand.draws import between, normals, uniforms, whole
from jhand.geometry.rotations import so3_exp
from jhand.hand.anatomy import pose_from_angles, sample_angles
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams

HIGHEST = lax.Precision.HIGHEST
_hand = read_once(load_hand)
LEFT, RIGHT = 0, 1
REACH, LEAVE, CARRY, TURN, PASS, GIVE = range(6)
_KINDS = [(verb, side, end) for verb in (REACH, LEAVE, CARRY) for side in (LEFT, RIGHT) for end in (0, 1)]
_KINDS += [(verb, side, 0) for verb in (TURN, PASS, GIVE) for side in (LEFT, RIGHT)]
_VERBS = ("reach for", "leave", "carry", "turn", "pass by", "give")
ACTIONS = tuple(
    f"{_VERBS[verb]}, {('left', 'right')[side]} hand" + (f", end {end}" if verb <= CARRY else "")
    for verb, side, end in _KINDS
)
"""Names of the actions, by their number."""
OBJECTS = 8
HALF_SIZES = np.array(
    [
        [0.03, 0.08, 0.11],
        [0.04, 0.04, 0.06],
        [0.03, 0.03, 0.09],
        [0.035, 0.05, 0.12],
        [0.045, 0.045, 0.1],
        [0.04, 0.06, 0.08],
        [0.04, 0.04, 0.12],
        [0.05, 0.05, 0.07],
    ],
    np.float32,
)
"""Metres, of the boxes about the objects; the third axis has the two ends."""


@dataclass(frozen=True)
class ActionScene:
    """What of `object_action` can be chosen."""

    frames: int = 32
    subjects: tuple[int, int] = (0, 30)
    """First and one past the last: a person's hands are the same whenever they come."""
    unseen: float = 0.3
    """How often each hand is not seen for a while, up to a quarter of the time."""
    noise: float = 0.015
    """Of estimated points, metres, each by itself in each frame."""
    shift: float = 0.025
    """Of estimated hands and objects as a whole, metres, slowly."""


def box_points(half_size: Array) -> Float[Array, "21 3"]:
    """The 21 control points of a box about the origin (H2O): its centre, 8 corners, the middles of its 12 edges.

    Args:
        half_size: (3,).
    """
    return half_size * jnp.asarray(BOX)


def _box() -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Control points of a box of half size 1; joined are centre and corners, corners and middles of edges."""
    signs = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    edges = [(a, b) for a in range(8) for b in range(a + 1, 8) if sum(map(int.__ne__, signs[a], signs[b])) == 1]
    middles = [tuple((p + q) / 2 for p, q in zip(signs[a], signs[b], strict=True)) for a, b in edges]
    joined = [(0, 1 + k) for k in range(8)]
    joined += [(1 + corner, 9 + number) for number, edge in enumerate(edges) for corner in edge]
    return np.array([(0, 0, 0), *signs, *middles], np.float32), tuple(joined)


BOX, BOX_EDGES = _box()


def object_action(key: Array, scene: ActionScene) -> dict[str, Any]:
    """Two hands and an object: one hand reaches for an end of it, leaves, carries, turns, passes it by, or gives it.

    Args:
        key: random key.
        scene: sizes and chances.

    Returns:
        `points` (T, 63, 3) metres in the axes of a camera that moves: the left hand's 21 keypoints, the right one's,
        the object's control points; `estimated`, the same as a network sees them; `valid` (T, 3) whether each of the
        three is seen, points of others being 0; `object`, its class; `action`, its number; `subject`.
    """
    hand, times = _hand(), jnp.linspace(0.0, 1.0, scene.frames)
    keys = jax.random.split(key, 3)
    action, thing, subject, missing, begin, long, rest, longer, size, near, far = uniforms(
        keys[0], (), (), (), (3, 2), (), (), (), (), (), (), (2,)
    )
    ways, turns, place, drift, sway, offs, shifts = normals(
        keys[1], (6, 3), (3, 3), (2, 3), (2, 3), (2, 2, 3), (scene.frames, 63, 3), (4, 3, 3)
    )
    action = whole(action, 0, len(_KINDS))
    verb, side, end = jnp.moveaxis(jnp.asarray(_KINDS)[action], -1, 0)
    thing, subject = whole(thing, 0, OBJECTS), whole(subject, *scene.subjects)

    # when: first something comes or goes, then the object moves
    start, during = between(begin, 0.08, 0.25), between(long, 0.25, 0.35)
    after = start + during + between(rest, 0.0, 0.08)
    comes = _smooth((times - start) / during)
    moves = _smooth((times - after) / between(longer, 0.22, 0.3))
    gives = verb == GIVE
    comes = jnp.where(gives, _smooth((times - 0.5 * start) / 0.2), comes)
    goes_on = _smooth((times - after - 0.1) / 0.25)  # with the one that it is given to
    takes = _smooth((times - after + 0.1) / 0.2)
    nearness = jnp.where(verb == LEAVE, 1 - comes, jnp.where(verb == PASS, 0, comes))
    nearness = jnp.where(gives, comes * (1 - goes_on), nearness)
    other = jnp.where(gives, takes, 0)

    # the object
    half = jnp.asarray(HALF_SIZES)[thing] * between(size, 0.9, 1.1)
    carried = (verb == CARRY) | gives
    ways = ways / jnp.linalg.norm(ways, axis=-1, keepdims=True)
    path = 0.22 * (carried * moves[:, None] * ways[0] + gives * goes_on[:, None] * ways[1])
    spin = jnp.where(verb == TURN, 1.6 * moves, 0.0)[:, None] * ways[2]
    R_object = jnp.matmul(so3_exp(spin), so3_exp(2 * turns[0]), precision=HIGHEST)
    centre = 0.08 * place[0] + path
    control = _placed(R_object, box_points(half), centre)
    ends = jnp.array([-0.8, 0.8])[jnp.stack([end, 1 - end])]  # the other hand takes the other end
    grips = _placed(R_object, ends[:, None] * half * jnp.array([0.0, 0, 1]), centre)  # (T, 2, 3): who acts, the other

    # the hands: who acts, and the other
    own = jax.random.fold_in(jax.random.key(300), subject)
    betas = jnp.clip(jax.random.normal(own, (hand.num_betas,)), -2.5, 2.5)
    build = jax.random.uniform(own, minval=0.85, maxval=1.15)
    poses = sample_angles(keys[2], (2, 2))  # away and near, of each
    near_by = jnp.stack([nearness, other], 0)[..., None, None]
    angles = poses[:, :1] + near_by * (poses[:, 1:] - poses[:, :1])  # (2, T, 15, 3)
    still = jnp.zeros((2, scene.frames, 3))
    posed = HandParams(
        still, pose_from_angles(hand, angles), jnp.broadcast_to(betas, (*still.shape[:2], hand.num_betas)), still
    )
    local = keypoints(hand, posed)
    local = build * (local - local[..., :1, :])
    sides = jnp.stack([side, 1 - side])
    mirrored = jnp.where(sides == LEFT, -1.0, 1.0)[:, None, None]
    local = local * jnp.concatenate([mirrored, jnp.ones((2, 1, 2))], -1)[:, None]
    swing = jnp.sin(2 * jnp.pi * times[:, None] + 6 * sway[:, :1]) * sway[:, 1:]  # (2, T, 3)
    R_hand = so3_exp(1.5 * turns[1:][:, None] + 0.2 * swing)
    local = jnp.einsum("htij,htkj->htki", R_hand, local, precision=HIGHEST)
    grip = jnp.mean(local[:, :, jnp.array([4, 8, 12])], 2)
    # a hand that passes by goes on a straight line beside the object
    beside = jnp.cross(ways[3], ways[4])
    beside = 0.14 * beside / jnp.maximum(jnp.linalg.norm(beside), 1e-3)
    passing = centre + beside + 0.3 * (2 * _smooth((times - start) / (2 * during))[:, None] - 1) * ways[3]
    away = centre[:1] + between(far, 0.22, 0.36)[:, None, None] * ways[4:, None] + 0.03 * swing
    away = away.at[0].set(jnp.where(verb == PASS, passing, away[0]))
    reached = jnp.swapaxes(grips, 0, 1) + 0.015 * ways[5] * near
    held = away + near_by[..., 0] * (reached - away)
    both = local + (held - grip)[:, :, None]
    left, right = jnp.where(side == LEFT, both, both[::-1])

    # the camera
    camera = so3_exp(0.6 * place[1])
    shaken = 0.06 * (_smooth(times)[:, None] * drift[0] + jnp.sin(jnp.pi * times)[:, None] * drift[1])
    points = jnp.concatenate([left, right, control], 1)
    points = jnp.einsum("ij,tkj->tki", camera, points, precision=HIGHEST) + shaken[:, None] + jnp.array([0, 0, 0.6])
    whether, since, lasting = missing
    gone = (whether < scene.unseen) & (jnp.abs(times[:, None] - since) < lasting / 8)
    valid = jnp.concatenate([~gone, jnp.ones((scene.frames, 1), bool)], 1)
    wrong = jnp.einsum("tw,wes->tes", _waves(times), shifts, precision=HIGHEST)
    estimated = points + scene.noise * offs + scene.shift * jnp.repeat(wrong, 21, 1)
    seen = jnp.repeat(valid, 21, 1)[..., None]
    return {
        "points": jnp.where(seen, points, 0),
        "estimated": jnp.where(seen, estimated, 0),
        "valid": valid,
        "object": thing,
        "action": action,
        "subject": subject,
    }


def _placed(R: Array, points: Array, place: Array) -> Array:
    """Points (K, 3) of a body at each instant, (T, K, 3)."""
    return jnp.einsum("tij,kj->tki", R, points, precision=HIGHEST) + place[:, None]


def _smooth(share: Array) -> Array:
    """From 0 to 1 with a smooth start and end; still before and after."""
    x = jnp.clip(share, 0, 1)
    return x * x * (3 - 2 * x)


def _waves(times: Array) -> Array:
    """Four slow waves (T, 4), which with normal amplitudes add to noise of variance 1."""
    angle = 2 * jnp.pi * times[:, None] * jnp.array([0.5, 1.0])
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1) / np.sqrt(2)
