"""Rotations: axis-angle at the boundary, 3x3 matrices inside, 6D for networks, quaternions (w, x, y, z) in files.

Every function takes any leading axes and can be vmapped. Gradients of `so3_exp` are exact everywhere, the identity
included.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

# Below this squared angle (rad^2) the closed forms lose float32 digits and their Taylor series are exact to rounding.
_SMALL_ANGLE_SQUARED = 1e-3


def skew(v: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Cross-product matrix: `skew(v) @ x == cross(v, x)`.

    Args:
        v: vectors (..., 3).

    Returns:
        Matrices (..., 3, 3).
    """
    x, y, z = jnp.moveaxis(jnp.asarray(v), -1, 0)
    o = jnp.zeros_like(x)
    return jnp.stack([jnp.stack([o, -z, y], -1), jnp.stack([z, o, -x], -1), jnp.stack([-y, x, o], -1)], -2)


def _sinc_terms(w: Array) -> tuple[Array, Array, Array]:
    """sin t / t, (1 - cos t) / t^2 and (t - sin t) / t^3 of t = |w|, each (...), smooth in w through zero."""
    t2 = jnp.sum(w * w, -1)
    small = t2 < _SMALL_ANGLE_SQUARED
    t2s = jnp.where(small, 1.0, t2)  # the branch not taken must stay finite for its gradient
    t = jnp.sqrt(t2s)
    half_sin, half_cos = jnp.sin(t / 2), jnp.cos(t / 2)  # 1 - cos t = 2 sin^2 (t / 2) loses no digits
    sin = 2 * half_sin * half_cos
    sinc = jnp.where(small, 1 - t2 / 6 + t2 * t2 / 120, sin / t)
    cosc = jnp.where(small, 0.5 - t2 / 24 + t2 * t2 / 720, 2 * half_sin * half_sin / t2s)
    cubic = jnp.where(small, 1 / 6 - t2 / 120 + t2 * t2 / 5040, (t - sin) / (t2s * t))
    return sinc, cosc, cubic


def _skew_polynomial(v: Array, a: Array, b: Array) -> Array:
    """I + a [v] + b [v]^2 of vectors (..., 3) and scalars (...).

    Written entry by entry: as sums of matrices, XLA runs it two to three times slower.
    """
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    ax, ay, az = a * x, a * y, a * z
    bx, by, bz = b * x, b * y, b * z
    xx, yy, zz, xy, xz, yz = bx * x, by * y, bz * z, bx * y, bx * z, by * z
    entries = [1 - yy - zz, xy - az, xz + ay, xy + az, 1 - xx - zz, yz - ax, xz - ay, yz + ax, 1 - xx - yy]
    return jnp.stack(entries, -1).reshape(*v.shape, 3)


def so3_exp(axis_angle: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Rotation matrices from axis-angle vectors (Rodrigues 1840): R = I + sin t / t [w] + (1 - cos t) / t^2 [w]^2.

    Args:
        axis_angle: (..., 3) radians, any length.

    Returns:
        Rotation matrices (..., 3, 3); gradients are exact everywhere, the identity included.
    """
    w = jnp.asarray(axis_angle)
    sinc, cosc, _ = _sinc_terms(w)
    return _skew_polynomial(w, sinc, cosc)


def so3_left_jacobian(axis_angle: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Left Jacobian of `so3_exp`: exp(w + d) = exp(J d) exp(w) to first order in d (Sola et al. 2018, eq. 145).

    Args:
        axis_angle: (..., 3) radians.

    Returns:
        J (..., 3, 3).
    """
    w = jnp.asarray(axis_angle)
    _, cosc, cubic = _sinc_terms(w)
    return _skew_polynomial(w, cosc, cubic)


def so3_log(rotation: ArrayLike) -> Float[Array, "*b 3"]:
    """Axis-angle vectors of rotation matrices, of length at most pi.

    At an angle of exactly pi the axis has two signs; one is returned and the gradient is that of its side, finite.
    It is a boundary function: keep it out of losses (compare matrices instead).

    Args:
        rotation: rotation matrices (..., 3, 3).

    Returns:
        (..., 3) radians.
    """
    q = rotation_to_quaternion(rotation)
    w, v = q[..., :1], q[..., 1:]
    n2 = jnp.sum(v * v, -1, keepdims=True)
    small = n2 < 1e-8
    n = jnp.sqrt(jnp.where(small, 1.0, n2))
    # w >= 0 from rotation_to_quaternion, so 2 atan2(n, w) is in [0, pi]
    scale = jnp.where(small, 2 + n2 / 3, 2 * jnp.arctan2(n, w) / n)
    return scale * v


def geodesic_distance(R_a: ArrayLike, R_b: ArrayLike) -> Float[Array, "*b"]:
    """Angle of the rotation between two rotations (Huynh, JMIV 2009, the sixth).

    From sine and cosine both: exact to rounding from 0 to pi, which the arc cosine of a trace is at neither end.

    Args:
        R_a: (..., 3, 3).
        R_b: (..., 3, 3), leading axes broadcast.

    Returns:
        (...,) radians, from 0 to pi; the gradient at 0 and at pi, where there is none, is zero.
    """
    R = jnp.einsum("...ki,...kj->...ij", jnp.asarray(R_a), jnp.asarray(R_b), precision=lax.Precision.HIGHEST)
    axis = jnp.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    squared = jnp.sum(axis * axis, -1)
    turned = squared > 0
    sine = jnp.where(turned, jnp.sqrt(jnp.where(turned, squared, 1)), 0)
    return jnp.arctan2(sine, jnp.trace(R, axis1=-2, axis2=-1) - 1)


def slerp(R_a: ArrayLike, R_b: ArrayLike, share: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Part of the shortest turn from one rotation to another (Shoemake 1985): R_a exp(share log(R_a^T R_b)).

    Args:
        R_a: (..., 3, 3) where share is 0.
        R_b: (..., 3, 3) where it is 1.
        share: (...) any number; leading axes broadcast.

    Returns:
        (..., 3, 3).
    """
    a = jnp.asarray(R_a)
    turn = so3_log(jnp.einsum("...ki,...kj->...ij", a, jnp.asarray(R_b), precision=lax.Precision.HIGHEST))
    return jnp.matmul(a, so3_exp(jnp.asarray(share)[..., None] * turn), precision=lax.Precision.HIGHEST)


def rotation_to_quaternion(rotation: ArrayLike) -> Float[Array, "*b 4"]:
    """Unit quaternions (w, x, y, z), w >= 0, of rotation matrices (Shepperd 1978: the largest component is divided by).

    Args:
        rotation: rotation matrices (..., 3, 3).

    Returns:
        (..., 4).
    """
    m = jnp.asarray(rotation)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    # four times the products q_i q_j, one row per pivot i
    ww4 = jnp.stack([1 + xx + yy + zz, wx, wy, wz], -1)
    xx4 = jnp.stack([wx, 1 + xx - yy - zz, xy, xz], -1)
    yy4 = jnp.stack([wy, xy, 1 - xx + yy - zz, yz], -1)
    zz4 = jnp.stack([wz, xz, yz, 1 - xx - yy + zz], -1)
    rows = jnp.stack([ww4, xx4, yy4, zz4], -2)
    pivot = jnp.argmax(jnp.stack([ww4[..., 0], xx4[..., 1], yy4[..., 2], zz4[..., 3]], -1), -1)
    row = jnp.take_along_axis(rows, pivot[..., None, None], -2)[..., 0, :]
    q = row / jnp.linalg.norm(row, axis=-1, keepdims=True)
    return jnp.where(q[..., :1] < 0, -q, q)


def rotation_from_quaternion(quaternion: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), normalised first.

    Args:
        quaternion: (..., 4), not zero.

    Returns:
        (..., 3, 3).
    """
    q = jnp.asarray(quaternion)
    q = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
    return _skew_polynomial(q[..., 1:], 2 * q[..., 0], jnp.full_like(q[..., 0], 2))


def rotation_from_6d(sixd: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Rotation matrices from their first two columns, orthonormalised (Zhou et al., CVPR 2019, eq. 16).

    Args:
        sixd: (..., 6), the first column then the second; not zero and not parallel.

    Returns:
        (..., 3, 3).
    """
    a = jnp.asarray(sixd)
    x = a[..., :3] / jnp.linalg.norm(a[..., :3], axis=-1, keepdims=True)
    y = a[..., 3:] - jnp.sum(x * a[..., 3:], -1, keepdims=True) * x
    y = y / jnp.linalg.norm(y, axis=-1, keepdims=True)
    return jnp.stack([x, y, jnp.cross(x, y)], -1)


def rotation_to_6d(rotation: ArrayLike) -> Float[Array, "*b 6"]:
    """First two columns of rotation matrices, the first then the second.

    Args:
        rotation: (..., 3, 3).

    Returns:
        (..., 6).
    """
    r = jnp.asarray(rotation)
    return jnp.concatenate([r[..., :, 0], r[..., :, 1]], -1)
