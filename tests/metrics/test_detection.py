import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jhand.metrics import HAND_SIGMAS, OKS_THRESHOLDS, average_precision, oks, oks_ap

PICTURES, D, G, K = 31, 6, 4, 21


def scene(seed=0):
    """Pictures with some hands, most found more or less well, some twice, and some found where there is none."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 300, (PICTURES, G, 1, 2)) + rng.normal(size=(PICTURES, G, K, 2)) * 30
    pred = rng.uniform(0, 300, (PICTURES, D, 1, 2)) + rng.normal(size=(PICTURES, D, K, 2)) * 30
    blur = rng.choice([0.5, 2, 4, 8], (PICTURES, D, 1, 1))
    source = rng.integers(0, G, (PICTURES, D))
    near = np.take_along_axis(target, source[..., None, None], 1) + blur * rng.normal(size=(PICTURES, D, K, 2))
    pred = np.where(rng.random((PICTURES, D, 1, 1)) < 0.7, near, pred)
    return dict(
        pred=pred,
        scores=np.round(rng.random((PICTURES, D)), 2),  # with ties
        target=target,
        area=rng.uniform(2e3, 2e4, (PICTURES, G)),
        pred_valid=rng.random((PICTURES, D)) < 0.8,
        target_valid=rng.random((PICTURES, G)) < 0.6,
        valid=rng.random((PICTURES, G, K)) < 0.7,
    )


def oks_oracle(p, t, area, valid):
    total = 0.0
    for k in range(K):
        if valid[k]:
            total += np.exp(-np.sum((p[k] - t[k]) ** 2) / (2 * area * (2 * HAND_SIGMAS[k]) ** 2))
    return total / valid.sum() if valid.any() else np.nan


def ap_oracle(similarity, scores, found, there, ignored, threshold):
    """One threshold in the manner of COCO's evaluation: loops over pictures, predictions and targets, in float64."""
    rows, number = [], 0
    for i in range(len(similarity)):
        targets = sorted((g for g in range(there.shape[1]) if there[i, g]), key=lambda g: bool(ignored[i, g]))
        number += sum(not ignored[i, g] for g in targets)
        taken = set()
        for d in sorted((d for d in range(found.shape[1]) if found[i, d]), key=lambda d: -scores[i, d]):
            best, match = threshold, None
            for g in targets:
                if g in taken:
                    continue
                if match is not None and not ignored[i, match] and ignored[i, g]:
                    break
                if not similarity[i, d, g] >= best:
                    continue
                best, match = similarity[i, d, g], g
            if match is not None:
                taken.add(match)
            rows.append((scores[i, d], match is not None, match is not None and bool(ignored[i, match])))
    rows.sort(key=lambda row: -row[0])
    right = np.cumsum([hit and not passed for _, hit, passed in rows])
    wrong = np.cumsum([not hit for _, hit, _ in rows])
    recall, precision = right / number, right / np.maximum(right + wrong, 1)
    for j in range(len(precision) - 1, 0, -1):
        precision[j - 1] = max(precision[j - 1], precision[j])
    reached = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.mean([precision[j] if j < len(precision) else 0.0 for j in reached])


def test_sigmas_are_of_21_keypoints():
    assert len(HAND_SIGMAS) == 21 and HAND_SIGMAS[0] == 0.029 and HAND_SIGMAS[4] == 0.047 and HAND_SIGMAS[20] == 0.031


def test_oks_against_slow_oracle():
    s = scene()
    got = oks(s["pred"][:, :G], s["target"], s["area"], s["valid"])
    assert got.shape == (PICTURES, G)
    expected = [
        [oks_oracle(s["pred"][i, g], s["target"][i, g], s["area"][i, g], s["valid"][i, g]) for g in range(G)]
        for i in range(PICTURES)
    ]
    assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert_allclose(jax.vmap(oks)(s["pred"][:, :G], s["target"], s["area"], s["valid"]), got, rtol=1e-5)


def test_oks_at_its_ends():
    s = scene()
    p, t = jnp.asarray(s["pred"][0, 0]), s["target"][0, 0]
    assert_allclose(oks(t, t, 1e3), 1)
    assert_allclose(oks(t + 1e4, t, 1e3), 0)
    assert np.isnan(oks(t, t, 0.0)) and np.isnan(oks(t, t, 1e3, np.zeros(K, bool)))
    for area, valid in ((1e3, None), (0.0, None), (1e3, np.zeros(K, bool))):
        assert np.isfinite(jax.grad(oks)(p, t, area, valid)).all()
    assert_allclose(oks(t + np.array([3.0, 4.0]), t, 625.0, None, np.full(K, 0.1)), np.exp(-0.5), rtol=1e-4)


def test_ap_against_slow_oracle():
    s = scene(seed=1)
    got = oks_ap(**s)
    there = s["target_valid"] & s["valid"].any(-1)
    similarity = np.array(
        [
            [
                [oks_oracle(s["pred"][i, d], s["target"][i, g], s["area"][i, g], s["valid"][i, g]) for g in range(G)]
                for d in range(D)
            ]
            for i in range(PICTURES)
        ]
    )
    none = np.zeros((PICTURES, G), bool)
    assert np.gcd(there.sum(), 100) == 1  # else the oracle's recalls are decided by their rounding
    expected = [ap_oracle(similarity, s["scores"], s["pred_valid"], there, none, t) for t in OKS_THRESHOLDS]
    assert 0.02 < expected[-1] < 0.6 * expected[0]
    assert_allclose(got, expected, rtol=1e-5)
    stacked = {name: np.stack([a, a]) for name, a in s.items()}
    assert_allclose(oks_ap(**stacked), np.stack([got, got]), rtol=1e-6)
    assert_allclose(jax.vmap(lambda x: oks_ap(**x))(stacked), np.stack([got, got]), rtol=1e-6)


def test_average_precision_with_ignored_targets_and_ties():
    limits, checked = np.array([0.5, 0.7]), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        similarity = np.round(rng.random((PICTURES, D, G)), 1).astype(np.float32)
        scores = np.round(rng.random((PICTURES, D)), 1)
        found, there, ignored = (
            rng.random((PICTURES, D)) < 0.8,
            rng.random((PICTURES, G)) < 0.7,
            rng.random((PICTURES, G)) < 0.3,
        )
        if np.gcd(np.sum(there & ~ignored), 100) > 1:
            continue  # as above
        got = average_precision(similarity, scores, found, there, ignored, limits)
        expected = [ap_oracle(similarity, scores, found, there, ignored, np.float32(t)) for t in limits]
        assert_allclose(got, expected, rtol=1e-5)
        checked += 1
    assert checked > 5


def test_average_precision_by_hand():
    """Two targets; of three predictions the first and the last are right: precision 1 to recall 0.5, then 2/3."""
    similarity = np.array([[[0.9, 0.1], [0.2, 0.3], [0.8, 0.7]]])
    scores = np.array([[0.9, 0.8, 0.7]])
    got = average_precision(similarity, scores)
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert_allclose(got, [both] * 5 + [one] * 4 + [0], rtol=1e-5)


def test_perfect_and_empty():
    s = scene()
    perfect = oks_ap(s["target"], np.ones((PICTURES, G)), s["target"], s["area"], s["target_valid"], s["target_valid"])
    assert_allclose(perfect, 1)
    nothing = oks_ap(s["target"], np.ones((PICTURES, G)), s["target"], s["area"], np.zeros((PICTURES, G), bool))
    assert_allclose(nothing, 0)
    none = oks_ap(s["pred"], s["scores"], s["target"], s["area"], None, np.zeros((PICTURES, G), bool))
    assert np.isnan(none).all()
    gradient = jax.grad(lambda p: oks_ap(p, s["scores"], s["target"], s["area"]).sum())(jnp.asarray(s["pred"]))
    assert not gradient.any()


def test_wrong_input_is_refused():
    s = scene()
    with pytest.raises(ValueError, match=r"\(16, 2\) and \(21, 2\); convert_keypoints"):
        oks(np.zeros((16, 2)), np.zeros((21, 2)), 1.0)
    with pytest.raises(ValueError, match="sigmas: expected one for each of 16 keypoints"):
        oks(np.zeros((16, 2)), np.zeros((16, 2)), 1.0)
    with pytest.raises(ValueError, match=r"pred \(..., I, D, K, 2\)"):
        oks_ap(s["pred"][0], s["scores"], s["target"], s["area"])
    with pytest.raises(ValueError, match=r"similarity \(..., I, D, G\) and scores"):
        average_precision(np.zeros((PICTURES, D, G)), np.zeros((PICTURES, G)))
    with pytest.raises(ValueError, match=r"target_valid: expected shape \(..., 31, 4\)"):
        average_precision(np.zeros((PICTURES, D, G)), np.zeros((PICTURES, D)), None, np.ones(G, bool))
