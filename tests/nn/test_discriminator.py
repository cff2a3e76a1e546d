import jax
import jax.numpy as jnp
import numpy as np

from jhand.nn import PoseDiscriminator, lsgan_discriminator_loss, lsgan_generator_loss
from tests.nn.networks import draw, fill


def test_scores():
    rotations, betas = draw(0, 2, 15, 3, 3), draw(1, 2, 10)
    net = PoseDiscriminator(features=4, hidden=8)
    p = fill(net, rotations, betas)
    scores = net.apply(p, rotations, betas)
    assert scores.shape == (2, 17)
    # a joint's own score depends on that joint, all joints' on every one, the shape's on the shape
    moved = net.apply(p, rotations.at[:, 3].add(0.5), betas) - scores
    assert set(np.nonzero(np.abs(moved).max(0))[0]) == {3, 16}
    moved = net.apply(p, rotations, betas + 0.5) - scores
    assert set(np.nonzero(np.abs(moved).max(0))[0]) == {15}

    w = p["params"]
    layer = lambda x, name: np.maximum(x @ w[name]["kernel"] + w[name]["bias"], 0)  # noqa: E731
    joint = layer(layer(rotations[0, 3].reshape(9), "Dense_0"), "Dense_1")
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

    @jax.jit
    def losses(p, fake):
        scores = net.apply(p, fake, betas)
        return jnp.mean(lsgan_discriminator_loss(net.apply(p, real, betas), scores)), jnp.mean(
            lsgan_generator_loss(scores)
        )

    of_p, of_fake = jax.jit(jax.grad(lambda p, f: losses(p, f)[0])), jax.jit(jax.grad(lambda p, f: losses(p, f)[1], 1))
    better = jax.tree.map(lambda v, g: v - 1e-3 * g, p, of_p(p, fake))
    assert losses(better, fake)[0] < losses(p, fake)[0]
    assert losses(p, fake - 1e-3 * of_fake(p, fake))[1] < losses(p, fake)[1]
