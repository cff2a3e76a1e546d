"""The embedded hands: topology, anatomy, calibration. Read as plain arrays, so that no other part can hide a fault."""

from pathlib import Path

import numpy as np
import pytest

import jhand

ASSETS = Path(jhand.__file__).parent / "hand" / "assets"
FINGERS = {"index": (1, 2, 3), "middle": (4, 5, 6), "pinky": (7, 8, 9), "ring": (10, 11, 12), "thumb": (13, 14, 15)}
TIP_ORDER = ("thumb", "index", "middle", "ring", "pinky")
FILES = ("right", "left", "right_fine", "left_fine")


@pytest.fixture(scope="module", params=FILES)
def arrays(request):
    with np.load(ASSETS / f"{request.param}.npz", allow_pickle=False) as z:
        return {key: z[key].astype(np.float64) if z[key].dtype.kind == "f" else z[key] for key in z.files}


def _edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def test_counts_of_the_default_hand():
    for side in ("right", "left"):
        with np.load(ASSETS / f"{side}.npz", allow_pickle=False) as z:
            assert z["v_template"].shape == (778, 3)
            assert z["faces"].shape == (1538, 3)
            assert z["tip_ids"].tolist() == [744, 320, 443, 554, 671]


def test_files_are_small_and_say_where_they_are_from():
    for name in FILES:
        assert (ASSETS / f"{name}.npz").stat().st_size < 1.5e6
        with np.load(ASSETS / f"{name}.npz", allow_pickle=False) as z:
            assert str(z["side"]) == name.removesuffix("_fine")
            assert "CC0" in str(z["licence"])


def test_mesh_is_a_disc_open_at_the_wrist(arrays):
    faces, v = arrays["faces"], arrays["v_template"]
    directed = _edges(faces)
    assert len(np.unique(directed, axis=0)) == len(directed)  # consistent winding
    undirected, count = np.unique(np.sort(directed, 1), axis=0, return_counts=True)
    assert set(count) == {1, 2}
    assert len(v) - len(undirected) + len(faces) == 1
    boundary = undirected[count == 1]
    if len(v) == 778:
        assert len(boundary) == 16
    after = dict(directed[np.isin(np.sort(directed, 1) @ [10000, 1], boundary @ [10000, 1])].tolist())
    start = at = next(iter(after))
    loop = 0
    while loop == 0 or at != start:
        at, loop = after[at], loop + 1
    assert loop == len(boundary)  # one loop
    assert np.abs(v[boundary.ravel(), 0]).max() < 0.03  # beside the wrist joint, which is the origin


def test_triangles_look_outwards_and_none_is_degenerate(arrays):
    a, b, c = np.moveaxis(arrays["v_template"][arrays["faces"]], 1, 0)
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1) / 2
    assert area.min() > 1e-9
    # every face belongs to the finger or palm whose line its centre is off
    joints, weights = arrays["joints"], arrays["weights"]
    owner = weights[arrays["faces"]].sum(1).argmax(1)
    for finger in (1, 2, 3):  # the middle of each index bone: far from webs and creases
        along = joints[finger + 1] if finger < 3 else arrays["v_template"][arrays["tip_ids"][1]]
        axis = along - joints[finger]
        centre = (a + b + c) / 3
        share = (centre - joints[finger]) @ axis / (axis @ axis)
        mine = (owner == finger) & (np.abs(share - 0.5) < 0.2)
        off = centre - joints[finger] - share[:, None] * axis
        assert mine.sum() > 5
        assert (np.sum(off * normal, 1)[mine] > 0).mean() > 0.97


@pytest.mark.parametrize("size", [0.0, 2.0])
def test_flat_hand_is_flat(arrays, size):
    """Phalanges of each finger, up to its tip, are collinear within 2 degrees, for any shape."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        betas = np.clip(size * rng.normal(size=10), -size, size)
        joints = arrays["joints"] + arrays["joint_shapedirs"] @ betas
        tips = (arrays["v_template"] + arrays["shapedirs"] @ betas)[arrays["tip_ids"]]
        for finger, chain in FINGERS.items():
            points = np.concatenate([joints[list(chain)], tips[[TIP_ORDER.index(finger)]]])
            bones = np.diff(points, axis=0)
            bones /= np.linalg.norm(bones, axis=1, keepdims=True)
            angles = np.rad2deg(np.arccos(np.clip(np.sum(bones[1:] * bones[:-1], 1), -1, 1)))
            assert angles.max() < 2, finger


def test_tips_are_the_ends_of_their_fingers(arrays):
    v, owner = arrays["v_template"], arrays["weights"].argmax(1)
    for finger, chain in FINGERS.items():
        tip = arrays["tip_ids"][TIP_ORDER.index(finger)]
        assert owner[tip] == chain[2]
        distance = np.linalg.norm(v - arrays["joints"][chain[2]], axis=1)
        # where the mid-line leaves the skin: a nail may stand out further
        assert distance[tip] > 0.94 * distance[owner == chain[2]].max()


def test_side_is_what_the_file_says(arrays):
    sign = -1 if str(arrays["side"]) == "right" else 1
    joints = arrays["joints"]
    assert (sign * joints[[1, 4, 7, 10], 0] > 0.07).all()  # fingers along -x on a right hand
    thumb = arrays["v_template"][arrays["tip_ids"][0]]
    assert thumb[2] > joints[1, 2] > joints[7, 2]  # thumb and index towards +z


def test_weights(arrays):
    w = arrays["weights"]
    np.testing.assert_allclose(w.sum(1), 1, atol=1e-6)
    assert w.min() >= 0
    assert (w > 0).sum(1).max() <= 4
    assert (w.max(0) > 0.75).all()  # every bone carries some skin nearly by itself


def test_joint_regressor(arrays):
    """Exact for the fingers, whose joints lie among their vertices; the wrist joint lies outside the open end."""
    np.testing.assert_allclose(arrays["J_regressor"].sum(1), 1, atol=1e-5)
    betas = np.random.default_rng(0).normal(size=10)
    vertices = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["joints"] + arrays["joint_shapedirs"] @ betas
    error = np.linalg.norm(arrays["J_regressor"] @ vertices - joints, axis=1)
    assert error[1:].max() < 5e-4
    assert error[0] < 0.004


def test_joints_are_on_the_midlines(arrays):
    """A slice of the finger at each middle and end joint has the joint in its middle."""
    for finger, chain in FINGERS.items():
        own = arrays["weights"][:, list(chain)].sum(1) > 0.5
        for k in (2,) if finger == "thumb" else (1, 2):
            joint = arrays["joints"][chain[k]]
            along = joint - arrays["joints"][chain[k - 1]]
            along /= np.linalg.norm(along)
            across = np.linalg.svd(along[None])[2][1:]
            offset = arrays["v_template"] - joint
            outline = offset[own & (np.abs(offset @ along) < 0.005)] @ across.T
            assert np.abs(outline.max(0) + outline.min(0)).max() / 2 < 1.5e-3, finger


def test_population_is_that_of_ansur(arrays):
    """ANSUR II, both sexes alike: length from the wrist crease (10 mm from the joint) to the end of the middle
    finger 187.2 +- 11.7 mm, breadth across the knuckles 83.2 +- 6.5 mm, correlation 0.713.
    """
    sign = -1 if str(arrays["side"]) == "right" else 1
    v, joints = arrays["v_template"], arrays["joints"]
    not_thumb = arrays["weights"][:, 13:].sum(1) < 0.05
    radial, ulnar = (np.flatnonzero((np.abs((v - joints[j])[:, 0]) < 0.006) & not_thumb) for j in (1, 7))
    across = joints[1] - joints[7]
    ends = [np.argmax(sign * v[:, 0]), radial[np.argmax(v[radial] @ across)], ulnar[np.argmin(v[ulnar] @ across)]]
    betas = np.random.default_rng(0).normal(size=(10_000, 10))
    points = v[ends] + np.einsum("nb,vcb->nvc", betas, arrays["shapedirs"][ends])
    length, breadth = sign * points[:, 0, 0] - 0.010, np.linalg.norm(points[:, 1] - points[:, 2], axis=1)
    assert abs(length.mean() - 0.1872) < 0.0005
    assert abs(length.std() / 0.0117 - 1) < 0.05
    assert abs(breadth.mean() - 0.0832) < 0.0005
    assert abs(breadth.std() / 0.0065 - 1) < 0.05
    assert abs(np.corrcoef(length, breadth)[0, 1] - 0.713) < 0.03


def test_small_shape_directions_are_zero(arrays):
    effect = np.sqrt((arrays["shapedirs"] ** 2).sum(1).mean(0))
    assert ((effect == 0) | (effect > 2.9e-4)).all()
    assert (effect[:3] > 5e-4).all()


def test_correctives_are_local(arrays):
    """A joint's rotation corrects no skin that it does not carry: nothing of the little finger answers to the index."""
    posedirs = arrays["posedirs"].reshape(-1, 3, 15, 9)
    pinky = arrays["weights"][:, [8, 9]].sum(1) > 0.9
    assert np.abs(posedirs[pinky][:, :, :3]).max() == 0
    assert np.abs(posedirs[pinky][:, :, 7:9]).max() > 1e-4


def _fist(arrays, correctives: float):
    """Vertices with the four fingers bent by 85, 95 and 70 degrees, by linear blend skinning."""
    local = np.tile(np.eye(3), (16, 1, 1))
    sign = 1 if str(arrays["side"]) == "right" else -1
    for k, degrees in enumerate((85, 95, 70)):
        cos, sin = np.cos(np.deg2rad(degrees)), sign * np.sin(np.deg2rad(degrees))
        local[[1 + k, 4 + k, 7 + k, 10 + k]] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
    v = arrays["v_template"] + correctives * arrays["posedirs"] @ (local[1:] - np.eye(3)).ravel()
    J, turned, moved = arrays["joints"], local.copy(), arrays["joints"].copy()
    for j, parent in enumerate(arrays["kintree_table"][0][1:], start=1):
        turned[j] = turned[parent] @ local[j]
        moved[j] = moved[parent] + turned[parent] @ (J[j] - J[parent])
    by_bone = np.einsum("jab,vjb->vja", turned, v[:, None] - J) + moved
    return np.einsum("vj,vja->va", arrays["weights"], by_bone)


def test_correctives_give_a_fist_its_volume_back(arrays):
    def volume(v):
        a, b, c = np.moveaxis(v[arrays["faces"]], 1, 0)
        return np.sum(a * np.cross(b, c)) / 6

    flat = volume(arrays["v_template"])
    loss_without, loss_with = (1 - volume(_fist(arrays, correctives)) / flat for correctives in (0.0, 1.0))
    assert loss_without > 0.05
    assert 0 < loss_with < 0.035
    assert np.linalg.norm(_fist(arrays, 1.0) - _fist(arrays, 0.0), axis=1).max() < 0.008


@pytest.mark.parametrize("level", ["", "_fine"])
def test_left_is_the_mirror_of_right(level):
    M = np.array([-1.0, 1.0, 1.0])
    with np.load(ASSETS / f"right{level}.npz") as right, np.load(ASSETS / f"left{level}.npz") as left:
        np.testing.assert_array_equal(left["v_template"], right["v_template"] * M.astype(np.float32))
        np.testing.assert_array_equal(left["faces"], right["faces"][:, ::-1])
        np.testing.assert_array_equal(left["shapedirs"], right["shapedirs"] * M[:, None].astype(np.float32))
        signs = np.tile(np.outer(M, M).ravel(), 15)
        np.testing.assert_array_equal(left["posedirs"], (right["posedirs"] * M[:, None] * signs).astype(np.float16))
        np.testing.assert_array_equal(left["hands_mean"], right["hands_mean"] * np.tile(-M, 15).astype(np.float32))
