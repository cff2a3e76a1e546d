import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from jhand.geometry.alignment import nearest_rotation, procrustes, rigid_procrustes

BATCHES = [(), (3,), (2, 4)]


def oracle(x, y, w, with_scale):
    """Weighted Procrustes of one pair by scipy's quaternion solver, float64."""
    x, y, w = (np.asarray(a, np.float64) for a in (x, y, w))
    x_mean, y_mean = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
    R = Rotation.align_vectors(y - y_mean, x - x_mean, weights=w)[0].as_matrix()
    turned = (x - x_mean) @ R.T
    scale = np.sum(w[:, None] * turned * (y - y_mean)) / np.sum(w[:, None] * turned**2) if with_scale else 1.0
    return R, scale, y_mean - scale * R @ x_mean


def random_pair(batch, seed=0, K=21):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, *batch, K, 3)) * 0.05
    return x + rng.normal(size=3), y, rng.uniform(0.1, 2, size=(*batch, K))


@pytest.mark.parametrize("batch", BATCHES)
def test_procrustes_is_scipys(batch):
    x, y, w = random_pair(batch)
    R, scale, t = procrustes(x, y, w)
    R_rigid, t_rigid = rigid_procrustes(x, y, w)
    assert R.shape == (*batch, 3, 3) and scale.shape == batch and t.shape == (*batch, 3)
    for i in np.ndindex(*batch):
        R0, s0, t0 = oracle(x[i], y[i], w[i], with_scale=True)
        assert_allclose(R[i], R0, atol=1e-5)
        assert_allclose(scale[i], s0, rtol=1e-5, atol=1e-6)
        assert_allclose(t[i], t0, atol=1e-5)
        R0, _, t0 = oracle(x[i], y[i], w[i], with_scale=False)
        assert_allclose(R_rigid[i], R0, atol=1e-5)
        assert_allclose(t_rigid[i], t0, atol=2e-5)


@pytest.mark.parametrize("shape", ["volume", "plane", "mirror"])
def test_recovers_a_known_similarity(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(21, 3)) * 0.05
    if shape == "plane":
        x[:, 2] = 0
    R0, t0 = Rotation.random(random_state=2).as_matrix(), np.array([0.1, -0.4, 0.7])
    y = 1.7 * x @ R0.T + t0
    R, scale, t = procrustes(x * [1, 1, -1] if shape == "mirror" else x, y)
    assert np.linalg.det(R) == pytest.approx(1, abs=1e-5)
    if shape == "mirror":  # no rotation undoes a mirror: what is found must still be the best rotation
        expected = oracle(x * [1, 1, -1], y, np.ones(21), with_scale=True)
        assert_allclose(R, expected[0], atol=1e-5)
        assert_allclose(scale, expected[1], rtol=1e-5)
    else:
        assert_allclose(R, R0, atol=1e-5)
        assert_allclose(scale, 1.7, rtol=1e-5)
        assert_allclose(t, t0, atol=1e-6)


def test_leading_axes_broadcast_and_vmap_agrees():
    x, y, w = random_pair((3,))
    together = procrustes(x[0], y, w)
    alone = jax.vmap(procrustes, in_axes=(None, 0, 0))(x[0], y, w)
    for a, b in zip(together, alone, strict=True):
        assert_allclose(a, b, atol=1e-6)


def test_points_of_weight_zero_are_not_read():
    x, y, w = random_pair(())
    w[[2, 5]] = 0
    with_hole, target = x.copy(), y.copy()
    with_hole[2], target[5] = np.nan, np.inf
    used = w > 0
    for a, b in zip(procrustes(with_hole, target, w), procrustes(x[used], y[used], w[used]), strict=True):
        assert_allclose(a, b, atol=1e-6)


def test_points_that_coincide_have_scale_one():
    R, scale, t = procrustes(np.zeros((4, 3)), np.eye(4)[:, :3])
    assert scale == 1
    assert_allclose(t, np.full(3, 0.25))
    assert_allclose(R @ R.T, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("M", [np.diag([3.0, 2, 1]), np.diag([2.0, 2, 2]), np.diag([3.0, 2, -1]), np.diag([3.0, 2, 0])])
def test_gradient_of_nearest_rotation_is_the_difference_quotient(M):
    """Also where singular values coincide, where the gradient of a singular value decomposition is infinite."""
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    direction = np.random.default_rng(3).normal(size=(3, 3))

    def oracle_rotation(m):
        u, _, vt = np.linalg.svd(m)
        return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt

    h = 1e-6
    expected = (oracle_rotation(turn @ M + h * direction) - oracle_rotation(turn @ M - h * direction)) / (2 * h)
    _, got = jax.jvp(nearest_rotation, (jnp.asarray(turn @ M),), (jnp.asarray(direction),))
    assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("M", [np.zeros((3, 3)), np.diag([1.0, 0, 0]), np.diag([1.0, 1, -1])])
def test_gradient_is_finite_where_the_rotation_is_open(M):
    gradient = jax.grad(lambda m: jnp.sum(jnp.sin(nearest_rotation(m))))(jnp.asarray(M))
    assert np.isfinite(gradient).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(21, 3\) and \(16, 3\)"):
        procrustes(np.zeros((21, 3)), np.zeros((16, 3)))
    with pytest.raises(ValueError, match="weights"):
        rigid_procrustes(np.zeros((21, 3)), np.zeros((21, 3)), np.ones(20))
