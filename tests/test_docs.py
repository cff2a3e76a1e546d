"""The code of the how-to runs as pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jhand.hand import load_hand
from jhand.results import save_result
from tests.data.published import write_freihand
from tests.fitted import fitted
from tests.hand.mano_files import hand_arrays, write_clean

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


def test_fit_your_own_data(root, capsys):
    text = (root / "docs" / "fit_your_own_data.md").read_text(encoding="utf-8")
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for block in blocks:
        exec(compile(block, "fit_your_own_data.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    millimetres, pixels, views, depth, markers, reason = printed
    assert float(millimetres.split()[0]) < 1 and float(pixels.split()[0]) < 1 and float(depth.split()[0]) < 2
    assert float(views.split()[0]) < 1 and float(views.split()[2]) < 3
    assert "thumb" in markers and reason.startswith("nothing was measured")
    assert np.asarray(names["points"].valid).all()


def test_training(root, capsys, tmp_path, monkeypatch):
    text = (root / "docs" / "training.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "training.md", "exec"), names)
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith("200 steps, rms 0.") and float(printed.split()[-1]) < 0.2
    assert (tmp_path / "out" / "parabola" / "weights" / "README.md").exists()


PAGES = sorted((Path(__file__).parent.parent / "docs" / "systems").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_of_systems(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, "a page shows how its system is used"
    names = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def test_your_own_system(root, tmp_path):
    """In an empty folder, against the wheel as a user installs it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel"), str(root)]
    subprocess.run(wheel, check=True, timeout=120)
    (built,) = (tmp_path / "wheel").glob("jhand-*.whl")
    site, home = tmp_path / "site", tmp_path / "empty"
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(built)]
    subprocess.run(install, check=True, timeout=120)

    text = (root / "docs" / "your_own_system.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 115
    home.mkdir()
    (home / "lifter.py").write_text(code, encoding="utf-8")
    data = tmp_path / "freihand"
    data.mkdir()
    mano = write_clean(data / "MANO_RIGHT.pkl", hand_arrays(0))
    write_freihand(data, load_hand(mano))

    def python(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], check=False, cwd=home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in python("-c", "import jhand; print(jhand.__file__)")
    named = f"freihand:{data}:training:{mano}"
    printed = python("lifter.py", "claims", "--smoke", "--data", named, "--held-out", named)
    assert "graph: " in printed.splitlines()[-1] and "the trivial answer" in printed
    assert [path.name for path in (home / "out" / "runs").iterdir()] == ["lifter"]


def test_bring_your_own_data(root, right, capsys, tmp_path, monkeypatch):
    text = (root / "docs" / "bring_your_own_data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "clip_right").mkdir(parents=True)
    save_result(fitted(right, 5, name="clip right"), tmp_path / "out" / "clip_right" / "params.npz")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "bring_your_own_data.md", "exec"), names)
    result, coco, views, colmap = capsys.readouterr().out.splitlines()
    assert result == "clip right right (5, 21, 3) 80% of the frames show it"
    assert coco.endswith("(2, 15, 3)") and (np.asarray(names["found"].rms) < 0.005).all()
    millimetres, left_out = float(views.split()[0]), views.split(";")[1]
    assert millimetres < 2 and left_out == " 1 views left out"
    assert colmap == "('a.jpg', 'b.jpg', 'c.jpg') True"
