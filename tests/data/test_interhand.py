import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from jhand.data.clip import ClipError, check_clip
from jhand.data.readers.interhand import InterHand
from jhand.hand import keypoints, load_hand, mirror_hand
from tests.data.clips import params_of, reprojected
from tests.hand.mano_files import hand_arrays, write_clean


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    right = load_hand(write_clean(tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl", hand_arrays(0)))
    return right, mirror_hand(right)


# each finger from tip to base, thumb first, the wrist last: where openpose21's points are
FILE_ORDER = [*(4 * f + k for f in range(5) for k in (4, 3, 2, 1)), 0]


@pytest.fixture
def folder(tmp_path, pair):
    """A capture of two frames by one camera: two hands; a right one whose ring finger was not seen."""
    rng = np.random.default_rng(0)
    R, position = Rotation.random(random_state=0).as_matrix(), np.array([100.0, -200.0, 50.0])
    centre = position + R.T @ np.array([0, 0, 900.0])
    world, mano = [], []
    for _ in range(2):
        points, fitted = [], {}
        for hand, side, beside in zip(pair, ("right", "left"), (80, -80), strict=True):
            pose, shape = rng.normal(0, 0.3, 48), rng.normal(0, 1, 10)
            trans = (centre + R.T @ np.array([beside, 0, 0])) / 1000
            fitted[side] = {"pose": pose.tolist(), "shape": shape.tolist(), "trans": trans.tolist()}
            relative = (pose[3:] + np.asarray(hand.hands_mean)).reshape(15, 3).astype(np.float32)
            numbers = {"global_orient": pose[:3], "hand_pose": relative, "betas": shape, "transl": trans}
            params = params_of({"params": numbers})
            points.append(np.asarray(keypoints(hand, params), np.float64)[FILE_ORDER] * 1000)
        world.append(np.concatenate(points))
        mano.append(fitted)
    mano[1]["left"] = None
    annotations = tmp_path / "annotations" / "val"
    annotations.mkdir(parents=True)
    valid = np.ones((2, 42), int)
    valid[1, 21:] = 0
    valid[1, 12:15] = 0
    images = [
        {
            "id": n, "file_name": f"Capture0/ROM01/cam400002/image{n}.jpg", "width": 80, "height": 60, "capture": 0,
            "subject": 3, "seq_name": "ROM01", "camera": "400002", "frame_idx": n,
        }
        for n in range(2)
    ]  # fmt: skip
    labels = [
        {
            "id": 10 + n, "image_id": n, "bbox": [1, 2, 3, 4], "joint_valid": valid[n].tolist(),
            "hand_type": ("interacting", "right")[n], "hand_type_valid": 1,
        }
        for n in range(2)
    ]  # fmt: skip
    camera = {
        "campos": {"400002": position.tolist()},
        "camrot": {"400002": R.tolist()},
        "focal": {"400002": [150.0, 151.0]},
        "princpt": {"400002": [40.0, 30.0]},
    }
    joints = {str(n): {"world_coord": world[n].tolist(), "joint_valid": valid[n][:, None].tolist()} for n in range(2)}
    files = {
        "data": {"images": images, "annotations": labels},
        "camera": {"0": camera},
        "joint_3d": {"0": joints},
        "MANO_NeuralAnnot": {"0": {str(n): mano[n] for n in range(2)}},
    }
    for name, content in files.items():
        (annotations / f"InterHand2.6M_val_{name}.json").write_text(json.dumps(content))
    for image in images:
        path = tmp_path / "images" / "val" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 80), 99, np.uint8)).save(path)  # grey, as some cameras are
    return tmp_path


def test_clips_keep_to_the_schema_and_show_what_the_camera_sees(folder, pair):
    data = InterHand(folder, "val", pair)
    assert len(data) == 2
    for index in range(2):
        clip = data[index]
        check_clip(clip)
        for side in ("right", "left") if index == 0 else ("right",):
            hand = clip["hands"][side]
            counts = hand["confidence"] > 0
            np.testing.assert_allclose(hand["keypoints2d"][counts], reprojected(clip, side)[counts], atol=2e-3)
        assert clip["image"].shape == (1, 1, 60, 80, 3)
    # in the picture the first hand lies on the side of the camera's x
    clip = data[0]
    means = [clip["hands"][s]["keypoints2d"][..., 0].mean() for s in ("right", "left")]
    assert means[0] > means[1] + 10


def test_parameters_are_in_the_world_and_give_the_keypoints(folder, pair):
    clip = InterHand(folder, "val", pair)[0]
    for hand, side in zip(pair, ("right", "left"), strict=True):
        entry = clip["hands"][side]
        found = keypoints(hand, params_of(entry))
        np.testing.assert_allclose(found, entry["keypoints3d"], atol=1e-5)


def test_what_was_not_seen_does_not_count(folder, pair):
    hands = InterHand(folder, "val", pair)[1]["hands"]
    assert not hands["left"]["present"].any()
    assert not hands["left"]["keypoints3d_valid"].any()
    assert not hands["left"]["params_valid"].any()
    invalid = np.flatnonzero(~hands["right"]["keypoints3d_valid"][0])
    np.testing.assert_array_equal(invalid, [14, 15, 16])  # ring: tip, dip, pip
    assert (hands["right"]["keypoints3d"][0, invalid] == 0).all()


def test_what_is_missing_or_damaged_is_said(folder):
    with pytest.raises(ClipError, match="split"):
        InterHand(folder, "evaluation")
    with pytest.raises(ClipError, match=r"InterHand2\.6M_train_data\.json"):
        InterHand(folder, "train")
    at = folder / "annotations" / "val" / "InterHand2.6M_val_camera.json"
    cameras = json.loads(at.read_text())
    del cameras["0"]["focal"]["400002"]
    at.write_text(json.dumps(cameras))
    with pytest.raises(ClipError, match=r"annotation 10.*400002"):
        InterHand(folder, "val")[0]
    at.write_text("[]")
    with pytest.raises(ClipError, match="expected a JSON object"):
        InterHand(folder, "val")
    at = folder / "annotations" / "val" / "InterHand2.6M_val_data.json"
    data = json.loads(at.read_text())
    data["images"] = data["images"][1:]
    at.write_text(json.dumps(data))
    with pytest.raises(ClipError):
        InterHand(folder, "val")
