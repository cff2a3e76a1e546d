import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jhand.fitting import lbfgs


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_a_quadratic_is_solved_as_by_linear_algebra():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(30, 30)) * np.geomspace(0.3, 3, 30)
    H, b = A @ A.T + np.eye(30), rng.normal(size=30)
    found = jax.jit(lambda x: lbfgs(lambda x: x @ H @ x / 2 - b @ x, x, iterations=120))(jnp.zeros(30))
    np.testing.assert_allclose(found.x, np.linalg.solve(H, b), atol=2e-3)
    assert found.slope < 0.05  # of 32 bits


def test_a_valley_beside_scipy():
    start = np.tile([-1.2, 1.0], 5)
    found = lbfgs(rosenbrock, start, iterations=150)
    peer = optimize.minimize(lambda x: np.asarray(rosenbrock(x), float), start, method="L-BFGS-B")
    assert found.cost < max(1e-4, 2 * peer.fun)


def test_it_never_goes_up_and_stops_at_the_least():
    costs = [float(lbfgs(rosenbrock, jnp.zeros(4), iterations=n).cost) for n in (0, 1, 2, 5, 10, 40)]
    assert all(a >= b for a, b in itertools.pairwise(costs)) and costs[-1] < 0.01
    there = lbfgs(rosenbrock, jnp.ones(4), iterations=5)
    np.testing.assert_array_equal(there.x, np.ones(4))


def test_several_at_once_in_one_program():
    @chex.assert_max_traces(n=1)
    def one(start, centre):
        return lbfgs(lambda x: jnp.sum(jnp.square(x - centre) ** 2), start, iterations=40).x

    solve = jax.jit(jax.vmap(one))
    centres = jnp.arange(12.0).reshape(4, 3)
    for start in (jnp.zeros((4, 3)), jnp.ones((4, 3))):
        np.testing.assert_allclose(solve(start, centres), centres, atol=0.05)


def test_unknowns_are_flat():
    with pytest.raises(ValueError, match="flatten"):
        lbfgs(rosenbrock, jnp.zeros((2, 2)))
