"""The real networks on files: a rendered hand as a photo and as a video, whose points are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jhand
from jhand.data.pictures import VideoWriter
from jhand.data.world.cameras import facing
from jhand.geometry import project
from jhand.hand import HandParams, forward
from jhand.render import make_mesh, make_scene, render
from jhand.track.footage import track_photo, track_video

SIZE = (240, 320)


@pytest.fixture(scope="module")
def shown():
    """A right hand that shows its palm to a camera: a picture (H, W, 3) uint8, its keypoints (21, 2), pixels."""
    hand = jhand.load_hand(level="fine")
    mesh = forward(hand, HandParams.zeros())
    points = jnp.concatenate([mesh.keypoints[:1], mesh.keypoints])[None]
    camera = jax.tree.map(lambda a: a[0], facing(jax.random.key(0), points, jnp.zeros(1), SIZE))
    skin = np.array([0.6, 0.33, 0.22])
    picture = render(make_scene(make_mesh(mesh.vertices, hand.faces, skin)), camera, SIZE)
    linear = np.asarray(picture.rgb) + 0.35 * (1 - np.asarray(picture.alpha))[..., None]
    return (255 * np.clip(linear, 0, 1) ** (1 / 2.2)).astype(np.uint8), np.asarray(project(camera, mesh.keypoints))


def test_a_photo_that_was_held_sideways(lite, shown, tmp_path):
    """Stored turned, as telephones do, with a note of it and of the lens: found where it is seen."""
    image, uv = shown
    about = Image.Exif()
    about[0x0112] = 6  # to be turned clockwise
    about.get_ifd(0x8769)[0xA405] = 26  # as if on 35 mm film
    Image.fromarray(np.rot90(image)).save(tmp_path / "hand.png", exif=about)
    footage = track_photo(lite, tmp_path / "hand.png", num_hands=2)
    (hand,) = footage.hands
    assert footage.size == SIZE[::-1] and hand.side == "right" and hand.score[0] > 0.9
    assert np.linalg.norm(hand.keypoints2d[0] - uv, axis=-1).mean() < 8
    assert footage.focal_from == "file" and 200 < footage.focal < 260


def test_a_left_hand_that_moves_through_a_video(lite, shown, tmp_path):
    """Its picture mirrored, and shifted by two pixels a frame; nothing in the last frames."""
    image, uv = shown
    with VideoWriter(tmp_path / "hand.mp4", SIZE[::-1], 25.0) as video:
        for t in range(6):
            video.write(np.roll(image[:, ::-1], 2 * t, 1))
        for _ in range(2):
            video.write(np.full_like(image, 90))
    footage = track_video(lite, tmp_path / "hand.mp4", num_hands=2)
    (hand,) = footage.hands
    assert footage.num_frames == 8 and hand.side == "left"
    np.testing.assert_array_equal(hand.present, [True] * 6 + [False] * 2)
    mirrored = np.stack([SIZE[1] - 1 - uv[:, 0], uv[:, 1]], -1)
    for t in range(6):
        assert np.linalg.norm(hand.keypoints2d[t] - mirrored - np.array([2 * t, 0]), axis=-1).mean() < 8
