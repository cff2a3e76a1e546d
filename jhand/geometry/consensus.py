"""Random sample consensus in fixed shapes: every hypothesis is made and scored at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

_REFITS = 3


def ransac(
    key: Array,
    fit: Callable[[Any, Array], PyTree],
    squared_error: Callable[[PyTree, Any], Array],
    data: PyTree,
    weights: ArrayLike,
    *,
    sample_size: int,
    threshold: ArrayLike,
    hypotheses: int = 256,
) -> tuple[PyTree, Bool[Array, "n"], Float[Array, ""]]:
    """The model that most of the data agree with (Fischler and Bolles 1981), scored as MSAC (Torr and Zisserman 2000).

    The best hypothesis is fitted again to the data it explains, a few times, and what came out cheapest is returned
    (Chum et al. 2003).

    Args:
        key: random key.
        fit: `fit(data, weights)` is a model, of a sample of `sample_size` entries or of all N.
        squared_error: `squared_error(model, data)` is that of each entry (N,); what is not finite counts as outside.
        data: arrays (N, ...).
        weights: (N,) trust in each entry; those of 0 are not drawn.
        sample_size: entries that define a model.
        threshold: error beyond which an entry is an outlier, about three times its noise.
        hypotheses: how many samples are drawn. Of data of which a share e is good, samples of size s miss every good
            one with probability (1 - e^s)^hypotheses.

    Returns:
        The model, which entries it explains (N,), and its cost per entry in units of the threshold squared, 0 to 1.
    """
    w = jnp.asarray(weights)
    limit = jnp.square(jnp.asarray(threshold, float))

    def score(model: PyTree) -> tuple[Array, Array]:
        squared = squared_error(model, data)
        inside = (squared < limit) & (w > 0)
        return jnp.sum(w * jnp.where(inside, squared / limit, 1)) / jnp.maximum(jnp.sum(w), 1e-12), inside

    # the k largest of N random numbers are a sample without replacement; entries of weight 0 come last
    luck = jnp.where(w > 0, jax.random.uniform(key, (hypotheses, w.shape[0])), -1)
    _, samples = lax.top_k(luck, sample_size)

    def hypothesis(sample: Array) -> tuple[PyTree, Array]:
        model = fit(jax.tree.map(lambda a: a[sample], data), w[sample])
        return model, score(model)[0]

    models, costs = jax.vmap(hypothesis)(samples)
    best = jnp.argmin(costs)
    model, cost = jax.tree.map(lambda a: a[best], models), costs[best]

    def refit(_: Any, so_far: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        model, cost = so_far
        again = fit(data, w * score(model)[1])
        cost_again, _ = score(again)
        better = cost_again < cost
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), again, model), jnp.minimum(cost, cost_again)

    model, cost = lax.fori_loop(0, _REFITS, refit, (model, cost))
    return model, score(model)[1], cost
