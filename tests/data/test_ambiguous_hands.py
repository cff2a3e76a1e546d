"""Simulated heat maps: what a detector that errs no more than it says would show."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.ambiguous_hands import MODES, AmbiguousScene, ambiguous_hand, ambiguous_view, simulate_heatmaps
from jhand.data.made import Made, first_examples
from jhand.hand import bones

SCENE = AmbiguousScene(size=32)
pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


@pytest.fixture(scope="module")
def examples():
    return first_examples(Made(ambiguous_hand, SCENE), 0, 400, at_once=100)


def peaks(maps):
    flat = maps.reshape(*maps.shape[:-2], -1).argmax(-1)
    return np.stack([flat % maps.shape[-1], flat // maps.shape[-1]], -1)


def test_hands_are_hands_before_cameras(examples):
    points = examples["keypoints3d"]
    assert np.abs(points[:, 0]).max() < 1e-6
    lengths = np.linalg.norm(points[:, 9] - points[:, 0], axis=-1)
    assert lengths.min() > 0.07 and lengths.max() < 0.13
    seen = examples["keypoints2d"]
    assert ((seen > -0.5) & (seen < 31.5)).mean() > 0.9
    # a hand as it is seen: where a point is right of another in the camera's axes, it mostly is in the picture
    ends = np.array(bones("openpose21"))
    along = points[:, ends[:, 1], :2] - points[:, ends[:, 0], :2]
    drawn = seen[:, ends[:, 1]] - seen[:, ends[:, 0]]
    assert np.corrcoef(along.ravel(), drawn.ravel())[0, 1] > 0.9


def test_half_of_the_hands_are_hard(examples):
    number = examples["ambiguous"].sum(-1)
    assert number.min() == 0 and number.max() == 12
    assert 0.4 < (number >= 5).mean() < 0.6


def test_the_peak_is_right_where_a_joint_is_seen_and_often_wrong_where_it_is_not(examples):
    maps, seen, ambiguous = (examples[k] for k in ("heatmaps", "keypoints2d", "ambiguous"))
    maps = maps.astype(np.float32)
    assert maps.min() >= 0 and maps.max() < 1.1
    off = np.linalg.norm(peaks(maps) - seen, axis=-1)
    inside = ((seen > 0) & (seen < 31)).all(-1)
    assert (off[inside & ~ambiguous] < 3).mean() > 0.99
    assert 0.3 < (off[inside & ambiguous] > 3).mean() < 0.6
    lower = maps.max((-1, -2))
    assert np.median(lower[ambiguous]) < 0.5 < np.median(lower[~ambiguous])


def test_modes_are_as_likely_as_the_map_says():
    """Where a map has two peaks, the truth is at the higher one as often as their heights say."""
    many = first_examples(
        Made(ambiguous_hand, replace(SCENE, unsure=(1.0, 1.0), clutter=0.0, hard=1.0)), 3, 600, at_once=100
    )
    maps, seen = many["heatmaps"].astype(np.float32), many["keypoints2d"]
    off = np.linalg.norm(peaks(maps) - seen, axis=-1)
    picked = many["ambiguous"] & (maps.max((-1, -2)) < 0.7)
    assert 0.4 < (off[picked] < 3).mean() < 0.7  # the likeliest of two or three


def test_maps_are_sums_of_what_they_are_made_of():
    scene = replace(SCENE, clutter=0.0, sure=(0.0, 0.0), unsure=(0.0, 0.0))
    modes = jnp.asarray(np.random.default_rng(0).uniform(8, 24, (MODES, 21, 2)))
    chances = jnp.ones((MODES, 21)) * jnp.array([0.6, 0.3, 0.1])[:, None]
    maps = np.asarray(simulate_heatmaps(jax.random.key(0), modes, chances, jnp.ones(21, bool), scene))
    v, u = np.mgrid[:32, :32]
    for k in (0, 20):
        wanted = sum(
            c * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 2)  # 2 of 64 pixels are 1 of 32
            for c, (x, y) in zip((0.6, 0.3, 0.1), np.asarray(modes[:, k]), strict=True)
        )
        np.testing.assert_allclose(maps[k], wanted, atol=1e-5)


def test_what_is_unsure_is_wider_and_lower_and_as_heavy():
    scene = replace(AmbiguousScene(), clutter=0.0, unsure=(3.0, 3.0), sure=(0.0, 0.0))
    modes, chances = jnp.full((1, 2, 2), 32.0), jnp.ones((1, 2))
    maps = np.asarray(simulate_heatmaps(jax.random.key(1), modes, chances, jnp.array([False, True]), scene))
    np.testing.assert_allclose(maps[0].max(), 1, atol=1e-5)
    assert 0.25 < maps[1].max() <= 4 / 13 + 1e-6
    np.testing.assert_allclose(maps.sum((-1, -2)), 2 * np.pi * 4, rtol=1e-3)


def test_hands_that_are_given_are_what_is_seen(examples):
    given = examples["keypoints3d"][:3] + np.array([0.3, -0.1, 2.0], np.float32)  # anywhere
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(0), 40))
    seen = jax.jit(jax.vmap(lambda k: ambiguous_view(k, given, SCENE)))(keys)
    assert set(np.unique(seen["true"])) == {0, 1, 2}
    about = (given - given[:, :1])[seen["true"]]
    np.testing.assert_allclose(seen["keypoints3d"], np.einsum("bij,bkj->bki", seen["R_cam_world"], about), atol=1e-6)
    sure = ~np.asarray(seen["ambiguous"])
    assert (np.linalg.norm(peaks(seen["heatmaps"]) - seen["keypoints2d"], axis=-1)[sure] < 3).mean() > 0.9
