"""Experiments whose system solves rather than learns: problems with known answers, claims, one command line for all.

    python -m experiments.dynhamr solve  --preset cpu --seed 0      one variant on the problems of one seed: its scores
    python -m experiments.dynhamr claims --preset cpu --seeds 3     the claims: both sides of each, verdict, result file
    python -m experiments.dynhamr table  --preset cpu --seeds 3     every metric of every variant
    ... --smoke                                                     two problems, to see that it runs

As `jhand.experiment` has it for systems that are trained: what is done is kept in a folder and not done again.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jhand.claims import Claim, Result, Table
from jhand.compile_cache import enable_compile_cache
from jhand.hand import HandModel, load_hand
from jhand.judging import (
    Measures,
    RunOptions,
    budget,
    chosen_claims,
    chosen_variant,
    commit,
    judge,
    preset_of,
    run_folder,
    show_result,
    show_table,
    tabulate,
    variants_of,
)
from jhand.train import ModelCard, Stage, load_weights, save_weights, train
from jhand.train.feeds import Batches
from jhand.train.weights import versions

Metric = Callable[[Any, Any, HandModel], jax.Array]
"""`(outputs, truth, hand) -> (N,)`, one number for each problem, NaN where it has none."""


@dataclass(frozen=True)
class Problems:
    """How large an experiment is."""

    config: Any
    """Of the system."""
    number: int
    """Of the problems of a seed, even: the second half is timed, when everything is compiled."""
    scene: Any = None
    """Of what makes the problems."""
    smoke: Any = None
    """A smaller configuration for `--smoke`."""

    def __post_init__(self) -> None:
        if self.number < 2 or self.number % 2:
            raise ValueError(f"number: expected an even number of problems, got {self.number}")


@dataclass(frozen=True)
class SolveExperiment:
    """A system that solves, what its paper claims, and how that is looked at."""

    system: ModuleType
    """With `solve(inputs, config, hand) -> outputs`."""
    presets: Mapping[str, Problems]
    problems: Callable[[int, Problems, Path], tuple[Any, Any]]
    """`(seed, preset, folder) -> (inputs, truth)`, all leaves with an axis of problems first; the first line of its
    docstring says what they are. In the folder it keeps what stands in for trained networks."""
    metrics: Mapping[str, Metric]
    units: Mapping[str, tuple[str, float]]
    """By metric: the unit it is reported in, and how many of it one is."""
    baseline: Callable[[Any, Any, HandModel], Any]
    """`(inputs, truth, hand) -> outputs`, or what of them the metrics look at: a trivial answer."""
    claims: Sequence[Claim]
    stand_ins: Sequence[str] = ()
    """What stands for a frozen part of the paper that cannot be had."""

    @property
    def name(self) -> str:
        """The system's."""
        return self.system.__name__.rpartition(".")[2]


def run_claim(experiment: SolveExperiment, claim: Claim, options: RunOptions) -> Result:
    """Both sides of a claim over all seeds, its verdict, and its result file."""
    return judge(experiment, claim, options, measures(experiment, options))


def run_table(experiment: SolveExperiment, options: RunOptions) -> Table:
    """All variants of all claims over all seeds: every metric of each, and the file of the table."""
    return tabulate(experiment, options, measures(experiment, options))


def measures(experiment: SolveExperiment, options: RunOptions) -> Measures:
    """How the numbers of variants and of the trivial answer come about."""
    preset: Problems = preset_of(experiment, options)
    if options.smoke:
        preset = replace(preset, number=2, config=preset.smoke or preset.config)
    hand, variants = load_hand(), variants_of(experiment)
    folder = options.folder / experiment.name / ("parts-smoke" if options.smoke else "parts")

    @lru_cache(maxsize=1)
    def problems(seed: int) -> tuple[Any, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        return experiment.problems(seed, preset, folder)

    def of(variant: str, seed: int) -> dict[str, Any]:
        config = replace(preset.config, **variants[variant])
        known_by = {**budget(preset), "config": asdict(config), "variant": variant}
        done = run_folder(experiment, options, variant, seed, known_by) / "result.json"
        if done.is_file():
            return json.loads(done.read_text())
        start = time.perf_counter()
        inputs, truth = problems(seed)
        outputs, milliseconds = _solved(experiment, inputs, config, hand)
        answer = experiment.baseline(inputs, truth, hand)
        scores = {}
        for name, metric in experiment.metrics.items():
            each = np.asarray(metric(outputs, truth, hand))
            lost = np.isnan(each) & ~np.isnan(metric(answer, truth, hand))
            if lost.any():  # a mean over the others would favour what fails
                raise ValueError(
                    f"{name}: expected a number wherever the trivial answer has one, got NaN from {variant} "
                    f"for problems {np.flatnonzero(lost)} of seed {seed}; a solver is to return its best answer"
                )
            scores[name] = _mean(each)
        seconds = round(time.perf_counter() - start, 1)
        result = scores | {"milliseconds": round(milliseconds, 3), "seconds": seconds}
        done.parent.mkdir(parents=True, exist_ok=True)
        about = {**known_by, "seed": seed, "commit": commit(), **versions()}
        (done.parent / "run.json").write_text(json.dumps(about, indent=1, default=repr) + "\n")
        done.write_text(json.dumps(result, indent=1) + "\n")
        return result

    def trivial() -> dict[str, float]:
        inputs, truth = problems(0)
        answer = experiment.baseline(inputs, truth, hand)
        return {name: _mean(metric(answer, truth, hand)) for name, metric in experiment.metrics.items()}

    said = (experiment.problems.__doc__ or "").strip().split("\n")[0].rstrip(".")
    return Measures(of, trivial, budget(preset), f"{said}, {preset.number} of each seed")


def trained_once(
    folder: Path,
    known_by: str,
    init: Callable[[jax.Array], dict[str, Any]],
    stage: Stage,
    batches: Callable[[], Batches],
    card: ModelCard,
) -> dict[str, Any]:
    """Parameters of what stands in for a trained network: trained once, then read.

    Args:
        folder: of the problems, where they are kept.
        known_by: a name that says all that the training depends on.
        init: `key -> parameters`, a nested dict of arrays of any shape (...,).
        stage: of the training, which is the only one.
        batches: makes what it is trained on; asked for only where nothing is kept.
        card: of the weights.

    Returns:
        The averaged parameters.
    """
    variables = lambda key: {"params": init(key), "stats": {}}  # noqa: E731
    weights = folder / known_by
    if not weights.is_dir():
        state = train(jax.random.key(0), variables, (stage,), batches(), folder=folder / f"training-{known_by}")
        save_weights(weights, {"params": state.averaged["params"], "stats": {}}, card)
    return load_weights(weights, like=jax.eval_shape(variables, jax.random.key(0)))["params"]


def _solved(experiment: SolveExperiment, inputs: Any, config: Any, hand: HandModel) -> tuple[Any, float]:
    """Outputs, and the milliseconds of one problem, compiling aside."""
    half = jax.tree.leaves(inputs)[0].shape[0] // 2
    parts, seconds = [], 0.0
    for part in (slice(None, half), slice(half, None)):
        start = time.perf_counter()
        one = jax.tree.map(lambda leaf, part=part: leaf[part], inputs)
        parts.append(jax.block_until_ready(experiment.system.solve(one, config, hand)))
        seconds = time.perf_counter() - start
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), 1000 * seconds / half


def _mean(each: Any) -> float:
    """Over problems that have the metric, NaN where none has."""
    found = np.asarray(each)[~np.isnan(each)]
    return float(np.mean(found)) if len(found) else float("nan")


def main(experiment: SolveExperiment, arguments: Sequence[str] | None = None) -> None:
    """The command line of an experiment script."""
    import tyro

    enable_compile_cache()

    def solve_one(options: tyro.conf.OmitArgPrefixes[RunOptions]) -> None:
        """Solve the problems of one seed with one variant, and score it."""
        variant, _ = chosen_variant(experiment, options)
        found = measures(experiment, options).of(variant, options.seed)
        for name in experiment.metrics:
            unit, scale = experiment.units[name]
            print(f"{variant}, seed {options.seed}: {name} {scale * found[name]:.4g} {unit}")

    def claims(options: tyro.conf.OmitArgPrefixes[RunOptions]) -> None:
        """Run claims: both sides of each on the problems of all seeds, and their verdicts."""
        for claim in chosen_claims(experiment, options):
            show_result(run_claim(experiment, claim, options))

    def table(options: tyro.conf.OmitArgPrefixes[RunOptions]) -> None:
        """Solve with all variants of all claims, for all seeds: every metric of each."""
        show_table(run_table(experiment, options))

    tyro.extras.subcommand_cli_from_dict({"solve": solve_one, "claims": claims, "table": table}, args=arguments)
