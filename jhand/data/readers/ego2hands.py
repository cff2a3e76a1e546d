"""Ego2HandsPose (Lin and Martinez, WACV 2024): arrays beside pictures.

    *_mano.npy       51 numbers: the wrist (x right, y down, z away, centimetres), 3 of global rotation and 45 of pose,
                     axis-angle; MANO's right hand, its pose relative to the mean pose
    *_3d_global.npy  (21, 3) centimetres, in the order row, column, depth
    *_2d.npy         (21, 2), row and column as shares of the picture's height and width

The hand is of a size at which its key bone, wrist to middle knuckle, is 10 cm long: so are depths.
"""

import os
from pathlib import Path

import numpy as np

from jhand.data.clip import ClipError


def read_ego2hands_mano(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a hand is and how it is posed.

    Args:
        path: of 51 numbers.

    Returns:
        The wrist (3,), metres; global_orient (3,); the pose (15, 3) relative to MANO's mean pose, as
        `jhand.hand.pose_from_mean_relative` takes it. All in the camera's frame.

    Raises:
        ClipError: no such file, or one of something else.
    """
    x = _numbers(path, (51,))
    return x[:3] / 100, x[3:6], x[6:].reshape(15, 3)


def read_ego2hands_keypoints3d(path: str | os.PathLike) -> np.ndarray:
    """Keypoints (21, 3), metres, the camera's frame, openpose21.

    Args:
        path: of 21 rows, columns and depths.

    Raises:
        ClipError: no such file, or one of something else.
    """
    return _numbers(path, (21, 3))[:, [1, 0, 2]] / 100


def read_ego2hands_keypoints2d(path: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """Keypoints (21, 2), pixels whose centres are at integers, openpose21.

    Args:
        path: of 21 rows and columns, shares of the picture.
        size: of the picture, (height, width).

    Raises:
        ClipError: no such file, or one of something else.
    """
    return _numbers(path, (21, 2))[:, ::-1] * np.array(size[::-1]) - 0.5


def _numbers(path: str | os.PathLike, shape: tuple[int, ...]) -> np.ndarray:
    try:
        x = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ClipError(f"{path}: expected a .npy file of numbers: {error}") from error
    if not isinstance(x, np.ndarray) or x.shape != shape or not np.issubdtype(x.dtype, np.number):
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ClipError(f"{path}: expected numbers {shape}, got {found}")
    if not np.isfinite(x).all():
        raise ClipError(f"{path}: expected finite numbers, got NaN or infinity")
    return x.astype(np.float32)
