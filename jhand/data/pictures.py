"""Pictures and videos of strangers as arrays: red first, uint8, upright; and videos written.

Pictures are read by Pillow, videos by OpenCV (`pip install "jhand[video]"`), whose FFmpeg is built without GPL parts.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

_FOCAL_35MM, _EXIF = 0xA405, 0x8769
_DIAGONAL_35MM = 43.27  # millimetres: what the equivalent focal length is relative to


class PictureError(ValueError):
    """A file that is no picture or video that can be read: which one, and what to do."""


@dataclass(frozen=True)
class Picture:
    """A picture, and what its file says of the camera."""

    image: np.ndarray
    """(H, W, 3) uint8, turned upright as the file says."""
    focal: float | None
    """Focal length, pixels, where the file gives its equivalent on 35 mm film."""


@dataclass(frozen=True)
class Video:
    """What a video's file says of it."""

    path: Path
    size: tuple[int, int]
    """Width and height, pixels."""
    fps: float
    num_frames: int | None
    """About; None where the file does not say it."""


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a picture of any size and kind: grey, with transparency (white shows through), 16 bits, a palette.

    Args:
        path: of a file that Pillow reads; of several pictures in it the first.

    Raises:
        PictureError: a missing, empty, damaged or oversized file, or one of another kind.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = Path(path)
    try:
        if file.stat().st_size == 0:
            raise PictureError(f"{file}: the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                exif = opened.getexif()
                upright = ImageOps.exif_transpose(opened)
                image = _as_rgb(upright, file)
    except UnidentifiedImageError:
        raise PictureError(f"{file}: not a picture that can be read; convert it to .jpg or .png") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PictureError(f"{file}: more than 89 million pixels; shrink it") from None
    except PictureError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise PictureError(f"{file}: {error.strerror}") from None
        raise PictureError(f"{file}: not a whole picture ({error})") from None
    except (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as error:
        raise PictureError(f"{file}: not a picture that can be read ({error})") from None
    focal = None
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        equivalent = float(exif.get_ifd(_EXIF).get(_FOCAL_35MM) or 0)
        if equivalent > 0:
            focal = equivalent / _DIAGONAL_35MM * float(np.hypot(*image.shape[:2]))
    return Picture(image, focal)


def _as_rgb(picture: Any, file: Path) -> np.ndarray:
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits of grey, in 16 or 32
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise PictureError(f"{file}: its grey values reach from {grey.min()} to {grey.max()}; convert it to 8 bits")
        return np.repeat(np.round(grey / 257).astype(np.uint8)[..., None], 3, -1)
    if picture.mode == "F":
        raise PictureError(f"{file}: a picture of floating point numbers; convert it to 8 bits")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture)
    return np.asarray(picture.convert("RGB"))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise PictureError('videos are read by OpenCV: pip install "jhand[video]"') from None
    return cv2


def open_video(path: str | os.PathLike) -> Video:
    """What a video's file says of it.

    Raises:
        PictureError: a missing, empty or damaged file, or one of another kind; or OpenCV is not there.
    """
    cv2, file = _opencv(), Path(path)
    capture = _capture(file)
    try:
        width, height, fps, number = (
            capture.get(p)
            for p in (
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        if width < 1 or height < 1:
            raise PictureError(f"{file}: no video that can be read")
    finally:
        capture.release()
    known_fps = fps if 1 <= fps <= 1000 else 30.0
    return Video(file, (int(width), int(height)), float(known_fps), int(number) if 0 < number < 1e9 else None)


def _capture(file: Path) -> Any:
    cv2 = _opencv()
    if not file.is_file():
        raise PictureError(f"{file}: there is no such file")
    if file.stat().st_size == 0:
        raise PictureError(f"{file}: the file is empty")
    capture = cv2.VideoCapture(str(file))
    if not capture.isOpened():
        capture.release()
        raise PictureError(f"{file}: not a video that can be read; convert it to .mp4")
    return capture


def video_frames(video: Video, max_frames: int | None = None) -> Iterator[np.ndarray]:
    """The frames of a video, one after the other, (H, W, 3) uint8.

    Args:
        video: from `open_video`.
        max_frames: at most so many.

    Raises:
        PictureError: a file that yields no frame.
    """
    capture = _capture(video.path)
    try:
        yield from _frames(capture, max_frames, f"{video.path}: it holds no frame that can be read")
    finally:
        capture.release()


def camera_frames(number: int, max_frames: int | None = None) -> Iterator[np.ndarray]:
    """Frames of a camera of this computer as they come, (H, W, 3) uint8.

    Args:
        number: of the camera, the first is 0.
        max_frames: at most so many; by default for ever.

    Raises:
        PictureError: no such camera, or it gives nothing.
    """
    capture = _opencv().VideoCapture(number)
    try:
        if not capture.isOpened():
            raise PictureError(f"camera {number}: it cannot be opened; is it there, and free?")
        yield from _frames(capture, max_frames, f"camera {number}: it gives no pictures")
    finally:
        capture.release()


def _frames(capture: Any, max_frames: int | None, nothing: str) -> Iterator[np.ndarray]:
    number = 0
    while max_frames is None or number < max_frames:
        found, frame = capture.read()
        if not found:
            break
        number += 1
        frame = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, -1)
        yield np.ascontiguousarray(frame[..., 2::-1])
    if not number:
        raise PictureError(nothing)


class VideoWriter:
    """A video file, written frame by frame: MPEG-4 part 2 (`mp4v`) in .mp4, from FFmpeg's own encoder, which is LGPL.

    The file appears whole when it is closed, or not at all.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], fps: float) -> None:
        """Begin a file.

        Args:
            path: ending in .mp4.
            size: width and height of the frames, pixels.
            fps: frames per second.

        Raises:
            PictureError: it cannot be written.
        """
        cv2 = _opencv()
        self.path, self.part, self.size = Path(path), Path(path).with_suffix(".part.mp4"), size
        code = cv2.VideoWriter.fourcc(*"mp4v")
        fps = fps if fps < 60 else round(fps)  # thousandths of a frame have no room in MPEG-4 from 65 on
        self._writer = cv2.VideoWriter(str(self.part), code, float(fps), (int(size[0]), int(size[1])))
        if not self._writer.isOpened():
            raise PictureError(f"{self.path}: the video cannot be written")

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8, red first."""
        if frame.shape != (self.size[1], self.size[0], 3) or frame.dtype != np.uint8:
            raise PictureError(
                f"{self.path}: expected frames ({self.size[1]}, {self.size[0]}, 3) of uint8, got {frame.shape} of "
                f"{frame.dtype}"
            )
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.release()
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)
