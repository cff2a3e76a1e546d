"""Metrics of hypotheses, against loops, and on hypotheses whose calibration is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand import metrics
from jhand.geometry import so3_exp

N, K = 30, 21


def hands(number=5, seed=0):
    rng = np.random.default_rng(seed)
    target = 0.05 * rng.normal(size=(number, K, 3))
    return target[:, None] + 0.01 * rng.normal(size=(number, N, K, 3)), target


def test_a_pose_is_correct_where_all_its_points_are():
    pred, target = hands()
    found = np.asarray(metrics.correct_pose_score(pred, target))
    for b in range(5):
        aligned = [
            metrics._points.similarity_aligned(*map(jnp.asarray, (x, target[b], np.ones(K, bool)))) for x in pred[b]
        ]
        worst = min(np.linalg.norm(np.asarray(x) - target[b], axis=-1).max() for x in aligned)
        np.testing.assert_allclose(found[b], np.mean(worst <= np.arange(1, 51) / 1000), atol=0.021)
    turned = np.einsum("ij,bnkj->bnki", so3_exp(jnp.array([0.3, -1.0, 2.0])), pred) * 1.7 + 0.2
    np.testing.assert_allclose(metrics.correct_pose_score(turned, target), found, atol=0.021)
    assert (np.asarray(metrics.correct_pose_score(pred[:, :5], target)) <= found).all()


def test_points_that_are_not_valid_are_not_read():
    pred, target = hands()
    valid = np.ones((5, K), bool)
    valid[:, 7] = False
    wild = target.copy()
    wild[:, 7] = 9.0
    np.testing.assert_array_equal(
        metrics.correct_pose_score(pred, wild, valid), metrics.correct_pose_score(pred, target, valid)
    )
    ranks = np.asarray(metrics.truth_rank(pred, wild, valid))
    assert np.isnan(ranks[:, 7]).all() and np.isfinite(np.delete(ranks, 7, 1)).all()
    assert np.isnan(metrics.correct_pose_score(pred, target, np.zeros((5, K), bool))).all()


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 0.0, 0.03), (0.3, 0.25, 0.5), (4.0, 0.25, 0.5)])
def test_the_calibration_error_is_small_of_the_right_spread_and_large_of_any_other(scale, low, high):
    keys = jax.random.split(jax.random.key(0), 3)
    middle = jax.random.normal(keys[0], (200, 1, K, 3))
    truth = (middle + jax.random.normal(keys[1], middle.shape))[:, 0]
    pred = middle + scale * jax.random.normal(keys[2], (200, 60, K, 3))
    error = metrics.expected_calibration_error(metrics.truth_rank(pred, truth))
    assert low <= float(error) <= high


def test_ranks_of_known_places():
    pred = np.arange(-5.0, 6.0)[:, None, None] * np.ones((11, 1, 3))
    ranks = [float(metrics.truth_rank(pred, np.full((1, 3), x))[0]) for x in (0.0, 2.5, 9.0)]
    np.testing.assert_allclose(ranks, [0, 5 / 11, 1])
    np.testing.assert_allclose(metrics.expected_calibration_error(np.array([0.0, np.nan])), 0.5, atol=1e-6)


def test_spread_is_the_root_of_the_variance():
    pred, _ = hands()
    np.testing.assert_allclose(metrics.hypothesis_spread(pred), np.sqrt(pred.var(1).sum(-1)), rtol=1e-5)


def test_ranks_correlate_as_spearman_has_it():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 30))
    a = np.round(a, 1)  # ties

    def ranked(v):
        return np.array([[(row < x).sum() + ((row == x).sum() - 1) / 2 for x in row] for row in v])

    wanted = [np.corrcoef(x, y)[0, 1] for x, y in zip(ranked(a), ranked(b), strict=True)]
    np.testing.assert_allclose(metrics.rank_correlation(a, b), wanted, atol=1e-5)
    np.testing.assert_allclose(metrics.rank_correlation(a, np.exp(a)), 1, atol=1e-6)
    assert np.isnan(metrics.rank_correlation(np.ones(5), np.arange(5.0)))


def test_the_gaussian_has_the_mean_and_the_total_variance():
    x = np.random.default_rng(0).normal(size=(2, 4000, K, 3)) * np.linspace(0.1, 2, K)[:, None] + 3.0
    drawn = np.asarray(metrics.matched_gaussian(jax.random.key(0), x))
    np.testing.assert_allclose(drawn.mean(1), x.mean(1), atol=0.08)
    np.testing.assert_allclose(drawn.var(1).sum((-1, -2)), x.var(1).sum((-1, -2)), rtol=0.02)
    np.testing.assert_allclose(
        drawn.var(1), np.broadcast_to(x.var(1).mean((-1, -2), keepdims=True), (2, K, 3)), rtol=0.15
    )


def test_points_of_other_shapes_are_refused():
    pred, target = hands()
    with pytest.raises(ValueError, match=r"hypotheses \(..., N, K, C\)"):
        metrics.hypothesis_spread(target[0])
    with pytest.raises(ValueError, match="hypotheses are"):
        metrics.truth_rank(pred, target[:, :20])
    with pytest.raises(ValueError, match=r"\(S,\)"):
        metrics.correct_pose_score(pred, target, thresholds=0.1)
    with pytest.raises(ValueError, match=r"\(Q,\)"):
        metrics.expected_calibration_error(np.zeros(3), 0.5)
    with pytest.raises(ValueError, match="of one shape"):
        metrics.rank_correlation(np.zeros(3), np.zeros(4))
