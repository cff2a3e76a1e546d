"""Residual networks: pictures to pyramids of features."""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

Norm = Literal["group", "batch"]


class ResNet(nn.Module):
    """Residual network (He et al., CVPR 2016), of pictures (b, H, W, 3) or maps of features.

    Returns one map a stage, at strides 4, 8, 16, 32: (b, ceil(H / 4), ceil(W / 4), C_1) and so on.

    Norms are over groups, which need no averages, or over the batch. The latter are over the *whole* batch: under `jit`
    with the batch sharded a mean is global as it is, and under `shard_map`, `pmap` or `vmap` by `axis_name`. Its
    averages are in the collection "batch_stats", updated where `deterministic` is false and that collection mutable.

    Attributes:
        blocks: of each stage.
        width: channels of the first stage's blocks; each stage has twice those of the one before.
        bottleneck: blocks of 1x1, 3x3, 1x1 convolutions, with four times the channels at their ends, rather than of
            two 3x3.
        norm: "group" (Wu and He, ECCV 2018) or "batch" (Ioffe and Szegedy, ICML 2015).
        axis_name: of the mapped axis that a batch is split over.
        dtype: of the computation.
    """

    blocks: tuple[int, ...]
    width: int = 64
    bottleneck: bool = False
    norm: Norm = "group"
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @classmethod
    def tiny(cls, **changes: Any) -> "ResNet":
        """One block a stage from 16 channels, 0.3 M parameters, for a CPU; `changes` replace attributes."""
        return cls(**dict[str, Any](blocks=(1, 1, 1, 1), width=16) | changes)

    @classmethod
    def resnet18(cls, **changes: Any) -> "ResNet":
        """11 M parameters; `changes` replace attributes."""
        return cls(**dict[str, Any](blocks=(2, 2, 2, 2)) | changes)

    @classmethod
    def resnet50(cls, **changes: Any) -> "ResNet":
        """24 M parameters; `changes` replace attributes."""
        return cls(**dict[str, Any](blocks=(3, 4, 6, 3), bottleneck=True) | changes)

    @nn.compact
    def __call__(self, x: Array, *, deterministic: bool = True) -> tuple[Array, ...]:
        normalised = partial(_normalised, self.norm, self.axis_name, self.dtype, deterministic)
        x = _Stem(self.width, dtype=self.dtype, name="stem")(x)
        x = _max_pool(nn.relu(normalised(x)))
        pyramid = []
        for stage, blocks in enumerate(self.blocks):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                block = _Bottleneck if self.bottleneck else _Basic
                name = f"stage{stage}_block{i}"
                x = block(self.width * 2**stage, stride, normalised, self.dtype, name=name)(x)
            pyramid.append(x)
        return tuple(pyramid)


class _Stem(nn.Module):
    """A 7x7 convolution of stride 2, computed as one of 4x4 and stride 1 over blocks of 2x2 pixels: a CPU is twice as
    fast with four times the channels.
    """

    width: int
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (7, 7, c, self.width))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        x = jnp.pad(x, ((0, 0), (3, 3 + x.shape[1] % 2), (3, 3 + x.shape[2] % 2), (0, 0)))
        b, h, w, _ = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)
        kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(4, 2, 4, 2, c, self.width)
        kernel = kernel.swapaxes(1, 2).reshape(4, 4, 4 * c, self.width)
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _max_pool(x: Array) -> Array:
    """Largest of 3x3 at stride 2, one axis after the other: XLA's window has a gradient 15 times slower on a CPU."""
    for axis in (1, 2):
        n = x.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        padded = jnp.pad(x, pads, constant_values=-jnp.inf)
        x = reduce(jnp.maximum, (lax.slice_in_dim(padded, i, i + n - (n + 1) % 2, 2, axis) for i in range(3)))
    return x


class _Basic(nn.Module):
    """Two 3x3 convolutions."""

    width: int
    stride: int
    normalised: Callable[..., Array]
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(nn.Conv, self.width, use_bias=False, dtype=self.dtype)
        y = nn.relu(self.normalised(conv((3, 3), self.stride, padding=1)(x)))
        y = self.normalised(conv((3, 3), padding=1)(y), last=True)
        if x.shape != y.shape:
            x = self.normalised(conv((1, 1), self.stride)(x))
        return nn.relu(x + y)


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the stride is in the second, as torchvision has it."""

    width: int
    stride: int
    normalised: Callable[..., Array]
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        y = nn.relu(self.normalised(conv(self.width, (1, 1))(x)))
        y = nn.relu(self.normalised(conv(self.width, (3, 3), self.stride, padding=1)(y)))
        y = self.normalised(conv(4 * self.width, (1, 1))(y), last=True)
        if x.shape != y.shape:
            x = self.normalised(conv(4 * self.width, (1, 1), self.stride)(x))
        return nn.relu(x + y)


def _normalised(
    norm: Norm, axis_name: str | None, dtype: DTypeLike | None, deterministic: bool, x: Array, last: bool = False
) -> Array:
    """Normalised, by a module of the one that calls. The last of a block starts at zero, the block as the identity
    (Goyal et al. 2017, section 5.1).
    """
    scale = nn.initializers.zeros_init() if last else nn.initializers.ones_init()
    if norm == "batch":
        return nn.BatchNorm(deterministic, momentum=0.9, axis_name=axis_name, scale_init=scale, dtype=dtype)(x)
    return nn.GroupNorm(None, group_size=math.gcd(16, x.shape[-1]), scale_init=scale, dtype=dtype)(x)
