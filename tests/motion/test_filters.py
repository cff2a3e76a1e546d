import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from jhand.geometry import geodesic_distance, so3_exp
from jhand.motion import (
    one_euro,
    one_euro_rotations,
    one_euro_start,
    one_euro_step,
    savitzky_golay,
    savitzky_golay_rotations,
)


def _walk(*shape, seed=0, scale=0.01):
    return np.random.default_rng(seed).normal(0, scale, shape).cumsum(-3).astype(np.float32)


def _one_euro(x, fps, min_cutoff, beta, derivative_cutoff):
    """The paper's algorithm 1 and 2 on one number per frame, float64."""

    def alpha(cutoff):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau * fps)

    value, dx, out = x[0], 0.0, [x[0]]
    for v in x[1:]:
        a = alpha(derivative_cutoff)
        dx = a * (v - value) * fps + (1 - a) * dx
        a = alpha(min_cutoff + beta * abs(dx))
        value = a * v + (1 - a) * value
        out.append(value)
    return np.array(out)


@pytest.mark.parametrize("settings", [(1.0, 0.0, 1.0), (0.5, 8.0, 2.0)])
def test_one_euro_is_the_papers(settings):
    x = _walk(60, 1, 1)
    names = ("min_cutoff", "beta", "derivative_cutoff")
    got = one_euro(x, 30.0, **dict(zip(names, settings, strict=True)))
    np.testing.assert_allclose(got[:, 0, 0], _one_euro(x[:, 0, 0].astype(float), 30.0, *settings), atol=1e-6)


def test_one_euro_does_not_know_the_axes():
    x = _walk(2, 40, 5, 3)
    R = Rotation.random(random_state=0).as_matrix().astype(np.float32)
    np.testing.assert_allclose(one_euro(x @ R.T, 60.0), one_euro(x, 60.0) @ R.T, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(one_euro, (0, None))(x, 60.0), one_euro(x, 60.0), atol=1e-7)
    state = one_euro_start(x[0, 0])
    for frame in x[0, 1:]:
        state = one_euro_step(state, frame, 1 / 60)
    np.testing.assert_allclose(state.value, one_euro(x, 60.0)[0, -1], atol=1e-6)


def test_one_euro_of_small_turns_about_one_axis_is_that_of_the_angle():
    angle = 0.2 * _walk(50, 1, 1, scale=0.1)
    R = so3_exp(angle * np.array([0.0, 0.6, 0.8]))
    smooth = one_euro_rotations(R[:, :], 30.0, min_cutoff=0.7, beta=2.0)
    expected = _one_euro(angle[:, 0, 0].astype(float), 30.0, 0.7, 2.0, 1.0)
    np.testing.assert_allclose(smooth[:, 0], so3_exp(expected[:, None] * np.array([0.0, 0.6, 0.8])), atol=2e-6)


@pytest.mark.parametrize(("window", "order", "derivative"), [(5, 2, 0), (9, 3, 1), (7, 4, 2), (3, 0, 0)])
def test_savitzky_golay_is_scipys(window, order, derivative):
    x = _walk(2, 20, 4, 3)
    expected = savgol_filter(x.astype(float), window, order, deriv=derivative, delta=1 / 50, axis=-3, mode="interp")
    got = savitzky_golay(x, window, order, derivative=derivative, fps=50.0)
    np.testing.assert_allclose(got, expected, atol=2e-6 * 50**derivative)


def test_savitzky_golay_keeps_polynomials_and_even_turns():
    t = np.linspace(-1, 1, 15)
    x = (1 + 2 * t - 3 * t**2)[:, None, None]
    np.testing.assert_allclose(savitzky_golay(x, 7, 2), x, atol=1e-5)
    R = so3_exp((0.5 * t)[:, None, None] * np.array([0.3, -0.9, 0.4]))
    np.testing.assert_allclose(savitzky_golay_rotations(R, 7, 1), R, atol=2e-6)
    one_axis = so3_exp((t**3)[:, None, None] * np.array([0.0, 1.0, 0.0]))
    smooth = savgol_filter(t**3, 5, 2, mode="interp")
    np.testing.assert_allclose(
        savitzky_golay_rotations(one_axis, 5, 2), so3_exp(smooth[:, None, None] * np.array([0.0, 1, 0])), atol=2e-6
    )


def test_smoothed_rotations_are_nearer_to_the_truth_and_turn_with_the_frame():
    t = np.linspace(0, 3, 90)
    true = so3_exp(np.stack([np.sin(t), 0.8 * np.cos(2 * t), 0.5 * t], -1)[:, None])
    noise = so3_exp(np.random.default_rng(0).normal(0, 0.05, (90, 1, 3)))
    measured = true @ noise
    smooth = savitzky_golay_rotations(measured, 11, 2)
    assert geodesic_distance(smooth, true).mean() < 0.6 * geodesic_distance(measured, true).mean()
    turn = Rotation.random(random_state=1).as_matrix().astype(np.float32)
    np.testing.assert_allclose(savitzky_golay_rotations(turn @ measured, 11, 2), turn @ smooth, atol=3e-6)
    eased = one_euro_rotations(measured, 30.0, min_cutoff=2.0, beta=1.0)
    np.testing.assert_allclose(eased @ jnp.swapaxes(eased, -1, -2), np.broadcast_to(np.eye(3), eased.shape), atol=1e-5)


def test_bad_windows_are_said():
    x = np.zeros((6, 1, 3), np.float32)
    for window, order in ((4, 2), (3, 3), (7, 2)):
        with pytest.raises(ValueError, match="odd window longer than the order and at most 6"):
            savitzky_golay(x, window, order)
    with pytest.raises(ValueError, match=r"points \(\.\.\., T, K, C\)"):
        one_euro(np.zeros((6, 3)), 30.0)
