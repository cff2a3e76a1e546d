import jax
import jax.numpy as jnp
import numpy as np

from jhand.nn import PoseDiscriminator, lsgan_discriminator_loss, lsgan_generator_loss
from tests.nn.networks import draw, fill


def test_scores():
    rotations, betas = draw(0, 2, 15, 3, 3), draw(1, 2, 10)
    net = PoseDiscriminator(features=4, hidden=8)
    p = fill(net, rotations, betas)
    score = jax.jit(net.apply)
    scores = score(p, rotations, betas)
    assert scores.shape == (2, 17)
    # a joint's own score depends on that joint, all joints' on every one, the shape's on the shape
    moved = (
        score(p, np.asarray(rotations) + 0.5 * (np.arange(15) == 3)[:, None, None].astype(np.float32), betas) - scores
    )
    assert set(np.nonzero(np.abs(moved).max(0))[0]) == {3, 16}
    moved = score(p, rotations, betas + 0.5) - scores
    assert set(np.nonzero(np.abs(moved).max(0))[0]) == {15}

    w = p["params"]
    layer = lambda x, name: np.maximum(x @ w[name]["kernel"] + w[name]["bias"], 0)  # noqa: E731
    joint = layer(layer(np.asarray(rotations[0, 3]).reshape(9), "Dense_0"), "Dense_1")
    np.testing.assert_allclose(scores[0, 3], joint @ w["joints"][3] + w["joints_bias"][3], atol=1e-5)


def test_losses_are_zero_where_they_are_won():
    one, zero = np.ones((2, 17)), np.zeros((2, 17))
    np.testing.assert_array_equal(lsgan_discriminator_loss(one, zero), [0, 0])
    np.testing.assert_array_equal(lsgan_generator_loss(one), [0, 0])
    np.testing.assert_array_equal(lsgan_discriminator_loss(zero, one), [34, 34])
    np.testing.assert_array_equal(lsgan_generator_loss(zero), [17, 17])


def test_both_learn_against_each_other():
    """Scores of what is real rise, and a made-up rotation moves to where its scores rise."""
    real, betas = jnp.broadcast_to(jnp.eye(3), (2, 15, 3, 3)), jnp.zeros((2, 10))
    fake = draw(0, 2, 15, 3, 3)
    net = PoseDiscriminator(features=4, hidden=8)
    p = fill(net, real, betas)

    def discriminator_loss(p, fake):
        return jnp.mean(lsgan_discriminator_loss(net.apply(p, real, betas), net.apply(p, fake, betas)))

    def generator_loss(fake):
        return jnp.mean(lsgan_generator_loss(net.apply(p, fake, betas)))

    @jax.jit
    def before_and_after(p, fake):
        before = discriminator_loss(p, fake), generator_loss(fake)
        better = jax.tree.map(lambda v, g: v - 1e-3 * g, p, jax.grad(discriminator_loss)(p, fake))
        after = discriminator_loss(better, fake), generator_loss(fake - 1e-3 * jax.grad(generator_loss)(fake))
        return before, after

    before, after = before_and_after(p, fake)
    assert after[0] < before[0]
    assert after[1] < before[1]
