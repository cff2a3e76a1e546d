import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry import (
    crop_camera,
    crop_image,
    crop_pixels,
    make_camera,
    project,
    rays,
    translation_from_weak,
    unproject,
    weak_from_camera,
)
from tests.geometry.rigs import ring_of_cameras

LENS = np.array([0.12, -0.05, 0.002, -0.001, 0.01, 0.02, 0.0, 0.0], np.float32)
BOX, SIZE = np.array([100.0, 60.0, 200.0, 160.0]), (80, 50)


def test_a_cropped_camera_sees_what_the_crop_shows():
    cameras = ring_of_cameras(3, distortion=LENS)
    points = np.random.default_rng(0).normal(0, 0.1, (3, 7, 3)).astype(np.float32)
    expected = crop_pixels(project(cameras, points), BOX, SIZE)
    np.testing.assert_allclose(project(crop_camera(cameras, BOX, SIZE), points), expected, atol=2e-4)
    boxes = jnp.asarray(np.stack([BOX, BOX + 3, BOX * 2]))
    each = jax.vmap(lambda c, b: crop_camera(c, b, SIZE))(cameras, boxes)
    np.testing.assert_allclose(crop_camera(cameras, boxes, SIZE).K, each.K, rtol=1e-6)


@pytest.mark.parametrize("size", [(160, 200), (80, 50), (320, 500)])
def test_a_dot_lands_where_crop_pixels_says(size):
    yy, xx = np.mgrid[:300, :400]
    dot = np.array([211.3, 130.7])
    image = np.exp(-((xx - dot[0]) ** 2 + (yy - dot[1]) ** 2) / (2 * 4.0**2))[..., None]
    cut = np.asarray(crop_image(image, BOX, size))[..., 0]
    assert cut.shape == size
    yy, xx = np.mgrid[: size[0], : size[1]]
    found = np.array([(cut * xx).sum(), (cut * yy).sum()]) / cut.sum()
    np.testing.assert_allclose(found, crop_pixels(dot[None], BOX, size)[0], atol=0.02)


def test_a_crop_of_whole_pixels_is_a_slice_and_beyond_the_picture_is_black():
    image = np.random.default_rng(1).integers(0, 255, (2, 30, 40, 3)).astype(np.uint8)
    np.testing.assert_allclose(crop_image(image, np.array([5, 7, 20, 10]), (10, 20)), image[:, 7:17, 5:25], atol=1e-3)
    beyond = np.asarray(crop_image(image, np.array([-10, 0, 40, 30]), (30, 40)))
    np.testing.assert_array_equal(beyond[:, :, :10], 0)
    np.testing.assert_allclose(beyond[:, :, 10:], image[:, :, :30], atol=1e-3)
    boxes = np.array([[0, 0, 40, 30], [1, 2, 20, 15.0]])
    each = [crop_image(i, b, (12, 12)) for i, b in zip(image, boxes, strict=True)]
    np.testing.assert_allclose(crop_image(image, boxes, (12, 12)), np.stack(each), atol=1e-4)
    with pytest.raises(ValueError, match="left, top, width and height"):
        crop_image(image, np.zeros(3), (4, 4))


def test_rays_pass_through_what_is_seen():
    cameras = ring_of_cameras(3, distortion=LENS)
    uv = np.random.default_rng(2).uniform(100, 400, (3, 6, 2)).astype(np.float32)
    centres, directions = rays(cameras, uv)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=-1), 0.7 * np.sqrt(1.09), atol=1e-5)
    seen = unproject(cameras, uv, jnp.full(uv.shape[:-1], 0.5)) - centres[:, None]
    np.testing.assert_allclose(np.cross(seen, directions), 0, atol=1e-6)
    np.testing.assert_allclose(project(cameras, centres[:, None] + 0.9 * directions), uv, atol=1e-2)


def test_weak_and_full_cameras_agree_at_their_depth():
    camera = make_camera(focal=np.array([500.0, 700.0])[:, None], principal=np.array([[320.0, 240.0], [100.0, 90.0]]))
    weak = weak_from_camera(camera, jnp.array([0.6, 0.9]))
    flat = np.random.default_rng(3).normal(0, 0.1, (2, 5, 3)).astype(np.float32)
    flat[..., 2] = 0
    there = flat + translation_from_weak(weak, camera)[:, None]
    np.testing.assert_allclose(there[..., 2], [[0.6] * 5, [0.9] * 5], rtol=1e-6)
    np.testing.assert_allclose(project(camera, there), project(weak, flat), atol=1e-3)
