import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from jhand.geometry import (
    close_holes,
    closest_on_mesh,
    crossing_number,
    penetration,
    signed_distance,
    winding_number,
)


@pytest.fixture(scope="module")
def solid():
    """A closed mesh that is not convex: vertices, faces."""
    mesh = trimesh.creation.torus(0.05, 0.02, major_sections=24, minor_sections=12)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def _oracle(points, vertices, faces):
    """Float64 distances, triangle by triangle: a quadratic programme over barycentric coordinates by cases."""
    corners = np.asarray(vertices, float)[faces]
    found = []
    for p in np.asarray(points, float):
        best = np.inf
        for a, b, c in corners:
            n = np.cross(b - a, c - a)
            foot = p - n * (n @ (p - a)) / (n @ n)
            s = [n @ np.cross(y - x, foot - x) for x, y in ((a, b), (b, c), (c, a))]
            if min(s) >= 0:
                best = min(best, np.linalg.norm(foot - p))
            for x, y in ((a, b), (b, c), (c, a)):
                t = np.clip((p - x) @ (y - x) / ((y - x) @ (y - x)), 0, 1)
                best = min(best, np.linalg.norm(x + t * (y - x) - p))
        found.append(best)
    return np.array(found)


def test_closest_points_are_the_oracles(solid):
    vertices, faces = solid
    points = np.random.default_rng(0).uniform(-0.09, 0.09, (40, 3)).astype(np.float32)
    points[:5] = vertices[:5]
    points[5:10] = vertices[faces[5:10]].mean(1)
    feet, face, barycentric = closest_on_mesh(points, vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(feet - points, axis=-1), _oracle(points, vertices, faces), atol=2e-6)
    np.testing.assert_allclose(np.einsum("pi,pij->pj", barycentric, vertices[faces[face]]), feet, atol=1e-7)
    assert (np.asarray(barycentric) >= 0).all()
    np.testing.assert_allclose(np.sum(barycentric, -1), 1, atol=1e-6)


def test_signed_distance_of_a_torus(solid):
    vertices, faces = solid
    points = np.random.default_rng(1).uniform(-0.08, 0.08, (500, 3)).astype(np.float32)
    exact = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.05, points[:, 2]) - 0.02
    d = np.asarray(signed_distance(points, vertices, faces))
    assert np.abs(d - exact).max() < 0.0014  # the polygons cut that much off the round
    inside = exact < -0.0014
    np.testing.assert_array_equal(d[inside] < 0, True)
    np.testing.assert_array_equal(d[exact > 0] > 0, True)
    np.testing.assert_allclose(penetration(points, vertices, faces), np.maximum(-d, 0))
    w = np.asarray(winding_number(points, vertices, faces))
    np.testing.assert_allclose(w, d < 0, atol=2e-5)


def test_winding_number_of_an_open_mesh_is_a_share_of_the_sphere():
    cap = trimesh.creation.icosphere(subdivisions=3)
    lower = cap.vertices[cap.faces].mean(1)[:, 2] < 0
    at_centre = winding_number(np.zeros((1, 3), np.float32), np.asarray(cap.vertices, np.float32), cap.faces[lower])
    np.testing.assert_allclose(at_centre, 0.5, atol=0.03)


def test_a_point_in_the_hand_is_inside(right):
    import jhand

    hand = jhand.forward(right, jhand.HandParams.zeros())
    middle = hand.joints[4:7].mean(0)
    away = middle + jnp.array([0.0, 0.1, 0.0])
    w = winding_number(jnp.stack([middle, away]), hand.vertices, right.faces)
    assert w[0] > 0.9 and abs(w[1]) < 0.1


def test_crossings_are_the_winding_number_of_a_closed_mesh(right):
    """Of two hands, one in the other."""
    one, closed = right.v_template, np.asarray(close_holes(right.faces))
    vertices = jnp.concatenate([one, one + jnp.array([0.004, 0.003, 0.002])])
    faces = np.concatenate([closed, closed + len(one)])
    near = one[::2] + 0.01 * np.random.default_rng(0).normal(size=(389, 3)).astype(np.float32)
    counted = np.asarray(crossing_number(near, vertices, faces))
    np.testing.assert_array_equal(counted, np.round(winding_number(near, vertices, faces)))
    assert set(counted) == {0, 1, 2}


@pytest.mark.parametrize("where", ["inside", "outside", "on it"])
def test_gradients_of_signed_distance(solid, where):
    vertices, faces = solid
    rng = np.random.default_rng(2)
    points = rng.uniform(-0.08, 0.08, (200, 3)).astype(np.float32)
    d = np.asarray(signed_distance(points, vertices, faces))
    points = points[(d < -0.003) if where == "inside" else (d > 0.003)][:20]
    if where == "on it":
        points = vertices[faces[::20]].mean(1)[:20]
    gradient = jax.vmap(jax.grad(lambda p: signed_distance(p[None], vertices, faces)[0]))(jnp.asarray(points))
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=-1), 1, atol=1e-4)
    step = 1e-4 * np.asarray(gradient)
    for sign in (1, -1):
        moved = np.asarray(
            signed_distance(points + sign * step, vertices, faces) - signed_distance(points, vertices, faces)
        )
        np.testing.assert_allclose(moved, sign * 1e-4, atol=1e-5)
    # the mesh moved one way is the points moved the other way
    by_mesh = jax.grad(lambda v: signed_distance(points, v, faces).sum())(jnp.asarray(vertices))
    np.testing.assert_allclose(by_mesh.sum(0), -gradient.sum(0), atol=1e-4)


def test_meshes_in_batches(solid):
    vertices, faces = solid
    points = np.random.default_rng(3).uniform(-0.08, 0.08, (2, 3, 9, 3)).astype(np.float32)
    moved = jnp.asarray(vertices) + jnp.array([[0.0, 0, 0], [0.01, 0, 0], [0, 0.02, 0]])[:, None]
    all_at_once = signed_distance(points, moved, faces)
    assert all_at_once.shape == (2, 3, 9)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(all_at_once[i, j], signed_distance(points[i, j], moved[j], faces), atol=1e-7)
    assert closest_on_mesh(points, moved, faces)[2].shape == (2, 3, 9, 3)


def test_memory_does_not_grow_with_the_pairs(solid):
    """4096 points and 576 triangles make 9 MB of distances."""
    vertices, faces = solid
    points = jnp.zeros((4096, 3))
    for function in (closest_on_mesh, signed_distance):
        memory = function.lower(points, vertices, faces).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 2e6


def test_bad_shapes_and_flat_triangles(solid):
    vertices, faces = solid
    with pytest.raises(ValueError, match=r"points \(\.\.\., P, 3\)"):
        closest_on_mesh(np.zeros(3), vertices, faces)
    flat = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]], np.float32)
    feet, _, _ = closest_on_mesh(np.array([[0.5, 1.0, 0]], np.float32), flat, np.array([[0, 1, 2], [0, 3, 0]]))
    np.testing.assert_allclose(feet, [[0.5, 0, 0]], atol=1e-6)
    assert np.isfinite(signed_distance(np.array([[0.5, 1.0, 0]], np.float32), flat, np.array([[0, 3, 0]]))).all()
