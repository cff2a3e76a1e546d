"""What experiments share, whether their systems are trained or solve: options, budgets, verdicts, tables."""

import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from jhand.claims import (
    Claim,
    Result,
    Table,
    budget_sha,
    compare,
    statement_sha,
    table_of_variants,
    write_result,
    write_table,
)
from jhand.train.weights import versions


@dataclass(frozen=True)
class RunOptions:
    """What the command line of any experiment may change."""

    preset: str = "cpu"
    """One of the experiment's."""
    seed: int = 0
    """Of one run."""
    seeds: int = 3
    """How many a claim is run with, 0, 1, 2, ..."""
    variant: str = ""
    """Which one to run, by default the first of the primary claim."""
    claim: str = ""
    """Which claim to run, by default the primary one; `all` runs every one."""
    folder: Path = Path("out/runs")
    """Of the runs."""
    results: Path = Path("results")
    """Of the results of claims."""
    smoke: bool = False
    """A little of everything."""


@runtime_checkable
class Stated(Protocol):
    """What an experiment of any kind states."""

    @property
    def name(self) -> str: ...
    @property
    def presets(self) -> Mapping[str, Any]: ...
    @property
    def metrics(self) -> Mapping[str, Any]: ...
    @property
    def units(self) -> Mapping[str, tuple[str, float]]: ...
    @property
    def claims(self) -> Sequence[Claim]: ...
    @property
    def stand_ins(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Measures:
    """How an experiment's numbers come about."""

    of: Callable[[str, int], dict[str, Any]]
    """By variant and seed: metrics, `seconds`, and what else a result says of a variant."""
    trivial: Callable[[], dict[str, float]]
    """Metrics of the trivial answer."""
    budget: Mapping[str, Any]
    data: str
    """In words."""


def budget(preset: Any, data: str = "") -> dict[str, Any]:
    """What both sides of a claim have alike: a preset's fields, but for those that change no number."""

    def named(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: named(each) for name, each in value.items()}
        return f"{_module_of(value)}.{value.__qualname__}" if callable(value) else value

    fields = {name: value for name, value in asdict(preset).items() if name not in ("evaluate_every", "smoke")}
    if fields.get("held_out_world", ...) is None:  # the same world: nothing to say
        del fields["held_out_world"]
    return named(fields) | {"data": data}


def _module_of(function: Any) -> str:
    """By name, also where it is the script that runs: `python -m experiments.x` calls it `__main__`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if function.__module__ == "__main__" and spec is not None else function.__module__


def run_folder(experiment: Stated, options: RunOptions, variant: str, seed: int, known_by: Mapping[str, Any]) -> Path:
    """The folder of a run, which is known by all that it depends on."""
    sha = hashlib.sha256(json.dumps(known_by, sort_keys=True, default=repr).encode()).hexdigest()[:8]
    label = f"{options.preset}-smoke" if options.smoke else options.preset
    return options.folder / experiment.name / label / f"{variant}-{sha}" / f"seed{seed}"


def preset_of(experiment: Stated, options: RunOptions) -> Any:
    """The preset that is asked for.

    Raises:
        ValueError: it does not exist.
    """
    if options.preset not in experiment.presets:
        raise ValueError(f"preset: expected one of {', '.join(experiment.presets)}, got {options.preset!r}")
    return experiment.presets[options.preset]


def commit() -> str:
    """Of the code that runs, `+` where it was changed since; empty outside of a clone."""
    try:
        git = partial(subprocess.run, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
        return git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def judge(experiment: Stated, claim: Claim, options: RunOptions, measures: Measures) -> Result:
    """Both sides of a claim over all seeds, its verdict, and its result file."""
    seeds = list(range(options.seeds))
    unit, scale = experiment.units[claim.metric]
    values: dict[str, list[float]] = {name: [] for name in claim.compare}
    costs: dict[str, dict[str, Any]] = {}
    seconds = 0.0
    for seed in seeds:  # seed by seed, so that what is there after an interruption is paired
        for variant in claim.compare:
            found = measures.of(variant, seed)
            values[variant].append(scale * found[claim.metric])
            before = costs.get(variant, {}).get("seconds", 0.0)
            costs[variant] = {k: v for k, v in found.items() if k not in experiment.metrics}
            costs[variant] |= {"seconds": before + found["seconds"], "fields": dict(claim.variants[variant])}
            seconds += found["seconds"]
            print(f"{claim.name}: {variant}, seed {seed}: {scale * found[claim.metric]:.4g} {unit}", flush=True)
    ours, ablation = claim.compare
    trivial = scale * measures.trivial()[claim.metric]
    floor = trivial if claim.beats_trivial else None
    said = compare(values[ours], values[ablation], floor, lower_is_better=claim.lower_is_better)
    result = Result(
        claim=claim.name,
        statement=claim.statement,
        statement_sha=statement_sha(claim, measures.budget),
        system=experiment.name,
        preset=options.preset,
        metric=claim.metric,
        unit=unit,
        direction="lower" if claim.lower_is_better else "higher",
        compare=claim.compare,
        variants=costs,
        seeds=seeds,
        values=values,
        baseline=trivial,
        mean=dict(zip(claim.compare, said.means, strict=True)),
        sd=dict(zip(claim.compare, said.deviations, strict=True)),
        difference=said.difference,
        relative=said.relative,
        interval=said.interval,
        expected=claim.expected,
        verdict=said.verdict,
        primary=claim.primary,
        stand_ins=list(experiment.stand_ins),
        data=measures.data,
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        versions=versions(),
        commit=commit(),
        seconds=round(seconds, 1),
    )
    if not options.smoke:  # a little of everything says nothing
        print(write_result(options.results, result))
    return result


def tabulate(experiment: Stated, options: RunOptions, measures: Measures) -> Table:
    """Every metric of all variants over all seeds, and the file of the table."""
    seeds = list(range(options.seeds))
    variants = variants_of(experiment, options.preset)
    found = {variant: [measures.of(variant, seed) for seed in seeds] for variant in variants}

    def scaled(scores: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        return {name: [experiment.units[name][1] * one[name] for one in scores] for name in experiment.metrics}

    table = Table(
        system=experiment.name,
        preset=options.preset,
        units={name: experiment.units[name][0] for name in experiment.metrics},
        fields={name: dict(fields) for name, fields in variants.items()},
        seeds=seeds,
        values={name: scaled(scores) for name, scores in found.items()},
        milliseconds={name: statistics.median(one["milliseconds"] for one in each) for name, each in found.items()},
        baseline={name: value for name, (value,) in scaled([measures.trivial()]).items()},
        budget_sha=budget_sha(variants, measures.budget),
        data=measures.data,
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        versions=versions(),
        commit=commit(),
        parameters={name: each[0]["parameters"] for name, each in found.items() if "parameters" in each[0]},
    )
    if not options.smoke:
        print(write_table(options.results, table))
    return table


def variants_of(experiment: Stated, preset: str = "") -> dict[str, Mapping[str, Any]]:
    """All that claims name, or the claims of a preset, in their order."""
    claims = [claim for claim in experiment.claims if not (preset and claim.presets) or preset in claim.presets]
    return {name: fields for claim in claims for name, fields in claim.variants.items()}


def chosen_variant(experiment: Stated, options: RunOptions) -> tuple[str, Mapping[str, Any]]:
    """What is asked for, by default the first side of the primary claim.

    Raises:
        ValueError: no claim has it.
    """
    primary = next(claim for claim in experiment.claims if claim.primary)
    variants, variant = variants_of(experiment), options.variant or primary.compare[0]
    if variant not in variants:
        raise ValueError(f"variant: expected one of {', '.join(variants)}, got {variant!r}")
    return variant, variants[variant]


def chosen_claims(experiment: Stated, options: RunOptions) -> list[Claim]:
    """What is asked for, by default the primary claim.

    Raises:
        ValueError: the preset has no such claim.
    """
    claims = [claim for claim in experiment.claims if not claim.presets or options.preset in claim.presets]
    wanted = options.claim or next(claim.name for claim in experiment.claims if claim.primary)
    if wanted not in [*(claim.name for claim in claims), "all"]:
        names = ", ".join(claim.name for claim in claims)
        raise ValueError(f"claim: expected one of {names} or all in preset {options.preset!r}, got {wanted!r}")
    return [claim for claim in claims if wanted in (claim.name, "all")]


def show_result(r: Result) -> None:
    """A line of what came out."""
    print(
        f"{r.claim}: {r.verdict}; {r.compare[0]} {r.mean[r.compare[0]]:.4g}, {r.compare[1]} "
        f"{r.mean[r.compare[1]]:.4g} {r.unit}; difference {r.difference:.3g} ({r.interval[0]:.3g} to "
        f"{r.interval[1]:.3g}); the trivial answer {r.baseline:.4g}"
    )


def show_table(table: Table) -> None:
    """The table as docs/ have it."""
    print(table_of_variants(table), end="")
