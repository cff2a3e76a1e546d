"""L-BFGS: smooth costs of many unknowns whose second derivatives nobody writes down."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

_HALVINGS = 20
_SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Minimum:
    """Where a descent ended."""

    x: Float[Array, "n"]
    cost: Float[Array, ""]
    slope: Float[Array, ""]
    """Length of the gradient there."""


def lbfgs(
    cost: Callable[[Array], Array], start: ArrayLike, *, iterations: int = 50, memory: int = 8, first_step: float = 1.0
) -> Minimum:
    """Minimise by limited-memory BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5, with the initial matrix of
    equation 7.20) and a line search that halves the step until the cost decreases enough.

    The number of iterations is fixed, so that it can be jitted, vmapped and scanned; once no step helps, none is taken.
    A pair of steps and slopes that tells of no positive curvature is not remembered.

    Args:
        cost: of unknowns (N,), differentiable, one number.
        start: (N,).
        iterations: how many.
        memory: pairs that are remembered.
        first_step: length of the first step that is tried, in the unit of the unknowns: they should have one.

    Returns:
        The last point, which is the best.

    Raises:
        ValueError: unknowns of another shape than (N,).
    """
    x = jnp.asarray(start, float)
    if x.ndim != 1:
        raise ValueError(f"start: expected unknowns (N,), got {x.shape}; flatten them, and use jax.vmap for several")
    cost = jax.jit(cost)  # it stands in four places, and is traced once
    value, slope = jax.value_and_grad(cost)(x)
    none = jnp.zeros((memory, x.shape[0]))

    def direction(slope: Array, steps: Array, changes: Array, weights: Array) -> Array:
        """Minus the approximate inverse Hessian times the slope; the last pair is the newest, weight 0 means none."""

        def back(q: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            s, y, weight = pair
            a = weight * jnp.dot(s, q)
            return q - a * y, a

        def forth(r: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
            s, y, weight, a = pair
            return r + s * (a - weight * jnp.dot(y, r)), None

        q, a = lax.scan(back, slope, (steps, changes, weights), reverse=True)
        known = weights[-1] > 0
        curvature = 1 / jnp.where(known, weights[-1] * jnp.dot(changes[-1], changes[-1]), 1)
        scale = jnp.where(known, curvature, first_step / jnp.maximum(jnp.linalg.norm(slope), 1e-30))
        r, _ = lax.scan(forth, scale * q, (steps, changes, weights, a))
        return -r

    def iterate(state: tuple, _: None) -> tuple[tuple, None]:
        x, value, slope, steps, changes, weights = state
        step = direction(slope, steps, changes, weights)
        promised = jnp.dot(step, slope)
        downhill = promised < 0
        step = jnp.where(downhill, step, -slope)
        promised = jnp.where(downhill, promised, -jnp.dot(slope, slope))

        def too_long(tried: tuple) -> Array:
            length, found, number = tried
            decreased = found <= value + _SUFFICIENT * length * promised
            return ~decreased & (number < _HALVINGS)

        def halve(tried: tuple) -> tuple:
            length, _, number = tried
            return length / 2, cost(x + length / 2 * step), number + 1

        length, found, _number = lax.while_loop(too_long, halve, (jnp.ones(()), cost(x + step), 0))
        moved = found < value
        to = jnp.where(moved, x + length * step, x)
        found, there = jax.value_and_grad(cost)(to)
        s, y = to - x, there - slope
        curved = jnp.dot(s, y)
        tells = curved > 1e-10 * jnp.dot(y, y)
        remembered = [
            jnp.where(tells, jnp.concatenate([old[1:], new[None]]), old)
            for old, new in ((steps, s), (changes, y), (weights, 1 / jnp.where(tells, curved, 1)))
        ]
        # where nothing helped, what is remembered is of no use: the next step goes down the slope
        weights = jnp.where(moved, remembered[2], 0)
        return (to, found, there, remembered[0], remembered[1], weights), None

    begin = (x, value, slope, none, none, jnp.zeros(memory))
    (x, value, slope, *_), _ = lax.scan(iterate, begin, None, length=iterations)
    return Minimum(x, value, jnp.linalg.norm(slope))
