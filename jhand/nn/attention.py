"""Attention and transformers: pre-norm blocks, stacks of them, positions, dropout of values and of whole branches.

Parameters are float32; `dtype` is that of the computation, None that of the input. What is random happens where
`deterministic` is false, and takes its key from linen's collection "dropout": `apply(..., rngs={"dropout": key})`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

gelu = partial(nn.gelu, approximate=False)


def attend(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, *, mask: ArrayLike | None = None, causal: bool = False
) -> Float[Array, "*b t n h"]:
    """Attention by scaled dot products (Vaswani et al. 2017, eq. 1), softmax in float32.

    On a GPU (NVIDIA's, from Ampere on) in half precision it is cuDNN's fused one where that can be, else XLA's.

    Args:
        query: (..., T, N, H): T tokens, N heads of H channels.
        key: (..., S, N, H).
        value: (..., S, N, H).
        mask: bool (..., T, S) or (T, S), true where a token may look; a token that may look nowhere gets the mean.
        causal: whether token t sees no further than s = t.

    Returns:
        (..., T, N, H).
    """
    q, k, v = (jnp.asarray(x) for x in (query, key, value))
    batch = q.shape[:-3]
    if mask is not None:
        mask = jnp.asarray(mask)
        mask = jnp.broadcast_to(mask, (*batch, *mask.shape[-2:])).reshape(-1, 1, *mask.shape[-2:])
    y = jax.nn.dot_product_attention(
        *(x.reshape(-1, *x.shape[-3:]) for x in (q, k, v)),
        mask=mask,
        is_causal=causal,
        implementation="cudnn" if jax.default_backend() == "gpu" and _fits_cudnn(q, k, mask) else "xla",
    )
    return y.reshape(*batch, *y.shape[1:])


def _fits_cudnn(q: Array, k: Array, mask: Array | None) -> bool:
    """What its fused attention takes, the gradient included: halves, heads of up to 128 channels in eights, and with a
    mask even numbers of tokens.
    """
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    even = q.shape[-3] % 2 == 0 and k.shape[-3] % 2 == 0
    return half and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0 and (mask is None or even)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens (..., T, C) among themselves.

    Attributes:
        heads: how many; they divide C.
        causal: whether a token sees none that come later.
        dropout: share of the outputs that is dropped.
        dtype: of the computation.
    """

    heads: int
    causal: bool = False
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, *, deterministic: bool = True) -> Array:
        qkv = nn.DenseGeneral((3, self.heads, _head_width(x, self.heads)), dtype=self.dtype, name="qkv")(x)
        y = attend(*jnp.moveaxis(qkv, -3, 0), mask=mask, causal=self.causal)
        y = nn.DenseGeneral(x.shape[-1], axis=(-2, -1), dtype=self.dtype, name="out")(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic)


class CrossAttention(nn.Module):
    """Multi-head attention of tokens (..., T, C) to others (..., S, C').

    Attributes:
        heads: how many; they divide C.
        dropout: share of the outputs that is dropped.
        dtype: of the computation.
    """

    heads: int
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, context: Array, mask: Array | None = None, *, deterministic: bool = True) -> Array:
        width = _head_width(x, self.heads)
        q = nn.DenseGeneral((self.heads, width), dtype=self.dtype, name="query")(x)
        kv = nn.DenseGeneral((2, self.heads, width), dtype=self.dtype, name="key_value")(context)
        y = attend(q, *jnp.moveaxis(kv, -3, 0), mask=mask)
        y = nn.DenseGeneral(x.shape[-1], axis=(-2, -1), dtype=self.dtype, name="out")(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic)


def _head_width(x: Array, heads: int) -> int:
    if x.shape[-1] % heads:
        raise ValueError(f"{heads} heads do not divide {x.shape[-1]} channels")
    return x.shape[-1] // heads


class MLP(nn.Module):
    """Linear, activation, linear, of (..., C).

    Attributes:
        hidden: channels in between.
        features: channels that come out; None is as many as come in.
        activation: in between.
        dropout: share of the hidden values and of the outputs that is dropped.
        dtype: of the computation.
    """

    hidden: int
    features: int | None = None
    activation: Callable[[Array], Array] = gelu
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, deterministic: bool = True) -> Array:
        features = x.shape[-1] if self.features is None else self.features
        x = self.activation(nn.Dense(self.hidden, dtype=self.dtype)(x))
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return nn.Dropout(self.dropout)(nn.Dense(features, dtype=self.dtype)(x), deterministic=deterministic)


class DropPath(nn.Module):
    """Leaves a branch (b, ...) out for some samples of a batch, and scales the others up (Huang et al., ECCV 2016).

    The rate is an argument, so that it can grow with depth where layers are scanned over.
    """

    @nn.compact
    def __call__(self, x: Array, rate: ArrayLike, *, deterministic: bool = True) -> Array:
        if deterministic or (isinstance(rate, float) and rate == 0):
            return x
        keep = 1 - jnp.asarray(rate)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0], *(1 for _ in x.shape[1:])))
        return jnp.where(kept, x / keep.astype(x.dtype), 0)


class EncoderBlock(nn.Module):
    """x += attention(norm(x)); x += MLP(norm(x)), of tokens (b, T, C) (Xiong et al., ICML 2020: pre-norm).

    Attributes:
        heads: of the attention.
        mlp_ratio: hidden channels of the MLP over C.
        causal: whether a token sees none that come later.
        dropout: share of values that is dropped after attention and in the MLP.
        dtype: of the computation.
    """

    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: Array, mask: Array | None = None, *, drop_path: ArrayLike = 0.0, deterministic: bool = True
    ) -> Array:
        attention = SelfAttention(self.heads, self.causal, self.dropout, self.dtype)
        y = attention(_norm(self.dtype)(x), mask, deterministic=deterministic)
        x = x + DropPath()(y, drop_path, deterministic=deterministic)
        mlp = MLP(int(self.mlp_ratio * x.shape[-1]), dropout=self.dropout, dtype=self.dtype)
        y = mlp(_norm(self.dtype)(x), deterministic=deterministic)
        return x + DropPath()(y, drop_path, deterministic=deterministic)


class DecoderBlock(nn.Module):
    """Self-attention, attention to a context (b, S, C'), MLP, each pre-norm and added to the tokens (b, T, C).

    Attributes:
        heads: of both attentions.
        mlp_ratio: hidden channels of the MLP over C.
        causal: whether a token sees none that come later.
        dropout: share of values that is dropped after the attentions and in the MLP.
        dtype: of the computation.
    """

    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        context: Array,
        mask: Array | None = None,
        context_mask: Array | None = None,
        *,
        deterministic: bool = True,
    ) -> Array:
        attention = SelfAttention(self.heads, self.causal, self.dropout, self.dtype)
        x = x + attention(_norm(self.dtype)(x), mask, deterministic=deterministic)
        attention = CrossAttention(self.heads, self.dropout, self.dtype)
        x = x + attention(_norm(self.dtype)(x), context, context_mask, deterministic=deterministic)
        mlp = MLP(int(self.mlp_ratio * x.shape[-1]), dropout=self.dropout, dtype=self.dtype)
        return x + mlp(_norm(self.dtype)(x), deterministic=deterministic)


def _norm(dtype: DTypeLike | None) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype)


class Encoder(nn.Module):
    """`EncoderBlock`s one after the other and a norm, of tokens (b, T, C): one block is compiled, whatever the depth.

    Parameters of the blocks have a leading axis of layers.

    Attributes:
        layers: how many blocks.
        heads: of each.
        mlp_ratio: as in `EncoderBlock`.
        causal: as in `EncoderBlock`.
        dropout: as in `EncoderBlock`.
        drop_path: how often the last block's branches are left out; the first one's never, linearly in between.
        remat: whether the gradient computes each block again rather than keep what is inside: memory for a third more
            time.
        dtype: of the computation.
    """

    layers: int
    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, *, deterministic: bool = True) -> Array:
        def layer(block: EncoderBlock, x: Array, rate: ArrayLike) -> tuple[Array, None]:
            rate = rate if self.drop_path else 0.0  # a plain zero needs no key
            return block(x, mask, drop_path=rate, deterministic=deterministic), None

        block = EncoderBlock(self.heads, self.mlp_ratio, self.causal, self.dropout, self.dtype, name="blocks")
        x, _ = _over_layers(layer, self.remat)(block, x, jnp.linspace(0, self.drop_path, self.layers))
        return _norm(self.dtype)(x)


class Decoder(nn.Module):
    """`DecoderBlock`s one after the other and a norm, as `Encoder`, of tokens (b, T, C) and a context (b, S, C').

    Attributes:
        layers: how many blocks.
        heads: of each.
        mlp_ratio: as in `DecoderBlock`.
        causal: as in `DecoderBlock`.
        dropout: as in `DecoderBlock`.
        remat: as in `Encoder`.
        dtype: of the computation.
    """

    layers: int
    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    dropout: float = 0.0
    remat: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        context: Array,
        mask: Array | None = None,
        context_mask: Array | None = None,
        *,
        deterministic: bool = True,
    ) -> Array:
        def layer(block: DecoderBlock, x: Array, _: Array) -> tuple[Array, None]:
            return block(x, context, mask, context_mask, deterministic=deterministic), None

        block = DecoderBlock(self.heads, self.mlp_ratio, self.causal, self.dropout, self.dtype, name="blocks")
        x, _ = _over_layers(layer, self.remat)(block, x, jnp.arange(self.layers))
        return _norm(self.dtype)(x)


def _over_layers(layer: Callable, remat: bool) -> Callable:
    return nn.scan(
        nn.remat(layer) if remat else layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
    )


def sinusoidal_positions(positions: ArrayLike, features: int, *, longest: float = 10_000.0) -> Float[Array, "*b c"]:
    """Sines and cosines of numbers, such as positions or times (Vaswani et al. 2017, section 3.5; sines first).

    Args:
        positions: (...) any numbers.
        features: how many come out, an even number.
        longest: wavelength of the slowest over 2 pi, almost reached; that of the fastest is 1.

    Returns:
        (..., features).

    Raises:
        ValueError: an odd number of features.
    """
    if features % 2:
        raise ValueError(f"features must be even, one sine and one cosine each, got {features}")
    frequencies = longest ** -(jnp.arange(features // 2) / (features // 2))
    angles = jnp.asarray(positions, float)[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sinusoidal_places(points: ArrayLike, features: int) -> Float[Array, "*b c"]:
    """Sines and cosines of places in a picture: half of them for y, then half for x (Carion et al., ECCV 2020).

    Args:
        points: (..., 2) x and y, from 0 to 1 across the picture, which is the fastest wavelength.
        features: how many come out, a multiple of four.

    Returns:
        (..., features).
    """
    at = 2 * jnp.pi * jnp.asarray(points)
    across, down = (sinusoidal_positions(at[..., axis], features // 2) for axis in (0, 1))
    return jnp.concatenate([down, across], -1)


class LearnedPositions(nn.Module):
    """Adds a learned vector to each token (..., T, C) by its place, T at most `length`.

    Attributes:
        length: most tokens there can be.
    """

    length: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if x.shape[-2] > self.length:
            raise ValueError(f"there are {self.length} learned positions, got {x.shape[-2]} tokens")
        places = self.param("places", nn.initializers.normal(0.02), (self.length, x.shape[-1]))
        return x + places[: x.shape[-2]].astype(x.dtype)
