"""Experiments on a system that solves: a mean with weights, from problems to verdicts and tables."""

import json
from dataclasses import dataclass, replace
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jhand.claims import Claim, read_results, read_tables, table_of_variants
from jhand.judging import RunOptions
from jhand.solving import Problems, SolveExperiment, main, measures, run_claim, run_table, trained_once
from jhand.train import LossAux, ModelCard, Stage, Update

SIDES = {"weighted": {}, "plain": {"weighted": False}}


@dataclass(frozen=True)
class Config:
    weighted: bool = True


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    seen: jax.Array
    sigma: jax.Array


def solve(inputs, config, hand):
    weights = 1 / inputs.sigma**2 if config.weighted else jnp.ones_like(inputs.sigma)
    return jnp.asarray((weights * inputs.seen).sum(-1) / weights.sum(-1))


def problems(seed, preset, folder):
    """Numbers measured ten times.

    With errors of known size.
    """
    with (folder / "asked.txt").open("a") as asked:
        asked.write(f"{seed} ")
    rng = np.random.default_rng(seed)
    truth, sigma = rng.normal(size=preset.number), np.exp(rng.normal(-2, preset.scene, (preset.number, 10)))
    return Inputs(truth[:, None] + sigma * rng.normal(size=sigma.shape), sigma), truth


@pytest.fixture
def experiment():
    system = ModuleType("jhand.systems.mean")
    system.solve = solve
    return SolveExperiment(
        system=system,
        presets={"cpu": Problems(Config(), number=40, scene=1.0)},
        problems=problems,
        metrics={
            "error": lambda outputs, truth, hand: abs(outputs - truth),
            "large": lambda outputs, truth, hand: np.where(abs(truth) > 1, abs(outputs - truth), np.nan),
        },
        units={"error": ("mm", 1000.0), "large": ("mm", 1000.0)},
        baseline=lambda inputs, truth, hand: np.zeros(len(truth)),
        claims=[Claim("weights", "errors' sizes are to be used", "error", SIDES, ("weighted", "plain"), primary=True)],
    )


@pytest.fixture
def options(tmp_path):
    return RunOptions(folder=tmp_path / "runs", results=tmp_path / "results", seeds=4)


def test_a_claim_is_shown_and_kept(experiment, options):
    result = run_claim(experiment, experiment.claims[0], options)
    (kept,) = read_results(options.results)
    assert kept.values == result.values and kept.verdict == "shown" and kept.seeds == [0, 1, 2, 3]
    assert kept.data == "Numbers measured ten times, 40 of each seed"
    assert kept.variants["plain"]["fields"] == {"weighted": False} and kept.variants["plain"]["milliseconds"] > 0
    inputs, truth = problems(2, experiment.presets["cpu"], options.folder)
    expected = 1000 * np.abs(solve(inputs, Config(), None) - truth).mean()
    np.testing.assert_allclose(kept.values["weighted"][2], expected, rtol=1e-5)


def test_both_sides_get_the_same_problems_once(experiment, options):
    run_claim(experiment, experiment.claims[0], options)
    asked = options.folder / "mean" / "parts" / "asked.txt"
    assert asked.read_text() == "0 1 2 3 0 "  # the last for the trivial answer
    run_claim(experiment, experiment.claims[0], options)  # what was solved is read
    assert asked.read_text() == "0 1 2 3 0 0 "


def test_the_table_has_all_variants_and_metrics(experiment, options):
    table = run_table(experiment, options)
    assert read_tables(options.results) == [table]
    assert table.values.keys() == SIDES.keys() and set(table.values["plain"]) == {"error", "large"}
    lines = table_of_variants(table).splitlines()
    assert lines[0] == "| variant | error, mm | large, mm | ms |" and len(lines) == 5
    trained = table_of_variants(replace(table, parameters={"weighted": 1234, "plain": 2})).splitlines()
    assert "| parameters | ms |" in trained[0] and "| 1,234 |" in trained[2] and {x.count("|") for x in trained} == {6}
    claimed = run_claim(experiment, experiment.claims[0], options)
    assert claimed.values["plain"] == table.values["plain"]["error"]
    large = np.abs(problems(0, experiment.presets["cpu"], options.folder)[1]) > 1
    assert 0 < large.sum() < 40 and table.values["plain"]["large"] != table.values["plain"]["error"]


def test_runs_are_known_by_all_that_they_depend_on(experiment, options):
    measures(experiment, options).of("plain", 0)
    other = replace(experiment, presets={"cpu": Problems(Config(), number=40, scene=0.5)})
    measures(other, options).of("plain", 0)
    found = [json.loads(path.read_text()) for path in options.folder.rglob("result.json")]
    assert len(found) == 2 and found[0]["error"] != found[1]["error"]


def test_the_command_line(experiment, options, capsys):
    shared = ["--folder", str(options.folder), "--results", str(options.results)]
    main(experiment, ["solve", "--variant", "plain", "--seed", "2", *shared])
    assert "plain, seed 2: error" in capsys.readouterr().out
    main(experiment, ["claims", "--smoke", *shared])
    assert "weights: " in capsys.readouterr().out and not options.results.exists()
    main(experiment, ["table", *shared])
    assert "| *trivial answer* |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="variant"):
        main(experiment, ["solve", "--variant", "other", *shared])


def test_a_solver_that_gives_up_is_not_averaged_over(experiment, options):
    system = ModuleType("jhand.systems.mean")
    system.solve = lambda inputs, config, hand: solve(inputs, config, hand).at[3].set(jnp.nan)
    with pytest.raises(ValueError, match="best answer"):
        run_table(replace(experiment, system=system), options)


def test_numbers_of_problems_are_even():
    with pytest.raises(ValueError, match="even"):
        Problems(Config(), number=3)


def test_damaged_tables_are_named(experiment, options):
    run_table(experiment, options)
    (path,) = options.results.rglob("*.json")
    path.write_text('{"system": "mean"}')
    with pytest.raises(ValueError, match=path.name):
        read_tables(options.results)


def test_a_stand_in_is_trained_once_for_what_it_is_known_by(tmp_path):
    made = []

    def batches():
        made.append(True)
        while True:
            yield {"x": np.ones(4, np.float32)}

    def loss(variables, batch, *, key):
        return jnp.mean((variables["params"]["w"] - 3 * batch["x"]) ** 2), LossAux()

    stage = Stage("fit", 50, (Update("fit", loss, optax.sgd(0.2)),), ema=0.5)
    train = lambda name: trained_once(  # noqa: E731
        tmp_path, name, lambda key: {"w": jnp.zeros(1)}, stage, batches, ModelCard("mean", {}, "ones", {}, "MIT")
    )
    np.testing.assert_allclose(train("a")["w"], 3, atol=1e-3)
    np.testing.assert_allclose(train("a")["w"], 3, atol=1e-3)
    assert len(made) == 1
    train("b")  # begins anew, not where the other one ended
    assert len(made) == 2 and (tmp_path / "training-b").is_dir()
