"""Two hands out of pictures of one."""

from dataclasses import replace

import numpy as np
import pytest

from jhand.data import Composing, compose_hands

SETTINGS = Composing(size=(72, 128), energy=5.0, blur=0.0, shift=0.02, turn=0.1)


def cut_out(colour, size=(60, 60), radius=14, at=(30, 36)):
    """A disk, off the middle, in one colour."""
    y, x = np.mgrid[: size[0], : size[1]]
    inside = (x - at[0]) ** 2 + (y - at[1]) ** 2 < radius**2
    picture = np.zeros((*size, 4), np.uint8)
    picture[..., :3] = (255, 0, 255)  # what is around the hand must not show
    picture[inside, :3], picture[..., 3] = colour, 255 * inside
    return picture


RIGHT, LEFT = cut_out((120, 60, 40)), cut_out((120, 60, 40))
GROUND = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)


def composed(seed, settings=SETTINGS, right=RIGHT, left=LEFT):
    return compose_hands(np.random.default_rng(seed), right, left, GROUND, settings)


def test_labels_say_which_hand_is_which_and_where():
    for seed in range(8):
        found = composed(seed, replace(SETTINGS, both=1.0))
        assert found.present.all() and set(np.unique(found.labels)) == {0, 1, 2}
        for hand, cut in enumerate((LEFT, RIGHT)):
            y, x = np.nonzero(cut[..., 3] > 127)
            there = found.to_picture[hand] @ [x.mean(), y.mean(), 1]
            yy, xx = np.nonzero(found.labels == hand + 1)
            np.testing.assert_allclose([xx.mean(), yy.mean()], there[:2], atol=4)
        assert np.linalg.det(found.to_picture[0]) < 0 < np.linalg.det(found.to_picture[1])  # the left one is mirrored


def test_hands_are_as_bright_as_the_scene():
    for seed in range(8):
        found = composed(seed, replace(SETTINGS, border=1, both=1.0))
        for hand in (1, 2):
            inside = found.image[found.labels == hand] @ [0.299, 0.587, 0.114]
            assert 0.85 * found.brightness < np.median(inside) < 1.15 * found.brightness


def test_nothing_of_the_cut_out_s_surroundings_shows():
    found = composed(3, replace(SETTINGS, both=1.0))
    inside = found.image[found.labels > 0].astype(int)
    assert (inside[:, 2] < inside[:, 0]).mean() > 0.95  # magenta has as much blue as red


def test_how_often_there_are_two_hands():
    there = np.array([composed(seed).present for seed in range(200)])
    assert 0.72 < there.all(1).mean() < 0.88 and there.any(1).all()
    assert 5 <= (there[:, 0] & ~there[:, 1]).sum() <= 40 and 5 <= (there[:, 1] & ~there[:, 0]).sum() <= 40


def test_the_larger_hand_is_on_top_and_a_hidden_one_goes():
    settings = replace(SETTINGS, both=1.0, shift=0.0, turn=0.0, scale=(1.0, 1.0), visible=0.0)
    small, large = cut_out((60, 200, 60), radius=6), cut_out((200, 60, 60), radius=26)
    seeds = [s for s in range(40) if (composed(s, settings, large, small).labels == 1).sum() < 60]
    both = composed(seeds[0], settings, large, small) if seeds else composed(0, settings, large, small)
    assert both.energy[1].sum() > both.energy[0].sum()
    overlap = composed(0, replace(settings, size=(72, 72)), large, small)
    assert (overlap.labels == 2).sum() > 0.9 * (both.labels == 2).sum() * 0.5
    gone = composed(0, replace(settings, size=(72, 72), visible=0.5), large, small)
    assert gone.present.tolist() == [False, True] and not (gone.labels == 1).any() and not gone.energy[0].any()


def test_the_same_draw_composes_the_same_picture():
    np.testing.assert_array_equal(composed(5).image, composed(5).image)
    assert (composed(5).image != composed(6).image).any()


def test_wrong_pictures_are_refused():
    with pytest.raises(ValueError, match="left: expected uint8"):
        composed(0, left=LEFT[..., :3])
    with pytest.raises(ValueError, match="right: expected a cut-out with a hand in it"):
        composed(0, right=0 * RIGHT)
