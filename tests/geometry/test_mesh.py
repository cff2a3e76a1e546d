"""Holes of meshes."""

import numpy as np
import pytest

from jhand.geometry import close_holes, winding_number

CUBE = np.array([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def faces(sides):
    return np.array([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])


def test_a_box_is_closed():
    for missing in ([0], [3], [0, 1]):
        closed = close_holes(faces([side for i, side in enumerate(SIDES) if i not in missing]))
        assert len(closed) == 12
        inside = winding_number(
            np.array([[0.5, 0.5, 0.5], [0.05, 0.5, 0.5], [0.95, 0.5, 0.5], [1.2, 0.5, 0.5]]), CUBE, closed
        )
        np.testing.assert_allclose(inside, [1, 1, 1, 0], atol=1e-5)
    whole = faces(SIDES)
    np.testing.assert_array_equal(close_holes(whole), whole)


def test_a_hand_is_closed(right):
    closed = close_holes(right.faces)
    edges = np.concatenate([closed[:, [0, 1]], closed[:, [1, 2]], closed[:, [2, 0]]])
    assert set(map(tuple, edges.tolist())) == set(map(tuple, edges[:, ::-1].tolist()))
    v = np.asarray(right.v_template)
    near_wrist = v[np.unique(closed[len(right.faces) :])].mean(0) * 0.9 + 0.1 * v.mean(0)
    np.testing.assert_allclose(winding_number(near_wrist[None], v, closed), 1, atol=1e-3)
    assert winding_number(near_wrist[None], v, right.faces)[0] < 0.9


def test_what_is_no_hole():
    with pytest.raises(ValueError, match="loops"):
        close_holes(np.array([[0, 1, 2], [0, 3, 4]]))
