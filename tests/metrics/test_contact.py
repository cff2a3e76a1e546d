import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jhand.metrics import contact_map, contact_scores, penetration_depth, penetration_volume, voxel_grid

N = 40


def scores_oracle(p, t, valid):
    tp = sum(bool(a and b) for a, b, v in zip(p, t, valid, strict=True) if v)
    fp = sum(bool(a and not b) for a, b, v in zip(p, t, valid, strict=True) if v)
    fn = sum(bool(b and not a) for a, b, v in zip(p, t, valid, strict=True) if v)
    nan = float("nan")
    return (
        tp / (tp + fp) if tp + fp else nan,
        tp / (tp + fn) if tp + fn else nan,
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else nan,
    )


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_scores_against_counting(batch):
    rng = np.random.default_rng(0)
    p, t, valid = rng.random((3, *batch, N)) > 0.6
    for mask in (None, valid):
        got = contact_scores(p, t, mask)
        for i in np.ndindex(*batch):
            expected = scores_oracle(p[i], t[i], np.ones(N, bool) if mask is None else mask[i])
            assert_allclose([score[i] for score in got], expected, rtol=1e-6)
    assert_allclose(jax.vmap(contact_scores)(np.stack([p, t]), np.stack([t, t]))[0][1], 1)


def test_scores_without_contact():
    some, none = np.arange(N) < 5, np.zeros(N, bool)
    assert_allclose(contact_scores(none, some), scores_oracle(none, some, ~none))
    assert_allclose(contact_scores(some, none), scores_oracle(some, none, ~none))
    assert np.isnan(contact_scores(none, none)).all()
    assert np.isnan(contact_scores(some, some, none)).all()
    shapes = {score.shape for score in contact_scores(np.zeros((3, N), bool), some)}
    assert shapes == {(3,)}


def test_map_of_signed_distances():
    distance = np.array([[-0.01, 0.0, 0.004, 0.006], [0.001, 0.002, 0.003, 0.02]])
    assert contact_map(distance, 0.005).tolist() == [[True, True, True, False], [True, True, True, False]]
    each = contact_map(distance, np.array([0.0, 0.0025]))
    assert each.tolist() == [[True, True, False, False], [True, True, False, False]]


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_depth(batch):
    rng = np.random.default_rng(1)
    distance, valid = rng.normal(size=(*batch, N)) * 0.01, rng.random((*batch, N)) > 0.5
    got, some = penetration_depth(distance), penetration_depth(np.where(valid, distance, np.nan), valid)
    assert got.shape == batch
    for i in np.ndindex(*batch):
        assert_allclose(got[i], max(0, *(-d for d in distance[i])), rtol=1e-6)
        assert_allclose(some[i], max(0, *(-d for d in distance[i][valid[i]])), rtol=1e-6)
    assert_allclose(penetration_depth(np.abs(distance)), 0)
    assert_allclose(jax.vmap(penetration_depth)(np.stack([distance] * 2)), np.stack([got, got]))


def test_gradient_of_depth_is_at_the_deepest_point():
    distance = jnp.array([0.3, -0.2, -0.1])
    assert_allclose(jax.grad(penetration_depth)(distance), [0, -1, 0])
    outside = jnp.array([0.3, 0.0, 0.1])
    assert np.isfinite(jax.grad(penetration_depth)(outside)).all()
    value, gradient = jax.value_and_grad(penetration_depth)(jnp.array([jnp.nan, 1.0, 2.0]), np.zeros(3, bool))
    assert np.isnan(value) and not gradient.any()


def test_grid_is_of_centres():
    points = np.asarray(voxel_grid((0.0, -0.1, 1.0), np.array([0.004, -0.09, 1.003]), 0.002))
    assert points.shape == (2 * 5 * 2, 3)  # 3 mm take two voxels of 2 mm
    expected = [(x, y, z) for x in (0.001, 0.003) for y in -0.1 + np.arange(0.001, 0.01, 0.002) for z in (1.001, 1.003)]
    assert_allclose(points, expected, atol=1e-7)
    assert voxel_grid((0.1, 0.1, 0.1), (0.4, 0.7, 0.3), 0.1).shape == (3 * 6 * 2, 3)  # rounding adds no voxel


def test_volume_of_two_spheres():
    """The lens of two spheres of radius r at distance d: pi (4 r + d) (2 r - d)^2 / 12."""
    r, d = 0.03, 0.02
    a, b = np.array([0.011, 0.002, -0.003]), np.array([0.011 + d, 0.002, -0.003])
    grid = voxel_grid(np.minimum(a, b) - r, np.maximum(a, b) + r, 0.002)
    inside = [jnp.linalg.norm(grid - centre, axis=-1) - r < 0 for centre in (a, b)]
    exact = np.pi * (4 * r + d) * (2 * r - d) ** 2 / 12
    assert_allclose(penetration_volume(*inside, 0.002), exact, rtol=0.02)
    slow = sum(bool(p and q) for p, q in zip(*map(np.asarray, inside), strict=True)) * 0.002**3
    assert_allclose(penetration_volume(*inside, 0.002), slow, rtol=1e-6)
    both = penetration_volume(jnp.stack([inside[0]] * 3), inside[1], 0.002)
    assert both.shape == (3,) and float(both[0]) == float(penetration_volume(*inside, 0.002))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"float32 .* contact_map makes them"):
        contact_scores(np.zeros(N, np.float32), np.zeros(N, np.float32))
    with pytest.raises(ValueError, match=r"one length \(..., N\), got \(3,\) and \(4,\)"):
        contact_scores(np.zeros(3, bool), np.zeros(4, bool))
    with pytest.raises(ValueError, match="distance < 0"):
        penetration_volume(np.zeros(3), np.zeros(3), 0.002)
    with pytest.raises(ValueError, match="one voxel grid"):
        penetration_volume(np.zeros(3, bool), np.zeros(4, bool), 0.002)
    with pytest.raises(ValueError, match="lower below upper"):
        voxel_grid(np.zeros(3), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="pitch: expected a positive length"):
        voxel_grid(np.zeros(3), np.ones(3), 0.0)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda low: voxel_grid(low, low + 1))(jnp.zeros(3))
