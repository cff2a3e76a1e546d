"""The tables of docs/systems.md and docs/results.md, from the experiments' claims and the files in results/.

python tools/make_tables.py            rewrites both
python tools/make_tables.py --check    says whether they are stale, or a result is of another claim than is stated now
"""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jhand.claims import (  # noqa: E402
    Result,
    Table,
    budget_sha,
    read_results,
    read_tables,
    results_table,
    statement_sha,
    table_of_variants,
)
from jhand.experiment import Experiment  # noqa: E402
from jhand.judging import budget, variants_of  # noqa: E402
from jhand.solving import SolveExperiment  # noqa: E402

SYSTEMS = """# Systems

Published systems in `jhand.systems`, each with an experiment of the same name. Made by `tools/make_tables.py`.

| system | what it is | claims | experiment | page |
|---|---|---|---|---|
"""
RESULTS = """# Results

Every claim of every experiment, as it was run or not. A claim is fixed before it is run; `with` and `without` are means
over seeds with their standard deviations, the interval is Student's t over paired seeds, and `expected` is what the
paper leads to expect. **Bold** claims are a paper's first. `not trained` means that a side did not beat the trivial
answer by 20 %.
Made by `tools/make_tables.py` from the files in `results/`.

"""
LADDER = """
## {ladder.system}, {ladder.preset}

All variants over {seeds} seeds ({ladder.data}); ms: of one example, on {ladder.device}.

"""


def experiments() -> dict[str, Experiment | SolveExperiment]:
    """By the name of their system."""
    names = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")
    return {name: importlib.import_module(f"experiments.{name}").experiment for name in names}


def pages(found: dict[str, Experiment | SolveExperiment]) -> dict[Path, str]:
    """What the two pages should hold."""
    rows = []
    for name, experiment in found.items():
        first = experiment.system.__doc__.strip().splitlines()[0].rstrip(".")
        page = f"[page](systems/{name}.md)" if (ROOT / "docs" / "systems" / f"{name}.md").exists() else ""
        code = f"[experiment](../experiments/{name}.py)"
        rows.append(f"| `{name}` | {first} | {len(experiment.claims)} | {code} | {page} |")
    results = read_results(ROOT / "results")
    table = results_table(results, {name: experiment.claims for name, experiment in found.items()})
    for ladder in read_tables(ROOT / "results"):
        table += LADDER.format(ladder=ladder, seeds=len(ladder.seeds)) + table_of_variants(ladder)
    docs = ROOT / "docs"
    return {docs / "systems.md": SYSTEMS + "\n".join(rows) + "\n", docs / "results.md": RESULTS + table}


def foreign(found: dict[str, Experiment | SolveExperiment]) -> list[str]:
    """Results of claims, presets or budgets that are not those of the experiments."""
    wrong = []
    for result in read_results(ROOT / "results"):
        where = f"results/{result.system}/{result.claim}.{result.preset}.json"
        experiment = found.get(result.system)
        claim = next((c for c in experiment.claims if c.name == result.claim), None) if experiment else None
        if experiment is None or claim is None or result.preset not in experiment.presets:
            wrong.append(f"{where}: no experiment states this claim")
            continue
        if statement_sha(claim, budget_of(experiment, result)) != result.statement_sha:
            wrong.append(f"{where}: what was run is not what is stated now: run it again")
    for table in read_tables(ROOT / "results"):
        experiment = found.get(table.system)
        known = experiment is not None and table.preset in experiment.presets
        if (
            not known
            or budget_sha(variants_of(experiment, table.preset), budget_of(experiment, table)) != table.budget_sha
        ):
            wrong.append(f"results/{table.system}/tables/{table.preset}.json: of other variants than are stated now")
    return wrong


def budget_of(experiment: Experiment | SolveExperiment, result: Result | Table) -> dict[str, object]:
    """The budget of a preset as it is stated now, on the data that a result is of."""
    own = isinstance(experiment, SolveExperiment) or result.data.endswith(
        " in training"
    )  # its own words for what it makes
    return budget(experiment.presets[result.preset], "" if own else result.data)


def main() -> None:
    found = experiments()
    wanted, wrong = pages(found), foreign(found)
    if "--check" in sys.argv:
        wrong += [f"{path}: stale; run tools/make_tables.py" for path, text in wanted.items() if stale(path, text)]
    else:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
    sys.exit("\n".join(wrong) or None)


def stale(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    main()
