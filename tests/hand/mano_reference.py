"""MANO written out slowly: float64 numpy, one hand at a time, one joint after the other, 4x4 matrices (Romero et al.
2017, eq. 1-4).
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

PARENT = {1: 0, 2: 1, 3: 2, 4: 0, 5: 4, 6: 5, 7: 0, 8: 7, 9: 8, 10: 0, 11: 10, 12: 11, 13: 0, 14: 13, 15: 14}
# openpose21: wrist, then base to tip of thumb, index, middle, ring, little finger
KEYPOINTS = (0, 13, 14, 15, "thumb", 1, 2, 3, "index", 4, 5, 6, "middle", 10, 11, 12, "ring", 7, 8, 9, "little")
TIPS = ("thumb", "index", "middle", "ring", "little")


def mano(
    arrays: dict[str, Any], global_orient: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray, transl: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (16, 3) of one hand with MANO's `arrays`."""
    shaped = arrays["v_template"] + np.tensordot(arrays["shapedirs"], betas, 1)
    rest = arrays["J_regressor"] @ shaped
    turns = [Rotation.from_rotvec(r).as_matrix() for r in [global_orient, *hand_pose]]
    bent = shaped + np.tensordot(arrays["posedirs"], np.concatenate([(R - np.eye(3)).ravel() for R in turns[1:]]), 1)

    frames = [matrix(turns[0], rest[0])]
    for joint, parent in PARENT.items():
        frames.append(frames[parent] @ matrix(turns[joint], rest[joint] - rest[parent]))
    from_rest = [frame @ matrix(np.eye(3), -rest[joint]) for joint, frame in enumerate(frames)]

    vertices = np.zeros_like(bent)
    for v, point in enumerate(bent):
        blended = np.tensordot(arrays["weights"][v], from_rest, 1)
        vertices[v] = (blended @ [*point, 1])[:3] + transl
    return vertices, np.stack([frame[:3, 3] for frame in frames]) + transl


def keypoints(vertices: np.ndarray, joints: np.ndarray, tips: tuple[int, ...]) -> np.ndarray:
    """openpose21 keypoints (21, 3)."""
    tip = dict(zip(TIPS, tips, strict=True))
    return np.stack([vertices[tip[k]] if isinstance(k, str) else joints[k] for k in KEYPOINTS])


def matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, translation
    return T
