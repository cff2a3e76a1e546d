"""The code of the how-to runs as pasted."""

import re

import numpy as np


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
