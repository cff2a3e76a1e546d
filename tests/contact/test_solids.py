import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jhand.contact import KINDS, make_solid, sample_solid, solid_distance, solid_faces, solid_vertices
from jhand.geometry import signed_distance

SOLIDS = {
    "box": make_solid("box", (0.03, 0.02, 0.06)),
    "ellipsoid": make_solid("ellipsoid", (0.03, 0.025, 0.05)),
    "cylinder": make_solid("cylinder", (0.03, 0.03, 0.05)),
    "capsule": make_solid("capsule", (0.025, 0.025, 0.06)),
    "superquadric": make_solid("superquadric", (0.03, 0.025, 0.05), (0.3, 0.7)),
}


def extent(solid):
    return np.asarray(solid_vertices(solid)).max(0)


def test_meshes_are_closed_and_turn_outwards():
    faces = np.asarray(solid_faces())
    edges = [(f[i], f[(i + 1) % 3]) for f in faces for i in range(3)]
    assert len(set(edges)) == len(edges)
    assert {(b, a) for a, b in edges} == set(edges)
    for solid in SOLIDS.values():
        v = np.asarray(solid_vertices(solid), np.float64)
        volume = np.einsum("fi,fi->f", v[faces[:, 0]], np.cross(v[faces[:, 1]], v[faces[:, 2]])).sum() / 6
        assert volume > 0


def surface_points(solid, number):
    """Points of the true surface, by its definition, not by its mesh."""
    (a, b, c), (e1, e2) = np.asarray(solid.half_size, float), np.asarray(solid.roundness, float)
    if KINDS[int(solid.kind)] == "ellipsoid":
        e1 = e2 = 1.0
    p = np.random.default_rng(3).normal(size=(number, 3))
    x, y, z = np.abs(p.T / np.array([[a], [b], [c]]))
    level = ((x ** (2 / e2) + y ** (2 / e2)) ** (e2 / e1) + z ** (2 / e1)) ** (e1 / 2)
    return p / level[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_the_mesh(kind):
    solid = SOLIDS[kind]
    v, faces = np.asarray(solid_vertices(solid)), np.asarray(solid_faces())
    rng = np.random.default_rng(0)
    b = rng.dirichlet([1, 1, 1], 400)
    corners = v[faces[rng.integers(0, len(faces), 400)]]
    points = np.einsum("pk,pkc->pc", b, corners) + rng.normal(0, 0.006, (400, 3))
    ours, mesh = solid_distance(solid, points), signed_distance(points, v, faces)
    # facets lie a millimetre below what is round, three below the edges of a superquadric; a box has none
    tolerance = {"box": 1e-5, "superquadric": 3.5e-3}.get(kind, 1.2e-3)
    np.testing.assert_allclose(ours, mesh, atol=tolerance)
    assert np.median(np.abs(ours - mesh)) < 4e-4


@pytest.mark.parametrize("kind", ["ellipsoid", "superquadric"])
def test_distances_that_are_solved_for(kind):
    solid = SOLIDS[kind]
    surface = surface_points(solid, 200_000)
    rng = np.random.default_rng(1)
    points = surface[:300] + rng.normal(0, 0.004, (300, 3))
    expected = cKDTree(surface).query(points)[0]
    ours = np.asarray(solid_distance(solid, points))
    error = np.abs(np.abs(ours) - expected)
    assert np.median(error) < 2e-4
    assert np.percentile(error, 95) < 1e-3
    inside = np.linalg.norm(points, axis=-1) < np.linalg.norm(surface[:300], axis=-1)
    clear = expected > 0.002
    radial = np.abs(np.linalg.norm(points, axis=-1) - np.linalg.norm(surface[:300], axis=-1)) > 0.004
    assert ((ours < 0) == inside)[clear & radial].mean() > 0.95


def test_a_sphere_is_exact():
    points = np.random.default_rng(1).normal(0, 0.05, (200, 3))
    expected = np.linalg.norm(points, axis=-1) - 0.03
    for kind in ("ellipsoid", "capsule", "superquadric"):
        solid = make_solid(kind, (0.03, 0.03, 0.03))
        np.testing.assert_allclose(solid_distance(solid, points), expected, atol=2e-6)


def test_kinds_mix_in_a_batch():
    solids = jax.tree.map(lambda *x: jnp.stack(x), *SOLIDS.values())
    points = np.random.default_rng(2).normal(0, 0.04, (5, 30, 3)).astype(np.float32)
    together = jax.vmap(solid_distance)(solids, points)
    for number, solid in enumerate(SOLIDS.values()):
        np.testing.assert_allclose(together[number], solid_distance(solid, points[number]), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_everywhere_and_point_away(kind):
    solid = SOLIDS[kind]
    points = np.concatenate([np.zeros((1, 3)), np.diag(extent(solid)), np.eye(3) * 0.01, [[3.0, 2.0, 1.0]]])
    slope = jax.jacrev(lambda p: solid_distance(solid, p).sum())(jnp.asarray(points, jnp.float32))
    assert np.isfinite(slope).all()
    assert np.sum(slope[-1] * points[-1]) > 0


def test_samples_fit_into_a_hand():
    solids = jax.vmap(sample_solid)(jax.random.split(jax.random.key(0), 300))
    assert set(np.asarray(solids.kind).tolist()) == set(range(len(KINDS)))
    assert np.asarray(solids.half_size[:, :2]).max() <= 0.04
    capsule = np.asarray(solids.kind) == KINDS.index("capsule")
    assert (np.asarray(solids.half_size)[capsule, 2] > np.asarray(solids.half_size)[capsule, 0]).all()


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="box, ellipsoid"):
        make_solid("cone", (0.1, 0.1, 0.1))
