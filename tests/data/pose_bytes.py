"""Writes `.pose` bytes from the format's description, to read back."""

import struct

import numpy as np


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<H", len(data)) + data


def pose_bytes(version: float, points: dict[str, tuple[str, ...]], coordinates, confidence, fps=25, size=(640, 480)):
    """A file of one of the versions 0.0, 0.1 and 0.2 with limbs and colours to step over."""
    letters = "XYZ"[: coordinates.shape[-1]] + "C"
    out = struct.pack("<fHHHH", version, *size, 0, len(points))
    for name, labels in points.items():
        out += _text(name) + _text(letters) + struct.pack("<HHH", len(labels), 1, 2)
        out += b"".join(map(_text, labels)) + struct.pack("<2H", 0, 1) + struct.pack("<6H", *range(6))
    num_frames, num_people = confidence.shape[:2]
    if version == 0.0:
        out += struct.pack("<HH", int(fps), num_frames)
        both = np.concatenate([coordinates, confidence[..., None]], -1).astype("<f4")
        for frame in both:
            out += struct.pack("<H", num_people)
            for person in frame:
                out += struct.pack("<h", 0) + person.tobytes()
        return out
    out += struct.pack("<HHH" if version == 0.1 else "<fIH", fps, num_frames, num_people)
    return out + coordinates.astype("<f4").tobytes() + confidence.astype("<f4").tobytes()
