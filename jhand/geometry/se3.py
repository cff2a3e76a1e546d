"""Rigid motions as 4x4 transforms `T_to_from`, and as twists: their logarithms.

A twist is (..., 6): the translational part first, then the axis-angle (Barfoot 2017, 7.1.2).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import rigid, so3_exp, so3_left_jacobian, so3_log

HIGHEST = lax.Precision.HIGHEST


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=HIGHEST)


def se3_exp(twist: ArrayLike) -> Float[Array, "*b 4 4"]:
    """Rigid transforms of twists (Barfoot 2017, eq. 7.86): R = exp(w), t = J(w) rho.

    Args:
        twist: (..., 6): rho, metres, then w, radians.

    Returns:
        (..., 4, 4); gradients are exact everywhere, the identity included.
    """
    xi = jnp.asarray(twist)
    return rigid(so3_exp(xi[..., 3:]), _times(so3_left_jacobian(xi[..., 3:]), xi[..., :3]))


def se3_log(T: ArrayLike) -> Float[Array, "*b 6"]:
    """Twists of rigid transforms, of a turn of at most pi; the inverse of `se3_exp`. See `so3_log` for turns of pi.

    Args:
        T: (..., 4, 4).

    Returns:
        (..., 6): rho, metres, then w, radians.
    """
    T = jnp.asarray(T)
    w = so3_log(T[..., :3, :3])
    rho = jnp.linalg.solve(so3_left_jacobian(w), T[..., :3, 3:])[..., 0]
    return jnp.concatenate([rho, w], -1)


def invert_transform(T_to_from: ArrayLike) -> Float[Array, "*b 4 4"]:
    """`T_from_to` (..., 4, 4) of rigid transforms `T_to_from`."""
    T = jnp.asarray(T_to_from)
    R = jnp.swapaxes(T[..., :3, :3], -1, -2)
    return rigid(R, -_times(R, T[..., :3, 3]))


def interpolate_transforms(T_a: ArrayLike, T_b: ArrayLike, share: ArrayLike) -> Float[Array, "*b 4 4"]:
    """The screw motion from one frame to another, `share` of the way: T_a exp(share log(T_a^-1 T_b)).

    Args:
        T_a: (..., 4, 4) where share is 0.
        T_b: (..., 4, 4) where it is 1.
        share: (...) any number; leading axes broadcast.
    """
    a = jnp.asarray(T_a)
    between = se3_log(jnp.matmul(invert_transform(a), jnp.asarray(T_b), precision=HIGHEST))
    return jnp.matmul(a, se3_exp(jnp.asarray(share)[..., None] * between), precision=HIGHEST)
