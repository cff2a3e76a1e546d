"""Linear solves of block-tridiagonal systems with a shared border, in time and memory linear in the number of blocks.

A sequence of T frames, each coupled with the next by its smoothness and all with one shape, has the normal equations

    [ A_0  -Q_0                | B_0 ]
    [ -Q_0  A_1  -Q_1          | B_1 ]          Q_t = diag(q_t)
    [        ...               | ... ]
    [ B_0'  B_1'  ...          |  C  ]

Blocks are scaled to a unit diagonal first: in float32 that is the difference between metres beside radians and a good
solution.
"""

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

HIGHEST = lax.Precision.HIGHEST


def _eliminate(A: Array, q: Array) -> Array:
    """Inverses (T, n, n) of the pivots S_t = A_t - Q_{t-1} S_{t-1}^-1 Q_{t-1}; `q` (T, n) couples each block with the
    one before.
    """
    eye = jnp.eye(A.shape[-1])

    def pivot(before: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        A_t, q_t = block
        S = A_t - q_t[:, None] * before * q_t
        inverse = cho_solve(cho_factor(S), eye)
        return inverse, inverse

    return lax.scan(pivot, jnp.zeros_like(eye), (A, q))[1]


def _substitute(inverse: Array, q: Array, right: Array) -> Array:
    """Solve the eliminated tridiagonal system for right-hand sides (T, n, r)."""

    def down(before: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        inverse_t, q_t, right_t = block
        y = jnp.matmul(inverse_t, right_t + q_t[:, None] * before, precision=HIGHEST)
        return y, y

    def up(after: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        inverse_t, q_next, y_t = block
        x = y_t + jnp.matmul(inverse_t, q_next[:, None] * after, precision=HIGHEST)
        return x, x

    zero = jnp.zeros_like(right[0])
    y = lax.scan(down, zero, (inverse, q, right))[1]
    q_next = jnp.concatenate([q[1:], jnp.zeros_like(q[:1])])
    return lax.scan(up, zero, (inverse, q_next, y), reverse=True)[1]


def _scale(A: Array, q: Array, B: Array) -> tuple[Array, Array, Array, Array]:
    s = lax.rsqrt(jnp.diagonal(A, axis1=-2, axis2=-1))
    q = jnp.concatenate([jnp.zeros_like(s[:1]), q * s[1:] * s[:-1]])
    return s, s[:, :, None] * A * s[:, None, :], q, s[:, :, None] * B


def solve_bordered(
    A: Array, q: Array, B: Array, C: Array, g: Array, g_shared: Array
) -> tuple[Float[Array, "t n"], Float[Array, "m"]]:
    """Solve the system above.

    Args:
        A: (T, n, n) symmetric, with Q's contribution to the diagonal already in it.
        q: (T - 1, n) couplings, not negative.
        B: (T, n, m).
        C: (m, m) symmetric.
        g: (T, n) right-hand side.
        g_shared: (m,).

    Returns:
        Solutions (T, n) and (m,).
    """
    s, A, q, B = _scale(A, q, B)
    right = jnp.concatenate([(s * g)[:, :, None], B], -1)
    solved = _substitute(_eliminate(A, q), q, right)
    x, Z = solved[:, :, 0], solved[:, :, 1:]
    schur = C - jnp.einsum("tnx,tny->xy", B, Z, precision=HIGHEST)
    shared = jnp.linalg.solve(schur, g_shared - jnp.einsum("tnx,tn->x", B, x, precision=HIGHEST))
    return s * (x - jnp.matmul(Z, shared, precision=HIGHEST)), shared


def marginal_covariance(A: Array, q: Array, B: Array, C: Array) -> Float[Array, "t nm nm"]:
    """Diagonal blocks of the inverse, each frame's unknowns with the shared ones: (T, n + m, n + m).

    The blocks of a tridiagonal inverse follow from the pivots backwards (Rybicki and Hummer 1991); the border adds Z
    C^-1 Z'.
    """
    s, A, q, B = _scale(A, q, B)
    inverse = _eliminate(A, q)
    q_next = jnp.concatenate([q[1:], jnp.zeros_like(q[:1])])

    def back(after: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        inverse_t, q_t = block
        half = inverse_t * q_t
        cov = inverse_t + jnp.matmul(jnp.matmul(half, after, precision=HIGHEST), half.T, precision=HIGHEST)
        return cov, cov

    frames = lax.scan(back, jnp.zeros_like(A[0]), (inverse, q_next), reverse=True)[1]
    Z = _substitute(inverse, q, B)
    shared = jnp.linalg.inv(C - jnp.einsum("tnx,tny->xy", B, Z, precision=HIGHEST))
    cross = -jnp.matmul(Z, shared, precision=HIGHEST)
    frames = frames - jnp.matmul(cross, jnp.swapaxes(Z, -1, -2), precision=HIGHEST)
    frames = s[:, :, None] * frames * s[:, None, :]
    cross = s[:, :, None] * cross
    corner = jnp.broadcast_to(shared, (A.shape[0], *shared.shape))
    return jnp.concatenate(
        [
            jnp.concatenate([frames, cross], -1),
            jnp.concatenate([jnp.swapaxes(cross, -1, -2), corner], -1),
        ],
        -2,
    )
