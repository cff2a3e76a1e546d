import json

import numpy as np
import pytest

from jhand.data.clip import ClipError, check_clip
from jhand.data.readers.freihand import FreiHAND
from jhand.hand import keypoints, load_hand
from tests.data.clips import params_of
from tests.data.published import FREIHAND_K as K
from tests.data.published import write_freihand
from tests.hand.mano_files import hand_arrays, write_clean


@pytest.fixture(scope="module")
def mano(tmp_path_factory):
    return load_hand(write_clean(tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl", hand_arrays(0)))


@pytest.fixture
def folder(tmp_path, mano):
    write_freihand(tmp_path, mano)
    return tmp_path


def test_clips_keep_to_the_schema_and_the_file(folder, mano):
    data = FreiHAND(folder, "training", mano)
    assert len(data) == 6
    for index in range(6):
        clip = data[index]
        check_clip(clip)
        hand = clip["hands"]["right"]
        xyz = np.array(json.loads((folder / "training_xyz.json").read_text())[index % 3])
        np.testing.assert_allclose(hand["keypoints3d"][0], xyz, atol=1e-6)
        uv = xyz @ np.array(K).T
        np.testing.assert_allclose(hand["keypoints2d"][0, 0], uv[:, :2] / uv[:, 2:], atol=1e-3)
        assert abs(int(clip["image"].mean()) - 40 * index) <= 1
        assert (clip["segmentation"] == 1).all()
    assert data[4]["meta"]["sequence"] == "training/00000001/hom"


def test_parameters_give_the_keypoints(folder, mano):
    hand = FreiHAND(folder, "training", mano)[1]["hands"]["right"]
    found = keypoints(mano, params_of(hand))
    np.testing.assert_allclose(found, hand["keypoints3d"], atol=1e-5)
    assert "params" not in FreiHAND(folder)[1]["hands"]["right"]


def test_what_is_missing_or_damaged_is_said(folder):
    with pytest.raises(ClipError, match="split"):
        FreiHAND(folder, "test")
    with pytest.raises(ClipError, match=r"evaluation_K.json"):
        FreiHAND(folder, "evaluation")
    data = FreiHAND(folder)
    (folder / "training" / "rgb" / "00000002.jpg").unlink()
    with pytest.raises(ClipError, match=r"00000002.jpg.*not there"):
        data[2]
    whole = (folder / "training" / "rgb" / "00000001.jpg").read_bytes()
    (folder / "training" / "rgb" / "00000001.jpg").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ClipError, match="download"):
        data[1]
    (folder / "training_xyz.json").write_text("[[1, 2]]")
    with pytest.raises(ClipError, match=r"expected \(N, 21, 3\)"):
        FreiHAND(folder)
    (folder / "training_xyz.json").write_text("[[[0, 0")
    with pytest.raises(ClipError, match="not JSON"):
        FreiHAND(folder)
    with pytest.raises(IndexError):
        data[6]
