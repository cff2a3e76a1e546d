import jax.numpy as jnp
import numpy as np

from jhand.hand import HandParams, bone_lengths, bones, keypoints, with_bone_lengths


def test_directions_stay_and_lengths_change(right):
    points = keypoints(right, HandParams.zeros((2,)))
    own = bone_lengths(points)
    np.testing.assert_allclose(with_bone_lengths(points, own), points, atol=1e-6)
    longer = with_bone_lengths(points, 1.5 * own)
    np.testing.assert_allclose(longer - longer[:, :1], 1.5 * (points - points[:, :1]), atol=1e-6)
    one = with_bone_lengths(points, own.at[:, 5].mul(2.0))
    changed = np.flatnonzero(np.abs(bone_lengths(one) - own)[0] > 1e-6)
    np.testing.assert_array_equal(changed, [5])
    moved = np.flatnonzero(np.linalg.norm(one - points, axis=-1)[0] > 1e-6)
    np.testing.assert_array_equal(moved, [6, 7, 8])  # what is further out on that finger
    assert bones("openpose21")[5] == (5, 6)


def test_a_bone_without_length_has_no_direction(right):
    points = jnp.zeros((21, 3))
    assert np.isfinite(with_bone_lengths(points, jnp.ones(20))).all()
