"""Ranger beside its three papers written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jhand.train import centralise, lookahead, ranger

SHAPES = {"kernel": (3, 1, 4, 5), "matrix": (4, 5), "bias": (5,)}
RATE, B1, B2, EPS, PERIOD, PULL = 0.03, 0.95, 0.98, 1e-5, 6, 0.5


def gradients(number):
    rng = np.random.default_rng(0)
    return [
        {name: rng.normal(0.3, 1, shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(number)
    ]


def by_hand(params, steps):
    """Of each array alone."""
    slow, fast = (x.astype(float) for x in (params, params))
    mean, squares = np.zeros_like(slow), np.zeros_like(slow)
    longest = 2 / (1 - B2) - 1
    for t, g in enumerate(steps, 1):
        g = g.astype(float)
        if g.ndim > 1:
            for output in range(g.shape[-1]):
                g[..., output] -= g[..., output].mean()
        mean, squares = B1 * mean + (1 - B1) * g, B2 * squares + (1 - B2) * g * g
        length = longest - 2 * t * B2**t / (1 - B2**t)
        step = mean / (1 - B1**t)
        if length >= 5:
            r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step = np.sqrt(r) * step / (np.sqrt(squares / (1 - B2**t)) + EPS)
        fast = fast - RATE * step
        if t % PERIOD == 0:
            slow = slow + PULL * (fast - slow)
            fast = slow
    return fast


@pytest.mark.parametrize("number", [5, 6, 20])
def test_steps_are_those_of_the_papers(number):
    steps = gradients(number)
    optimiser = ranger(RATE, b2=B2)
    first = {name: np.full(shape, 0.1, np.float32) for name, shape in SHAPES.items()}
    params, state = jax.tree.map(jnp.asarray, first), None
    state = optimiser.init(params)
    update = jax.jit(optimiser.update)
    for gradient in steps:
        change, state = update(gradient, state, params)
        params = optax.apply_updates(params, change)
    for name in SHAPES:
        expected = by_hand(first[name], [g[name] for g in steps])
        np.testing.assert_allclose(params[name], expected, rtol=2e-4, atol=2e-6)
    assert int(state.count) == number


def test_centred_gradients_have_no_mean_for_any_output():
    (gradient,) = gradients(1)
    centred, _ = centralise().update(gradient, optax.EmptyState())
    for name in ("kernel", "matrix"):
        np.testing.assert_allclose(np.mean(centred[name], tuple(range(centred[name].ndim - 1))), 0, atol=1e-6)
        assert np.abs(centred[name] - gradient[name]).max() > 0.05
    np.testing.assert_array_equal(centred["bias"], gradient["bias"])


def test_slow_weights_follow():
    """Plain steps of -1: after three of them the slow weight goes half of the way, and the fast one is where it is."""
    optimiser = lookahead(optax.sgd(1.0), period=3, pull=0.5)
    x = jnp.zeros(())
    state, path = optimiser.init(x), []
    for _ in range(6):
        change, state = optimiser.update(jnp.ones(()), state, x)
        x = x + change
        path.append(float(x))
    assert path == [-1, -2, -1.5, -2.5, -3.5, -3]
    with pytest.raises(ValueError, match="1 or more steps"):
        lookahead(optax.sgd(1.0), period=0)
