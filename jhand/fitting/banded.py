"""Linear solves of block-tridiagonal systems with a shared border, in time and memory linear in the number of blocks.

A sequence of T frames, each coupled with the next by its smoothness and all with one shape, has the normal equations

    [ A_0   -Q_0                | B_0 ]
    [ -Q_0'  A_1  -Q_1          | B_1 ]
    [         ...               | ... ]
    [ B_0'   B_1'  ...          |  C  ]

Blocks are scaled to a unit diagonal first: in float32 that is the difference between metres beside radians and a good
solution.
"""

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

HIGHEST = lax.Precision.HIGHEST


def _eliminate(A: Array, Q: Array) -> Array:
    """Inverses (T, n, n) of the pivots S_t = A_t - Q_{t-1}' S_{t-1}^-1 Q_{t-1}; `Q` (T, n, n) couples each block with
    the one before.
    """
    eye = jnp.eye(A.shape[-1])

    def pivot(before: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        A_t, Q_t = block
        coupled = jnp.matmul(before, Q_t, precision=HIGHEST)
        inverse = cho_solve(cho_factor(A_t - jnp.matmul(Q_t.T, coupled, precision=HIGHEST)), eye)
        return inverse, inverse

    return lax.scan(pivot, jnp.zeros_like(eye), (A, Q))[1]


def _substitute(inverse: Array, Q: Array, right: Array) -> Array:
    """Solve the eliminated tridiagonal system for right-hand sides (T, n, r)."""

    def down(before: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        inverse_t, Q_t, right_t = block
        y = jnp.matmul(inverse_t, right_t + jnp.matmul(Q_t.T, before, precision=HIGHEST), precision=HIGHEST)
        return y, y

    def up(after: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        inverse_t, Q_next, y_t = block
        pulled = jnp.matmul(Q_next, after, precision=HIGHEST)
        x = y_t + jnp.matmul(inverse_t, pulled, precision=HIGHEST)
        return x, x

    zero = jnp.zeros_like(right[0])
    y = lax.scan(down, zero, (inverse, Q, right))[1]
    return lax.scan(up, zero, (inverse, _next(Q), y), reverse=True)[1]


def _next(Q: Array) -> Array:
    """Coupling of each block with the one after it."""
    return jnp.concatenate([Q[1:], jnp.zeros_like(Q[:1])])


_RIDGE = 1e-6  # of a diagonal of ones


def _one_block(A: Array, B: Array, C: Array) -> Array:
    """The whole matrix of a single frame."""
    return jnp.concatenate([jnp.concatenate([A, B], -1), jnp.concatenate([B.T, C], -1)], -2)


def _unit_diagonal(H: Array) -> tuple[Array, Array]:
    s = lax.rsqrt(jnp.diagonal(H))
    return s, s[:, None] * H * s


def _scale(A: Array, Q: Array, B: Array) -> tuple[Array, Array, Array, Array]:
    s = lax.rsqrt(jnp.diagonal(A, axis1=-2, axis2=-1))
    Q = jnp.concatenate([jnp.zeros_like(A[:1]), s[:-1, :, None] * Q * s[1:, None, :]])
    return s, s[:, :, None] * A * s[:, None, :], Q, s[:, :, None] * B


def solve_bordered(
    A: Array, Q: Array, B: Array, C: Array, g: Array, g_shared: Array
) -> tuple[Float[Array, "t n"], Float[Array, "m"]]:
    """Solve the system above.

    Args:
        A: (T, n, n) symmetric, with the couplings' own share of the diagonal already in it.
        Q: (T - 1, n, n) couplings.
        B: (T, n, m).
        C: (m, m) symmetric.
        g: (T, n) right-hand side.
        g_shared: (m,).

    Returns:
        Solutions (T, n) and (m,).
    """
    if A.shape[0] == 1:
        n = A.shape[-1]
        s, H = _unit_diagonal(_one_block(A[0], B[0], C))
        x = s * cho_solve(cho_factor(H), s * jnp.concatenate([g[0], g_shared]))
        return x[None, :n], x[n:]
    s, A, Q, B = _scale(A, Q, B)
    right = jnp.concatenate([(s * g)[:, :, None], B], -1)
    solved = _substitute(_eliminate(A, Q), Q, right)
    x, Z = solved[:, :, 0], solved[:, :, 1:]
    schur = C - jnp.einsum("tnx,tny->xy", B, Z, precision=HIGHEST)
    shared = jnp.linalg.solve(schur, g_shared - jnp.einsum("tnx,tn->x", B, x, precision=HIGHEST))
    return s * (x - jnp.matmul(Z, shared, precision=HIGHEST)), shared


def marginal_covariance(A: Array, Q: Array, B: Array, C: Array) -> Float[Array, "t nm nm"]:
    """Diagonal blocks of the inverse, each frame's unknowns with the shared ones: (T, n + m, n + m).

    The blocks of a tridiagonal inverse follow from the pivots backwards (Rybicki and Hummer 1991); the border adds Z
    C^-1 Z'.
    """
    if A.shape[0] == 1:
        s, H = _unit_diagonal(_one_block(A[0], B[0], C))
        # what nothing observes may leave H singular to rounding: its deviations then come out large, and finite
        identity = jnp.eye(s.shape[0])
        return (s[:, None] * cho_solve(cho_factor(H + _RIDGE * identity), identity) * s)[None]
    s, A, Q, B = _scale(A, Q, B)
    inverse = _eliminate(A, Q)

    def back(after: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
        inverse_t, Q_t = block
        half = jnp.matmul(inverse_t, Q_t, precision=HIGHEST)
        cov = inverse_t + jnp.matmul(jnp.matmul(half, after, precision=HIGHEST), half.T, precision=HIGHEST)
        return cov, cov

    frames = lax.scan(back, jnp.zeros_like(A[0]), (inverse, _next(Q)), reverse=True)[1]
    Z = _substitute(inverse, Q, B)
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
