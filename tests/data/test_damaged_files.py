"""Damaged and hostile recordings are refused with a message, whatever their bytes: no other error, no crash."""

import io
import json

import numpy as np
import pytest

from jhand.data import RecordingError, read_recording
from tests.data.pose_bytes import pose_bytes

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(2, 21, 3)).astype(np.float32)


def intact(ending: str) -> bytes:
    """A small recording of each kind."""
    if ending == "npz":
        out = io.BytesIO()
        np.savez_compressed(out, keypoints3d=POINTS, fps=25.0, side="left", size=(640, 480))
        return out.getvalue()
    if ending == "json":
        hand = {"handedness": "Left", "landmarks": POINTS[0].tolist(), "world_landmarks": POINTS[0].tolist()}
        return json.dumps({"fps": 25, "width": 640, "height": 480, "frames": [{"hands": [hand]}]}).encode()
    if ending == "csv":
        rows = [f"{t},{k},{x},{y},{z}" for t in range(2) for k, (x, y, z) in enumerate(POINTS[t])]
        return "\n".join(["frame,point,x,y,z", *rows]).encode()
    component = {"RIGHT_HAND_LANDMARKS": ("p",) * 21}
    version = {"old.pose": 0.0, "pose": 0.2}[ending]
    return pose_bytes(version, component, np.abs(POINTS[:, None]), np.ones((2, 1, 21)))


def read(tmp_path, ending: str, data: bytes) -> bool:
    """Whether it could be read; any error but the clear one fails the test."""
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    try:
        found = read_recording(path)
    except RecordingError as error:
        assert str(path) in str(error) and "\n" not in str(error)[:80]
        return False
    assert all(np.isfinite(r.confidence).all() and r.num_frames > 0 for r in found)
    return True


@pytest.mark.parametrize("ending", ["npz", "json", "csv", "old.pose", "pose"])
def test_damage(tmp_path, ending):
    rng = np.random.default_rng(1)
    data = intact(ending)
    assert read(tmp_path, ending, data)
    for end in rng.integers(0, len(data), 40):
        read(tmp_path, ending, data[:end])
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
        refused += not read(tmp_path, ending, bytes(damaged))
    assert refused > 10  # the damage was real


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("deep.json", b"[" * 200_000, "cannot be read as .json"),
        ("infinite.json", b'{"width": 1e999, "height": 1, "frames": [{"hands": []}]}', "cannot be read as .json"),
        ("zero.csv", b"frame,point,x,y\n0,0,1,\x001\n", "zero.csv"),
        ("long.csv", b"frame,point,x,y\n999999999,0,1,1\n", "at most"),
        ("nan.csv", b"frame,point,x,y\nnan,0,1,1\n", "frame and point count from 0"),
        ("still.csv", b"frame,point,x,y\n0,0,nan,1\n", "no frame shows a hand"),
    ],
)
def test_extremes(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        read_recording(tmp_path / name)


def test_a_side_for_two_hands_is_refused(tmp_path):
    hands = [{"handedness": label, "world_landmarks": POINTS[0].tolist()} for label in ("Left", "Right")]
    (tmp_path / "a.json").write_text(json.dumps([{"hands": hands}]))
    assert [r.side for r in read_recording(tmp_path / "a.json")] == ["right", "left"]
    with pytest.raises(RecordingError, match="frame 0: it shows 2 hands"):
        read_recording(tmp_path / "a.json", side="left")


def test_of_two_hands_with_one_label_the_first_is_read(tmp_path):
    hands = [{"handedness": "Left", "world_landmarks": points.tolist()} for points in POINTS]
    (tmp_path / "a.json").write_text(json.dumps([{"hands": hands}]))
    (found,) = read_recording(tmp_path / "a.json")
    np.testing.assert_allclose(found.keypoints3d[0], POINTS[0], rtol=1e-6)


def test_a_frame_rate_must_be_a_number(tmp_path):
    for fps in (0.0, np.inf, np.nan):
        np.savez(tmp_path / "a.npz", keypoints3d=POINTS, fps=fps)
        with pytest.raises(RecordingError, match="fps: expected a positive number"):
            read_recording(tmp_path / "a.npz")
