"""SIGKILL at any moment, as benchmarks/kill_test.py has it twenty times."""

import numpy as np

from jhand.train import read_log
from tests.train import small
from tests.train.killing import run_with_kills

STEPS = 40


def test_a_run_that_is_killed_ends_bit_by_bit_as_one_that_is_not(tmp_path):
    expected = small.flat(small.run(tmp_path / "undisturbed", steps=STEPS, save_every=2))
    found, told = run_with_kills(tmp_path / "killed", 3, steps=STEPS, save_every=2, seed=1)
    assert len(told) == 3 and all(1 <= kill["step"] <= STEPS for kill in told)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)

    def lines(name):
        return [
            {k: v for k, v in line.items() if k != "steps_per_second"}
            for line in read_log(tmp_path / name / "log.jsonl")
        ]

    assert lines("killed") == lines("undisturbed")
