import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.hand.pose_space import pose_from_mean_relative, pose_from_pca, pose_to_mean_relative, pose_to_pca


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.5, (4, 3, 15, 3)).astype(np.float32)


@pytest.mark.parametrize("side", ["right", "left"])
def test_no_coefficients_is_the_mean_pose(side, hands):
    mean = np.asarray(hands[side].hands_mean).reshape(15, 3)
    assert np.abs(mean).max() > 0.3  # a relaxed hand, not the flat one
    np.testing.assert_array_equal(pose_from_pca(hands[side], np.zeros(6, np.float32)), mean)
    np.testing.assert_array_equal(pose_from_mean_relative(hands[side], np.zeros((15, 3), np.float32)), mean)
    np.testing.assert_array_equal(pose_to_mean_relative(hands[side], mean), np.zeros((15, 3)))


@pytest.mark.parametrize("num_components", [1, 6, 45])
def test_pose_from_pca_is_a_sum_of_components(num_components, right):
    c = np.random.default_rng(1).normal(size=(2, 5, num_components)).astype(np.float32)
    expected = np.tile(np.asarray(right.hands_mean, np.float64), (2, 5, 1))
    for n in range(num_components):
        expected += c[..., n, None] * np.asarray(right.hands_components, np.float64)[n]
    found = pose_from_pca(right, c)
    assert found.shape == (2, 5, 15, 3)
    np.testing.assert_allclose(found, expected.reshape(2, 5, 15, 3), atol=2e-6)


@pytest.mark.parametrize("num_components", [1, 6, 45])
def test_coefficients_come_back(num_components, right):
    c = np.random.default_rng(2).normal(size=(7, num_components)).astype(np.float32)
    np.testing.assert_allclose(pose_to_pca(right, pose_from_pca(right, c), num_components), c, atol=3e-6)


def test_poses_come_back_from_all_components(right, poses):
    np.testing.assert_allclose(pose_from_pca(right, pose_to_pca(right, poses, 45)), poses, atol=3e-6)


def test_fewer_components_give_the_nearest_pose(right, poses):
    near = np.asarray(pose_from_pca(right, pose_to_pca(right, poses, 10)), np.float64)
    C = np.asarray(right.hands_components, np.float64)[:10]
    offsets = poses.reshape(-1, 45) - np.asarray(right.hands_mean, np.float64)
    expected = np.linalg.lstsq(C.T, offsets.T, rcond=None)[0].T @ C + np.asarray(right.hands_mean, np.float64)
    np.testing.assert_allclose(near.reshape(-1, 45), expected, atol=3e-6)


def test_relative_to_mean_and_back(right, poses):
    relative = pose_to_mean_relative(right, poses)
    np.testing.assert_allclose(relative, poses - np.asarray(right.hands_mean).reshape(15, 3), atol=1e-6)
    np.testing.assert_allclose(pose_from_mean_relative(right, relative), poses, atol=1e-6)


def test_wrong_shapes_say_what_fits(right):
    with pytest.raises(ValueError, match=r"n from 1 to 45, got \(2, 48\)"):
        pose_from_pca(right, np.zeros((2, 48)))
    with pytest.raises(ValueError, match="expected 1 to 45, got 46"):
        pose_to_pca(right, np.zeros((15, 3)), 46)
    with pytest.raises(ValueError, match=r"hand_pose: .* got \(8, 45\); reshape it to \(..., 15, 3\)"):
        pose_to_pca(right, np.zeros((8, 45)), 6)
    with pytest.raises(ValueError, match=r"pose: expected shape \(..., 15, 3\), got \(16, 3\)"):
        pose_from_mean_relative(right, np.zeros((16, 3)))


def test_pose_spaces_transform(right, poses):
    back = jax.jit(lambda hand, p: pose_from_pca(hand, pose_to_pca(hand, p, 12)))(right, poses)
    one = jax.vmap(jax.vmap(lambda p: pose_from_pca(right, pose_to_pca(right, p, 12))))(poses)
    np.testing.assert_allclose(back, one, atol=2e-6)
    J = jax.jacobian(lambda c: pose_from_pca(right, c).reshape(45))(jnp.zeros(12))
    np.testing.assert_allclose(J, right.hands_components[:12].T, atol=1e-6)
