"""The `.pose` container of sign-language processing (versions 0.0 to 0.2), read and written without its own library.

Layout, little-endian, from the format's published specification: a header (version float32; width, height, depth
uint16; components with their name, channel letters, points, limbs and colours) and a body (frames per second, frames,
people; then coordinates and confidences as float32 of every frame, person and point; version 0.0 interleaves them
person by person). The library that defines the format depends on video codecs under the GPL.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jhand.hand.skeleton import bones

_MAX_NUMBERS = 2**28  # a header can promise more than any recording holds


class PoseFileError(ValueError):
    """Bytes that are not a `.pose` file."""


@dataclass(frozen=True)
class PoseFile:
    """A recording of any number of people."""

    fps: float
    size: tuple[int, int]  # width, height
    points: dict[str, tuple[str, ...]]  # names by component, in the order of the arrays
    coordinates: np.ndarray  # (T, people, points, 2 or 3)
    confidence: np.ndarray  # (T, people, points)

    def component(self, name: str) -> slice:
        """Where a component's points stand."""
        start = 0
        for other, points in self.points.items():
            if other == name:
                return slice(start, start + len(points))
            start += len(points)
        raise KeyError(name)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        if self.at + size > len(self.data):
            raise PoseFileError(f"it ends after {len(self.data)} bytes, in the middle of its header")
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += size
        return values

    def text(self) -> str:
        (length,) = self.take("H")
        return self.take(f"{length}s")[0].decode("utf-8", "replace")

    def floats(self, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        if count > _MAX_NUMBERS or self.at + 4 * count > len(self.data):
            held = (len(self.data) - self.at) // 4
            raise PoseFileError(f"its header promises {' x '.join(map(str, shape))} numbers, the file holds {held}")
        array = np.frombuffer(self.data, "<f4", count, self.at).reshape(shape)
        self.at += 4 * count
        return array


def parse_pose(data: bytes) -> PoseFile:
    """Parse the bytes of a `.pose` file.

    Raises:
        PoseFileError: bytes of another kind, or truncated ones.
    """
    read = _Reader(data)
    (version,) = read.take("f")
    if version != 0 and not any(abs(version - known) < 1e-3 for known in (0.1, 0.2)):
        raise PoseFileError(f"it is not a .pose file of version 0.0, 0.1 or 0.2 (its version reads {version:.4g})")
    width, height, _, num_components = read.take("HHHH")
    if not num_components:
        raise PoseFileError("it is not a .pose file: its header lists no components")
    points, channels = {}, []
    for _ in range(num_components):
        name, letters = read.text(), read.text()
        num_points, num_limbs, num_colours = read.take("HHH")
        points[name] = tuple(read.text() for _ in range(num_points))
        read.take(f"{2 * num_limbs}H")
        read.take(f"{3 * num_colours}H")
        channels.append(len(letters) - 1)
    if version < 0.05:
        return _parse_people(read, (width, height), points, channels)
    fps, num_frames, num_people = read.take("HHH" if version < 0.15 else "fIH")
    total = sum(len(p) for p in points.values())
    coordinates = read.floats((num_frames, num_people, total, max(channels)))
    confidence = read.floats((num_frames, num_people, total))
    return PoseFile(float(fps), (width, height), points, coordinates, confidence)


def _parse_people(
    read: _Reader, size: tuple[int, int], points: dict[str, tuple[str, ...]], channels: list[int]
) -> PoseFile:
    """The body of version 0.0: every frame says how many people it shows, each with coordinates and confidence by
    point.
    """
    fps, num_frames = read.take("HH")
    total, dims = sum(len(p) for p in points.values()), max(channels)
    frames = []
    for _ in range(num_frames):
        (num_people,) = read.take("H")
        people = []
        for _ in range(num_people):
            read.take("h")  # an identity
            parts = [read.floats((len(p), c + 1)) for p, c in zip(points.values(), channels, strict=True)]
            person = np.zeros((total, dims + 1), np.float32)
            row = 0
            for part in parts:
                person[row : row + len(part), : part.shape[1] - 1] = part[:, :-1]
                person[row : row + len(part), -1] = part[:, -1]
                row += len(part)
            people.append(person)
        frames.append(people)
    body = np.zeros((num_frames, max(map(len, frames), default=0), total, dims + 1), np.float32)
    for t, people in enumerate(frames):
        body[t, : len(people)] = people if people else 0
    return PoseFile(float(fps), size, points, body[..., :-1], body[..., -1])


_JOINTS = ("MCP", "PIP", "DIP", "TIP")
_FINGERS = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
_MEDIAPIPE = (
    "WRIST",
    *(f"THUMB_{joint}" for joint in ("CMC", "MCP", "IP", "TIP")),
    *(f"{finger}_{joint}" for finger in _FINGERS for joint in _JOINTS),
)
"""Names of the 21 points of a hand."""
_COLOURS = {"left": (0, 90, 200), "right": (200, 60, 40)}


def write_hands(
    path: str | os.PathLike,
    hands: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int],
    fps: float,
    num_frames: int | None = None,
) -> None:
    """Write hands in pixels as a `.pose` file of version 0.2, with components as of MediaPipe Holistic; the file is
    replaced in one step.

    Args:
        path: of the file.
        hands: of each its side, points (T, 21, 3) in pixels, openpose21 order, with depth as of `jhand.track.Hands`,
            and confidences (T, 21), 0 for what is missing. Several of one side become several people.
        size: width and height of the picture, pixels.
        fps: frames per second.
        num_frames: T, where there are no hands.
    """
    by_side = {side: [hand for hand in hands if hand[0] == side] for side in ("left", "right")}
    T = len(hands[0][1]) if hands else num_frames or 0
    people = max(1, *map(len, by_side.values()))
    coordinates = np.zeros((T, people, 42, 3), "<f4")
    confidence = np.zeros((T, people, 42), "<f4")
    for i, side in enumerate(by_side):
        for person, (_, points, trust) in enumerate(by_side[side]):
            here = slice(21 * i, 21 * (i + 1))
            confidence[:, person, here] = trust
            coordinates[:, person, here] = np.where(np.asarray(trust)[..., None] > 0, points, 0)
    limbs = bones("openpose21")
    text = lambda s: struct.pack("<H", len(s)) + s.encode()  # noqa: E731
    header = struct.pack("<fHHHH", 0.2, *size, 0, 2)
    for side in by_side:
        header += text(f"{side.upper()}_HAND_LANDMARKS") + text("XYZC")
        header += struct.pack("<HHH", 21, len(limbs), 1) + b"".join(map(text, _MEDIAPIPE))
        header += b"".join(struct.pack("<HH", *limb) for limb in limbs) + struct.pack("<HHH", *_COLOURS[side])
    body = struct.pack("<fIH", fps, T, people) + coordinates.tobytes() + confidence.tobytes()
    part = Path(f"{os.fspath(path)}.part")
    part.write_bytes(header + body)
    part.replace(path)
