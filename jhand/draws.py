"""Random numbers of several shapes at once: each use of a generator costs a compiler as much as a page of code."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def uniforms(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Evenly spread numbers from 0 to 1.

    Args:
        key: random key.
        shapes: of the arrays that are wanted.

    Returns:
        An array for each shape.
    """
    return _cut(jax.random.uniform(key, (sum(map(math.prod, shapes)),)), shapes)


def normals(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Normal numbers, mean 0 and standard deviation 1; arguments as those of `uniforms`."""
    return _cut(jax.random.normal(key, (sum(map(math.prod, shapes)),)), shapes)


def between(share: ArrayLike, low: ArrayLike, high: ArrayLike) -> Array:
    """The number that lies a share of the way from low to high: what makes `uniforms` as wide as is wanted."""
    a = jnp.asarray(low)
    return a + share * (jnp.asarray(high) - a)


def whole(share: ArrayLike, low: int, high: int) -> Array:
    """The whole number from low to one below high that lies a share of the way: of `uniforms`, each as often."""
    number = high - low
    return low + jnp.minimum((jnp.asarray(share) * number).astype(jnp.int32), number - 1)


def _cut(flat: Array, shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
    found, at = [], 0
    for shape in shapes:
        stop = at + math.prod(shape)
        found.append(jnp.reshape(flat[at:stop], shape))
        at = stop
    return found
