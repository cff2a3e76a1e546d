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


def fill(module, *inputs):
    """Variables of a network, small random numbers in numpy: nothing is compiled for them, no part starts at zero."""
    rng = np.random.default_rng(0)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    return jax.tree.map(lambda v: rng.normal(0, 0.2, v.shape).astype(v.dtype), variables)


def run(module, variables, *inputs, **options):
    """Outputs of a network, compiled as a whole: one by one, its operations would take longer to compile."""
    return jax.jit(lambda *given: module.apply(*given, **options))(variables, *inputs)


def count(variables):
    return sum(int(np.prod(v.shape)) for v in jax.tree.leaves(variables["params"]))
