import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import ViT
from tests.nn.networks import count, draw, fill, run, shapes


@pytest.mark.parametrize(
    ("vit", "size", "grid", "millions"),
    [
        (ViT.tiny(), (64, 64), (8, 8, 96), (0.4, 0.6)),
        (ViT.small(), (256, 192), (16, 12, 384), (21, 22)),
        (ViT.paper(), (256, 192), (16, 12, 1280), (630, 632)),
    ],
    ids=["tiny", "small", "paper"],
)
def test_sizes(vit, size, grid, millions):
    y, variables = shapes(vit, jnp.zeros((2, *size, 3)))
    assert y.shape == (2, *grid)
    assert millions[0] < count(variables) / 1e6 < millions[1]


def test_a_step_of_training_on_pictures_that_are_not_square():
    vit = ViT(16, 2, 2, patch=4, image_size=(16, 12), drop_path=0.1, dtype=jnp.bfloat16)
    images = draw(0, 2, 16, 12, 3)
    p = fill(vit, images)

    @jax.jit
    def step(p):
        def loss(p):
            y = vit.apply(p, images, deterministic=False, rngs={"dropout": jax.random.key(0)})
            assert y.shape == (2, 4, 3, 16)
            return jnp.mean(jnp.square(y.astype(jnp.float32) - 1))

        return jax.value_and_grad(loss)(p)

    value, gradient = step(p)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_other_sizes_interpolate_positions():
    """Positions that are equal stay so, and a constant picture has one feature then."""
    vit = ViT(4, 1, 1, patch=4, image_size=(16, 12))
    images = jnp.zeros((1, 16, 12, 3))
    p = fill(vit, images)
    y = jax.eval_shape(lambda: vit.apply(p, jnp.zeros((1, 32, 24, 3))))
    assert y.shape == (1, 8, 6, 4)
    p["params"]["places"] = np.ones_like(p["params"]["places"])  # equal ones are equal at every size
    small, large = run(vit, p, images), run(vit, p, jnp.zeros((1, 32, 24, 3)))
    np.testing.assert_allclose(large, np.broadcast_to(small[:, :1, :1], large.shape), atol=1e-5)
    with pytest.raises(ValueError, match="at least one patch"):
        vit.init(jax.random.key(0), jnp.zeros((1, 3, 12, 3)))
