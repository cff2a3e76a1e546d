import numpy as np
import pytest

from jhand.data.augmentation import Augmentation, augment, crop_to_hand, flip, occlude, similarity, warp
from jhand.data.clip import check_clip, flatten
from jhand.hand import keypoints
from tests.data.clips import make_clip, params_of, reprojected


def dotted(clip, view=0):
    """The clip with a white dot of 3 x 3 pixels where one keypoint is, black elsewhere."""
    uv = clip["hands"]["right"]["keypoints2d"][0, view]
    height, width = clip["image"].shape[2:4]
    inner = np.flatnonzero(np.all((uv > 12) & (uv < np.array([width, height]) - 12), -1))[0]
    image = np.zeros_like(clip["image"])
    x, y = np.round(uv[inner]).astype(int)
    image[0, view, y - 1 : y + 2, x - 1 : x + 2] = 255
    return {**clip, "image": image}, inner, uv[inner] - [x, y]


def centroid(image):
    weight = image.astype(float).sum(-1)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


MAPS = {
    "turn": dict(angle=0.7),
    "scale": dict(scale=1.6),
    "shrink": dict(scale=0.4),
    "shift": dict(shift=(3.5, -2.0)),
    "all": dict(angle=-2.0, scale=0.8, shift=(2.0, 1.0)),
}


@pytest.mark.parametrize("what", MAPS)
def test_cameras_and_pictures_follow_the_points(what):
    clip, number, off = dotted(make_clip())
    moved = warp(clip, similarity((64, 48), (80, 72), **MAPS[what]), (72, 80))
    check_clip(moved)
    np.testing.assert_allclose(moved["hands"]["right"]["keypoints2d"], reprojected(moved, "right"), atol=2e-3)
    np.testing.assert_array_equal(moved["hands"]["right"]["keypoints3d"], clip["hands"]["right"]["keypoints3d"])
    scale = MAPS[what].get("scale", 1.0)
    where = moved["hands"]["right"]["keypoints2d"][0, 0, number]
    assert np.linalg.norm(centroid(moved["image"][0, 0]) - where) < scale * np.linalg.norm(off) + 0.35


def test_points_that_leave_the_picture_are_not_visible():
    moved = warp(make_clip(), similarity((64, 48), (64, 48), shift=(200.0, 0.0)), (48, 64))
    assert not moved["hands"]["right"]["visible"].any()


def test_a_flip_mirrors_the_world(right, left):
    clip = make_clip()
    params = params_of(clip["hands"]["right"])
    clip["hands"]["right"]["keypoints3d"] = np.array(keypoints(right, params))
    clip["hands"]["right"]["keypoints2d"] = reprojected(clip, "right")
    flipped = flip(clip)
    check_clip(flipped)
    hand = flipped["hands"]["left"]
    np.testing.assert_allclose(hand["keypoints2d"], reprojected(flipped, "left"), atol=2e-3)
    np.testing.assert_allclose(keypoints(left, params_of(hand)), hand["keypoints3d"], atol=1e-6)
    np.testing.assert_array_equal(flipped["image"], clip["image"][:, :, :, ::-1])
    assert ((clip["segmentation"] == 1) == (flipped["segmentation"][..., ::-1] == 2)).all()


def test_two_flips_are_none():
    clip = make_clip()
    again = flatten(flip(flip(clip)))
    for key, value in flatten(clip).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(again[key], value, atol=1e-5, err_msg=key)


def test_the_crop_holds_the_hand():
    clip = make_clip()
    clip["hands"]["right"]["confidence"][:, :, 4] = 0
    cropped = crop_to_hand(clip, "right", 40, 1.5)
    check_clip(cropped)
    uv = cropped["hands"]["right"]["keypoints2d"]
    kept = np.delete(uv, 4, 2)
    np.testing.assert_allclose((kept.max((0, 2)) + kept.min((0, 2))) / 2, 19.5, atol=0.01)
    np.testing.assert_allclose((kept.max((0, 2)) - kept.min((0, 2))).max(-1), 40 / 1.5, atol=0.01)
    with pytest.raises(ValueError, match="left hand"):
        crop_to_hand(clip, "left", 40)


def test_an_upright_crop_holds_the_hand_with_its_fingers_up():
    clip = make_clip(frames=1)
    cropped = crop_to_hand(clip, "right", 40, 1.5, upright=True)
    check_clip(cropped)
    uv = cropped["hands"]["right"]["keypoints2d"][0]
    np.testing.assert_allclose(uv[:, 9, 0], uv[:, 0, 0], atol=1e-3)
    assert (uv[:, 9, 1] < uv[:, 0, 1]).all()
    np.testing.assert_allclose((uv.max(1) + uv.min(1)) / 2, 19.5, atol=0.01)
    np.testing.assert_allclose((uv.max(1) - uv.min(1)).max(-1), 40 / 1.5, atol=0.01)
    np.testing.assert_allclose(reprojected(cropped, "right")[0], uv, atol=2e-3)


def test_what_a_box_hides_is_not_visible():
    clip = make_clip()
    clip["hands"]["right"]["visible"][:] = 1
    clip["image"][:] = 7
    hidden = occlude(clip, np.random.default_rng(3))
    check_clip(hidden)
    covered = (hidden["image"] != 7).any(-1)
    assert covered.any()
    uv = np.round(hidden["hands"]["right"]["keypoints2d"]).astype(int)
    within = np.all((uv >= 0) & (uv < [64, 48]), -1)
    for at in np.argwhere(within):
        x, y = uv[tuple(at)]
        visible = hidden["hands"]["right"]["visible"][tuple(at)]
        assert visible == (hidden["depth"][at[0], at[1], y, x] != 0)
    assert clip["image"].max() == 7


def test_boxes_of_other_pictures():
    other = make_clip(1)
    hidden = occlude({**make_clip(), "image": np.zeros((2, 2, 48, 64, 3), np.uint8)}, np.random.default_rng(0), other)
    where = (hidden["image"][0, 0] > 0).any(-1)
    np.testing.assert_array_equal(hidden["image"][0, 0][where], other["image"][0, 0][where])


def test_augmentation_is_a_function_of_its_rng():
    clip, before = make_clip(), make_clip()
    settings = Augmentation(flip=0.5)
    first, second = (flatten(augment(clip, np.random.default_rng(5), settings)) for _ in range(2))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
    other = augment(clip, np.random.default_rng(6), settings)
    assert (other["image"] != augment(clip, np.random.default_rng(5), settings)["image"]).any()
    for key, value in flatten(before).items():  # what was given is as it was
        np.testing.assert_array_equal(value, flatten(clip)[key])


def test_nothing_asked_for_changes_nothing():
    clip = make_clip()
    none = Augmentation(turn=0.0, scale=0.0, shift=0.0, colour=0.0, blur=0.0, noise=0.0, occlude=0.0)
    same = augment(clip, np.random.default_rng(0), none)
    np.testing.assert_array_equal(same["image"], clip["image"])
    np.testing.assert_allclose(same["camera"]["K"], clip["camera"]["K"], atol=1e-5)
