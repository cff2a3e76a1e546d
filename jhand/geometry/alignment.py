"""Alignment of point sets by their correspondence: the orthogonal Procrustes problem, rigid or with scale."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

HIGHEST = lax.Precision.HIGHEST


@jax.custom_jvp
def nearest_rotation(matrix: ArrayLike) -> Float[Array, "*b 3 3"]:
    """The rotation nearest to M in the Frobenius norm, which maximises tr(R^T M) (Umeyama 1991, lemma).

    The gradient is that of the polar decomposition, exact and finite also where singular values coincide. Where several
    rotations are equally near (M of rank below 2, or a mirror image whose two least singular values are equal), one of
    them is returned, and the gradient is zero along the directions left open.

    Args:
        matrix: M (..., 3, 3).

    Returns:
        Rotation matrices (..., 3, 3), determinant +1.
    """
    U, _, Vt, proper = _svd(jnp.asarray(matrix))
    return jnp.matmul(U * proper[..., None, :], Vt, precision=HIGHEST)


def _svd(M: Array) -> tuple[Array, Array, Array, Array]:
    """U, singular values, V^T, and the signs (1, 1, +-1) that make U diag(signs) V^T a rotation."""
    U, s, Vt = jnp.linalg.svd(M)
    mirrored = jnp.linalg.det(jnp.matmul(U, Vt, precision=HIGHEST)) < 0
    ones = jnp.ones_like(s)
    return U, s, Vt, jnp.where(mirrored[..., None], ones.at[..., 2].set(-1), ones)


@nearest_rotation.defjvp
def _nearest_rotation_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # M = R P with P = V diag(p) V^T symmetric, so R^T dM - dM^T R = W P + P W for the skew W = R^T dR:
    # in V's basis every entry of W is divided by p_i + p_j, which vanishes only where R is not unique.
    (M,), (dM,) = primals, tangents
    U, s, Vt, proper = _svd(jnp.asarray(M))
    R = jnp.matmul(U * proper[..., None, :], Vt, precision=HIGHEST)
    V = jnp.swapaxes(Vt, -1, -2)
    A = jnp.matmul(
        jnp.matmul(jnp.swapaxes(U * proper[..., None, :], -1, -2), dM, precision=HIGHEST), V, precision=HIGHEST
    )
    p = s * proper
    sums = p[..., :, None] + p[..., None, :]
    unique = sums > 1e-6 * s[..., :1, None]
    W = jnp.where(unique, (A - jnp.swapaxes(A, -1, -2)) / jnp.where(unique, sums, 1), 0)
    dR = jnp.matmul(jnp.matmul(U * proper[..., None, :], W, precision=HIGHEST), Vt, precision=HIGHEST)
    return R, dR


def mean_rotation(rotations: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, "*b 3 3"]:
    """The rotation nearest to N others in the sum of squared chords (Hartley et al., IJCV 2013, section 5.3): closed
    form.

    Args:
        rotations: (..., N, 3, 3).
        weights: (..., N) not negative; by default all equal.

    Returns:
        (..., 3, 3); see `nearest_rotation` for rotations that cancel.
    """
    R = jnp.asarray(rotations)
    w = jnp.ones(R.shape[:-2]) if weights is None else jnp.asarray(weights)
    return nearest_rotation(jnp.einsum("...n,...nij->...ij", w, R, precision=HIGHEST))


def procrustes(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b"], Float[Array, "*b 3"]]:
    """The similarity that carries `source` onto `target`, least in weighted squared distance (Umeyama 1991, eq. 40-42).

    Reflections are excluded. Fewer than three points, or collinear ones, leave a turn open: one answer of many is
    returned. A source whose points coincide has no size, and its scale is 1.

    Args:
        source: (..., K, 3).
        target: (..., K, 3), leading axes broadcast.
        weights: (..., K) not negative; points of weight 0 are not read. By default all equal.

    Returns:
        R (..., 3, 3), scale (...,) and t (..., 3) with target ~ scale R source + t.

    Raises:
        ValueError: point sets of another shape, or unlike each other.
    """
    x, y, w, x_mean, y_mean = _centred(source, target, weights)
    M = jnp.einsum("...k,...ki,...kj->...ij", w, y, x, precision=HIGHEST)
    R = nearest_rotation(M)
    spread = jnp.sum(w * jnp.sum(x * x, -1), -1)
    has_size = spread > 0
    scale = jnp.where(has_size, jnp.sum(R * M, (-1, -2)) / jnp.where(has_size, spread, 1), 1)
    return R, scale, y_mean - scale[..., None] * _rotate(R, x_mean)


def rigid_procrustes(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """`procrustes` without scale: the rigid motion that carries `source` onto `target` (Kabsch 1976).

    Args:
        source: (..., K, 3).
        target: (..., K, 3), leading axes broadcast.
        weights: (..., K) not negative; points of weight 0 are not read. By default all equal.

    Returns:
        R (..., 3, 3) and t (..., 3) with target ~ R source + t.

    Raises:
        ValueError: point sets of another shape, or unlike each other.
    """
    x, y, w, x_mean, y_mean = _centred(source, target, weights)
    R = nearest_rotation(jnp.einsum("...k,...ki,...kj->...ij", w, y, x, precision=HIGHEST))
    return R, y_mean - _rotate(R, x_mean)


def _rotate(R: Array, x: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", R, x, precision=HIGHEST)


def _centred(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None
) -> tuple[Array, Array, Array, Array, Array]:
    """Both point sets about their weighted means, weights of sum 1, and the means, with leading axes broadcast."""
    x, y = jnp.asarray(source), jnp.asarray(target)
    if x.ndim < 2 or x.shape[-1] != 3 or x.shape[-2:] != y.shape[-2:]:
        raise ValueError(f"expected source and target of one shape (..., K, 3), got {x.shape} and {y.shape}")
    w = jnp.ones(x.shape[-2:-1]) if weights is None else jnp.asarray(weights)
    if w.shape[-1:] != x.shape[-2:-1]:
        raise ValueError(f"weights: expected shape (..., {x.shape[-2]}), one for each point, got {w.shape}")
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], w.shape[:-1])
    used = jnp.broadcast_to(w > 0, (*batch, w.shape[-1]))
    x = jnp.where(used[..., None], x, 0)  # before any product: 0 * nan is nan
    y = jnp.where(used[..., None], y, 0)
    total = jnp.sum(w, -1, keepdims=True)
    w = jnp.where(used, w / jnp.where(total > 0, total, 1), 0)
    x_mean, y_mean = jnp.sum(w[..., None] * x, -2), jnp.sum(w[..., None] * y, -2)
    return x - x_mean[..., None, :], y - y_mean[..., None, :], w, x_mean, y_mean
