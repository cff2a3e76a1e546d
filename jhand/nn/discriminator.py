"""Is this a hand's pose? Discriminators of poses and shapes, and the least-squares losses they are trained with."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float


class PoseDiscriminator(nn.Module):
    """Scores of poses: one a joint, one of all joints, one of the shape (HMR: Kanazawa et al., CVPR 2018, section 3.3).

    A joint's rotation matrix goes through two layers that all joints share and one of its own; all joints together
    through two of 1024. Widths are HaMeR's.

    Attributes:
        features: of a joint.
        hidden: of all joints together.
        dtype: of the computation.
    """

    features: int = 32
    hidden: int = 1024
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, rotations: Array, betas: Array) -> Float[Array, "*b k"]:
        """Rotations (..., J, 3, 3), 15 for the fingers of a hand, and betas (..., 10) to scores (..., J + 2)."""
        *batch, joints, _, _ = rotations.shape
        x = rotations.reshape(*batch, joints, 9)
        x = nn.relu(nn.Dense(self.features, dtype=self.dtype)(x))
        x = nn.relu(nn.Dense(self.features, dtype=self.dtype)(x))
        kernel = self.param("joints", nn.initializers.lecun_normal(in_axis=1, out_axis=0), (joints, self.features))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        one_by_one = jnp.sum(x * kernel, -1) + self.param("joints_bias", nn.initializers.zeros_init(), (joints,))
        together = x.reshape(*batch, -1)
        for _ in range(2):
            together = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(together))
        together = nn.Dense(1, dtype=self.dtype)(together)
        shape = nn.relu(nn.Dense(10, dtype=self.dtype)(betas))
        shape = nn.relu(nn.Dense(5, dtype=self.dtype)(shape))
        shape = nn.Dense(1, dtype=self.dtype)(shape)
        return jnp.concatenate([one_by_one, shape, together], -1)


class MotionDiscriminator(nn.Module):
    """A score of a motion (b, T, C), by two recurrent layers and attention over time (VIBE: Kocabas et al., CVPR 2020).

    Attention is a softmax over frames of what three linear layers with tanh say of each.

    Attributes:
        hidden: of the recurrent layers.
        attention: hidden channels of the attention's layers.
        dropout: share of values dropped in the attention.
    """

    hidden: int = 1024
    attention: int = 1024
    dropout: float = 0.2

    @nn.compact
    def __call__(self, motion: Array, *, deterministic: bool = True) -> Float[Array, "b 1"]:
        x = motion
        for layer in range(2):
            recurrent: Any = nn.RNN(nn.GRUCell(self.hidden), name=f"over_time{layer}")
            x = recurrent(x)
        y = x
        for _ in range(2):
            y = jnp.tanh(nn.Dense(self.attention)(y))
            y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        weights = nn.softmax(nn.Dense(1)(y), 1)
        return nn.Dense(1, name="score")(jnp.sum(weights * x, 1))


def lsgan_discriminator_loss(real: ArrayLike, fake: ArrayLike) -> Float[Array, "*b"]:
    """What the discriminator minimises (Mao et al., ICCV 2017, eq. 2, a = 0, b = 1): real scores to 1, others to 0.

    Args:
        real: scores (..., S) of what is real.
        fake: scores (..., S) of what a network made; its gradient is stopped by the caller.

    Returns:
        (...,) sums over the scores of one sample.
    """
    return jnp.sum(jnp.square(jnp.asarray(real) - 1), -1) + jnp.sum(jnp.square(jnp.asarray(fake)), -1)


def lsgan_generator_loss(fake: ArrayLike) -> Float[Array, "*b"]:
    """What the network minimises (Mao et al., ICCV 2017, eq. 2 with c = 1): its scores (..., S) to 1; sums (...,)."""
    return jnp.sum(jnp.square(jnp.asarray(fake) - 1), -1)
