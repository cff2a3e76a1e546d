"""Trainings that are killed again and again: benchmarks/results/kill_test.json.

    python benchmarks/kill_test.py             20 kills, about 3 minutes on two cores
    python benchmarks/kill_test.py --kills 3   prints, and writes nothing

One small training (tests/train/small.py: two stages, BatchNorm's averages, noise from keys, exponential averages,
evaluations, the best state) runs undisturbed. The same one saves at every hundredth step, is killed by SIGKILL at
moments uniform over its steps, started again each time, and let end. Exits non-zero unless both end in the same bits
and wrote the same log.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from jhand.train import read_log
from tests.train.killing import run_to_the_end, run_with_kills

STEPS, SAVE_EVERY, SEED = 2000, 100, 0
FOLDER = Path(__file__).parent / "results"


def log_of(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in read_log(folder / "log.jsonl")]


def measure(kills: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        settings = dict(steps=STEPS, save_every=SAVE_EVERY)
        expected = run_to_the_end(folder / "undisturbed", **settings)
        found, told = run_with_kills(folder / "killed", kills, seed=SEED, **settings)
        differing = sorted(k for k in expected if k not in found or not np.array_equal(expected[k], found[k]))
        return {
            "kills": told,
            "steps": STEPS,
            "save_every": SAVE_EVERY,
            "inside_a_save": sum(kill["inside_a_save"] for kill in told),
            "arrays": len(expected),
            "arrays_that_differ": differing,
            "log_is_the_same": log_of(folder / "killed") == log_of(folder / "undisturbed"),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    report = measure(kills) | {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("jax", "numpy", "orbax-checkpoint")},
    }
    print(json.dumps(report, indent=1))
    if kills == parser.get_default("kills"):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "kill_test.json").write_text(json.dumps(report, indent=1) + "\n")
    return int(bool(report["arrays_that_differ"]) or not report["log_is_the_same"])


if __name__ == "__main__":
    sys.exit(main())
