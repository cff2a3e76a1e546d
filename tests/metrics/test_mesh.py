import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from jhand.metrics import f_score, mpvpe, pa_mpvpe
from jhand.metrics._points import nearest_distance

V = 60


def random_meshes(batch, seed=0):
    target, noise = np.random.default_rng(seed).normal(size=(2, *batch, V, 3)) * 0.05
    return target + 0.2 * noise, target


def aligned(x, y):
    """Kabsch's algorithm in scipy, and the least-squares scale after it."""
    x0, y0 = x - x.mean(0), y - y.mean(0)
    turned = x0 @ Rotation.align_vectors(y0, x0)[0].as_matrix().T
    return np.sum(turned * y0) / np.sum(turned**2) * turned + y.mean(0)


def f_oracle(x, y, threshold):
    """FreiHAND's: nearest neighbours by a tree, strictly nearer than the threshold."""
    precision, recall = np.mean(cKDTree(y).query(x)[0] < threshold), np.mean(cKDTree(x).query(y)[0] < threshold)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_against_slow_oracles(batch):
    x, y = random_meshes(batch)
    plain, pa = mpvpe(x, y), pa_mpvpe(x, y)
    scores = f_score(x, y, np.array([0.005, 0.015, 0.03]))
    assert plain.shape == pa.shape == batch and scores.shape == (*batch, 3)
    for i in np.ndindex(*batch):
        assert_allclose(plain[i], np.linalg.norm(x[i] - y[i], axis=1).mean(), rtol=1e-5)
        assert_allclose(pa[i], np.linalg.norm(aligned(x[i], y[i]) - y[i], axis=1).mean(), rtol=1e-4)
        assert_allclose(scores[i], [f_oracle(x[i], y[i], t) for t in (0.005, 0.015, 0.03)], rtol=1e-5)
    assert 0.1 < np.mean(scores) < 0.9


def test_vmap_and_valid_vertices():
    x, y = random_meshes((2, 3))
    for metric in (mpvpe, pa_mpvpe, lambda a, b: f_score(a, b, 0.015)):
        assert_allclose(jax.vmap(metric)(x, y), metric(x, y), rtol=1e-5)
    valid = np.arange(V) % 4 > 0
    holes = np.where(valid[:, None], x, np.nan)
    for metric in (mpvpe, pa_mpvpe):
        assert_allclose(metric(holes, y, valid), metric(x[..., valid, :], y[..., valid, :]), rtol=1e-4)
        value, gradient = jax.value_and_grad(lambda a, f=metric: f(a, y[0, 0], np.zeros(V, bool)))(jnp.asarray(x[0, 0]))
        assert np.isnan(value) and not gradient.any()


@pytest.mark.parametrize("metric", [mpvpe, pa_mpvpe])
def test_gradient_of_a_perfect_mesh_is_finite(metric):
    x = jnp.asarray(random_meshes(())[1])
    assert_allclose(metric(x, x), 0, atol=1e-7)
    assert np.isfinite(jax.grad(lambda a: metric(a, x))(x)).all()


def test_f_score_of_sets_of_unlike_size():
    x, y = random_meshes((2,))
    y, x_valid, y_valid = y[:, :40], np.arange(V) % 3 > 0, np.arange(40) % 5 > 0
    holes = np.where(x_valid[:, None], x, np.nan), np.where(y_valid[:, None], y, np.nan)
    expected = [f_oracle(a[x_valid], b[y_valid], 0.02) for a, b in zip(x, y, strict=True)]
    assert_allclose(f_score(*holes, 0.02, x_valid, y_valid), expected, rtol=1e-5)
    assert_allclose(f_score(x, x, 1e-6), 1)
    assert_allclose(f_score(x, x + 1, 0.1), 0)
    assert np.isnan(f_score(x, y, 0.02, np.zeros(V, bool))).all()
    assert np.isnan(f_score(x, y, 0.02, None, np.zeros(40, bool))).all()
    assert not jax.grad(lambda a: f_score(a, y, 0.02).sum())(jnp.asarray(x)).any()


def test_neighbours_are_exact_in_any_number_of_steps(monkeypatch):
    x, y = random_meshes((2,))
    x, counts = jnp.asarray(x[:, :37]), jnp.arange(V) % 7 > 0
    y = jnp.where(counts[:, None], y, jnp.nan)
    expected = np.stack([cKDTree(b[counts]).query(a)[0] for a, b in zip(np.asarray(x), np.asarray(y), strict=True)])
    for pairs in (1, 10 * V, 2**22):
        monkeypatch.setattr("jhand.metrics._points._PAIRS_IN_A_STEP", pairs)
        assert_allclose(nearest_distance(x, y, counts), expected, rtol=1e-5)


def test_memory_of_f_score_stays_small():
    """A batch of 256 hands in MANO's size has 155 million pairs: 0.6 GB if they were all kept."""
    shape = jax.ShapeDtypeStruct((256, 778, 3), jnp.float32)
    memory = jax.jit(f_score).lower(shape, shape, 0.005).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 100e6


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(778, 3\) and \(779, 3\); vertices .* f_score"):
        mpvpe(np.zeros((778, 3)), np.zeros((779, 3)))
    with pytest.raises(ValueError, match=r"pred \(..., V, 3\)"):
        f_score(np.zeros((5, 2)), np.zeros((5, 2)), 0.1)
    with pytest.raises(ValueError, match=r"target_valid: expected shape \(..., 5\)"):
        f_score(np.zeros((4, 3)), np.zeros((5, 3)), 0.1, None, np.ones(4, bool))
