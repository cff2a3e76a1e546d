import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.fitting.banded import marginal_covariance, solve_bordered


def _system(num_frames, n=4, m=3, seed=0):
    """Blocks of a positive definite system and the dense float64 matrix they stand for."""
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(num_frames, 3 * n, n + m))
    H = np.einsum("tri,trj->tij", J, J)
    L = rng.normal(size=(max(num_frames - 1, 0), n, n))
    Q = np.einsum("tij,tkj->tik", L, L)
    A, B, C = H[:, :n, :n].copy(), H[:, :n, n:], H[:, n:, n:].sum(0) + np.eye(m)
    for t in range(num_frames - 1):
        A[t] += Q[t]
        A[t + 1] += Q[t]
    size = num_frames * n
    dense = np.zeros((size + m, size + m))
    for t in range(num_frames):
        rows = slice(t * n, (t + 1) * n)
        dense[rows, rows] = A[t]
        dense[rows, size:], dense[size:, rows] = B[t], B[t].T
        if t + 1 < num_frames:
            after = slice((t + 1) * n, (t + 2) * n)
            dense[rows, after], dense[after, rows] = -Q[t], -Q[t].T
    dense[size:, size:] = C
    return (A, Q, B, C), dense


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_solution_equals_the_dense_one(num_frames):
    blocks, dense = _system(num_frames)
    rng = np.random.default_rng(1)
    g, g_shared = rng.normal(size=(num_frames, 4)), rng.normal(size=3)
    x, shared = solve_bordered(*map(jnp.asarray, (*blocks, g, g_shared)))
    expected = np.linalg.solve(dense, np.concatenate([g.ravel(), g_shared]))
    np.testing.assert_allclose(np.concatenate([x.ravel(), shared]), expected, atol=2e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_covariance_equals_the_dense_inverse(num_frames):
    blocks, dense = _system(num_frames)
    inverse = np.linalg.inv(dense)
    found = marginal_covariance(*map(jnp.asarray, blocks))
    for t in range(num_frames):
        pick = np.r_[np.arange(t * 4, t * 4 + 4), np.arange(num_frames * 4, num_frames * 4 + 3)]
        np.testing.assert_allclose(found[t], inverse[np.ix_(pick, pick)], atol=2e-5)


def test_badly_scaled_unknowns_are_solved():
    """Metres beside radians: precisions that differ by ten orders of magnitude."""
    (A, Q, B, C), _ = _system(3)
    s = np.array([1e3, 1.0, 1e-2, 1e2])
    A, Q, B = A * s[:, None] * s, Q * s[:, None] * s, B * s[:, None]
    truth = np.arange(12.0).reshape(3, 4) / s
    shared = np.array([1.0, -2.0, 0.5])
    g = np.einsum("tij,tj->ti", A, truth) + np.einsum("tim,m->ti", B, shared)
    g[:-1] -= np.einsum("tij,tj->ti", Q, truth[1:])
    g[1:] -= np.einsum("tji,tj->ti", Q, truth[:-1])
    g_shared = C @ shared + np.einsum("tim,ti->m", B, truth)
    x, found = solve_bordered(*map(jnp.asarray, (A, Q, B, C, g, g_shared)))
    np.testing.assert_allclose(x * s, truth * s, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found, shared, rtol=2e-3)


def test_vmaps():
    blocks = [_system(3, seed=s)[0] for s in range(2)]
    stacked = [jnp.stack([jnp.asarray(b[i]) for b in blocks]) for i in range(4)]
    together = jax.vmap(marginal_covariance)(*stacked)
    alone = marginal_covariance(*map(jnp.asarray, blocks[1]))
    np.testing.assert_allclose(together[1], alone, atol=1e-6)
