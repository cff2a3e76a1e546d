"""HRNet: a network that keeps its high resolution, with coarser branches beside it that are fused again and again
(Wang et al., PAMI 2020).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jhand.nn.resnet import Norm, _Basic, _Bottleneck, _normalised


class HRNet(nn.Module):
    """Images (b, H, W, C), H and W multiples of 32, to features (b, H / 4, W / 4, width).

    Attributes:
        width: channels of the finest branch; each coarser one has twice as many.
        modules: of two, three and four branches: how often blocks and fusion follow each other.
        blocks: in each branch of a module.
        first: bottleneck blocks before the branches.
        norm: as in `ResNet`.
        axis_name: of a batch that is spread over devices, under BatchNorm.
        dtype: of the computation.
    """

    width: int = 32
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    first: int = 4
    norm: Norm = "group"
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @classmethod
    def tiny(cls, **changes: Any) -> "HRNet":
        """Eight channels, one module of each kind."""
        return cls(**dict[str, Any](width=8, modules=(1, 1, 1), blocks=1, first=1) | changes)

    @classmethod
    def w32(cls, **changes: Any) -> "HRNet":
        """HRNet-W32, as for poses."""
        return cls(**changes)

    @nn.compact
    def __call__(self, x: Array, *, deterministic: bool = True) -> Array:
        normalised = partial(_normalised, self.norm, self.axis_name, self.dtype, deterministic)
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        stem = 2 * self.width
        for _ in range(2):
            x = nn.relu(normalised(conv(stem, (3, 3), 2, padding=1)(x)))
        for _ in range(self.first):
            x = _Bottleneck(stem, 1, normalised, self.dtype)(x)
        branches = [x]
        for stage, modules in enumerate(self.modules):
            branches = _branched(branches, [self.width * 2**k for k in range(stage + 2)], conv, normalised)
            for _ in range(modules):
                branches = [self._through(branch, normalised) for branch in branches]
                branches = _fused(branches, conv, normalised)
        return branches[0]

    def _through(self, x: Array, normalised: Callable[..., Array]) -> Array:
        for _ in range(self.blocks):
            x = _Basic(x.shape[-1], 1, normalised, self.dtype)(x)
        return x


def _branched(branches: list[Array], widths: list[int], conv: Any, normalised: Callable[..., Array]) -> list[Array]:
    """Branches of these widths: a new one, half as fine, from the coarsest there is."""
    out = []
    for k, width in enumerate(widths):
        if k < len(branches):
            x = branches[k]
            if x.shape[-1] != width:
                x = nn.relu(normalised(conv(width, (3, 3), padding=1)(x)))
        else:
            x = nn.relu(normalised(conv(width, (3, 3), 2, padding=1)(branches[-1])))
        out.append(x)
    return out


def _fused(branches: list[Array], conv: Any, normalised: Callable[..., Array]) -> list[Array]:
    """Each branch gets all others: finer ones by strided convolutions, coarser ones by 1x1 and repetition."""
    out = []
    for to, target in enumerate(branches):
        total = target
        for k, x in enumerate(branches):
            if k < to:
                for step in range(to - k):
                    width = target.shape[-1] if step == to - k - 1 else x.shape[-1]
                    x = normalised(conv(width, (3, 3), 2, padding=1)(x))
                    x = x if step == to - k - 1 else nn.relu(x)
                total = total + x
            elif k > to:
                x = normalised(conv(target.shape[-1], (1, 1))(x))
                total = total + jax.image.resize(x, target.shape, "nearest")
        out.append(nn.relu(total))
    return [jnp.asarray(x) for x in out]
