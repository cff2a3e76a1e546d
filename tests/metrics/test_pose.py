from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from jhand.metrics import angular_error, mpjpe, pa_mpjpe, pck, pck_auc, root_aligned_mpjpe, scale_aligned_mpjpe

BATCHES = [(), (3,), (2, 4)]
METRICS = [mpjpe, root_aligned_mpjpe, scale_aligned_mpjpe, pa_mpjpe]


def random_hands(batch, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *batch, 21, 3)) * 0.05


def mpjpe_oracle(x, y):
    return sum(
        np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True))) for p, q in zip(x, y, strict=True)
    ) / len(x)


def root_oracle(x, y):
    return mpjpe_oracle(x - x[0], y - y[0])


def scale_oracle(x, y):
    """The scale as scipy's one-dimensional search finds it."""
    x, y = x - x[0], y - y[0]
    scale = minimize_scalar(lambda s: np.sum((s * x - y) ** 2), options={"xtol": 1e-12}).x
    return mpjpe_oracle(scale * x, y)


def pa_oracle(x, y):
    """scipy standardises both sets; its aligned pair is scaled back to the target's size. It allows mirror images."""
    standard, aligned, _ = scipy_procrustes(y, x)
    return mpjpe_oracle(standard, aligned) * np.linalg.norm(y - y.mean(0))


ORACLES = dict(zip(METRICS, (mpjpe_oracle, root_oracle, scale_oracle, pa_oracle), strict=True))


@pytest.mark.parametrize("batch", BATCHES)
def test_against_slow_oracles(batch):
    target, noise = random_hands(batch)
    pred = target + 0.2 * noise  # near enough that scipy's answer is no mirror image
    for metric, oracle in ORACLES.items():
        errors = metric(pred, target)
        for i in np.ndindex(*batch):
            assert_allclose(errors[i], oracle(pred[i], target[i]), rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("batch", BATCHES)
def test_shapes_and_vmap(metric, batch):
    x, y = random_hands(batch)
    assert metric(x, y).shape == batch
    stacked = jax.vmap(metric)(jnp.stack([x, y]), jnp.stack([y, x]))
    assert_allclose(stacked[0], metric(x, y), rtol=1e-5)


def test_what_each_metric_does_not_see():
    target, noise = random_hands(())
    pred = target + 0.1 * noise
    R = Rotation.random(random_state=5).as_matrix()
    moved = pred + np.array([0.3, -0.1, 0.2])
    similar = 1.4 * moved @ R.T
    assert_allclose(root_aligned_mpjpe(moved, target), root_aligned_mpjpe(pred, target), rtol=1e-4)
    assert_allclose(scale_aligned_mpjpe(1.4 * moved, target), scale_aligned_mpjpe(pred, target), rtol=1e-3)
    assert_allclose(pa_mpjpe(similar, target), pa_mpjpe(pred, target), rtol=1e-3)
    assert float(mpjpe(moved, target)) > 10 * float(mpjpe(pred, target))
    assert float(root_aligned_mpjpe(similar, target)) > 10 * float(root_aligned_mpjpe(pred, target))


def test_a_mirrored_hand_is_not_aligned_away():
    """Both hands of a person differ by a mirror, which Procrustes analysis must not undo."""
    target = random_hands(())[0]
    assert float(pa_mpjpe(target * [-1, 1, 1], target)) > 0.005


@pytest.mark.parametrize("metric", METRICS)
def test_only_valid_points_are_read(metric):
    x, y = random_hands((2,))
    valid = np.ones((2, 21), bool)
    valid[:, [3, 8]] = False
    x_holes, y_holes = x.copy(), y.copy()
    x_holes[:, 3], y_holes[:, 8] = np.nan, np.inf
    keep = valid[0]
    assert_allclose(metric(x_holes, y_holes, valid), metric(x[:, keep], y[:, keep]), rtol=1e-4)
    gradient = jax.grad(lambda a: metric(a, y_holes, valid).sum())(jnp.asarray(x_holes))
    assert np.isfinite(gradient).all() and not gradient[:, 3].any()


@pytest.mark.parametrize("metric", METRICS)
def test_a_hand_without_points_has_no_error(metric):
    x, y = random_hands((2,))
    valid = np.array([[True] * 21, [False] * 21])
    error = metric(x, y, valid)
    assert np.isfinite(error[0]) and np.isnan(error[1])
    gradient = jax.grad(lambda a: jnp.nanmean(metric(a, y, valid)))(jnp.asarray(x))
    assert np.isfinite(gradient).all() and gradient[0].any()


@pytest.mark.parametrize("metric", [root_aligned_mpjpe, scale_aligned_mpjpe])
def test_a_hand_without_its_root_has_no_root_aligned_error(metric):
    x, y = random_hands(())
    assert np.isnan(metric(x, y, np.arange(21) > 0))
    assert np.isfinite(metric(x, y, np.arange(21) > 0, root=9))


def test_a_hand_without_size_has_scale_one():
    y = random_hands(())[0]
    x = jnp.zeros((21, 3))
    assert_allclose(scale_aligned_mpjpe(x, y), root_aligned_mpjpe(x, y))
    assert np.isfinite(jax.grad(lambda a: scale_aligned_mpjpe(a, y))(x)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_of_a_perfect_hand_is_zero(metric):
    x = jnp.asarray(random_hands(())[0])
    assert_allclose(metric(x, x), 0, atol=1e-7)
    gradient = jax.grad(lambda a: metric(a, x))(x)
    assert np.isfinite(gradient).all()
    if metric in (mpjpe, root_aligned_mpjpe):  # else rounding leaves distances of 1e-8 whose direction is noise
        assert not gradient.any()


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_the_difference_quotient(metric):
    target, noise = random_hands(())
    x, direction = target + 0.2 * noise, np.random.default_rng(9).normal(size=(21, 3))
    slow = ORACLES[metric]
    h = 1e-6
    expected = (slow(x + h * direction, target) - slow(x - h * direction, target)) / (2 * h)
    got = jnp.sum(jax.grad(lambda a: metric(a, target))(jnp.asarray(x)) * direction)
    assert_allclose(got, expected, rtol=1e-3)


def test_pixels():
    assert_allclose(mpjpe(np.zeros((21, 2)), np.tile([3.0, 4.0], (21, 1))), 5)


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(21, 3\) and \(16, 3\); convert_keypoints"):
        metric(np.zeros((21, 3)), np.zeros((16, 3)))
    with pytest.raises(ValueError, match="valid"):
        metric(np.zeros((21, 3)), np.zeros((21, 3)), np.ones(16))


def pck_oracle(x, y, thresholds):
    distances = [np.sqrt(np.sum((np.float32(p) - np.float32(q)) ** 2)) for p, q in zip(x, y, strict=True)]
    return np.array([np.mean([d <= np.float32(t) for d in distances]) for t in thresholds])


@pytest.mark.parametrize("batch", BATCHES)
def test_pck_and_its_area(batch):
    """FreiHAND's grid: 100 thresholds from 0 to 50 mm, both included, trapezoids, over the range."""
    target, noise = random_hands(batch)
    pred = target + 0.5 * noise
    pred[..., 4, :] = target[..., 4, :]  # a point that is exact is correct at a threshold of 0
    grid = np.linspace(0, 0.05, 100)
    curve, area = pck(pred, target), pck_auc(pred, target)
    assert curve.shape == (*batch, 100) and area.shape == batch
    for i in np.ndindex(*batch):
        expected = pck_oracle(pred[i], target[i], grid)
        assert 0.04 < expected[0] < 0.06 and expected[-1] > 0.5
        assert_allclose(curve[i], expected, atol=1e-6)
        slow = sum((a + b) / 2 * (grid[1] - grid[0]) for a, b in pairwise(expected)) / 0.05
        assert_allclose(area[i], slow, rtol=1e-5)
    assert_allclose(jax.vmap(pck_auc)(jnp.stack([pred, target]), jnp.stack([target, target]))[1], 1, rtol=1e-6)


def test_pck_of_some_points():
    target, noise = random_hands(())
    pred, valid = target + 0.5 * noise, np.arange(21) % 3 > 0
    pred[~valid] = np.nan
    grid = np.array([0.01, 0.02, 0.04])
    assert_allclose(pck(pred, target, valid, grid), pck_oracle(pred[valid], target[valid], grid), atol=1e-6)
    assert np.isnan(pck(pred, target, np.zeros(21, bool), grid)).all()
    assert np.isnan(pck_auc(pred, target, np.zeros(21, bool), grid))
    assert not jax.grad(lambda a: pck_auc(a, target, valid))(jnp.asarray(pred)).any()
    with pytest.raises(ValueError, match="two or more"):
        pck_auc(target, target, None, np.array([0.01]))
    with pytest.raises(ValueError, match=r"thresholds: expected shape \(S,\), got \(\)"):
        pck(target, target, None, 0.01)


@pytest.mark.parametrize("batch", BATCHES)
def test_angular_error_is_scipys(batch):
    rng = np.random.default_rng(3)
    a = Rotation.random(int(np.prod(batch)), random_state=1)
    angle = rng.choice([0, 1e-6, 1e-3, 1.0, 3.1, np.pi - 1e-4, np.pi], int(np.prod(batch)))
    axis = rng.normal(size=(int(np.prod(batch)), 3))
    b = a * Rotation.from_rotvec(angle[:, None] * axis / np.linalg.norm(axis, axis=1, keepdims=True))
    A, B = (r.as_matrix().reshape(*batch, 3, 3) for r in (a, b))
    got = angular_error(A, B)
    assert got.shape == batch
    assert_allclose(got, (a.inv() * b).magnitude().reshape(batch), atol=2e-6)
    assert_allclose(jax.vmap(angular_error)(jnp.stack([A, B]), jnp.stack([B, A])), jnp.stack([got, got]), atol=2e-6)


@pytest.mark.parametrize("diagonal", [(1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_angular_error_at_its_ends_has_a_gradient(diagonal):
    end = jnp.diag(jnp.array(diagonal, jnp.float32))
    value, gradient = jax.value_and_grad(angular_error)(end, jnp.eye(3))
    assert_allclose(value, 0 if sum(diagonal) == 3 else np.pi, atol=1e-6)
    assert np.isfinite(gradient).all()


def test_angular_error_wants_matrices():
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, 3\), got \(5, 3\) and \(5, 3\); so3_exp"):
        angular_error(np.zeros((5, 3)), np.zeros((5, 3)))
