"""The tracker of anything against a patch whose path is known."""

import numpy as np
import pytest
from scipy import ndimage

from jhand.track.template import correlate, follow, propagate, start_template

HEIGHT, WIDTH, FRAMES = 90, 120, 24


@pytest.fixture(scope="module")
def clip():
    """A speckled patch over a speckled ground: frames (T, H, W, 3), its boxes (T, 4)."""
    rng = np.random.default_rng(0)
    ground = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH, 3)), (2, 2, 0))
    patch = ndimage.gaussian_filter(rng.random((60, 60, 3)), (3, 3, 0))
    ground, patch = ((x - x.min()) / np.ptp(x) for x in (ground, patch))
    frames, boxes = [], []
    for t in range(FRAMES):
        side = round(20 * 1.01**t)
        small = ndimage.zoom(patch, (side / 60, side / 60, 1), order=1)
        left, top = int(15 + 2.5 * t), int(30 + 12 * np.sin(t / 5))
        frame = ground.copy()
        frame[top : top + side, left : left + side] = small
        frames.append(frame)
        boxes.append([left - 0.5, top - 0.5, side, side])
    return np.asarray(frames, np.float32), np.asarray(boxes, np.float32)


def centres(boxes):
    return np.asarray(boxes)[..., :2] + np.asarray(boxes)[..., 2:] / 2


def test_it_follows_what_moves_and_grows_both_ways(clip):
    frames, boxes = clip
    middle = FRAMES // 2
    for forwards, part in ((True, slice(middle, None)), (False, slice(None, middle + 1))):
        found, scores = propagate(frames, boxes[middle], middle, forwards=forwards)
        assert np.linalg.norm(centres(found)[part] - centres(boxes)[part], axis=-1).max() < 2.5
        assert (np.asarray(scores)[part] > 0.7).all()
        np.testing.assert_allclose(found[part][:, 2], boxes[part][:, 2], rtol=0.2)
        outside = np.setdiff1d(np.arange(FRAMES), np.arange(FRAMES)[part])
        assert not np.asarray(scores)[outside].any() and not np.asarray(found)[outside].any()


def test_what_disappears_is_lost_for_good(clip):
    frames, boxes = clip[0].copy(), clip[1]
    frames[10:14] = ndimage.gaussian_filter(np.random.default_rng(1).random((HEIGHT, WIDTH, 3)), (2, 2, 0))
    _, scores = propagate(frames, boxes[0], 0, least=0.6)
    scores = np.asarray(scores)
    assert (scores[:10] > 0.6).all() and not scores[11:].any()


def test_correlation_against_loops():
    rng = np.random.default_rng(0)
    image, pattern = rng.random((9, 8, 3)).astype(np.float32), rng.random((4, 5, 3)).astype(np.float32)
    found = np.asarray(correlate(image, pattern))
    expected = [
        [np.corrcoef(image[i : i + 4, j : j + 5].ravel(), pattern.ravel())[0, 1] for j in range(4)] for i in range(6)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert not np.asarray(correlate(np.ones((9, 8, 3)), pattern)).any()


def test_light_that_changes_does_not_matter(clip):
    frames, boxes = clip
    template = start_template(frames[0], boxes[0])
    _, box, score = follow(template, 0.5 * frames[1] + 0.2)
    np.testing.assert_allclose(centres(box), centres(boxes[1]), atol=1.5)
    assert score > 0.8
