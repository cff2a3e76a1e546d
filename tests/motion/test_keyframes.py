import jax
import numpy as np
from scipy.spatial.transform import Rotation

from jhand.motion import between_keyframes, minimum_jerk, move_points, move_rotations


def test_minimum_jerk_starts_and_ends_at_rest():
    f = minimum_jerk
    assert [float(f(s)) for s in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0, 0, 0.5, 1, 1]
    for s in (0.0, 1.0):
        assert abs(jax.grad(f)(s)) < 1e-6
        assert abs(jax.grad(jax.grad(f))(s)) < 1e-5
    assert float(jax.grad(f)(0.5)) == 1.875  # the peak speed of such a move, in mean speeds


def test_points_pass_the_keyframes_they_rest_at():
    keys = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    starts, durations = np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.0, 0.7])
    progress = between_keyframes(np.array([-1.0, 0.7, 2.0, 5.0]), starts, durations)
    np.testing.assert_allclose(move_points(progress, keys), keys, atol=1e-6)


def test_rotations_turn_about_one_axis_at_a_time():
    R = Rotation.random(3, random_state=0)
    starts, durations = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    progress = between_keyframes(np.array([0.0, 0.5, 1.0, 1.25, 2.0]), starts, durations)
    turned = np.asarray(move_rotations(progress, R.as_matrix().astype(np.float32)))
    expected = [R[0], R[0] * Rotation.from_rotvec(0.5 * (R[0].inv() * R[1]).as_rotvec()), R[1]]
    np.testing.assert_allclose(turned[[0, 1, 2, 4]], [*(e.as_matrix() for e in expected), R[2].as_matrix()], atol=1e-5)
