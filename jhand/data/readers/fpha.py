"""FPHA (Garcia-Hernando et al., CVPR 2018): one right hand with magnetic sensors in daily actions, seen from the body.

    Hand_pose_annotation_v1/<subject>/<action>/<sequence>/skeleton.txt              frame, then 21 x 3 millimetres
    Object_6D_pose_annotation_v1/<subject>/<action>/<sequence>/object_pose.txt      frame, then 4 x 4 by columns
    data_split_action_recognition.txt     "Training <n>", lines "<subject>/<action>/<sequence> <class>", then "Test <n>"

Points are in the frame of the sensors' transmitter; `T_CAM_WORLD` brings them to the colour camera. Joints go from the
wrist over the five knuckles to the other joints of each finger.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jhand.data.clip import ClipError
from jhand.data.readers.files import read_lines, read_numbers

ORDER = np.array([0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20])
"""Of jhand's 21 keypoints, the rows of the file."""
T_CAM_WORLD = np.array(
    [
        [0.999988496304, -0.00468848412856, 0.000982563360594, 0.0257],
        [0.00469115935266, 0.999985218048, -0.00273845880292, 0.00122],
        [-0.000969709653873, 0.00274303671904, 0.99999576807, 0.003902],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""To the colour camera, metres: the same for all sequences."""
K = np.array([[1395.749023, 0.0, 935.732544], [0.0, 1395.749268, 540.68103], [0.0, 0.0, 1.0]])
"""Of the colour camera, 1920 x 1080."""
PARTS = ("Training", "Test")


@dataclass(frozen=True)
class FPHAAction:
    """A line of the list of actions."""

    path: str
    """Subject, action and sequence."""
    action: int
    """From 0 to 44."""


def read_fpha_skeleton(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Frames and keypoints of a `skeleton.txt`.

    Returns:
        Numbers of the frames (T,), and keypoints (T, 21, 3) in metres, in jhand's order and the axes of the colour
        camera.

    Raises:
        ClipError: a file that is missing or damaged.
    """
    found = read_numbers(Path(path), 64)
    points = found[:, 1:].reshape(-1, 21, 3)[:, ORDER] / 1000
    return found[:, 0].astype(int), points @ T_CAM_WORLD[:3, :3].T + T_CAM_WORLD[:3, 3]


def read_fpha_object(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Frames and places of the object of an `object_pose.txt`.

    Returns:
        Numbers of the frames (T,), and `T_cam_object` (T, 4, 4) in metres, in the axes of the colour camera.

    Raises:
        ClipError: a file that is missing or damaged.
    """
    found = read_numbers(Path(path), 17)
    T = found[:, 1:].reshape(-1, 4, 4).swapaxes(1, 2)  # stored by columns
    if np.abs(T[:, 3] - [0, 0, 0, 1]).max() > 1e-3:
        raise ClipError(f"{path}: expected 4 x 4 transforms by columns, their last row 0 0 0 1")
    T = T.copy()
    T[:, :3, 3] /= 1000
    return found[:, 0].astype(int), T_CAM_WORLD @ T


def list_fpha_actions(path: str | os.PathLike, part: str) -> list[FPHAAction]:
    """The sequences of one part of `data_split_action_recognition.txt`.

    Args:
        path: of that file.
        part: one of `PARTS`.

    Raises:
        ValueError: another part.
        ClipError: a file that is missing, a line that is neither a part nor a sequence, or fewer than the part says.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    file = Path(path)
    found: dict[str, list[FPHAAction]] = {}
    said: dict[str, int] = {}
    now = ""
    for number, line in enumerate(read_lines(file), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdigit() or (words[0] not in PARTS and not now):
            raise ClipError(f"{file}, line {number}: expected a part or a sequence and a number, got {line!r}")
        if words[0] in PARTS:
            now = words[0]
            found[now], said[now] = [], int(words[1])
        else:
            found[now].append(FPHAAction(words[0], int(words[1])))
    if part not in found or len(found[part]) != said[part]:
        raise ClipError(f"{file}: {part}: expected {said.get(part, 'some')} sequences, got {len(found.get(part, []))}")
    return found[part]
