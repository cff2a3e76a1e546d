import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from jhand.metrics import mpjpe, pa_mpjpe, root_aligned_mpjpe

BATCHES = [(), (3,), (2, 4)]
METRICS = [mpjpe, root_aligned_mpjpe, pa_mpjpe]


def random_hands(batch, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *batch, 21, 3)) * 0.05


def mpjpe_oracle(x, y):
    return sum(
        np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True))) for p, q in zip(x, y, strict=True)
    ) / len(x)


def pa_oracle(x, y):
    """scipy standardises both sets; its aligned pair is scaled back to the target's size. It allows mirror images."""
    standard, aligned, _ = scipy_procrustes(y, x)
    return mpjpe_oracle(standard, aligned) * np.linalg.norm(y - y.mean(0))


@pytest.mark.parametrize("batch", BATCHES)
def test_against_slow_oracles(batch):
    target, noise = random_hands(batch)
    pred = target + 0.2 * noise  # near enough that scipy's answer is no mirror image
    plain, root_aligned, aligned = (metric(pred, target) for metric in METRICS)
    for i in np.ndindex(*batch):
        assert_allclose(plain[i], mpjpe_oracle(pred[i], target[i]), rtol=1e-5)
        rooted = mpjpe_oracle(pred[i] - pred[i][0], target[i] - target[i][0])
        assert_allclose(root_aligned[i], rooted, rtol=1e-5)
        assert_allclose(aligned[i], pa_oracle(pred[i], target[i]), rtol=1e-4)


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


def test_a_hand_without_its_root_has_no_root_aligned_error():
    x, y = random_hands(())
    assert np.isnan(root_aligned_mpjpe(x, y, np.arange(21) > 0))
    assert np.isfinite(root_aligned_mpjpe(x, y, np.arange(21) > 0, root=9))


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_of_a_perfect_hand_is_zero(metric):
    x = jnp.asarray(random_hands(())[0])
    assert_allclose(metric(x, x), 0, atol=1e-7)
    gradient = jax.grad(lambda a: metric(a, x))(x)
    assert np.isfinite(gradient).all()
    if metric is not pa_mpjpe:  # there rounding leaves distances of 1e-8 whose direction is noise
        assert not gradient.any()


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_the_difference_quotient(metric):
    target, noise = random_hands(())
    x, direction = target + 0.2 * noise, np.random.default_rng(9).normal(size=(21, 3))
    slow = {mpjpe: mpjpe_oracle, pa_mpjpe: pa_oracle}.get(metric, lambda a, b: mpjpe_oracle(a - a[0], b - b[0]))
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
