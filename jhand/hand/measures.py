"""Length and breadth of hands, as surveys of people measure them, and shapes that have them.

Both as ANSUR II defines them (Gordon et al. 2014, hand length and hand breadth): of a flat hand, from the crease of the
wrist to the tip of the middle finger along the hand, and across the heads of the metacarpals, thumb aside.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.model import HandModel

HIGHEST = lax.Precision.HIGHEST
_CREASE = 0.010  # metres from the wrist joint towards the fingers; inferred, docs/hand.md
_BESIDE = 0.006  # metres along the hand about a knuckle within which its skin is looked for
_ITERATIONS = 10

_INDEX, _MIDDLE, _LITTLE = 1, 4, 7
_THUMB = (13, 14, 15)
_MIDDLE_TIP = 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measures:
    """Of flat hands, metres."""

    length: Float[Array, "*b"]
    """From the wrist crease to the tip of the middle finger."""
    breadth: Float[Array, "*b"]
    """Across the knuckles of index and little finger, thumb aside."""


@jax.jit
def hand_measures(hand: HandModel, betas: ArrayLike) -> Measures:
    """Length and breadth of hands of given shapes, their pose and place aside.

    Args:
        hand: the model.
        betas: (..., B).

    Returns:
        (...,) each.
    """
    b = jnp.asarray(betas)
    # which vertices are measured between is settled on the template: a hand does not change landmarks as it grows
    v, J = hand.v_template, hand.joint_basis[0]
    along = v[hand.tips[_MIDDLE_TIP]] - J[0]
    along = along / jnp.linalg.norm(along)
    farthest = jnp.argmax(jnp.matmul(v, along, precision=HIGHEST))
    index, little = _beside(hand, _INDEX, along), _beside(hand, _LITTLE, along)
    coefficients = jnp.concatenate([jnp.ones((*b.shape[:-1], 1)), b], -1)
    points = hand.basis[: 1 + hand.num_betas][..., jnp.stack([farthest, index, little])]
    tip, index, little = jnp.moveaxis(jnp.einsum("...f,fck->...kc", coefficients, points, precision=HIGHEST), -2, 0)
    wrist = jnp.einsum("...f,fc->...c", coefficients, hand.joint_basis[:, 0], precision=HIGHEST)
    length = jnp.einsum("...c,c->...", tip - wrist, along, precision=HIGHEST) - _CREASE
    return Measures(length, jnp.linalg.norm(index - little, axis=-1))


@jax.jit
def shape_from_measures(
    hand: HandModel, length: ArrayLike | None = None, breadth: ArrayLike | None = None
) -> Float[Array, "*b n"]:
    """The most likely shape with given measures: the shortest `betas`, which are standard deviations.

    Args:
        hand: the model.
        length: (...) metres, as `Measures`; None leaves it to the shapes of people.
        breadth: (...) metres, the same.

    Returns:
        betas (..., B). Beyond 3 the measures are not those of a hand, or the model has none like it.

    Raises:
        ValueError: neither measure is given.
    """
    goals = [jnp.asarray(g, float) for g in (length, breadth) if g is not None]
    if not goals:
        raise ValueError("expected a length, a breadth or both, in metres")
    goal = jnp.stack(jnp.broadcast_arrays(*goals), -1)

    def measured(betas: Array) -> Array:
        m = hand_measures(hand, betas)
        return jnp.stack([value for value, given in ((m.length, length), (m.breadth, breadth)) if given is not None])

    def one(goal: Array) -> Array:
        def step(_: Any, betas: Array) -> Array:
            J = jax.jacfwd(measured)(betas)
            # the shortest betas whose measures, to first order, are the goal
            JJ = jnp.matmul(J, J.T, precision=HIGHEST) + 1e-12 * jnp.eye(J.shape[0])
            miss = goal - measured(betas) + jnp.matmul(J, betas, precision=HIGHEST)
            return jnp.matmul(J.T, jnp.linalg.solve(JJ, miss), precision=HIGHEST)

        return lax.fori_loop(0, _ITERATIONS, step, jnp.zeros(hand.num_betas))

    return jax.vmap(one)(goal.reshape(-1, goal.shape[-1])).reshape(*goal.shape[:-1], hand.num_betas)


def _beside(hand: HandModel, knuckle: int, along: Array) -> Array:
    """The vertex outermost beside the knuckle of the index or the little finger, away from the other."""
    v, J = hand.v_template, hand.joint_basis[0]
    outwards = J[knuckle] - J[_INDEX + _LITTLE - knuckle]
    offset = v - J[knuckle]
    is_thumb = jnp.sum(hand.weights[:, jnp.array(_THUMB)], 1) > 0.05
    near = (jnp.abs(jnp.matmul(offset, along, precision=HIGHEST)) < _BESIDE) & ~is_thumb
    return jnp.argmax(jnp.where(near, jnp.matmul(offset, outwards, precision=HIGHEST), -jnp.inf))
