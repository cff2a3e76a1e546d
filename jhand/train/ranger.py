"""Ranger: rectified Adam, whose steps a second set of weights follows, on gradients without their means.

Optax has rectified Adam. Its `lookahead` keeps the slow weights in the parameters, which every loss would have to know
of; and its `centralize` takes means over all axes but the first, where PyTorch has a layer's outputs. Flax has them
last.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, PyTree


def ranger(
    rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.999,
    eps: float = 1e-5,
    period: int = 6,
    pull: float = 0.5,
) -> optax.GradientTransformation:
    """RAdam (Liu et al., ICLR 2020) and Lookahead (Zhang et al., NeurIPS 2019) on centralised gradients (Yong et al.,
    ECCV 2020), with the constants of Wright's Ranger (2019).

    Args:
        rate: learning rate, or a schedule of it.
        b1: decay of the mean of gradients.
        b2: decay of the mean of their squares.
        eps: added to the root of the latter.
        period: steps between two of the slow weights.
        pull: how far these go towards the fast ones.
    """
    return lookahead(optax.chain(centralise(), optax.radam(rate, b1, b2, eps)), period, pull)


def centralise() -> optax.GradientTransformation:
    """Gradients of matrices and kernels (..., in, out) without their means for each output (Yong et al., ECCV 2020).

    Biases and other vectors stay as they are.
    """

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        def one(g: ArrayLike) -> ArrayLike:
            return g if jnp.ndim(g) < 2 else g - jnp.mean(g, tuple(range(jnp.ndim(g) - 1)), keepdims=True)

        return jax.tree.map(one, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class LookaheadState(NamedTuple):
    """Slow weights, and what the optimiser itself keeps."""

    slow: PyTree
    inner: PyTree
    count: jax.Array
    """() int32: steps taken."""


def lookahead(inner: optax.GradientTransformation, period: int = 6, pull: float = 0.5) -> optax.GradientTransformation:
    """After every so many steps of an optimiser, slow weights go a part of the way to where it is, and it begins again
    from there (Zhang et al., NeurIPS 2019, algorithm 1).

    Args:
        inner: the optimiser that takes the steps.
        period: steps between two of the slow weights.
        pull: how far these go, 0 to 1.

    Raises:
        ValueError: a period below 1.
    """
    if period < 1:
        raise ValueError(f"period: expected 1 or more steps, got {period}")

    def init(params: PyTree) -> LookaheadState:
        # a copy: a state whose arrays are there twice cannot be donated
        return LookaheadState(jax.tree.map(jnp.copy, params), inner.init(params), jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        change, kept = inner.update(updates, state.inner, params)
        due = (state.count + 1) % period == 0

        def followed(slow: jax.Array, p: jax.Array, d: jax.Array) -> jax.Array:
            return jnp.where(due, slow + pull * (p + d - slow), slow)

        slow = jax.tree.map(followed, state.slow, params, change)
        change = jax.tree.map(lambda s, p, d: jnp.where(due, s - p, d), slow, params, change)
        return change, LookaheadState(slow, kept, state.count + 1)

    return optax.GradientTransformation(init, update)
