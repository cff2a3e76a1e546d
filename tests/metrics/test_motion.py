from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from jhand.metrics import acceleration, acceleration_error, ade, fde, ga_mpjpe, jitter, mpjve, rte, w_mpjpe, wa_mpjpe

T, K, FPS = 23, 4, 30.0
WINDOW = 7  # 23 frames: windows of 7, 7 and 9

PAIRS = {
    "mpjve": lambda x, y, valid=None: mpjve(x, y, FPS, valid),
    "acceleration_error": lambda x, y, valid=None: acceleration_error(x, y, FPS, valid),
    "acceleration": lambda x, y, valid=None: acceleration(x, FPS, valid),
    "jitter": lambda x, y, valid=None: jitter(x, FPS, valid),
    "ga_mpjpe": ga_mpjpe,
    "w_mpjpe": lambda x, y, valid=None: w_mpjpe(x, y, valid, window=WINDOW),
    "wa_mpjpe": lambda x, y, valid=None: wa_mpjpe(x, y, valid, window=WINDOW),
}
PATHS = {"ade": ade, "fde": fde, "rte": rte}
METRICS = {**PAIRS, **{name: lambda x, y, valid=None, f=f: f(x, y, valid) for name, f in PATHS.items()}}


def random_motion(batch, seed=0):
    """Two sequences that drift, the second near the first but turned, scaled and elsewhere."""
    rng = np.random.default_rng(seed)
    target = np.cumsum(rng.normal(size=(*batch, T, 1, 3)) * 0.02, -3) + rng.normal(size=(*batch, 1, K, 3)) * 0.05
    R = Rotation.random(random_state=seed + 1).as_matrix()
    pred = 1.3 * (target + rng.normal(size=target.shape) * 0.01) @ R.T + rng.normal(size=3)
    return pred, target


def random_valid(batch, seed=0):
    valid = np.random.default_rng(seed).random((*batch, T, K)) > 0.2
    valid[..., 0, :] = False  # a window that does not begin with a frame that is valid
    return valid


def similarity(x, y, with_scale=True):
    x0, y0 = x - x.mean(0), y - y.mean(0)
    R = Rotation.align_vectors(y0, x0)[0].as_matrix()
    scale = np.sum(x0 @ R.T * y0) / np.sum(x0**2) if with_scale else 1
    return lambda p: scale * (p - x.mean(0)) @ R.T + y.mean(0)


def derivative_oracle(x, valid, taps):
    values = []
    for t in range(len(x) - len(taps) + 1):
        for k in range(x.shape[1]):
            if valid[t : t + len(taps), k].all():
                value = sum(c * x[t + i, k] for i, c in enumerate(taps)) * FPS ** (len(taps) - 1)
                values.append(np.linalg.norm(value))
    return np.mean(values)


def window_oracle(x, y, valid, window, first):
    """Window by window, with Python's own lists of frames."""
    starts = list(range(0, len(x) - window + 1, window)) or [0]
    distances = []
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        frames = [t for t in range(start, end) if valid[t].any()]
        fitted = frames[:2] if first else frames
        if not frames:
            continue
        pick = [(t, k) for t in fitted for k in range(K) if valid[t, k]]
        move = similarity(np.array([x[p] for p in pick]), np.array([y[p] for p in pick]))
        distances += [np.linalg.norm(move(x[t, k]) - y[t, k]) for t in frames for k in range(K) if valid[t, k]]
    return np.mean(distances)


def rte_oracle(x, y, valid):
    x, y = x[valid], y[valid]
    path = sum(np.linalg.norm(b - a) for a, b in pairwise(y))
    return np.linalg.norm(similarity(x, y, with_scale=False)(x) - y, axis=-1).mean() / path


ORACLES = {
    "mpjve": lambda x, y, v: derivative_oracle(x - y, v, (-1, 1)),
    "acceleration_error": lambda x, y, v: derivative_oracle(x - y, v, (1, -2, 1)),
    "acceleration": lambda x, y, v: derivative_oracle(x, v, (1, -2, 1)),
    "jitter": lambda x, y, v: derivative_oracle(x, v, (-1, 3, -3, 1)),
    "ga_mpjpe": lambda x, y, v: window_oracle(x, y, v, T, first=False),
    "w_mpjpe": lambda x, y, v: window_oracle(x, y, v, WINDOW, first=True),
    "wa_mpjpe": lambda x, y, v: window_oracle(x, y, v, WINDOW, first=False),
    "ade": lambda x, y, v: np.mean([np.linalg.norm(a - b) for a, b, c in zip(x, y, v, strict=True) if c]),
    "fde": lambda x, y, v: [np.linalg.norm(a - b) for a, b, c in zip(x, y, v, strict=True) if c][-1],
    "rte": rte_oracle,
}


def sequences(name, batch):
    (x, y), valid = random_motion(batch), random_valid(batch)
    return (x[..., 0, :], y[..., 0, :], valid[..., 0]) if name in PATHS else (x, y, valid)


@pytest.mark.parametrize("name", METRICS)
def test_against_slow_oracles(name):
    metric, oracle = METRICS[name], ORACLES[name]
    for batch in ((), (2, 2)):
        x, y, valid = sequences(name, batch)
        every, some = metric(x, y), metric(np.where(valid[..., None], x, np.nan), y, valid)
        assert every.shape == some.shape == batch
        for i in np.ndindex(*batch):
            assert_allclose(every[i], oracle(x[i], y[i], np.ones_like(valid[i])), rtol=3e-4)
            assert_allclose(some[i], oracle(x[i], y[i], valid[i]), rtol=3e-4)
    assert_allclose(jax.vmap(metric)(x, y, valid), some, rtol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_valid_has_no_error_and_no_gradient(name):
    x, y, valid = sequences(name, ())
    value, gradient = jax.value_and_grad(METRICS[name])(jnp.asarray(x), y, np.zeros_like(valid))
    assert np.isnan(value) and not gradient.any()


@pytest.mark.parametrize("name", METRICS)
def test_gradient_of_a_perfect_motion_is_finite(name):
    _, y, _ = sequences(name, ())
    y = jnp.asarray(y)
    assert np.isfinite(jax.grad(METRICS[name])(y, y)).all()
    still = jnp.zeros_like(y)
    assert np.isfinite(jax.grad(lambda a: jnp.nan_to_num(METRICS[name](a, still)))(still)).all()


def test_known_motions():
    """A parabola and a cubic in time: acceleration 2 and jerk 6, exactly."""
    t = np.arange(10)[:, None, None] / FPS
    along = np.array([0.6, 0.0, 0.8])
    assert_allclose(acceleration(t**2 * along, FPS), 2, rtol=1e-3)
    assert_allclose(jitter(t**3 * along, FPS), 6, rtol=1e-2)
    assert_allclose(acceleration_error(t**2 * along, 5 + t * along, FPS), 2, rtol=1e-3)


def test_rates_may_differ():
    x, _ = random_motion((3,))
    rates = np.array([30.0, 60.0, 1.0])
    each = [acceleration(a, rate) for a, rate in zip(x, rates, strict=True)]
    assert_allclose(acceleration(x, rates), each, rtol=1e-5)
    assert_allclose(jitter(x, rates)[0], jitter(x[0], 30), rtol=1e-5)


def test_windows():
    """A sequence no longer than a window is one; drift counts after the first two frames only."""
    x, y = random_motion(())
    assert_allclose(wa_mpjpe(x, y), ga_mpjpe(x, y), rtol=1e-5)
    assert_allclose(wa_mpjpe(x, y, window=T), ga_mpjpe(x, y), rtol=1e-5)
    assert float(wa_mpjpe(x, y, window=WINDOW)) < float(ga_mpjpe(x, y)) < float(w_mpjpe(x, y))
    one_frame_after = np.concatenate([y, y[-1:]])  # 24 frames in windows of 8
    assert_allclose(wa_mpjpe(one_frame_after, one_frame_after, window=8), 0, atol=1e-6)


def test_path_goes_straight_over_what_is_not_valid():
    t = np.arange(8.0)
    y = np.stack([t, np.where(t == 4, 100.0, np.sin(t)), np.cos(t)], -1)
    x = y + np.where(t == 7, 0.7, 0)[:, None] * [0, 0, 1]
    assert_allclose(rte(x, y, t != 4), rte_oracle(x, y, t != 4), rtol=1e-4)
    assert np.isnan(rte(x, np.zeros_like(y)))


def test_wrong_input_is_refused():
    x, y = random_motion(())
    with pytest.raises(ValueError, match=r"\(..., T, K, C\), got \(23, 4, 3\) and \(22, 4, 3\)"):
        ga_mpjpe(x, y[:-1])
    with pytest.raises(ValueError, match="4 or more frames on axis -3, got 3"):
        jitter(x[:3], FPS)
    with pytest.raises(ValueError, match="window: expected 2 or more frames, got 1"):
        w_mpjpe(x, y, window=1)
    with pytest.raises(ValueError, match=r"valid: expected shape \(..., 23, 4\)"):
        acceleration(x, FPS, np.ones(T, bool))
