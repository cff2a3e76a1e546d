import pickle

import numpy as np
import pytest

from jhand.data import BodyFileError, read_body_hands, write_body_hands
from jhand.hand import POSE_SPACES, pose_from_mean_relative, pose_from_pca, pose_to_mean_relative


def _pose(num=4, seed=0):
    return np.random.default_rng(seed).normal(0, 0.4, (num, 15, 3)).astype(np.float32)


@pytest.mark.parametrize("joints", [52, 55])
def test_amass(tmp_path, joints):
    left, right = _pose(seed=1), _pose(seed=2)
    body = np.random.default_rng(3).normal(size=(4, 3 * joints - 90))
    poses = np.concatenate([body, left.reshape(4, 45), right.reshape(4, 45)], 1)
    np.savez(tmp_path / "a.npz", poses=poses, trans=np.zeros((4, 3)), mocap_framerate=120.0, gender="female")
    found = read_body_hands(tmp_path / "a.npz")
    np.testing.assert_allclose(found.poses["left"], left, atol=1e-7)
    np.testing.assert_allclose(found.poses["right"], right, atol=1e-7)
    assert found.fps == 120.0

    write_body_hands(tmp_path / "b.npz", {"right": _pose(seed=5)}, body=tmp_path / "a.npz")
    with np.load(tmp_path / "b.npz") as z:
        np.testing.assert_array_equal(z["poses"][:, :-45], poses[:, :-45])
        np.testing.assert_allclose(z["poses"][:, -45:].reshape(4, 15, 3), _pose(seed=5), atol=1e-7)
        assert str(z["gender"]) == "female" and z["poses"].dtype == poses.dtype
    with pytest.raises(BodyFileError, match="poses has 4 frames, the poses 3"):
        write_body_hands(tmp_path / "c.npz", {"right": _pose(3)}, body=tmp_path / "a.npz")
    assert not (tmp_path / "c.npz").exists()


def test_newer_amass_files_say_it_twice(tmp_path):
    hands = np.random.default_rng(0).normal(size=(3, 90))
    poses = np.concatenate([np.zeros((3, 75)), hands], 1)
    np.savez(tmp_path / "a.npz", poses=poses, pose_hand=hands, mocap_frame_rate=60)
    found = read_body_hands(tmp_path / "a.npz")
    np.testing.assert_allclose(found.poses["left"].reshape(3, 45), hands[:, :45], atol=1e-6)
    write_body_hands(tmp_path / "b.npz", {"left": _pose(3)}, body=tmp_path / "a.npz")
    with np.load(tmp_path / "b.npz") as z:
        np.testing.assert_array_equal(z["poses"][:, 75:], z["pose_hand"])


@pytest.mark.parametrize("space", POSE_SPACES)
@pytest.mark.parametrize("form", ["npz", "pkl"])
def test_smplx_files_in_every_space(tmp_path, hands, right, space, form):
    values = np.random.default_rng(1).normal(0, 0.3, (5, 12 if "pca" in space else 45)).astype(np.float32)
    entries = {"right_hand_pose": values, "betas": np.zeros((1, 10)), "global_orient": np.zeros((5, 3))}
    path = tmp_path / f"body.{form}"
    if form == "npz":
        np.savez(path, **entries)
    else:
        path.write_bytes(pickle.dumps(entries, protocol=2))
    axis_angle = values.reshape(5, -1, 3)
    expected = {
        "flat": lambda: axis_angle,
        "mean": lambda: pose_from_mean_relative(right, axis_angle),
        "pca": lambda: pose_from_pca(right, values),
        "flat_pca": lambda: pose_to_mean_relative(right, pose_from_pca(right, values)),
    }[space]()
    found = read_body_hands(path, space=space, hands=hands)
    assert set(found.poses) == {"right"} and found.fps is None
    np.testing.assert_allclose(found.poses["right"], expected, atol=1e-6)

    write_body_hands(tmp_path / "again.npz", found.poses, body=path, space=space, hands=hands, num_components=12)
    with np.load(tmp_path / "again.npz") as z:
        np.testing.assert_allclose(z["right_hand_pose"], values, atol=2e-6)
        assert z["betas"].shape == (1, 10)


def test_what_a_file_does_not_say_must_be_said(tmp_path, hands):
    np.savez(tmp_path / "a.npz", left_hand_pose=np.zeros((2, 45)))
    with pytest.raises(ValueError, match="give space, one of flat, mean, pca, flat_pca"):
        read_body_hands(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="needs hands="):
        read_body_hands(tmp_path / "a.npz", space="mean")
    np.savez(tmp_path / "b.npz", left_hand_pose=np.zeros((2, 6)))
    for space in ("flat", "mean"):
        with pytest.raises(BodyFileError, match="pca or flat_pca"):
            read_body_hands(tmp_path / "b.npz", space=space, hands=hands)
    with pytest.raises(ValueError, match="expected left and right"):
        write_body_hands(tmp_path / "c.npz", {"both": _pose()})
    with pytest.raises(ValueError, match=r"expected shape \(T, 15, 3\)"):
        write_body_hands(tmp_path / "c.npz", {"left": np.zeros((2, 45))})


class _Canary:
    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


@pytest.mark.parametrize("case", ["smpl", "nothing", "objects", "nan", "text", "missing", "cut", "canary"])
def test_bad_files_are_said(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    said = {
        "smpl": "an SMPL body, whose hands do not move",
        "nothing": "expected left_hand_pose",
        "objects": "expected left_hand_pose",
        "nan": "frame 1 is not finite",
        "text": "neither .npz nor a pickle",
        "missing": "No such file",
        "cut": "damaged",
        "canary": "neither .npz nor a pickle",
    }[case]
    if case == "smpl":
        np.savez(path, poses=np.zeros((2, 72)))
    elif case == "nothing":
        np.savez(path, trans=np.zeros((2, 3)))
    elif case == "objects":
        np.savez(path, left_hand_pose=np.array([_Canary()], object))
    elif case == "nan":
        np.savez(path, pose_hand=np.array([[0.0] * 90, [np.nan] * 90]))
    elif case == "text":
        path.write_text("left_hand_pose: 1 2 3")
    elif case == "cut":
        np.savez(path, poses=np.zeros((20, 156)))
        path.write_bytes(path.read_bytes()[:300])
    elif case == "canary":
        path.write_bytes(pickle.dumps({"left_hand_pose": _Canary()}))
    with pytest.raises(BodyFileError, match=said):
        read_body_hands(path, space="flat")
    assert not (tmp_path / "canary").exists()
