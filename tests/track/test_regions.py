import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.track import (
    Region,
    crop,
    overlap,
    points_in_image,
    region_from_keypoints,
    region_from_palm,
    whole_picture,
)


def random_regions(seed, *batch):
    rng = np.random.default_rng(seed)
    return Region(
        centre=jnp.asarray(rng.uniform(0, 40, (*batch, 2)), jnp.float32),
        side=jnp.asarray(rng.uniform(5, 60, batch), jnp.float32),
        angle=jnp.asarray(rng.uniform(-4, 4, batch), jnp.float32),
    )


def slow_crop(image, centre, side, angle, size, outside):
    """One pixel after another, float64."""
    height, width, channels = image.shape

    def pixel(x, y):
        if outside == "border":
            return image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
        return image[y, x] if 0 <= x < width and 0 <= y < height else np.zeros(channels)

    result = np.zeros((size, size, channels))
    for i, j in np.ndindex(size, size):
        a, b = side * ((j + 0.5) / size - 0.5), side * ((i + 0.5) / size - 0.5)
        x = centre[0] + np.cos(angle) * a - np.sin(angle) * b
        y = centre[1] + np.sin(angle) * a + np.cos(angle) * b
        c, r = int(np.floor(x)), int(np.floor(y))
        u, v = x - c, y - r
        above = (1 - u) * pixel(c, r) + u * pixel(c + 1, r)
        below = (1 - u) * pixel(c, r + 1) + u * pixel(c + 1, r + 1)
        result[i, j] = (1 - v) * above + v * below
    return result


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_crop_against_loops(outside):
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), np.uint8)
    regions = random_regions(1, 2, 3)
    found = crop(images, regions, 12, outside=outside)
    assert found.shape == (2, 3, 12, 12, 3)
    for m, n in np.ndindex(2, 3):
        where = (np.float64(a[m, n]) for a in (regions.centre, regions.side, regions.angle))
        expected = slow_crop(images[m] / 255, *where, 12, outside)
        np.testing.assert_allclose(found[m, n], expected, atol=2e-5)
    one = crop(images[0], jax.tree.map(lambda a: a[0, 1], regions), 12, outside=outside)
    np.testing.assert_allclose(one, found[0, 1], atol=1e-6)


def test_crop_of_the_whole_picture_is_the_picture():
    image = np.random.default_rng(0).random((16, 16, 3), np.float32)
    np.testing.assert_allclose(crop(image, whole_picture((16, 16)), 16), image, atol=1e-5)
    wide = np.random.default_rng(0).random((8, 16, 3), np.float32)
    square = crop(wide, whole_picture((8, 16)), 16, outside="zeros")
    np.testing.assert_allclose(square[4:12], wide, atol=1e-5)
    assert not square[:4].any() and not square[12:].any()


def test_crop_is_differentiable():
    image = np.random.default_rng(0).random((9, 11, 3), np.float32)
    region = random_regions(2)
    gradient = jax.grad(lambda x: jnp.sum(crop(x, region, 8)))(image)
    assert np.isclose(gradient.sum(), 8 * 8 * 3, atol=1e-2)  # each pixel is a mean of some
    of_region = jax.grad(lambda r: jnp.sum(crop(image, r, 8) ** 2))(region)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_region))


def test_points_go_where_the_crop_was_taken():
    """A bright pixel of the crop lies in the image where `points_in_image` says."""
    y, x = np.mgrid[:60, :80]
    image = np.exp(-((x - 33.3) ** 2 + (y - 21.7) ** 2) / 18)[..., None].repeat(3, -1).astype(np.float32)
    region = Region(centre=jnp.array([36.0, 24.0]), side=jnp.array(40.0), angle=jnp.array(0.7))
    patch = np.asarray(crop(image, region, 80)[..., 0], np.float64)
    i, j = np.mgrid[:80, :80]
    peak = np.array([(patch * j).sum(), (patch * i).sum()]) / patch.sum()
    point = points_in_image(region, (peak + 0.5)[None] / 80)[0]
    np.testing.assert_allclose(point, [33.3, 21.7], atol=0.02)


def mediapipe_palm(box, keypoints, width, height):
    """MediaPipe's chain of calculators on normalised coordinates, with their steps and in their order."""
    xmin, ymin, w, h = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    x0, y0, x1, y1 = *keypoints[0], *keypoints[2]
    rotation = np.pi / 2 - np.arctan2(-(y1 - y0), x1 - x0)
    x, y = xmin + w / 2, ymin + h / 2
    shift = -0.5
    x += -(height * h * shift * np.sin(rotation)) / width
    y += (height * h * shift * np.cos(rotation)) / height
    side = max(w * width, h * height) * 2.6
    return np.array([x * width, y * height]), side, rotation


def mediapipe_keypoints(points, width, height):
    partial = points[[0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]]
    to = ((partial[4] + partial[8]) / 2 + partial[6]) / 2 - partial[0]
    rotation = np.pi / 2 - np.arctan2(-to[1], to[0])
    middle = (partial.max(0) + partial.min(0)) / 2
    cos, sin = np.cos(-rotation), np.sin(-rotation)
    turned = (partial - middle) @ np.array([[cos, -sin], [sin, cos]]).T
    centre, (w, h) = (turned.max(0) + turned.min(0)) / 2, turned.max(0) - turned.min(0)
    cos, sin = np.cos(rotation), np.sin(rotation)
    centre = np.array([[cos, -sin], [sin, cos]]) @ np.array([centre[0], centre[1] - 0.1 * h]) + middle
    return centre, 2 * max(w, h), rotation


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_those_of_mediapipe(seed):
    rng = np.random.default_rng(seed)
    palm, points = rng.uniform(0, 200, (7, 2)), rng.uniform(0, 200, (21, 2))
    box = np.array([30.0, 40, 50, 70])
    for region, (centre, side, angle) in (
        (region_from_palm(box - [0.5, 0.5, 0, 0], palm - 0.5), mediapipe_palm(box, palm, 640, 480)),
        (region_from_keypoints(points - 0.5), mediapipe_keypoints(points, 640, 480)),
    ):
        np.testing.assert_allclose(region.centre + 0.5, centre, atol=1e-3)
        np.testing.assert_allclose(region.side, side, rtol=1e-5)
        np.testing.assert_allclose(np.exp(1j * region.angle), np.exp(1j * angle), atol=1e-5)


def test_a_turned_hand_gives_a_turned_region():
    points = np.random.default_rng(0).uniform(0, 100, (21, 2))
    region = region_from_keypoints(points)
    quarter = region_from_keypoints(points @ np.array([[0.0, 1], [-1, 0]]))  # x to y
    np.testing.assert_allclose(quarter.side, region.side, rtol=1e-5)
    np.testing.assert_allclose(np.exp(1j * (quarter.angle - region.angle)), 1j, atol=1e-4)
    np.testing.assert_allclose(quarter.centre, [-region.centre[1], region.centre[0]], atol=1e-3)


def test_overlap():
    a, b = random_regions(0, 5), random_regions(1, 5)
    for i in range(5):
        low = np.maximum(a.centre[i] - a.side[i] / 2, b.centre[i] - b.side[i] / 2)
        high = np.minimum(a.centre[i] + a.side[i] / 2, b.centre[i] + b.side[i] / 2)
        common = np.prod(np.maximum(high - low, 0))
        expected = common / (a.side[i] ** 2 + b.side[i] ** 2 - common)
        np.testing.assert_allclose(overlap(a, b)[i], expected, rtol=1e-5)
    np.testing.assert_allclose(overlap(a, a), 1, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="leading axes"):
        crop(np.zeros((2, 8, 8, 3), np.uint8), random_regions(0, 3), 4)
    with pytest.raises(ValueError, match="height, width, 3"):
        crop(np.zeros((8, 8), np.uint8), random_regions(0), 4)
    with pytest.raises(ValueError, match="uint8, or floats"):
        crop(np.zeros((8, 8, 3), np.int32), random_regions(0), 4)
