"""Frames that were not seen."""

import jax
import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from jhand.motion import MISSING, OUTSIDE, SEEN, fill_gaps, fill_gaps_rotations, frame_states

TRACK = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1, 0], bool)


def test_states():
    o, s, m = OUTSIDE, SEEN, MISSING
    assert frame_states(TRACK).tolist() == [o, o, s, m, m, s, s, m, s, o]
    assert frame_states(np.zeros((2, 3), bool)).tolist() == [[o] * 3] * 2


def test_points_go_straight():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 10, 2))
    wild = np.where(TRACK[:, None], x, np.nan)
    found = np.asarray(fill_gaps(wild, np.broadcast_to(TRACK, (3, 10))))
    shown = np.flatnonzero(TRACK)
    for n, c in np.ndindex(3, 2):
        np.testing.assert_allclose(found[n, :, c], np.interp(np.arange(10), shown, x[n, shown, c]), atol=1e-5)
    np.testing.assert_array_equal(found[:, TRACK], x[:, TRACK].astype(np.float32))
    assert not np.asarray(fill_gaps(wild, np.zeros((3, 10), bool))).any()


def test_rotations_turn_evenly():
    R = Rotation.random(10, random_state=0)
    found = np.asarray(fill_gaps_rotations(R.as_matrix(), TRACK))
    shown = np.flatnonzero(TRACK)
    expected = Slerp(shown, R[shown])(np.clip(np.arange(10), 2, 8)).as_matrix()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    both = jax.vmap(fill_gaps_rotations)(np.stack([R.as_matrix()] * 2), np.stack([TRACK, ~TRACK]))
    np.testing.assert_allclose(both[0], found, atol=1e-5)
