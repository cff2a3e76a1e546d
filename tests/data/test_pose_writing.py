"""`.pose` files that are written are read again."""

import numpy as np
import pytest

from jhand.data.pose_file import parse_pose, write_hands
from jhand.data.recording import read_recording


def test_hands_there_and_back(tmp_path):
    rng = np.random.default_rng(0)
    hands = [(side, rng.uniform(1, 99, (5, 21, 3)), np.ones((5, 21))) for side in ("right", "left", "right")]
    hands[2][2][3:] = 0
    write_hands(tmp_path / "a.pose", hands, size=(640, 480), fps=29.97)
    file = parse_pose((tmp_path / "a.pose").read_bytes())
    assert file.size == (640, 480) and file.fps == pytest.approx(29.97) and file.coordinates.shape == (5, 2, 42, 3)
    assert (
        file.points["LEFT_HAND_LANDMARKS"][8] == "INDEX_FINGER_TIP" and len(file.points["RIGHT_HAND_LANDMARKS"]) == 21
    )
    found = read_recording(tmp_path / "a.pose")
    assert [r.name for r in found] == ["a left 1", "a right 1", "a right 2"]
    for recording, hand in zip(found, (hands[1], hands[0], hands[2]), strict=True):
        seen = hand[2] > 0
        np.testing.assert_array_equal(recording.confidence, hand[2])
        np.testing.assert_allclose(recording.keypoints2d[seen], hand[1][seen][:, :2], rtol=1e-6)


def test_no_hands(tmp_path):
    write_hands(tmp_path / "a.pose", [], size=(8, 8), fps=1.0, num_frames=3)
    assert parse_pose((tmp_path / "a.pose").read_bytes()).coordinates.shape == (3, 1, 42, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pose"]
