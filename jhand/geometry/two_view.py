"""What two pictures of a scene say of each other, from points that correspond.

A homography where the scene is a plane or the camera only turned, else a fundamental matrix.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry.consensus import ransac

HIGHEST = lax.Precision.HIGHEST


def homography(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, "*b 3 3"]:
    """The homography H with target ~ H source, by the normalised direct linear transform (Hartley and Zisserman 2004,
    algorithm 4.2).

    Args:
        source: (..., N, 2), four points or more, no three of four on a line.
        target: (..., N, 2).
        weights: (..., N) not negative; points of weight 0 are not read. By default all equal.

    Returns:
        H (..., 3, 3) of Frobenius norm 1; always finite, of no meaning where the points leave it open.

    Raises:
        ValueError: point sets of another shape, or unlike each other.
    """
    x, y, w = _corresponding(source, target, weights)
    x, A = _normalise(x, w)
    y, B = _normalise(y, w)
    p = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)
    zeros = jnp.zeros_like(p)
    rows_u = jnp.concatenate([p, zeros, -y[..., :1] * p], -1)
    rows_v = jnp.concatenate([zeros, p, -y[..., 1:] * p], -1)
    rows = jnp.sqrt(w)[..., None, None] * jnp.stack([rows_u, rows_v], -2)
    H = _null_vector(rows.reshape(*rows.shape[:-3], -1, 9)).reshape(*rows.shape[:-3], 3, 3)
    H = jnp.matmul(jnp.linalg.solve(B, H), A, precision=HIGHEST)
    return H / jnp.linalg.norm(H, axis=(-2, -1), keepdims=True)


def apply_homography(H: ArrayLike, points: ArrayLike) -> Float[Array, "*b n 2"]:
    """Points (..., N, 2) moved by homographies (..., 3, 3); what goes to infinity is infinite."""
    H, x = jnp.asarray(H), jnp.asarray(points)
    moved = jnp.einsum("...ij,...nj->...ni", H[..., :2], x, precision=HIGHEST) + H[..., None, :, 2]
    return moved[..., :2] / moved[..., 2:]


@partial(jax.jit, static_argnames="hypotheses")
def homography_ransac(
    key: Array,
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    threshold: ArrayLike = 3.0,
    hypotheses: int = 256,
) -> tuple[Float[Array, "3 3"], Bool[Array, "n"]]:
    """`homography` where some correspondences are wrong, by samples of four and the distance in the target.

    Args:
        key: random key.
        source: (N, 2); vmap for more.
        target: (N, 2).
        weights: (N,) not negative; by default all equal.
        threshold: in the unit of the target, about three times its noise.
        hypotheses: how many samples are drawn, see `ransac`.

    Returns:
        H (3, 3) and which correspondences it explains (N,).

    Raises:
        ValueError: point sets of another shape, unlike each other, or of fewer than four points.
    """
    x, y, w = _corresponding(source, target, weights)
    _need(x, 4)
    error = lambda H, data: jnp.sum(jnp.square(apply_homography(H, data[0]) - data[1]), -1)  # noqa: E731
    fit = lambda data, w: homography(*data, w)  # noqa: E731
    H, inside, _ = ransac(key, fit, error, (x, y), w, sample_size=4, threshold=threshold, hypotheses=hypotheses)
    return H, inside


def fundamental(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, "*b 3 3"]:
    """The fundamental matrix F, target^T F source = 0, by the normalised eight-point algorithm (Hartley and Zisserman
    2004, algorithm 11.1), of rank two.

    Args:
        source: (..., N, 2), eight points or more, not all on one plane.
        target: (..., N, 2).
        weights: (..., N) not negative; points of weight 0 are not read. By default all equal.

    Returns:
        F (..., 3, 3) of Frobenius norm 1; always finite, of no meaning where the points leave it open. Of normalised
        points (`normalised_points`) it is the essential matrix, up to its two equal singular values.

    Raises:
        ValueError: point sets of another shape, or unlike each other.
    """
    x, y, w = _corresponding(source, target, weights)
    x, A = _normalise(x, w)
    y, B = _normalise(y, w)
    p, q = (jnp.concatenate([a, jnp.ones_like(a[..., :1])], -1) for a in (x, y))
    rows = jnp.sqrt(w)[..., None] * (q[..., :, None] * p[..., None, :]).reshape(*x.shape[:-1], 9)
    F = _null_vector(rows).reshape(*x.shape[:-2], 3, 3)
    U, s, Vt = jnp.linalg.svd(F)
    F = jnp.matmul(U * s.at[..., 2].set(0)[..., None, :], Vt, precision=HIGHEST)
    F = jnp.matmul(jnp.swapaxes(B, -1, -2), jnp.matmul(F, A, precision=HIGHEST), precision=HIGHEST)
    return F / jnp.linalg.norm(F, axis=(-2, -1), keepdims=True)


def sampson_distance(F: ArrayLike, source: ArrayLike, target: ArrayLike) -> Float[Array, "*b n"]:
    """How far correspondences are from a fundamental matrix, to first order (Hartley and Zisserman 2004, eq. 11.9).

    Args:
        F: (..., 3, 3) with target^T F source = 0.
        source: (..., N, 2).
        target: (..., N, 2).

    Returns:
        (..., N), in the unit of the points.
    """
    F, x, y = jnp.asarray(F), jnp.asarray(source), jnp.asarray(target)
    lines = jnp.einsum("...ij,...nj->...ni", F[..., :2], x, precision=HIGHEST) + F[..., None, :, 2]
    back = jnp.einsum("...ij,...ni->...nj", F[..., :2, :], y, precision=HIGHEST) + F[..., None, 2, :]
    miss = jnp.sum(lines[..., :2] * y, -1) + lines[..., 2]
    slope = jnp.sum(jnp.square(lines[..., :2]), -1) + jnp.sum(jnp.square(back[..., :2]), -1)
    return jnp.abs(miss) / jnp.sqrt(jnp.where(slope > 0, slope, 1))


@partial(jax.jit, static_argnames="hypotheses")
def fundamental_ransac(
    key: Array,
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    threshold: ArrayLike = 2.0,
    hypotheses: int = 512,
) -> tuple[Float[Array, "3 3"], Bool[Array, "n"]]:
    """`fundamental` where some correspondences are wrong, by samples of eight and their Sampson distance.

    Args:
        key: random key.
        source: (N, 2); vmap for more.
        target: (N, 2).
        weights: (N,) not negative; by default all equal.
        threshold: in the unit of the points, about three times their noise.
        hypotheses: how many samples are drawn, see `ransac`.

    Returns:
        F (3, 3) and which correspondences it explains (N,).

    Raises:
        ValueError: point sets of another shape, unlike each other, or of fewer than eight points.
    """
    x, y, w = _corresponding(source, target, weights)
    _need(x, 8)
    error = lambda F, data: jnp.square(sampson_distance(F, *data))  # noqa: E731
    fit = lambda data, w: fundamental(*data, w)  # noqa: E731
    F, inside, _ = ransac(key, fit, error, (x, y), w, sample_size=8, threshold=threshold, hypotheses=hypotheses)
    return F, inside


def _corresponding(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Both point sets, 0 where their weight is, and the weights (..., N)."""
    x, y = jnp.asarray(source), jnp.asarray(target)
    if x.ndim < 2 or x.shape[-1] != 2 or x.shape[-2:] != y.shape[-2:]:
        raise ValueError(f"expected source and target of one shape (..., N, 2), got {x.shape} and {y.shape}")
    w = jnp.ones(x.shape[-2:-1]) if weights is None else jnp.asarray(weights)
    if w.shape[-1:] != x.shape[-2:-1]:
        raise ValueError(f"weights: expected shape (..., {x.shape[-2]}), one for each point, got {w.shape}")
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], w.shape[:-1])
    w = jnp.broadcast_to(w, (*batch, w.shape[-1]))
    return jnp.where(w[..., None] > 0, x, 0), jnp.where(w[..., None] > 0, y, 0), w


def _need(points: Array, number: int) -> None:
    if points.ndim != 2 or points.shape[0] < number:
        raise ValueError(f"expected points (N, 2) with N of at least {number}, got {points.shape}; vmap over batches")


def _normalise(x: Array, w: Array) -> tuple[Array, Array]:
    """Points about their mean at a mean distance of sqrt 2, and the matrix (..., 3, 3) that carries them there."""
    share = w / jnp.maximum(jnp.sum(w, -1, keepdims=True), 1e-12)
    mean = jnp.sum(share[..., None] * x, -2)
    centred = x - mean[..., None, :]
    spread = jnp.sum(share * jnp.linalg.norm(centred, axis=-1), -1)
    scale = jnp.where(spread > 0, jnp.sqrt(2.0) / jnp.where(spread > 0, spread, 1), 1)
    o = jnp.zeros_like(scale)
    row = lambda a, b, c: jnp.stack([a, b, c], -1)  # noqa: E731
    T = jnp.stack([row(scale, o, -scale * mean[..., 0]), row(o, scale, -scale * mean[..., 1]), row(o, o, o + 1)], -2)
    return scale[..., None, None] * centred, T


def _null_vector(rows: Array) -> Array:
    """The unit vector (..., 9) that rows (..., M, 9) change least."""
    missing = max(0, 9 - rows.shape[-2])  # the decomposition must have all nine directions
    rows = jnp.concatenate([rows, jnp.zeros((*rows.shape[:-2], missing, 9))], -2)
    return jnp.linalg.svd(rows, full_matrices=False)[2][..., -1, :]
