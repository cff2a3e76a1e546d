import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jhand.hand.kinematics import forward
from jhand.hand.model import PARENTS, HandParams
from jhand.hand.skeleton import FINGERS, ORDERS, bones, convert_keypoints, keypoint_names

# Numbers of some points, from each format's own description.
KNOWN = {
    "mano16": {"wrist": 0, "index_mcp": 1, "middle_mcp": 4, "little_mcp": 7, "ring_mcp": 10, "thumb_cmc": 13},
    "mano21": {"thumb_ip": 15, "thumb_tip": 16, "index_tip": 17, "middle_tip": 18, "ring_tip": 19, "little_tip": 20},
    "openpose21": {"wrist": 0, "thumb_tip": 4, "index_mcp": 5, "middle_tip": 12, "ring_pip": 14, "little_tip": 20},
    "interhand21": {"thumb_tip": 0, "thumb_cmc": 3, "index_tip": 4, "middle_mcp": 11, "little_mcp": 19, "wrist": 20},
    "rhd21": {"wrist": 0, "thumb_tip": 1, "thumb_cmc": 4, "index_tip": 5, "index_mcp": 8, "little_mcp": 20},
    "umetrack21": {"thumb_tip": 0, "little_tip": 4, "wrist": 5, "thumb_mcp": 6, "index_mcp": 8, "palm": 20},
    "webxr25": {"wrist": 0, "thumb_cmc": 1, "thumb_tip": 4, "index_metacarpal": 5, "index_tip": 9, "little_tip": 24},
    "openxr26": {"palm": 0, "wrist": 1, "thumb_cmc": 2, "index_metacarpal": 6, "little_tip": 25},
    "leap20": {"thumb_cmc": 0, "thumb_tip": 3, "index_mcp": 4, "little_tip": 19},
    "coco_wholebody_left": {"wrist": 91, "thumb_tip": 95, "little_tip": 111},
    "coco_wholebody_right": {"wrist": 112, "thumb_tip": 116, "little_tip": 132},
}
SIZES = {"mano16": 16, "webxr25": 25, "openxr26": 26, "leap20": 20}


@pytest.mark.parametrize("order", ORDERS)
def test_names_are_unique_and_as_many_as_the_order_says(order):
    names = keypoint_names(order)
    expected = 133 if order.startswith("coco") else SIZES.get(order, 21)
    assert len(names) == len(set(names)) == expected


@pytest.mark.parametrize("order", KNOWN)
def test_known_numbers(order):
    names = keypoint_names(order)
    assert {name: names.index(name) for name in KNOWN[order]} == KNOWN[order]


def test_formats_that_share_an_order():
    for order in ("mediapipe21", "freihand21", "h2o21", "dexycb21", "panoptic21", "onehand10k21"):
        assert keypoint_names(order) == keypoint_names("openpose21")
    assert keypoint_names("ho3d21") == keypoint_names("mano21")
    assert keypoint_names("hot3d21") == keypoint_names("umetrack21")


# one name of each order: what others call the same has its own test
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(KNOWN, 2)))
def test_there_and_back(source, target):
    names = keypoint_names(source)
    points = np.random.default_rng(0).normal(size=(2, len(names), 3)).astype(np.float32) + 5
    there, valid = convert_keypoints(points, source=source, target=target)
    back, valid_back = convert_keypoints(there, source=target, target=source)
    shared = np.array([name in keypoint_names(target) for name in names])
    np.testing.assert_array_equal(back, np.where(shared[:, None], points, 0))
    np.testing.assert_array_equal(valid, [name in names for name in keypoint_names(target)])
    np.testing.assert_array_equal(valid_back, shared)
    assert not np.any(there[:, ~valid])


def test_keypoints_of_the_model_are_its_joints_reordered(right):
    params = HandParams(0.3 * jnp.ones(3), 0.2 * jnp.ones((15, 3)), jnp.ones(10), jnp.ones(3))
    mesh = forward(right, params)
    joints, valid = convert_keypoints(mesh.keypoints, source="openpose21", target="mano16")
    assert valid.all()
    np.testing.assert_array_equal(joints, mesh.joints)
    with_tips, _ = convert_keypoints(mesh.keypoints, source="openpose21", target="mano21")
    np.testing.assert_array_equal(with_tips[16:], mesh.vertices[right.tips, :])


def test_converts_any_channels_and_dtypes():
    pixels = np.arange(2 * 3 * 21).reshape(2, 3, 21, 1).astype(np.int32)
    moved, valid = convert_keypoints(pixels, source="mediapipe21", target="webxr25")
    assert (moved.shape, moved.dtype) == ((2, 3, 25, 1), np.int32)
    assert list(np.flatnonzero(~valid)) == [5, 10, 15, 20]  # metacarpal bases of the four fingers


def test_bones_of_mano_are_its_tree():
    assert {(a, b) for a, b in bones("mano16")} == {(parent, joint) for joint, parent in enumerate(PARENTS) if joint}


@pytest.mark.parametrize("order", ORDERS)
def test_bones_make_one_chain_a_finger(order):
    names, pairs = keypoint_names(order), bones(order)
    ends = [b for _, b in pairs]
    assert len(ends) == len(set(ends))
    for a, b in pairs:
        assert names[a] == "wrist" or names[a].split("_")[0] == names[b].split("_")[0]
    drawn = {names[i] for pair in pairs for i in pair}
    assert drawn == {name for name in names if name == "wrist" or name.split("_")[0] in FINGERS}


def test_openpose_bones():
    assert bones("openpose21")[:5] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5))
    assert len(bones("openpose21")) == 20


def test_unknown_order_suggests_a_near_one():
    with pytest.raises(ValueError, match=r"unknown keypoint order 'openpose': did you mean 'openpose21'\?"):
        keypoint_names("openpose")
    with pytest.raises(ValueError, match=r"unknown keypoint order 'x': known are coco_wholebody_left, .*webxr25"):
        convert_keypoints(np.zeros((21, 3)), source="openpose21", target="x")


def test_wrong_number_of_points_says_what_fits():
    with pytest.raises(ValueError, match=r"mano16 has shape \(..., 16, C\), got \(4, 25, 3\); 25 points fit webxr25"):
        convert_keypoints(np.zeros((4, 25, 3)), source="mano16", target="openpose21")
    with pytest.raises(ValueError, match=r"mano16 has shape \(..., 16, C\), got \(16,\)$"):
        convert_keypoints(np.zeros(16), source="mano16", target="openpose21")
