"""HOGraspNet (Cho et al., ECCV 2024): the annotations of right hands that grasp objects before four RGB-D cameras.

    <folder>/<date>_S<subject>_obj_<object>_grasp_<grasp>/trial_<k>/annotation/<camera>/<camera>_<frame>.json

Files begin with a byte order mark. What they call `mano_trans` is the rotation of the root, not a translation; the root
is at `mano_xyz_root`, and MANO's joints are divided by `mano_scale`. Which subjects, objects and trials there are comes
from the folders, sorted here: the order in which a disk lists them decides nothing.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jhand.data.clip import ClipError
from jhand.data.readers.files import read_json
from jhand.hand.model import HandModel

CAMERAS = ("mas", "sub1", "sub2", "sub3")
SPLITS = ("s0", "s1", "s2", "s3", "s4")
"""Tested on unseen trials, subjects, camera, objects, grasps."""
PARTS = ("train", "val", "test")
TRAIN_SUBJECTS = 73
"""Of the subjects in order, those that s1 trains on."""
TEST_CAMERA = "sub3"
TEST_OBJECTS = (10, 2, 12, 20, 4, 6, 11)
TEST_GRASPS = (23, 25, 29, 16)
_SEQUENCE = re.compile(r"(?P<date>\d+)_S(?P<subject>\d+)_obj_(?P<object>\d+)_grasp_(?P<grasp>\d+)$")
_TRIAL = re.compile(r"trial_(?P<trial>\d+)$")
_FRAME = re.compile(r"(?P<camera>[a-z]+\d*)_(?P<frame>\d+)\.json$")


@dataclass(frozen=True)
class GraspFrame:
    """One annotation file: what its path says of it."""

    path: Path
    sequence: str
    subject: int
    object: int
    grasp: int
    """Of the taxonomy's 33 types."""
    trial: int
    camera: str
    frame: int


def read_annotation(path: str | os.PathLike) -> dict[str, Any]:
    """The numbers of one annotation file, checked, under names that say what they are.

    Returns:
        `keypoints3d` (21, 3) metres and `keypoints2d` (21, 2) pixels, in the camera's frame and OpenPose's order, which
        is jhand's; `K` (3, 3), `T_cam_world` (4, 4), the world being the camera `mas`; `T_world_object` (4, 4);
        `global_orient` (3,), which the file calls `mano_trans`; `hand_pose` (15, 3) relative to the flat hand; `betas`
        (10,); `scale`; `root` (3,) metres; `contact` (778,); `grasp` and `object` ids, their names, and `actor`.

    Raises:
        ClipError: a file that is missing or no JSON, a key that is missing or of another shape: which, and what came.
    """
    path = Path(path)
    file = read_json(path, encoding="utf-8-sig")
    label, mesh, hand = _first(path, file, "annotations"), _first(path, file, "Mesh"), _entry(path, file, "hand")
    calibration, thing = _entry(path, file, "calibration"), _entry(path, file, "object")
    extrinsic = _numbers(path, calibration, "extrinsic", (3, 4))
    if mesh.get("mano_side", "right") != "right":
        raise ClipError(f"{path}: Mesh[0].mano_side: expected right, got {mesh['mano_side']!r}")
    return {
        "keypoints3d": _numbers(path, hand, "3D_pose_per_cam", (21, 3)),
        "keypoints2d": _numbers(path, hand, "projected_2D_pose_per_cam", (21, 3))[:, :2],
        "K": _numbers(path, calibration, "intrinsic", (3, 3)),
        "T_cam_world": np.concatenate([extrinsic, [[0, 0, 0, 1]]]),
        "T_world_object": _numbers(path, mesh, "object_mat", (4, 4)),
        "global_orient": _numbers(path, mesh, "mano_trans", (3,)),
        "hand_pose": _numbers(path, mesh, "mano_pose", (15, 3)),
        "betas": _numbers(path, mesh, "mano_betas", (10,)),
        "scale": float(_numbers(path, hand, "mano_scale", ())),
        "root": _numbers(path, hand, "mano_xyz_root", (3,)),
        "contact": _numbers(path, file, "contact", (778,)),
        "grasp": _integer(path, label, "class_id"),
        "grasp_name": str(label.get("class_name", "")),
        "object": _integer(path, thing, "id"),
        "object_name": str(thing.get("name", "")),
        "actor": dict(file.get("actor", {})),
    }


def mano_params(annotation: Mapping[str, Any], hand: HandModel) -> tuple[dict[str, np.ndarray], float]:
    """Parameters of MANO (global_orient, hand_pose, betas, transl) and the scale, so that the stored joints are

        (x - root of x) / scale + root,    x = `forward(hand, params)` without its translation.

    The translation puts the root joint where it is stored; the hand is to be divided by the scale about it.

    Args:
        annotation: as `read_annotation` returns it.
        hand: MANO's right hand, with which the annotations were made.

    Raises:
        ValueError: a hand of another side.
    """
    if hand.side != "right":
        raise ValueError(f"hand: expected the right one, got the {hand.side}")
    betas = np.asarray(annotation["betas"])
    basis = np.asarray(hand.joint_basis[: 1 + len(betas), 0], np.float64)
    rest = basis[0] + betas @ basis[1:]
    return {
        "global_orient": np.asarray(annotation["global_orient"], np.float32),
        "hand_pose": np.asarray(annotation["hand_pose"], np.float32),
        "betas": betas.astype(np.float32),
        "transl": (np.asarray(annotation["root"]) - rest).astype(np.float32),
    }, float(annotation["scale"])


def list_frames(folder: str | os.PathLike) -> list[GraspFrame]:
    """Every annotation below a folder, sorted by subject, sequence, trial, camera and frame.

    Raises:
        ClipError: no folder, or none of its sequences is named as the dataset's are.
    """
    root, found = Path(folder), []
    if not root.is_dir():
        raise ClipError(f"{root}: expected the folder of the dataset's labels (labeling_data)")
    for sequence in root.iterdir():
        named = _SEQUENCE.match(sequence.name)
        if named is None:
            continue
        subject, thing, grasp = (int(named[part]) for part in ("subject", "object", "grasp"))
        for path in sequence.glob("trial_*/annotation/*/*.json"):
            trial, frame = _TRIAL.match(path.parents[2].name), _FRAME.match(path.name)
            if trial is None or frame is None or frame["camera"] not in CAMERAS:
                raise ClipError(f"{path}: expected trial_<k>/annotation/<camera>/<camera>_<frame>.json with a camera "
                                f"of {', '.join(CAMERAS)}")  # fmt: skip
            found.append(
                GraspFrame(
                    path, sequence.name, subject, thing, grasp, int(trial["trial"]), frame["camera"],
                    int(frame["frame"]),
                )
            )  # fmt: skip
    if not found:
        raise ClipError(f"{root}: expected sequences <date>_S<subject>_obj_<object>_grasp_<grasp> with annotations, "
                        "found none")  # fmt: skip
    order = {camera: number for number, camera in enumerate(CAMERAS)}
    return sorted(found, key=lambda f: (f.subject, f.sequence, f.trial, order[f.camera], f.frame))


def split_frames(frames: list[GraspFrame], split: str, part: str) -> list[GraspFrame]:
    """The frames of one part of one of the five splits.

    s0: of each sequence the first trial is tested on and all others are trained on; the second, which validates, stays
    in training, as it does in the released code. s1 to s4: what is tested on is never trained on, and validates too.

    Args:
        frames: of the whole dataset, `list_frames`.
        split: one of `SPLITS`.
        part: `train`, `val` or `test`; the released code says `val` in some splits and `valid` in others, and either
            is understood in all.

    Raises:
        ValueError: another split or part.
    """
    part = "val" if part == "valid" else part
    if split not in SPLITS or part not in PARTS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)} and a part of {', '.join(PARTS)} (or valid), "
                         f"got {split!r}, {part!r}")  # fmt: skip
    if split == "s0":
        trials: dict[str, set[int]] = {}
        for frame in frames:
            trials.setdefault(frame.sequence, set()).add(frame.trial)
        order = {sequence: sorted(found) for sequence, found in trials.items()}

        def place(frame: GraspFrame) -> int:
            return order[frame.sequence].index(frame.trial)

        keep = {"train": lambda p: p > 0, "val": lambda p: p == 1, "test": lambda p: p == 0}[part]
        return [frame for frame in frames if keep(place(frame))]
    trained_on = set(sorted({frame.subject for frame in frames})[:TRAIN_SUBJECTS])
    tested = {
        "s1": lambda frame: frame.subject not in trained_on,
        "s2": lambda frame: frame.camera == TEST_CAMERA,
        "s3": lambda frame: frame.object in TEST_OBJECTS,
        "s4": lambda frame: frame.grasp in TEST_GRASPS,
    }[split]
    return [frame for frame in frames if tested(frame) == (part != "train")]


def _entry(path: Path, parent: Any, key: str) -> Any:
    if not isinstance(parent, dict) or key not in parent:
        has = ", ".join(sorted(parent)) if isinstance(parent, dict) else type(parent).__name__
        raise ClipError(f"{path}: expected the entry {key!r}, got {has}")
    return parent[key]


def _first(path: Path, parent: Any, key: str) -> Any:
    entries = _entry(path, parent, key)
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise ClipError(f"{path}: {key}: expected a list that holds one hand, got {str(entries)[:60]}")
    return entries[0]


def _numbers(path: Path, parent: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.array(_entry(path, parent, key), np.float64)
    except (TypeError, ValueError) as error:
        raise ClipError(f"{path}: {key}: expected numbers {shape}: {error}") from error
    if values.size != int(np.prod(shape)):
        raise ClipError(f"{path}: {key}: expected numbers {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ClipError(f"{path}: {key}: expected finite numbers, got {int((~np.isfinite(values)).sum())} others")
    return values.reshape(shape)


def _integer(path: Path, parent: Any, key: str) -> int:
    value = _entry(path, parent, key)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ClipError(f"{path}: {key}: expected a whole number, got {value!r}") from error
