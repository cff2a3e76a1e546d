"""The loop on one device: what it writes, where it stops, and that it goes on as if it had not."""

import logging
import os
import resource
import signal
from functools import partial

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jhand.train import (
    CheckpointError,
    CheckpointMismatch,
    LossAux,
    NotFiniteError,
    Stage,
    Terminated,
    Update,
    load_newest,
    load_variables,
    read_log,
    train,
)
from tests.train import small
from tests.train.test_checkpoints import READS_THAT_FAIL

KEY = jax.random.key(1)
SGD = optax.sgd(0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "undisturbed"
    return folder, small.run(folder)


def without_times(folder):
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in read_log(folder / "log.jsonl")]


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_a_run_leaves_its_log_and_checkpoints(undisturbed):
    folder, state = undisturbed
    assert int(state.step) == 20
    lines = without_times(folder)
    assert [line["step"] for line in lines] == [4, 5, 8, 8, 10, 12, 14, 15, 16, 16, 20, 20]  # 8, 16, 20: evaluated
    assert [line["stage"] for line in lines] == ["first"] * 7 + ["second"] * 5
    assert set(lines[0]) == {"step", "stage", *(f"all/{t}" for t in (*small.TERMS, "rms"))}
    assert set(lines[3]) == {"step", "stage", "error"}
    assert steps_in(folder / "checkpoints" / "latest") == [14, 15, 20]  # 14 is the end of the first stage
    errors = {line["step"]: line["error"] for line in lines if "error" in line}
    best = min(errors, key=errors.get)
    assert steps_in(folder / "checkpoints" / "best") == [best]
    step, _, about = load_newest(folder / "checkpoints" / "best", state)
    assert (step, about["scores"]) == (best, {"error": errors[best]})
    chex.assert_trees_all_equal(load_newest(folder / "checkpoints" / "latest", state)[1], state)


def test_variables_are_read_from_a_checkpoint_of_any_stage(tmp_path):
    """The best ones come from the first stage, whose optimisers the last state does not have."""
    scores = iter([1.0, 2.0, 3.0])
    seen = []
    state = small.run(
        tmp_path, evaluate=lambda state: seen.append(jax.device_get(state.averaged)) or {"error": next(scores)}
    )
    best = tmp_path / "checkpoints" / "best"
    with pytest.raises(CheckpointMismatch, match="optimisers"):
        load_newest(best, state)
    step, variables, about = load_variables(best, jax.eval_shape(small.init, KEY))
    assert (step, about["scores"]) == (8, {"error": 1.0})
    chex.assert_trees_all_equal(variables, seen[0])
    with pytest.raises(CheckpointMismatch, match=r"params/x: saved nothing, expected float32\[2\]"):
        load_variables(best, {"params": {"x": jnp.ones(2)}, "stats": {}})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_variables(tmp_path / "nowhere", state.averaged)


def test_variables_without_averages(tmp_path):
    chex.clear_trace_counter()
    state = train(KEY, zero, (counting_stage(2, 9),), lambda step: {"n": jnp.ones(4)}, folder=tmp_path)
    step, variables, _ = load_variables(tmp_path / "checkpoints" / "latest", state.averaged)
    assert (step, variables) == (2, {"params": {"a": 2.0}, "stats": {}})


def test_reports_are_means_over_the_steps_since_the_last(undisturbed):
    """Step by step, as `train_step` alone measures them."""
    folder, _ = undisturbed
    each = small.run(folder.with_name("each"), steps=20, log_every=1)
    rms = {line["step"]: line["all/rms"] for line in without_times(folder.with_name("each")) if "all/rms" in line}
    found = {line["step"]: line["all/rms"] for line in without_times(folder) if "all/rms" in line}
    assert found[4] == pytest.approx(np.mean([rms[i] for i in (1, 2, 3, 4)]), rel=1e-6)
    assert found[8] == pytest.approx(np.mean([rms[i] for i in (6, 7, 8)]), rel=1e-6)
    chex.assert_trees_all_equal(each, undisturbed[1])  # how often one looks changes nothing


@pytest.mark.parametrize("at", [3, 14, 17])
def test_sigterm_saves_and_the_run_goes_on_bit_by_bit(undisturbed, tmp_path, at):
    batches = small.Batches()
    draw = type(batches).__next__

    class Interrupting(small.Batches):
        def __next__(self):
            if self.next_index + 1 == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(self)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended:
        small.run(tmp_path / "run", batches=Interrupting())
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert max(steps_in(tmp_path / "run" / "checkpoints" / "latest")) == at
    state = small.run(tmp_path / "run")
    chex.assert_trees_all_equal(state, undisturbed[1])
    extra = {at} - {14}
    counted = [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert counted == sorted(counted) and set(counted) == {4, 5, 8, 10, 12, 14, 15, 16, 20} | extra
    evaluated = [line for line in without_times(tmp_path / "run") if "error" in line]
    assert evaluated == [line for line in without_times(undisturbed[0]) if "error" in line]
    assert steps_in(tmp_path / "run" / "checkpoints" / "best") == steps_in(undisturbed[0] / "checkpoints" / "best")


def test_a_finished_run_gives_its_state_again(undisturbed):
    def fail(state):
        raise AssertionError("evaluated again")

    chex.assert_trees_all_equal(small.run(undisturbed[0], evaluate=fail), undisturbed[1])


@READS_THAT_FAIL
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_taken(undisturbed, tmp_path, caplog):
    small.run(tmp_path / "run")
    latest = tmp_path / "run" / "checkpoints" / "latest"
    for file in (latest / "20" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:40])
    with caplog.at_level(logging.INFO):
        state = small.run(tmp_path / "run")
    assert "the checkpoint at step 20 is damaged and passed over" in caplog.text
    assert "going on from step 15" in caplog.text
    chex.assert_trees_all_equal(state, undisturbed[1])
    assert without_times(tmp_path / "run") == without_times(undisturbed[0])
    assert (latest / "20.damaged").is_dir() and 20 in steps_in(latest)


# threads that still write as Orbax gives up find its event loop closed: nobody can catch that
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_is_full_is_said_and_the_run_goes_on_later(tmp_path):
    def heavy(key):
        ballast = jax.random.normal(key, (300_000,))  # does not compress
        return {"params": {"a": jnp.zeros(()), "ballast": ballast}, "stats": {}}

    def run(folder):
        chex.clear_trace_counter()
        return train(
            KEY, heavy, (counting_stage(6, 9, ("a",)),), lambda step: {"n": jnp.ones(4)}, folder=folder, save_every=2
        )

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # to a program, a full disk
    try:
        with pytest.raises(
            CheckpointError, match=r"could not be written: File too large\. There is no complete one yet"
        ):
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert float(run(tmp_path).params["a"]) == 6
    assert steps_in(tmp_path / "checkpoints" / "latest") == [2, 4, 6]


def test_another_configuration_is_refused_and_nothing_touched(undisturbed):
    folder, _ = undisturbed
    files = sorted(folder.rglob("*"))

    def wider(key):
        variables = small.init(key)
        return {**variables, "params": {**variables["params"], "extra": jnp.zeros(2)}}

    with pytest.raises(CheckpointMismatch, match=r"params/extra: saved nothing, expected float32\[2\]"):
        small.run(folder, init=wider)
    for other in (small.stages()[:1], small.stages()[::-1], small.stages(9)):
        with pytest.raises(CheckpointMismatch, match="step 20 was saved in stage 1, 'second', where the stages"):
            small.run(folder, stages=other)
    with pytest.raises(CheckpointMismatch, match="another key"):
        small.run(folder, key=jax.random.key(4))
    decoder = (Update("all", small.loss, SGD, trainable=("decoder",)),)
    with pytest.raises(ValueError, match="nothing lies under 'decoder'"):
        small.run(folder, stages=(Stage("first", 14, decoder), Stage("second", 6, decoder)))
    assert sorted(folder.rglob("*")) == files


def test_a_step_that_is_not_finite_is_named_and_nothing_after_it_saved(tmp_path):
    def loss(variables, batch, *, key):
        value = jnp.sum(variables["params"]["a"] ** 2)
        broken = jnp.where(batch["n"][0] == 13, jnp.nan, 1.0)
        return value + broken, LossAux({}, {"good": value, "broken": broken})

    stages = (Stage("only", 30, (Update("u", loss, SGD),)),)
    init = lambda key: {"params": {"a": jnp.ones(2)}, "stats": {}}  # noqa: E731
    batches = lambda: ({"n": np.full(4, i)} for i in range(1, 99))  # noqa: E731
    with pytest.raises(NotFiniteError, match=r"stage 'only', step 13: u/broken is not finite.* batch 13") as error:
        train(KEY, init, stages, batches(), folder=tmp_path, save_every=5, log_every=7, keep=9)
    assert (error.value.step, error.value.term, error.value.batch) == (13, "u/broken", 13)
    assert steps_in(tmp_path / "checkpoints" / "latest") == [5, 10]
    with pytest.raises(NotFiniteError) as again:  # it resumes, and finds the same
        train(KEY, init, stages, batches(), folder=tmp_path, save_every=5, log_every=7, keep=9)
    assert again.value.step == 13


@pytest.mark.parametrize(
    ("optimiser", "term"), [(SGD, "u/step_norm"), (optax.apply_if_finite(SGD, 3), None)], ids=["sgd", "left out"]
)
def test_a_gradient_that_is_not_finite_is_found_unless_the_optimiser_leaves_it_out(optimiser, term):
    def loss(variables, batch, *, key):
        return jnp.sqrt(variables["params"]["a"]), LossAux()  # 0 with an infinite slope

    def run():
        init = lambda key: {"params": {"a": jnp.zeros(())}, "stats": {}}  # noqa: E731
        return train(KEY, init, (Stage("s", 2, (Update("u", loss, optimiser),)),), lambda n: {"n": n})

    if term is None:
        assert float(run().params["a"]) == 0
    else:
        with pytest.raises(NotFiniteError, match="the gradient, or the optimiser's step") as error:
            run()
        assert (error.value.step, error.value.term) == (1, term)


def counting_stage(steps=6, traces=1, trainable=("",)):
    """Adds up what batches hold; its loss may be traced so many times."""

    @chex.assert_max_traces(n=traces)
    def loss(variables, batch, *, key):
        return -variables["params"]["a"] * jnp.mean(batch["n"]), LossAux()

    return Stage("count", steps, (Update("u", loss, optax.sgd(1.0), trainable),))


def zero(key):
    return {"params": {"a": jnp.zeros(())}, "stats": {}}


def test_a_stage_compiles_once():
    chex.clear_trace_counter()
    state = train(KEY, zero, (counting_stage(),), ({"n": np.full(4, i, np.float32)} for i in range(9)))
    assert float(state.params["a"]) == 0 + 1 + 2 + 3 + 4 + 5


def test_a_batch_of_another_shape_is_an_error_not_another_compilation():
    batches = iter([{"n": np.ones(4, np.float32)}, {"n": np.ones(4, np.float32)}, {"n": np.ones(3, np.float32)}])
    chex.clear_trace_counter()
    with pytest.raises(ValueError, match=r"a batch differs from those before: .*float32\[3\].*float32\[4\]"):
        train(KEY, zero, (counting_stage(),), batches)


def test_batches_may_be_made_on_the_devices():
    chex.clear_trace_counter()
    state = train(KEY, zero, (counting_stage(),), lambda step: {"n": jnp.full(4, step, jnp.float32)})
    assert float(state.params["a"]) == 0 + 1 + 2 + 3 + 4 + 5


def test_nothing_leaves_the_devices_between_reports(monkeypatch):
    """Fetches are counted, one for each report and none for a step; what nobody asked for would be an error."""
    fetched, guards = [], []
    get, guard = jax.device_get, jax.transfer_guard
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(1) or get(x))
    monkeypatch.setattr(jax, "transfer_guard", lambda level: guards.append(level) or guard(level))
    chex.clear_trace_counter()
    train(KEY, zero, (counting_stage(40),), lambda step: {"n": jnp.ones(4)}, log_every=20)
    assert len(fetched) == 1 + 2  # the first variables, two reports
    assert guards == ["allow"] + 39 * ["disallow"]  # the first step compiles


def test_stages_may_have_batches_of_their_own_and_resume_them(tmp_path):
    one, two = counting_stage(3, traces=9), counting_stage(4, traces=9)
    names = {"a": Stage("a", 3, one.updates), "b": Stage("b", 4, two.updates), "c": Stage("c", 2, one.updates)}

    def feeds():
        ones = ({"n": np.full(4, i, np.float32)} for i in range(1, 99))
        return {"a": ones, "b": iter(small_grain(100)), "c": ones}

    def run(folder):
        chex.clear_trace_counter()
        return train(KEY, zero, tuple(names.values()), feeds(), folder=folder, save_every=1, keep=99)

    state = run(tmp_path / "whole")
    total = 1 + 2 + 3 + sum(small_sums(100, 4)) + 4 + 5
    assert float(state.params["a"]) == pytest.approx(total)
    latest = tmp_path / "whole" / "checkpoints" / "latest"
    assert steps_in(latest) == list(range(1, 10))
    for path in latest.iterdir():
        if path.name.isdigit() and int(path.name) > 5:
            path.rename(path.with_name(path.name + ".away"))
    chex.assert_trees_all_equal(run(tmp_path / "whole"), state)


def small_grain(first):
    data = grain.MapDataset.source([{"n": np.float32(first + i)} for i in range(10)]).seed(3).shuffle().repeat()
    return data.batch(4, drop_remainder=True).to_iter_dataset(grain.ReadOptions(num_threads=1))


def small_sums(first, number):
    iterator = iter(small_grain(first))
    return [float(np.mean(next(iterator)["n"])) for _ in range(number)]


def test_batches_that_end_or_do_not_fit_are_named():
    with pytest.raises(ValueError, match="the batches ended before step 3"):
        train(KEY, zero, (counting_stage(6, 9),), iter([{"n": np.ones(4, np.float32)}] * 2))
    with pytest.raises(ValueError, match=r"batches are given for \['x'\], the stages are \['count'\]"):
        train(KEY, zero, (counting_stage(),), {"x": lambda step: {}})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"log_every": 0}, "expected at least 1, got {'log_every': 0}"),
        ({"best": "x"}, "nothing evaluates it"),
        ({"best": "x", "evaluate": lambda state: {}}, "need a folder"),
        ({"tensorboard": True}, "need a folder"),
        ({"profile": (1, 2)}, "needs a folder"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        train(KEY, zero, (counting_stage(),), lambda step: {}, **more)


def test_a_best_score_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the evaluation has no 'x'; it has \['y'\]"):
        train(
            KEY,
            zero,
            (counting_stage(1, 9),),
            lambda step: {"n": jnp.ones(4)},
            folder=tmp_path,
            best="x",
            evaluate=lambda state: {"y": 1.0},
        )


@pytest.mark.parametrize("ended", [0, 3])
def test_the_best_state_is_the_one_of_the_best_score(tmp_path, ended):
    """In one run, and in one that ended after three steps."""
    scores = iter([3.0, 7.0, float("nan"), 7.0, 5.0])
    run = partial(
        train,
        KEY,
        zero,
        folder=tmp_path,
        evaluate=lambda state: {"score": next(scores)},
        evaluate_every=1,
        best="score",
        lower_is_better=False,
    )
    chex.clear_trace_counter()
    if ended:
        run(stages=(counting_stage(ended, 9),), batches=lambda step: {"n": jnp.ones(4)})
    state = run(stages=(counting_stage(5, 9),), batches=lambda step: {"n": jnp.ones(4)})
    step, best, about = load_newest(tmp_path / "checkpoints" / "best", state)
    assert (step, float(best.params["a"]), about["scores"]) == (2, 2.0, {"score": 7.0})


def test_some_steps_can_be_profiled(tmp_path):
    train(KEY, zero, (counting_stage(6, 9),), lambda step: {"n": jnp.ones(4)}, folder=tmp_path, profile=(3, 4))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
