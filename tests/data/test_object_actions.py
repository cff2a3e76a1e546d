import jax
import numpy as np
import pytest

from jhand.data.made import Made, first_examples
from jhand.data.object_actions import ACTIONS, BOX, BOX_EDGES, ActionScene, object_action
from jhand.hand import bones

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
SCENE = ActionScene(frames=16)


@pytest.fixture(scope="module")
def sequences():
    return first_examples(Made(object_action, SCENE), 0, 256)


def test_a_box_has_its_centre_corners_and_edges():
    assert BOX.shape == (21, 3) and len(BOX_EDGES) == 8 + 24
    np.testing.assert_array_equal(np.sort(np.abs(BOX).sum(1)), [0] + 12 * [2] + 8 * [3])
    for a, b in BOX_EDGES:
        if a:  # a corner and the middle of one of its edges
            assert np.abs(BOX[a] - BOX[b]).sum() == 1


def of_verb(sequences, verb):
    return np.flatnonzero([ACTIONS[a].startswith(verb) for a in sequences["action"]])


def gap(sequences, n, side):
    """From a hand's fingertips to the nearest of the ends of the object, (T, 2)."""
    points = sequences["points"][n]
    grip = points[:, [21 * side + k for k in (4, 8, 12)]].mean(1)
    local = BOX[:, 2]
    ends = np.stack([points[:, 42:][:, local == sign].mean(1) for sign in (-1, 1)], 1)
    return np.linalg.norm(grip[:, None] - ends, axis=-1)


def test_actions_are_what_they_are_called(sequences):
    seen = 0
    for n, action in enumerate(sequences["action"]):
        name = ACTIONS[action]
        side = int("right" in name)
        if not sequences["valid"][n][:, :2].all():
            continue
        near = gap(sequences, n, side)
        end = int("end 1" in name)
        if name.startswith(("reach", "carry")):
            assert near[-1, end] < 0.06 < near[0, end] and near[-1, end] < near[-1, 1 - end]
        if name.startswith("leave"):
            assert near[0, end] < 0.06 < near[-1, end]
        if name.startswith("give"):
            other = gap(sequences, n, 1 - side)
            assert near.min() < 0.06 < near[-1].min() and other[-1].min() < 0.06 < other[0].min()
        if name.startswith("pass"):
            centre = sequences["points"][n][:, 42]
            grip = sequences["points"][n][:, [21 * side + k for k in (4, 8, 12)]].mean(1)
            assert np.linalg.norm(grip - centre, axis=-1).min() > 0.1
        seen += 1
    assert seen > 120 and len(set(sequences["action"])) == len(ACTIONS)


def test_the_object_is_rigid_and_moves_where_it_is_moved(sequences):
    box = sequences["points"][:, :, 42:]
    lengths = np.linalg.norm(box[:, :, 1:] - box[:, :, :1], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], lengths.shape), atol=1e-5)
    # beside the camera's motion, which moves all alike: the object turns only where it is turned
    way = box[:, :, 1] - box[:, :, 8]
    turned = np.linalg.norm(way[:, -1] - way[:, 0], axis=-1) > 0.02
    np.testing.assert_array_equal(np.flatnonzero(turned), of_verb(sequences, "turn"))


def test_hands_are_hands_and_left_ones_mirrored(sequences):
    pairs = np.array(bones("openpose21"))
    for side in (0, 1):
        shown = sequences["valid"][:, :, side]
        valid = shown.all(1)
        points = sequences["points"][valid][:, :, 21 * side : 21 * side + 21]
        lengths = np.linalg.norm(points[:, :, pairs[:, 0]] - points[:, :, pairs[:, 1]], axis=-1)
        np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], lengths.shape), atol=2e-5)
        assert 0.06 < lengths[..., 8].mean() < 0.13  # the middle finger's metacarpal
        index, little = points[:, 0, 5] - points[:, 0, 0], points[:, 0, 17] - points[:, 0, 0]
        tips = points[:, 0, [8, 12, 16]].mean(1) - points[:, 0, [5, 9, 13]].mean(1)
        # fingers bend to the palm's side, which is on the other side of this product for the other hand
        bent = np.einsum("nx,nx->n", np.cross(index, little), tips)
        assert (
            np.mean(np.sign(bent) == (1 if side else -1)) > 0.75 or np.mean(np.sign(bent) == (-1 if side else 1)) > 0.75
        )
        assert 0.6 < valid.mean() < 0.9 and 0.93 < shown.mean() < 0.99
        np.testing.assert_array_equal(sequences["points"][:, :, 21 * side : 21 * side + 21][~shown], 0)


def test_people_keep_their_hands_and_estimates_are_off(sequences):
    size = np.linalg.norm(sequences["points"][:, 0, 30] - sequences["points"][:, 0, 21], axis=-1)
    seen = sequences["valid"][:, :, 1].all(1)
    people = [size[seen & (sequences["subject"] == s)] for s in set(sequences["subject"])]
    assert all(np.ptp(p) < 1e-5 for p in people if len(p)) and np.std([p[0] for p in people if len(p)]) > 0.003
    off = (sequences["estimated"] - sequences["points"])[seen][:, :, 21:42]
    assert 0.025 < np.sqrt((off**2).mean()) < 0.035
    together = off.mean(2)
    assert np.sqrt((together**2).mean()) > 0.02 and np.abs(np.diff(together, axis=1)).mean() < 0.02


def test_others_are_other_people():
    other = jax.jit(lambda k: object_action(k, ActionScene(frames=16, subjects=(30, 40)))["subject"])
    assert all(30 <= int(other(jax.random.key(n))) < 40 for n in range(20))
