"""Scans and depthwise convolutions beside their peers: benchmarks/results/scan.json and .md.

    python benchmarks/scan.py            about 8 minutes on two cores
    python benchmarks/scan.py --quick    short sequences and few rounds, a minute or two; prints, and writes nothing

Mamba's scan (states of 16) beside mambapy: its parallel scan, `pscan`, which it trains with, and its loop over tokens;
torch with one and with two threads, of which the faster counts. Mamba-2's beside mamba2-jax, jitted here, in chunks of
64 and of its default, 256, of which the faster counts; heads of 32 channels, one group, whose B and C the peer wants
once a head, and both begin with dt's softplus, which is inside the peer. Depthwise convolutions beside XLA's. Gradients
are those of the sum of squared outputs with respect to all operands. Times are seen from Python, each call waited for;
ratios compare calls of the same round.

Exits non-zero where a result differs from its peer's by more than `TOLERANCE`, or speed is below `SLACK` of a goal.
The packages are those of benchmarks/requirements.txt.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import timing  # before torch and jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np
import torch  # ty: ignore[import-not-found]
from jax import lax
from mamba2_jax.modeling import ssd_forward  # ty: ignore[import-not-found]
from mambapy.mamba import MambaBlock, MambaConfig  # ty: ignore[import-not-found]

from jhand.nn import (
    depthwise_conv,
    selective_scan,
    selective_scan_associative,
    selective_scan_chunked,
    ssd,
)

STATES, HEAD = 16, 32
SIZES = ((32, 21, 256), (1, 21, 256), (4, 128, 256), (1, 512, 512), (1, 2048, 256))  # batch, tokens, channels
GOALS = {  # how many times faster, forwards and with the gradient
    "selective_scan": {
        (32, 21, 256): (10, 3),
        (1, 512, 512): (4, 4),
        (1, 2048, 256): (4, 4),
    },
    "ssd": dict.fromkeys(SIZES, (1, 1)),
}
IMAGES = (  # shape, kernel, stride
    ((16, 56, 56, 64), (3, 3), 1),
    ((16, 56, 56, 64), (3, 3), 2),
    ((1, 56, 56, 64), (3, 3), 1),
    ((32, 21, 256), (3,), 1),
    ((1, 2048, 512), (4,), 1),
)
CONVOLUTION_GOAL = (4, 2)
SLACK = 0.7  # machines are noisy
TOLERANCE = 1e-4  # of the largest output
FOLDER = Path(__file__).parent / "results"

Call = Callable[[], object]


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def compiled(function: Callable, operands: Sequence[np.ndarray], gradient: bool) -> Call:
    def loss(*operands: jax.Array) -> jax.Array:
        return jnp.sum(function(*operands) ** 2)

    call = jax.jit(jax.value_and_grad(loss, tuple(range(len(operands)))) if gradient else function)
    arrays = [jnp.asarray(x) for x in operands]
    return lambda: jax.block_until_ready(call(*arrays))


def mambapy_call(scan: Callable, threads: int, operands: Sequence[np.ndarray], gradient: bool) -> Call:
    tensors = [torch.tensor(x) for x in operands]

    def forwards() -> torch.Tensor:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return scan(*tensors)

    def forwards_and_backwards() -> None:
        torch.set_num_threads(threads)
        for tensor in tensors:
            tensor.requires_grad_().grad = None
        (scan(*tensors) ** 2).sum().backward()

    return forwards_and_backwards if gradient else forwards


def selective_scan_calls(size: tuple[int, int, int], gradient: bool) -> dict[str, Call]:
    batch, length, channels = size
    rng = np.random.default_rng(0)
    operands = (
        random(rng, batch, length, channels),
        np.exp(rng.uniform(np.log(0.001), np.log(0.1), (batch, length, channels))).astype(np.float32),
        -np.tile(np.arange(1, STATES + 1, dtype=np.float32), (channels, 1)),
        random(rng, batch, length, STATES),
        random(rng, batch, length, STATES),
        random(rng, channels),
    )
    block = MambaBlock(MambaConfig(d_model=channels // 2, n_layers=1, d_state=STATES))
    own = {"jhand": selective_scan, "associative": selective_scan_associative, "chunked": selective_scan_chunked}
    calls = {n: compiled(lambda *a, f=f: f(*a)[0], operands, gradient) for n, f in own.items()}
    for threads in (1, 2):
        calls[f"mambapy pscan, {threads}"] = mambapy_call(block.selective_scan, threads, operands, gradient)
        if length <= 128 or not gradient:  # backwards through more tokens, its loop takes seconds a call
            calls[f"mambapy loop, {threads}"] = mambapy_call(block.selective_scan_seq, threads, operands, gradient)
    return calls


def ssd_calls(size: tuple[int, int, int], gradient: bool) -> dict[str, Call]:
    batch, length, channels = size
    heads = channels // HEAD
    rng = np.random.default_rng(0)
    operands = (
        random(rng, batch, length, heads, HEAD),
        random(rng, batch, length, heads) - 3,
        -np.exp(random(rng, heads)),
        random(rng, batch, length, 1, STATES),
        random(rng, batch, length, 1, STATES),
        random(rng, heads),
    )

    def own(x: jax.Array, dt: jax.Array, *others: jax.Array) -> jax.Array:
        return ssd(x, jax.nn.softplus(dt), *others)[0]

    def peer(
        chunk: int, x: jax.Array, dt: jax.Array, A: jax.Array, B: jax.Array, C: jax.Array, D: jax.Array
    ) -> jax.Array:
        B, C = (jnp.broadcast_to(v, (*x.shape[:3], STATES)) for v in (B, C))
        return ssd_forward(x, dt, A, B, C, chunk, D, jnp.zeros(heads), 0.0, jnp.inf)[0]

    return {
        "jhand": compiled(own, operands, gradient),
        "mamba2-jax, 64": compiled(partial(peer, 64), operands, gradient),
        "mamba2-jax, 256": compiled(partial(peer, 256), operands, gradient),
    }


def convolution_calls(shape: tuple[int, ...], kernel: tuple[int, ...], stride: int, gradient: bool) -> dict[str, Call]:
    rng = np.random.default_rng(0)
    operands = (random(rng, *shape), random(rng, *kernel, shape[-1]))

    def peer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        letters = "HW"[: x.ndim - 2]
        return lax.conv_general_dilated(
            x,
            kernel[..., None, :],
            (stride,) * (x.ndim - 2),
            "SAME",
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=x.shape[-1],
        )

    own = partial(depthwise_conv, strides=stride)
    return {"jhand": compiled(own, operands, gradient), "lax": compiled(peer, operands, gradient)}


def largest_difference(calls: dict[str, Call]) -> float:
    """Of any implementation's outputs from the first one's, as a share of the largest output."""
    found = {name: np.asarray(call()) for name, call in calls.items()}
    first = next(iter(found.values()))
    return max(float(np.abs(y - first).max() / np.abs(first).max()) for y in found.values())


def measure(
    what: str, size: tuple, peer: str, calls_of: Callable[[bool], dict[str, Call]], goals: Sequence, quick: bool
) -> list[dict]:
    """Rows of one size, without and with the gradient; the peer is the fastest of those whose names begin like it."""
    difference = largest_difference(calls_of(False))
    rows = []
    for gradient, goal in zip((False, True), goals, strict=True):
        times = timing.interleave(calls_of(gradient), rounds=3 if quick else 9, seconds=0.1 if quick else 0.25)
        fastest = np.min([t for name, t in times.items() if name.startswith(peer)], 0)
        row = {
            "what": what,
            "size": size,
            "gradient": gradient,
            "goal": goal,
            "peer": peer,
            "over_peer": vars(timing.Spread.of(fastest / times["jhand"])),
            "largest_difference": difference,
            "milliseconds": {name: vars(timing.Spread.of(1e3 * t)) for name, t in times.items()},
        }
        print(markdown_row(row), flush=True)
        rows.append(row)
    return rows


def markdown_row(row: dict) -> str:
    ratio, times = row["over_peer"], row["milliseconds"]
    others = (f"{name} {t['median']:.3g}" for name, t in times.items() if name != "jhand")
    cells = [
        f"{row['what']} {' x '.join(map(str, row['size']))}{' + gradient' if row['gradient'] else ''}",
        f"{ratio['median']:.1f} [{ratio['low']:.1f}..{ratio['high']:.1f}]",
        row["goal"] or "",
        f"{times['jhand']['median']:.3g}",
        ", ".join(others),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def markdown(report: dict) -> str:
    lines = [
        "Speed of jhand's scans and depthwise convolutions as a multiple of their peers': median [lowest..highest]",
        "over rounds. Scans: batch x tokens x channels; the ratio is over mambapy's `pscan`, mamba2-jax and XLA's",
        "convolution, the faster of their settings (threads, chunks).",
        f"{report['machine']}. Written by benchmarks/scan.py, which says what is compared.",
        "",
        "| | over the peer | goal | ms | ms of the others |",
        "|---|---|---|---|---|",
        *map(markdown_row, report["rows"]),
    ]
    return "\n".join(lines) + "\n"


def failures(report: dict) -> list[str]:
    found = []
    for row in report["rows"]:
        name = markdown_row(row).split(" | ")[0][2:]
        if not row["largest_difference"] <= TOLERANCE:
            found.append(f"{name}: differs by {row['largest_difference']:.1e}")
        if row["goal"] and row["over_peer"]["median"] < SLACK * row["goal"]:
            found.append(f"{name}: {row['over_peer']['median']:.2f} times {row['peer']}, goal {row['goal']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short sequences, few rounds, nothing written")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_compilation_cache", False)

    rows = []
    for size in SIZES[:2] if quick else SIZES:
        goals = GOALS["selective_scan"].get(size, (None, None))
        rows += measure("scan", size, "mambapy pscan", partial(selective_scan_calls, size), goals, quick)
        rows += measure("ssd", size, "mamba2-jax", partial(ssd_calls, size), GOALS["ssd"][size], quick)
    for shape, kernel, stride in IMAGES[2:4] if quick else IMAGES:
        what = f"convolution of {' x '.join(map(str, kernel))}{f', stride {stride},' if stride > 1 else ''} over"
        calls_of = partial(convolution_calls, shape, kernel, stride)
        rows += measure(what, shape, "lax", calls_of, CONVOLUTION_GOAL, quick)
    report = {
        "rows": rows,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "versions": {name: version(name) for name in ("jax", "mamba2-jax", "mambapy", "numpy", "torch")},
    }
    print(markdown(report))
    if not quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "scan.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "scan.md").write_text(markdown(report))
    missed = failures(report)
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
