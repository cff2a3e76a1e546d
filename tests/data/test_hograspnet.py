"""HOGraspNet's annotations, written here by hand: keys, quirks of the files, the five splits."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.clip import ClipError
from jhand.data.readers.hograspnet import list_frames, mano_params, read_annotation, split_frames
from jhand.hand import HandParams, forward


def annotation(rng):
    numbers = lambda *shape: rng.normal(size=shape).round(4).tolist()  # noqa: E731
    return {
        "actor": {"id": "S01", "sex": "F", "age": "31", "height": "165", "handsize": "17"},
        "images": {"width": 1920, "height": 1080, "file_name": ["mas/mas_7.jpg"], "frame_num": 7},
        "object": {"id": "04", "name": "sugar_box"},
        "calibration": {"error": 0.3, "extrinsic": numbers(3, 4), "intrinsic": numbers(3, 3)},
        "annotations": [{"class_id": "16", "class_name": "Lateral", "data": numbers(21, 3)}],
        "Mesh": [
            {
                "class_id": "16", "class_name": "Lateral", "object_name": "sugar_box", "object_file": "04.obj",
                "object_mat": numbers(4, 4), "mano_side": "right", "mano_trans": numbers(1, 3),
                "mano_pose": numbers(1, 45), "mano_betas": numbers(1, 10),
            }
        ],
        "hand": {
            "mano_scale": [1.1], "mano_xyz_root": numbers(1, 3), "3D_pose_per_cam": numbers(21, 3),
            "projected_2D_pose_per_cam": numbers(21, 3),
        },
        "contact": numbers(778),
    }  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    """Writes files of subjects, objects, grasps and trials; contents do not matter for splits."""

    def write(subject, thing, grasp, trials=(0, 1, 2), cameras=("mas", "sub3")):
        for trial in trials:
            for camera in cameras:
                name = f"220101_S{subject:02d}_obj_{thing:02d}_grasp_{grasp:02d}/trial_{trial}/annotation/{camera}"
                (tmp_path / name).mkdir(parents=True)
                (tmp_path / name / f"{camera}_12.json").write_text("{}")
                (tmp_path / name / f"{camera}_3.json").write_text("{}")

    write.folder = tmp_path
    return write


def written(tmp_path, file):
    path = tmp_path / "mas_7.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(file).encode())
    return path


def test_an_annotation_with_its_byte_order_mark(tmp_path):
    file = annotation(np.random.default_rng(0))
    found = read_annotation(written(tmp_path, file))
    np.testing.assert_array_equal(found["global_orient"], file["Mesh"][0]["mano_trans"][0])
    np.testing.assert_array_equal(found["hand_pose"].reshape(1, 45), file["Mesh"][0]["mano_pose"])
    np.testing.assert_array_equal(found["T_cam_world"][:3], file["calibration"]["extrinsic"])
    np.testing.assert_array_equal(found["keypoints2d"], np.array(file["hand"]["projected_2D_pose_per_cam"])[:, :2])
    assert found["grasp"] == 16 and found["object"] == 4 and found["scale"] == 1.1
    assert found["contact"].shape == (778,) and found["actor"]["handsize"] == "17"


def test_parameters_put_the_root_where_it_is_stored(tmp_path, right):
    found = read_annotation(written(tmp_path, annotation(np.random.default_rng(1))))
    params, scale = mano_params(found, right)
    still = {k: jnp.asarray(v) for k, v in params.items()}
    joints = np.asarray(forward(right, HandParams(**still)).joints)
    np.testing.assert_allclose(joints[0], found["root"], atol=1e-5)
    # which is what the files mean by it: root-centred joints, divided by the scale, at the root
    still = forward(right, HandParams(**{**still, "transl": jnp.zeros(3)})).joints
    stored = (still - still[0]) / scale + found["root"]
    np.testing.assert_allclose((joints - joints[0]) / scale + joints[0], stored, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.pop("contact"), "'contact'"),
        (lambda f: f["Mesh"][0].pop("mano_trans"), "'mano_trans'"),
        (lambda f: f.update(Mesh=[]), "Mesh: expected a list"),
        (lambda f: f["hand"].update(mano_xyz_root=[1, 2]), r"mano_xyz_root: expected numbers \(3,\), got \(2,\)"),
        (lambda f: f["hand"].update(mano_scale=[float("nan")]), "mano_scale: expected finite"),
        (lambda f: f["annotations"][0].update(class_id="lateral"), "class_id: expected a whole number"),
        (lambda f: f["Mesh"][0].update(mano_side="left"), "mano_side: expected right"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, says):
    file = annotation(np.random.default_rng(2))
    spoil(file)
    with pytest.raises(ClipError, match=says):
        read_annotation(written(tmp_path, file))


def test_frames_are_sorted_by_number(dataset):
    for subject in (10, 9, 2):
        dataset(subject, 1, 1, trials=(10, 2))
    frames = list_frames(dataset.folder)
    assert [f.subject for f in frames] == [2] * 8 + [9] * 8 + [10] * 8
    assert [(f.trial, f.camera, f.frame) for f in frames[:4]] == [
        (2, "mas", 3), (2, "mas", 12), (2, "sub3", 3), (2, "sub3", 12),
    ]  # fmt: skip
    with pytest.raises(ClipError, match="found none"):
        list_frames(dataset.folder / "220101_S02_obj_01_grasp_01")


def test_unseen_trials(dataset):
    dataset(1, 1, 1, trials=(3, 1, 2))
    frames = list_frames(dataset.folder)
    trials = {part: {f.trial for f in split_frames(frames, "s0", part)} for part in ("train", "val", "valid", "test")}
    assert trials == {"train": {2, 3}, "val": {2}, "valid": {2}, "test": {1}}


def test_unseen_subjects_camera_objects_and_grasps(dataset):
    for subject in range(1, 76):
        dataset(subject, 1, 1, trials=(0,), cameras=("mas",))
    dataset(1, 10, 2)
    dataset(2, 3, 23)
    frames = list_frames(dataset.folder)
    tested = {split: split_frames(frames, split, "test") for split in ("s1", "s2", "s3", "s4")}
    assert {f.subject for f in tested["s1"]} == {74, 75}
    assert {f.camera for f in tested["s2"]} == {"sub3"}
    assert {f.object for f in tested["s3"]} == {10}
    assert {f.grasp for f in tested["s4"]} == {23}
    for split, held_out in tested.items():
        train = split_frames(frames, split, "train")
        assert len(train) + len(held_out) == len(frames) and not set(train) & set(held_out)
        assert split_frames(frames, split, "valid") == split_frames(frames, split, "val") == held_out
    with pytest.raises(ValueError, match="'s5', 'train'"):
        split_frames(frames, "s5", "train")
