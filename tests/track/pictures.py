"""Pictures to try the networks on."""

from pathlib import Path

import numpy as np

EVERY = 16
"""Of how many anchors tests/track/networks.npz keeps one."""


def random_picture(size: int) -> np.ndarray:
    """Blocks of noise over noise (size, size, 3), float32 from 0 to 1: something for every layer to answer to."""
    rng = np.random.default_rng(size)
    coarse = np.kron(rng.random((8, 8, 3)), np.ones((size // 8, size // 8, 1)))
    return (0.8 * coarse + 0.2 * rng.random((size, size, 3))).astype(np.float32)


def video_frames(path: Path, which: list[int]) -> list[np.ndarray]:
    """Frames (H, W, 3) uint8, red first, of a video; the test skips without opencv."""
    import pytest

    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoCapture(str(path))
    frames = []
    for i in range(max(which) + 1):
        found, frame = video.read()
        assert found, f"{path} ends at frame {i}"
        if i in which:
            frames.append(np.ascontiguousarray(frame[..., ::-1]))
    return frames
