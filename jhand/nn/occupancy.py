"""HALO: a hand as the inside of an implicit surface that 21 keypoints carry (Karunratanakul et al., 3DV 2021).

Keypoints give a frame to the palm and to each bone of the fingers, and the bones' lengths; a point of space is looked
at from each of these 16 frames by a small network of its own, and is inside the hand where any of them says so. There
are no parameters of pose or shape.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

HIGHEST = lax.Precision.HIGHEST
PARTS = 16
_NEAR, _FAR = 0.02, 0.1  # metres that networks see as 1: of points beside a bone, of bones in a hand
_FLOOR = 1e-9
# Biomechanical order: 5 roots of fingers, thumb first, then their next joints, and so on to the tips, after the wrist.
_BIOMECHANICAL = np.array([0, *(1 + 4 * finger + joint for joint in range(4) for finger in range(5))])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BoneFrames:
    """Of the palm, then of the fingers' bones: 5 from the roots outwards, thumb first, 5 after them, the 5 last."""

    T_world_bone: Float[Array, "*b 16 4 4"]
    """The origin at the bone's near end, z along it, x out of the back of the hand, y = z x x."""
    lengths: Float[Array, "*b 16"]
    """Metres; the palm's is that from the wrist to the middle finger's root."""
    angles: Float[Array, "*b 15 2"]
    """Flexion and abduction of each finger's bone against the one before, radians; for roots, against the metacarpal.
    A bone's frame follows from its parent's by these two: there is no twist that keypoints could tell."""


def bone_frames(keypoints: ArrayLike) -> BoneFrames:
    """Keypoints to 16 frames: biomechanical order, canonical palm, then outwards along each finger.

    The palm's frame has the wrist as origin, z to the root of the middle finger and the palm's normal as x. A
    metacarpal's frame has the normal of the palm beside it. Each next bone turns by flexion about y, then by abduction
    about x, so that a straight finger, too, has frames.

    Args:
        keypoints: (..., 21, 3) metres, of a right hand, jhand's order.

    Raises:
        ValueError: another number of keypoints.
    """
    points = jnp.asarray(keypoints)
    if points.shape[-2:] != (21, 3):
        raise ValueError(f"keypoints: expected (..., 21, 3), got {points.shape}")
    points = points[..., _BIOMECHANICAL, :]
    wrist, chain = points[..., :1, :], points[..., 1:, :].reshape(*points.shape[:-2], 4, 5, 3)
    metacarpals = _unit(chain[..., 0, :, :] - wrist)
    # normals of the palm between neighbours, out of the back of a right hand: thumb-index, index-middle, ...
    between = _unit(jnp.cross(metacarpals[..., 1:, :], metacarpals[..., :-1, :]))
    normals = jnp.concatenate(
        [between[..., :2, :], between[..., 1:-1, :] + between[..., 2:, :], between[..., -1:, :]], -2
    )
    R = _frame(metacarpals, normals)
    palm = _frame(metacarpals[..., 2, :], jnp.sum(between[..., 1:, :], -2))
    rotations, angles = [palm[..., None, :, :]], []
    for level in range(3):
        bone = _unit(chain[..., level + 1, :, :] - chain[..., level, :, :])
        R, turned = _turn(R, bone)
        rotations.append(R)
        angles.append(turned)
    origins = jnp.concatenate([wrist, chain[..., :3, :, :].reshape(*points.shape[:-2], 15, 3)], -2)
    bones = chain[..., 1:, :, :] - chain[..., :3, :, :]
    lengths = _norm(bones).reshape(*points.shape[:-2], 15)
    palm_length = _norm(chain[..., 0, 2, :] - wrist[..., 0, :])[..., None]
    T = jnp.concatenate([jnp.concatenate(rotations, -3), origins[..., None]], -1)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (*T.shape[:-2], 1, 4))
    return BoneFrames(
        jnp.concatenate([T, last], -2), jnp.concatenate([palm_length, lengths], -1), jnp.concatenate(angles, -2)
    )


def _turn(R: Array, bone: Array) -> tuple[Array, Array]:
    """The frame of a bone from that before it, by the smallest flexion and abduction that carry z to the bone."""
    local = jnp.einsum("...ji,...j->...i", R, bone, precision=HIGHEST)
    flexion = jnp.arctan2(-local[..., 0], _away(local[..., 2]))
    abduction = jnp.arctan2(local[..., 1], jnp.sqrt(local[..., 0] ** 2 + local[..., 2] ** 2 + _FLOOR))
    zero, one = jnp.zeros_like(flexion), jnp.ones_like(flexion)
    c, s = jnp.cos(flexion), jnp.sin(flexion)
    about_y = jnp.stack([c, zero, -s, zero, one, zero, s, zero, c], -1).reshape(*flexion.shape, 3, 3)
    c, s = jnp.cos(abduction), jnp.sin(abduction)
    about_x = jnp.stack([one, zero, zero, zero, c, s, zero, -s, c], -1).reshape(*flexion.shape, 3, 3)
    turned = jnp.matmul(jnp.matmul(R, about_y, precision=HIGHEST), about_x, precision=HIGHEST)
    return turned, jnp.stack([flexion, abduction], -1)


def _away(x: Array) -> Array:
    """From zero, where the slope of an angle is not defined."""
    return jnp.where(jnp.abs(x) < _FLOOR, _FLOOR, x)


def _frame(along: Array, normal: Array) -> Array:
    """z along a bone, x as near to the normal as that allows."""
    x = _unit(normal - jnp.sum(normal * along, -1, keepdims=True) * along)
    return jnp.stack([x, jnp.cross(along, x), along], -1)


def _norm(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, -1) + _FLOOR**2)


def _unit(v: Array) -> Array:
    return v / _norm(v)[..., None]


class _Part(nn.Module):
    """One part's network: a point in its frame (..., P, 3) and the codes of the hand (..., C) to logits (..., P)."""

    width: int
    layers: int

    @nn.compact
    def __call__(self, local: Array, codes: Array) -> Array:
        seen = local.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (seen + codes.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        # one layer of points and codes together; what codes add is the same for all points of a hand
        h = local @ kernel[:seen] + (codes @ kernel[seen:] + bias)[..., None, :]
        h = nn.leaky_relu(h, 0.1)
        for _ in range(self.layers - 1):
            h = h + nn.leaky_relu(nn.Dense(self.width)(h), 0.1)
        # outside of all parts at first, so that each grows where it is the one that is asked for
        return nn.Dense(1, bias_init=nn.initializers.constant(-1.0))(h)[..., 0]


class HALO(nn.Module):
    """Occupancy of the hand of 21 keypoints: 16 part networks of which the most certain counts.

    Attributes:
        width: of the parts' layers.
        layers: of each part, with residual connections.
        pose_code: numbers to which each part reduces the origins of the bones.
        length_code: numbers to which all lengths are reduced, by a network of two layers.
    """

    width: int = 64
    layers: int = 4
    pose_code: int = 8
    length_code: int = 16

    def __call__(self, keypoints: ArrayLike, points: ArrayLike) -> Float[Array, "*b p"]:
        """Occupancy, from 0 outside to 1 inside; the surface is where it is 1/2.

        Args:
            keypoints: (..., 21, 3) metres, of a right hand.
            points: (..., P, 3) metres, in the same frame.
        """
        return jnp.max(self.of_parts(keypoints, points), 0)

    @nn.compact
    def of_parts(self, keypoints: ArrayLike, points: ArrayLike) -> Float[Array, "16 *b p"]:
        """What each part says of points, in the order of `BoneFrames`; arguments as those of a call."""
        frames = bone_frames(keypoints)
        R, origin = frames.T_world_bone[..., :3, :3], frames.T_world_bone[..., :3, 3]
        away = jnp.asarray(points)[..., None, :] - origin[..., None, :, :]
        local = jnp.einsum("...kij,...pki->...pkj", R, away, precision=HIGHEST) / _NEAR
        # where the bones begin, seen from the palm: the pose, whatever way the hand is turned
        from_wrist = origin - origin[..., :1, :]
        origins = jnp.einsum("...ij,...ki->...kj", R[..., 0, :, :], from_wrist, precision=HIGHEST) / _FAR
        origins = origins.reshape(*origins.shape[:-2], 3 * PARTS)
        pose = nn.Dense(PARTS * self.pose_code, name="pose")(origins)
        pose = pose.reshape(*pose.shape[:-1], PARTS, self.pose_code)
        lengths = frames.lengths / _FAR
        shape = nn.relu(nn.Dense(40, name="lengths_1")(lengths))
        shape = nn.Dense(self.length_code, name="lengths_2")(shape)
        shape = jnp.broadcast_to(shape[..., None, :], (*pose.shape[:-1], self.length_code))
        codes = jnp.concatenate([pose, lengths[..., None], shape], -1)
        parts = nn.vmap(
            partial(_Part, self.width, self.layers),
            axis_size=PARTS,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        first = lambda x, axis: jnp.moveaxis(x, axis, 0)  # noqa: E731
        return nn.sigmoid(parts(name="parts")(first(local, -2), first(codes, -2)))
