import jax
import jax.numpy as jnp
import numpy as np


def draw(seed, *shape):
    """Random numbers, float32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(module, *inputs, **options):
    """Shapes of a network's variables and outputs, without computing either."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return jax.eval_shape(lambda: module.init_with_output(keys, *inputs, **options))


def fill(module, *inputs, seed=0, method=None):
    """Variables of a network, small random numbers: nothing is compiled to make them, and no part starts at zero."""
    rng = np.random.default_rng(seed)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, method=method))
    return jax.tree.map(lambda v: jnp.asarray(rng.normal(0, 0.2, v.shape), v.dtype), variables)


def count(variables):
    return sum(int(np.prod(v.shape)) for v in jax.tree.leaves(variables["params"]))
