"""Points drawn from heat maps, against the maps themselves; embeddings of places, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import argmax_heatmaps, channel_embedding, sample_heatmaps


def pixels(points, size):
    """Columns and rows of points from -1 to 1."""
    return np.asarray(points) * np.array(size[::-1]) / 2 + np.array(size[::-1]) / 2


def test_pixels_are_drawn_as_often_as_the_map_says():
    rng = np.random.default_rng(0)
    maps = rng.uniform(-0.5, 1, (2, 3, 6, 9)) ** 3  # negative ones are never drawn
    number = 40_000
    found = jax.jit(lambda key: sample_heatmaps(key, maps, number))(jax.random.key(0))
    assert found.points.shape == (2, 3, number, 2) and found.values.shape == (2, 3, number)
    at = pixels(found.points, (6, 9))
    np.testing.assert_allclose(at, np.round(at), atol=1e-4)
    column, row = np.moveaxis(np.round(at).astype(int), -1, 0)
    wanted = np.maximum(maps, 0)
    wanted = wanted / wanted.sum((-1, -2), keepdims=True)
    for i in range(2):
        for j in range(3):
            counted = np.zeros((6, 9))
            np.add.at(counted, (row[i, j], column[i, j]), 1 / number)
            np.testing.assert_allclose(counted, wanted[i, j], atol=0.01)
            assert not counted[maps[i, j] <= 0].any()
            np.testing.assert_allclose(found.values[i, j], maps[i, j][row[i, j], column[i, j]], rtol=1e-6)


def test_the_peak_is_where_it_is():
    maps = np.zeros((2, 5, 7))
    maps[0, 4, 6], maps[1, 1, 2] = 3.0, 0.2
    peak = argmax_heatmaps(maps)
    np.testing.assert_allclose(pixels(peak.points, (5, 7)), [[[6, 4]], [[2, 1]]], atol=1e-5)
    np.testing.assert_allclose(peak.values, [[3.0], [0.2]])


def test_a_single_pixel_is_all_that_can_be_drawn():
    maps = np.zeros((8, 8))
    maps[7, 7] = 0.7
    drawn = sample_heatmaps(jax.random.key(3), maps, 500)
    np.testing.assert_array_equal(drawn.points, np.broadcast_to(argmax_heatmaps(maps).points, (500, 2)))
    np.testing.assert_allclose(drawn.values, 0.7, rtol=1e-6)


def test_a_map_of_nothing_says_nothing():
    drawn = sample_heatmaps(jax.random.key(0), np.zeros((4, 4)), 2000)
    assert not np.asarray(drawn.values).any()
    at = np.round(pixels(drawn.points, (4, 4))).astype(int)
    np.testing.assert_allclose(np.bincount(at[:, 1] * 4 + at[:, 0], minlength=16) / 2000, 1 / 16, atol=0.025)


@pytest.mark.parametrize(
    ("maps", "number", "match"),
    [(np.zeros(4), 1, "H, W"), (np.zeros((2, 0)), 1, "H, W"), (np.ones((2, 2)), 0, "1 or more")],
)
def test_what_is_no_map_is_refused(maps, number, match):
    with pytest.raises(ValueError, match=match):
        sample_heatmaps(jax.random.key(0), maps, number)


def test_few_channels_know_of_a_place_and_their_sum_is_always_about_two():
    """64 centres 2/63 apart, each 1/16 wide on both sides: three or four are active, away from the border."""
    x = np.linspace(-0.9, 0.9, 301)
    e = np.asarray(channel_embedding(x))
    assert e.shape == (301, 64)
    active = (e > 1e-6).sum(-1)
    assert set(active) <= {3, 4}
    np.testing.assert_allclose(e.sum(-1), 2, atol=0.05)
    centres = np.linspace(-1, 1, 64)
    apart = np.abs(x[:, None] - centres)
    np.testing.assert_allclose(e, np.where(apart < 1 / 16, np.cos(8 * np.pi * apart) ** 2, 0), atol=2e-5)
    np.testing.assert_allclose(channel_embedding(centres)[np.arange(64), np.arange(64)], 1, atol=1e-5)


def test_beyond_the_border_places_fade_to_nothing():
    e = np.asarray(channel_embedding(jnp.array([-1.0, -1.03, -1.07, 1.2])))
    assert e[0].sum() > e[1].sum() > 0
    np.testing.assert_allclose(e[2:], 0, atol=1e-10)
