"""Recordings of every kind that is read, and what is said of files that cannot be."""

import json

import numpy as np
import pytest

from jhand.data import RecordingError, read_recording, write_recording
from jhand.data.recording import clip_frames, make_recording
from jhand.hand.skeleton import convert_keypoints
from jhand.studies import fingerspelling
from tests.data.pose_bytes import pose_bytes

RNG = np.random.default_rng(0)
WORLD = RNG.normal(size=(5, 21, 3)).astype(np.float32)
IMAGE = RNG.uniform(size=(5, 21, 3)).astype(np.float32)


def test_npz_and_csv_round_trip(tmp_path):
    points = WORLD.copy()
    points[1, 3] = np.nan
    recording = make_recording("a", side="left", fps=30.0, keypoints3d=points)
    assert recording.confidence[1, 3] == 0
    assert recording.keypoints3d[1, 3].tolist() == [0, 0, 0]
    for ending in ("npz", "csv"):
        write_recording(recording, tmp_path / f"a.{ending}")
        (again,) = read_recording(tmp_path / f"a.{ending}", side="left")
        np.testing.assert_allclose(again.keypoints3d, recording.keypoints3d, rtol=1e-5)
        np.testing.assert_array_equal(again.confidence, recording.confidence)
        assert (again.side, again.fps) == ("left", 30.0)


def test_other_orders_are_converted(tmp_path):
    other = np.array(convert_keypoints(WORLD, source="openpose21", target="interhand21")[0])
    np.savez(tmp_path / "a.npz", keypoints3d=other, order="interhand21")
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npz")[0].keypoints3d, WORLD)
    np.savez(tmp_path / "b.npz", keypoints3d=WORLD[:, :16])
    with pytest.raises(RecordingError, match="pass order"):
        read_recording(tmp_path / "b.npz")


def test_wide_csv(tmp_path):
    header = ",".join(f"{c}{k}" for k in range(21) for c in "xy")
    rows = "\n".join(",".join(f"{v:.4f}" for v in frame[:, :2].ravel()) for frame in IMAGE)
    (tmp_path / "a.csv").write_text(header + "\n" + rows + "\n")
    (found,) = read_recording(tmp_path / "a.csv", fps=50.0)
    np.testing.assert_allclose(found.keypoints2d, IMAGE[..., :2], atol=1e-4)
    assert found.keypoints3d is None
    assert found.fps == 50


@pytest.mark.parametrize("layout", ["tasks", "solutions", "hands"])
def test_mediapipe_json(tmp_path, layout):
    """Its label supposes a mirrored picture: "Left" is a right hand. The second frame shows none."""
    as_xyz = lambda points: [dict(zip("xyz", map(float, p), strict=True)) for p in points]  # noqa: E731
    frames = []
    for t in range(5):
        image, world = as_xyz(IMAGE[t]), as_xyz(WORLD[t])
        frames.append(
            {
                "tasks": {
                    "hand_landmarks": [image],
                    "hand_world_landmarks": [world],
                    "handedness": [[{"category_name": "Left", "score": 0.9}]],
                },
                "solutions": {
                    "multi_hand_landmarks": [{"landmark": image}],
                    "multi_hand_world_landmarks": [{"landmark": world}],
                    "multi_handedness": [{"classification": [{"label": "Left", "score": 0.9}]}],
                },
                "hands": {"hands": [{"handedness": "Left", "landmarks": IMAGE[t].tolist(), "world_landmarks": world}]},
            }[layout]
        )
    frames[1] = {"hands": []}
    (tmp_path / "a.json").write_text(json.dumps({"fps": 24, "width": 640, "height": 480, "frames": frames}))
    (found,) = read_recording(tmp_path / "a.json")
    assert (found.side, found.fps, found.size) == ("right", 24, (640, 480))
    assert found.confidence[1].max() == 0
    np.testing.assert_allclose(found.keypoints3d[0], WORLD[0], rtol=1e-6)
    np.testing.assert_allclose(found.keypoints2d[2], IMAGE[2, :, :2] * [640, 480], rtol=1e-5)


def test_pose_files_hold_one_recording_a_hand(tmp_path):
    points = {"LEFT_HAND_LANDMARKS": ("p",) * 21, "RIGHT_HAND_LANDMARKS": ("p",) * 21}
    coordinates = RNG.uniform(0, 640, size=(5, 1, 42, 3))
    confidence = np.ones((5, 1, 42))
    confidence[:2, :, :21] = 0
    (tmp_path / "a.pose").write_bytes(pose_bytes(0.1, points, coordinates, confidence))
    left, right = read_recording(tmp_path / "a.pose")
    assert (left.side, right.side) == ("left", "right")
    assert (left.confidence[:2] == 0).all()
    np.testing.assert_allclose(right.keypoints2d, coordinates[:, 0, 21:, :2], rtol=1e-6)
    assert [r.side for r in read_recording(tmp_path / "a.pose", side="right")] == ["right"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "unknown kind"),
        ("a.npz", b"", "empty"),
        ("a.npz", b"not a zip", "cannot be read"),
        ("a.json", b"{", "cannot be read"),
        ("a.json", b"[]", "empty"),
        ("a.json", b'[{"hands": []}]', "no frame shows a hand"),
        ("a.json", b"[3]", "expected an object"),
        ("a.json", b'[{"hands": [{"landmarks": [[1, 2, 3]]}]}]', "21 landmarks"),
        ("a.csv", b"x0,y0\n", "no rows"),
        ("a.csv", b"a,b\n1,2\n", "expected columns"),
        ("a.csv", b"frame,point,x,y\n0,99,1,1\n", "21 points"),
        ("a.csv", b"frame,point,x,y\n0,zero,1,1\n", "line 2: column 'point'"),
        ("a.pose", b"PK\x03\x04" + bytes(50), "version"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message) as error:
        read_recording(path)
    assert str(path) in str(error.value)


def test_a_pickle_in_an_npz_is_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", keypoints3d=np.array([object()]))
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path / "a.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordingError, match=r"gone\.npz"):
        read_recording(tmp_path / "gone.npz")


def test_a_recording_without_a_hand_is_refused():
    with pytest.raises(RecordingError, match="no frame shows a hand"):
        make_recording("a", side="right", fps=30.0, keypoints3d=np.full((3, 21, 3), np.nan))
    with pytest.raises(RecordingError, match="side"):
        make_recording("a", side="up", fps=30.0, keypoints3d=WORLD)


def test_clipping_keeps_time():
    recording = make_recording("a", side="right", fps=30.0, keypoints3d=WORLD)
    every_other = clip_frames(recording, 0, 5, 2)
    assert (every_other.num_frames, every_other.fps) == (3, 15)


def test_embedded_clips():
    clips = fingerspelling()
    assert len(clips) == 24
    assert {c.side for c in clips} == {"right", "left"}
    assert all((c.confidence > 0).mean() > 0.9 and c.keypoints2d is not None for c in clips)
