"""The motion prior: shapes, slopes, that it learns, and that its decoder is a function of time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jhand.geometry import geodesic_distance, so3_exp
from jhand.motion import PriorConfig, decode_motion, encode_motion, init_motion_prior, motion_prior_loss

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
CONFIG = PriorConfig(frames=16, local=8, whole=4, hidden=32, layers=3, bands=7, channels=16)


def clips(key, number):
    """Fingers that open and close at some pace, a wrist that turns."""
    keys = jax.random.split(key, 3)
    phase = 2 * jnp.pi * jax.random.uniform(keys[0], (number, 1))
    pace = jax.random.uniform(keys[1], (number, 1), minval=2.0, maxval=5.0)
    bend = 0.7 * (1 + jnp.sin(phase + pace * jnp.linspace(-1, 1, 16)))
    fingers = bend[..., None, None] * jnp.ones((15, 1)) * jnp.array([0.0, 0, 1])
    wrist = jax.random.normal(keys[2], (number, 1, 1, 3)) * jnp.linspace(0, 1, 16)[:, None, None]
    return so3_exp(jnp.concatenate([wrist, fingers], 2))


def test_shapes_and_rotations():
    params = init_motion_prior(jax.random.key(0), CONFIG)
    found = encode_motion(params, clips(jax.random.key(1), 6).reshape(2, 3, 16, 16, 3, 3), CONFIG)
    assert found.local.shape == found.local_log_variance.shape == (2, 3, 8)
    assert found.whole.shape == (2, 3, 4)
    R = decode_motion(params, found.local, found.whole, jnp.linspace(-1, 1, 5), CONFIG)
    assert R.shape == (2, 3, 5, 16, 3, 3)
    np.testing.assert_allclose(jnp.einsum("...ij,...kj->...ik", R, R), np.broadcast_to(np.eye(3), R.shape), atol=1e-5)
    # any instant, and one clip as among others
    one = decode_motion(params, found.local[1, 2], found.whole[1, 2], jnp.array([0.5]), CONFIG)
    np.testing.assert_allclose(one[0], R[1, 2, 3], atol=1e-5)
    with pytest.raises(ValueError, match="16, 16, 3, 3"):
        encode_motion(params, jnp.zeros((2, 20, 16, 3, 3)), CONFIG)
    with pytest.raises(ValueError, match="eights"):
        PriorConfig(frames=100)


def test_sizes_of_presets():
    for config in (PriorConfig.tiny(), PriorConfig.small(), PriorConfig.paper()):
        params = jax.eval_shape(lambda c=config: init_motion_prior(jax.random.key(0), c))
        clip = jax.ShapeDtypeStruct((1, config.frames, 16, 3, 3), jnp.float32)

        def again(params, clip, c=config):
            found = encode_motion(params, clip, c)
            return decode_motion(params, found.local, found.whole, jnp.linspace(-1, 1, c.frames), c)

        assert jax.eval_shape(again, params, clip).shape == clip.shape
    assert (config.frames, config.local, config.whole, config.hidden, config.bands) == (128, 1024, 256, 1024, 7)


def test_slopes_are_those_of_finite_differences(right):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        exact = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)  # noqa: E731
        flat, fields = ravel_pytree(exact(init_motion_prior(jax.random.key(0), CONFIG)))
        R, key = exact(clips(jax.random.key(1), 2)), jax.random.key(2)
        loss = jax.jit(lambda x: motion_prior_loss(fields(x), R, right, key, CONFIG)[0])
        slopes = jax.grad(loss)(flat)
        for _ in range(3):
            step = rng.normal(size=flat.shape) / np.sqrt(flat.size)
            measured = (loss(flat + 1e-5 * step) - loss(flat - 1e-5 * step)) / 2e-5
            np.testing.assert_allclose(jnp.vdot(slopes, step), measured, rtol=1e-4, atol=1e-7)


def test_it_learns_and_fills_what_was_not_seen(right):
    params = init_motion_prior(jax.random.key(0), CONFIG)
    R, optimiser = clips(jax.random.key(1), 32), optax.adam(4e-3)

    @jax.jit
    def step(state, key):
        grads, terms = jax.grad(lambda p: motion_prior_loss(p, R, right, key, CONFIG), has_aux=True)(state[0])
        change, moments = optimiser.update(grads, state[1])
        return (optax.apply_updates(state[0], change), moments), terms

    (params, _), terms = jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(jax.random.key(2), 200))
    assert terms["rotation"][-1] < 0.4 * terms["rotation"][0]
    assert terms["points"][-1] < 0.4 * terms["points"][0]
    # new clips of which the middle is missing: the latent that agrees with the rest
    new = clips(jax.random.key(3), 8)
    seen = jnp.ones(16).at[5:12].set(0)

    def away(z):
        decoded = decode_motion(params, z, jnp.zeros((8, 4)), jnp.linspace(-1, 1, 16), CONFIG)
        return geodesic_distance(decoded, new)[..., 1:].mean((0, 2))

    search = optax.adam(0.1)

    def look(state, _):
        change, moments = search.update(jax.grad(lambda z: jnp.sum(seen * away(z)))(state[0]), state[1])
        return (optax.apply_updates(state[0], change), moments), None

    z = jnp.zeros((8, 8))
    (z, _), _ = jax.lax.scan(look, (z, search.init(z)), length=100)
    nothing = geodesic_distance(new[:, 4:5], new)[..., 1:].mean((0, 2))
    assert away(z)[5:12].mean() < 0.6 * nothing[5:12].mean()
