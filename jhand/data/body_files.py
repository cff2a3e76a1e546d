"""Hand poses in the parameter files of bodies: smplx's arguments (SMPL-H, SMPL-X) and AMASS sequences.

What the files hold, from smplx's and AMASS's own documentation:

smplx     `left_hand_pose`, `right_hand_pose`: (T, 45) axis-angle or (T, n) coefficients. In which of the pose spaces is
          not in the file: it is how the body model was made (`use_pca`, `flat_hand_mean`).
AMASS     `poses` (T, 156) of SMPL-H (Mahmood et al., ICCV 2019) or (T, 165) of SMPL-X: all joints' axis-angle, last of
          all 45 of the left and 45 of the right hand, relative to the flat hand. Newer files repeat them: `pose_hand`.

A body's `betas` are not a hand's, and its wrists turn with the whole arm: neither is read.
"""

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jhand.hand._unpickle import read_pickle, to_array
from jhand.hand.model import HandModel
from jhand.hand.pose_space import POSE_SPACES, pose_from_space, pose_to_space

_SIDES = ("left", "right")  # as they follow each other in AMASS
_FULL = {156: "SMPL-H", 165: "SMPL-X"}
_RATES = ("mocap_framerate", "mocap_frame_rate", "fps")


class BodyFileError(ValueError):
    """A file without hand poses: which file, which field, what was expected and found."""


@dataclass(frozen=True)
class BodyHands:
    """The hands of a body in motion."""

    poses: dict[str, np.ndarray]
    """By side, hand_pose (T, 15, 3), axis-angle relative to the flat hand."""
    fps: float | None
    """Frames a second, where the file says."""


def read_body_hands(
    path: str | os.PathLike, *, space: str | None = None, hands: Mapping[str, HandModel] | None = None
) -> BodyHands:
    """Read the hand poses of a parameter file, `.npz` or `.pkl`. Nothing in it is executed.

    Args:
        path: the file.
        space: one of `jhand.hand.POSE_SPACES`: what the numbers of an smplx file mean. AMASS files are "flat".
        hands: by side, the hand models the body was made with, for their mean pose and components: those of MANO. Only
            the space "flat" does without.

    Returns:
        Poses of the sides that the file has.

    Raises:
        BodyFileError: no such file, or none with hand poses.
        ValueError: a space that is missing or does not fit, or models that are missing.
    """
    path = Path(path)
    entries = _read(path)
    fps = next((float(entries[key]) for key in _RATES if key in entries and np.size(entries[key]) == 1), None)
    found = {side: entries[f"{side}_hand_pose"] for side in _SIDES if f"{side}_hand_pose" in entries}
    if not found and ("pose_hand" in entries or "poses" in entries):
        space, found = space or "flat", _amass(path, entries)
    if not found:
        known = ", ".join(sorted(entries)) or "nothing"
        raise BodyFileError(
            f"{path}: expected left_hand_pose or right_hand_pose (smplx), or poses (AMASS); found {known[:200]}"
        )
    if space not in POSE_SPACES:
        raise ValueError(
            f"{path} does not say what its hand poses are relative to: give space, one of {', '.join(POSE_SPACES)} "
            "(smplx makes models with mean, or pca where use_pca is set, unless flat_hand_mean is)"
        )
    poses = {}
    for side, values in found.items():
        numbers = _numbers(path, f"{side}_hand_pose", values)
        hand = _hand(hands, side, space)
        try:
            poses[side] = np.asarray(pose_from_space(hand, numbers, space)) if hand else _flat(path, side, numbers)
        except ValueError as error:
            raise BodyFileError(f"{path}: {side}_hand_pose in space {space}: {error}") from None
    return BodyHands(poses, fps)


def write_body_hands(
    path: str | os.PathLike,
    poses: Mapping[str, np.ndarray],
    *,
    body: str | os.PathLike | None = None,
    space: str = "flat",
    hands: Mapping[str, HandModel] | None = None,
    num_components: int = 45,
) -> None:
    """Write hand poses into a body's parameter file, `.npz`; the file is replaced in one step.

    Args:
        path: the file to write.
        poses: by side, hand_pose (T, 15, 3), axis-angle relative to the flat hand.
        body: a file whose other entries are kept; an AMASS file stays one, its hands replaced. By default the file has
            nothing but `left_hand_pose` and `right_hand_pose`, arguments of smplx.
        space: one of `jhand.hand.POSE_SPACES`, in which an smplx file's poses are written.
        hands: by side, the models, for all spaces but "flat".
        num_components: coefficients, in the spaces that have them.

    Raises:
        BodyFileError: `body` is missing or has another number of frames.
        ValueError: poses of another shape, a side other than left and right, a space that does not fit.
    """
    entries = {} if body is None else _read(Path(body))
    is_amass = ("poses" in entries or "pose_hand" in entries) and "left_hand_pose" not in entries
    if is_amass and space != "flat":
        raise ValueError(f"space: AMASS files are flat, got {space!r}")
    for side, pose in poses.items():
        if side not in _SIDES:
            raise ValueError(f"poses: expected left and right, got {side!r}")
        p = np.asarray(pose, np.float32)
        if p.ndim != 3 or p.shape[1:] != (15, 3):
            raise ValueError(f"poses: expected shape (T, 15, 3), got {p.shape} for {side}")
        hand = _hand(hands, side, space)
        values = np.asarray(pose_to_space(hand, p, space, num_components)) if hand else p.reshape(-1, 45)
        if is_amass:
            _replace_amass(Path(path if body is None else body), entries, side, values)
        else:
            entries[f"{side}_hand_pose"] = values
    part = Path(f"{os.fspath(path)}.part")
    with part.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **entries)
    part.replace(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Entries of a file that are arrays of numbers or strings; others, such as pickled objects, are left out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BodyFileError(f"{path}: {error.strerror}") from None
    entries = {}
    if data.startswith(b"PK"):
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                for key in archive.files:
                    try:
                        entries[key] = archive[key]
                    except ValueError:  # an array of objects, which only executing the file would tell
                        continue
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BodyFileError(f"{path}: damaged, not an .npz file to its end ({error})") from None
        return entries
    try:
        pickled = read_pickle(data)
    except ValueError as error:
        raise BodyFileError(f"{path}: neither .npz nor a pickle of arrays: {error}") from None
    for key, value in pickled.items():
        try:
            entries[str(key)] = np.asarray(to_array(value))
        except ValueError:
            continue
    return entries


def _amass(path: Path, entries: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "pose_hand" in entries:
        values = _numbers(path, "pose_hand", entries["pose_hand"])
        if values.shape[1] != 90:
            raise BodyFileError(f"{path}: pose_hand: expected (T, 90), got {entries['pose_hand'].shape}")
    else:
        values = _numbers(path, "poses", entries["poses"])
        if values.shape[1] not in _FULL:
            hint = "; an SMPL body, whose hands do not move" if values.shape[1] == 72 else ""
            raise BodyFileError(f"{path}: poses: expected (T, 156) or (T, 165), got {entries['poses'].shape}{hint}")
    return dict(zip(_SIDES, np.split(values[:, -90:], 2, axis=1), strict=True))


def _replace_amass(path: Path, entries: dict[str, np.ndarray], side: str, values: np.ndarray) -> None:
    for key in ("pose_hand", "poses"):
        if key in entries:
            if entries[key].shape[0] != values.shape[0]:
                raise BodyFileError(f"{path}: {key} has {entries[key].shape[0]} frames, the poses {values.shape[0]}")
            whole = np.array(entries[key])
            start = whole.shape[1] - 90 + 45 * _SIDES.index(side)
            whole[:, start : start + 45] = values
            entries[key] = whole


def _hand(hands: Mapping[str, HandModel] | None, side: str, space: str) -> HandModel | None:
    if space == "flat":
        return None
    if hands is None or side not in hands:
        raise ValueError(
            f"space {space!r} needs hands={{{side!r}: the model the body was made with}}, for its mean pose"
        )
    return hands[side]


def _flat(path: Path, side: str, values: np.ndarray) -> np.ndarray:
    if values.shape[1] != 45:
        raise ValueError(f"expected 45 numbers a frame, got {values.shape[1]}; coefficients are space pca or flat_pca")
    return values.reshape(-1, 15, 3)


def _numbers(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    """(T, n) float32."""
    if values.dtype.kind not in "fiu" or values.ndim < 1 or values.size == 0:
        raise BodyFileError(f"{path}: {key}: expected numbers (T, n), got {values.dtype} {values.shape}")
    numbers = np.asarray(values, np.float32)
    numbers = numbers.reshape(1, -1) if numbers.ndim == 1 else numbers.reshape(len(numbers), -1)
    if not np.isfinite(numbers).all():
        raise BodyFileError(
            f"{path}: {key}: frame {int(np.flatnonzero(~np.isfinite(numbers).all(1))[0])} is not finite"
        )
    return numbers
