"""Heads: features to a hand's parameters."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import rotation_from_6d, rotation_to_6d, so3_exp
from jhand.hand.model import HandModel

_CAMERA = (8.0, 0.0, 0.0)  # a hand fills three quarters of its crop


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HandEstimate:
    """What a network says of a hand, in the space that it regresses; leading axes are a batch.

    Attributes:
        pose: 16 rotations, the wrist's and the fingers' relative to the flat hand, as their first two columns.
        betas: shape.
        camera: weak: scale s, and a shift (x, y) that is metres; see `translation_from_estimate`.
    """

    pose: Float[Array, "*b 16 6"]
    betas: Float[Array, "*b 10"]
    camera: Float[Array, "*b 3"]

    @property
    def rotations(self) -> Float[Array, "*b 16 3 3"]:
        """The pose as rotation matrices (Zhou et al., CVPR 2019)."""
        return rotation_from_6d(self.pose)


def mean_estimate(hand: HandModel) -> HandEstimate:
    """The hand's mean pose and shape before a camera that sees it whole: where regression may start.

    Args:
        hand: the model, for its mean pose.
    """
    axis_angle = jnp.concatenate([jnp.zeros((1, 3)), hand.hands_mean.reshape(15, 3)])
    return HandEstimate(rotation_to_6d(so3_exp(axis_angle)), jnp.zeros(10), jnp.asarray(_CAMERA))


class HandHead(nn.Module):
    """Features (..., C) to a `HandEstimate`: pose 96, betas 10, camera 3, each a linear map added to a start.

    As HMR (Kanazawa et al., CVPR 2018, section 3.2) and HaMeR have it. The maps begin small, so that the first estimate
    is the start.

    Attributes:
        dtype: of the linear maps; the estimate is float32.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, start: HandEstimate | None = None) -> HandEstimate:
        """The estimate (...); `start` is a mean or an estimate before, and without it a mean is learned from the flat
        hand on.
        """
        if start is None:
            flat = jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), (16, 1))
            mean = HandEstimate(flat, jnp.zeros(10), jnp.asarray(_CAMERA))
            start = HandEstimate(*(self.param(f"mean_{n}", lambda _, v=v: v) for n, v in vars(mean).items()))
        initial = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")  # HaMeR: Xavier, gain 0.01
        change = [
            nn.Dense(size, dtype=self.dtype, kernel_init=initial, name=name)(x).astype(jnp.float32)
            for name, size in (("pose", 96), ("betas", 10), ("camera", 3))
        ]
        change[0] = change[0].reshape(*x.shape[:-1], 16, 6)
        return HandEstimate(start.pose + change[0], start.betas + change[1], start.camera + change[2])


def translation_from_estimate(camera: ArrayLike, focal: ArrayLike, size: ArrayLike) -> Float[Array, "*b 3"]:
    """Where the hand is before a full camera: (x, y, 2 f / (size s + 1e-9)), as HaMeR and Hamba have it.

    The hand then appears as in the weak camera (s, x, y), where the crop reaches from -1 to 1; the principal point is
    the crop's centre.

    Args:
        camera: (..., 3): s, 1 / metres; x and y, metres.
        focal: (...,) pixels of the crop.
        size: (...,) the crop's side, pixels.

    Returns:
        (..., 3) metres.
    """
    c = jnp.asarray(camera)
    depth = 2 * jnp.asarray(focal) / (jnp.asarray(size) * c[..., 0] + 1e-9)
    return jnp.stack([c[..., 1], c[..., 2], jnp.broadcast_to(depth, c.shape[:-1])], -1)
