"""Levenberg-Marquardt for least squares on pytrees. Knows no hand.

`levenberg_marquardt` takes any residual function; `damped_iterations` is the accept-or-reject loop underneath, which a
problem with structure (see `jhand.fitting.solver`) runs with its own linear solver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

HIGHEST = lax.Precision.HIGHEST

_DAMPING_START, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-7, 1e7
_DAMPING_DOWN, _DAMPING_UP = 0.2, 5.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """Where the iterations ended."""

    x: PyTree
    cost: Float[Array, "*b"]
    """Sum of squared residuals at `x`."""
    iterations: Int[Array, "*b"]
    converged: Bool[Array, "*b"]
    """The last accepted step lowered the cost by less than the tolerance, or no step lowers it any more."""


def damped_iterations(
    propose: Callable[[Any, Array, Array], tuple[Array, Any]],
    cost: Callable[[Any, Array], Array],
    x0: PyTree,
    *,
    iterations: ArrayLike,
    tolerance: ArrayLike = 1e-5,
    warm_up: ArrayLike = 0,
) -> Solution:
    """Accept a proposed step where it lowers the cost, with less damping next; reject it otherwise, with more.

    Args:
        propose: `(x, iteration, damping) -> (cost at x, candidate)`.
        cost: `(x, iteration) -> cost`; a cost that changes with the iteration (annealing) is compared at equal
            iterations.
        x0: start.
        iterations: the most to take; traced, so that another number does not recompile.
        tolerance: relative decrease of the cost under which a step counts as the last.
        warm_up: iterations during which the cost still changes and convergence is not declared.

    Returns:
        The solution; under `vmap` each problem keeps its own damping and stops by itself.
    """

    def running(carry: tuple) -> Array:
        _, _, _, i, done = carry
        return (i < iterations) & ~done

    def step(carry: tuple) -> tuple:
        x, _, damping, i, _ = carry
        here, candidate = propose(x, i, damping)
        there = cost(candidate, i)
        accept = there < here  # False for NaN: a broken step is a rejected step
        x = jax.tree.map(lambda a, b: jnp.where(accept, b, a), x, candidate)
        small = accept & (here - there <= tolerance * here)
        stuck = ~accept & (damping >= _DAMPING_MAX)
        damping = jnp.clip(damping * jnp.where(accept, _DAMPING_DOWN, _DAMPING_UP), _DAMPING_MIN, _DAMPING_MAX)
        return x, jnp.where(accept, there, here), damping, i + 1, (small | stuck) & (i >= warm_up)

    start = (x0, jnp.zeros(()), jnp.asarray(_DAMPING_START), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, final, _, i, done = lax.while_loop(running, step, start)
    return Solution(x, final, i, done)


def levenberg_marquardt(
    residual_fn: Callable[[Any], Array],
    x0: PyTree,
    *,
    iterations: ArrayLike = 50,
    tolerance: ArrayLike = 1e-8,
    retract: Callable[[Any, Array], Any] | None = None,
    num_tangent: int | None = None,
) -> Solution:
    """Minimise the sum of squares of `residual_fn` (Marquardt 1963), with a dense forward-mode Jacobian.

    Args:
        residual_fn: pytree -> residuals of any shape.
        x0: start, any pytree of floating-point arrays. For a batch, vmap this function.
        iterations: the most to take; traced.
        tolerance: relative decrease of the cost under which it stops.
        retract: `(x, step (D,)) -> x` for a curved space; by default the step is added to the flattened pytree.
        num_tangent: D, required with `retract`.

    Returns:
        The solution.

    Raises:
        ValueError: `retract` without `num_tangent`.
    """
    flat0, unravel = ravel_pytree(x0)
    if retract is None:
        retract, num_tangent = lambda x, d: unravel(ravel_pytree(x)[0] + d), flat0.size
    if num_tangent is None:
        raise ValueError("retract needs num_tangent, the length of its step")
    zero = jnp.zeros(num_tangent, flat0.dtype)

    def residuals(x: PyTree) -> Array:
        return jnp.ravel(residual_fn(x))

    def cost(x: PyTree, _: Array) -> Array:
        return jnp.sum(jnp.square(residuals(x)))

    def propose(x: PyTree, _: Array, damping: Array) -> tuple[Array, PyTree]:
        r = residuals(x)
        J = jax.jacfwd(lambda d: residuals(retract(x, d)))(zero)
        H = jnp.matmul(J.T, J, precision=HIGHEST)
        g = jnp.matmul(J.T, r, precision=HIGHEST)
        # the floor keeps directions that no residual sees solvable
        diagonal = jnp.diag(H)
        H = H + jnp.diag(damping * diagonal + 1e-9 * jnp.max(diagonal))
        step = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(H), g)
        return jnp.sum(r * r), retract(x, step)

    return damped_iterations(propose, cost, x0, iterations=iterations, tolerance=tolerance)
