"""Keypoints with other bones: directions kept, lengths replaced."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.skeleton import bones

_PARENTS, _CHILDREN = np.array(bones("openpose21")).T


def bone_lengths(points: ArrayLike) -> Float[Array, "*b 20"]:
    """Lengths of the 20 bones, in the order of `bones("openpose21")`.

    Args:
        points: (..., 21, 3) keypoints, openpose21.
    """
    x = jnp.asarray(points)
    return jnp.linalg.norm(x[..., _CHILDREN, :] - x[..., _PARENTS, :], axis=-1)


def with_bone_lengths(points: ArrayLike, lengths: ArrayLike) -> Float[Array, "*b 21 3"]:
    """A hand retargeted: from the wrist along each finger, every bone keeps its direction and gets another length.

    Args:
        points: (..., 21, 3) keypoints, openpose21.
        lengths: (..., 20), in the order of `bones("openpose21")`, in the unit that the result is to have.

    Returns:
        (..., 21, 3); the wrist is the given one.
    """
    x, wanted = jnp.asarray(points), jnp.asarray(lengths)
    along = x[..., _CHILDREN, :] - x[..., _PARENTS, :]
    steps = along * (wanted / jnp.maximum(jnp.linalg.norm(along, axis=-1), 1e-9))[..., None]
    placed = {0: jnp.broadcast_to(x[..., 0, :], steps[..., 0, :].shape)}
    for bone, (parent, child) in enumerate(zip(_PARENTS.tolist(), _CHILDREN.tolist(), strict=True)):
        placed[child] = placed[parent] + steps[..., bone, :]
    return jnp.stack([placed[k] for k in range(21)], -2)
