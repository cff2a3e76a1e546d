"""Hands in motion before a camera, without pictures."""

import numpy as np
import pytest

from jhand.data.made import Made, first_examples
from jhand.data.moving_hands import MotionScene, moving_hand
from jhand.hand import bone_lengths

SCENE = MotionScene(frames=24)
pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


@pytest.fixture(scope="module")
def examples():
    return first_examples(Made(moving_hand, SCENE), 0, 40, at_once=40)


def test_hands_move_and_keep_their_bones(examples):
    points = examples["keypoints3d"]
    assert points.shape == (40, 24, 21, 3) and examples["right"].all() and examples["keypoints3d_valid"].all()
    np.testing.assert_array_equal(points[:, :, 0], 0)
    lengths = np.asarray(bone_lengths(points))
    assert np.abs(lengths - lengths[:, :1]).max() < 2e-4
    assert np.std(lengths[:, 0, 8]) > 1e-3  # hands of several sizes
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    assert 3e-4 < steps.mean() < 0.01 and steps.max() < 0.1


def test_pixels_are_those_of_a_camera(examples):
    """Over all, a point that is right of the wrist in the camera's axes is so in the picture, and most are in it."""
    seen, points = examples["keypoints2d"], examples["keypoints3d"]
    assert ((seen > 0) & (seen < SCENE.size)).mean() > 0.95
    across = (seen - seen[:, :, :1])[:, :, 1:].reshape(40, -1)
    there = points[:, :, 1:, :2].reshape(40, -1)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(across, there, strict=True)) > 0.8


def test_noise_is_of_pixels():
    exact, noisy = (
        first_examples(Made(moving_hand, MotionScene(frames=24, noise=noise)), 0, 8, at_once=8) for noise in (0.0, 4.0)
    )
    off = noisy["keypoints2d"] - exact["keypoints2d"]
    assert 3.8 < off.std() < 4.2 and abs(off.mean()) < 0.2
    np.testing.assert_array_equal(noisy["keypoints3d"], exact["keypoints3d"])
