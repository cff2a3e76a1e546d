"""FreiHAND (Zimmermann et al., ICCV 2019): single right hands in pictures of 224 x 224, in the layout of its second
version.

    training_K.json  training_xyz.json  training_mano.json  training/rgb/00000000.jpg  training/mask/00000000.jpg
    evaluation_K.json  evaluation_xyz.json  evaluation_mano.json  evaluation/rgb/00000000.jpg

`xyz` are 21 keypoints in metres in the camera's frame, in jhand's own order. `mano` are 61 numbers: 48 of pose, the
fingers' relative to MANO's mean pose, 10 of shape, and 3 of a weak camera that are not needed beside xyz. Training
pictures come in four versions, each of 32560: green screen, harmonised, and coloured by two networks.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jhand.data.clip import ClipError
from jhand.data.readers.files import read_json, read_picture
from jhand.hand.model import HandModel

SPLITS = ("training", "evaluation")
VERSIONS = ("gs", "hom", "sample", "auto")


class FreiHAND:
    """Clips of FreiHAND, by index: one frame, one view."""

    def __init__(self, folder: str | os.PathLike, split: str = "training", hand: HandModel | None = None) -> None:
        """Reads the annotations.

        Args:
            folder: that holds `training` and `evaluation`.
            split: one of `SPLITS`.
            hand: MANO's right hand, with which the annotations were made: clips then hold its parameters. Without it
                they hold keypoints alone, since the translation depends on the model.

        Raises:
            ClipError: a file that is missing or damaged, or files that do not belong together.
        """
        if split not in SPLITS:
            raise ClipError(f"freihand: split: expected one of {', '.join(SPLITS)}, got {split!r}")
        self._folder, self._split, self._hand = Path(folder), split, hand
        self._K = self._numbers("K", (3, 3))
        self._xyz = self._numbers("xyz", (21, 3))
        if len(self._K) != len(self._xyz):
            raise ClipError(f"{folder}: {split}_K.json has {len(self._K)} samples, {split}_xyz.json {len(self._xyz)}")
        self._mano = self._numbers("mano", (1, 61)).reshape(-1, 61) if hand is not None else None
        if self._mano is not None and len(self._mano) != len(self._K):
            raise ClipError(f"{folder}: {split}_mano.json has {len(self._mano)} samples, {split}_K.json {len(self._K)}")
        pictures = len(list((self._folder / split / "rgb").glob("*.jpg")))
        self._versions = max(1, min(len(VERSIONS), pictures // max(len(self._K), 1))) if split == "training" else 1

    def __len__(self) -> int:
        return len(self._K) * self._versions

    def __repr__(self) -> str:
        return f"FreiHAND({str(self._folder)!r}, {self._split!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"freihand {self._split}: {index} of {len(self)}")
        version, number = divmod(index, len(self._K))
        image = read_picture(self._folder / self._split / "rgb" / f"{index:08d}.jpg")
        K, xyz = self._K[number], self._xyz[number]
        uv = xyz @ K.T
        uv = uv[:, :2] / uv[:, 2:]
        height, width = image.shape[:2]
        inside = np.all((uv > -0.5) & (uv < np.array([width, height]) - 0.5), -1)
        hand: dict[str, Any] = {
            "present": np.ones(1, bool),
            "keypoints3d": xyz[None].astype(np.float32),
            "keypoints3d_valid": np.ones((1, 21), bool),
            "keypoints2d": uv[None, None].astype(np.float32),
            "visible": inside[None, None].astype(np.float32),
            "confidence": np.ones((1, 1, 21), np.float32),
        }
        if self._mano is not None and self._hand is not None:
            hand |= {"model": self._hand.name, "params": _params(self._mano[number], xyz, self._hand)}
        meta: dict[str, Any] = {
            "dataset": "freihand",
            "sequence": f"{self._split}/{number:08d}/{VERSIONS[version]}",
            "fps": 1.0,
            "world": "the camera's axes",
            "licence": "research only",
        }
        clip: dict[str, Any] = {
            "image": image[None, None],
            "camera": {
                "K": K[None, None].astype(np.float32),
                "T_cam_world": np.eye(4, dtype=np.float32)[None, None],
                "distortion": np.zeros((1, 1, 8), np.float32),
            },
            "hands": {"right": hand},
            "meta": meta,
        }
        mask = self._folder / self._split / "mask" / f"{number:08d}.jpg"
        if mask.is_file():
            clip["segmentation"] = (read_picture(mask)[None, None, ..., 0] > 127).astype(np.uint8)
            meta["segments"] = ["background", "right hand"]
        return clip

    def _numbers(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self._folder / f"{self._split}_{what}.json"
        try:
            values = np.array(read_json(path), np.float64)
        except (TypeError, ValueError) as error:
            raise ClipError(f"{path}: expected a list of numbers (N, {shape}): {error}; download it again") from error
        if values.shape[1:] != shape:
            raise ClipError(f"{path}: expected (N, {', '.join(map(str, shape))}), got {values.shape}")
        return values


def _params(mano: np.ndarray, xyz: np.ndarray, hand: HandModel) -> dict[str, np.ndarray]:
    betas = mano[48:58].astype(np.float32)
    pose = mano[3:48] + np.asarray(hand.hands_mean, np.float64)
    root = np.asarray(hand.joint_basis[0, 0]) + np.einsum("b,bc->c", betas, np.asarray(hand.joint_basis[1:11, 0]))
    return {
        "global_orient": mano[None, :3].astype(np.float32),
        "hand_pose": pose.reshape(1, 15, 3).astype(np.float32),
        "betas": betas[None],
        "transl": (xyz[0] - root)[None].astype(np.float32),
    }
