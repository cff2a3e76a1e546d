"""Joints on the mid-line of their finger.

MakeHuman hangs a finger's bones 3 to 5 mm under the skin of its back, at half the depth of the middle: bent about them,
the palm side crumples. Here the joints move to the centres of cross-sections. A centre is a fixed linear combination of
vertices, the same one for every person, so that joints stay linear in shape.
"""

import numpy as np

from hand_maker.skinning import FINGERS


def section_centre(vertices: np.ndarray, faces: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Coefficients (V,) of the centre of the outline in which a plane cuts the faces, each stretch by its length."""
    height = (vertices - point) @ normal
    above = height[faces] > 0
    cut = faces[above.any(1) & ~above.all(1)]
    ends = np.stack([cut, np.roll(cut, -1, 1)], -1).reshape(-1, 2)
    ends = ends[(height[ends] > 0).sum(1) == 1]  # two cut edges of each cut face, one after the other
    assert (np.unique(np.sort(ends, 1), axis=0, return_counts=True)[1] == 2).all(), "the outline is not closed"
    share = height[ends[:, 0]] / (height[ends[:, 0]] - height[ends[:, 1]])
    points = vertices[ends[:, 0]] + share[:, None] * (vertices[ends[:, 1]] - vertices[ends[:, 0]])
    length = np.repeat(np.linalg.norm(points[::2] - points[1::2], axis=1), 2)
    coefficients = np.zeros(len(vertices))
    np.add.at(coefficients, ends[:, 0], length * (1 - share))
    np.add.at(coefficients, ends[:, 1], length * share)
    return coefficients / coefficients.sum()


def centre_joints(
    vertices: np.ndarray, joints: np.ndarray, faces: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Joints on the mid-lines of the fingers, and the vertices where the mid-lines leave the skin.

    Middle and end joints go to the centre of the section that halves their bend. The joint before them has no section
    of its own, being in the palm; it goes with them, so that its bone keeps its direction and length. The base of the
    thumb stays.

    Args:
        vertices: (N, V, 3) of N people; the first decides where the sections lie.
        joints: (N, 16, 3).
        faces: (F, 3).
        weights: (V, 16).

    Returns:
        Joints (N, 16, 3), and the tip vertex of each finger.
    """
    v, centred, tips = vertices[0], joints.copy(), {}
    for finger, chain in FINGERS.items():
        own = faces[(weights[:, list(chain)].sum(1) > 0.5)[faces].all(1)]
        last = np.flatnonzero(weights[:, chain[2]] > 0.5)
        apex = v[last[np.argmax(v[last] @ (joints[0, chain[2]] - joints[0, chain[1]]))]]
        points = [*joints[0, list(chain)], apex]
        with_section, follows = ((2,), 1) if finger == "thumb" else ((1, 2), 0)
        for k in with_section:
            halving = _unit(points[k] - points[k - 1]) + _unit(points[k + 1] - points[k])
            centred[:, chain[k]] = section_centre(v, own, points[k], halving) @ vertices
        leader = chain[follows + 1]
        centred[:, chain[follows]] += centred[:, leader] - joints[:, leader]

        end = centred[0, chain[2]]
        along = _unit(section_centre(v, own, (end + apex) / 2, apex - end) @ v - end)
        height = (v[last] - end) @ along
        aside = np.linalg.norm(v[last] - end - height[:, None] * along, axis=1)
        tips[finger] = int(last[np.argmax(height - aside)])
    return centred, tips


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)
