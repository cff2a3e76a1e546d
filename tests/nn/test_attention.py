import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import (
    MLP,
    CrossAttention,
    Decoder,
    DropPath,
    Encoder,
    LearnedPositions,
    SelfAttention,
    attend,
    sinusoidal_positions,
)
from tests.nn.networks import draw, fill, run, shapes


def slow_attention(q, k, v, allowed):
    y = np.zeros((q.shape[0], *q.shape[1:-1], v.shape[-1]))
    for t in range(q.shape[0]):
        for n in range(q.shape[1]):
            scores = np.array([q[t, n] @ k[s, n] for s in range(len(k))]) / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max()) * allowed[t]
            y[t, n] = weights / weights.sum() @ v[:, n]
    return y


def test_attention_is_the_definition():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 3, n, 2, 4)).astype(np.float32) for n in (5, 6, 6))
    mask = rng.random((2, 3, 5, 6)) < 0.6
    mask[..., 0] = True
    everything = np.ones((5, 6), bool)
    for given, causal in ((None, False), (mask, False), (mask[0, 0], False), (mask, True)):
        y = jax.jit(lambda mask, causal=causal: attend(q, k, v, mask=mask, causal=causal))(given)
        allowed = everything if given is None else np.broadcast_to(given, (2, 3, 5, 6))
        allowed = np.broadcast_to(np.tril(allowed) if causal else allowed, (2, 3, 5, 6))
        for b in np.ndindex(2, 3):
            np.testing.assert_allclose(y[b], slow_attention(q[b], k[b], v[b], allowed[b]), atol=1e-5)


def test_modules_attend_with_their_parameters():
    x, context = draw(1, 2, 4, 6), draw(2, 2, 3, 5)
    module = SelfAttention(heads=2)
    p = fill(module, x)
    y = run(module, p, x)
    qkv, out = p["params"]["qkv"], p["params"]["out"]
    q, k, v = np.moveaxis(np.einsum("btc,cinh->btinh", x, qkv["kernel"]) + qkv["bias"], 2, 0)
    expected = np.einsum("btnh,nhc->btc", attend(q, k, v), out["kernel"]) + out["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)

    module = CrossAttention(heads=2)
    p = fill(module, x, context)
    found = run(module, p, x, context)
    q = np.einsum("btc,cnh->btnh", x, p["params"]["query"]["kernel"]) + p["params"]["query"]["bias"]
    kv = p["params"]["key_value"]
    k, v = np.moveaxis(np.einsum("btc,cinh->btinh", context, kv["kernel"]) + kv["bias"], 2, 0)
    out = p["params"]["out"]
    expected = np.einsum("btnh,nhc->btc", attend(q, k, v), out["kernel"]) + out["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="4 heads do not divide 6"):
        SelfAttention(heads=4).init(jax.random.key(0), x)


def test_an_encoder_is_its_blocks_one_after_the_other():
    """Scanned, and for the gradient computed again: what a loop over the layers gives."""
    x = draw(2, 2, 5, 8)
    mask = jnp.tril(jnp.ones((5, 5), bool))
    encoder = Encoder(layers=2, heads=2, remat=True)
    p = fill(encoder, x)

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def loop(params):
        y = x
        for i in range(2):
            b = jax.tree.map(lambda v, i=i: v[i], params["blocks"])
            y = y + SelfAttention(2).apply({"params": b["SelfAttention_0"]}, norm(y, b["LayerNorm_0"]), mask)
            y = y + MLP(32).apply({"params": b["MLP_0"]}, norm(y, b["LayerNorm_1"]))
        return norm(y, params["LayerNorm_0"])

    def number(f):
        return jax.jit(jax.value_and_grad(lambda params: jnp.sum(jnp.sin(f(params)))))

    expected, expected_gradient = number(loop)(p["params"])
    value, gradient = number(lambda params: encoder.apply({"params": params}, x, mask))(p["params"])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient, expected_gradient)


def test_tokens_see_what_they_may():
    x = draw(3, 1, 5, 8)
    context = draw(4, 1, 4, 6)
    decoder = Decoder(layers=2, heads=2, causal=True)
    p = fill(decoder, x, context)
    decode = jax.jit(decoder.apply)
    y = decode(p, x, context)
    changed = decode(p, x.at[:, 3:, 0].add(1), context)
    np.testing.assert_allclose(changed[:, :3], y[:, :3], atol=1e-5)
    assert np.abs(changed[:, 3:] - y[:, 3:]).min() > 1e-5

    hidden = jnp.ones((5, 4), bool).at[:, 2].set(False)
    other = context.at[:, 2, 0].add(1)
    masked = jax.jit(lambda c: decoder.apply(p, x, c, context_mask=hidden))
    np.testing.assert_allclose(masked(other), masked(context), atol=1e-6)
    assert np.abs(decode(p, x, other) - y).max() > 1e-4


def test_half_precision_computes_in_half_and_keeps_parameters():
    x = jnp.zeros((2, 5, 8))
    y, variables = shapes(Encoder(layers=2, heads=2, dtype=jnp.bfloat16), x)
    assert y.dtype == jnp.bfloat16
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(variables))


def test_drop_path_leaves_samples_out_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3))
    drop = lambda **given: DropPath().apply({}, x, 0.25, rngs={"dropout": jax.random.key(0)}, **given)  # noqa: E731
    y = np.asarray(drop(deterministic=False))
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert (y == y[:, :1, :1]).all()  # whole samples
    assert abs(y.mean() - 1) < 0.03
    np.testing.assert_array_equal(drop(deterministic=True), x)


def test_dropout_needs_a_key_and_only_in_training():
    x = jnp.ones((3, 4, 8))
    encoder = Encoder(layers=2, heads=2, dropout=0.5, drop_path=0.5)
    p = fill(encoder, x)
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(lambda: encoder.apply(p, x, deterministic=False))
    still = Encoder(layers=2, heads=2)
    jax.eval_shape(lambda: still.apply(p, x, deterministic=False))  # nothing is random, no key is needed
    train = jax.jit(lambda key: encoder.apply(p, x, deterministic=False, rngs={"dropout": key}))
    assert np.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max() > 1e-3
    np.testing.assert_array_equal(train(jax.random.key(0)), train(jax.random.key(0)))


def test_positions():
    found = sinusoidal_positions(np.array([[0.0, 3.0]]), 6)
    expected = [[f(t / 10_000 ** (i / 3)) for f in (np.sin, np.cos) for i in range(3)] for t in (0, 3)]
    np.testing.assert_allclose(found, [expected], atol=1e-6)
    with pytest.raises(ValueError, match="even"):
        sinusoidal_positions(0.0, 3)

    learned = LearnedPositions(5)
    x = jnp.zeros((2, 3, 4))
    p = fill(learned, x)
    np.testing.assert_array_equal(run(learned, p, x)[1], p["params"]["places"][:3])
    with pytest.raises(ValueError, match="5 learned positions, got 6"):
        learned.apply(p, jnp.zeros((6, 4)))
