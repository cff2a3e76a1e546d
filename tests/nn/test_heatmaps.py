import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jhand.nn import HRNet, gaussian_maps, map_means, map_peaks


def test_maps_of_points_have_their_peaks_there():
    points = jnp.array([[3.0, 7.0], [10.3, 2.2], [-40.0, 5.0]])
    maps = gaussian_maps(points, (12, 16), 1.5)
    assert maps.shape == (3, 12, 16)
    np.testing.assert_allclose(maps[0, 7, 3], 1)
    np.testing.assert_allclose(maps[0, 7, 5], np.exp(-((2 / 1.5) ** 2) / 2), rtol=1e-5)
    assert maps[2].max() < 1e-6
    found, height = map_peaks(maps)
    np.testing.assert_allclose(found[:2], [[3, 7], [10.25, 2.25]], atol=1e-6)  # a quarter towards the higher side
    np.testing.assert_allclose(height, maps.max((1, 2)))


def test_soft_argmax_is_the_mean_and_sharpens():
    maps = jnp.zeros((2, 6, 8)).at[0, 4, 2].set(1.0).at[1, 1, 6].set(1.0)
    np.testing.assert_allclose(map_means(maps, jnp.array([200.0, 200.0])), [[2, 4], [6, 1]], atol=1e-4)
    np.testing.assert_allclose(map_means(0 * maps), [[3.5, 2.5]] * 2, atol=1e-5)


def test_hrnet_keeps_a_quarter_of_the_picture_and_knows_the_whole():
    net = HRNet.tiny()
    x = jax.random.normal(jax.random.key(0), (1, 64, 96, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    # blocks begin as the identity: let them do something
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), variables["params"])
    run = jax.jit(lambda x: net.apply({"params": params}, x))
    y = run(x)
    assert y.shape == (1, 16, 24, 8)
    far = run(x.at[0, -1, -1].add(5.0))
    assert jnp.abs(far - y)[0, 0, 0].max() > 0  # through the coarse branches


def test_published_sizes():
    shapes = jax.eval_shape(lambda key: HRNet.w32().init(key, jnp.zeros((1, 256, 256, 3))), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert 27e6 < count < 30e6  # 28.5 million with its head
    assert isinstance(HRNet.w32(), nn.Module)
