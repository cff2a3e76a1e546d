from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry.rotations import so3_exp
from jhand.hand.anatomy import (
    JOINT_LIMITS,
    joint_angles,
    limit_excess,
    limit_penalty,
    pose_from_angles,
    sample_angles,
    sample_poses,
)
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams

SIDES = ["right", "left"]
LOWER, UPPER = JOINT_LIMITS[..., 0], JOINT_LIMITS[..., 1]
MIRROR = np.array([-1.0, 1.0, 1.0])
FINGERS = {"thumb": (12, 4), "index": (0, 8), "middle": (3, 12), "ring": (9, 16), "little": (6, 20)}
"""First finger joint (row of hand_pose) and tip (openpose21)."""

SAMPLE = jax.jit(sample_poses, static_argnums=2)


def angles_within_limits(seed: int, n: int) -> np.ndarray:
    share = np.random.default_rng(seed).random((n, 15, 3))
    return (LOWER + share * (UPPER - LOWER)).astype(np.float32)


def keypoints_of(hand, angles) -> np.ndarray:
    params = replace(HandParams.zeros(np.shape(angles)[:-2]), hand_pose=pose_from_angles(hand, angles))
    return np.asarray(keypoints(hand, params), np.float64)


def rotation_about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula, float64."""
    x, y, z = axis
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


@pytest.mark.parametrize("side", SIDES)
def test_angles_come_back(side, hands):
    angles = angles_within_limits(0, 200)
    found = joint_angles(hands[side], pose_from_angles(hands[side], angles))
    np.testing.assert_allclose(found, angles, atol=3e-6)


@pytest.mark.parametrize("side", SIDES)
def test_poses_come_back(side, hands):
    poses = np.random.default_rng(1).normal(0, 0.5, (50, 15, 3)).astype(np.float32)
    found = pose_from_angles(hands[side], joint_angles(hands[side], poses))
    np.testing.assert_allclose(so3_exp(found), so3_exp(poses), atol=3e-6)


def test_rotations_are_flexion_then_abduction_then_twist(right):
    angles = angles_within_limits(2, 3)
    found = np.asarray(so3_exp(pose_from_angles(right, angles)))
    axes = np.asarray(right.axes, np.float64)
    for n, j in np.ndindex(3, 15):
        F, A, T = (rotation_about(axes[j, :, k], angles[n, j, k]) for k in range(3))
        np.testing.assert_allclose(found[n, j], F @ A @ T, atol=2e-6)


@pytest.mark.parametrize("level", ["default", "fine"])
def test_the_same_angles_mirror(level):
    angles = angles_within_limits(3, 20)
    right, left = (keypoints_of(load_hand(side=side, level=level), angles) for side in SIDES)
    np.testing.assert_allclose(left, right * MIRROR, atol=5e-7)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("finger", ["index", "middle", "ring", "little"])
def test_flexion_closes_towards_the_palm(side, finger, hands):
    # the palm faces -y: a closed fingertip lies below the hand, and nearer to the wrist
    row, tip = FINGERS[finger]
    angles = np.zeros((2, 15, 3), np.float32)
    angles[1, row : row + 3, 0] = np.deg2rad([70, 80, 50])
    flat, closed = keypoints_of(hands[side], angles)
    assert closed[tip, 1] < flat[tip, 1] - 0.015
    assert np.linalg.norm(closed[tip] - closed[0]) < np.linalg.norm(flat[tip] - flat[0]) - 0.05
    for level in range(3):
        one = np.zeros((15, 3), np.float32)
        one[row + level, 0] = 0.3
        assert keypoints_of(hands[side], one)[tip, 1] < flat[tip, 1] - 0.003


@pytest.mark.parametrize("side", SIDES)
def test_thumb_flexion_crosses_the_palm(side, hands):
    angles = np.zeros((2, 15, 3), np.float32)
    angles[1, 12:, 0] = np.deg2rad([30, 40, 40])
    flat, closed = keypoints_of(hands[side], angles)
    tip, little_knuckle = FINGERS["thumb"][1], 17
    towards = [np.linalg.norm(points[tip] - points[little_knuckle]) for points in (flat, closed)]
    assert towards[1] < towards[0] - 0.03


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("finger", ["index", "middle", "ring", "little"])
def test_abduction_moves_towards_the_thumb(side, finger, hands):
    row, tip = FINGERS[finger]
    angles = np.zeros((2, 15, 3), np.float32)
    angles[1, row, 1] = 0.3
    flat, spread = keypoints_of(hands[side], angles)
    assert spread[tip, 2] > flat[tip, 2] + 0.015  # the thumb is at +z on either hand
    assert abs(spread[tip, 1] - flat[tip, 1]) < 0.005


def test_thumb_abduction_leaves_the_palm(hands):
    angles = np.zeros((2, 15, 3), np.float32)
    angles[1, 12, 1] = 0.5
    for hand in hands.values():
        flat, lifted = keypoints_of(hand, angles)
        assert lifted[4, 1] < flat[4, 1] - 0.02  # palmar: away from the plane of the metacarpals, on the palm's side


@pytest.mark.parametrize("side", SIDES)
def test_samples_stay_within_limits_and_cover_flexion(side, hands):
    poses = SAMPLE(jax.random.key(0), hands[side], (4000,))
    angles = np.asarray(joint_angles(hands[side], poses))
    assert (angles >= LOWER - 1e-5).all() and (angles <= UPPER + 1e-5).all()
    covered = (angles[..., 0].max(0) - angles[..., 0].min(0)) / (UPPER - LOWER)[:, 0]
    assert (covered > 0.9).all(), covered.round(2)
    # and not only at the ends: no tenth of any joint's range is empty
    for j in range(15):
        counts, _ = np.histogram(angles[:, j, 0], 10, (LOWER[j, 0], UPPER[j, 0]))
        assert (counts > 0).all(), (j, counts)


def test_samples_follow_the_key(right):
    one, same, other = (SAMPLE(jax.random.key(k), right, (2, 3)) for k in (1, 1, 2))
    assert one.shape == (2, 3, 15, 3)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_end_joints_follow_middle_joints(right):
    angles = np.asarray(joint_angles(right, SAMPLE(jax.random.key(3), right, (4000,))))
    for row in (0, 3, 6, 9):
        pip, dip = angles[:, row + 1, 0], angles[:, row + 2, 0]
        assert np.corrcoef(pip, dip)[0, 1] > 0.8
        assert abs(np.median(dip - 2 / 3 * pip)) < 0.05


def test_excess_is_what_is_beyond_the_limits(right):
    middle = (LOWER + UPPER) / 2
    for k in range(3):
        for beyond, limit in ((0.2, UPPER), (-0.2, LOWER)):
            angles = middle.copy()
            angles[:, k] = limit[:, k] + beyond
            expected = np.zeros((15, 3))
            expected[:, k] = beyond
            pose = pose_from_angles(right, angles)
            np.testing.assert_allclose(limit_excess(right, pose), expected, atol=3e-6)
            np.testing.assert_allclose(limit_penalty(right, pose), expected**2, atol=3e-6)
    assert not np.any(limit_penalty(right, pose_from_angles(right, middle)))


def test_the_gradient_of_the_penalty_is_finite_everywhere(right):
    gradient = jax.jit(jax.grad(lambda pose: limit_penalty(right, pose).sum()))
    np.testing.assert_array_equal(gradient(jnp.zeros((15, 3))), 0)
    for angles in (LOWER, UPPER, 2 * UPPER, np.full((15, 3), 1e-6, np.float32)):
        assert np.isfinite(gradient(pose_from_angles(right, angles))).all()
    beyond = pose_from_angles(right, UPPER + 0.1)
    step = 1e-2 * gradient(beyond)
    assert (limit_penalty(right, beyond - step).sum()) < limit_penalty(right, beyond).sum() * 0.99


def test_the_gradient_of_the_penalty_agrees_with_differences(right):
    pose = 1.5 * np.asarray(pose_from_angles(right, UPPER))
    direction = np.random.default_rng(4).normal(size=(15, 3)).astype(np.float32)
    f = jax.jit(lambda t: limit_penalty(right, pose + t * direction).sum())
    h = 1e-2
    difference = (float(f(h)) - float(f(-h))) / (2 * h)
    assert float(jax.grad(f)(0.0)) == pytest.approx(difference, rel=2e-2)


def test_angles_are_drawn_as_poses_are(right):
    """The same spread of every angle, thumbs aside, whose draws differ."""
    drawn = np.asarray(sample_angles(jax.random.key(0), (4000,)))
    assert (drawn >= LOWER - 1e-6).all() and (drawn <= UPPER + 1e-6).all()
    of_poses = np.asarray(joint_angles(right, SAMPLE(jax.random.key(1), right, (4000,))))
    np.testing.assert_allclose(drawn.mean(0)[:12], of_poses.mean(0)[:12], atol=0.05)
    np.testing.assert_allclose(drawn.std(0)[:12], of_poses.std(0)[:12], atol=0.04)
    thumb = (drawn[:, 12:] - LOWER[12:]) / np.where(UPPER > LOWER, UPPER - LOWER, 1)[12:]
    moving = (UPPER > LOWER)[12:]
    np.testing.assert_allclose(thumb.mean(0)[moving], 0.5, atol=0.03)
    np.testing.assert_allclose(thumb.std(0)[moving], 12**-0.5, atol=0.02)
