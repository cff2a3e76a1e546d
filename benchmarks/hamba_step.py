"""Where the time of a training goes, of Hamba at its cpu preset: benchmarks/results/hamba_step.json and .md.

    python benchmarks/hamba_step.py            about 4 minutes on two cores, most of it compiling

Each row is a program of its own, in turn over several rounds: reading and batching on the host (from memory), the
first regression, the whole network forwards, both stages' steps with gradients, discriminators and optimiser, and the
loop as `fit` runs it. What a step costs beyond the sum of its parts is the gradient.
"""

import json
import os
import platform
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import timing  # before jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np

from experiments.hamba import experiment
from jhand.experiment import Options, feed, run_of
from jhand.hand import load_hand
from jhand.systems import hamba
from jhand.train import init_state, read_log, train, train_step

FOLDER = Path(__file__).parent / "results"
ROUNDS = 7
wait = jax.block_until_ready


def looped(run, stage, batch, folder: str) -> float:
    """Milliseconds a step by the loop's own log, without the first report."""
    begin = lambda key: hamba.init(key, run.config, load_hand())  # noqa: E731
    train(
        jax.random.key(0), begin, (replace(stage, steps=60),), batch, folder=folder, log_every=20, save_every=60,
        quiet=True,
    )  # fmt: skip
    rows = [row for row in read_log(Path(folder) / "log.jsonl") if "steps_per_second" in row]
    return 1000 / float(np.mean([row["steps_per_second"] for row in rows[1:]]))


def main() -> None:
    preset = replace(experiment.presets["cpu"], clips=512)
    with tempfile.TemporaryDirectory() as runs:
        run = run_of(replace(experiment, presets={"cpu": preset}), Options(folder=Path(runs)), "full", {}, 0)
        config, hand, size = run.config, load_hand(), preset.batch
        batches = feed(experiment, run)
        for _ in range(16):  # an epoch: then all is in memory
            batch = next(batches)
        on_device = jax.tree.map(jnp.asarray, batch)
        variables = hamba.init(jax.random.key(0), config, hand)
        inputs = hamba.inputs_of(on_device)
        steps = {}
        for stage in hamba.stages(config, hand, 100):
            state = init_state(jax.random.key(0), variables, stage)
            steps[stage.name] = jax.jit(train_step(stage)), state
        begin = jax.jit(lambda v, i: hamba.predict(v, i, config, hand).first.keypoints)
        forward = jax.jit(lambda v, i: hamba.predict(v, i, config, hand).keypoints)
        calls = {
            "a batch on the host, read, stacked": lambda: next(batches),
            "first regression, forwards": lambda: wait(begin(variables, inputs)),
            "whole network, forwards": lambda: wait(forward(variables, inputs)),
            "a step of stage one": lambda: wait(steps["first"][0](steps["first"][1], on_device)),
            "a step of stage two": lambda: wait(steps["whole"][0](steps["whole"][1], on_device)),
        }
        times = timing.interleave(calls, ROUNDS, seconds=0.3)
        rows = {name: vars(timing.Spread.of(1e3 * t)) for name, t in times.items()}
        for stage in hamba.stages(config, hand, 100):
            with tempfile.TemporaryDirectory() as folder:
                took = looped(run, stage, feed(experiment, run), folder)
            rows[f"the loop, stage {stage.name}, batches from the host"] = {"median": took, "low": took, "high": took}
    report = {
        "rows": rows,
        "batch": size,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "grain", "numpy")},
    }
    lines = [
        f"Hamba, cpu preset, batches of {size}: milliseconds, median [lowest..highest] over rounds; pictures a second.",
        f"{report['machine']}. Written by benchmarks/hamba_step.py, which says what is timed.",
        "",
        "| | milliseconds | pictures/s |",
        "|---|---|---|",
    ]
    for name, t in rows.items():
        lines.append(
            f"| {name} | {t['median']:.1f} [{t['low']:.1f}..{t['high']:.1f}] | {1000 * size / t['median']:.0f} |"
        )
    print("\n".join(lines))
    (FOLDER / "hamba_step.json").write_text(json.dumps(report, indent=1) + "\n")
    (FOLDER / "hamba_step.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
