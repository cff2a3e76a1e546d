import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jhand.nn import DepthwiseConv, depthwise_conv
from tests.nn.networks import draw, fill


def peer(x, kernel, strides, padding):
    """XLA's convolution."""
    letters = "HW"[: kernel.ndim - 1]
    return lax.conv_general_dilated(
        x,
        kernel[..., None, :],
        strides,
        padding,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=x.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


CASES = {
    "sequence": ((2, 7, 3), (5, 3), (1,), "SAME"),
    "causal": ((2, 7, 3), (4, 3), (1,), "CAUSAL"),
    "short": ((2, 2, 3), (5, 3), (1,), "SAME"),
    "strided": ((2, 8, 3), (3, 3), (2,), [(1, 1)]),
    "one": ((1, 1, 3), (3, 3), (1,), "SAME"),
    "grid": ((2, 6, 5, 3), (3, 3, 3), (1, 1), "SAME"),
    "halved": ((2, 6, 5, 3), (3, 5, 3), (2, 2), "SAME"),
    "torch": ((2, 6, 7, 3), (5, 3, 3), (2, 3), [(2, 2), (1, 1)]),
    "within": ((2, 6, 7, 3), (3, 3, 3), (2, 1), "VALID"),
    "wider": ((1, 3, 4, 3), (3, 1, 3), (1, 1), [(4, 5), (0, 0)]),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_a_convolution(case):
    shape, kernel_shape, strides, padding = CASES[case]
    x, kernel = draw(0, *shape), draw(1, *kernel_shape)
    pads = [(kernel_shape[0] - 1, 0)] if padding == "CAUSAL" else padding
    own = jax.jit(jax.value_and_grad(lambda *a: _number(depthwise_conv(*a, strides=strides, padding=padding)), (0, 1)))
    other = jax.jit(jax.value_and_grad(lambda *a: _number(peer(*a, strides, pads)), (0, 1)))
    (value, gradient), (expected, expected_gradient) = own(x, kernel), other(x, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    for g, e in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(g, e, atol=2e-5)


def _number(y):
    """Depends on every output, and on where it lies."""
    return jnp.sum(jnp.sin(y) * (1 + jnp.arange(y.size).reshape(y.shape) / y.size))


@pytest.mark.parametrize("case", ["causal", "torch"])
def test_other_backends_have_xlas(case, monkeypatch):
    shape, kernel_shape, strides, padding = CASES[case]
    x, kernel = draw(0, *shape), draw(1, *kernel_shape)
    expected = depthwise_conv(x, kernel, strides=strides, padding=padding)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jax.jit(lambda *a: depthwise_conv(*a, strides=strides, padding=padding))
    assert "conv_general_dilated" in str(jax.make_jaxpr(found)(x, kernel))
    np.testing.assert_allclose(found(x, kernel), expected, atol=1e-5)


def test_networks_side_by_side():
    """Gradients of an ensemble: mapped over kernels, and over kernels and inputs."""
    x, kernels = draw(0, 2, 7, 3), draw(1, 4, 3, 3)
    gradient = jax.grad(lambda x, kernel: _number(depthwise_conv(x, kernel)), (0, 1))
    mapped = jax.jit(jax.vmap(gradient, (None, 0)))(x, kernels)
    for i in range(4):
        for found, expected in zip(mapped, jax.jit(gradient)(x, kernels[i]), strict=True):
            np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_any_leading_axes():
    x, kernel = draw(0, 2, 1, 3, 7, 4), draw(1, 3, 4)
    y = depthwise_conv(x, kernel)
    assert y.shape == x.shape
    np.testing.assert_allclose(y[1, 0, 2], depthwise_conv(x[1, 0, 2], kernel), atol=1e-6)
    with pytest.raises(ValueError, match="depthwise_conv takes"):
        depthwise_conv(x, kernel[:, :3])


def test_causal_outputs_see_nothing_later():
    x, kernel = draw(0, 9, 2), draw(1, 4, 2)
    y = depthwise_conv(x, kernel, padding="CAUSAL")
    changed = depthwise_conv(x.at[5:].add(1), kernel, padding="CAUSAL")
    np.testing.assert_array_equal(changed[:5], y[:5])
    expected = [sum(kernel[k] * x[t - 3 + k] for k in range(4) if t - 3 + k >= 0) for t in range(9)]
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_module():
    x = draw(0, 2, 5, 6, 3)
    module = DepthwiseConv((3, 3), strides=2, dtype=jnp.bfloat16)
    p = fill(module, x)
    y = module.apply(p, x)
    assert y.dtype == jnp.bfloat16
    assert p["params"]["kernel"].dtype == jnp.float32
    expected = peer(x, p["params"]["kernel"], (2, 2), "SAME") + p["params"]["bias"]
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.05)
