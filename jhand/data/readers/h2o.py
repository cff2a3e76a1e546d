"""H2O (Kwon et al., ICCV 2021): two hands that handle objects before four fixed cameras and one on the head.

    <folder>/<subject>/<scene>/<sequence>/cam<n>/hand_pose/<frame>.txt        of the left, then the right hand: 1 if
                                                                              it is there, 21 x 3 metres in the camera
                                          .../hand_pose_MANO/<frame>.txt      the same: flag, 3 translation, 48, 10
                                          .../obj_pose/<frame>.txt            class, then 21 x 3: centre, corners, edges
                                          .../obj_pose_RT/<frame>.txt         class, then object to camera, 4 x 4
                                          .../cam_pose/<frame>.txt            camera to world, 4 x 4
                                          .../cam_intrinsics.txt              fx fy cx cy width height
    <list of actions>   a line of names, then: id path action_label start_act end_act start_frame end_frame

Frames have six digits. Keypoints are taken to be in OpenPose's order, which is jhand's; the paper does not say.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jhand.data.clip import ClipError
from jhand.data.readers.files import read_lines, read_numbers

OBJECTS = ("book", "espresso", "lotion", "spray", "milk", "cocoa", "chips", "cappuccino")
"""Classes 1 to 8; 0 is no object."""
EGO = "cam4"
_COLUMNS = ("id", "path", "action_label", "start_act", "end_act", "start_frame", "end_frame")


@dataclass(frozen=True)
class H2OAction:
    """A line of a list of actions."""

    id: int
    path: str
    """Subject, scene and sequence."""
    action: int
    """From 1 to 36; 0 where the list does not say, as that of the test part."""
    first: int
    last: int
    """The frames of the action, both ends included."""


def read_h2o_frame(camera: str | os.PathLike, frame: int) -> dict[str, Any]:
    """What is annotated of one frame of one camera.

    Args:
        camera: folder of a sequence's camera, `.../cam4`.
        frame: its number.

    Returns:
        `keypoints3d` (2, 21, 3) metres in the camera's axes, the left hand's first, 0 where it is not there; `present`
        (2,); `mano`, of the same hands: `transl` (2, 3), `global_orient` (2, 3), `hand_pose` (2, 15, 3), `betas`
        (2, 10), and `mano_present` (2,); `object`, 0 or a class from 1; `object_points` (21, 3): centre, 8 corners, 12
        middles of edges; `T_cam_object` and `T_cam_world` (4, 4); `K` (3, 3); `size` (2,) width and height.

    Raises:
        ClipError: a file that is missing, or holds other than so many numbers.
    """
    folder, name = Path(camera), f"{frame:06d}.txt"
    hands = _one(folder / "hand_pose" / name, 128).reshape(2, 64)
    mano = _one(folder / "hand_pose_MANO" / name, 124).reshape(2, 62)
    thing = _one(folder / "obj_pose" / name, 64)
    placed = _one(folder / "obj_pose_RT" / name, 17)
    T_world_cam = _one(folder / "cam_pose" / name, 16).reshape(4, 4)
    fx, fy, cx, cy, *size = _one(folder / "cam_intrinsics.txt", 6)
    present, modelled = hands[:, 0] > 0, mano[:, 0] > 0
    mano = np.where(modelled[:, None], mano[:, 1:], 0)
    R, t = T_world_cam[:3, :3], T_world_cam[:3, 3:]
    return {
        "keypoints3d": np.where(present[:, None, None], hands[:, 1:].reshape(2, 21, 3), 0),
        "present": present,
        "mano": {
            "transl": mano[:, :3],
            "global_orient": mano[:, 3:6],
            "hand_pose": mano[:, 6:51].reshape(2, 15, 3),
            "betas": mano[:, 51:],
        },
        "mano_present": modelled,
        "object": _class(folder / "obj_pose" / name, thing[0]),
        "object_points": thing[1:].reshape(21, 3),
        "T_cam_object": placed[1:].reshape(4, 4),
        "T_cam_world": np.concatenate([np.concatenate([R.T, -R.T @ t], 1), [[0, 0, 0, 1]]]),
        "K": np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
        "size": np.array(size),
    }


def list_h2o_actions(path: str | os.PathLike) -> list[H2OAction]:
    """The lines of a list of actions, such as `action_train.txt`.

    Raises:
        ClipError: a file that is missing, or whose columns are others.
    """
    file = Path(path)
    head, *lines = read_lines(file) or [""]
    columns, found = head.split(), []
    missing = [name for name in _COLUMNS if name not in columns and name != "action_label"]
    if missing:
        raise ClipError(f"{file}: expected the columns {' '.join(_COLUMNS)}, got {head!r}")
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        row = dict(zip(columns, line.split(), strict=False))
        try:
            numbers = [int(row.get(name, 0 if name == "action_label" else "")) for name in _COLUMNS if name != "path"]
        except ValueError as error:
            raise ClipError(f"{file}, line {number}: expected {head!r}, got {line!r}") from error
        number_of, action, first, last, *_ = numbers
        found.append(H2OAction(number_of, row["path"], action, first, last))
    return found


def load_h2o_action(folder: str | os.PathLike, action: H2OAction, frames: int) -> dict[str, Any]:
    """An action as `jhand.systems.h2o_action` reads it, from the camera on the head.

    Args:
        folder: that holds the subjects' folders.
        action: of `list_h2o_actions`.
        frames: T, evenly over the action.

    Returns:
        `points` (T, 63, 3) metres in the axes of the first frame's camera: left hand, right hand, object; `estimated`,
        the same; `valid` (T, 3); `object` and `action`, from 0.

    Raises:
        ClipError: a file that is missing or damaged; an action without an end.
        ValueError: fewer than one frame.
    """
    if frames < 1:
        raise ValueError(f"frames: expected 1 or more, got {frames}")
    if action.last < action.first:
        raise ClipError(f"action {action.id}: expected a last frame after {action.first}, got {action.last}")
    camera = Path(folder) / action.path / EGO
    numbers = np.round(np.linspace(action.first, action.last, frames)).astype(int)
    found = {number: read_h2o_frame(camera, number) for number in sorted(set(numbers.tolist()))}
    first = found[int(numbers[0])]["T_cam_world"]
    points, valid, things = [], [], []
    for number in numbers.tolist():
        frame = found[number]
        # the camera moves with the head: all is brought to where it was at first
        T = first @ np.linalg.inv(frame["T_cam_world"])
        seen = np.array([*frame["present"], frame["object"] > 0])
        placed = np.concatenate([*frame["keypoints3d"], frame["object_points"]]) @ T[:3, :3].T + T[:3, 3]
        points.append(np.where(np.repeat(seen, 21)[:, None], placed, 0))
        valid.append(seen)
        things.append(frame["object"])
    thing = max(set(things), key=things.count)
    array = np.stack(points).astype(np.float32)
    return {
        "points": array,
        "estimated": array,
        "valid": np.stack(valid),
        "object": max(thing - 1, 0),
        "action": action.action - 1,
    }


def _one(path: Path, number: int) -> np.ndarray:
    found = read_numbers(path, number)
    if len(found) != 1:
        raise ClipError(f"{path}: expected one line of {number} numbers, got {len(found)}")
    return found[0]


def _class(path: Path, value: float) -> int:
    if value != int(value) or not 0 <= value <= len(OBJECTS):
        raise ClipError(f"{path}: expected a class from 0 to {len(OBJECTS)}, got {value}")
    return int(value)
