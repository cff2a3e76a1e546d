"""SimCC: keypoints as two classifications, one of columns and one of rows (Li et al., ECCV 2022), as RTMPose has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jhand.nn.attention import Encoder


class SimCCHead(nn.Module):
    """A map of features (..., h, w, C) to logits (..., K, 2, bins), of columns and of rows.

    As in RTMPose (Jiang et al., 2023), points look at each other before they are placed.

    Attributes:
        num_points: K.
        bins: across the picture; more than its pixels tell places between them.
        channels: of each point, a multiple of 4.
        dtype: of the linear maps; logits are float32.
    """

    num_points: int
    bins: int
    channels: int = 256
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        maps = nn.Dense(self.num_points, dtype=self.dtype, name="points")(features)
        flat = jnp.moveaxis(maps, -1, -3).reshape(*maps.shape[:-3], self.num_points, -1)
        tokens = nn.Dense(self.channels, dtype=self.dtype, name="tokens")(flat)
        tokens = Encoder(1, heads=4, mlp_ratio=2.0, dtype=self.dtype, name="between")(tokens)
        both = [nn.Dense(self.bins, dtype=self.dtype, name=name)(tokens) for name in ("columns", "rows")]
        return jnp.stack(both, -2).astype(jnp.float32)


def simcc_loss(logits: ArrayLike, points: ArrayLike, weights: ArrayLike, *, sigma: float = 2.0) -> Float[Array, ""]:
    """Cross-entropy with Gaussians about the true places, the mean over points that count.

    Args:
        logits: (..., K, 2, bins).
        points: (..., K, 2) x and y from 0 to 1 across the picture.
        weights: (..., K); points outside of the picture never count.
        sigma: of the Gaussians, bins.
    """
    x, p = jnp.asarray(logits), jnp.asarray(points)
    bins = x.shape[-1]
    off = jnp.arange(bins) + 0.5 - p[..., None] * bins
    wanted = jax.nn.softmax(-jnp.square(off / sigma) / 2, -1)
    missed = -jnp.sum(wanted * jax.nn.log_softmax(x, -1), (-1, -2))
    counts = jnp.asarray(weights) * jnp.all((p >= 0) & (p < 1), -1)
    return jnp.sum(missed * counts) / jnp.maximum(jnp.sum(counts), 1)


def simcc_points(logits: ArrayLike, *, sigma: float = 2.0) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Where points are, and how sure that is.

    Args:
        logits: (..., K, 2, bins).
        sigma: that of the training, bins.

    Returns:
        Points (..., K, 2) from 0 to 1 across the picture: the mean within 3 sigma of the likeliest bin. Confidence
        (..., K): what is within, the lesser of columns and rows; near 1 where there is one place, little where many.
    """
    chance = jax.nn.softmax(jnp.asarray(logits), -1)
    bins = chance.shape[-1]
    place = jnp.arange(bins)
    near = jnp.abs(place - jnp.argmax(chance, -1)[..., None]) <= 3 * sigma
    within = jnp.sum(chance * near, -1)
    mean = jnp.sum(chance * near * (place + 0.5), -1) / within
    return mean / bins, jnp.min(within, -1)
