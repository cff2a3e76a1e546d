"""The README's code runs as pasted."""

import json
import re

import jax
import numpy as np


def test_readme_code(root):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    names = {}
    exec(compile(blocks[0], "README.md", "exec"), names)

    # and does what its comments say
    assert names["mesh"].vertices.shape == (8, 778, 3) and names["mesh"].joints.shape == (8, 16, 3)
    assert names["kp"].shape == (8, 21, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(names["fit"].params))
    assert names["error"].shape == (8,) and float(names["error"].max()) < 5e-4


def test_readme_names_files_that_exist(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (root / target).exists(), f"README.md links to {target}"


def test_the_number_that_may_only_rise(root):
    """PCK of a net that saw the world alone, on a real hand: as measured, and not below the first one."""
    measured = json.loads((root / "benchmarks" / "results" / "world_to_real.json").read_text())["pck"]
    (said,) = re.findall(r"\*\*(\d+) %\*\* of the keypoints", (root / "README.md").read_text(encoding="utf-8"))
    assert round(100 * measured) == int(said) >= 62
