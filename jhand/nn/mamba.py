"""Mamba blocks: the selective scan with what makes its parameters, along sequences and over grids.

Parameters are float32; `dtype` is that of the projections, the scan is float32 at least.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jhand.nn.attention import MLP, DropPath
from jhand.nn.convolution import DepthwiseConv
from jhand.nn.scan import selective_scan, selective_scan_step


class SelectiveSSM(nn.Module):
    """K selective scans side by side, each with parameters of its own, of tokens (..., K, L, D) (Gu and Dao 2023).

    dt = softplus(W_dt W_r x + b) with dt_rank numbers in between, B = W_B x, C = W_C x, A = -exp(A_log). A starts at -1
    to -N, dt between 0.001 and 0.1, both as there (section 3.6).

    Attributes:
        state_size: N.
        dt_rank: None is D / 32, rounded up: a sixteenth of a block's channels, of which D has twice as many.
        dtype: of the projections.
    """

    state_size: int = 16
    dt_rank: int | None = None
    dtype: DTypeLike | None = None

    def __call__(self, x: Array, state: Array | None = None) -> tuple[Array, Array]:
        """y (..., K, L, D) and the state (..., K, D, N) after the last token, from `state` or from zero."""
        dt, A, B, C, D = self._operands(x)
        return selective_scan(x, dt, A, B, C, D, state)

    def step(self, state: Array, x: Array) -> tuple[Array, Array]:
        """One more token (..., K, D) from a state (..., K, D, N): y (..., K, D) and the next state."""
        dt, A, B, C, D = self._operands(x[..., None, :])
        return selective_scan_step(state, x, dt[..., 0, :], A, B[..., 0, :], C[..., 0, :], D)

    @nn.compact
    def _operands(self, x: Array) -> tuple[Array, Array, Array, Array, Array]:
        scans, channels, n = x.shape[-3], x.shape[-1], self.state_size
        rank = math.ceil(channels / 32) if self.dt_rank is None else self.dt_rank
        lecun = nn.initializers.lecun_normal(batch_axis=0)
        by_token = self.param("x_proj", lecun, (scans, channels, rank + 2 * n))
        up = self.param("dt_proj", _uniform(rank**-0.5), (scans, rank, channels))
        bias = self.param("dt_bias", _initial_dt, (scans, channels))
        A_log = self.param("A_log", _initial_A_log, (scans, channels, n))
        D = self.param("D", nn.initializers.ones_init(), (scans, channels))
        x, by_token, up = promote_dtype(x, by_token, up, dtype=self.dtype)
        low, B, C = jnp.split(jnp.einsum("...kld,kdr->...klr", x, by_token), [rank, rank + n], -1)
        dt = jax.nn.softplus(jnp.einsum("...klr,krd->...kld", low, up).astype(jnp.float32) + bias[:, None])
        return dt, -jnp.exp(A_log), B, C, D


def _uniform(scale: float) -> Callable[..., Array]:
    return lambda key, shape: jax.random.uniform(key, shape, minval=-scale, maxval=scale)


def _initial_dt(key: Array, shape: tuple[int, ...]) -> Array:
    """Biases whose softplus is between 0.001 and 0.1, evenly in the logarithm."""
    dt = jnp.exp(jax.random.uniform(key, shape, minval=math.log(0.001), maxval=math.log(0.1)))
    return dt + jnp.log(-jnp.expm1(-dt))


def _initial_A_log(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(jnp.log(jnp.arange(1.0, shape[-1] + 1)), shape)


class Mamba(nn.Module):
    """Mamba's block on sequences (..., L, C), causal (Gu and Dao 2023, section 3.4): out(scan(conv(x)) * silu(z)).

    Norm and residual are the caller's. `step` takes one token of a stream and gives what the whole sequence would.

    Attributes:
        expand: inner channels over C.
        state_size: numbers a channel remembers.
        kernel_size: of the causal depthwise convolution.
        dtype: of the computation, but for the scan.
    """

    expand: int = 2
    state_size: int = 16
    kernel_size: int = 4
    dtype: DTypeLike | None = None

    def __call__(self, x: Array) -> Array:
        inner, gate, conv, ssm, out = self._parts(x)
        y, _ = ssm(nn.silu(conv(inner))[..., None, :, :])
        return out(y[..., 0, :, :] * nn.silu(gate))

    def step(self, state: tuple[Array, Array], x: Array) -> tuple[Array, tuple[Array, Array]]:
        """One more token (..., C): its output, and the next state. The first state is `start`'s."""
        before, hidden = state
        inner, gate, conv, ssm, out = self._parts(x[..., None, :])
        seen = jnp.concatenate([before, inner], -2)  # as many tokens as the kernel has cells
        y, hidden = ssm.step(hidden, nn.silu(conv(seen)[..., -1:, :]))
        return out(y * nn.silu(gate))[..., 0, :], (seen[..., 1:, :], hidden)

    @nn.nowrap
    def start(self, batch: tuple[int, ...], channels: int) -> tuple[Array, Array]:
        """The state before the first token of `batch` streams of C channels: inputs seen, and the scan's state."""
        inner = self.expand * channels
        return jnp.zeros((*batch, self.kernel_size - 1, inner)), jnp.zeros((*batch, 1, inner, self.state_size))

    @nn.compact
    def _parts(self, x: Array) -> tuple[Array, Array, nn.Module, SelectiveSSM, nn.Module]:
        inner = self.expand * x.shape[-1]
        both = nn.Dense(2 * inner, use_bias=False, dtype=self.dtype, name="in_proj")(x)
        conv = DepthwiseConv((self.kernel_size,), padding="CAUSAL", dtype=self.dtype, name="conv")
        ssm = SelectiveSSM(self.state_size, dtype=self.dtype, name="ssm")
        out = nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="out_proj")
        return both[..., :inner], both[..., inner:], conv, ssm, out


class DirectionalScan(nn.Module):
    """Selective scans of a grid (..., H, W, D) in several directions, laid over each other: the core of VMamba's SS2D.

    1 direction goes along the rows, 2 there and back, 4 along rows and columns, there and back, in the order rows,
    columns, rows back, columns back (Liu et al., NeurIPS 2024, figure 3). Each has parameters of its own. Tokens are a
    grid of width 1; their 4 directions are forward, forward again, backward and backward again, with other parameters.

    Attributes:
        directions: 1, 2 or 4.
        state_size: numbers a channel remembers.
        dt_rank: as in `SelectiveSSM`.
        dtype: of the projections.
    """

    directions: int = 4
    state_size: int = 16
    dt_rank: int | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "*b h w d"]:
        if self.directions not in (1, 2, 4):
            raise ValueError(f"there are 1, 2 or 4 directions, got {self.directions}")
        *batch, height, width, channels = x.shape
        rows = x.reshape(*batch, height * width, channels)
        ways = [rows]
        if self.directions == 4:
            ways.append(jnp.swapaxes(x, -3, -2).reshape(rows.shape))
        if self.directions > 1:
            ways += [jnp.flip(way, -2) for way in ways]
        ssm = SelectiveSSM(self.state_size, self.dt_rank, self.dtype, name="ssm")
        y, _ = ssm(jnp.stack(ways, -3))
        if self.directions > 1:
            half = self.directions // 2
            y = y[..., :half, :, :] + jnp.flip(y[..., half:, :, :], -2)
        total = y[..., 0, :, :].reshape(x.shape)
        if self.directions == 4:
            columns = y[..., 1, :, :].reshape(*batch, width, height, channels)
            total = total + jnp.swapaxes(columns, -3, -2)
        return total


class SS2D(nn.Module):
    """VMamba's mixer of grids (..., H, W, C): out(norm(scan(silu(conv(x)))) * silu(z)), Liu et al., NeurIPS 2024.

    The depthwise convolution is 3 x 3, and 3 along a grid of width 1, which is how tokens (..., L, C) come: as
    (..., L, 1, C).

    Attributes:
        directions: of the scans, as `DirectionalScan` has them.
        expand: inner channels over C.
        state_size: numbers a channel remembers.
        gate: whether there is a z.
        dtype: of the computation, but for the scan.
    """

    directions: int = 4
    expand: float = 2.0
    state_size: int = 16
    gate: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "*b h w c"]:
        channels = x.shape[-1]
        inner = int(self.expand * channels)
        y = nn.Dense((1 + self.gate) * inner, use_bias=False, dtype=self.dtype, name="in_proj")(x)
        y, z = y[..., :inner], y[..., inner:]
        kernel = (3, 1) if x.shape[-2] == 1 else (3, 3)
        y = nn.silu(DepthwiseConv(kernel, dtype=self.dtype, name="conv")(y))
        rank = math.ceil(channels / 16)
        y = DirectionalScan(self.directions, self.state_size, rank, self.dtype, name="scan")(y)
        y = nn.LayerNorm(dtype=self.dtype, name="norm")(y)
        if self.gate:
            y = y * nn.silu(z)
        return nn.Dense(channels, use_bias=False, dtype=self.dtype, name="out_proj")(y)


class VSSBlock(nn.Module):
    """x += SS2D(norm(x)); x += MLP(norm(x)), of grids (b, H, W, C): the block of VMamba (Liu et al., NeurIPS 2024).

    Attributes:
        directions: of the scans, as `DirectionalScan` has them.
        expand: inner channels of the scan over C.
        state_size: numbers a channel remembers.
        gate: whether the scan's output is gated.
        mlp_ratio: hidden channels of the MLP over C.
        dropout: share of values that is dropped in the MLP.
        dtype: of the computation, but for the scan.
    """

    directions: int = 4
    expand: float = 2.0
    state_size: int = 16
    gate: bool = True
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, drop_path: ArrayLike = 0.0, deterministic: bool = True) -> Float[Array, "*b h w c"]:
        mixer = SS2D(self.directions, self.expand, self.state_size, self.gate, self.dtype)
        y = mixer(nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x))
        x = x + DropPath()(y, drop_path, deterministic=deterministic)
        mlp = MLP(int(self.mlp_ratio * x.shape[-1]), dropout=self.dropout, dtype=self.dtype)
        y = mlp(nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x), deterministic=deterministic)
        return x + DropPath()(y, drop_path, deterministic=deterministic)
