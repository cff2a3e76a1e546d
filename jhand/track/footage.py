"""Hands in files: a photo, a video or what a camera gives, looked through from end to end."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jhand.data.pictures import PICTURES, VIDEOS, open_video, read_picture, video_frames
from jhand.geometry.camera import Camera
from jhand.track.detection import detect
from jhand.track.fitted import TrackedHand, guess_camera, hands_over_time
from jhand.track.hands import Hands, hands_in_image, landmarks
from jhand.track.networks import HAND_SIZE, PALM_SIZE, Networks
from jhand.track.regions import crop, points_in_image, region_from_keypoints, region_from_palm, whole_picture
from jhand.track.tracker import first_of_their_kind, start_tracker, track_hands, where_rows

_LARGEST = 1920  # pixels: larger photos are shrunk, smoothly; crops of them would be read without smoothing
MIN_FRAMES = 5
"""Of a video: what is seen for less is no hand to fit."""


@dataclass(frozen=True)
class Footage:
    """A photo or video that was looked through."""

    path: Path
    size: tuple[int, int]
    """Width and height, pixels."""
    fps: float
    """Frames per second; 1 of a photo."""
    num_frames: int
    focal: float
    """Pixels."""
    focal_from: str
    """`"given"`, `"file"` or `"guess"`."""
    hands: tuple[TrackedHand, ...]

    @property
    def camera(self) -> Camera:
        """Looks straight through the middle of the picture."""
        return guess_camera(self.size, self.focal)

    def frames(self) -> Iterator[np.ndarray]:
        """Its pictures (H, W, 3) uint8, read again."""
        if is_picture(self.path):
            return iter([read_picture(self.path).image])
        return video_frames(open_video(self.path), self.num_frames)


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file's name is that of a picture."""
    return Path(path).suffix.lower() in PICTURES


def files_in(path: str | os.PathLike) -> list[Path]:
    """The pictures and videos in a folder, by name; of a file, itself.

    Raises:
        ValueError: a folder without any, or a file of neither kind.
    """
    path = Path(path)
    known = (*PICTURES, *VIDEOS)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
        if not found:
            raise ValueError(f"{path}: the folder holds no picture or video ({', '.join(known)})")
        return found
    if path.suffix.lower() not in known:
        raise ValueError(f"{path}: expected a picture or video ({', '.join(known)}), a folder, or a camera's number")
    return [path]


def track_photo(
    networks: Networks, path: str | os.PathLike, *, num_hands: int = 2, focal: float | None = None
) -> Footage:
    """Hands in a photo of any size, without compiling anew for each.

    Args:
        networks: from `load_networks`.
        path: of the picture.
        num_hands: at most so many.
        focal: focal length, pixels; by default what the file says, or a guess (`guess_camera`).

    Raises:
        PictureError: a file that cannot be read.
    """
    picture = read_picture(path)
    height, width = picture.image.shape[:2]
    hands = _hands_in(networks, picture.image, num_hands)
    found = [
        TrackedHand(
            float(hands.right[i]),
            *(np.asarray(a)[None, i] for a in (hands.score, hands.keypoints2d, hands.depth, hands.keypoints3d)),
        )
        for i in np.flatnonzero(np.asarray(hands.present))
    ]
    focal, said = _focal((width, height), focal, picture.focal)
    return Footage(Path(path), (width, height), 1.0, 1, focal, said, tuple(found))


def track_video(
    networks: Networks,
    path: str | os.PathLike,
    *,
    num_hands: int = 2,
    focal: float | None = None,
    max_frames: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Footage:
    """Hands through a video.

    Args:
        networks: from `load_networks`.
        path: of the video.
        num_hands: at most so many at a time.
        focal: focal length, pixels; by default a guess (`guess_camera`).
        max_frames: the first so many alone.
        progress: called with the number of frames done.

    Raises:
        PictureError: a file that cannot be read.
    """
    video = open_video(path)
    hands = track_frames(networks, video_frames(video, max_frames), num_hands=num_hands, progress=progress)
    found = hands_over_time(hands, fps=video.fps, min_frames=MIN_FRAMES)
    focal, said = _focal(video.size, focal, None)
    return Footage(video.path, video.size, video.fps, len(hands.score), focal, said, tuple(found))


def track_frames(
    networks: Networks,
    frames: Iterable[np.ndarray],
    *,
    num_hands: int = 2,
    progress: Callable[[int], Any] | None = None,
) -> Hands:
    """`track_hands` over frames of one size.

    Args:
        networks: from `load_networks`.
        frames: each (H, W, 3), red first.
        num_hands: slots.
        progress: called with the number of frames done.

    Returns:
        Hands (T, num_hands).
    """
    tracker, seen, structure = start_tracker(num_hands), [], None
    for frame in frames:
        tracker, hands = track_hands(networks, tracker, frame)
        leaves, structure = jax.tree.flatten(hands)
        seen.append([np.asarray(leaf) for leaf in leaves])  # not on the device: a long video would fill it
        if progress is not None:
            progress(len(seen))
    return jax.tree.unflatten(structure, [jnp.asarray(np.stack(each)) for each in zip(*seen, strict=True)])


def _focal(size: tuple[int, int], given: float | None, of_file: float | None) -> tuple[float, str]:
    if given is not None:
        if not given > 0:
            raise ValueError(f"focal: expected a positive number of pixels, got {given}")
        return float(given), "given"
    return (of_file, "file") if of_file is not None else (float(max(size)), "guess")


def _hands_in(networks: Networks, image: np.ndarray, num_hands: int) -> Hands:
    """`detect_hands` in steps, of which only the cheap ones depend on the size of the picture."""
    from PIL import Image

    height, width = image.shape[:2]
    shrink = min(1.0, _LARGEST / max(height, width))
    if shrink < 1:
        small = (max(1, round(shrink * width)), max(1, round(shrink * height)))
        image = np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BOX))
    square = whole_picture(image.shape[:2])
    palms = detect(networks, crop(image, square, PALM_SIZE, outside="zeros"), num_palms=num_hands)
    keypoints = points_in_image(square, (palms.keypoints.reshape(-1, 2) + 0.5) / PALM_SIZE).reshape(-1, 7, 2)
    corner = points_in_image(square, (palms.box[:, :2] + 0.5) / PALM_SIZE)
    box = jnp.concatenate([corner, palms.box[:, 2:] * square.side / PALM_SIZE], -1)
    regions = region_from_palm(box, keypoints)
    hands = hands_in_image(landmarks(networks, crop(image, regions, HAND_SIZE)), regions)
    stays = first_of_their_kind(
        jax.tree.map(lambda a: a[None], region_from_keypoints(hands.keypoints2d)),
        (palms.present & (hands.score > 0.5))[None],
    )[0]
    scale = np.array([width, height]) / np.array(image.shape[1::-1])
    hands = replace(hands, keypoints2d=(hands.keypoints2d + 0.5) * scale - 0.5, depth=hands.depth * scale[0])
    return jax.tree.map(lambda a: where_rows(stays, a, 0), hands)
