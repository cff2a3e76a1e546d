"""Anatomical axes of the finger joints, from the rest skeleton alone."""

import numpy as np

_MIRROR = np.array([-1.0, 1.0, 1.0])
_FINGERS = ((1, 2, 3, 1), (4, 5, 6, 2), (7, 8, 9, 4), (10, 11, 12, 3), (13, 14, 15, 0))
"""Joints of each finger in MANO order, and its tip in the order thumb, index, middle, ring, little."""


def joint_axes(joints: np.ndarray, tips: np.ndarray, side: str) -> np.ndarray:
    """Flexion, abduction and twist axes of the 15 finger joints.

    Twist runs along the bone. Flexion of a finger is about the axis across the palm, flexion of the thumb about the
    axis that carries its tip towards the base of the little finger. Right-handed: flexion x abduction = twist. On a
    right hand a positive flexion closes the finger towards the palm, a positive abduction moves it towards the thumb's
    side; a left hand has the mirrored axes, so that the same angles mean the same pose.

    Args:
        joints: rest joints (16, 3), MANO order, metres.
        tips: fingertips (5, 3): thumb, index, middle, ring, little, metres.
        side: `"right"` or `"left"`.

    Returns:
        (15, 3, 3) float64, axes in columns.
    """
    J, T = np.asarray(joints, np.float64), np.asarray(tips, np.float64)
    if side == "left":
        # a rotation axis is a pseudo-vector: its mirror image is -M a
        return -_MIRROR[:, None] * joint_axes(J * _MIRROR, T * _MIRROR, "right")
    dorsal = _unit(np.cross(J[7] - J[0], J[1] - J[0]))
    axes = np.zeros((15, 3, 3))
    for *chain, tip in _FINGERS:
        points = [J[chain[0]], J[chain[1]], J[chain[2]], T[tip]]
        for level, joint in enumerate(chain):
            twist = _unit(points[level + 1] - points[level])
            closing = -dorsal if tip else J[7] - T[0]
            flexion = _unit(np.cross(twist, closing))
            axes[joint - 1] = np.stack([flexion, np.cross(twist, flexion), twist], -1)
    return axes


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)
