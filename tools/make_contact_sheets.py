"""Draw the built-in hands: docs/pictures/hand_*.png, twelve poses by three shapes from three sides.

python tools/make_contact_sheets.py
"""

import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jhand.hand.files as files  # noqa: E402
from jhand.hand.kinematics import forward  # noqa: E402
from jhand.hand.model import HandModel, HandParams  # noqa: E402
from jhand.viz import shade  # noqa: E402

# Flexion of knuckle, middle and end joint in degrees for index, middle, pinky, ring; then the thumb. Abduction where it
# matters.
_FLAT = (0, 0, 0)
_FIST = [(75, 92, 56), (80, 100, 60), (72, 92, 56), (76, 95, 58)]  # fingertips come to rest on the palm
POSES = {
    "flat": ([_FLAT] * 4, _FLAT, {}),
    "relaxed": ([(20, 30, 15), (25, 32, 18), (32, 36, 20), (28, 34, 18)], (10, 12, 15), {}),
    "fist": (_FIST, (22, 42, 55), {12: 30}),
    "point": ([_FLAT, *_FIST[1:]], (22, 42, 55), {12: 30}),
    "victory": ([_FLAT, _FLAT, *_FIST[2:]], (30, 45, 50), {0: 10, 3: -8, 12: 28}),
    "thumb up": (_FIST, (-18, -5, -8), {12: -5}),
    "pinch": ([(52, 50, 28), (30, 30, 15), (25, 25, 12), (28, 28, 14)], (12, 22, 32), {12: 40}),
    "ok": ([(56, 54, 30), (12, 12, 6), _FLAT, (5, 5, 3)], (14, 24, 34), {12: 40, 6: -10, 9: -5}),
    "spread": ([_FLAT] * 4, (-12, 0, 0), {0: 12, 3: 2, 6: -16, 9: -8}),
    "hook": ([(0, 95, 60)] * 4, (5, 10, 20), {}),
    "ring bent": ([_FLAT, _FLAT, (12, 18, 10), (78, 90, 45)], _FLAT, {}),
    "claw": ([(-15, 75, 45)] * 4, (-10, 30, 45), {0: 8, 6: -12, 9: -5}),
}
SHAPES = {"small": (-2, -0.5), "average": (0, 0), "large": (2, 1)}
VIEWS = ("palm", "back", "side")
CELL = 180  # pixels of one hand


def pose(hand: HandModel, name: str) -> np.ndarray:
    """hand_pose (15, 3) of a named pose, from angles about the hand's own axes."""
    from scipy.spatial.transform import Rotation

    fingers, thumb, abduction = POSES[name]
    angles = np.zeros((15, 3))
    angles[:, 0] = np.ravel([*fingers, thumb])
    for joint, degrees in abduction.items():
        angles[joint, 1] = degrees
    axes, angles = np.asarray(hand.axes), np.deg2rad(angles)
    turns = [Rotation.from_rotvec(angles[:, k : k + 1] * axes[:, :, k]) for k in range(3)]
    return (turns[0] * turns[1] * turns[2]).as_rotvec()


def view(name: str, side: str) -> np.ndarray:
    """Rotation (3, 3) from the hand's frame to a camera's (x right, y down, z forward), fingers up."""
    right = {
        "back": [[0, 0, -1], [1, 0, 0], [0, -1, 0]],
        "palm": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        "side": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    }[name]
    right = np.array(right, float)
    if side == "right":
        return right
    M = np.diag([-1.0, 1, 1])
    return M @ right @ M  # the picture of a mirrored hand is the mirrored picture


def sheet(side: str, level: str, view_name: str) -> np.ndarray:
    """Shapes in rows, poses in columns."""
    hand = files.load_hand(side=side, level=level)
    R = view(view_name, side)
    rows = []
    for coefficients in SHAPES.values():
        betas = np.zeros(hand.num_betas, np.float32)
        betas[: len(coefficients)] = coefficients
        poses = np.stack([pose(hand, name) for name in POSES]).astype(np.float32)
        zeros = HandParams.zeros((len(POSES),), hand.num_betas)
        mesh = forward(hand, HandParams(zeros.global_orient, poses, betas, zeros.transl))
        cells = []
        for vertices in np.asarray(mesh.vertices):
            seen = (vertices - np.asarray(hand.joint_basis[0, 4])) @ R.T
            cells.append(
                shade(seen, np.asarray(hand.faces), size=(CELL, CELL), scale=CELL / 0.27, centre=(0.0, -0.005))
            )
        rows.append(np.concatenate(cells, 1))
    return np.concatenate(rows, 0)


def main() -> None:
    matplotlib.use("Agg")
    out = ROOT / "docs" / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    for side in ("right", "left"):
        for view_name in VIEWS:
            matplotlib.image.imsave(out / f"hand_{side}_{view_name}.png", sheet(side, "default", view_name))
    matplotlib.image.imsave(
        out / "hand_right_fine.png", np.concatenate([sheet("right", "fine", v)[CELL : 2 * CELL] for v in VIEWS])
    )


if __name__ == "__main__":
    main()
