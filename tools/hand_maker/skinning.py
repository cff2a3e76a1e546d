"""Skinning in float64 numpy: linear blending, dual quaternions, and straightening a hand."""

import numpy as np
from scipy.spatial.transform import Rotation

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
FINGERS = {"index": (1, 2, 3), "middle": (4, 5, 6), "pinky": (7, 8, 9), "ring": (10, 11, 12), "thumb": (13, 14, 15)}


def bones(joints: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations (16, 3, 3) and translations (16, 3) that carry rest points along, from local `rotations` (16, 3,
    3).
    """
    G, p = np.zeros((16, 3, 3)), np.zeros((16, 3))
    for j, parent in enumerate(PARENTS):
        if parent < 0:
            G[j], p[j] = rotations[j], joints[j]
        else:
            G[j] = G[parent] @ rotations[j]
            p[j] = p[parent] + G[parent] @ (joints[j] - joints[parent])
    return G, p - np.einsum("jab,jb->ja", G, joints)


def linear(vertices: np.ndarray, weights: np.ndarray, G: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Linear blend skinning (Magnenat-Thalmann et al. 1988)."""
    return np.einsum("vj,jab,vb->va", weights, G, vertices, optimize=True) + weights @ t


def dual_quaternion(vertices: np.ndarray, weights: np.ndarray, G: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Dual quaternion skinning (Kavan et al. 2007): no collapse at bent joints."""
    q = Rotation.from_matrix(G).as_quat()[:, [3, 0, 1, 2]]
    for j, parent in enumerate(PARENTS):
        if parent >= 0 and q[j] @ q[parent] < 0:
            q[j] *= -1
    w, v = q[:, :1], q[:, 1:]
    dual = 0.5 * np.concatenate([-np.sum(t * v, 1, keepdims=True), w * t + np.cross(t, v)], 1)
    real, dual = weights @ q, weights @ dual
    length = np.linalg.norm(real, axis=1, keepdims=True)
    real, dual = real / length, dual / length
    rw, rv, dw, dv = real[:, :1], real[:, 1:], dual[:, :1], dual[:, 1:]
    rotated = vertices + 2 * np.cross(rv, np.cross(rv, vertices) + rw * vertices)
    return rotated + 2 * (rw * dv - dw * rv + np.cross(rv, dv))


def straighten(
    vertices: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    tips: dict[str, int],
    directions: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The flat hand: every bone of a finger, its last one ending at the tip vertex, turned into the finger's
    direction.
    """
    G, p = np.tile(np.eye(3), (16, 1, 1)), joints.copy()
    for finger, chain in FINGERS.items():
        ends = [*joints[list(chain)], vertices[tips[finger]]]
        for k, j in enumerate(chain):
            bone = ends[k + 1] - ends[k]
            G[j] = _between(bone, directions[finger])
            if k < 2:
                p[chain[k + 1]] = p[j] + np.linalg.norm(bone) * directions[finger]
    flat = dual_quaternion(vertices, weights, G, p - np.einsum("jab,jb->ja", G, joints))
    for finger, chain in FINGERS.items():
        # the tip is skinned by more than its bone; put it, and with it the last millimetres of skin, back on the line
        off = (
            p[chain[2]]
            + directions[finger] * ((flat[tips[finger]] - p[chain[2]]) @ directions[finger])
            - flat[tips[finger]]
        )
        near = np.exp(-np.sum((flat - flat[tips[finger]]) ** 2, 1) / 0.006**2) * weights[:, list(chain)].sum(1)
        flat += (near / near[tips[finger]])[:, None] * off
    return flat, p


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation from direction a to direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sin = np.linalg.norm(axis)
    return np.eye(3) if sin < 1e-12 else Rotation.from_rotvec(axis / sin * np.arctan2(sin, a @ b)).as_matrix()
