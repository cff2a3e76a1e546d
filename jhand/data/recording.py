"""Recorded hands: one schema for what cameras and trackers write, and the readers of their files.

| ending | what is read |
|---|---|
| `.pose` | hands of MediaPipe Holistic or OpenPose in pixels, one recording a person and side |
| `.json` | MediaPipe hand landmarks: a list of frames, or `{"fps", "width", "height", "frames"}`; a frame in the layout of the Tasks API (`hand_landmarks`, `hand_world_landmarks`, `handedness`), of the Solutions API (`multi_hand_landmarks`, ...), or `{"hands": [{"handedness", "landmarks", "world_landmarks"}]}` |
| `.npz` | `keypoints3d` (T, N, 3) metres and / or `keypoints2d` (T, N, 2) pixels; `confidence` (T, N), `fps`, `side`, `order`, `size` (width, height), `up` |
| `.csv` | wide: `x0, y0[, z0][, c0], x1, ...`, a row a frame; or long: `frame, point, x, y[, z][, confidence]`. With z metres, without z pixels |
"""  # noqa: E501

import csv
import io
import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jhand.data.pose_file import PoseFileError, parse_pose
from jhand.hand.skeleton import convert_keypoints, keypoint_names


class RecordingError(ValueError):
    """A file that holds no recording: which file, which field, what was expected and what to do."""


@dataclass(frozen=True)
class Recording:
    """One hand over time, 21 keypoints in openpose21 order. What was not measured is None."""

    name: str
    side: str
    """`"right"` or `"left"`, of the person."""
    fps: float
    confidence: np.ndarray
    """(T, 21) in [0, 1], 0 = missing: the value there is 0 and is never read."""
    keypoints3d: np.ndarray | None = None
    """(T, 21, 3) metres."""
    keypoints2d: np.ndarray | None = None
    """(T, 21, 2) pixels."""
    size: tuple[int, int] | None = None
    """Width and height of the picture."""
    up: tuple[float, float, float] = field(default=(0.0, -1.0, 0.0))
    """Direction of up in the frame of `keypoints3d`; by default a camera's, y down."""

    @property
    def num_frames(self) -> int:
        return len(self.confidence)


def make_recording(
    name: str,
    *,
    side: str,
    fps: float,
    keypoints3d: np.ndarray | None = None,
    keypoints2d: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    order: str = "openpose21",
    **rest: Any,
) -> Recording:
    """A checked `Recording` from points in any order; NaN becomes missing.

    Args:
        name: shown in reports.
        side: `"right"` or `"left"`.
        fps: frames per second.
        keypoints3d: (T, N, 3) metres.
        keypoints2d: (T, N, 2) pixels.
        confidence: (T, N); by default 1 for every finite point.
        order: order of the N points.
        **rest: other fields of `Recording`.

    Raises:
        RecordingError: what is wrong, and with which field.
    """
    if side not in ("right", "left"):
        raise RecordingError(f'{name}: side: expected "right" or "left", got {side!r}')
    if not 0 < fps < np.inf:
        raise RecordingError(f"{name}: fps: expected a positive number, got {fps}; pass fps")
    if keypoints3d is None and keypoints2d is None:
        raise RecordingError(f"{name}: neither keypoints3d nor keypoints2d")
    points: dict[str, np.ndarray] = {}
    for key, values, size in (("keypoints3d", keypoints3d, 3), ("keypoints2d", keypoints2d, 2)):
        if values is not None:
            array = np.asarray(values, np.float32)
            expected = len(keypoint_names(order))
            if array.ndim != 3 or array.shape[1:] != (expected, size):
                hint = ": is it another order? pass order=" if array.ndim == 3 and array.shape[1] != expected else ""
                raise RecordingError(
                    f"{name}: {key}: expected (T, {expected}, {size}) in order {order}, got {array.shape}{hint}"
                )
            points[key] = array
    shape = next(iter(points.values())).shape[:2]
    seen = np.ones(shape, np.float32) if confidence is None else np.asarray(confidence, np.float32)
    if seen.shape != shape or any(p.shape[:2] != shape for p in points.values()):
        shapes = {k: p.shape for k, p in points.items()} | {"confidence": seen.shape}
        raise RecordingError(f"{name}: frames and points differ between {shapes}")
    seen = np.clip(np.nan_to_num(seen, nan=0.0), 0, 1)
    for array in points.values():
        seen = seen * np.isfinite(array).all(-1)
    if order != "openpose21":
        points = {
            key: np.array(convert_keypoints(p, source=order, target="openpose21")[0]) for key, p in points.items()
        }
        seen = np.array(convert_keypoints(seen[..., None], source=order, target="openpose21")[0][..., 0])
    points = {key: np.where(seen[..., None] > 0, array, 0) for key, array in points.items()}
    if len(seen) == 0:
        raise RecordingError(f"{name}: it has no frames")
    if not (seen > 0).any():
        raise RecordingError(f"{name}: no frame shows a hand")
    return Recording(name, side, float(fps), seen, points.get("keypoints3d"), points.get("keypoints2d"), **rest)


def read_recording(
    path: str | os.PathLike, *, side: str | None = None, fps: float | None = None, order: str | None = None
) -> list[Recording]:
    """Read the hands in a file, one recording for each.

    Args:
        path: `.pose`, `.json`, `.npz` or `.csv`, laid out as this module's docstring says.
        side: of the hand, where the file does not say it (default right) or says it wrongly.
        fps: frames per second, where the file does not say it (default 30).
        order: keypoint order of `.npz` and `.csv`, by default the file's or openpose21.

    Returns:
        Recordings that show a hand in at least one frame.

    Raises:
        RecordingError: an unreadable, unknown or empty file; it names the file and what to do.
    """
    path = Path(path)
    readers = {".pose": _read_pose, ".json": _read_json, ".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise RecordingError(f"{path}: unknown kind of recording {path.suffix!r}; known are {', '.join(readers)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from None
    if not data:
        raise RecordingError(f"{path}: the file is empty")
    try:
        found = readers[path.suffix.lower()](data, path, side, fps, order)
    except RecordingError as error:
        message = str(error)
        raise RecordingError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except _BROKEN as error:
        raise RecordingError(f"{path}: it cannot be read as {path.suffix}: {error or type(error).__name__}") from None
    if not found:
        raise RecordingError(f"{path}: no frame shows a hand")
    return found


_BROKEN = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, EOFError, OSError),
    *(RecursionError, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, csv.Error),
)
"""What reading damaged or foreign bytes can raise."""

_POSE_COMPONENTS = {
    "LEFT_HAND_LANDMARKS": "left",
    "RIGHT_HAND_LANDMARKS": "right",
    "hand_left_keypoints_2d": "left",
    "hand_right_keypoints_2d": "right",
}


def _read_pose(data: bytes, path: Path, side: str | None, fps: float | None, _: str | None) -> list[Recording]:
    try:
        pose = parse_pose(data)
    except PoseFileError as error:
        raise RecordingError(str(error)) from None
    found = []
    for component, component_side in _POSE_COMPONENTS.items():
        if component not in pose.points or side not in (None, component_side):
            continue
        here = pose.component(component)
        for person in range(pose.coordinates.shape[1]):
            confidence = pose.confidence[:, person, here]
            if confidence.shape[1] == 21 and (confidence > 0).any():
                name = f"{path.stem} {component_side}" + (f" {person + 1}" if pose.coordinates.shape[1] > 1 else "")
                found.append(
                    make_recording(
                        name,
                        side=component_side,
                        fps=fps or pose.fps,
                        keypoints2d=pose.coordinates[:, person, here, :2],
                        confidence=confidence,
                        size=pose.size,
                    )
                )
    return found


def _read_json(data: bytes, path: Path, side: str | None, fps: float | None, _: str | None) -> list[Recording]:
    content = json.loads(data)
    described = content if isinstance(content, dict) and "frames" in content else {}
    frames = described.get("frames", content if isinstance(content, list) else [content])
    if not frames:
        raise RecordingError("frames: the list is empty")
    hands = [_hands_of_frame(frame, i) for i, frame in enumerate(frames)]
    size = (int(described["width"]), int(described["height"])) if {"width", "height"} <= set(described) else None
    found = []
    for wanted in ("right", "left"):
        image = np.full((len(frames), 21, 2), np.nan, np.float32)
        world = np.full((len(frames), 21, 3), np.nan, np.float32)
        for t, frame in enumerate(hands):
            if side is not None and len(frame) > 1:
                raise RecordingError(f"frame {t}: it shows {len(frame)} hands, and side would make all of them {side}")
            for hand_side, pixels, metres in reversed(frame):  # of two hands with one label the first stays
                if (side or hand_side) == wanted:
                    image[t] = np.nan if pixels is None else pixels[:, :2]
                    world[t] = np.nan if metres is None else metres
        has_world, has_image = np.isfinite(world).any(), np.isfinite(image).any() and size is not None
        if has_image:
            image = image * np.array(size, np.float32)
        if has_world or has_image:
            found.append(
                make_recording(
                    f"{path.stem} {wanted}",
                    side=wanted,
                    fps=fps or float(described.get("fps", 30.0)),
                    keypoints3d=world if has_world else None,
                    keypoints2d=image if has_image else None,
                    size=size,
                )
            )
    if not found and size is None and any(hands):
        raise RecordingError(
            'it has image landmarks only, and no picture size: add "width" and "height" beside "frames"'
        )
    return found


def _hands_of_frame(frame: Any, index: int) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Side, image landmarks (21, 3) and world landmarks (21, 3) of each hand in a MediaPipe result.

    MediaPipe's label supposes a mirrored (selfie) picture, so that the hand it calls left in an ordinary picture is a
    right one.
    """
    if not isinstance(frame, dict):
        raise RecordingError(f"frame {index}: expected an object with hands, got {type(frame).__name__}")
    if "hands" in frame:
        entries = [(h.get("handedness", "Left"), h.get("landmarks"), h.get("world_landmarks")) for h in frame["hands"]]
    else:
        tasks = "hand_landmarks" in frame or "hand_world_landmarks" in frame
        image = frame.get("hand_landmarks" if tasks else "multi_hand_landmarks") or []
        world = frame.get("hand_world_landmarks" if tasks else "multi_hand_world_landmarks") or []
        labels = frame.get("handedness" if tasks else "multi_handedness") or []
        num = max(len(image), len(world))
        pick = lambda a, i: a[i] if i < len(a) else None  # noqa: E731
        entries = [(_label(pick(labels, i)), pick(image, i), pick(world, i)) for i in range(num)]
    swapped = {"left": "right", "right": "left"}
    result = []
    for label, image, world in entries:
        if str(label).lower() not in swapped:
            raise RecordingError(f'frame {index}: handedness: expected "Left" or "Right", got {label!r}')
        result.append((swapped[str(label).lower()], _landmarks(image, index), _landmarks(world, index)))
    return result


def _label(entry: Any) -> str:
    """The label in a Tasks category list, a Solutions classification, or by itself."""
    if isinstance(entry, dict) and "classification" in entry:
        entry = entry["classification"]
    if isinstance(entry, list):
        entry = entry[0]
    if isinstance(entry, dict):
        entry = entry.get("category_name") or entry.get("categoryName") or entry.get("label")
    return "Left" if entry is None else entry


def _landmarks(entry: Any, index: int) -> np.ndarray | None:
    if entry is None:
        return None
    points = entry["landmark"] if isinstance(entry, dict) else entry
    rows = [[p["x"], p["y"], p.get("z", 0.0)] if isinstance(p, dict) else p for p in points]
    array = np.array(rows, np.float32)
    if array.shape != (21, 3):
        raise RecordingError(f"frame {index}: expected 21 landmarks of x, y, z, got {array.shape}")
    return array


def _read_npz(data: bytes, path: Path, side: str | None, fps: float | None, order: str | None) -> list[Recording]:
    with np.load(io.BytesIO(data), allow_pickle=False) as z:
        entries = {key: z[key] for key in z.files}
    known = {"keypoints3d", "keypoints2d"} & set(entries)
    if not known:
        raise RecordingError(f"expected keypoints3d (T, N, 3) or keypoints2d (T, N, 2), found {sorted(entries)}")
    rest = {}
    if "size" in entries:
        rest["size"] = tuple(int(s) for s in entries["size"])
    if "up" in entries:
        rest["up"] = tuple(float(s) for s in entries["up"])
    return [
        make_recording(
            path.stem,
            side=side or str(entries.get("side", "right")),
            fps=fps or float(entries.get("fps", 30.0)),
            keypoints3d=entries.get("keypoints3d"),
            keypoints2d=entries.get("keypoints2d"),
            confidence=entries.get("confidence"),
            order=order or str(entries.get("order", "openpose21")),
            **rest,
        )
    ]


_MAX_FRAMES = 1_000_000  # of a table: a wrong number must not fill the memory


def _read_csv(data: bytes, path: Path, side: str | None, fps: float | None, order: str | None) -> list[Recording]:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig", "replace"))))
    header = [name.strip().lower() for name in rows[0]]
    body = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if not body:
        raise RecordingError("it has a header and no rows")

    def number(row: list[str], column: int, line: int) -> float:
        try:
            text = row[column].strip()
            return float(text) if text else np.nan
        except (ValueError, IndexError):
            raise RecordingError(f"line {line + 2}: column {header[column]!r} is not a number") from None

    values = np.array([[number(row, c, i) for c in range(len(header))] for i, row in enumerate(body)], np.float32)
    num_points = len(keypoint_names(order or "openpose21"))
    if {"frame", "point", "x", "y"} <= set(header):
        column = {name: values[:, header.index(name)] for name in header}
        whole = [np.nan_to_num(column[name], nan=-1) for name in ("frame", "point")]
        if min(map(np.min, whole)) < 0 or whole[0].max() >= _MAX_FRAMES or whole[1].max() >= num_points:
            raise RecordingError(
                f"frame and point count from 0, there are {num_points} points and at most {_MAX_FRAMES} frames"
            )
        frame, point = (w.astype(int) for w in whole)
        letters = [c for c in ("x", "y", "z") if c in column]
        points = np.full((frame.max() + 1, num_points, len(letters)), np.nan, np.float32)
        points[frame, point] = np.stack([column[c] for c in letters], -1)
        confidence = np.zeros(points.shape[:2], np.float32)
        confidence[frame, point] = column.get("confidence", np.ones(len(frame)))
    elif {"x0", "y0"} <= set(header):
        letters = [c for c in ("x", "y", "z") if f"{c}0" in header]
        wanted = [f"{c}{k}" for k in range(num_points) for c in letters]
        missing = [name for name in wanted if name not in header]
        if missing:
            raise RecordingError(f"columns {', '.join(missing[:5])} are missing for {num_points} points; pass order=")
        points = values[:, [header.index(name) for name in wanted]].reshape(len(values), num_points, len(letters))
        has_confidence = f"c{num_points - 1}" in header
        confidence = values[:, [header.index(f"c{k}") for k in range(num_points)]] if has_confidence else None
    else:
        raise RecordingError(f"expected columns frame, point, x, y[, z] or x0, y0[, z0], ...; found {header[:8]}")
    key = "keypoints3d" if len(letters) == 3 else "keypoints2d"
    return [
        make_recording(
            path.stem,
            side=side or "right",
            fps=fps or 30.0,
            confidence=confidence,
            order=order or "openpose21",
            **{key: points},
        )
    ]


def write_recording(recording: Recording, path: str | os.PathLike) -> None:
    """Write `.npz` (everything) or `.csv` (long form, of the 3D points where there are any); the file appears whole or
    not at all.

    Raises:
        RecordingError: another ending.
    """
    path = Path(path)
    if path.suffix == ".npz":
        entries: dict[str, Any] = {
            "keypoints3d": recording.keypoints3d,
            "keypoints2d": recording.keypoints2d,
            "size": recording.size,
            "confidence": recording.confidence,
            "side": recording.side,
            "order": "openpose21",
            "fps": recording.fps,
            "up": recording.up,
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{key: value for key, value in entries.items() if value is not None})
        data = buffer.getvalue()
    elif path.suffix == ".csv":
        points = recording.keypoints2d if recording.keypoints3d is None else recording.keypoints3d
        assert points is not None  # a recording has one of them
        lines = ["frame,point," + ",".join("xyz"[: points.shape[-1]]) + ",confidence"]
        for (t, k), c in np.ndenumerate(recording.confidence):
            lines.append(",".join([str(t), str(k), *(f"{x:.8g}" for x in points[t, k]), f"{c:.4g}"]))
        data = ("\n".join(lines) + "\n").encode()
    else:
        raise RecordingError(f"{path}: recordings are written as .npz or .csv, not {path.suffix!r}")
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as out:
        out.write(data)
    Path(out.name).chmod(0o644)
    Path(out.name).replace(path)


def clip_frames(recording: Recording, first: int, last: int, step: int = 1) -> Recording:
    """Frames `first` to `last` (not included) of a recording, every `step`-th; its frame rate follows."""
    pick = slice(first, last, step)
    cut = lambda a: None if a is None else a[pick]  # noqa: E731
    return replace(
        recording,
        fps=recording.fps / step,
        confidence=recording.confidence[pick],
        keypoints3d=cut(recording.keypoints3d),
        keypoints2d=cut(recording.keypoints2d),
    )
