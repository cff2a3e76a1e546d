"""Four openly licensed recordings of real hands, as their publishers wrote them.

| function | what | publisher, licence |
|---|---|---|
| `read_quest_poses` | 55 named poses of a Quest headset, 25 WebXR joints | stewdio/handy.js, MIT |
| `read_leap` | Leap Motion tracking, 19 recordings of 20 joints | leapmotion/leapjs-playback, Apache-2.0 |
| `read_hand_video` | MediaPipe landmarks of a video of a right hand | dexsuite/dex-retargeting, MIT |
| `read_hand_markers` | optical markers on a right hand that picks up a pillow | dfki-ric/hand_embodiment, BSD-3 |

Joints of trackers and networks are their opinion, not the truth; only the markers were measured optically.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jhand.data.recording import Recording, RecordingError, make_recording
from jhand.hand.skeleton import convert_keypoints


@dataclass(frozen=True)
class MarkerRecording:
    """Motion-capture markers over time."""

    name: str
    side: str
    fps: float
    names: tuple[str, ...]
    points: np.ndarray
    """(T, K, 3) metres, 0 where missing."""
    seen: np.ndarray
    """(T, K) bool."""
    up: tuple[float, float, float]


def _file(folder: str | os.PathLike, *parts: str) -> Path:
    path = Path(folder, *parts)
    if not path.is_file():
        raise RecordingError(f"{path}: there is no such file; expected {'/'.join(parts)} below {folder}")
    return path


def read_quest_poses(folder: str | os.PathLike) -> Recording:
    """Single poses of one person's right hand in the wrist's frame, as frames that do not follow each other."""
    path = _file(folder, "handy", "handy_poses_right.json")
    poses = [pose for pose in json.loads(path.read_text()) if pose["handedness"] == "right"]
    joints = np.array([pose["joints_mm"] for pose in poses], np.float32) / 1000
    return make_recording("quest", side="right", fps=1.0, keypoints3d=joints, order="webxr25", up=(0.0, 1.0, 0.0))


# Recordings that show the same session, whole, cropped or at other rates, are one group.
LEAP_GROUPS = {
    "splay": ("HandSplay-110fps",),
    "waiting": ("Waiting-110fps", "waiting-short"),
    "brian": ("brian",),
    "confidence": ("confidence-37fps", "confidence-74fps"),
    "confidence-demo": (
        "confidence-demo", "confidence-demo-half-res", "confidence-demo-quarter-res", "confidence-demo-eighth-res",
    ),
    "confidence2": ("confidence2", "confidence2-49fps"),
    "flapping": ("flapping",),
    "gun": ("gun",),
    "pinch": ("pinch", "pinch-half-res"),
    "roll and pitch": ("rollAndPitchCropped", "rollAndPitchWithEntry"),
    "paddle": ("test-paddle-rightwards",),
}  # fmt: skip


def read_leap(folder: str | os.PathLike, group: str, side: str = "right") -> Recording:
    """The first recording of a group, one hand of it, without frames that repeat the one before.

    Raises:
        RecordingError: a file or group that is not there, or a group without this hand.
    """
    path = _file(folder, "leap", "leap_recordings.npz")
    if group not in LEAP_GROUPS:
        raise RecordingError(f"{path}: unknown group {group!r}; known are {', '.join(LEAP_GROUPS)}")
    name = LEAP_GROUPS[group][0]
    with np.load(path, allow_pickle=False) as z:
        right, time = z[f"{name}/right"] == 1, z[f"{name}/t_us"]
        mine = right if side == "right" else ~right
        joints, time = z[f"{name}/joints_mm"][mine], time[mine]
    if not len(joints):
        raise RecordingError(f"{path}: {name} shows no {side} hand")
    # five fingers of carpal end (never given), mcp, pip, dip, tip
    points = (joints[:, :, 1:] / 1000).reshape(len(joints), 20, 3).astype(np.float32)
    fresh = np.concatenate([[True], np.any(points[1:] != points[:-1], axis=(1, 2))])
    points, time = points[fresh], time[fresh]
    keypoints, valid = convert_keypoints(points, source="leap20", target="openpose21")
    return make_recording(
        f"leap {group}",
        side=side,
        fps=float(1e6 / np.median(np.diff(time))),
        keypoints3d=np.array(keypoints),
        confidence=np.broadcast_to(valid.astype(np.float32), (len(points), 21)),
        up=(0.0, 1.0, 0.0),
    )


def read_hand_video(folder: str | os.PathLike) -> Recording:
    """MediaPipe's world and image landmarks of 400 frames of 1280 x 720; its label "Left" means a right hand in this
    picture.
    """
    path = _file(folder, "hand_video", "human_hand_video_keypoints.npz")
    with np.load(path, allow_pickle=False) as z:
        world, image = z["mp_world_m"], z["mp_image_norm"][..., :2] * np.array([1280, 720], np.float32)
    return make_recording("hand video", side="right", fps=30.0, keypoints3d=world, keypoints2d=image, size=(1280, 720))


def read_hand_markers(folder: str | os.PathLike) -> MarkerRecording:
    """Thirteen markers: three on the back of the hand, one on the tip and one on the middle of each finger; z is up."""
    path = _file(folder, "mocap", "recording.tsv")
    lines = path.read_text(encoding="latin1").splitlines()
    header = {line.split("\t")[0]: line.split("\t")[1:] for line in lines[:11]}
    names = header["MARKER_NAMES"]
    rows = [line.split("\t")[2 : 2 + 3 * len(names)] for line in lines[12:] if line.strip()]
    values = np.array([[float(cell) if cell.strip() not in ("", "NULL") else np.nan for cell in row] for row in rows])
    points = values.reshape(len(rows), len(names), 3)
    parts = ("hand", "thumb", "index", "middle", "ring", "little")
    of_hand = [i for i, name in enumerate(names) if name.split("_")[0] in parts]
    points = (points[:, of_hand] / 1000).astype(np.float32)
    seen = np.isfinite(points).all(-1)
    return MarkerRecording(
        "mocap",
        "right",
        float(header["FREQUENCY"][0]),
        tuple(names[i] for i in of_hand),
        np.where(seen[..., None], points, 0),
        seen,
        (0.0, 0.0, 1.0),
    )
