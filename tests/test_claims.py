import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jhand.claims import Claim, Result, compare, read_results, results_table, statement_sha, student_t, write_result

CLAIM = Claim(
    name="graph",
    statement="a skeleton helps",
    metric="pa_mpjpe",
    variants={"full": {}, "no_graph": {"graph": False}},
    compare=("full", "no_graph"),
    expected=(0.05, 0.1),
    primary=True,
)
BUDGET = {"steps": 10, "config": {"width": 3}}


@pytest.mark.parametrize("freedom", [2, 4, 9, 30])
def test_quantiles_are_students(freedom):
    np.testing.assert_allclose(student_t(freedom), stats.t.ppf(0.975, freedom), rtol=1e-4)


def test_the_interval_is_that_of_a_paired_test():
    rng = np.random.default_rng(0)
    ours = rng.normal(8.0, 0.3, 5)
    ablation = ours + rng.normal(0.4, 0.1, 5)
    found = compare(ours, ablation, baseline=14.0)
    expected = stats.ttest_rel(ablation, ours).confidence_interval(0.95)
    np.testing.assert_allclose(found.interval, expected, rtol=1e-3)
    np.testing.assert_allclose(found.difference, (ablation - ours).mean())
    np.testing.assert_allclose(found.relative, (ablation - ours).mean() / ablation.mean())
    np.testing.assert_allclose(found.deviations, [ours.std(ddof=1), ablation.std(ddof=1)])


@pytest.mark.parametrize(
    ("ours", "ablation", "baseline", "verdict"),
    [
        ([8.0, 8.1, 8.2], [8.5, 8.6, 8.8], 14.0, "shown"),
        ([8.5, 8.6, 8.8], [8.0, 8.1, 8.2], 14.0, "reversed"),
        ([8.0, 8.1, 8.2], [8.1, 8.0, 8.3], 14.0, "not_shown"),
        ([8.0, 8.1, 8.2], [8.5, 8.6, 8.8], 10.0, "not_trained"),  # the ablation beats the baseline by 14 %
        ([11.5, 11.6, 11.7], [8.0, 8.1, 8.2], 14.0, "not_trained"),  # ours by 17 %
    ],
)
def test_verdicts(ours, ablation, baseline, verdict):
    assert compare(ours, ablation, baseline).verdict == verdict
    # where more is better, the same numbers count from the other side
    mirrored = compare([20 - x for x in ours], [20 - x for x in ablation], 20 - baseline, lower_is_better=False)
    assert np.sign(mirrored.difference) == np.sign(compare(ours, ablation, baseline).difference)


def test_more_is_better():
    assert compare([0.8, 0.81, 0.82], [0.7, 0.72, 0.71], 0.5, lower_is_better=False).verdict == "shown"
    assert compare([0.58, 0.59, 0.57], [0.5, 0.52, 0.51], 0.5, lower_is_better=False).verdict == "not_trained"


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="three or more seeds"):
        compare([1.0, 2.0], [1.0, 2.0], 3.0)
    with pytest.raises(ValueError, match="three or more seeds"):
        compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], 3.0)
    with pytest.raises(ValueError, match="finite"):
        compare([1.0, 2.0, float("nan")], [1.0, 2.0, 3.0], 3.0)
    with pytest.raises(ValueError, match="compare"):
        replace(CLAIM, compare=("full", "no_scan"))


def test_the_sha_is_of_what_is_claimed():
    sha = statement_sha(CLAIM, BUDGET)
    assert sha == statement_sha(replace(CLAIM, expected=None, primary=False), BUDGET)
    other = [
        statement_sha(replace(CLAIM, statement="a skeleton is all"), BUDGET),
        statement_sha(replace(CLAIM, metric="pa_mpvpe"), BUDGET),
        statement_sha(replace(CLAIM, lower_is_better=False), BUDGET),
        statement_sha(replace(CLAIM, variants={"full": {}, "no_graph": {"graph": False, "width": 4}}), BUDGET),
        statement_sha(CLAIM, BUDGET | {"steps": 11}),
        sha,
    ]
    assert len(set(other)) == len(other)


@pytest.fixture
def result():
    return Result(
        claim="graph", statement=CLAIM.statement, statement_sha=statement_sha(CLAIM, BUDGET), system="hamba",
        preset="cpu", metric="pa_mpjpe", unit="mm", direction="lower", compare=("full", "no_graph"),
        variants={"full": {"parameters": 1}, "no_graph": {"parameters": 1}}, seeds=[0, 1, 2],
        values={"full": [8.0, 8.1, 8.2], "no_graph": [8.5, 8.6, 8.8]}, baseline=14.0,
        mean={"full": 8.1, "no_graph": 8.63}, sd={"full": 0.1, "no_graph": 0.15}, difference=0.53, relative=0.062,
        interval=(0.39, 0.68), expected=(0.05, 0.1), verdict="shown", primary=True, stand_ins=[], data="world",
        device="cpu", versions={"jax": "0"}, commit="abc", seconds=1.0,
    )  # fmt: skip


def test_results_survive_the_disk(tmp_path, result):
    path = write_result(tmp_path, result)
    assert path == tmp_path / "hamba" / "graph.cpu.json"
    (found,) = read_results(tmp_path)
    assert json.loads(json.dumps(vars(found))) == json.loads(json.dumps(vars(result)))
    path.write_text(path.read_text().replace('"unit"', '"units"'))
    with pytest.raises(ValueError, match=r"graph\.cpu\.json.*unit"):
        read_results(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"graph\.cpu\.json"):
        read_results(tmp_path)


def test_the_table_has_every_claim(result):
    other = replace(CLAIM, name="scan", statement="a scan helps", primary=False)
    table = results_table([result], {"hamba": [CLAIM, other]})
    _, _, ran, not_run = table.strip().splitlines()
    assert "8.1 ± 0.1" in ran and "| shown |" in ran and "inside" in ran and "**graph**" in ran
    assert "scan" in not_run and "not run" in not_run


def test_where_doing_nothing_is_best_the_trivial_answer_need_not_be_beaten():
    ours, ablation = [1.0, 1.1, 0.9], [2.0, 2.2, 2.1]
    assert compare(ours, ablation, 0.5).verdict == "not_trained"
    assert compare(ours, ablation, None).verdict == "shown"
    sides = {"a": {}, "b": {"x": 1}}
    strict, free = (Claim("c", "s", "jitter", sides, ("a", "b"), beats_trivial=beats) for beats in (True, False))
    assert statement_sha(strict, {}) != statement_sha(free, {})


def test_claims_of_some_presets():
    from jhand.judging import RunOptions, chosen_claims, variants_of
    from tests.test_solving import SIDES

    claims = (
        Claim("everywhere", "s", "m", SIDES, ("weighted", "plain"), primary=True),
        Claim("large", "s", "m", {"a": {}, "b": {"weighted": False}}, ("a", "b"), presets=("gpu",)),
    )
    empty: Any = {"presets": {}, "metrics": {}, "units": {}, "stand_ins": ()}
    stated = SimpleNamespace(name="stated", claims=claims, **empty)
    assert [c.name for c in chosen_claims(stated, RunOptions(claim="all"))] == ["everywhere"]
    assert [c.name for c in chosen_claims(stated, RunOptions(claim="all", preset="gpu"))] == ["everywhere", "large"]
    with pytest.raises(ValueError, match="expected one of everywhere or all in preset 'cpu', got 'large'"):
        chosen_claims(stated, RunOptions(claim="large"))
    assert variants_of(stated, "cpu").keys() == {"weighted", "plain"}
    assert variants_of(stated, "gpu").keys() == variants_of(stated).keys() == {"weighted", "plain", "a", "b"}


def test_a_function_of_the_script_that_runs_has_its_module_s_name(tmp_path):
    """What is run as a script states the same as what a table imports."""
    (tmp_path / "stated.py").write_text(
        "from dataclasses import dataclass\n"
        "from jhand.judging import budget\n"
        "def make(key): ...\n"
        "@dataclass\nclass Preset:\n    make: object = make\n"
        "print(budget(Preset())['make'])\n"
    )

    def run(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert run("-m", "stated") == run("-c", "import stated") == "stated.make\n"
