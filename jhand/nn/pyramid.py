"""Feature pyramids, and regions of interest read from them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jhand.nn.sampling import sample_bilinear


class FPN(nn.Module):
    """Feature pyramid (Lin et al., CVPR 2017): maps (b, h_i, w_i, C_i), fine to coarse, to as many of `channels`.

    Each is brought to `channels` by 1x1, the coarser one, enlarged by repeating pixels, is added, and a 3x3 follows.

    Attributes:
        channels: of all maps that come out.
        dtype: of the computation.
    """

    channels: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, maps: tuple[Array, ...]) -> tuple[Array, ...]:
        found: list[Array] = []
        for level in reversed(range(len(maps))):
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name=f"across{level}")(maps[level])
            if found:
                x = x + jax.image.resize(found[-1], (*x.shape[:-1], self.channels), "nearest")
            found.append(x)
        smooth = [
            nn.Conv(self.channels, (3, 3), dtype=self.dtype, name=f"smooth{level}")(x)
            for level, x in zip(reversed(range(len(maps))), found, strict=True)
        ]
        return tuple(reversed(smooth))


def roi_align(features: ArrayLike, boxes: ArrayLike, size: int, *, samples: int = 2) -> Float[Array, "*b s s c"]:
    """A square of features for each box: every cell is the mean of bilinear readings at regular places in it.

    RoIAlign (He et al., ICCV 2017), with half a pixel where pixels have their centres ("aligned").

    Args:
        features: (..., H, W, C).
        boxes: (..., 4) left, top, right, bottom in pixels of the map, whose first pixel reaches from -0.5 to 0.5.
        size: S, cells along a side.
        samples: readings along a side of a cell.

    Returns:
        (..., S, S, C); beyond the map features are 0.
    """
    box = jnp.asarray(boxes)
    share = (jnp.arange(size * samples) + 0.5) / (size * samples)
    x = box[..., :1] + share * (box[..., 2:3] - box[..., :1])
    y = box[..., 1:2] + share * (box[..., 3:] - box[..., 1:2])
    points = jnp.stack(jnp.broadcast_arrays(x[..., None, :], y[..., :, None]), -1).reshape(*box.shape[:-1], -1, 2)
    found = sample_bilinear(features, points).reshape(*box.shape[:-1], size, samples, size, samples, -1)
    return jnp.mean(found, (-4, -2))
