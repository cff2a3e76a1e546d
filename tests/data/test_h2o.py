"""H2O's and FPHA's files, written here by hand."""

import numpy as np
import pytest

from jhand.data.clip import ClipError
from jhand.data.object_actions import ACTIONS
from jhand.data.readers.fpha import K, list_fpha_actions, read_fpha_object, read_fpha_skeleton
from jhand.data.readers.h2o import list_h2o_actions, load_h2o_action, read_h2o_frame
from jhand.geometry import so3_exp


def line(*values):
    return " ".join(f"{x:.9g}" for x in np.concatenate([np.ravel(v) for v in values]))


def transform(seed):
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = so3_exp(rng.normal(size=3).astype(np.float32)), rng.normal(size=3)
    return T


@pytest.fixture
def sequence(tmp_path):
    """Frames 3 to 9 of a hand and an object that stand still in the world, before a head that moves."""
    rng = np.random.default_rng(0)
    world = rng.normal(size=(3, 21, 3))
    camera = tmp_path / "subject1" / "h1" / "0" / "cam4"
    for name in ("hand_pose", "hand_pose_MANO", "obj_pose", "obj_pose_RT", "cam_pose"):
        (camera / name).mkdir(parents=True)
    for frame in range(3, 10):
        T_world_cam = transform(frame)
        T = np.linalg.inv(T_world_cam)
        seen = world @ T[:3, :3].T + T[:3, 3]
        left = 0 if frame == 5 else 1
        files = {
            "hand_pose": line(left, left * seen[0], 1, seen[1]),
            "hand_pose_MANO": line(1, np.arange(61), 0, np.arange(61)),
            "obj_pose": line(7, seen[2]),
            "obj_pose_RT": line(7, T @ transform(100)),
            "cam_pose": line(T_world_cam),
        }
        for name, text in files.items():
            (camera / name / f"{frame:06d}.txt").write_text(text + "\n")
    (camera / "cam_intrinsics.txt").write_text("636.6 636.3 635.3 366.9 1280 720")
    (tmp_path / "action_train.txt").write_text(
        "id path action_label start_act end_act start_frame end_frame\n1 subject1/h1/0 12 3 9 0 200\n\n"
        "2 subject1/h1/0 30 5 5 0 200\n"
    )
    (tmp_path / "action_test.txt").write_text(
        "id path start_act end_act start_frame end_frame\n4 subject4/k1/2 3 9 0 20\n"
    )
    return tmp_path, camera, world


def test_a_frame_of_h2o(sequence):
    _, camera, world = sequence
    found = read_h2o_frame(camera, 3)
    T = found["T_cam_world"]
    np.testing.assert_allclose(T, np.linalg.inv(transform(3)), atol=1e-5)
    np.testing.assert_allclose(found["keypoints3d"], world[:2] @ T[:3, :3].T + T[:3, 3], atol=1e-5)
    np.testing.assert_allclose(found["object_points"], world[2] @ T[:3, :3].T + T[:3, 3], atol=1e-5)
    np.testing.assert_allclose(found["T_cam_object"], T @ transform(100), atol=1e-5)
    assert found["present"].all() and list(found["mano_present"]) == [True, False] and found["object"] == 7
    mano = found["mano"]
    np.testing.assert_array_equal(mano["transl"][0], [0, 1, 2])
    np.testing.assert_array_equal(mano["hand_pose"][0].ravel(), np.arange(6, 51))
    np.testing.assert_array_equal(mano["betas"], [np.arange(51, 61), np.zeros(10)])
    assert found["K"][0, 2] == 635.3 and list(found["size"]) == [1280, 720]
    assert list(read_h2o_frame(camera, 5)["present"]) == [False, True]


def test_an_action_of_h2o_in_one_frame(sequence):
    """What stands still in the world stands still, whatever the head does."""
    folder, _, world = sequence
    first, second = list_h2o_actions(folder / "action_train.txt")
    assert (first.action, first.first, first.last, second.first) == (12, 3, 9, 5)
    found = load_h2o_action(folder, first, 7)
    T = np.linalg.inv(transform(3))
    expected = np.broadcast_to((world @ T[:3, :3].T + T[:3, 3]).reshape(63, 3), (7, 63, 3)).copy()
    expected[2, :21] = 0
    np.testing.assert_allclose(found["points"], expected, atol=2e-5)
    np.testing.assert_array_equal(found["valid"], [[n != 2, True, True] for n in range(7)])
    assert (found["object"], found["action"]) == (6, 11)
    assert load_h2o_action(folder, second, 4)["points"].shape == (4, 63, 3)
    (unlabelled,) = list_h2o_actions(folder / "action_test.txt")
    assert unlabelled.action == 0 and unlabelled.path == "subject4/k1/2"
    assert len(ACTIONS) == 18  # those of the world are others


def test_what_is_wrong_with_h2o_is_said(sequence):
    folder, camera, _ = sequence
    with pytest.raises(ClipError, match="000099"):
        read_h2o_frame(camera, 99)
    (camera / "obj_pose" / "000003.txt").write_text("7 1 2 3")
    with pytest.raises(ClipError, match="lines of 64 finite numbers"):
        read_h2o_frame(camera, 3)
    (camera / "obj_pose" / "000003.txt").write_text(line(9, np.zeros(63)))
    with pytest.raises(ClipError, match="class from 0 to 8"):
        read_h2o_frame(camera, 3)
    (camera / "hand_pose" / "000004.txt").write_text("one two")
    with pytest.raises(ClipError, match="is the download complete"):
        read_h2o_frame(camera, 4)
    (folder / "action_train.txt").write_text("a b\n")
    with pytest.raises(ClipError, match="expected the columns"):
        list_h2o_actions(folder / "action_train.txt")
    (folder / "action_train.txt").write_text("id path action_label start_act end_act start_frame end_frame\n1 p x 2\n")
    with pytest.raises(ClipError, match="line 2"):
        list_h2o_actions(folder / "action_train.txt")


def test_fpha_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    names = ["W", "T1", "I1", "M1", "R1", "P1", *(f"{f}{k}" for f in "TIMRP" for k in (2, 3, 4))]
    points = rng.normal(size=(2, 21, 3)) * 100 + [0, 0, 500]
    (tmp_path / "skeleton.txt").write_text("\n".join(line(n, p) for n, p in enumerate(points)))
    frames, found = read_fpha_skeleton(tmp_path / "skeleton.txt")
    np.testing.assert_array_equal(frames, [0, 1])
    ours = ["W", *(f"{f}{k}" for f in "TIMRP" for k in (1, 2, 3, 4))]
    order = [names.index(name) for name in ours]
    # the camera is 26 mm beside the transmitter, and hardly turned
    np.testing.assert_allclose(found, points[:, order] / 1000 + [0.0257, 0.0012, 0.0039], atol=0.004)
    pixels = found[0] @ K.T
    assert (np.abs(pixels[:, 0] / pixels[:, 2] - 960) < 1200).all()
    T = transform(0)
    by_columns = T.copy()
    by_columns[:3, 3] *= 1000
    (tmp_path / "object_pose.txt").write_text(line(4, by_columns.T) + "\n")
    frames, placed = read_fpha_object(tmp_path / "object_pose.txt")
    assert list(frames) == [4]
    np.testing.assert_allclose(placed[0, :3, :3], T[:3, :3], atol=0.01)
    np.testing.assert_allclose(placed[0, :3, 3], T[:3, 3] + [0.0257, 0.0012, 0.0039], atol=0.02)
    (tmp_path / "object_pose.txt").write_text(line(4, by_columns) + "\n")
    with pytest.raises(ClipError, match="by columns"):
        read_fpha_object(tmp_path / "object_pose.txt")


def test_the_parts_of_fpha(tmp_path):
    path = tmp_path / "split.txt"
    path.write_text("Training 2\nSubject_1/open_milk/1 4\nSubject_2/open_milk/1 4\nTest 1\nSubject_1/pour/2 7\n")
    assert [a.path for a in list_fpha_actions(path, "Training")] == ["Subject_1/open_milk/1", "Subject_2/open_milk/1"]
    assert list_fpha_actions(path, "Test")[0].action == 7
    path.write_text("Training 2\nSubject_1/open_milk/1 4\n")
    with pytest.raises(ClipError, match="expected 2 sequences, got 1"):
        list_fpha_actions(path, "Training")
    path.write_text("Subject_1/open_milk/1 4\n")
    with pytest.raises(ClipError, match="line 1"):
        list_fpha_actions(path, "Training")
    with pytest.raises(ValueError, match="Training, Test"):
        list_fpha_actions(path, "val")
