"""Folders laid out as published datasets are, with samples made here."""

import json

import numpy as np
from PIL import Image

from jhand.hand import keypoints
from tests.data.clips import params_of

FREIHAND_K = [[480.0, 0.0, 112.0], [0.0, 481.0, 112.0], [0.0, 0.0, 1.0]]


def write_freihand(folder, mano):
    """Three samples of FreiHAND in two versions: lists of lists, MANO's numbers in a list of one."""
    rng = np.random.default_rng(0)
    xyz, theta = [], []
    for _ in range(3):
        pose, betas = rng.normal(0, 0.3, 48), rng.normal(0, 1, 10)
        relative = (pose[3:] + np.asarray(mano.hands_mean)).reshape(15, 3)
        numbers = {"global_orient": pose[:3], "hand_pose": relative, "betas": betas, "transl": [0.0, 0.0, 0.7]}
        params = params_of({"params": numbers})
        xyz.append(np.asarray(keypoints(mano, params), np.float64).tolist())
        theta.append([[*pose, *betas, 100.0, 110.0, 3.0]])
    for name, values in (("K", [FREIHAND_K] * 3), ("xyz", xyz), ("mano", theta)):
        (folder / f"training_{name}.json").write_text(json.dumps(values))
    for kind in ("rgb", "mask"):
        (folder / "training" / kind).mkdir(parents=True)
    for number in range(6):
        picture = np.full((224, 224, 3), 40 * number, np.uint8)
        Image.fromarray(picture).save(folder / "training" / "rgb" / f"{number:08d}.jpg")
    for number in range(3):
        Image.fromarray(np.full((224, 224, 3), 255, np.uint8)).save(folder / "training" / "mask" / f"{number:08d}.jpg")
