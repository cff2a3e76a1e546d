"""InterHand2.6M (Moon et al., ECCV 2020), version 1.0: one or two hands, some hundred cameras.

    annotations/<split>/InterHand2.6M_<split>_data.json           COCO's lists of images and annotations
    annotations/<split>/InterHand2.6M_<split>_camera.json         by capture: campos, camrot, focal, princpt by camera
    annotations/<split>/InterHand2.6M_<split>_joint_3d.json       by capture and frame: world_coord (42, 3), joint_valid
    annotations/<split>/InterHand2.6M_<split>_MANO_NeuralAnnot.json   optional: by capture, frame and side
    images/<split>/<file_name>

World coordinates and camera positions are millimetres; a camera sees R (x - campos). Joints are the right hand's 21
before the left's, each finger from tip to base, the wrist last; points count where the annotation says so and the wrist
does. MANO's parameters are in the world's frame, in metres, relative to its mean pose, and made with the left hand's
shape directions corrected (`correct_left_shapedirs`).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jhand.data.clip import SIDES, ClipError
from jhand.data.readers.files import read_json, read_picture
from jhand.hand.model import HandModel
from jhand.hand.skeleton import convert_keypoints

SPLITS = ("train", "val", "test")


class InterHand:
    """Clips of InterHand2.6M, by index: one frame as one camera saw it."""

    def __init__(
        self, folder: str | os.PathLike, split: str = "train", hands: tuple[HandModel, HandModel] | None = None
    ) -> None:
        """Reads the annotations of a split: a minute or two and some gigabytes for the whole training set.

        Args:
            folder: that holds `annotations` and `images`.
            split: one of `SPLITS`.
            hands: MANO's right and left hand: clips then hold their parameters, where NeuralAnnot has them. Their mean
                poses are what the files' poses are relative to.

        Raises:
            ClipError: a file or a field that is missing or damaged.
        """
        if split not in SPLITS:
            raise ClipError(f"interhand: split: expected one of {', '.join(SPLITS)}, got {split!r}")
        self._folder, self._split, self._hands = Path(folder), split, hands
        data = self._read("data")
        self._cameras, self._joints = self._read("camera"), self._read("joint_3d")
        self._mano = self._read("MANO_NeuralAnnot") if hands is not None else {}
        try:
            self._images = {image["id"]: image for image in data["images"]}
            self._annotations = data["annotations"]
            unknown = next((a["image_id"] for a in self._annotations if a["image_id"] not in self._images), None)
        except (KeyError, TypeError) as error:
            raise ClipError(f"{self._path('data')}: no field {error}; expected images and annotations") from error
        if unknown is not None:
            raise ClipError(f"{self._path('data')}: an annotation of image {unknown}, which is not listed")
        self._order = self._permutation()

    def __len__(self) -> int:
        return len(self._annotations)

    def __repr__(self) -> str:
        return f"InterHand({str(self._folder)!r}, {self._split!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self._annotations[int(index)]
        image = self._images[annotation["image_id"]]
        try:
            return self._clip(annotation, image)
        except KeyError as error:
            raise ClipError(
                f"{self._folder}: annotation {annotation.get('id')}, capture {image.get('capture')}, "
                f"frame {image.get('frame_idx')}, camera {image.get('camera')}: no {error}; are files missing?"
            ) from error

    def _clip(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
        capture, camera, frame = str(image["capture"]), str(image["camera"]), str(image["frame_idx"])
        cameras = self._cameras[capture]
        R = np.array(cameras["camrot"][camera], np.float64).reshape(3, 3)
        position = np.array(cameras["campos"][camera], np.float64).reshape(3) / 1000
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, -R @ position
        K = np.eye(3)
        K[[0, 1], [0, 1]] = np.array(cameras["focal"][camera], np.float64)
        K[:2, 2] = np.array(cameras["princpt"][camera], np.float64)

        world = np.array(self._joints[capture][frame]["world_coord"], np.float64).reshape(42, 3) / 1000
        valid = np.array(annotation["joint_valid"], np.float64).reshape(42) > 0
        picture = read_picture(self._folder / "images" / self._split / image["file_name"])
        height, width = picture.shape[:2]
        hands: dict[str, Any] = {}
        for number, side in enumerate(SIDES):
            points, counts = world[21 * number :][self._order], valid[21 * number :][self._order]
            counts = counts & counts[0]  # without its wrist a hand is nowhere
            counts &= np.isfinite(points).all(-1)
            present = annotation["hand_type"] in (side, "interacting")
            counts &= present
            in_camera = (points - position) @ R.T
            counts_2d = counts & (in_camera[:, 2] > 0)
            uv = in_camera @ K.T
            uv = uv[:, :2] / np.where(counts_2d, uv[:, 2], 1)[:, None]
            inside = counts_2d & np.all((uv > -0.5) & (uv < np.array([width, height]) - 0.5), -1)
            hand: dict[str, Any] = {
                "present": np.array([present]),
                "keypoints3d": np.where(counts[:, None], points, 0)[None].astype(np.float32),
                "keypoints3d_valid": counts[None],
                "keypoints2d": np.where(counts_2d[:, None], uv, 0)[None, None].astype(np.float32),
                "visible": inside[None, None].astype(np.float32),
                "confidence": counts_2d[None, None].astype(np.float32),
            }
            fitted = (self._mano.get(capture, {}).get(frame) or {}).get(side)
            if self._hands is not None:
                hand |= _params(fitted, self._hands[number])
            hands[side] = hand
        return {
            "image": picture[None, None],
            "camera": {
                "K": K[None, None].astype(np.float32),
                "T_cam_world": T[None, None].astype(np.float32),
                "distortion": np.zeros((1, 1, 8), np.float32),
            },
            "hands": hands,
            "meta": {
                "dataset": "interhand",
                "sequence": f"{self._split}/Capture{capture}/{image['seq_name']}/{camera}/{frame}",
                "fps": 30.0,
                "world": "the capture's axes",
                "licence": "CC BY-NC 4.0",
                "subject": image.get("subject"),
                "hand_type": annotation["hand_type"],
            },
        }

    def _path(self, what: str) -> Path:
        return self._folder / "annotations" / self._split / f"InterHand2.6M_{self._split}_{what}.json"

    def _read(self, what: str) -> Any:
        found = read_json(self._path(what))
        if not isinstance(found, dict):
            raise ClipError(f"{self._path(what)}: expected a JSON object, got {type(found).__name__}")
        return found

    @staticmethod
    def _permutation() -> np.ndarray:
        """Where in the file's order each of jhand's keypoints is."""
        numbers = np.arange(21, dtype=np.float32)[:, None]
        moved, _ = convert_keypoints(numbers, source="interhand21", target="openpose21")
        return np.asarray(moved)[:, 0].astype(int)


def _params(fitted: dict[str, Any] | None, hand: HandModel) -> dict[str, Any]:
    if fitted is None:
        zeros = {"global_orient": (1, 3), "hand_pose": (1, 15, 3), "betas": (1, 10), "transl": (1, 3)}
        params = {name: np.zeros(shape, np.float32) for name, shape in zeros.items()}
        return {"model": hand.name, "params": params, "params_valid": np.zeros(1, bool)}
    pose = np.array(fitted["pose"], np.float64).reshape(16, 3)
    relative = pose[1:] + np.asarray(hand.hands_mean, np.float64).reshape(15, 3)
    params = {
        "global_orient": pose[None, 0].astype(np.float32),
        "hand_pose": relative[None].astype(np.float32),
        "betas": np.array(fitted["shape"], np.float32).reshape(1, 10),
        "transl": np.array(fitted["trans"], np.float32).reshape(1, 3),
    }
    return {"model": hand.name, "params": params, "params_valid": np.ones(1, bool)}
