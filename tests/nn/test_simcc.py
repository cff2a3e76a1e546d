import jax
import jax.numpy as jnp
import numpy as np
import optax

from jhand.nn import SimCCHead, simcc_loss, simcc_points


def test_shapes_and_which_axis_is_which():
    head = SimCCHead(num_points=5, bins=32)
    variables = head.init(jax.random.key(0), jnp.zeros((2, 4, 6, 8)))
    assert head.apply(variables, jnp.zeros((2, 4, 6, 8))).shape == (2, 5, 2, 32)
    sharp = jnp.full((1, 2, 32), -20.0).at[0, 0, 8].set(20).at[0, 1, 24].set(20)
    points, sure = simcc_points(sharp)
    np.testing.assert_allclose(points[0], [8.5 / 32, 24.5 / 32], atol=1e-5)
    np.testing.assert_allclose(sure, [1.0], atol=1e-5)


def test_confidence_is_low_where_there_are_two_places():
    logits = jnp.full((1, 2, 64), -20.0).at[0, 0, 10].set(5.0).at[0, 0, 50].set(5.0).at[0, 1, 30].set(5.0)
    _, sure = simcc_points(logits)
    np.testing.assert_allclose(sure, [0.5], atol=1e-3)


def test_the_loss_is_least_at_the_gaussian_and_leaves_out_what_does_not_count():
    points = jnp.array([[0.3, 0.6], [0.9, 0.1]])
    off = jnp.arange(48) + 0.5 - points[..., None] * 48
    best = -jnp.square(off / 2) / 2
    value, slope = jax.value_and_grad(simcc_loss)(best, points, jnp.ones(2))
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    assert value < simcc_loss(best + jax.random.normal(jax.random.key(0), best.shape), points, jnp.ones(2))
    found, _ = simcc_points(best)
    np.testing.assert_allclose(found, points, atol=2e-3)
    wild = points.at[1].set(jnp.array([5.0, -2.0]))
    weights = jnp.array([1.0, 0.0])
    np.testing.assert_allclose(simcc_loss(best, wild, jnp.ones(2)), simcc_loss(best, points, weights), rtol=1e-6)


def test_it_learns_where_a_dot_is():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.uniform(0.1, 0.9, (64, 1, 2)), jnp.float32)
    y, x = jnp.meshgrid(jnp.arange(8) + 0.5, jnp.arange(8) + 0.5, indexing="ij")
    maps = jnp.exp(-((x - 8 * points[..., 0, None]) ** 2 + (y - 8 * points[..., 1, None]) ** 2) / 2)[..., None]
    head, optimiser = SimCCHead(1, 32), optax.adam(0.02)
    variables = head.init(jax.random.key(0), maps)

    @jax.jit
    def step(variables, state):
        value, slope = jax.value_and_grad(lambda v: simcc_loss(head.apply(v, maps), points, jnp.ones((64, 1))))(
            variables
        )
        updates, state = optimiser.update(slope, state)
        return optax.apply_updates(variables, updates), state, value

    state = optimiser.init(variables)
    for _ in range(300):
        variables, state, _ = step(variables, state)
    found, sure = simcc_points(head.apply(variables, maps))
    assert np.abs(found - points).mean() < 0.02 and np.mean(sure) > 0.6
