"""Ego2HandsPose's arrays, written as its authors do."""

import numpy as np
import pytest

from jhand.data import (
    ClipError,
    read_ego2hands_keypoints2d,
    read_ego2hands_keypoints3d,
    read_ego2hands_mano,
)


def test_numbers_and_their_orders(tmp_path):
    np.save(tmp_path / "a_mano.npy", np.arange(51.0))
    wrist, turn, pose = read_ego2hands_mano(tmp_path / "a_mano.npy")
    np.testing.assert_allclose(wrist, [0, 0.01, 0.02])
    np.testing.assert_array_equal(turn, [3, 4, 5])
    np.testing.assert_array_equal(pose[0], [6, 7, 8])
    points = np.random.default_rng(0).normal(size=(21, 3)) * 10
    np.save(tmp_path / "a_3d_global.npy", points[:, [1, 0, 2]])  # row, column, depth
    np.testing.assert_allclose(read_ego2hands_keypoints3d(tmp_path / "a_3d_global.npy"), points / 100, rtol=1e-5)
    pixels = np.random.default_rng(1).uniform(0, 288, (21, 2))
    np.save(tmp_path / "a_2d.npy", (pixels[:, ::-1] + 0.5) / [288, 512])
    found = read_ego2hands_keypoints2d(tmp_path / "a_2d.npy", (288, 512))
    np.testing.assert_allclose(found, pixels, atol=1e-3)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ClipError, match=r"expected a \.npy file of numbers"):
        read_ego2hands_mano(tmp_path / "none.npy")
    np.save(tmp_path / "short.npy", np.zeros(48))
    with pytest.raises(ClipError, match=r"expected numbers \(51,\), got float64 \(48,\)"):
        read_ego2hands_mano(tmp_path / "short.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ClipError, match=r"expected a \.npy file of numbers"):
        read_ego2hands_mano(tmp_path / "objects.npy")
    np.save(tmp_path / "nan.npy", np.full((21, 2), np.nan))
    with pytest.raises(ClipError, match="NaN"):
        read_ego2hands_keypoints2d(tmp_path / "nan.npy", (10, 10))
