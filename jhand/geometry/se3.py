"""Rigid motions as 4x4 transforms `T_to_from`, and as twists: their logarithms.

A twist is (..., 6): the translational part first, then the axis-angle (Barfoot 2017, 7.1.2).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.alignment import mean_rotation
from jhand.geometry.rotations import so3_exp, so3_left_jacobian, so3_log

HIGHEST = lax.Precision.HIGHEST


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=HIGHEST)


def rigid(rotation: ArrayLike, translation: ArrayLike) -> Float[Array, "*b 4 4"]:
    """Rigid transforms (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3) in metres."""
    R, t = jnp.asarray(rotation), jnp.asarray(translation)
    batch = jnp.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    R, t = jnp.broadcast_to(R, (*batch, 3, 3)), jnp.broadcast_to(t, (*batch, 3))
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], R.dtype), (*batch, 1, 4))
    return jnp.concatenate([jnp.concatenate([R, t[..., None]], -1), last], -2)


def transform(T_to_from: ArrayLike, points: ArrayLike) -> Float[Array, "*b n 3"]:
    """Points in another frame: x_to = R x_from + t.

    Args:
        T_to_from: rigid transforms (..., 4, 4).
        points: (..., N, 3) in the frame `from`.

    Returns:
        (..., N, 3) in the frame `to`.
    """
    T, x = jnp.asarray(T_to_from), jnp.asarray(points)
    turned = jnp.einsum("...ij,...nj->...ni", T[..., :3, :3], x, precision=HIGHEST)
    return turned + jnp.broadcast_to(T[..., None, :3, 3], turned.shape)


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


def mean_transform(transforms: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, "*b 4 4"]:
    """The mean of N poses: `mean_rotation` of their rotations and the mean of their translations.

    Which point's translations are averaged matters where rotations differ: it is the origin that they map from.

    Args:
        transforms: (..., N, 4, 4).
        weights: (..., N) not negative; by default all equal.

    Returns:
        (..., 4, 4).
    """
    T = jnp.asarray(transforms)
    w = jnp.ones(T.shape[:-2]) if weights is None else jnp.asarray(weights)
    share = w / jnp.maximum(jnp.sum(w, -1, keepdims=True), 1e-12)
    return rigid(
        mean_rotation(T[..., :3, :3], w), jnp.einsum("...n,...ni->...i", share, T[..., :3, 3], precision=HIGHEST)
    )
