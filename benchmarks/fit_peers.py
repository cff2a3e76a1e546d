"""Fits beside their peers: benchmarks/results/fit_peers.json and .md.

    python benchmarks/fit_peers.py            about 12 minutes on two cores
    python benchmarks/fit_peers.py --quick    a few minutes; prints, and writes nothing

Every solver gets the 21 exact keypoints of the same hands (the built-in hand, written as a MANO pickle) and starts at
the zero pose with the wrist in its place. What is measured is the time until the mean keypoint error is below 5, 1 and
0.1 mm, for one hand (mean over `SINGLES` of them, one at a time) and for a batch of 256; compiling is not counted.
Solvers take turns in rounds whose order rotates, in one process; torch has as many threads as serve it best.

jhand              `fit`, as users call it: all checks and starts included; sigma 0.1 mm
jax Adam           the same Adam as smplx's, compiled, on jhand's keypoints: how much of the gain is the engine
SciPy              least_squares (trf) on jhand's residuals and Jacobian, compiled
smplx Adam         torch, eager; the better of two learning rates for each error
smplx LBFGS        torch, strong Wolfe
body-models Adam   body-models' MANO in jax, compiled, the same Adam, started 1e-3 from the zero pose, where its
                   gradient is not a number
smplfitter         its own algorithm, compiled; it needs, and is given, all 778 vertices and the 16 joints; shapes held
                   by 1e-3, since it has no answer where shape directions are zero
eden-mpi-ik        numpy, on keypoints of its own model: no pose correctives, all 45 components, no translation

The packages are those of benchmarks/requirements.txt. Exits non-zero where a goal is missed by more than `SLACK`.
"""

import argparse
import json
import os
import pickle
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import timing  # before torch and jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
import smplx  # ty: ignore[import-not-found]
import torch  # ty: ignore[import-not-found]
from body_models.mano.jax import MANO  # ty: ignore[import-not-found]
from mpi_ik import KinematicModel, KinematicPCAWrapper, MANOArmature, Solver  # ty: ignore[import-not-found]
from smplfitter.jax import BodyFitter, BodyModel  # ty: ignore[import-not-found]

from jhand.fitting import FitSettings, fit, fit_sequence
from jhand.hand import HandModel, HandParams, keypoints, load_hand, save_hand

BATCHES = (1, 256)
SINGLES = 4  # hands that are fitted one at a time
THRESHOLDS_MM = (5.0, 1.0, 0.1)
SETTINGS = FitSettings(sigma_3d=1e-4)  # exact points: what they say outweighs every prior
ITERATIONS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30)
LEARNING_RATES = (0.03, 0.1)  # 0.01 was slower to every error
ROUNDS = 3
REPEATS = 5  # of calls that take milliseconds; their median counts
SLACK = 0.7  # machines are noisy
GOALS = {  # (peer, batch): how many times faster to 1 mm
    ("smplx Adam", 1): 500,
    ("smplx Adam", 256): 200,
    ("SciPy", 1): 50,
    ("SciPy", 256): 50,
}
GOAL_ITERATIONS, GOAL_SEQUENCE = 5, 3.0  # to 1 mm; seconds for 1000 frames
FOLDER = Path(__file__).parent / "results"
PRIOR = 1e-4  # weight of the squared pose and shape beside squared errors in units of a millimetre, for all of Adam


def random_hands(hand: HandModel, num: int, seed: int) -> tuple[HandParams, jax.Array]:
    """Turned by up to a radian, fingers half closed at random, shapes of people."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=(num, 3))
    pose = rng.normal(0, 0.2, (num, 15, 3))
    closed = rng.uniform(0, 0.6, (num, 15, 1)) * np.asarray(hand.axes)[None, :, :, 0]
    params = HandParams(
        jnp.asarray(axis / np.linalg.norm(axis, axis=1, keepdims=True) * rng.uniform(0, 1, (num, 1)), jnp.float32),
        jnp.asarray(pose + closed, jnp.float32),
        jnp.asarray(rng.normal(size=(num, hand.num_betas)), jnp.float32),
        jnp.asarray(rng.normal(0, 0.2, (num, 3)), jnp.float32),
    )
    return params, keypoints(hand, params)


def error_mm(found: object, target: object) -> float:
    """Mean keypoint error of all hands."""
    return 1e3 * float(np.linalg.norm(np.asarray(found) - np.asarray(target), axis=-1).mean())


Curve = list[tuple[float, float]]  # seconds, millimetres


def jhand_curve(hand: HandModel, target: jax.Array) -> Curve:
    """One point per number of iterations, each from a call of its own."""
    curve = []
    for iterations in ITERATIONS:
        seconds = []
        for _ in range(REPEATS):
            start = perf_counter()
            found = jax.block_until_ready(fit(hand, keypoints3d=target, settings=SETTINGS, iterations=iterations))
            seconds.append(perf_counter() - start)
        curve.append((float(np.median(seconds)), error_mm(found.keypoints, target)))
    return curve


def adam_in_jax(points: Callable, start: dict, target: jax.Array, rate: float, steps: int, every: int) -> Curve:
    """Adam, `every` steps in one compiled call; the error is read between the calls, off the clock."""
    optimiser = optax.adam(rate)

    def loss(params: dict) -> jax.Array:
        squared = jnp.sum(jnp.mean(jnp.sum(jnp.square(1e3 * (points(params) - target)), -1), -1))
        return squared + PRIOR * (jnp.sum(jnp.square(params["hand_pose"])) + jnp.sum(jnp.square(params["betas"])))

    @jax.jit
    def advance(params: dict, state: object) -> tuple[dict, object]:
        def step(_: int, carry: tuple) -> tuple:
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, every, step, (params, state))

    params, state = start, optimiser.init(start)
    jax.block_until_ready(advance(params, state))  # compiles
    curve, clock = [], 0.0
    for _ in range(steps // every):
        begin = perf_counter()
        params, state = jax.block_until_ready(advance(params, state))
        clock += perf_counter() - begin
        curve.append((clock, error_mm(points(params), target)))
        if curve[-1][1] < THRESHOLDS_MM[-1]:
            break
    return curve


def at_the_wrist(target: np.ndarray, wrist: np.ndarray, num_betas: int = 10) -> dict[str, np.ndarray]:
    """The zero pose of mean shape, its wrist where the target's is."""
    n = target.shape[0]
    return {
        "global_orient": np.zeros((n, 3), np.float32),
        "hand_pose": np.zeros((n, 45), np.float32),
        "betas": np.zeros((n, num_betas), np.float32),
        "transl": np.asarray(target[:, 0] - wrist, np.float32),
    }


def smplx_points(model: smplx.MANO, tips: tuple[int, ...], params: dict[str, torch.Tensor]) -> torch.Tensor:
    found = model(**params)
    joints, ends = found.joints, found.vertices[:, tips]
    order = [(0, joints)] + [(j, joints) for j in (13, 14, 15)] + [(0, ends)]
    for tip, first in ((1, 1), (2, 4), (3, 10), (4, 7)):
        order += [(first, joints), (first + 1, joints), (first + 2, joints), (tip, ends)]
    return torch.stack([points[:, index] for index, points in order], 1)


def smplx_curve(
    model: smplx.MANO, tips: tuple[int, ...], target: np.ndarray, start: dict, rate: float | None, budget: float
) -> Curve:
    """Adam with a learning rate, or LBFGS without one, until 0.1 mm or the budget in seconds."""
    params = {name: torch.tensor(value).requires_grad_() for name, value in start.items()}
    goal = torch.tensor(np.asarray(target))
    last = {}

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        points = smplx_points(model, tips, params)
        last["error"] = 1e3 * float(torch.linalg.norm(points.detach() - goal, dim=-1).mean())
        value = (1e3 * (points - goal)).square().sum(-1).mean(-1).sum()
        value = value + PRIOR * (params["hand_pose"].square().sum() + params["betas"].square().sum())
        value.backward()
        return value

    leaves = list(params.values())
    if rate is None:
        optimiser = torch.optim.LBFGS(leaves, lr=1.0, max_iter=4, history_size=20, line_search_fn="strong_wolfe")
    else:
        optimiser = torch.optim.Adam(leaves, lr=rate)
    curve, clock, stuck = [], 0.0, 0
    while clock < budget and stuck < 20:
        begin = perf_counter()
        optimiser.step(loss)
        clock += perf_counter() - begin
        stuck = stuck + 1 if rate is None and curve and last["error"] >= curve[-1][1] else 0
        curve.append((clock, last["error"]))
        if last["error"] < THRESHOLDS_MM[-1]:
            break
    return curve


def scipy_functions(hand: HandModel) -> tuple[Callable, Callable]:
    """jhand's residuals in sigmas (points, pose prior, shape prior) and their Jacobian, compiled, of one hand."""
    to_coefficients = np.asarray(hand.hands_components) / np.asarray(hand.hands_sd)[:, None]

    def residuals(x: jax.Array, target: jax.Array) -> jax.Array:
        pose = x[3:48]
        params = HandParams(x[:3], pose.reshape(15, 3), x[48:-3], x[-3:])
        points = (keypoints(hand, params) - target) / SETTINGS.sigma_3d
        prior = jnp.matmul(to_coefficients, pose - hand.hands_mean, precision="highest")
        return jnp.concatenate([points.reshape(-1), prior, x[48:-3]])

    return jax.jit(residuals), jax.jit(jax.jacfwd(residuals))


def scipy_curve(functions: tuple[Callable, Callable], points: Callable, target: np.ndarray, start: dict) -> Curve:
    """One hand after the other; the curve of a batch is that of its hands end to end, each stopped at the same step."""
    residuals, jacobian = functions

    def one(x0: np.ndarray, goal: jax.Array) -> Curve:
        curve: Curve = []
        paused, begin = 0.0, perf_counter()

        def note(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            nonlocal paused
            stop = perf_counter()
            error = error_mm(points(jnp.asarray(intermediate_result.x)), goal)
            curve.append((stop - begin - paused, error))
            paused += perf_counter() - stop

        scipy.optimize.least_squares(
            lambda x: np.asarray(residuals(x, goal), float),
            x0.astype(float),
            lambda x: np.asarray(jacobian(x, goal), float),
            method="trf",
            max_nfev=100,
            callback=note,
        )
        return curve

    order = ("global_orient", "hand_pose", "betas", "transl")
    x0 = np.concatenate([start[name] for name in order], 1)
    curves = []
    for x, goal in zip(x0, jnp.asarray(target), strict=True):
        again = np.array([one(x, goal) for _ in range(REPEATS)])  # (repeats, steps, 2)
        curves.append([(float(t), float(e)) for t, e in np.median(again, 0)])
    return curves_end_to_end(curves)


def curves_end_to_end(curves: Sequence[Curve]) -> Curve:
    """Total seconds and mean error of hands fitted one after the other, by step; a hand that has ended waits."""
    steps = max(map(len, curves))
    padded = np.array([c + [c[-1]] * (steps - len(c)) for c in curves])  # (hands, steps, 2)
    return list(zip(padded[..., 0].sum(0).tolist(), padded[..., 1].mean(0).tolist(), strict=True))


def smplfitter_curve(
    fitter: BodyFitter, model: BodyModel, calls: dict, vertices: jax.Array, joints: jax.Array
) -> Curve:
    curve = []
    for iterations in (1, 2, 3, 5, 10, 20):
        call = calls.setdefault(
            iterations,
            jax.jit(
                partial(
                    fitter.fit,
                    num_iter=iterations,
                    beta_regularizer=1e-3,
                    requested_keys=["pose_rotvecs", "shape_betas", "trans"],
                )
            ),
        )
        jax.block_until_ready(call(vertices, joints))
        start = perf_counter()
        found = jax.block_until_ready(call(vertices, joints))
        seconds = perf_counter() - start
        mesh = model(found["pose_rotvecs"], found["shape_betas"], found["trans"])
        curve.append((seconds, error_mm(mesh["joints"], joints)))
    return curve


def eden_curve(model: KinematicModel, targets: np.ndarray) -> Curve:
    """Its Levenberg-Marquardt from zeros, stopped after some iterations; millimetres are its unit (scale 1000)."""
    curves = []
    for target in targets:
        curve = []
        for iterations in (1, 2, 5, 10, 30):
            wrapper = KinematicPCAWrapper(model, n_pose=45)
            solver = Solver(max_iter=iterations)
            start = perf_counter()
            found = solver.solve(wrapper, target)
            curve.append((perf_counter() - start, float(np.linalg.norm(wrapper.run(found) - target, axis=-1).mean())))
        curves.append(curve)
    return curves_end_to_end(curves)


def time_to(curve: Curve, threshold: float) -> float:
    """Seconds until the error is below a threshold (mm); infinite where it never is."""
    return min((seconds for seconds, error in curve if error < threshold), default=np.inf)


def measure(hand: HandModel, folder: Path, quick: bool) -> list[dict]:
    path = folder / "MANO_RIGHT.pkl"
    save_hand(hand, path)
    hand = load_hand(path)  # as smplx has it, joints by regressor
    torch_model = smplx.MANO(str(path), use_pca=False, flat_hand_mean=True)
    fit_model = BodyModel("mano", model_root=str(folder))
    fitter = BodyFitter(fit_model)
    other = MANO(model_path=path, flat_hand_mean=True)
    eden = eden_model(path, folder / "eden.pkl")
    wrist = np.asarray(hand.joint_basis[0, 0])
    one_point = jax.jit(lambda x: keypoints(hand, HandParams(x[:3], x[3:48].reshape(15, 3), x[48:-3], x[-3:])))
    scipy_parts = scipy_functions(hand)

    def jhand_points(params: dict) -> jax.Array:
        pose = params["hand_pose"].reshape(-1, 15, 3)
        return keypoints(hand, HandParams(params["global_orient"], pose, params["betas"], params["transl"]))

    def body_models_points(params: dict) -> jax.Array:
        arguments = dict(
            shape=params["betas"], wrist_rotation=params["global_orient"], global_translation=params["transl"]
        )
        pose = params["hand_pose"].reshape(-1, 15, 3)
        mesh = other.forward_vertices(pose, **arguments)
        joints = other.forward_skeleton(pose, **arguments)[..., :3, 3]
        ends = mesh[:, jnp.asarray(hand.tips)]
        fingers = [
            jnp.concatenate([joints[:, f : f + 3], ends[:, t : t + 1]], 1)
            for t, f in ((0, 13), (1, 1), (2, 4), (3, 10), (4, 7))
        ]
        return jnp.concatenate([joints[:, :1], *fingers], 1)

    def of_batch(batch: int) -> dict:
        num = SINGLES if batch == 1 else batch
        params, target = random_hands(hand, num, batch)
        groups = [slice(i, i + 1) for i in range(num)] if batch == 1 else [slice(0, num)]
        goal = np.asarray(target)
        starts = at_the_wrist(goal, wrist)
        mesh = fit_model(
            jnp.concatenate([params.global_orient, params.hand_pose.reshape(num, 45)], 1), params.betas, params.transl
        )
        theirs = eden_targets(eden, params)
        budget = (5.0 if batch == 1 else 20.0) if quick else (6.0 if batch == 1 else 40.0)
        start_of = lambda g: {name: value[g] for name, value in starts.items()}  # noqa: E731
        fitted = {}

        def one(solve: Callable[[slice], Curve], over: list[slice]) -> Curve:
            """Mean over hands by themselves: the curve of a typical one."""
            curves = [solve(g) for g in over]
            total = curves_end_to_end(curves)
            return [(seconds / len(curves), error) for seconds, error in total]

        def smplx_at(rate: float | None, threads: int) -> Callable[[], Curve]:
            def run() -> Curve:
                torch.set_num_threads(threads)
                return one(lambda g: smplx_curve(torch_model, hand.tips, goal[g], start_of(g), rate, budget), groups)

            return run

        def jax_adam(points: Callable, rate: float, off: float = 0.0, steps: int = 600) -> Callable[[], Curve]:
            def solve(g: slice) -> Curve:
                start = jax.tree.map(lambda a: jnp.asarray(a) + off, start_of(g))
                return adam_in_jax(points, start, target[g], rate, steps, 5)

            return lambda: one(solve, groups)

        threads = fastest_threads(torch_model, hand.tips, goal[groups[0]], start_of(groups[0]))
        few = groups if batch == 1 else [slice(i, i + 1) for i in range(8)]  # of slow ones some, their time scaled
        solvers: dict[str, Callable[[], Curve]] = {
            "jhand": lambda: one(lambda g: jhand_curve(hand, target[g]), groups),
            "SciPy": lambda: [
                (seconds * batch, error)
                for seconds, error in one(lambda g: scipy_curve(scipy_parts, one_point, goal[g], start_of(g)), few)
            ],
            **{f"jax Adam {rate}": jax_adam(jhand_points, rate, steps=1500) for rate in LEARNING_RATES},
            "body-models Adam 0.03": jax_adam(body_models_points, 0.03, off=1e-3, steps=250 if batch == 1 else 150),
            **{f"smplx Adam {rate}": smplx_at(rate, threads) for rate in LEARNING_RATES},
            "smplx LBFGS": smplx_at(None, threads),
            "smplfitter": lambda: one(
                lambda g: smplfitter_curve(fitter, fit_model, fitted, mesh["vertices"][g], mesh["joints"][g]), groups
            ),
            "eden-mpi-ik": lambda: [
                (seconds * batch, error)
                for seconds, error in one(lambda g: eden_curve(eden, theirs[g]), few if batch == 1 else few[:2])
            ],
        }
        for call in ("jhand", "SciPy", "smplfitter"):
            solvers[call]()  # compiles
        curves = {name: [] for name in solvers}
        for r in range(1 if quick else ROUNDS):
            names = list(solvers)
            turn = r % len(names)
            for name in names[turn:] + names[:turn]:
                begin = perf_counter()
                curves[name].append(solvers[name]())
                best = min(error for _, error in curves[name][-1])
                print(f"{batch:4d} {name:22s} {perf_counter() - begin:6.1f} s, best {best:.3g} mm", flush=True)
        return {"batch": batch, "threads": threads, "solvers": summary(curves)}

    return [of_batch(batch) for batch in BATCHES]


def fastest_threads(model: smplx.MANO, tips: tuple[int, ...], target: np.ndarray, start: dict) -> int:
    """The number of torch's threads with which the most steps of Adam fit into a second."""
    steps = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        smplx_curve(model, tips, target, start, 0.03, 0.2)
        steps[threads] = len(smplx_curve(model, tips, target, start, 0.03, 1.0))
    return max(steps, key=lambda threads: steps[threads])


def eden_model(path: Path, converted: Path) -> KinematicModel:
    data = pickle.loads(path.read_bytes())  # our own, written above
    entries = {
        "pose_pca_basis": np.array(data["hands_components"]),
        "pose_pca_mean": np.array(data["hands_mean"]),
        "J_regressor": np.array(data["J_regressor"]),
        "skinning_weights": np.array(data["weights"]),
        "mesh_pose_basis": np.array(data["posedirs"]),
        "mesh_shape_basis": np.array(data["shapedirs"]),
        "mesh_template": np.array(data["v_template"]),
        "faces": np.array(data["f"]),
        "parents": [None, *np.array(data["kintree_table"])[0][1:].tolist()],
    }
    converted.write_bytes(pickle.dumps(entries))
    return KinematicModel(converted, MANOArmature, scale=1000)


def eden_targets(model: KinematicModel, params: HandParams) -> np.ndarray:
    """Keypoints of the same hands in its own model, millimetres: it has no translation."""
    found = []
    for orient, pose, betas in zip(params.global_orient, params.hand_pose, params.betas, strict=True):
        pose_abs = np.concatenate([np.asarray(orient)[None], np.asarray(pose)], 0).astype(float)
        found.append(model.set_params(pose_abs=pose_abs, shape=np.asarray(betas, float))[1])
    return np.stack(found)


def summary(curves: dict[str, list[Curve]]) -> dict[str, dict]:
    """Per solver (the best of its learning rates for each threshold): seconds to each error, best error reached."""
    groups: dict[str, list[str]] = {}
    for name in curves:
        groups.setdefault(name.rstrip("0123456789. "), []).append(name)
    found = {}
    for group, members in groups.items():
        to = {}
        for threshold in THRESHOLDS_MM:
            seconds = np.array([[time_to(curve, threshold) for curve in curves[name]] for name in members])
            best = seconds[np.argmin(np.median(seconds, 1))]
            to[f"{threshold:g} mm"] = vars(timing.Spread.of(best)) if np.isfinite(np.median(best)) else None
        best_mm = min(error for name in members for curve in curves[name] for _, error in curve)
        longest = max(curve[-1][0] for name in members for curve in curves[name])
        found[group] = {"seconds_to": to, "best_mm": best_mm, "seconds_in_all": longest}
    return found


def measure_iterations(hand: HandModel) -> dict:
    """Of 256 hands: the mean error after each iteration, and the first below 1 mm."""
    _, target = random_hands(hand, 256, 1)
    errors = {
        n: error_mm(fit(hand, keypoints3d=target, settings=SETTINGS, iterations=n).keypoints, target)
        for n in range(1, 11)
    }
    reached = [n for n, error in errors.items() if error < 1]
    return {"mean_mm_after": errors, "to_1_mm": min(reached) if reached else None}


def measure_sequence(hand: HandModel, rounds: int) -> dict:
    """1000 frames of one shape, keypoints with 2 mm of noise."""
    rng = np.random.default_rng(0)
    t = np.arange(1000)[:, None] / 60
    swing = (
        0.5
        * (1 - np.cos(2 * np.pi * (t * rng.uniform(0.3, 1.0, 15) + rng.uniform(0, 1, 15))))
        * rng.uniform(0.2, 1.0, 15)
    )
    params = HandParams(
        jnp.asarray(0.5 * np.sin(t * np.array([1.0, 0.7, 1.3])), jnp.float32),
        jnp.asarray(swing[..., None] * np.asarray(hand.axes)[:, :, 0], jnp.float32),
        jnp.asarray(rng.normal(size=10), jnp.float32),
        jnp.asarray(0.1 * np.sin(t * np.array([0.9, 1.1, 0.6])), jnp.float32),
    )
    target = keypoints(hand, params)
    noisy = target + 0.002 * jax.random.normal(jax.random.key(0), target.shape)
    call = lambda: jax.block_until_ready(fit_sequence(hand, keypoints3d=noisy, fps=60.0))  # noqa: E731
    found = call()
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return {
        "frames": 1000,
        "seconds": vars(timing.Spread.of(np.array(seconds))),
        "error_mm": error_mm(found.keypoints, target),
    }


def over(row: dict, peer: str, error: str) -> float | None:
    """How many times longer a peer takes than jhand; None where it does not get there."""
    theirs, ours = (row["solvers"][name]["seconds_to"][error] for name in (peer, "jhand"))
    return theirs["median"] / ours["median"] if theirs and ours else None


def markdown_cell(solver: dict, ours: dict, error: str) -> str:
    own, theirs = ours["seconds_to"][error], solver["seconds_to"][error]
    if own is None:
        return "?"
    if theirs is None:
        return f"> {solver['seconds_in_all'] / own['median']:.3g}"
    median, low, high = (theirs[key] / own["median"] for key in ("median", "low", "high"))
    return f"{median:.3g} [{low:.3g}..{high:.3g}]"


def markdown(report: dict) -> str:
    lines = [
        "Time until the mean keypoint error is below 5, 1 and 0.1 mm, as a multiple of jhand's (`>`: not reached in",
        "the time that it was given). Written by benchmarks/fit_peers.py, which says what is compared.",
        f"{report['machine']}.",
        "",
    ]
    for row in report["speed"]:
        batch, ours = row["batch"], row["solvers"]["jhand"]
        milliseconds = {e: 1e3 * s["median"] for e, s in ours["seconds_to"].items() if s}
        lines += [
            f"**{batch} hand{'s at once' if batch > 1 else ''}** (torch: {row['threads']} threads). jhand: "
            + ", ".join(f"{ms:.1f} ms to {e}" for e, ms in milliseconds.items())
            + ".",
            "",
            "| | 5 mm | 1 mm | 0.1 mm | best, mm |",
            "|---|---|---|---|---|",
        ]
        for name, solver in row["solvers"].items():
            cells = [markdown_cell(solver, ours, error) for error in ours["seconds_to"]]
            lines.append(f"| {name} | {' | '.join(cells)} | {solver['best_mm']:.2g} |")
        both, algorithm = over(row, "smplx Adam", "1 mm"), over(row, "jax Adam", "1 mm")
        if both and algorithm:
            lines += [
                "",
                f"To 1 mm: the engine (the same Adam, compiled, without a mesh) {both / algorithm:.3g} times, "
                f"the algorithm {algorithm:.3g} times.",
            ]
        lines += [""]
    iterations, sequence = report["iterations"], report["sequence"]
    lines += [
        "Mean error of 256 hands after 1, 2, ... iterations, mm: "
        + ", ".join(f"{e:.3g}" for e in iterations["mean_mm_after"].values())
        + f". To 1 mm: {iterations['to_1_mm']} (goal {GOAL_ITERATIONS}).",
        "",
        f"A sequence of 1000 frames with one shape: {sequence['seconds']['median']:.2f} s once compiled (goal "
        f"{GOAL_SEQUENCE:.0f} s), {sequence['error_mm']:.2f} mm from the truth with 2 mm of noise.",
    ]
    return "\n".join(lines) + "\n"


def failures(report: dict) -> list[str]:
    found = []
    for (peer, batch), goal in GOALS.items():
        row = next(r for r in report["speed"] if r["batch"] == batch)
        ours, theirs = row["solvers"]["jhand"]["seconds_to"]["1 mm"], row["solvers"][peer]
        if ours is None:
            found.append(f"jhand does not reach 1 mm, batch {batch}")
            continue
        ratio = over(row, peer, "1 mm") or theirs["seconds_in_all"] / ours["median"]
        if ratio < SLACK * goal:
            found.append(f"{peer}, batch {batch}: {ratio:.0f} times to 1 mm, goal {goal}")
    iterations = report["iterations"]["to_1_mm"]
    if iterations is None or iterations > GOAL_ITERATIONS:
        found.append(f"{iterations} iterations to 1 mm, goal {GOAL_ITERATIONS}")
    if report["sequence"]["seconds"]["median"] > GOAL_SEQUENCE / SLACK:
        found.append(f"{report['sequence']['seconds']['median']:.1f} s for 1000 frames, goal {GOAL_SEQUENCE}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, smaller budgets, nothing written")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    hand = load_hand()
    with tempfile.TemporaryDirectory() as folder:
        speed = measure(hand, Path(folder), quick)
    report = {
        "speed": speed,
        "iterations": measure_iterations(hand),
        "sequence": measure_sequence(hand, 1 if quick else ROUNDS),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "versions": {
            name: version(name)
            for name in ("jax", "numpy", "scipy", "torch", "smplx", "smplfitter", "body-models", "eden-mpi-ik", "optax")
        },
    }
    print(markdown(report))
    if not quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "fit_peers.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "fit_peers.md").write_text(markdown(report))
    missed = failures(report)
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
