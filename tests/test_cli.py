"""The command line in this process: what it writes, what it says, and what it says of mistakes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

import jhand
from jhand import cli
from jhand.compile_cache import enable_compile_cache
from jhand.data import read_recording
from jhand.data.landmark_files import LandmarkFileError, load_landmarks, save_landmarks
from jhand.hand.landmark_sets import keypoint_landmarks
from jhand.results import load_result, save_result
from tests.fitted import fitted, poses_of, study_of

NUM_FRAMES = 4


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """The user's cache is not touched, and jax stays configured as the other tests expect."""
    monkeypatch.setattr(cli, "enable_compile_cache", lambda: None)


@pytest.fixture
def opened(monkeypatch):
    """Addresses that a browser would have opened."""
    addresses = []
    monkeypatch.setattr(cli.webbrowser, "open", addresses.append)
    return addresses


def run(*argv) -> int:
    return cli.main([str(a) for a in argv])


def failure(capsys, *argv) -> str:
    """The one line that a command fails with."""
    assert run(*argv) == 1
    text = capsys.readouterr().err.strip()
    assert text.startswith("jhand: ") and "\n" not in text and "Traceback" not in text
    return text


@pytest.fixture(scope="module")
def recording(hands, tmp_path_factory) -> Path:
    """Keypoints, in metres, of a hand that moves a little."""
    params = jax.tree.map(lambda a: jnp.repeat(a, NUM_FRAMES, 0), poses_of(hands["right"], 1)[0])
    params = replace(params, transl=params.transl + 1e-3 * jnp.arange(NUM_FRAMES)[:, None])
    keypoints = np.array(jhand.keypoints(hands["right"], params))
    keypoints[1, 5] = np.nan
    path = tmp_path_factory.mktemp("recording") / "waving.npz"
    np.savez(path, keypoints3d=keypoints, fps=25.0)
    return path


@pytest.fixture(scope="module")
def job(recording, hands, tmp_path_factory):
    """`jhand fit` of a good recording between two bad ones: status, folder and the learned landmarks' file."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "broken.pose").write_bytes(b"nothing")
    save_landmarks(hands["right"], keypoint_landmarks(hands["right"]), folder / "points.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "enable_compile_cache", lambda: None)
        inputs = (folder / "broken.pose", recording, folder / "gone.csv")
        status = run("fit", *inputs, "-o", folder / "out", "--landmarks", folder / "points.npz")
    return status, folder / "out"


def test_fit_keeps_what_worked_and_fails(job, recording):
    status, out = job
    assert status == 1
    assert sorted(p.name for p in out.iterdir()) == ["overview.png", "report.html", "summary.csv", "waving"]
    expected = ["errors.csv", "errors.png", "fit.png", "hand.glb", "params.npz", "smplx.json", "smplx.npz"]
    assert sorted(p.name for p in (out / "waving").iterdir()) == expected
    result = load_result(out / "waving" / "params.npz")
    assert (result.side, result.fps, result.num_frames, result.unit) == ("right", 25.0, NUM_FRAMES, "mm")
    assert not result.seen[1, 5] and result.seen.sum() == 21 * NUM_FRAMES - 1
    assert result.scores["mean"] < 1.0
    with np.load(recording) as z:
        apart = np.linalg.norm(result.keypoints - z["keypoints3d"], axis=-1)
    np.testing.assert_allclose(1e3 * apart[result.seen], result.errors[result.seen], atol=1e-2)
    rows = (out / "summary.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith(f'"waving",right,{NUM_FRAMES},mm,')
    assert trimesh.load(out / "waving" / "hand.glb").geometry
    assert '"waving"' in (out / "report.html").read_text()


def test_fit_says_which_inputs_failed(recording, tmp_path, capsys, monkeypatch):
    def broken(*args, **rest):
        raise ValueError("no hand could be fitted")

    monkeypatch.setattr(cli.studies, "fit_recording", broken)
    assert run("fit", recording, tmp_path / "gone.csv", "-o", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "no hand could be fitted" in said and "gone.csv: No such file" in said
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupted_job_is_reported(right, tmp_path):
    job = cli._Job(tmp_path, cli._Hands())

    def work():
        yield study_of(right, NUM_FRAMES, name="a/b: c")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run("x", work)
    assert job.finish() == 0
    assert (tmp_path / "a_b_c" / "params.npz").exists() and (tmp_path / "report.html").exists()
    assert job.folder_for("a_b c") == "a_b_c_2"
    assert job.folder_for("../..") == "recording"


def test_view(job, opened, capsys):
    _, out = job
    assert run("view", out) == 0
    assert opened == [(out / "report.html").resolve().as_uri()]
    assert run("view", out / "waving" / "params.npz", "--no-browser") == 0
    assert len(opened) == 1
    assert (out / "waving" / "params.html").stat().st_size > 50_000
    (out / "waving" / "params.html").unlink()
    assert str(out) in capsys.readouterr().out


def test_view_wants_the_hand_that_was_fitted(right, tmp_path, capsys):
    save_result(replace(fitted(right, NUM_FRAMES), model="MANO_RIGHT"), tmp_path / "params.npz")
    assert "pass its file with --hand" in failure(capsys, "view", tmp_path / "params.npz")


def test_convert_recordings(recording, tmp_path, capsys):
    assert run("convert", recording, tmp_path / "deep" / "a.csv") == 0
    (a,) = read_recording(recording)
    (b,) = read_recording(tmp_path / "deep" / "a.csv")
    np.testing.assert_allclose(a.keypoints3d, b.keypoints3d, atol=1e-6)
    hands = [{"handedness": label, "world_landmarks": np.eye(21, 3).tolist()} for label in ("Left", "Right")]
    (tmp_path / "two.json").write_text(json.dumps([{"hands": hands}]))
    assert run("convert", tmp_path / "two.json", tmp_path / "b.npz") == 0
    assert sorted(p.name for p in tmp_path.glob("b*")) == ["b_left.npz", "b_right.npz"]
    assert read_recording(tmp_path / "b_left.npz")[0].side == "left"


def test_convert_hands(right, tmp_path):
    jhand.save_hand(right, tmp_path / "a.npz")
    assert run("convert", tmp_path / "a.npz", tmp_path / "RIGHT.pkl") == 0
    assert run("convert", tmp_path / "RIGHT.pkl", tmp_path / "b.npz") == 0
    again = jhand.load_hand(tmp_path / "b.npz")
    np.testing.assert_allclose(again.v_template, right.v_template, atol=1e-7)


@pytest.mark.parametrize("ending", ["npz", "pkl", "obj", "ply", "glb"])
def test_export_hand(ending, left, tmp_path):
    path = tmp_path / f"hand_LEFT.{ending}"
    assert run("export-hand", path, "--side", "left") == 0
    if ending in ("npz", "pkl"):
        vertices, faces = (np.asarray(x) for x in (jhand.load_hand(path).v_template, jhand.load_hand(path).faces))
    else:
        mesh = trimesh.load(path, force="mesh", process=False)
        vertices, faces = mesh.vertices, mesh.faces
    np.testing.assert_allclose(vertices, left.v_template, atol=1e-6)
    np.testing.assert_array_equal(faces, left.faces)


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"jhand {jhand.__version__}\n"
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    said = capsys.readouterr().out
    for command in ("fit", "view", "convert", "learn-landmarks", "export-hand", "doctor", "demo"):
        assert command in said


def test_mistakes_are_one_line(recording, right, tmp_path, capsys):
    out = ("-o", tmp_path / "out")
    assert "nothing to fit" in failure(capsys, "fit", *out)
    assert "gone.pkl" in failure(capsys, "fit", recording, *out, "--hand", tmp_path / "gone.pkl")
    assert "no such report" in failure(capsys, "view", tmp_path / "gone")
    assert "gone.npz: No such file" in failure(capsys, "view", tmp_path / "gone.npz")
    assert "gone.npz: No such file" in failure(capsys, "convert", tmp_path / "gone.npz", tmp_path / "a.csv")
    assert ".npz or .csv" in failure(capsys, "convert", recording, tmp_path / "a.bvh")
    assert "not '.stl'" in failure(capsys, "export-hand", tmp_path / "hand.stl")
    (tmp_path / "file").write_text("")
    assert "file" in failure(capsys, "fit", recording, "-o", tmp_path / "file")
    with pytest.raises(SystemExit) as end:
        run("fit", recording)  # without -o
    assert end.value.code == 2


def test_unknown_order_and_missing_metres_are_said(recording, tmp_path, capsys):
    assert run("fit", recording, "-o", tmp_path / "out", "--order", "mano17") == 1
    said = capsys.readouterr().out
    assert "unknown keypoint order 'mano17'" in said and "mano16" in said
    np.savez(tmp_path / "flat.npz", keypoints2d=np.zeros((2, 21, 2)))
    text = failure(capsys, "learn-landmarks", tmp_path / "flat.npz", "-o", tmp_path / "points.npz")
    assert "flat has no keypoints in metres" in text


def test_landmark_files(right, left, tmp_path):
    landmarks = keypoint_landmarks(right)
    save_landmarks(right, landmarks, tmp_path / "points.npz")
    again = load_landmarks(right, tmp_path / "points.npz")
    assert again.names == landmarks.names
    np.testing.assert_array_equal(again.basis, landmarks.basis)
    np.testing.assert_array_equal(again.weights, landmarks.weights)
    with pytest.raises(LandmarkFileError, match="landmarks of the right hand 'jhand', not of the left hand"):
        load_landmarks(left, tmp_path / "points.npz")
    (tmp_path / "text.npz").write_text("x")
    for name in ("text.npz", "gone.npz"):
        with pytest.raises(LandmarkFileError, match=name):
            load_landmarks(right, tmp_path / name)


def test_demo_runs_without_recordings(right, tmp_path, capsys, monkeypatch):
    """Its course, with the solver left out."""
    studies = {f"clip {i}": study_of(right, NUM_FRAMES, name=f"clip {i}", dims=2) for i in range(2)}
    monkeypatch.setattr(cli.studies, "fingerspelling", lambda: [s.recording for s in studies.values()])
    monkeypatch.setattr(cli.studies, "fit_recording", lambda hand, clip: studies[clip.name])
    monkeypatch.setenv("JHAND_DATA", str(tmp_path / "nowhere"))
    assert run("demo", "-o", tmp_path / "out") == 0
    assert {"clip_0", "clip_1", "report.html", "overview.png"} <= {p.name for p in (tmp_path / "out").iterdir()}
    said = capsys.readouterr().out
    assert "JHAND_DATA names a folder" in said and "report.html" in said


def test_compile_cache(tmp_path, monkeypatch):
    """In an interpreter of its own: compiled code is on disk afterwards, in the user's cache folder."""
    script = "import jhand, jax; print(jhand.compile_cache.enable_compile_cache()); jax.jit(lambda x: x + 1)(1.0)"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "import jhand.compile_cache; " + script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "jhand") and jax.__version__ in folder.name
    assert list(folder.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        enable_compile_cache(tmp_path / "file" / "below")
