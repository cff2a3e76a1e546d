"""Steps of training on fake devices, and what the loop costs: benchmarks/results/train_steps.json and .md.

    python benchmarks/train_steps.py           about 10 minutes on two cores
    python benchmarks/train_steps.py --quick   one and two devices, few steps; prints, and writes nothing

A small convolutional network with BatchNorm learns from 32 by 32 pictures. Fake devices are threads of one CPU: they
show what dividing a step costs, not what devices gain. The loop is measured beside the same step, jitted in the same
way and called in a row: with batches that lie on the device, and with batches that are put there; then with more
reports and checkpoints. Times of the loop are those of its own log, without the first report, which compiles.

Exits non-zero where the loop is below `GOAL` of the speed of bare steps.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import timing  # before jax  # isort: skip
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jhand.train import (
    LossAux,
    Stage,
    Update,
    adamw,
    fsdp,
    init_state,
    make_mesh,
    pmap_step,
    read_log,
    replicated,
    shard_batch,
    train,
    train_step,
)

DEVICES = (1, 2, 4, 8)
BATCH, SIZE, WIDTH = 32, 32, 8
GOAL = 0.95
SLACK = 0.9  # machines are noisy
FOLDER = Path(__file__).parent / "results"


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(3):
            x = nn.Conv(WIDTH << i, (3, 3), 2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(63)(x.mean((1, 2)))


def init(key: jax.Array) -> dict:
    made = Net().init(key, jnp.zeros((1, SIZE, SIZE, 3)), train=False)
    return {"params": made["params"], "stats": made["batch_stats"]}


def loss(variables: dict, batch: dict, *, key: jax.Array) -> tuple[jax.Array, LossAux]:
    collections = {"params": variables["params"], "batch_stats": variables["stats"]}
    found, new = Net().apply(collections, batch["image"], train=True, mutable=["batch_stats"])
    return jnp.mean((found - batch["keypoints"]) ** 2), LossAux(new["batch_stats"])


def stage(steps: int) -> Stage:
    return Stage("all", steps, (Update("all", loss, adamw(1e-3, steps)),))


def host_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32),
        "keypoints": rng.normal(size=(BATCH, 63)).astype(np.float32),
    }


def carried(step: Callable, state: object, batch: Callable[[], object], number: int) -> Callable[[], None]:
    """A call that takes a number of steps, each from the state of the one before, and waits for the last."""

    def run() -> None:
        nonlocal state
        for _ in range(number):
            state, _ = step(state, batch())
        jax.block_until_ready(state)

    return run


def bare(model: int, layout: Callable, number: int, *, from_host: bool = False) -> Callable[[], None]:
    mesh, of = make_mesh(model=model), stage(1000)
    begin = partial(init_state, jax.random.key(0), stage=of)
    variables = init(jax.random.key(1))
    shardings = layout(jax.eval_shape(begin, variables), mesh)
    state = jax.jit(begin, out_shardings=shardings)(variables)
    step = jax.jit(train_step(of), donate_argnums=0, out_shardings=(shardings, None))
    batch = host_batch()
    placed = shard_batch(batch, mesh)
    return carried(step, state, (lambda: shard_batch(batch, mesh)) if from_host else (lambda: placed), number)


def pmapped(number: int) -> Callable[[], None]:
    devices, of = jax.device_count(), stage(1000)
    state = init_state(jax.random.key(0), init(jax.random.key(1)), of)
    batch = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), host_batch())
    return carried(pmap_step(of), state, lambda: batch, number)


def layouts(number: int, rounds: int) -> dict[str, dict]:
    """Milliseconds a step on the devices of this process."""
    calls = {
        "data parallel": bare(1, replicated, number),
        "fsdp": bare(jax.device_count(), partial(fsdp, at_least=256), number),
        "pmap": pmapped(number),
    }
    times = timing.interleave(calls, rounds, seconds=0.0)
    return {name: vars(timing.Spread.of(1e3 * t / number)) for name, t in times.items()}


def looped(number: int, **more: object) -> float:
    """Seconds a step by the log of the loop, without its first report."""
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(
            batches=itertools.repeat(host_batch()), folder=folder, log_every=50, save_every=10**6, quiet=True
        )
        train(jax.random.key(0), init, (stage(number),), **settings | more)
        lines = read_log(Path(folder) / "log.jsonl")[1:]
        return 1 / float(np.mean([line["steps_per_second"] for line in lines if "steps_per_second" in line]))


def overhead(number: int, rounds: int) -> list[dict]:
    """The loop beside bare steps with the same batches: milliseconds a step, and what part of their speed is left."""
    # a batch that needs nothing from the host: a constant of the program
    fixed = jax.tree.map(jnp.asarray, host_batch())
    timed = {from_host: bare(1, replicated, number, from_host=from_host) for from_host in (False, True)}
    calls = {
        "bare step, one batch on the device": (None, lambda: once(timed[False], number)),
        "loop, batches on the device": (0, lambda: looped(number, batches=lambda step: fixed)),
        "bare step, batches from the host": (None, lambda: once(timed[True], number)),
        "loop, batches from the host": (2, lambda: looped(number)),
        "... and a report at every 10th step": (2, lambda: looped(number, log_every=10)),
        "... and a checkpoint at every 50th": (2, lambda: looped(number, log_every=10, save_every=50)),
    }
    times = np.zeros((len(calls), rounds))
    for i in range(rounds):
        for row, (_, call) in enumerate(calls.values()):
            times[row, i] = call()
    return [
        {
            "what": name,
            "milliseconds": vars(timing.Spread.of(1e3 * t)),
            "of_the_bare_speed": None if base is None else vars(timing.Spread.of(times[base] / t)),
        }
        for (name, (base, _)), t in zip(calls.items(), times, strict=True)
    ]


def once(call: Callable[[], None], number: int) -> float:
    return timing.interleave({"": call}, 1, 0.0)[""][0] / number


def worker(devices: int, quick: bool) -> dict:
    """What a process with so many fake devices measures, by running this file again."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--worker", *(["--quick"] if quick else [])]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def measure_here(quick: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:  # the loop's runs compile the same programs each time
        jax.config.update("jax_compilation_cache_dir", folder)
        found: dict = {"layouts": layouts(10 if quick else 50, 3 if quick else 7)}
        if jax.device_count() == 1:
            found["overhead"] = overhead(100 if quick else 500, 2 if quick else 7)
        jax.config.update("jax_compilation_cache_dir", None)
    return found


def markdown(report: dict) -> str:
    ms = lambda s: f"{s['median']:.2f} [{s['low']:.2f}..{s['high']:.2f}]"  # noqa: E731
    lines = [
        "Milliseconds a step of a small convolutional network: median [lowest..highest] over rounds.",
        f"{report['machine']}. Written by benchmarks/train_steps.py, which says what is compared.",
        "",
        "| | milliseconds | of the bare speed |",
        "|---|---|---|",
        *(
            f"| {row['what']} | {ms(row['milliseconds'])} | "
            f"{ms(row['of_the_bare_speed']) if row['of_the_bare_speed'] else ''} |"
            for row in report["overhead"]
        ),
        "",
        "| fake devices | data parallel | fsdp | pmap |",
        "|---|---|---|---|",
        *(
            f"| {devices} | {' | '.join(ms(row[name]) for name in ('data parallel', 'fsdp', 'pmap'))} |"
            for devices, row in report["layouts"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one and two devices, few steps, nothing written")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measure_here(given.quick)))
        return 0
    found = {devices: worker(devices, given.quick) for devices in (DEVICES[:2] if given.quick else DEVICES)}
    report = {
        "overhead": found[1]["overhead"],
        "layouts": {str(devices): row["layouts"] for devices, row in found.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, cpu",
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")},
    }
    print(markdown(report))
    if not given.quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "train_steps.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "train_steps.md").write_text(markdown(report))
    missed = [
        f"{row['what']}: {row['of_the_bare_speed']['median']:.2f} of the bare speed, goal {GOAL}"
        for row in (report["overhead"][1], report["overhead"][3])
        if row["of_the_bare_speed"]["median"] < SLACK * GOAL
    ]
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
