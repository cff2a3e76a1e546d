import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from jhand.metrics import add, add_accuracy, add_auc, add_s

N = 30


def random_poses(batch, seed=0):
    """Two poses near each other, and points of an object."""
    rng = np.random.default_rng(seed)
    number = int(np.prod(batch))
    T = np.broadcast_to(np.eye(4), (2, *batch, 4, 4)).copy()
    true = Rotation.random(number, random_state=seed)
    pred = true * Rotation.from_rotvec(0.3 * rng.normal(size=(number, 3)))
    T[0, ..., :3, :3], T[1, ..., :3, :3] = (r.as_matrix().reshape(*batch, 3, 3) for r in (pred, true))
    T[..., :3, 3] = rng.normal(size=(*batch, 3)) + 0.01 * rng.normal(size=(2, *batch, 3))
    return T[0], T[1], rng.normal(size=(N, 3)) * 0.05


def posed(T, points):
    return np.array([T[:3, :3] @ p + T[:3, 3] for p in points])


def add_oracle(A, B, points):
    return np.mean([np.linalg.norm(a - b) for a, b in zip(posed(A, points), posed(B, points), strict=True)])


def add_s_oracle(A, B, points):
    return cdist(posed(B, points), posed(A, points)).min(1).mean()


ORACLES = {add: add_oracle, add_s: add_s_oracle}


@pytest.mark.parametrize("metric", ORACLES)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_against_slow_oracles(metric, batch):
    A, B, points = random_poses(batch)
    valid = np.arange(N) % 4 > 0
    every, some = metric(A, B, points), metric(A, B, np.where(valid[:, None], points, np.nan), valid)
    assert every.shape == some.shape == batch
    for i in np.ndindex(*batch):
        assert_allclose(every[i], ORACLES[metric](A[i], B[i], points), rtol=1e-4)
        assert_allclose(some[i], ORACLES[metric](A[i], B[i], points[valid]), rtol=1e-4)
    stacked = jax.vmap(metric, (0, 0, None))(np.stack([A, B]), np.stack([B, B]), points)
    assert_allclose(stacked, np.stack([every, 0 * every]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", ORACLES)
def test_gradients(metric):
    A, B, points = random_poses(())
    A, h = jnp.asarray(A, jnp.float32), 1e-6
    direction = np.random.default_rng(7).normal(size=(4, 4))
    direction[3] = 0
    slow = ORACLES[metric]
    A64 = np.asarray(A, np.float64)
    expected = (slow(A64 + h * direction, B, points) - slow(A64 - h * direction, B, points)) / (2 * h)
    assert_allclose(jnp.sum(jax.grad(metric)(A, B, points) * direction), expected, rtol=1e-3)
    assert np.isfinite(jax.grad(metric)(A, A, points)).all()
    value, gradient = jax.value_and_grad(metric)(A, B, points, np.zeros(N, bool))
    assert np.isnan(value) and not gradient.any()


def test_symmetry_is_forgiven_by_add_s_alone():
    A, _, points = random_poses(())
    both = np.concatenate([points, points * [-1, -1, 1]])  # looks the same after half a turn about z
    turned = A @ np.diag([-1.0, -1.0, 1.0, 1.0])
    assert_allclose(add_s(turned, A, both), 0, atol=1e-6)
    assert float(add(turned, A, both)) > 0.05


def test_area_is_that_of_the_curve():
    """Summed in small steps over thresholds, of the accuracies of all poses."""
    distance = np.random.default_rng(0).random(50) * 0.15
    steps = (np.arange(100_000) + 0.5) * 1e-6
    slow = np.mean([np.mean(distance < t) for t in steps[::50]])
    assert_allclose(add_auc(distance).mean(), slow, rtol=1e-3)
    assert_allclose(add_auc(np.array([0, 0.05, 0.1, 0.2])), [1, 0.5, 0, 0], atol=1e-6)
    assert_allclose(add_auc(np.array([0.05, np.nan]), 0.2), [0.75, np.nan])


def test_accuracy():
    assert add_accuracy(np.array([0.01, 0.02, np.nan]), 0.15).tolist() == [True, False, False]
    assert add_accuracy(np.array([0.01, 0.02]), np.array([0.05, 0.3])).tolist() == [False, True]
    assert add_accuracy(np.array([0.01, 0.02]), 0.15, 0.05).tolist() == [False, False]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"poses \(..., 4, 4\), got \(3, 4\) and \(4, 4\)"):
        add(np.zeros((3, 4)), np.eye(4), np.zeros((N, 3)))
    with pytest.raises(ValueError, match=r"points: expected shape \(..., N, 3\), got \(3,\)"):
        add_s(np.eye(4), np.eye(4), np.zeros(3))
