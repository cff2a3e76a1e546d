import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry import (
    apply_homography,
    fundamental,
    fundamental_ransac,
    homography,
    homography_ransac,
    project,
    sampson_distance,
)
from tests.geometry.rigs import ring_of_cameras

H = np.array([[1.1, 0.2, 30.0], [-0.1, 0.9, 12.0], [2e-4, -1e-4, 1.0]])


def _dlt(x, y):
    """Float64 oracle, without normalisation."""
    rows = []
    for (a, b), (u, v) in zip(x, y, strict=True):
        rows += [[a, b, 1, 0, 0, 0, -u * a, -u * b, -u], [0, 0, 0, a, b, 1, -v * a, -v * b, -v]]
    return np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)


def _moved(x):
    q = np.concatenate([x, np.ones((len(x), 1))], 1) @ H.T
    return q[:, :2] / q[:, 2:]


def _signless(M):
    M = np.asarray(M, float) / np.linalg.norm(M)
    return M * np.sign(M.flat[np.abs(M).argmax()])


@pytest.mark.parametrize("num", [4, 20])
def test_homography_of_exact_points(num):
    x = np.random.default_rng(0).uniform(0, 640, (num, 2))
    found = homography(x, _moved(x))
    np.testing.assert_allclose(apply_homography(found, x), _moved(x), atol=2e-2)
    np.testing.assert_allclose(_signless(found), _signless(_dlt(x, _moved(x))), atol=2e-6)
    batch = homography(np.stack([x, x + 5]), np.stack([_moved(x), _moved(x + 5)]))
    np.testing.assert_allclose(_signless(batch[1]), _signless(H), atol=3e-6)


def test_homography_does_not_read_weight_zero_and_averages_noise():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 640, (200, 2))
    y = _moved(x) + rng.normal(0, 1, x.shape)
    w = np.ones(200)
    y[:20], w[:20] = np.nan, 0
    miss = np.linalg.norm(apply_homography(homography(x, y, w), x) - _moved(x), axis=-1)
    assert miss.mean() < 0.35  # sigma sqrt(8 / 180), about


def test_homography_ransac_leaves_the_wrong_ones_out():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 640, (60, 2))
    y = _moved(x) + rng.normal(0, 0.5, x.shape)
    wrong = rng.uniform(size=60) < 0.4
    y[wrong] = rng.uniform(0, 640, (wrong.sum(), 2))
    found, inside = jax.jit(homography_ransac)(jax.random.key(0), x, y)
    np.testing.assert_array_equal(inside, ~wrong)
    miss = np.linalg.norm(apply_homography(found, x) - _moved(x), axis=-1)
    assert miss.max() < 1.0


def _two_views(seed, num, noise=0.0):
    cameras = ring_of_cameras(6)
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.12, (num, 3)).astype(np.float32)
    x, y = (np.asarray(project(jax.tree.map(lambda a, i=i: a[i], cameras), points)) for i in (0, 1))
    K = np.asarray(cameras.K[0], float)
    T0, T1 = np.asarray(cameras.T_cam_world[0], float), np.asarray(cameras.T_cam_world[1], float)
    R, t = (T1 @ np.linalg.inv(T0))[:3, :3], (T1 @ np.linalg.inv(T0))[:3, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    F = np.linalg.inv(K).T @ cross @ R @ np.linalg.inv(K)
    return x + noise * rng.normal(size=x.shape), y + noise * rng.normal(size=x.shape), F


@pytest.mark.parametrize("num", [8, 40])
def test_fundamental_of_exact_points(num):
    x, y, F = _two_views(0, num)
    found = fundamental(x, y)
    np.testing.assert_allclose(np.linalg.det(np.asarray(found, float)), 0, atol=1e-9)
    assert float(sampson_distance(found, x, y).max()) < 0.02
    fresh_x, fresh_y, _ = _two_views(9, 30)
    assert float(sampson_distance(found, fresh_x, fresh_y).max()) < (0.5 if num == 8 else 0.05)
    np.testing.assert_allclose(sampson_distance(F, fresh_x, fresh_y), 0, atol=2e-2)


def test_sampson_distance_is_the_distance_to_the_nearest_match():
    x, y, F = _two_views(1, 6)
    shifted = y + np.array([0.7, -0.4])
    got = np.asarray(sampson_distance(F, x, shifted))
    for n in range(6):
        # Gauss-Newton in float64 on the four coordinates, subject to the epipolar equation
        z, start = np.concatenate([x[n], shifted[n]]).astype(float), None
        start = z.copy()
        for _ in range(10):
            p, q = np.append(z[:2], 1), np.append(z[2:], 1)
            g = np.concatenate([(F.T @ q)[:2], (F @ p)[:2]])
            z = start + g * (g @ (z - start) - q @ F @ p) / (g @ g)
        np.testing.assert_allclose(got[n], np.linalg.norm(z - start), rtol=0.02)


def test_fundamental_ransac_leaves_the_wrong_ones_out():
    x, y, F = _two_views(2, 80, noise=0.3)
    rng = np.random.default_rng(0)
    wrong = np.arange(80) % 4 == 0
    y[wrong] = rng.uniform(100, 500, (wrong.sum(), 2))
    true = np.asarray(sampson_distance(F, x, y)) < 2
    found, inside = jax.jit(fundamental_ransac)(jax.random.key(1), x, y)
    assert (np.asarray(inside) == true).mean() > 0.95
    fresh_x, fresh_y, _ = _two_views(3, 40)
    assert float(jnp.median(sampson_distance(found, fresh_x, fresh_y))) < 0.6


@pytest.mark.parametrize("solve", [homography, fundamental])
@pytest.mark.parametrize("case", ["nothing", "one place", "on a line", "two points"])
def test_degenerate_points_stay_finite(solve, case):
    x = np.random.default_rng(0).uniform(0, 640, (10, 2))
    w = np.ones(10)
    if case == "nothing":
        w[:] = 0
    if case == "one place":
        x[:] = x[0]
    if case == "on a line":
        x[:, 1] = 2 * x[:, 0]
    if case == "two points":
        x, w = x[:2], w[:2]
    assert np.isfinite(solve(x, x + 3, w)).all()


def test_bad_shapes_are_said():
    with pytest.raises(ValueError, match="one shape"):
        homography(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="weights: expected shape"):
        fundamental(np.zeros((9, 2)), np.zeros((9, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="at least 4"):
        homography_ransac(jax.random.key(0), np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="vmap over batches"):
        fundamental_ransac(jax.random.key(0), np.zeros((2, 9, 2)), np.zeros((2, 9, 2)))
