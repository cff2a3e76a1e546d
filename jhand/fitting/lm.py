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
_DAMPING_DOWN, _DAMPING_UP = 0.2, 4.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """Where the iterations ended."""

    x: PyTree
    cost: Float[Array, "*b"]
    """Sum of squared residuals at `x`."""
    iterations: Int[Array, "*b"]
    converged: Bool[Array, "*b"]
    """The last step changed the cost by less than the tolerance, or no step lowers it any more."""


def zeros_of(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """Zeros like what `function` returns, without computing it."""
    structure = []

    def leaves(*arguments: PyTree) -> list[Array]:
        flat, tree = jax.tree.flatten(function(*arguments))
        structure.append(tree)
        return flat

    shapes = jax.eval_shape(leaves, *arguments)
    return jax.tree.unflatten(structure[0], [jnp.zeros(a.shape, a.dtype) for a in shapes])


def damped_iterations(
    linearise: Callable[[Any], Any],
    propose: Callable[[Any, Any, Array, Array], Any],
    cost: Callable[[Any, Any, Array], Array],
    x0: PyTree,
    *,
    iterations: ArrayLike,
    tolerance: ArrayLike = 1e-5,
    warm_up: ArrayLike = 0,
) -> tuple[Solution, Any]:
    """Accept a proposed step where it lowers the cost, with less damping next; reject it otherwise, with more.

    Args:
        linearise: `x -> equations` at x.
        propose: `(x, equations, iteration, damping) -> candidate`.
        cost: `(x, equations, iteration) -> cost`; a cost that changes with the iteration (annealing) is compared at
            equal iterations.
        x0: start.
        iterations: the most to take; traced, so that another number does not recompile.
        tolerance: relative change of the cost under which a step counts as the last.
        warm_up: iterations during which the cost still changes and convergence is not declared.

    Returns:
        The solution, and the equations there; under `vmap` each problem keeps its own damping and stops by itself.
    """
    blank = zeros_of(linearise, x0)

    def running(carry: tuple) -> Array:
        _, _, _, _, _, i, done = carry
        return (i < iterations) & ~done

    def step(carry: tuple) -> tuple:
        x, equations, _, damping, up, i, _ = carry
        # The first pass linearises the start: one copy of `linearise` to compile, not two.
        first = i < 0
        candidate = propose(x, equations, i, damping)
        candidate = jax.tree.map(lambda a, b: jnp.where(first, a, b), x, candidate)
        there_equations = linearise(candidate)
        here = jnp.where(first, jnp.inf, cost(x, equations, i))
        there = cost(candidate, there_equations, i)
        accept = first | (there < here)  # False for NaN: a broken step is a rejected step
        x, equations = jax.tree.map(lambda a, b: jnp.where(accept, b, a), (x, equations), (candidate, there_equations))
        # a step that changes nothing is the last, also where rounding made it a rejected one
        small = jnp.abs(here - there) <= tolerance * here
        stuck = ~accept & (damping >= _DAMPING_MAX)
        # each rejection in a row raises the damping more than the one before (Nielsen 1999)
        changed = jnp.clip(damping * jnp.where(accept, _DAMPING_DOWN, up), _DAMPING_MIN, _DAMPING_MAX)
        damping = jnp.where(first, damping, changed)
        up = jnp.where(accept, _DAMPING_UP, 2 * up)
        done = (small | stuck) & ~first & (i >= warm_up)
        return x, equations, jnp.where(accept, there, here), damping, up, i + 1, done

    start = (
        x0,
        blank,
        jnp.zeros(()),
        jnp.asarray(_DAMPING_START),
        jnp.asarray(_DAMPING_UP),
        jnp.full((), -1, jnp.int32),
        jnp.zeros((), bool),
    )
    x, equations, final, _, _, i, done = lax.while_loop(running, step, start)
    return Solution(x, final, i, done), equations


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

    def linearise(x: PyTree) -> tuple[Array, Array, Array]:
        r = residuals(x)
        J = jax.jacfwd(lambda d: residuals(retract(x, d)))(zero)
        return jnp.matmul(J.T, J, precision=HIGHEST), jnp.matmul(J.T, r, precision=HIGHEST), jnp.sum(r * r)

    def propose(x: PyTree, equations: tuple, _: Array, damping: Array) -> PyTree:
        H, g, _ = equations
        # the floor keeps directions that no residual sees solvable
        diagonal = jnp.diag(H)
        H = H + jnp.diag(damping * diagonal + 1e-9 * jnp.max(diagonal))
        return retract(x, -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(H), g))

    def cost(_x: PyTree, equations: tuple, _i: Array) -> Array:
        return equations[2]

    return damped_iterations(linearise, propose, cost, x0, iterations=iterations, tolerance=tolerance)[0]
