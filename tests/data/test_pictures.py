"""Pictures and videos of every kind come out alike, and broken ones are named."""

import numpy as np
import pytest
from PIL import Image

from jhand.data.pictures import PictureError, VideoWriter, camera_frames, open_video, read_picture, video_frames

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(folder, image, name="a.png", **rest):
    image.save(folder / name, **rest)
    return folder / name


def test_kinds_of_pictures(tmp_path):
    def read(image, **rest):
        found = read_picture(saved(tmp_path, image, **rest))
        assert found.image.dtype == np.uint8 and found.image.shape == (6, 9, 3) and found.focal is None
        return found.image

    np.testing.assert_array_equal(read(Image.fromarray(RGB)), RGB)
    grey = RGB[..., 0]
    np.testing.assert_array_equal(read(Image.fromarray(grey)), np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(
        read(Image.fromarray(grey.astype(np.uint16) * 257)), np.repeat(grey[..., None], 3, -1)
    )
    alpha = RNG.integers(0, 2, (6, 9), dtype=np.uint8) * 255
    expected = np.where(alpha[..., None] > 0, RGB, 255)
    np.testing.assert_array_equal(read(Image.fromarray(np.dstack([RGB, alpha]))), expected)
    np.testing.assert_array_equal(
        read(Image.fromarray(grey > 99)), np.where(grey > 99, 255, 0)[..., None].repeat(3, -1)
    )
    read(Image.fromarray(RGB).convert("P"))
    read(Image.fromarray(RGB).convert("CMYK"), name="a.jpg")


def test_turned_upright_and_the_focal_length(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    exif.get_ifd(0x8769)[0xA405] = 26
    found = read_picture(saved(tmp_path, Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(found.image, np.rot90(RGB, -1))
    assert found.focal == pytest.approx(26 / 43.27 * np.hypot(6, 9))


def test_broken_pictures_are_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    whole = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (99, 99, 3), dtype=np.uint8))).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    saved(tmp_path, Image.fromarray(RGB[..., 0].astype(np.float32)), "float.tif")
    saved(tmp_path, Image.fromarray(RGB[..., 0].astype(np.int32) * 1000), "wide.tif")
    for name, said in (
        ("empty.png", "is empty"),
        ("text.jpg", "not a picture that can be read"),
        ("half.png", "not a whole picture"),
        ("gone.png", "No such file"),
        ("float.tif", "convert it to 8 bits"),
        ("wide.tif", "convert it to 8 bits"),
    ):
        with pytest.raises(PictureError, match=said) as error:
            read_picture(tmp_path / name)
        assert name in str(error.value)


def test_oversized_pictures_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(RGB))
    for limit in (30, 10):  # Pillow warns above it and fails above twice as much
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(PictureError, match="shrink it"):
            read_picture(path)


def test_a_video_there_and_back(tmp_path):
    pytest.importorskip("cv2")
    frames = [np.full((48, 64, 3), (40 * i, 90, 200 - 40 * i), np.uint8) for i in range(5)]
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 25.0) as out:
        for frame in frames:
            out.write(frame)
        with pytest.raises(PictureError, match="expected frames"):
            out.write(frames[0][:9])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    video = open_video(tmp_path / "a.mp4")
    assert (video.size, video.fps, video.num_frames) == ((64, 48), 25.0, 5)
    back = list(video_frames(video))
    assert np.abs(np.stack(back).astype(int) - np.stack(frames)).max() < 12  # red is red
    assert len(list(video_frames(video, 2))) == 2


@pytest.mark.parametrize("fps", [1.0, 29.97, 59.94, 67.737, 119.88])
def test_any_rate(tmp_path, fps):
    pytest.importorskip("cv2")
    with VideoWriter(tmp_path / "a.mp4", (64, 48), fps) as out:
        out.write(np.zeros((48, 64, 3), np.uint8))
    assert open_video(tmp_path / "a.mp4").fps == pytest.approx(fps, abs=0.3)


def test_a_video_that_is_not_finished_is_not_there(tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", (64, 48), 25.0) as out:
        out.write(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_broken_videos_are_named(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video")
    for name, said in (("empty.mp4", "is empty"), ("text.mp4", "not a video"), ("gone.mp4", "no such file")):
        with pytest.raises(PictureError, match=said):
            open_video(tmp_path / name)
    with pytest.raises(PictureError, match="camera 99"):
        next(camera_frames(99))
