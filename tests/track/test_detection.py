import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.track import detect
from jhand.track.detection import _anchors, _suppress


def slow_suppression(scores, found, slots, threshold):
    """Weighted non-maximum suppression with lists."""

    def iou(a, b):
        common = np.prod(np.maximum(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0))
        return common / (np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - common)

    left = sorted((i for i in range(len(scores)) if scores[i] >= threshold), key=lambda i: -scores[i])
    result = []
    while left and len(result) < slots:
        near = [i for i in left if iou(found[i], found[left[0]]) > 0.3]
        result.append((scores[left[0]], np.average(found[near], axis=0, weights=scores[near])))
        left = [i for i in left if i not in near]
    return result


@pytest.mark.parametrize("seed", range(3))
def test_suppression_against_lists(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (60, 2))
    found = np.concatenate([corners, corners + rng.uniform(0.5, 0.9, (60, 2)), rng.uniform(0, 1, (60, 14))], 1)
    scores = rng.uniform(0, 1, 60)
    expected = slow_suppression(scores, found, 20, 0.5)
    score, mean = _suppress(jnp.asarray(scores, jnp.float32), jnp.asarray(found, jnp.float32), 20, 0.5)
    assert 2 < len(expected) < 20, "some slots must stay empty"
    np.testing.assert_allclose(score[: len(expected)], [s for s, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(mean[: len(expected)], [m for _, m in expected], atol=1e-5)
    assert not score[len(expected) :].any()


def test_anchors():
    """The order of the network's outputs: rows, columns, anchors of a cell; the finer grid first."""
    anchors = _anchors()
    assert anchors.shape == (2016, 2)
    np.testing.assert_allclose(anchors[[0, 1, 2, 48]], np.array([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [0.5, 1.5]]) / 24)
    np.testing.assert_allclose(anchors[[1152, 1157, 1158]], np.array([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5]]) / 12)


def test_nothing_is_found_in_nothing(lite):
    images = np.zeros((2, 1, 40, 60, 3), np.uint8)
    found = detect(lite, images, num_palms=3)
    assert found.keypoints.shape == (2, 1, 3, 7, 2)
    assert not found.present.any()
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found))


def test_errors(lite):
    with pytest.raises(ValueError, match="height, width, 3"):
        detect(lite, np.zeros((40, 60, 4), np.uint8))
