import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jhand.nn import SS2D, DirectionalScan, Mamba, SelectiveSSM, VSSBlock
from tests.nn.networks import draw, fill, run, shapes
from tests.nn.test_scan import slow_scan


def softplus(x):
    return np.logaddexp(0, x)


def slow_ssm(w, k, x):
    """One of K scans of tokens (L, D), in float64."""
    w = {name: np.asarray(v[k], np.float64) for name, v in w.items()}
    rank, n = w["dt_proj"].shape[0], w["A_log"].shape[-1]
    low, B, C = np.split(x @ w["x_proj"], [rank, rank + n], -1)
    dt = softplus(low @ w["dt_proj"] + w["dt_bias"])
    return slow_scan(x, dt, -np.exp(w["A_log"]), B, C, w["D"], np.zeros(w["A_log"].shape))[0]


def test_scans_have_parameters_of_their_own():
    x = draw(0, 2, 3, 5, 4)
    module = SelectiveSSM(state_size=2, dt_rank=1)
    p = fill(module, x)
    y, state = run(module, p, x)
    assert state.shape == (2, 3, 4, 2)
    for b in range(2):
        for k in range(3):
            np.testing.assert_allclose(y[b, k], slow_ssm(p["params"], k, np.asarray(x[b, k], float)), atol=1e-5)


def test_first_steps_and_rates_are_the_papers():
    p = jax.jit(SelectiveSSM().init)(jax.random.key(0), jnp.zeros((2, 3, 64)))["params"]
    dt = softplus(np.asarray(p["dt_bias"], np.float64))
    assert dt.min() > 0.00099
    assert dt.max() < 0.101
    assert dt.min() < 0.003
    assert dt.max() > 0.03
    np.testing.assert_allclose(-np.exp(p["A_log"][1, 5]), -np.arange(1, 17), rtol=1e-5)
    assert p["dt_proj"].shape == (2, 2, 64)


def along(x, way):
    """Tokens of a grid (H, W, D) in one of VMamba's four ways, and what puts them back."""
    places = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2])
    order = [places.ravel(), places.T.ravel(), places.ravel()[::-1], places.T.ravel()[::-1]][way]
    return x.reshape(-1, x.shape[-1])[order], np.argsort(order)


@pytest.mark.parametrize(("directions", "ways"), [(1, [0]), (2, [0, 2]), (4, [0, 1, 2, 3])])
def test_directions_of_a_grid(directions, ways):
    x = draw(0, 1, 3, 2, 4)
    module = DirectionalScan(directions, state_size=2, dt_rank=1)
    p = fill(module, x)
    expected = np.zeros((6, 4))
    for k, way in enumerate(ways):
        tokens, back = along(np.asarray(x[0], float), way)
        expected += slow_ssm(p["params"]["ssm"], k, tokens)[back]
    np.testing.assert_allclose(run(module, p, x)[0], expected.reshape(3, 2, 4), atol=1e-5)
    with pytest.raises(ValueError, match="1, 2 or 4"):
        DirectionalScan(3).init(jax.random.key(0), x)


@pytest.mark.parametrize(("directions", "swapped"), [(2, [1, 0]), (4, [2, 3, 0, 1])])
def test_reversed_tokens_and_exchanged_directions_reverse_the_outputs(directions, swapped):
    x = draw(0, 2, 6, 1, 4)
    module = DirectionalScan(directions, state_size=2, dt_rank=1)
    p = fill(module, x)
    exchanged = jax.tree.map(lambda v: v[np.array(swapped)], p)
    scan = jax.jit(module.apply)
    np.testing.assert_allclose(scan(exchanged, x[:, ::-1])[:, ::-1], scan(p, x), atol=1e-5)
    assert np.abs(scan(p, x[:, ::-1])[:, ::-1] - scan(p, x)).max() > 1e-3


def test_tokens_are_a_grid_of_width_one_and_have_a_kernel_along_them():
    x = draw(0, 2, 6, 1, 4)
    _, variables = shapes(SS2D(), x)
    assert variables["params"]["conv"]["kernel"].shape == (3, 1, 8)
    assert variables["params"]["scan"]["ssm"]["A_log"].shape == (4, 8, 16)
    _, variables = shapes(SS2D(gate=False, directions=2), draw(0, 2, 6, 3, 4))
    assert variables["params"]["conv"]["kernel"].shape == (3, 3, 8)
    assert variables["params"]["in_proj"]["kernel"].shape == (4, 8)


def test_the_block_is_its_parts():
    x = draw(0, 2, 6, 1, 4)
    block = VSSBlock(directions=2, state_size=2)
    p = fill(block, x)

    def loss(p):
        y = block.apply(p, x)
        return jnp.mean(jnp.square(y)), y

    (_, y), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(p)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))

    w, x = p["params"], np.asarray(x, float)
    silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731
    s = w["SS2D_0"]

    def norm(x, p, epsilon):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + epsilon) * p["scale"] + p["bias"]

    inner, z = np.split(norm(x, w["LayerNorm_0"], 1e-6) @ s["in_proj"]["kernel"], 2, -1)
    padded = np.pad(inner, ((0, 0), (1, 1), (0, 0), (0, 0)))
    mixed = sum(padded[:, i : i + 6] * s["conv"]["kernel"][i, 0] for i in range(3)) + s["conv"]["bias"]
    scan = np.zeros(mixed.shape)
    for b in range(2):
        tokens, ssm = silu(mixed[b, :, 0]), s["scan"]["ssm"]
        scan[b, :, 0] = slow_ssm(ssm, 0, tokens) + slow_ssm(ssm, 1, tokens[::-1])[::-1]
    expected = x + (norm(scan, s["norm"], 1e-6) * silu(z)) @ s["out_proj"]["kernel"]
    first, second = w["MLP_0"]["Dense_0"], w["MLP_0"]["Dense_1"]
    hidden = norm(expected, w["LayerNorm_1"], 1e-6) @ first["kernel"] + first["bias"]
    hidden = hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2
    expected = expected + hidden @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_steps_of_a_stream_are_the_whole_sequence():
    x = draw(0, 2, 9, 4)
    block = Mamba(state_size=2)
    p = fill(block, x)
    whole_sequence = jax.jit(block.apply)
    whole = whole_sequence(p, x)
    step = jax.jit(lambda p, state, token: block.apply(p, state, token, method="step"))
    state = block.start((2,), 4)
    for t in range(9):
        y, state = step(p, state, x[:, t])
        np.testing.assert_allclose(y, whole[:, t], atol=1e-5)
    later = whole_sequence(p, x.at[:, 5:].add(1))
    np.testing.assert_allclose(later[:, :5], whole[:, :5], atol=1e-6)


def test_half_precision():
    y, variables = shapes(VSSBlock(dtype=jnp.bfloat16), jnp.zeros((2, 4, 3, 8), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(variables))
