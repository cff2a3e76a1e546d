import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import ResNet
from jhand.nn.resnet import _max_pool, _Stem
from tests.nn.networks import count, draw, fill, shapes


@pytest.mark.parametrize(
    ("net", "channels", "millions"),
    [
        (ResNet.tiny(), (16, 32, 64, 128), (0.2, 0.4)),
        (ResNet.resnet18(), (64, 128, 256, 512), (11, 11.3)),
        (ResNet.resnet50(norm="batch"), (256, 512, 1024, 2048), (23.4, 23.7)),
    ],
    ids=["tiny", "resnet18", "resnet50"],
)
def test_sizes(net, channels, millions):
    pyramid, variables = shapes(net, jnp.zeros((2, 72, 64, 3)), deterministic=False)
    expected = [(2, -(-72 // s), -(-64 // s), c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    assert [y.shape for y in pyramid] == expected
    assert millions[0] < count(variables) / 1e6 < millions[1]
    assert ("batch_stats" in variables) == (net.norm == "batch")


@pytest.mark.parametrize("side", [8, 9, 10, 11])
def test_the_stem_and_its_pool_are_those_of_the_paper(side):
    """Convolution and window as XLA has them, whose gradients a CPU is slow at."""
    x = draw(1, 2, side, side + 1, 3)
    stem = _Stem(4, None)
    variables = fill(stem, x)
    y = stem.apply(variables, x)
    kernel = variables["params"]["kernel"]
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), [(3, 3), (3, 3)], dimension_numbers=layout)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    window = lambda y: nn.max_pool(y, (3, 3), (2, 2), [(1, 1), (1, 1)])  # noqa: E731
    np.testing.assert_array_equal(_max_pool(y), window(y))
    weights = draw(2, *window(y).shape)
    gradients = [jax.grad(lambda y, f=f: jnp.sum(weights * f(y)))(y) for f in (_max_pool, window)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


NET = ResNet((1,), width=8, norm="batch")
IMAGES = 1 + 2 * draw(0, 4, 16, 12, 3)


def train(net, variables, images):
    pyramid, changed = net.apply(variables, images, deterministic=False, mutable=["batch_stats"])
    return pyramid[-1], changed["batch_stats"]


def test_batch_norm_is_over_the_whole_batch_wherever_it_lies():
    """Split over a mapped axis, means and averages are those of the batch in one piece."""
    variables = fill(NET, IMAGES)
    y, stats = jax.jit(lambda v: train(NET, v, IMAGES))(variables)
    split = NET.clone(axis_name="data")
    mapped = jax.vmap(lambda part: train(split, variables, part), axis_name="data")
    y_split, stats_split = jax.jit(mapped)(IMAGES.reshape(2, 2, 16, 12, 3))
    np.testing.assert_allclose(y_split.reshape(y.shape), y, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.stack([b, b]), atol=1e-5), stats_split, stats)


def test_batch_norm_under_sharding():
    """In an interpreter of its own, with two devices: jit over a sharded batch gives what one device gives."""
    script = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from tests.nn.test_resnet import IMAGES, NET, fill, train
variables = fill(NET, IMAGES)
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
sharded = jax.device_put(IMAGES, jax.NamedSharding(mesh, jax.P("data")))
step = jax.jit(lambda v, images: train(NET, v, images))
one, two = step(variables, IMAGES), step(jax.device_put(variables, jax.NamedSharding(mesh, jax.P())), sharded)
assert len(two[0].sharding.device_set) == 2
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, two)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_averages_are_what_is_used_afterwards():
    variables = fill(NET, IMAGES)
    variables["batch_stats"] = jax.tree.map(np.ones_like, variables["batch_stats"])
    once, many = (jax.jit(lambda v, x: NET.apply(v, x)[-1])(variables, x) for x in (IMAGES, IMAGES[:1]))
    np.testing.assert_allclose(once[:1], many, atol=1e-5)
    _, stats = jax.jit(lambda v: train(NET, v, IMAGES))(variables)
    assert all(np.abs(s - 1).max() > 1e-3 for s in jax.tree.leaves(stats))


def test_a_step_of_training_with_groups():
    net = ResNet((1, 1), width=8, bottleneck=True)
    variables = fill(net, IMAGES)
    loss = lambda v: sum(jnp.mean(jnp.square(y - 1)) for y in net.apply(v, IMAGES, deterministic=False))  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(variables)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
