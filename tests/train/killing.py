"""Trainings that are killed while they run, and go on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def start(folder, steps, save_every):
    command = [sys.executable, "-m", "tests.train.small", str(folder), str(steps), str(save_every)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def unfinished(folder):
    """What is known of checkpoints that are not complete: a name may come again, its folder does not."""
    return {path.stat().st_ino for path in folder.glob("checkpoints/*/*tmp*")}


def run_to_the_end(folder, steps, save_every):
    process = start(folder, steps, save_every)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return dict(np.load(folder.with_suffix(".npz")))


def run_with_kills(folder, kills, *, steps, save_every, seed):
    """Kill a run at moments uniform over its steps, and then let it end.

    Returns:
        Its state by path, and for each kill the step it came at and whether it fell into the writing of a checkpoint.
    """
    rng = np.random.default_rng(seed)
    told = []
    for target in np.sort(rng.integers(1, steps + 1, kills)):
        before = unfinished(folder)  # of the kill before, which goes with the next checkpoint
        process = start(folder, steps, save_every)
        step = 0
        for line in process.stdout:
            step = int(line)
            if step >= target:
                time.sleep(rng.uniform(0, 0.05))  # of the order of the time that a checkpoint takes
                break
        process.kill()
        rest, _ = process.communicate()
        step = max([step, *map(int, rest.split("\n")[:-1])])  # what it said until it died
        told.append({"step": step, "inside_a_save": bool(unfinished(folder) - before)})
    return run_to_the_end(folder, steps, save_every), told
