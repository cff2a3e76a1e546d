import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from jhand.geometry import rigid
from jhand.motion import resample, resample_rotations, resample_transforms

TIMES = np.array([0.0, 0.1, 0.35, 0.4, 1.0])
NEW = np.array([-0.5, 0.0, 0.05, 0.1, 0.3, 0.39, 0.9, 1.0, 2.0])


def test_points_as_numpy_interpolates():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 2))
    expected = np.stack([np.interp(NEW, TIMES, c) for c in np.moveaxis(x, 1, -1).reshape(-1, 5)])
    expected = np.moveaxis(expected.reshape(2, 3, 2, len(NEW)), -1, 1)
    np.testing.assert_allclose(resample(x, TIMES, NEW), expected, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(resample, (0, None, None))(x, TIMES, NEW), expected, atol=1e-6)
    np.testing.assert_allclose(resample(x[:, :1], TIMES[:1], NEW), np.repeat(x[:, :1], len(NEW), 1), atol=1e-7)


def test_rotations_and_transforms_as_scipy():
    R = Rotation.random(5, random_state=0)
    t = np.random.default_rng(1).normal(size=(5, 3))
    inside = np.clip(NEW, 0, 1)
    expected = Slerp(TIMES, R)(inside).as_matrix()
    matrices = R.as_matrix()[:, None].astype(np.float32)
    np.testing.assert_allclose(resample_rotations(matrices, TIMES, NEW)[:, 0], expected, atol=3e-6)
    T = resample_transforms(rigid(matrices, t[:, None].astype(np.float32)), TIMES, NEW)
    np.testing.assert_allclose(T[:, 0, :3, :3], expected, atol=3e-6)
    np.testing.assert_allclose(T[:, 0, :3, 3], np.stack([np.interp(inside, TIMES, c) for c in t.T], -1), atol=1e-6)


def test_times_must_be_those_of_the_frames():
    with pytest.raises(ValueError, match="expected 5 times"):
        resample(np.zeros((5, 1, 3)), TIMES[:4], NEW)
