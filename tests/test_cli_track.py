"""`jhand track` around the networks and the fit, which have tests of their own: what it writes, says and survives."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jhand import cli
from jhand.data.pose_file import parse_pose
from jhand.data.recording import read_recording
from jhand.results import load_result
from jhand.track.fitted import TrackedHand
from jhand.track.footage import Footage, files_in
from jhand.track.networks import Networks
from tests.fitted import study_of

SIZE = (160, 120)
FRAMES = 3


def run(*argv) -> int:
    return cli.main([str(a) for a in argv])


def footage_of(path, sides, num_frames=1, fps=1.0):
    """What would be seen: hands at rest in the middle, missed in the last of several frames."""
    there = np.ones(num_frames, np.float32)
    there[1:][-1:] = 0
    uv = np.random.default_rng(0).uniform(40, 80, (num_frames, 21, 2)).astype(np.float32)
    hide = lambda a: a * there.reshape(-1, *[1] * (a.ndim - 1))  # noqa: E731
    xyz = np.concatenate([uv / 800, uv[..., :1] / 800], -1)
    hands = tuple(TrackedHand(float(side == "right"), there, hide(uv), hide(uv[..., 0]), hide(xyz)) for side in sides)
    return Footage(path, SIZE, fps, num_frames, 160.0, "guess", hands)


@pytest.fixture
def tracking(hands, monkeypatch):
    """Photos called two... show two right hands, those called none... none; videos show one left hand."""

    def photo(networks, path, *, num_hands, focal):
        from jhand.data.pictures import read_picture

        read_picture(path)
        sides = {"two": ["right", "right"], "none": []}.get(path.stem.split("_")[0], ["right"])
        return footage_of(path, sides)

    def video(networks, path, *, num_hands, focal, max_frames, progress):
        progress(1)
        return footage_of(path, ["left"], FRAMES, 25.0)

    def study(hand, footage, tracked, name):
        made = study_of(hand, footage.num_frames, name=name, dims=2)
        return replace(made, recording=replace(made.recording, size=footage.size))

    monkeypatch.setattr(cli, "enable_compile_cache", lambda: None)
    monkeypatch.setattr(cli, "load_networks", lambda size: Networks(palm={}, hand={}))
    monkeypatch.setattr(cli, "track_photo", photo)
    monkeypatch.setattr(cli, "track_video", video)
    monkeypatch.setattr(cli.studies, "fit_footage", study)
    # what `jhand fit` writes as well is tested there
    monkeypatch.setattr(cli, "write_glb", lambda path, *args, **rest: path.touch())
    monkeypatch.setattr(cli, "plot_fit", lambda hand, result, path: path.touch())
    monkeypatch.setattr(cli, "plot_errors", lambda result, path: path.touch())
    for name in ("plot_overview", "write_report"):
        monkeypatch.setattr(cli, name, lambda hands, results, path: path.touch())


def picture(path):
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)).save(path)
    return path


HAND_FILES = {"errors.csv", "errors.png", "fit.png", "hand.glb", "params.npz", "smplx.json", "smplx.npz"}
HAND_FILES |= {"tracked.npz", "uncertainty.npz"}


def test_a_folder_of_photos(tracking, tmp_path, capsys):
    """Two hands in one, none in another, one that cannot be read: the rest goes on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("two_b.png", "none_c.png", "one.jpg"):
        picture(folder / name)
    (folder / "broken.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    assert run("track", folder, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "broken.png: the file is empty" in said and "none_c.png: no hand to be seen in a photo" in said
    assert "two_b.png, a photo: a right hand in 1, a right hand in 1" in said
    out = tmp_path / "out"
    folders = ["one", "one_right", "two_b", "two_b_right", "two_b_right_2"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*folders, "overview.png", "report.html", "summary.csv"])
    assert {p.name for p in (out / "one_right").iterdir()} == HAND_FILES
    assert sorted(p.name for p in (out / "one").iterdir()) == ["hands.pose", "overlay.jpg"]
    overlay = np.asarray(Image.open(out / "two_b" / "overlay.jpg")).astype(int)
    assert overlay.shape == (SIZE[1], SIZE[0], 3) and np.abs(overlay - 90).max() > 50
    assert parse_pose((out / "two_b" / "hands.pose").read_bytes()).coordinates.shape[:2] == (1, 2)
    assert load_result(out / "two_b_right_2" / "params.npz").side == "right"
    with np.load(out / "one_right" / "uncertainty.npz") as z:
        assert z["keypoint_covariance"].shape == (1, 21, 3, 3) and z["parameter_deviation"].shape == (1, 61)
        assert z["present"].tolist() == [True] and z["K"].shape == (3, 3)
    assert json.loads((out / "one_right" / "smplx.json").read_text())["create"]["is_rhand"]


def test_a_video(tracking, tmp_path):
    pytest.importorskip("cv2")
    from jhand.data.pictures import VideoWriter, open_video

    with VideoWriter(tmp_path / "clip.mp4", SIZE, 25.0) as out:
        for _ in range(FRAMES):
            out.write(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
    assert run("track", tmp_path / "clip.mp4", "-o", tmp_path / "out", "--max-frames", FRAMES, "--size", "lite") == 0
    assert sorted(p.name for p in (tmp_path / "out" / "clip").iterdir()) == ["hands.pose", "overlay.jpg", "overlay.mp4"]
    video = open_video(tmp_path / "out" / "clip" / "overlay.mp4")
    assert (video.size, video.fps, video.num_frames) == (SIZE, 25.0, FRAMES)
    (tracked,) = read_recording(tmp_path / "out" / "clip_left" / "tracked.npz")
    assert tracked.keypoints3d is not None and tracked.keypoints2d is not None and tracked.side == "left"
    with np.load(tmp_path / "out" / "clip_left" / "uncertainty.npz") as z:
        assert z["present"].tolist() == [True, True, False]


def test_an_interrupted_job_keeps_what_is_done(tracking, tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    before = cli.track_photo

    def interrupted(networks, path, **rest):
        if path.stem == "b":
            raise KeyboardInterrupt
        return before(networks, path, **rest)

    monkeypatch.setattr(cli, "track_photo", interrupted)
    assert run("track", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out") == 130
    assert (tmp_path / "out" / "a_right" / "params.npz").exists() and (tmp_path / "out" / "report.html").exists()


def test_what_is_wrong_is_said(tracking, tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    assert run("track", tmp_path / "empty", tmp_path / "x.doc", tmp_path / "gone.png", "-o", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "holds no picture or video" in said and "x.doc: expected a picture or video" in said
    assert "gone.png: No such file" in said
    for wrong, expected in ((("--num-hands", "0"), "at least one hand"), (("--focal", "-1"), "positive")):
        assert run("track", tmp_path / "a.png", "-o", tmp_path / "out", *wrong) == 1
        assert expected in capsys.readouterr().err


def test_a_camera(tracking, tmp_path, capsys, monkeypatch):
    pytest.importorskip("cv2")

    def frames(number, max_frames):
        for _ in range(FRAMES):
            yield np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)

    monkeypatch.setattr(cli, "camera_frames", frames)
    assert run("track", "0", "-o", tmp_path / "out", "--max-frames", FRAMES) == 0
    assert (tmp_path / "out" / "camera_0.mp4").exists() and (tmp_path / "out" / "camera_0_left").exists()
    monkeypatch.undo()
    monkeypatch.setattr(cli, "enable_compile_cache", lambda: None)
    monkeypatch.setattr(cli, "load_networks", lambda size: Networks(palm={}, hand={}))
    assert run("track", "99", "-o", tmp_path / "out") == 1
    assert "camera 99" in capsys.readouterr().out


def test_files_in(tmp_path):
    for name in ("b.MP4", "a.jpg", ".hidden.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in files_in(tmp_path)] == ["a.jpg", "b.MP4"]
