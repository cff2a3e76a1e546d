"""Cameras from the files of others: OpenCV's FileStorage yaml, Kalibr's camchain, `cameras.npz` of DROID-SLAM's path.

COLMAP's models are read by `jhand.motion.read_colmap`, TUM trajectories by `jhand.motion.read_tum`. All of it is data:
yaml is read by `yaml.safe_load`, OpenCV's after its tags, which no other yaml reader knows, are taken away; nothing in
a file is executed.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jhand.geometry.camera import Camera, make_camera
from jhand.geometry.rotations import so3_exp


class CameraFileError(ValueError):
    """A file that holds no camera that can be read: which file and entry, what was expected and what to do."""


_MATRIX = ("camera_matrix", "Camera_Matrix", "cameraMatrix", "K", "intrinsic_matrix")
_SIZE = ("width", "height")
_LENS = ("distortion_coefficients", "Distortion_Coefficients", "dist_coeffs", "distCoeffs", "D", "dist")


def read_opencv(path: str | os.PathLike, *, number: int | None = None) -> Camera:
    """Read a camera from a yaml file that OpenCV's FileStorage wrote, such as its calibration samples make.

    Names of entries are the program's that wrote them; those known: `camera_matrix` (`K`, `cameraMatrix`),
    `distortion_coefficients` (`D`, `dist_coeffs`), and, where the camera's place is in the file, `R` (3, 3) or `rvec`
    (3,), and `T` or `tvec` (3,), which take points from the world to the camera. With `number=1` they are `M1` or `K1`,
    `D1`, and `M2`, `D2`, `R`, `T` of a stereo rig with 2: the world is the first camera.

    Args:
        path: of the file.
        number: which camera of a stereo rig, 1 or 2.

    Returns:
        The camera, no leading axes; without a place in the file the world is its own frame. Lengths are in the unit of
        the calibration pattern: metres, where that was given in metres.

    Raises:
        CameraFileError: another file, or entries that are missing or have another shape.
    """
    entries = _yaml_of(Path(path))
    end = "" if number is None else str(number)
    stereo = tuple(f"{name}{end}" for name in ("M", *_MATRIX)) if end else _MATRIX
    K = _array(_entry(entries, stereo, path), (3, 3), f"{path}: {stereo[0]}")
    lenses = tuple(f"{name}{end}" for name in ("D", *_LENS)) if end else _LENS
    found = _first(entries, lenses)
    T = np.eye(4)
    if number != 1:
        T[:3, :3] = _rotation(entries, path)
        shift = _first(entries, ("T", "tvec", "t", "translation"))
        if shift is not None:
            T[:3, 3] = _array(shift, (3,), f"{path}: T")
    return _camera(K, _lens(found, f"{path}: {lenses[0]}"), T, path)


def read_kalibr(path: str | os.PathLike) -> tuple[Camera, tuple[str, ...]]:
    """Read the cameras of a rig from the camchain yaml that Kalibr writes.

    Lenses are pinholes with radial-tangential distortion, or none; the world is the frame of the first camera.

    Args:
        path: of the file, usually `camchain-....yaml`.

    Returns:
        Cameras (V,) and their names in order, `cam0` first: those of their ROS topics, where the file says them.

    Raises:
        CameraFileError: another file, another lens, or entries that are missing or have another shape.
    """
    entries = _yaml_of(Path(path))
    names = sorted((name for name in entries if re.fullmatch(r"cam\d+", str(name))), key=lambda name: int(name[3:]))
    if not names:
        raise CameraFileError(f"{path}: expected entries cam0, cam1, ... as Kalibr writes them, got {_some(entries)}")
    cameras, topics = [], []
    T = np.eye(4)
    for i, name in enumerate(names):
        one, place = entries[name], f"{path}: {name}"
        if not isinstance(one, Mapping):
            raise CameraFileError(f"{place}: expected entries of a camera, got {one!r}")
        model, lens = one.get("camera_model"), one.get("distortion_model", "none")
        if model != "pinhole" or lens not in ("radtan", "none"):
            raise CameraFileError(
                f"{place}: expected a pinhole camera with radtan distortion, got {model!r} with {lens!r}; undistort "
                "its pictures first, or calibrate with pinhole-radtan"
            )
        fx, fy, cx, cy = _array(one.get("intrinsics"), (4,), f"{place}: intrinsics")
        distortion = _lens(one.get("distortion_coeffs") if lens == "radtan" else None, f"{place}: distortion_coeffs")
        if i and "T_cn_cnm1" not in one:
            raise CameraFileError(f"{place}: T_cn_cnm1 is missing: where it stands to the camera before")
        if i:
            T = _array(one["T_cn_cnm1"], (4, 4), f"{place}: T_cn_cnm1") @ T
        cameras.append(_camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion, T, place))
        topics.append(str(one.get("rostopic", name)))
    return jax.tree.map(lambda *a: jnp.stack(a), *cameras), tuple(topics)


def read_slam_cameras(path: str | os.PathLike) -> tuple[Camera, tuple[int, int]]:
    """Read the path of a moving camera from the `cameras.npz` that SLAHMR and Dyn-HaMR keep of DROID-SLAM's: `cam_R`
    (T, 3, 3) and `cam_t` (T, 3), which take points from the world to the camera, `intrins` (T, 4) or (4,) as fx, fy,
    cx, cy, and `width` and `height`.

    Args:
        path: of the file.

    Returns:
        Cameras (T,) without distortion, and the width and height of their pictures, pixels. The world and its unit are
        the SLAM system's: lengths are metres times an unknown number.

    Raises:
        CameraFileError: another file, or entries that are missing or have another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise CameraFileError(f"{path}: no npz file ({error})") from None
    R = np.asarray(_entry(entries, ("cam_R",), path))
    number = len(R) if R.ndim == 3 else 1
    R = _array(R, (number, 3, 3), f"{path}: cam_R")
    t = _array(_entry(entries, ("cam_t",), path), (number, 3), f"{path}: cam_t")
    numbers = _array(_entry(entries, ("intrins",), path), None, f"{path}: intrins")
    if numbers.shape not in ((4,), (number, 4)):
        raise CameraFileError(f"{path}: intrins: expected ({number}, 4) or (4,), got {numbers.shape}")
    numbers = np.broadcast_to(numbers, (number, 4))
    if np.any(numbers[:, :2] <= 0):
        raise CameraFileError(f"{path}: intrins: expected positive focal lengths, got {numbers[:, :2].min()}")
    if np.abs(R @ R.swapaxes(-1, -2) - np.eye(3)).max() > 1e-3 or np.linalg.det(R).min() < 0:
        raise CameraFileError(f"{path}: cam_R: expected rotations, got others")
    T = np.tile(np.eye(4), (number, 1, 1))
    T[:, :3, :3], T[:, :3, 3] = R, t
    size = tuple(int(_array(_entry(entries, (name,), path), None, f"{path}: {name}").flat[0]) for name in _SIZE)
    camera = make_camera(focal=numbers[:, :2], principal=numbers[:, 2:], T_cam_world=T)
    return camera, (size[0], size[1])


def _camera(K: np.ndarray, lens: np.ndarray, T: np.ndarray, place: Any) -> Camera:
    if not (K[0, 0] > 0 and K[1, 1] > 0 and np.allclose(K[[1, 2, 2], [0, 0, 1]], 0) and np.isclose(K[2, 2], 1)):
        raise CameraFileError(f"{place}: this is no camera matrix: {K.tolist()}")
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
        raise CameraFileError(f"{place}: its rotation is none: {R.tolist()}")
    camera = make_camera(focal=K[[0, 1], [0, 1]], principal=K[:2, 2], T_cam_world=T, distortion=lens)
    return Camera(camera.K.at[0, 1].set(K[0, 1]), camera.T_cam_world.astype(float), camera.distortion.astype(float))


def _rotation(entries: Mapping[str, Any], path: Any) -> np.ndarray:
    found = _first(entries, ("R", "rotation", "rvec"))
    if found is None:
        return np.eye(3)
    numbers = np.asarray(found, float).reshape(-1)
    if numbers.size == 9:
        return numbers.reshape(3, 3)
    return np.asarray(so3_exp(_array(found, (3,), f"{path}: rvec")), float)


def _lens(found: Any, place: str) -> np.ndarray:
    """Distortion (8,) of OpenCV's 0, 4, 5, 8, 12 or 14 numbers."""
    numbers = np.zeros(0) if found is None else _array(found, None, place).reshape(-1)
    if numbers.size not in (0, 4, 5, 8, 12, 14):
        raise CameraFileError(f"{place}: expected 4, 5, 8, 12 or 14 numbers, got {numbers.size}")
    if np.any(numbers[8:]):
        raise CameraFileError(f"{place}: thin prisms and tilted sensors are not read; calibrate without them")
    return np.concatenate([numbers[:8], np.zeros(8 - len(numbers[:8]))])


def _first(entries: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The entry of the first of these names that there is, or None."""
    return next((entries[name] for name in names if name in entries), None)


def _entry(entries: Mapping[str, Any], names: tuple[str, ...], path: Any) -> Any:
    if any(name in entries for name in names):
        return _first(entries, names)
    raise CameraFileError(f"{path}: expected an entry {' or '.join(names)}, got {_some(entries)}")


def _some(entries: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(entries)[:8])) or "nothing"


def _array(value: Any, shape: tuple[int, ...] | None, place: str) -> np.ndarray:
    try:
        array = np.asarray(value, float)
        array = array if shape is None else array.reshape(shape)
    except (TypeError, ValueError):
        raise CameraFileError(f"{place}: expected {shape or 'numbers'}, got {str(value)[:80]}") from None
    if not np.isfinite(array).all():
        raise CameraFileError(f"{place}: expected finite numbers, got {str(value)[:80]}")
    return array


def _yaml_of(path: Path) -> dict[str, Any]:
    """Entries of a yaml file; OpenCV's matrices as arrays."""
    import yaml

    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise CameraFileError(f"{path}: {error.strerror}") from None
    # "%YAML:1.0" is no yaml directive, and "!!opencv-matrix" a tag that a safe reader refuses
    text = re.sub(r"\A%YAML:.*", "", text.lstrip("\ufeff")).replace("!!opencv-matrix", "")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # they can stand for any amount
            raise CameraFileError(f"{path}: references within a file (*name) are not read")
        entries = yaml.safe_load(text)
    except CameraFileError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CameraFileError(f"{path}: not yaml ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(entries, dict):
        raise CameraFileError(f"{path}: expected named entries, got {type(entries).__name__}")
    return {str(name): _matrix(value, f"{path}: {name}") for name, value in entries.items()}


def _matrix(value: Any, place: str) -> Any:
    if isinstance(value, dict) and {"rows", "cols", "data"} <= set(value):
        shape = _array([value["rows"], value["cols"]], (2,), place).astype(int).tolist()
        return _array(value["data"], tuple(shape), place)
    return value
