import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jhand.geometry import geodesic_distance, so3_exp, so3_log
from jhand.motion import rts_smooth, rts_smooth_rotations


def _map_estimate(x, w, fps, sigma, acceleration):
    """Float64 oracle: every frame's position and velocity in one dense least-squares problem."""
    T, dt = len(x), 1 / fps
    Q = acceleration**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    root = np.linalg.inv(np.linalg.cholesky(Q))
    F = np.array([[1, dt], [0, 1]])
    rows, right = [], []
    for t in range(T - 1):
        row = np.zeros((2, 2 * T))
        row[:, 2 * t : 2 * t + 2], row[:, 2 * t + 2 : 2 * t + 4] = -root @ F, root
        rows.append(row)
        right.append(np.zeros(2))
    for t in range(T):
        if w[t] > 0:
            row = np.zeros((1, 2 * T))
            row[0, 2 * t] = np.sqrt(w[t]) / sigma
            rows.append(row)
            right.append([np.sqrt(w[t]) / sigma * x[t]])
    A, b = np.concatenate(rows), np.concatenate(right)
    H = A.T @ A
    state = np.linalg.solve(H, A.T @ b).reshape(T, 2)
    return state[:, 0], state[:, 1], np.sqrt(np.diag(np.linalg.inv(H))[::2])


@pytest.mark.parametrize("missing", [False, True])
def test_rts_is_least_squares_over_all_frames(missing):
    rng = np.random.default_rng(0)
    x = 0.5 + rng.normal(0, 0.02, 40).cumsum() + rng.normal(0, 0.003, 40)
    w = rng.uniform(0.2, 2, 40)
    if missing:
        w[[0, 1, 10, 11, 12, 13, 39]] = 0
    given = np.where(w > 0, x, np.nan)
    found = rts_smooth(given[:, None, None], 60.0, sigma=0.003, acceleration=4.0, weights=w[:, None])
    value, velocity, sigma = _map_estimate(x, w, 60.0, 0.003, 4.0)
    np.testing.assert_allclose(found.value[:, 0, 0], value, atol=5e-5)
    np.testing.assert_allclose(found.velocity[:, 0, 0], velocity, atol=3e-3)
    np.testing.assert_allclose(found.sigma[:, 0], sigma, rtol=5e-3)


def test_its_deviation_is_what_many_trials_show():
    rng = np.random.default_rng(1)
    fps, sigma, acceleration, T = 30.0, 0.004, 3.0, 50
    dt = 1 / fps
    L = acceleration * np.linalg.cholesky(np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]))
    state, true = np.zeros((2, 200)), []
    for _ in range(T):
        true.append(state[0])
        state = np.array([[1, dt], [0, 1]]) @ state + L @ rng.normal(size=(2, 200))
    true = np.array(true)[..., None]
    measured = true + rng.normal(0, sigma, true.shape)
    found = rts_smooth(measured, fps, sigma=sigma, acceleration=acceleration)
    z = (np.asarray(found.value) - true)[..., 0] / np.asarray(found.sigma)
    assert abs(z.std() - 1) < 0.05
    assert np.abs(np.asarray(found.value) - true).mean() < 0.9 * np.abs(measured - true).mean()


def test_rotations_about_one_axis_are_smoothed_as_their_angle():
    rng = np.random.default_rng(2)
    angle = rng.normal(0, 0.05, 40).cumsum() + rng.normal(0, 0.02, 40)
    w = np.ones(40)
    w[[5, 6, 20]] = 0
    axis = np.array([0.48, -0.6, 0.64])
    found = rts_smooth_rotations(
        so3_exp(angle[:, None, None] * axis), 60.0, sigma=0.02, acceleration=9.0, weights=w[:, None]
    )
    value, velocity, sigma = _map_estimate(angle, w, 60.0, 0.02, 9.0)
    np.testing.assert_allclose(found.value[:, 0], so3_exp(value[:, None] * axis), atol=2e-4)
    np.testing.assert_allclose(found.velocity[:, 0], velocity[:, None] * axis, atol=2e-2)
    np.testing.assert_allclose(found.sigma[:, 0], sigma, rtol=5e-3)


def test_rotations_in_space():
    t = np.linspace(0, 3, 90)
    true = so3_exp(np.stack([2 * np.sin(t), 1.5 * np.cos(2 * t), 1.5 * t], -1)[:, None])
    noise = so3_exp(np.random.default_rng(0).normal(0, 0.05, (90, 1, 3)))
    w = np.ones((90, 1))
    w[40:48] = 0
    measured = jnp.where(w[..., None, None] > 0, true @ noise, jnp.nan)
    smooth = jax.jit(rts_smooth_rotations)(measured, 30.0, sigma=0.05, acceleration=20.0, weights=w)
    error = np.asarray(geodesic_distance(smooth.value, true))[:, 0]
    seen = w[:, 0] > 0
    assert error[seen].mean() < 0.65 * np.asarray(geodesic_distance(true @ noise, true))[seen, 0].mean()
    assert error[~seen].max() < 0.25
    assert float(smooth.sigma[44, 0]) > 2 * float(smooth.sigma[20, 0])
    expected = so3_log(jnp.swapaxes(true[:-1], -1, -2) @ true[1:])[:, 0] * 30
    assert np.abs(np.asarray(smooth.velocity)[5:35, 0] - expected[5:35]).mean() < 0.8  # of measured frames: 2
    turn = Rotation.random(random_state=1).as_matrix().astype(np.float32)
    turned = rts_smooth_rotations(turn @ measured, 30.0, sigma=0.05, acceleration=20.0, weights=w)
    np.testing.assert_allclose(turned.value, turn @ smooth.value, atol=1e-4)


@pytest.mark.parametrize("case", ["nothing seen", "one frame", "one seen"])
def test_too_little_stays_finite(case):
    T = 1 if case == "one frame" else 6
    w = np.zeros((T, 2))
    if case != "nothing seen":
        w[-1] = 1
    x = np.full((T, 2, 3), np.nan)
    x[-1] = 0.3
    found = rts_smooth(x, 30.0, sigma=0.01, acceleration=1.0, weights=w)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))
    np.testing.assert_allclose(found.value[-1], 0.0 if case == "nothing seen" else 0.3, atol=1e-4)
    R = so3_exp(x)
    turned = rts_smooth_rotations(R, 30.0, sigma=0.01, acceleration=1.0, weights=w)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(turned))


def test_shapes():
    x = np.random.default_rng(3).normal(0, 0.1, (2, 9, 4, 3))
    found = rts_smooth(x, 30.0, sigma=0.01, acceleration=1.0)
    assert found.value.shape == found.velocity.shape == x.shape and found.sigma.shape == (2, 9, 4)
    each = jax.vmap(lambda x: rts_smooth(x, 30.0, sigma=0.01, acceleration=1.0))(x)
    np.testing.assert_allclose(each.value, found.value, atol=1e-6)
    R = so3_exp(x)
    turned = rts_smooth_rotations(R, 30.0, sigma=0.01, acceleration=1.0)
    assert turned.value.shape == R.shape and turned.velocity.shape == x.shape and turned.sigma.shape == (2, 9, 4)
    with pytest.raises(ValueError, match="weights: expected"):
        rts_smooth(x, 30.0, sigma=0.01, acceleration=1.0, weights=np.ones((9, 3)))
    with pytest.raises(ValueError, match="rotations"):
        rts_smooth_rotations(x, 30.0, sigma=0.01, acceleration=1.0)
