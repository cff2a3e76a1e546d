"""Kinematics beside its peers: benchmarks/results/kinematics.json and .md.

    python benchmarks/kinematics.py            all batch sizes, about 15 minutes on two cores
    python benchmarks/kinematics.py --quick    the small ones; prints, and writes nothing

smplx (torch, eager) with one and with two threads, of which the faster counts, and smplfitter.jax, the fastest other
implementation in JAX that was found (jitted here). All pose the same synthetic file in MANO's layout; no MANO data is
involved. Neither peer knows the 21 keypoints without the mesh, so theirs are picked from it: that row says what it is
worth not to need a mesh. Times are seen from Python, each call waited for; ratios compare calls of the same round.

Exits non-zero where jhand differs from smplx or from float64 numpy by more than `TOLERANCE`, is below `SLACK` of a
goal, or slower than smplfitter or to compile by as much. The packages are those of benchmarks/requirements.txt.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import timing  # before torch and jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np
import smplx  # ty: ignore[import-not-found]
import torch  # ty: ignore[import-not-found]
from smplfitter.jax import BodyModel  # ty: ignore[import-not-found]

from jhand.hand.files import load_hand
from jhand.hand.kinematics import forward, joints, keypoints, pose_hand, shape_hand, skin
from jhand.hand.landmark_sets import keypoint_landmarks, landmarks
from jhand.hand.model import HandModel, HandParams

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.hand import mano_reference
from tests.hand.mano_files import hand_arrays, write_clean

FIELDS = {"global_orient": 3, "hand_pose": 45, "betas": 10, "transl": 3}
QUANTITIES = ("mesh", "mesh + gradient", "keypoints", "keypoints + gradient")
BATCHES = (1, 64, 1024, 8192)
GOALS = {  # how many times faster than smplx
    "mesh": {1: 5, 64: 4, 1024: 4, 8192: 4},
    "mesh + gradient": {1: 8, 64: 4, 1024: 2.5, 8192: 3},
    "keypoints": {64: 25, 1024: 40},
    "keypoints + gradient": {64: 20, 1024: 20},
}
COMPILE_GOAL = 4.0  # seconds
SLACK = 0.7  # machines are noisy
TOLERANCE = 1e-6  # metres
FOLDER = Path(__file__).parent / "results"


def random_params(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    widths = {"global_orient": 0.5, "hand_pose": 0.4, "betas": 1.0, "transl": 0.5}
    return {name: rng.normal(0, widths[name], (batch, n)).astype(np.float32) for name, n in FIELDS.items()}


def hand_params(values: dict[str, np.ndarray]) -> HandParams:
    fields = {name: jnp.asarray(value) for name, value in values.items()}
    return HandParams(**fields | {"hand_pose": fields["hand_pose"].reshape(-1, 15, 3)})


def jhand_call(hand: HandModel, quantity: str, values: dict[str, np.ndarray]) -> Callable[[], object]:
    params = hand_params(values)
    points = forward if quantity.startswith("mesh") else keypoints
    call = with_gradient(points) if "gradient" in quantity else points
    return lambda: jax.block_until_ready(call(hand, params))


def with_gradient(points: Callable) -> Callable:
    """Value and gradient, with respect to all parameters, of the sum of squared coordinates."""

    def loss(params: HandParams, hand: HandModel) -> jax.Array:
        found = points(hand, params)
        return jnp.sum((found.vertices if points is forward else found) ** 2)

    both = jax.jit(jax.value_and_grad(loss))
    return lambda hand, params: both(params, hand)


def smplx_call(
    model: smplx.MANO, tips: tuple[int, ...], threads: int, quantity: str, values: dict[str, np.ndarray]
) -> Callable[[], object]:
    params = {name: torch.tensor(value) for name, value in values.items()}

    def points() -> torch.Tensor:
        found = model(**params)
        if quantity.startswith("mesh"):
            return found.vertices
        return torch.cat([found.joints, found.vertices[:, tips]], 1)

    def forwards() -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            points()

    def forwards_and_backwards() -> None:
        torch.set_num_threads(threads)
        for value in params.values():
            value.requires_grad_().grad = None
        (points() ** 2).sum().backward()

    return forwards_and_backwards if "gradient" in quantity else forwards


def smplfitter_call(
    model: BodyModel, tips: tuple[int, ...], quantity: str, values: dict[str, np.ndarray]
) -> Callable[[], object]:
    pose = jnp.concatenate([values["global_orient"], values["hand_pose"]], 1)
    arguments = (pose, jnp.asarray(values["betas"]), jnp.asarray(values["transl"]))

    def points(pose: jax.Array, betas: jax.Array, transl: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = model(pose, betas, transl)
        if quantity.startswith("mesh"):
            return found["vertices"], found["joints"]
        picked = jnp.concatenate([found["joints"], found["vertices"][:, tips, :]], 1)
        return picked, picked

    def loss(*arguments: jax.Array) -> jax.Array:
        return jnp.sum(points(*arguments)[0] ** 2)

    call = jax.jit(jax.value_and_grad(loss, (0, 1, 2)) if "gradient" in quantity else points)
    return lambda: jax.block_until_ready(call(*arguments))


def measure_speed(
    hand: HandModel, torch_model: smplx.MANO, fitter: BodyModel, batches: tuple[int, ...], quick: bool
) -> list[dict]:
    rows = []
    for quantity in QUANTITIES:
        for batch in batches:
            values = random_params(batch)
            times = timing.interleave(
                {
                    "jhand": jhand_call(hand, quantity, values),
                    "smplx, 1 thread": smplx_call(torch_model, hand.tips, 1, quantity, values),
                    "smplx, 2 threads": smplx_call(torch_model, hand.tips, 2, quantity, values),
                    "smplfitter": smplfitter_call(fitter, hand.tips, quantity, values),
                },
                rounds=3 if quick else 5 if batch > 4000 else 11,
                seconds=0.1 if quick else 0.2,
            )
            fastest = np.minimum(times["smplx, 1 thread"], times["smplx, 2 threads"])
            row = {
                "quantity": quantity,
                "batch": batch,
                "goal": GOALS[quantity].get(batch),
                "over_smplx": vars(timing.Spread.of(fastest / times["jhand"])),
                "over_smplfitter": vars(timing.Spread.of(times["smplfitter"] / times["jhand"])),
                "microseconds": {name: vars(timing.Spread.of(1e6 * t)) for name, t in times.items()},
            }
            print(markdown_row(row), flush=True)
            rows.append(row)
    return rows


def measure_compilation(hand: HandModel) -> dict[str, float]:
    """Seconds to trace and compile each public function for 1024 hands, from nothing."""
    params = hand_params(random_params(1024))
    shaped = shape_hand(hand, params.betas)
    pose = (shaped.joints, params.global_orient, params.hand_pose, params.transl)
    posed = pose_hand(*pose)
    functions = {
        "forward": (forward, hand, params),
        "forward + gradient": (with_gradient(forward), hand, params),
        "keypoints": (keypoints, hand, params),
        "keypoints + gradient": (with_gradient(keypoints), hand, params),
        "joints": (joints, hand, params),
        "landmarks": (landmarks, hand, params, keypoint_landmarks(hand)),
        "shape_hand": (shape_hand, hand, params.betas),
        "pose_hand": (pose_hand, *pose),
        "skin": (skin, hand, shaped, posed),
    }
    seconds = {}
    for name, (function, *arguments) in functions.items():
        jax.clear_caches()
        lowering = jax.jit(function)
        start = time.perf_counter()
        lowering.lower(*arguments).compile()
        seconds[name] = time.perf_counter() - start
    return seconds


def measure_accuracy(hand: HandModel, torch_model: smplx.MANO, arrays: dict) -> dict[str, float]:
    """Largest differences over 64 hands, all points and coordinates, metres."""
    values = random_params(64)
    mesh = jax.tree.map(lambda x: np.asarray(x, np.float64), forward(hand, hand_params(values)))
    with torch.no_grad():
        single = torch_model(**{name: torch.tensor(value) for name, value in values.items()})
    double = {name: value.astype(np.float64) for name, value in values.items()}
    double["hand_pose"] = double["hand_pose"].reshape(-1, 15, 3)
    exact = [mano_reference.mano(arrays, **{name: value[i] for name, value in double.items()}) for i in range(64)]
    exact_vertices, exact_joints = (np.stack(points) for points in zip(*exact, strict=True))
    exact_keypoints = [mano_reference.keypoints(*one, hand.tips) for one in exact]
    largest = lambda a, b: float(np.abs(a - np.asarray(b)).max())  # noqa: E731
    return {
        "vertices_to_smplx": largest(mesh.vertices, single.vertices),
        "joints_to_smplx": largest(mesh.joints, single.joints),
        "vertices_to_float64": largest(mesh.vertices, exact_vertices),
        "joints_to_float64": largest(mesh.joints, exact_joints),
        "keypoints_to_float64": largest(mesh.keypoints, exact_keypoints),
        "keypoints_alone_to_float64": largest(keypoints(hand, hand_params(values)), exact_keypoints),
        "smplx_vertices_to_float64": largest(single.vertices.numpy(), exact_vertices),
    }


def markdown_row(row: dict) -> str:
    ratio = lambda r: f"{r['median']:.1f} [{r['low']:.1f}..{r['high']:.1f}]"  # noqa: E731
    own = row["microseconds"]["jhand"]["median"]
    cells = [row["quantity"], row["batch"], ratio(row["over_smplx"]), row["goal"] or "", ratio(row["over_smplfitter"])]
    return f"| {' | '.join(map(str, cells))} | {own:.0f} | {own / row['batch']:.2f} |"


def markdown(report: dict) -> str:
    lines = [
        "Speed of jhand's kinematics as a multiple of its peers': median [lowest..highest] over rounds.",
        f"{report['machine']}. Written by benchmarks/kinematics.py, which says what is compared.",
        "",
        "| | hands | over smplx | goal | over smplfitter.jax | µs a call | µs a hand |",
        "|---|---|---|---|---|---|---|",
        *map(markdown_row, report["speed"]),
        "",
        f"| to trace and compile | seconds (goal {COMPILE_GOAL:.0f}) |",
        "|---|---|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in report["compile_seconds"].items()),
        "",
        "| largest difference | metres |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {metres:.1e} |" for name, metres in report["largest_difference_m"].items()),
    ]
    return "\n".join(lines) + "\n"


def failures(report: dict) -> list[str]:
    found = [f"{name}: {x:.1e} m" for name, x in report["largest_difference_m"].items() if not x <= TOLERANCE]
    for row in report["speed"]:
        name = f"{row['quantity']} of {row['batch']}"
        over_smplx, over_smplfitter = row["over_smplx"]["median"], row["over_smplfitter"]["median"]
        if row["goal"] and over_smplx < SLACK * row["goal"]:
            found.append(f"{name}: {over_smplx:.1f} times smplx, goal {row['goal']}")
        if over_smplfitter < SLACK:
            found.append(f"{name}: {over_smplfitter:.1f} times smplfitter, goal 1")
    for name, seconds in report["compile_seconds"].items():
        if seconds > COMPILE_GOAL / SLACK:
            found.append(f"{name}: {seconds:.1f} s to compile, goal {COMPILE_GOAL:.0f}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 64, few rounds, nothing written")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    jax.config.update("jax_enable_compilation_cache", False)

    arrays = hand_arrays(0)
    with tempfile.TemporaryDirectory() as folder:
        path = write_clean(Path(folder) / "MANO_RIGHT.pkl", arrays)
        hand = load_hand(path)
        torch_model = smplx.MANO(str(path), use_pca=False, flat_hand_mean=True)
        fitter = BodyModel("mano", model_root=folder)
    report = {
        "largest_difference_m": measure_accuracy(hand, torch_model, arrays),
        "compile_seconds": measure_compilation(hand),
        "speed": measure_speed(hand, torch_model, fitter, BATCHES[:2] if quick else BATCHES, quick),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "versions": {name: version(name) for name in ("jax", "numpy", "smplfitter", "smplx", "torch")},
    }
    print(markdown(report))
    if not quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "kinematics.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "kinematics.md").write_text(markdown(report))
    missed = failures(report)
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
