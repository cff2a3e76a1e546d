import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation, Slerp

from jhand.geometry import (
    geodesic_distance,
    interpolate_transforms,
    invert_transform,
    mean_rotation,
    mean_transform,
    se3_exp,
    se3_log,
    slerp,
    so3_exp,
)


def _twists(num, scale, seed=0):
    return np.random.default_rng(seed).normal(size=(num, 6)) * scale


def _oracle(xi):
    """Matrix exponential in float64."""
    x, y, z = xi[3:]
    M = np.zeros((4, 4))
    M[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    M[:3, 3] = xi[:3]
    return expm(M)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 0.8])
def test_exp_is_the_matrix_exponential(scale):
    xi = _twists(16, scale)
    np.testing.assert_allclose(se3_exp(xi), np.stack([_oracle(x) for x in xi]), atol=1e-6)
    np.testing.assert_allclose(se3_log(se3_exp(xi)), xi, atol=5e-6)
    T = se3_exp(xi)
    np.testing.assert_allclose(T @ invert_transform(T), np.broadcast_to(np.eye(4), T.shape), atol=1e-6)


def test_shapes_and_gradients():
    xi = jnp.asarray(_twists(6, 0.5), jnp.float32).reshape(2, 3, 6)
    assert se3_exp(xi).shape == (2, 3, 4, 4) and se3_log(se3_exp(xi)).shape == (2, 3, 6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(se3_exp))(xi), se3_exp(xi), atol=1e-6)
    J = jax.jacfwd(lambda v: se3_log(se3_exp(v)))(jnp.zeros(6))
    np.testing.assert_allclose(J, np.eye(6), atol=1e-5)


def test_slerp_is_scipys():
    two = Rotation.random(2, random_state=0)
    share = np.linspace(0, 1, 7)
    expected = Slerp([0, 1], two)(share).as_matrix()
    a, b = two.as_matrix().astype(np.float32)
    np.testing.assert_allclose(slerp(a, b, share), expected, atol=2e-6)


def test_interpolated_transforms_move_evenly():
    T_a, T_b = se3_exp(_twists(2, 0.7, seed=3))
    share = np.linspace(0, 1, 5)
    T = interpolate_transforms(T_a, T_b, share)
    np.testing.assert_allclose(T[0], T_a, atol=1e-6)
    np.testing.assert_allclose(T[-1], T_b, atol=3e-6)
    steps = se3_log(jnp.matmul(invert_transform(T[:-1]), T[1:], precision="highest"))
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=5e-6)


def test_mean_of_rotations_is_scipys():
    R = Rotation.random(9, random_state=1)
    w = np.random.default_rng(0).uniform(0.1, 1, 9)
    np.testing.assert_allclose(mean_rotation(R.as_matrix(), w), R.mean(w).as_matrix(), atol=2e-6)
    centre = so3_exp(jnp.array([0.3, -1.0, 0.2]))
    around = so3_exp(jnp.array([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2, 0]]))
    np.testing.assert_allclose(mean_rotation(centre @ around), centre, atol=2e-6)


def test_mean_and_distance_of_poses():
    T = se3_exp(_twists(5, 0.4, seed=5))
    w = np.array([1.0, 2, 0, 1, 1])
    mean = mean_transform(T, w)
    np.testing.assert_allclose(mean[:3, :3], mean_rotation(T[:, :3, :3], w), atol=1e-6)
    np.testing.assert_allclose(mean[:3, 3], np.average(T[:, :3, 3], axis=0, weights=w), atol=1e-6)
    moved = se3_exp(_twists(1, 1.0, seed=6))[0]
    np.testing.assert_allclose(mean_transform(moved @ T, w), moved @ mean, atol=2e-6)  # no matter which world
    half = slerp(T[0, :3, :3], T[1, :3, :3], 0.5)
    whole = geodesic_distance(T[0, :3, :3], T[1, :3, :3])
    np.testing.assert_allclose(geodesic_distance(T[0, :3, :3], half), whole / 2, rtol=1e-5)
