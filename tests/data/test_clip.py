import copy

import numpy as np
import pytest

from jhand.data.clip import ClipError, check_clip, flatten, select, unflatten
from jhand.data.records import ClipRecords, decode_clip, encode_clip, write_clips
from tests.data.clips import make_clip


def same(a, b):
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == b[key].dtype
            np.testing.assert_array_equal(value, b[key])
        else:
            assert value == b[key]


def test_a_clip_is_accepted_and_survives_flattening():
    clip = make_clip() | {"people": [{"left": {"present": np.zeros(2, bool)}}]}
    check_clip(clip)
    same(unflatten(flatten(clip)), clip)


def stretched():
    T = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1, 1))
    T[..., 0, 0] = 1.03
    return T


BREAKS = {
    "meta": (lambda c: c["meta"].pop("fps"), "fps"),
    "dtype": (lambda c: c.update(image=c["image"].astype(np.float32)), "expected uint8"),
    "axes": (lambda c: c.update(depth=c["depth"][0]), "expected shape"),
    "frames": (lambda c: c.update(depth=c["depth"][:1]), "T = 2"),
    "unknown": (lambda c: c.update(pictures=c["image"]), "not an entry"),
    "not finite": (lambda c: c["hands"]["right"]["keypoints3d"].__setitem__((0, 0, 0), np.nan), "not finite"),
    "mask": (lambda c: c["hands"]["right"]["visible"].__setitem__((0, 0, 0), 1.5), r"\[0, 1\]"),
    "camera": (lambda c: c["camera"]["T_cam_world"].__setitem__((0, 0, 0, 0), 3.0), "rotations"),
    "object": (
        lambda c: c.update(objects={"present": np.ones((2, 1), bool), "T_world_object": stretched()}),
        r"T_world_object: expected rotations",
    ),
    "focal": (lambda c: c["camera"]["K"].__setitem__((0, 0, 0, 0), -1.0), "focal"),
    "invalid": (lambda c: c["hands"]["right"]["keypoints3d_valid"].__setitem__((0, 3), False), "must hold 0"),
    "millimetres": (
        lambda c: c["hands"]["right"].update(keypoints3d=c["hands"]["right"]["keypoints3d"] * 1000),
        "metres",
    ),
    "model": (lambda c: c["hands"]["right"].pop("model"), "model"),
    "present": (lambda c: c["hands"]["right"].pop("present"), "present"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_breaks_the_schema_is_said(what):
    clip = copy.deepcopy(make_clip())
    change, message = BREAKS[what]
    change(clip)
    with pytest.raises(ClipError, match=message):
        check_clip(clip)


def test_select_takes_what_is_needed_and_says_what_is_missing():
    clip = make_clip()
    chosen = select(clip, ["image", "hands.right.params"])
    assert set(flatten(chosen)) == {k for k in flatten(clip) if k.startswith(("image", "meta", "hands.right.params"))}
    with pytest.raises(ClipError, match=r"no emg; it has .*camera\.K"):
        select(clip, ["emg"])


def test_what_is_filled_says_that_it_does_not_count():
    clip = make_clip()
    filled = select(clip, ["image", "hands.left.keypoints3d", "hands.left.params"], fill=True)
    left = filled["hands"]["left"]
    assert left["keypoints3d"].shape == (2, 21, 3)
    assert not left["keypoints3d_valid"].any()
    assert left["params"]["hand_pose"].shape == (2, 15, 3)
    assert not left["params_valid"].any()
    with pytest.raises(ClipError, match="how large"):
        select(clip, ["objects.present"], fill=True)


def test_clips_survive_the_disk_bit_for_bit(tmp_path):
    clips = [make_clip(seed) for seed in range(5)]
    same(decode_clip(encode_clip(clips[0])), clips[0])
    assert write_clips(tmp_path / "a.array_record", clips[:3]) == 3
    assert write_clips(tmp_path / "b.array_record", clips[3:]) == 2
    records = ClipRecords(tmp_path)
    assert len(records) == 5
    for number, clip in enumerate(clips):
        same(records[number], clip)


def test_a_writing_that_fails_leaves_no_file(tmp_path):
    def fails():
        yield make_clip()
        raise RuntimeError("the camera fell down")

    with pytest.raises(RuntimeError, match="camera"):
        write_clips(tmp_path / "a.array_record", fails())
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_clips_are_refused(tmp_path):
    for data in (b"", b"12345678", b"\xff" * 64, encode_clip(make_clip())[:200]):
        with pytest.raises(ClipError, match="no clip"):
            decode_clip(data)
    with pytest.raises(ClipError, match="there are none"):
        ClipRecords(tmp_path)
    (tmp_path / "a.array_record").write_bytes(b"not a record" * 100)
    with pytest.raises(ClipError, match="ArrayRecord"):
        ClipRecords(tmp_path)
