"""Calibrations of OpenCV and Kalibr: read to the same numbers, never executed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.camera_files import CameraFileError, read_kalibr, read_opencv, read_slam_cameras
from jhand.geometry.camera import project

OPENCV = """%YAML:1.0
---
calibration_time: "Thu"
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 600., 0., 320., 0.,
       610., 240., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ 1.0e-01, -2.0e-02, 1.0e-03, 2.0e-03, 3.0e-03 ]
"""
PLACED = """rvec: !!opencv-matrix { rows: 3, cols: 1, dt: d, data: [ 0.1, 0.2, -0.3 ] }
tvec: !!opencv-matrix { rows: 3, cols: 1, dt: d, data: [ 0.01, 0.02, 0.5 ] }
"""
KALIBR = """cam0:
  camera_model: pinhole
  distortion_model: radtan
  distortion_coeffs: [0.1, -0.02, 0.001, 0.002]
  intrinsics: [600.0, 610.0, 320.0, 240.0]
  resolution: [640, 480]
  rostopic: /left
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.1]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, -1.0, 0.0, 0.2]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_model: none
  intrinsics: [500.0, 500.0, 300.0, 200.0]
  rostopic: /right
"""


def written(folder, text, name="a.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_opencv(tmp_path):
    camera = read_opencv(written(tmp_path, OPENCV))
    np.testing.assert_allclose(camera.K, [[600, 0, 320], [0, 610, 240], [0, 0, 1]])
    np.testing.assert_allclose(camera.distortion, [0.1, -0.02, 0.001, 0.002, 0.003, 0, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(camera.T_cam_world, np.eye(4))


def test_opencv_agrees_with_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = written(tmp_path, OPENCV + PLACED)
    points = np.random.default_rng(0).normal(0, 0.05, (9, 3))
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    names = ("rvec", "tvec", "camera_matrix", "distortion_coefficients")
    expected = cv2.projectPoints(points, *(file.getNode(name).mat() for name in names))[0][:, 0]
    np.testing.assert_allclose(project(read_opencv(path), points), expected, atol=2e-3)


def test_a_stereo_rig(tmp_path):
    matrix = "{n}: !!opencv-matrix {{ rows: {r}, cols: {c}, dt: d, data: {d} }}\n"
    write = lambda name, a: matrix.format(n=name, r=len(a), c=a.shape[1], d=a.reshape(-1).tolist())  # noqa: E731
    K, D = np.array([[500.0, 0, 99], [0, 500, 88], [0, 0, 1]]), np.zeros((1, 5))
    text = "%YAML:1.0\n---\n" + "".join(
        write(name, a) for name, a in (("M1", K), ("D1", D), ("M2", 2 * K - np.diag([0, 0, 1.0])), ("D2", D))
    )
    text += write("R", np.eye(3)) + write("T", np.array([[-0.1], [0], [0]]))
    first, second = (read_opencv(written(tmp_path, text), number=n) for n in (1, 2))
    np.testing.assert_array_equal(first.T_cam_world, np.eye(4))
    np.testing.assert_allclose(second.T_cam_world[:3, 3], [-0.1, 0, 0])
    assert (float(first.K[0, 0]), float(second.K[0, 0])) == (500, 1000)


def test_kalibr(tmp_path):
    cameras, names = read_kalibr(written(tmp_path, KALIBR))
    assert names == ("/left", "/right") and cameras.K.shape == (2, 3, 3)
    np.testing.assert_allclose(cameras.distortion[0], [0.1, -0.02, 0.001, 0.002, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(cameras.T_cam_world[1, :3, 3], [-0.1, 0, 0.2])
    assert not cameras.distortion[1].any()
    third = "cam2:" + KALIBR.split("cam1:")[1]
    cameras, _ = read_kalibr(written(tmp_path, KALIBR + third))
    T = cameras.T_cam_world[1]
    np.testing.assert_allclose(cameras.T_cam_world[2], T @ T, atol=1e-6)
    assert jnp.isfinite(jax.tree.leaves(cameras)[0]).all()


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_opencv, "%YAML:1.0\n---\nwidth: 3\n", "expected an entry camera_matrix"),
        (read_opencv, "%YAML:1.0\n---\nK: [1, 2]\n", "expected \\(3, 3\\)"),
        (read_opencv, "K: [1, 0, 0, 0, 1, 0, 0, 0, .nan]\n", "finite"),
        (read_opencv, "K: [1, 0, 0, 0, 1, 0, 7, 0, 1]\n", "no camera matrix"),
        (read_opencv, "K: [9, 0, 0, 0, 9, 0, 0, 0, 1]\nD: [1, 2, 3]\n", "4, 5, 8, 12 or 14"),
        (read_opencv, "K: [9, 0, 0, 0, 9, 0, 0, 0, 1]\nR: [9, 0, 0, 0, 9, 0, 0, 0, 1]\n", "rotation is none"),
        (read_opencv, "K: [9, 0, 0, 0, 9, 0, 0, 0, 1]\nD: [0,0,0,0,0,0,0,0,1,0,0,0]\n", "thin prisms"),
        (read_opencv, "a: {", "not yaml"),
        (read_opencv, "- 1\n", "expected named entries"),
        (read_opencv, "a: &x [1]\nK: *x\n", "references"),
        (read_opencv, "K: !!python/object/apply:os.system ['true']\n", "not yaml"),
        (read_kalibr, "a: 1\n", "expected entries cam0"),
        (read_kalibr, KALIBR.replace("radtan", "equidistant"), "expected a pinhole camera with radtan"),
        (read_kalibr, KALIBR.replace("T_cn_cnm1", "T"), "T_cn_cnm1 is missing"),
        (read_kalibr, KALIBR.replace("intrinsics: [500.0, ", "intrinsics: ["), "expected \\(4,\\)"),
        (read_kalibr, "cam0: 3\n", "expected entries of a camera"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, read, text, said):
    with pytest.raises(CameraFileError, match=said) as error:
        read(written(tmp_path, text))
    assert "a.yaml" in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(CameraFileError, match="No such file"):
        read_kalibr(tmp_path / "gone.yaml")


def slam(folder, **changes):
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    entries = {
        "cam_R": np.stack([np.eye(3), turn]),
        "cam_t": np.array([[0.0, 0, 0], [0.1, 0.2, 0.3]]),
        "intrins": np.array([[600.0, 610, 320, 240]] * 2),
        "width": 640,
        "height": 480,
    }
    entries = {name: value for name, value in (entries | changes).items() if value is not None}
    np.savez(folder / "cameras.npz", **entries)
    return folder / "cameras.npz"


def test_slam_cameras(tmp_path):
    cameras, size = read_slam_cameras(slam(tmp_path))
    assert size == (640, 480) and cameras.K.shape == (2, 3, 3)
    point = np.array([[[0.1, 0.2, -1.5]]])
    x, y, z = -1.5 + 0.1, 0.2 + 0.2, -0.1 + 0.3  # turned, then moved
    seen = project(jax.tree.map(lambda a: a[1], cameras), point[0])
    np.testing.assert_allclose(seen, [[600 * x / z + 320, 610 * y / z + 240]], rtol=1e-5)
    one, _ = read_slam_cameras(slam(tmp_path, intrins=np.array([600.0, 610, 320, 240])))
    np.testing.assert_array_equal(one.K, cameras.K)


def test_slam_cameras_that_are_none(tmp_path):
    with pytest.raises(CameraFileError, match="cam_t"):
        read_slam_cameras(slam(tmp_path, cam_t=None))
    with pytest.raises(CameraFileError, match=r"cam_t: expected \(2, 3\)"):
        read_slam_cameras(slam(tmp_path, cam_t=np.zeros((3, 3))))
    with pytest.raises(CameraFileError, match="rotations"):
        read_slam_cameras(slam(tmp_path, cam_R=2 * np.tile(np.eye(3), (2, 1, 1))))
    with pytest.raises(CameraFileError, match="intrins"):
        read_slam_cameras(slam(tmp_path, intrins=np.zeros((2, 3))))
    with pytest.raises(CameraFileError, match="positive"):
        read_slam_cameras(slam(tmp_path, intrins=np.zeros((2, 4))))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(CameraFileError, match="no npz"):
        read_slam_cameras(tmp_path / "text.npz")
