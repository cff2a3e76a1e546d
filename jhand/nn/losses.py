"""Losses that are no metrics: what weighs errors by themselves."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def max_mse(pred: ArrayLike, target: ArrayLike) -> Float[Array, "*b"]:
    """maxMSE: squared distances of points, weighted by themselves, so that the worst points count most.

    sum_i e_i^4 / sum_i e_i^2, with e_i the distance of point i; the weights have gradients, too (Fu et al., ICCV 2023).
    Where all errors are alike, it is their square.

    Args:
        pred: (..., K, C).
        target: (..., K, C).

    Returns:
        (...,), the squared unit of the points; 0 where nothing is wrong.
    """
    squared = jnp.sum(jnp.square(jnp.asarray(pred) - jnp.asarray(target)), -1)
    total = jnp.sum(squared, -1)
    return jnp.sum(jnp.square(squared), -1) / jnp.where(total > 0, total, 1)
