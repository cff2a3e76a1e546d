import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from jhand.fitting.lm import levenberg_marquardt
from jhand.geometry.rotations import so3_exp


def _rosenbrock(x):
    return jnp.stack([10 * (x["b"] - x["a"] ** 2), 1 - x["a"]])


def test_rosenbrock_of_a_pytree():
    end = levenberg_marquardt(_rosenbrock, {"a": jnp.array(-1.2), "b": jnp.array(1.0)}, iterations=200)
    assert bool(end.converged)
    np.testing.assert_allclose([end.x["a"], end.x["b"]], [1, 1], atol=1e-4)


def test_agrees_with_scipy_on_an_exponential_fit():
    t = np.linspace(0, 3, 40)
    y = 2.5 * np.exp(-1.3 * t) + 0.5 + 0.01 * np.random.default_rng(0).normal(size=t.size)
    expected = least_squares(lambda p: p[0] * np.exp(-p[1] * t) + p[2] - y, [1.0, 1.0, 0.0]).x
    found = levenberg_marquardt(lambda p: p[0] * jnp.exp(-p[1] * t) + p[2] - y, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found.x, expected, atol=2e-4)


def test_batch_by_vmap_stops_each_problem_by_itself():
    starts = jnp.array([[-1.2, 1.0], [1.0, 1.0], [0.5, 2.0]])
    solve = jax.jit(jax.vmap(lambda s: levenberg_marquardt(_rosenbrock, {"a": s[0], "b": s[1]}, iterations=200)))
    end = solve(starts)
    np.testing.assert_allclose(end.x["a"], 1, atol=1e-3)
    assert end.iterations[1] < end.iterations[0]


def test_curved_space():
    """Wahba's problem on SO(3), stepping by left perturbations."""
    key = jax.random.key(0)
    truth = so3_exp(jnp.array([2.0, -1.0, 0.7]))
    points = jax.random.normal(key, (10, 3))
    end = levenberg_marquardt(
        lambda R: points @ R.T - points @ truth.T,
        jnp.eye(3),
        retract=lambda R, d: so3_exp(d) @ R,
        num_tangent=3,
    )
    np.testing.assert_allclose(end.x, truth, atol=1e-4)


def test_retract_needs_its_dimension():
    with pytest.raises(ValueError, match="num_tangent"):
        levenberg_marquardt(lambda x: x, jnp.zeros(2), retract=lambda x, d: x + d)


def test_a_residual_that_turns_nan_is_a_rejected_step():
    end = levenberg_marquardt(lambda x: jnp.log(x) - jnp.log(2.0), jnp.array([0.05]), iterations=60)
    np.testing.assert_allclose(end.x, 2.0, rtol=1e-3)
