"""The path of a moving camera, from and to the files of SLAM systems: TUM trajectories and COLMAP models.

Poses stay float64 numpy arrays: seconds since 1970 and long walks do not fit float32.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jhand.geometry.camera import Camera
from jhand.geometry.se3 import invert_transform
from jhand.motion.resampling import resample_transforms


class CameraPathError(ValueError):
    """A file that is no camera path: which file and line, and what was expected and found."""


@dataclass(frozen=True)
class CameraPath:
    """Where a camera stood, and when."""

    times: np.ndarray
    """(T,) seconds, float64."""
    T_world_cam: np.ndarray
    """(T, 4, 4) rigid transforms from the camera (OpenCV axes) to the world, metres, float64."""


@dataclass(frozen=True)
class ColmapModel:
    """Pictures that COLMAP placed: whose they are, what they were taken with, and where from."""

    names: tuple[str, ...]
    """File names of the T pictures, in the order of the file."""
    cameras: Camera
    """(T,) with distortion; the world is COLMAP's, its scale is arbitrary unless set."""
    sizes: np.ndarray
    """(T, 2) width and height, pixels."""


# COLMAP's models: id, name, and where each of its numbers goes: fx fy cx cy, then k1 k2 p1 p2 k3 k4 k5 k6
_MODELS = {
    0: ("SIMPLE_PINHOLE", ("fx fy", "cx", "cy")),
    1: ("PINHOLE", ("fx", "fy", "cx", "cy")),
    2: ("SIMPLE_RADIAL", ("fx fy", "cx", "cy", "k1")),
    3: ("RADIAL", ("fx fy", "cx", "cy", "k1", "k2")),
    4: ("OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")),
    6: ("FULL_OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
}
_LENS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_READABLE = ", ".join(name for name, _ in _MODELS.values())


def cameras_along(path: CameraPath, camera: Camera, times: np.ndarray) -> Camera:
    """A camera carried along a path.

    Args:
        path: where it stood, and when.
        camera: K and lens of one camera; its own pose is not read.
        times: (S,) seconds, of the path's clock; before its start and after its end the camera rests there.

    Returns:
        Cameras (S,).
    """
    start = path.times[0]  # float32 has no room for the hours before
    T_world_cam = resample_transforms(
        path.T_world_cam[:, None].astype(np.float32),
        (path.times - start).astype(np.float32),
        (np.asarray(times, np.float64) - start).astype(np.float32),
    )[:, 0]
    K, lens = (jnp.broadcast_to(a, (T_world_cam.shape[0], *a.shape)) for a in (camera.K, camera.distortion))
    return replace(camera, K=K, T_cam_world=invert_transform(T_world_cam), distortion=lens)


def read_tum(file: str | os.PathLike) -> CameraPath:
    """Read a trajectory as the TUM RGB-D benchmark and most SLAM systems write it: `time tx ty tz qx qy qz qw` a line.

    Raises:
        CameraPathError: not such a file; the line is named.
    """
    times, poses = [], []
    for number, line in _lines(Path(file)):
        if not line or line.startswith("#"):
            continue
        values = _numbers(line.split(), 8, f"{file}, line {number}", "time tx ty tz qx qy qz qw")
        if times and values[0] <= times[-1]:
            raise CameraPathError(f"{file}, line {number}: time {values[0]} does not come after {times[-1]}; sort it")
        times.append(values[0])
        w_first = np.roll(values[4:], 1)
        poses.append(_pose(w_first, values[1:4], f"{file}, line {number}"))
    if not times:
        raise CameraPathError(f"{file}: no poses; expected lines of `time tx ty tz qx qy qz qw`")
    return CameraPath(np.array(times), np.stack(poses))


def write_tum(path: CameraPath, file: str | os.PathLike) -> None:
    """Write a trajectory as `read_tum` reads it, without loss; the file is replaced in one step."""
    lines = ["# time tx ty tz qx qy qz qw"]
    for time, T in zip(path.times, path.T_world_cam, strict=True):
        w, x, y, z = _quaternion(T[:3, :3])
        lines.append(" ".join(repr(float(v)) for v in (time, *T[:3, 3], x, y, z, w)))
    _write(Path(file), lines)


def read_colmap(folder: str | os.PathLike) -> ColmapModel:
    """Read the cameras of a COLMAP model: `cameras` and `images`, `.bin` or `.txt`; its points are left.

    Its lenses that OpenCV's rational model holds are read. COLMAP counts pixels from the corner of the picture, jhand
    from the centre of the first pixel: the principal point is moved by half a pixel.

    Raises:
        CameraPathError: no model, a damaged one, or a lens of another model.
    """
    where = Path(folder)
    kind = next((k for k in (".bin", ".txt") if (where / f"images{k}").exists()), None)
    if kind is None:
        raise CameraPathError(f"{folder}: expected cameras.bin and images.bin, or cameras.txt and images.txt")
    read_cameras, read_images = (_binary_cameras, _binary_images) if kind == ".bin" else (_text_cameras, _text_images)
    lenses = read_cameras(where / f"cameras{kind}")
    names, K, T, lens, sizes = [], [], [], [], []
    for name, camera_id, T_cam_world, place in read_images(where / f"images{kind}"):
        if camera_id not in lenses:
            raise CameraPathError(f"{place}: camera {camera_id} is not in cameras{kind}")
        names.append(name)
        T.append(T_cam_world)
        for values, value in zip((K, lens, sizes), lenses[camera_id], strict=True):
            values.append(value)
    if not names:
        raise CameraPathError(f"{folder}: images{kind} holds no picture")
    cameras = Camera(*(jnp.asarray(np.stack(a), jnp.float32) for a in (K, T, lens)))
    return ColmapModel(tuple(names), cameras, np.stack(sizes))


def write_colmap(model: ColmapModel, folder: str | os.PathLike) -> None:
    """Write a model without points as COLMAP's text files, which `read_colmap` and COLMAP read.

    Raises:
        ValueError: cameras with skew, which none of COLMAP's models has.
    """
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    K, T, lens = (
        np.asarray(a, np.float64) for a in (model.cameras.K, model.cameras.T_cam_world, model.cameras.distortion)
    )
    if np.any(K[:, 0, 1]):
        raise ValueError("cameras: expected K without skew, COLMAP has no model with it; set K[..., 0, 1] to 0")
    rows = np.concatenate([model.sizes, K[:, 0, :1], K[:, 1, 1:2], K[:, :2, 2] + 0.5, lens], 1)
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    cameras = ["# camera_id model width height parameters"]
    for number, (width, height, *numbers) in enumerate(distinct, 1):
        straight = not any(numbers[4:])
        values = " ".join(repr(float(v)) for v in (numbers[:4] if straight else numbers))
        cameras.append(f"{number} {'PINHOLE' if straight else 'FULL_OPENCV'} {int(width)} {int(height)} {values}")
    images = ["# image_id qw qx qy qz tx ty tz camera_id name, then a line of points, here empty"]
    for number, (name, pose, camera) in enumerate(zip(model.names, T, which.reshape(-1) + 1, strict=True), 1):
        numbers = " ".join(repr(float(v)) for v in (*_quaternion(pose[:3, :3]), *pose[:3, 3]))
        images += [f"{number} {numbers} {camera} {name}", ""]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", ["# no points"])):
        _write(where / f"{name}.txt", lines)


_Lens = tuple[np.ndarray, np.ndarray, np.ndarray]  # K (3, 3), distortion (8,), size (2,)


def _lens(model: str, size: Sequence[int | float], numbers: Sequence[float], place: str) -> _Lens:
    slots = next((slots for name, slots in _MODELS.values() if name == model), None)
    if slots is None:
        raise CameraPathError(
            f"{place}: a lens of model {model} is not read; undistort the pictures in COLMAP, or use one of {_READABLE}"
        )
    if len(numbers) != len(slots):
        raise CameraPathError(f"{place}: {model} has {len(slots)} numbers, got {len(numbers)}")
    value = {name: number for slot, number in zip(slots, numbers, strict=True) for name in slot.split()}
    K = np.array([[value["fx"], 0, value["cx"] - 0.5], [0, value["fy"], value["cy"] - 0.5], [0, 0, 1]])
    return K, np.array([value.get(name, 0.0) for name in _LENS]), np.array(size, int)


def _text_cameras(file: Path) -> dict[int, _Lens]:
    lenses = {}
    for number, line in _lines(file):
        if line and not line.startswith("#"):
            place, words = f"{file}, line {number}", line.split()
            if len(words) < 5:
                raise CameraPathError(f"{place}: expected `camera_id model width height parameters`, got {line[:80]!r}")
            values = _numbers([words[0], *words[2:]], len(words) - 1, place, "camera_id model width height parameters")
            lenses[int(values[0])] = _lens(words[1], values[1:3].tolist(), values[3:].tolist(), place)
    return lenses


_Image = tuple[str, int, np.ndarray, str]  # name, camera, T_cam_world (4, 4), where it was read


def _text_images(file: Path) -> list[_Image]:
    images = []
    lines = iter([(number, line) for number, line in _lines(file) if not line.startswith("#")])
    for number, line in lines:
        if line:
            place, words = f"{file}, line {number}", line.split(maxsplit=9)
            expected = "image_id qw qx qy qz tx ty tz camera_id name"
            if len(words) < 10:
                raise CameraPathError(f"{place}: expected `{expected}`, got {line[:80]!r}")
            values = _numbers(words[:9], 9, place, expected)
            images.append((words[9], int(values[8]), _pose(values[1:5], values[5:8], place), place))
            next(lines, None)  # the picture's points, a line that may be empty
    return images


class _Bytes:
    """A binary file read from front to back."""

    def __init__(self, file: Path):
        self.file, self.data, self.at = file, _read(file), 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize(f"<{layout}")
        if self.at + size > len(self.data):
            raise CameraPathError(f"{self.file}: ends at byte {len(self.data)}, {size} more were expected at {self.at}")
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += size
        return values

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise CameraPathError(f"{self.file}: the name at byte {self.at} has no end")
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text


def _binary_cameras(file: Path) -> dict[int, _Lens]:
    source, lenses = _Bytes(file), {}
    for _ in range(source.take("Q")[0]):
        place = f"{file}, byte {source.at}"
        number, model, *size = source.take("iiQQ")
        name, slots = _MODELS.get(model, (f"number {model}", ()))
        lenses[number] = _lens(name, size, source.take(f"{len(slots)}d"), place)
    return lenses


def _binary_images(file: Path) -> list[_Image]:
    source, images = _Bytes(file), []
    for _ in range(source.take("Q")[0]):
        place = f"{file}, byte {source.at}"
        _, *values, camera = source.take("i7di")
        name = source.text()
        (points,) = source.take("Q")
        source.at += 24 * points  # x, y and the number of a point
        images.append((name, camera, _pose(np.array(values[:4]), np.array(values[4:]), place), place))
    return images


def _pose(quaternion: np.ndarray, translation: np.ndarray, place: str) -> np.ndarray:
    """(4, 4) of a quaternion w first, which is normalised."""
    length = np.linalg.norm(quaternion)
    if not (np.isfinite(length) and np.isfinite(translation).all()) or abs(length - 1) > 0.01:
        raise CameraPathError(
            f"{place}: expected a unit quaternion and a finite place, got {quaternion} and {translation}"
        )
    w, x, y, z = quaternion / length
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = translation
    return T


def _quaternion(R: np.ndarray) -> np.ndarray:
    """(4,), w first and not negative: the eigenvector of greatest eigenvalue (Bar-Itzhack 2000), exact in float64."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = R
    K = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    q = np.linalg.eigh(K)[1][:, -1]
    return -q if q[0] < 0 else q


def _numbers(words: Sequence[str], number: int, place: str, expected: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (number,) or not np.isfinite(values).all():
        raise CameraPathError(f"{place}: expected `{expected}`, got {' '.join(words)[:80]!r}")
    return values


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CameraPathError(f"{file}: {error.strerror}") from None


def _lines(file: Path) -> list[tuple[int, str]]:
    text = _read(file).decode("utf-8", "replace")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]


def _write(file: Path, lines: Sequence[str]) -> None:
    part = file.with_name(f"{file.name}.part")
    part.write_text("\n".join([*lines, ""]), encoding="utf-8")
    part.replace(file)
