import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.track import Region, Tracker, load_networks, start_tracker, track_hands
from jhand.track.tracker import _fill, _where_needed, first_of_their_kind
from tests.track.pictures import video_frames

VIDEO = "hand_video/human_hand_video.mp4"


def squares(centres):
    centres = jnp.asarray(centres, jnp.float32)
    return Region(centre=centres, side=jnp.full(centres.shape[:-1], 10.0), angle=jnp.zeros(centres.shape[:-1]))


@pytest.mark.parametrize(("total", "chunk"), [(1, 1), (2, 2), (5, 1), (5, 2), (6, 4)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_only_what_is_needed(total, chunk, share):
    needed = np.random.default_rng(total).random(total) < share
    table = jnp.arange(3.0 * total).reshape(total, 3) + 1
    nothing = {"a": jnp.zeros((total, 3))}
    found = jax.jit(lambda n: _where_needed(n, lambda rows: {"a": table[rows]}, nothing, chunk))(needed)["a"]
    np.testing.assert_array_equal(found, np.where(needed[:, None], table, 0))


def test_the_first_of_overlapping_regions_stays():
    regions = squares([[[0, 0], [1, 0], [2, 0], [50, 0]]])
    stays = lambda *present: first_of_their_kind(regions, jnp.array([present]))[0].tolist()  # noqa: E731
    assert stays(True, True, True, True) == [True, False, False, True]
    assert stays(False, True, True, True) == [False, True, False, True]


def test_free_slots_take_what_is_new():
    old, new = squares([[[0, 0], [100, 0], [200, 0]]]), squares([[[101, 1], [300, 0], [400, 0]]])
    present, regions = _fill(jnp.array([[False, True, False]]), old, jnp.array([[True, True, True]]), new)
    assert present.all()
    np.testing.assert_array_equal(regions.centre[0], [[300, 0], [100, 0], [400, 0]])
    present, regions = _fill(jnp.array([[False, True, False]]), old, jnp.array([[False, True, False]]), new)
    assert present.tolist() == [[True, True, False]]
    np.testing.assert_array_equal(regions.centre[0, :2], [[300, 0], [100, 0]])


def test_a_video(lite, shared_data):
    """Found once and followed, in one compiled step; two videos side by side are as each alone."""
    frames = video_frames(shared_data(VIDEO), list(range(0, 24, 6)))
    H, W, _ = frames[0].shape
    empty = np.zeros_like(frames[0])
    recorded = np.load(shared_data("hand_video/human_hand_video_keypoints.npz"))["mp_image_norm"]
    before = track_hands._cache_size()
    tracker = start_tracker(num_hands=1)
    alone = []
    for frame in [*frames, empty]:
        tracker, hands = track_hands(lite, tracker, frame)
        alone.append(hands)
    assert track_hands._cache_size() == before + 1
    assert [bool(hands.present[0]) for hands in alone] == [True] * len(frames) + [False]
    assert not tracker.present.any() and not hands.keypoints2d.any()
    for i, hands in enumerate(alone[:-1]):
        expected = recorded[6 * i, :, :2] * [W, H] - 0.5
        assert np.linalg.norm(hands.keypoints2d[0] - expected, axis=-1).mean() < 15  # of the other network's
        assert hands.right[0] > 0.5

    tracker = start_tracker(num_hands=1, batch=(2,))
    for i, pair in enumerate(zip(frames[:3], [empty, *frames[:2]], strict=True)):
        tracker, hands = track_hands(lite, tracker, np.stack(pair))
        np.testing.assert_allclose(hands.keypoints2d[0], alone[i].keypoints2d, atol=0.05)
        assert hands.present[1, 0] == (i > 0)
        if i > 0:
            np.testing.assert_allclose(hands.keypoints2d[1], alone[i - 1].keypoints2d, atol=0.05)


def test_it_can_be_vmapped(lite):
    frames, trackers = np.zeros((4, 20, 30, 3), np.uint8), start_tracker(2, (4,))

    def shapes(step):
        leaves = jax.eval_shape(lambda *inputs: jax.tree.leaves(step(*inputs)), lite, trackers, frames)
        return [leaf.shape for leaf in leaves]

    assert shapes(jax.vmap(track_hands, (None, 0, 0))) == shapes(track_hands)


def test_two_hands(lite, shared_data):
    """A right hand and its mirror image, one of which leaves: the other keeps its slot."""
    frame = video_frames(shared_data(VIDEO), [0])[0][::2, 320:1280:2]
    both = np.concatenate([frame, frame[:, ::-1]], 1)
    one = np.concatenate([np.zeros_like(frame), frame[:, ::-1]], 1)
    tracker, hands = track_hands(lite, start_tracker(2), both)
    assert hands.present.all()
    assert sorted(np.asarray(hands.right > 0.5).tolist()) == [False, True]
    left = int(jnp.argmin(hands.right))
    tracker, hands = track_hands(lite, tracker, one)
    assert hands.present[left] and not hands.present[1 - left]
    tracker, hands = track_hands(lite, tracker, both)
    assert hands.present.all() and hands.right[left] < 0.5


def test_errors(lite):
    with pytest.raises(ValueError, match=r"leading axes \(\)"):
        track_hands(lite, start_tracker(1), np.zeros((2, 20, 20, 3), np.uint8))


@pytest.mark.filterwarnings("ignore")  # MediaPipe's own
def test_beside_mediapipe(shared_data):
    """Frame by frame, where MediaPipe is installed."""
    mediapipe = pytest.importorskip("mediapipe")
    frames = video_frames(shared_data(VIDEO), list(range(12)))
    peer = mediapipe.solutions.hands.Hands(model_complexity=1, max_num_hands=1)
    networks, tracker = load_networks("full"), start_tracker(1)
    size = np.array(frames[0].shape[1::-1])
    for frame in frames:
        tracker, hands = track_hands(networks, tracker, frame)
        said = peer.process(frame)
        points = np.array([[p.x, p.y] for p in said.multi_hand_landmarks[0].landmark]) * size - 0.5
        metres = np.array([[p.x, p.y, p.z] for p in said.multi_hand_world_landmarks[0].landmark])
        # its crops are shifted by half a pixel of theirs against half a pixel of the picture
        limit = 1.5 * max(1.0, float(tracker.regions.side[0]) / 224)
        assert np.linalg.norm(hands.keypoints2d[0] - points, axis=-1).max() < limit
        assert np.linalg.norm(hands.keypoints3d[0] - metres, axis=-1).max() < 6e-3
        assert abs(float(hands.right[0]) - said.multi_handedness[0].classification[0].score) < 0.02
    assert isinstance(tracker, Tracker)
