"""HALO: frames that keypoints give to bones, and an occupancy that moves with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry import so3_exp
from jhand.hand import HandParams, forward, pose_from_angles, sample_poses
from jhand.nn import HALO, bone_frames

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


def keypoints_of(hand, pose, turn=(0.0, 0, 0)):
    return forward(hand, HandParams(jnp.asarray(turn), pose, jnp.zeros(10), jnp.zeros(3))).keypoints


def test_frames_are_rotations_whose_z_is_the_bone(right):
    points = keypoints_of(right, sample_poses(jax.random.key(0), right))
    frames = bone_frames(points)
    R, origin = frames.T_world_bone[:, :3, :3], frames.T_world_bone[:, :3, 3]
    np.testing.assert_allclose(R @ R.mT, np.broadcast_to(np.eye(3), (16, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-5)
    ends = origin + frames.lengths[:, None] * R[:, :, 2]
    np.testing.assert_allclose(ends[0], points[9], atol=1e-6)
    np.testing.assert_allclose(ends[1:6], points[np.array([2, 6, 10, 14, 18])], atol=1e-6)
    np.testing.assert_allclose(ends[11:], points[np.array([4, 8, 12, 16, 20])], atol=1e-6)


def test_frames_move_with_the_hand(right):
    points = keypoints_of(right, sample_poses(jax.random.key(1), right))
    R = so3_exp(jnp.array([0.4, -1.1, 2.0]))
    still, moved = bone_frames(points), bone_frames(points @ R.T + 0.3)
    np.testing.assert_allclose(moved.T_world_bone[:, :3, :3], R @ still.T_world_bone[:, :3, :3], atol=1e-5)
    np.testing.assert_allclose(moved.angles, still.angles, atol=1e-4)
    np.testing.assert_allclose(moved.lengths, still.lengths, atol=1e-6)


def test_angles_are_flexion_towards_the_palm(right):
    angles = jnp.zeros((15, 3)).at[:12, 0].set(0.6)
    straight = bone_frames(keypoints_of(right, jnp.zeros((15, 3))))
    bent = bone_frames(keypoints_of(right, pose_from_angles(right, angles)))
    turned = (bent.angles - straight.angles).reshape(3, 5, 2)[:, 1:]
    np.testing.assert_allclose(turned[..., 0], 0.6, atol=0.05)
    assert np.isfinite(jax.jacfwd(lambda k: bone_frames(k).T_world_bone)(keypoints_of(right, jnp.zeros((15, 3))))).all()


def test_occupancy_moves_with_the_hand(right):
    network = HALO(width=8, layers=2)
    points = keypoints_of(right, sample_poses(jax.random.key(2), right))
    around = points[:1] + 0.05 * jax.random.normal(jax.random.key(3), (50, 3))
    variables = network.init(jax.random.key(0), points, around)
    R = so3_exp(jnp.array([0.4, -1.1, 2.0]))
    found = network.apply(variables, points, around)
    np.testing.assert_allclose(network.apply(variables, points @ R.T + 0.3, around @ R.T + 0.3), found, atol=1e-4)
    assert found.shape == (50,) and (found > 0).all() and (found < 1).all()
    # sixteen parts with parameters of their own, each of which sees 3 + 8 + 1 + 16 numbers
    assert variables["params"]["parts"]["kernel"].shape == (16, 28, 8)
    batch = network.apply(variables, jnp.stack([points, points]), jnp.stack([around, around]))
    np.testing.assert_allclose(batch[1], found, atol=1e-5)


def test_occupancy_depends_on_pose_and_on_lengths(right):
    """Of parts that look at a point from the same place, by the codes of all bones."""
    network = HALO(width=8, layers=2)
    points = keypoints_of(right, jnp.zeros((15, 3)))
    near_wrist = 0.02 * jax.random.normal(jax.random.key(3), (50, 3))
    variables = network.init(jax.random.key(0), points, near_wrist)
    longer = points.at[8].add(0.03 * (points[8] - points[7]) / 0.03)  # the end of the index finger alone
    change = network.apply(variables, longer, near_wrist) - network.apply(variables, points, near_wrist)
    assert jnp.max(jnp.abs(change)) > 1e-4


def test_wrong_keypoints_are_named():
    with pytest.raises(ValueError, match="21, 3"):
        bone_frames(jnp.zeros((16, 3)))
