import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jhand.geometry import make_camera, project
from jhand.motion import (
    CameraPath,
    CameraPathError,
    cameras_along,
    read_colmap,
    read_tum,
    write_colmap,
    write_tum,
)


def _path(num=6):
    T = np.tile(np.eye(4), (num, 1, 1))
    T[:, :3, :3] = Rotation.random(num, random_state=0).as_matrix()
    T[:, :3, 3] = np.random.default_rng(0).normal(size=(num, 3)) * 100
    return CameraPath(1311868164.3637 + np.arange(num) / 30, T)


def test_tum_keeps_everything(tmp_path):
    path = _path()
    write_tum(path, tmp_path / "camera.txt")
    again = read_tum(tmp_path / "camera.txt")
    np.testing.assert_array_equal(again.times, path.times)
    np.testing.assert_allclose(again.T_world_cam, path.T_world_cam, atol=1e-12)


def test_tum_as_others_write_it(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("# ground truth\n\n1.5 1 2 3 0 0 0.70710678 0.70710678\n2.5 0 0 0 0 0 0 1\n")
    path = read_tum(file)
    np.testing.assert_allclose(path.T_world_cam[0, :3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-8)
    np.testing.assert_allclose(path.T_world_cam[0, :3, 3], [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 3\n", "line 1: expected `time tx ty tz qx qy qz qw`"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "line 2: time 1.0 does not come after 1.0"),
        ("1 0 0 0 0 0 0 0\n", "line 1: expected a unit quaternion"),
        ("1 0 0 nan 0 0 0 1\n", "line 1: expected"),
        ("# nothing\n", "no poses"),
        ("\xff\xfe\x00", "line 1: expected"),
    ],
)
def test_bad_tum_is_said(tmp_path, text, said):
    (tmp_path / "bad.txt").write_text(text, encoding="latin-1")
    with pytest.raises(CameraPathError, match=said):
        read_tum(tmp_path / "bad.txt")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CameraPathError, match="No such file"):
        read_tum(tmp_path / "none.txt")
    with pytest.raises(CameraPathError, match=r"expected cameras.bin and images.bin"):
        read_colmap(tmp_path)


def test_cameras_between_frames():
    path = _path(2)
    camera = make_camera(focal=500.0, principal=np.array([320.0, 240.0]))
    between = cameras_along(path, camera, path.times[0] + np.array([0.0, 0.5, 1.0]) / 30)
    assert between.K.shape == (3, 3, 3)
    np.testing.assert_allclose(between.T_cam_world[0], np.linalg.inv(path.T_world_cam[0]), atol=2e-4)
    middle = np.linalg.inv(np.asarray(between.T_cam_world[1], float))
    np.testing.assert_allclose(middle[:3, 3], path.T_world_cam[:, :3, 3].mean(0), atol=1e-3)


CAMERAS = """# Camera list
1 OPENCV 640 480 500.5 510 320.5 240.5 0.1 -0.05 0.001 0.002
7 SIMPLE_RADIAL 1280 720 900 640 360 0.02
"""
IMAGES = """# Image list with two lines of data per image:
3 1 0 0 0 0.1 0.2 0.3 7 second picture.png
10.5 20.5 -1 30 40 5
1 0.70710678 0 0 0.70710678 1 2 3 1 a.png

"""


def _binary(folder):
    """The same model in COLMAP's binary form, written as its documentation lays it out."""
    numbers = [500.5, 510, 320.5, 240.5, 0.1, -0.05, 0.001, 0.002]
    cameras = struct.pack("<Q", 2) + struct.pack("<iiQQ8d", 1, 4, 640, 480, *numbers)
    cameras += struct.pack("<iiQQ4d", 7, 2, 1280, 720, 900, 640, 360, 0.02)
    images = struct.pack("<Q", 2) + struct.pack("<i7di", 3, 1, 0, 0, 0, 0.1, 0.2, 0.3, 7) + b"second picture.png\0"
    images += struct.pack("<Q", 2) + struct.pack("<ddqddq", 10.5, 20.5, -1, 30, 40, 5)
    images += struct.pack("<i7di", 1, 0.70710678, 0, 0, 0.70710678, 1, 2, 3, 1) + b"a.png\0" + struct.pack("<Q", 0)
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_colmap(tmp_path, kind):
    if kind == "text":
        (tmp_path / "cameras.txt").write_text(CAMERAS)
        (tmp_path / "images.txt").write_text(IMAGES)
    else:
        _binary(tmp_path)
    model = read_colmap(tmp_path)
    assert model.names == ("second picture.png", "a.png")
    np.testing.assert_array_equal(model.sizes, [[1280, 720], [640, 480]])
    np.testing.assert_allclose(model.cameras.K[0], [[900, 0, 639.5], [0, 900, 359.5], [0, 0, 1]])
    np.testing.assert_allclose(model.cameras.K[1], [[500.5, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_allclose(model.cameras.distortion[1], [0.1, -0.05, 0.001, 0.002, 0, 0, 0, 0])
    np.testing.assert_allclose(model.cameras.distortion[0], [0.02, 0, 0, 0, 0, 0, 0, 0])
    turned = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(model.cameras.T_cam_world[1], turned, atol=1e-7)
    # a point straight ahead of the first picture lies at its principal point
    ahead = project(model.cameras, np.array([[-0.1, -0.2, 1.0]], np.float32))
    np.testing.assert_allclose(ahead[0, 0], [639.5, 359.5])

    write_colmap(model, tmp_path / "again")
    again = read_colmap(tmp_path / "again")
    assert again.names == model.names
    np.testing.assert_array_equal(again.sizes, model.sizes)
    for a, b in zip(
        (again.cameras.K, again.cameras.T_cam_world, again.cameras.distortion),
        (model.cameras.K, model.cameras.T_cam_world, model.cameras.distortion),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("cameras", "images", "said"),
    [
        ("1 OPENCV_FISHEYE 640 480 1 1 1 1 0 0 0 0\n", IMAGES, "OPENCV_FISHEYE is not read"),
        ("1 PINHOLE 640 480 1 1 1\n", IMAGES, "PINHOLE has 4 numbers, got 3"),
        ("1 PINHOLE 640\n", IMAGES, "camera_id model width height"),
        (CAMERAS, "3 1 0 0 0 0.1 0.2 0.3 9 b.png\n\n", "camera 9 is not in cameras.txt"),
        (CAMERAS, "3 1 0 0 0 0.1 0.2 b.png\n\n", "line 1: expected `image_id"),
        (CAMERAS, "3 2 0 0 0 0.1 0.2 0.3 1 b.png\n\n", "unit quaternion"),
        (CAMERAS, "# none\n", "holds no picture"),
    ],
)
def test_bad_colmap_is_said(tmp_path, cameras, images, said):
    (tmp_path / "cameras.txt").write_text(cameras)
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(CameraPathError, match=said):
        read_colmap(tmp_path)


@pytest.mark.parametrize("keep", [4, 30, 90])
def test_a_damaged_binary_model_is_said(tmp_path, keep):
    _binary(tmp_path)
    images = (tmp_path / "images.bin").read_bytes()
    (tmp_path / "images.bin").write_bytes(images[:keep])
    with pytest.raises(CameraPathError, match=r"images.bin"):
        read_colmap(tmp_path)
    (tmp_path / "images.bin").write_bytes(images)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(CameraPathError, match=r"cameras.bin: ends at byte 8"):
        read_colmap(tmp_path)
