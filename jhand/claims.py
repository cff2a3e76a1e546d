"""Claims: a comparison stated before it is run, paired over seeds, and the verdict that its numbers give.

A claim compares a variant with an ablation: same data, same budget, same tuning. Seed s gives both the same order of
data, the same first values of what they share and the same evaluation. Results are files, one for each claim and
preset; the tables in docs/ are made from them and nothing else.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from jaxtyping import ArrayLike

MARGIN = 0.2
"""Both sides must beat the trivial baseline by this share of it, or nothing was trained that could be compared."""
Verdict = Literal["shown", "not_shown", "reversed", "not_trained"]


@dataclass(frozen=True)
class Claim:
    """What a paper says, as a comparison: fixed before it is run."""

    name: str
    statement: str
    """One sentence: what is said to be better than what."""
    metric: str
    """Name of one of the experiment's metrics."""
    variants: Mapping[str, Mapping[str, Any]]
    """Fields of the configuration that each variant changes."""
    compare: tuple[str, str]
    """The variant that is said to be better, and its ablation."""
    lower_is_better: bool = True
    expected: tuple[float, float] | None = None
    """Relative differences between which the paper's own lies."""
    primary: bool = False
    presets: tuple[str, ...] = ()
    """Those that it can be run in, where not in all."""
    beats_trivial: bool = True
    """Whether both sides must beat the trivial answer. Not where doing nothing is best, as it is for jitter."""

    def __post_init__(self) -> None:
        missing = [name for name in self.compare if name not in self.variants]
        if missing or self.compare[0] == self.compare[1]:
            raise ValueError(f"claim {self.name!r}: compare {self.compare}, variants are {sorted(self.variants)}")


@dataclass(frozen=True)
class Comparison:
    """Two sides over seeds."""

    difference: float
    """Mean over seeds, in the metric's unit, positive where the claim is favoured."""
    relative: float
    """The difference as a share of the ablation's mean."""
    interval: tuple[float, float]
    """Student-t, 95 %, of the mean difference."""
    verdict: Verdict
    means: tuple[float, float]
    deviations: tuple[float, float]
    """Standard deviations over seeds."""


def compare(
    ours: ArrayLike | Sequence[float],
    ablation: ArrayLike | Sequence[float],
    baseline: float | None,
    *,
    lower_is_better: bool = True,
) -> Comparison:
    """The verdict over paired seeds.

    Args:
        ours: a value of each seed, (S,).
        ablation: (S,) of the same seeds, in the same order.
        baseline: what a trivial answer scores; None where it need not be beaten.
        lower_is_better: the sense of the metric.

    Returns:
        `not_trained` if either mean fails to beat the baseline by `MARGIN` of it; else `shown` if the whole interval is
        above 0, `reversed` if it is below, `not_shown` if it holds 0.

    Raises:
        ValueError: fewer than three seeds, sides of different length, or values that are not finite.
    """
    a, b = np.asarray(ours, float), np.asarray(ablation, float)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise ValueError(f"expected values of the same three or more seeds, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and math.isfinite(baseline or 0.0)):
        raise ValueError(f"expected finite values, got {a}, {b} and baseline {baseline}")
    sign = 1.0 if lower_is_better else -1.0
    favour = sign * (b - a)
    middle, half = float(favour.mean()), student_t(len(a) - 1) * float(favour.std(ddof=1)) / math.sqrt(len(a))
    interval = (middle - half, middle + half)
    worst = float(max(sign * a.mean(), sign * b.mean()))
    if baseline is not None and worst > sign * baseline - MARGIN * abs(baseline):
        verdict: Verdict = "not_trained"
    elif interval[0] > 0:
        verdict = "shown"
    elif interval[1] < 0:
        verdict = "reversed"
    else:
        verdict = "not_shown"
    return Comparison(
        difference=middle,
        relative=middle / abs(float(b.mean())),
        interval=interval,
        verdict=verdict,
        means=(float(a.mean()), float(b.mean())),
        deviations=(float(a.std(ddof=1)), float(b.std(ddof=1))),
    )


def student_t(freedom: int, level: float = 0.95) -> float:
    """Student's t that a share `level` of both sides stays within, by halving: I_x(n/2, 1/2) with x = n / (n + t^2)."""
    low, high = 0.0, 1e4
    for _ in range(80):
        t = (low + high) / 2
        outside = float(betainc(freedom / 2, 0.5, jnp.float32(freedom / (freedom + t * t))))
        low, high = (t, high) if outside > 1 - level else (low, t)
    return low


def statement_sha(claim: Claim, budget: Mapping[str, Any]) -> str:
    """Sixteen letters that change whenever what is claimed changes: text, metric, sides, variants or budget.

    Args:
        claim: as the experiment states it.
        budget: of the preset: configuration, data, steps, batch.
    """
    said = {
        "statement": claim.statement,
        "metric": claim.metric,
        "lower_is_better": claim.lower_is_better,
        "variants": {name: dict(fields) for name, fields in claim.variants.items() if name in claim.compare},
        "compare": list(claim.compare),
        "budget": dict(budget),
    } | ({} if claim.beats_trivial else {"beats_trivial": False})
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """A claim that was run: what its file holds."""

    claim: str
    statement: str
    statement_sha: str
    system: str
    preset: str
    metric: str
    unit: str
    direction: str
    compare: tuple[str, str]
    variants: dict[str, dict[str, Any]]
    """By variant: its fields, parameters, floating point operations, seconds, steps."""
    seeds: list[int]
    values: dict[str, list[float]]
    baseline: float
    mean: dict[str, float]
    sd: dict[str, float]
    difference: float
    relative: float
    interval: tuple[float, float]
    expected: tuple[float, float] | None
    verdict: Verdict
    primary: bool
    stand_ins: list[str]
    data: str
    device: str
    versions: dict[str, str]
    commit: str
    seconds: float
    notes: list[str] = field(default_factory=list)


def write_result(folder: Path, result: Result) -> Path:
    """`<folder>/<system>/<claim>.<preset>.json`, whole or not at all."""
    return _write(folder / result.system / f"{result.claim}.{result.preset}.json", vars(result))


def _write(path: Path, said: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_results(folder: Path) -> list[Result]:
    """All results below a folder, in the order of their names.

    Raises:
        ValueError: a file that is no result; it names the file and the field.
    """
    found = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            pairs = {name: said[name] and tuple(said[name]) for name in ("compare", "interval", "expected")}
            found.append(Result(**(said | pairs)))
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not a result ({error}); run the claim again") from error
    return found


@dataclass(frozen=True)
class Table:
    """Variants beside each other: what the file of a ladder of ablations holds."""

    system: str
    preset: str
    units: dict[str, str]
    """By metric."""
    fields: dict[str, dict[str, Any]]
    """By variant: what it changes of the configuration."""
    seeds: list[int]
    values: dict[str, dict[str, list[float]]]
    """By variant and metric: one of each seed."""
    milliseconds: dict[str, float]
    """By variant: of one example, the median over seeds."""
    baseline: dict[str, float]
    """By metric: the trivial answer's."""
    budget_sha: str
    data: str
    device: str
    versions: dict[str, str]
    commit: str
    parameters: dict[str, int] = field(default_factory=dict)
    """By variant, of what is trained."""


def budget_sha(variants: Mapping[str, Mapping[str, Any]], budget: Mapping[str, Any]) -> str:
    """Sixteen letters that change whenever a table would be of something else.

    Args:
        variants: all of them, with the fields they change.
        budget: of the preset.
    """
    said = {"variants": {name: dict(fields) for name, fields in variants.items()}, "budget": dict(budget)}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def write_table(folder: Path, table: Table) -> Path:
    """`<folder>/<system>/tables/<preset>.json`, whole or not at all."""
    return _write(folder / table.system / "tables" / f"{table.preset}.json", vars(table))


def read_tables(folder: Path) -> list[Table]:
    """All tables below a folder, in the order of their names.

    Raises:
        ValueError: a file that is no table; it names the file and the field.
    """
    found = []
    for path in sorted(folder.glob("*/tables/*.json")):
        try:
            found.append(Table(**json.loads(path.read_text(encoding="utf-8"))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a table ({error}); run it again") from error
    return found


def table_of_variants(table: Table) -> str:
    """Markdown: a line for each variant, a column for each metric, means over seeds with their standard deviations;
    milliseconds of one example, and parameters of what is trained.
    """
    heads = [f"{name}, {unit}" if unit else name for name, unit in table.units.items()]
    heads += [*(["parameters"] if table.parameters else []), "ms"]
    lines = ["| " + " | ".join(["variant", *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    trivial = [f"{table.baseline[name]:.4g}" for name in table.units]
    for variant, values in table.values.items():
        cells = [f"{np.mean(values[m]):.4g} ± {np.std(values[m], ddof=1):.2g}" for m in table.units]
        cells += [f"{table.parameters[variant]:,}"] if table.parameters else []
        lines.append("| " + " | ".join([variant, *cells, f"{table.milliseconds[variant]:.3g}"]) + " |")
    lines.append("| " + " | ".join(["*trivial answer*", *trivial, *[""] * (len(heads) - len(trivial))]) + " |")
    return "\n".join(lines) + "\n"


def results_table(results: Sequence[Result], claims: Mapping[str, Sequence[Claim]]) -> str:
    """Markdown: every claim of every system, with its numbers, or that it has not been run.

    Args:
        results: of `read_results`.
        claims: by system, as their experiments state them.
    """
    lines = [
        "| system | claim | preset | metric | with | without | difference, 95 % | relative | expected | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for system in sorted(claims):
        for claim in claims[system]:
            ran = [r for r in results if r.system == system and r.claim == claim.name]
            name = f"**{claim.name}**: {claim.statement}" if claim.primary else f"{claim.name}: {claim.statement}"
            lines += [_row(r, name) for r in ran]
            if not ran:
                expected = _share(claim.expected)
                lines.append(f"| {system} | {name} |  | {claim.metric} |  |  |  |  | {expected} | not run |")
    return "\n".join(lines) + "\n"


def _row(r: Result, name: str) -> str:
    with_, without = r.compare
    side = lambda v: f"{r.mean[v]:.4g} ± {r.sd[v]:.2g}"  # noqa: E731
    low, high = r.interval
    within = ""
    if r.expected is not None:
        within = ", inside" if r.expected[0] <= r.relative <= r.expected[1] else ", outside"
    return (
        f"| {r.system} | {name} | {r.preset}, {len(r.seeds)} seeds | {r.metric}, {r.unit} | {with_}: {side(with_)} | "
        f"{without}: {side(without)} | {r.difference:.3g} ({low:.3g} to {high:.3g}) | {100 * r.relative:.1f} % | "
        f"{_share(r.expected)}{within} | {r.verdict.replace('_', ' ')} |"
    )


def _share(expected: tuple[float, float] | None) -> str:
    return "" if expected is None else f"{100 * expected[0]:.0f} to {100 * expected[1]:.0f} %"
