"""Surfaces of functions, against spheres."""

import numpy as np
import pytest

from jhand.geometry import extract_surface, marching_tetrahedra, winding_number


def ball(points):
    return 0.5 + (0.7 - np.linalg.norm(points - np.array([0.1, 0, -0.05]), axis=-1))


def grid_of(function, number):
    axis = np.linspace(-1, 1, number)
    return function(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)).reshape((number,) * 3)


def test_a_ball():
    pitch = 2 / 24
    vertices, faces = marching_tetrahedra(grid_of(ball, 25), np.full(3, -1.0), pitch)
    np.testing.assert_allclose(ball(vertices), 0.5, atol=0.15 * pitch)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), -1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()  # closed
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volume = np.sum(a * np.cross(b, c)) / 6
    assert 0.97 < volume / (4 / 3 * np.pi * 0.7**3) <= 1.0
    outside_and_in = np.array([[0.1, 0, 0], [0.9, 0.9, 0.9]])
    np.testing.assert_allclose(winding_number(outside_and_in, vertices, faces), [1, 0], atol=1e-3)


def test_refinement_finds_the_surface_of_a_fine_grid_with_fewer_questions():
    asked = []

    def counted(points):
        asked.append(len(points))
        return ball(points)

    coarse_to_fine = extract_surface(counted, [-1.0] * 3, [1.0] * 3, cells=16, refinements=2)
    vertices, faces = marching_tetrahedra(grid_of(ball, 65), np.full(3, -1.0), 2 / 64)
    assert len(coarse_to_fine[0]) == len(vertices) and len(coarse_to_fine[1]) == len(faces)
    np.testing.assert_allclose(np.sort(coarse_to_fine[0].sum(-1)), np.sort(vertices.sum(-1)), atol=1e-9)
    assert sum(asked) < 0.4 * 65**3


def test_nothing_there():
    vertices, faces = extract_surface(lambda p: np.zeros(len(p)), [0.0] * 3, [1.0] * 3, cells=4)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="lower below upper"):
        extract_surface(ball, [0.0] * 3, [1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="X, Y, Z"):
        marching_tetrahedra(np.zeros((4, 4)), [0.0] * 3, 1.0)
