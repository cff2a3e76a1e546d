"""The one loop: stages in order, batches in, reports out, and a state on disk from which everything goes on."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from jhand.train.checkpoints import CheckpointMismatch
from jhand.train.feeds import Batches, Feeds, feed_of, feeds_of, go_to, next_batch, places_of
from jhand.train.record import Record
from jhand.train.sharding import Layout, batch_sharding, begin_on, make_mesh, replicated
from jhand.train.stages import Precision, Stage, Variables
from jhand.train.state import TrainState, begin_stage, init_state
from jhand.train.step import OWN_TERMS, StepMetrics, train_step

logger = logging.getLogger(__name__)

AHEAD = 2
"""Steps that may wait for the devices: enough to keep them busy, few enough that their batches need little memory."""


class NotFiniteError(FloatingPointError):
    """A step whose loss, gradient or statistics were not finite; `step` and `batch` are counted from 1."""

    def __init__(self, message: str, *, step: int, term: str, batch: int) -> None:
        super().__init__(message)
        self.step, self.term, self.batch = step, term, batch


class Terminated(SystemExit):
    """SIGTERM asked the process to end, and its state is saved. The exit code is 143, as shells have it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def train(
    key: Array,
    init: Callable[[Array], Variables],
    stages: Sequence[Stage],
    batches: Batches | Feeds,
    *,
    folder: str | os.PathLike | None = None,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    evaluate_every: int = 1000,
    best: str | None = None,
    lower_is_better: bool = True,
    log_every: int = 100,
    save_every: int = 1000,
    keep: int = 3,
    mesh: Mesh | None = None,
    layout: Layout = replicated,
    accumulate: int = 1,
    precision: Precision = Precision(),
    tensorboard: bool = False,
    profile: tuple[int, int] | None = None,
    quiet: bool = False,
) -> TrainState:
    """Train from the start, or from where the same call was interrupted.

    Reports, evaluations and checkpoints are made at fixed steps, so that a run which was interrupted ends with the
    numbers of one which was not, bit by bit on the same devices of a CPU. In between nothing comes back from the
    devices.

    Args:
        key: () typed key; `init` and the steps each draw from a part of it.
        init: `init(key) -> {"params", "stats"}`.
        stages: in order.
        batches: for all stages, or by the stage's name; leaves (B, ...), in each process its own part of a batch.
        folder: of this run: `log.jsonl`, `checkpoints/latest`, `checkpoints/best`, `events`, `profile`. None writes
            nothing.
        evaluate: from the state to scores by name; called every so many steps and after the last.
        evaluate_every: steps.
        best: name of the score whose best state is kept too.
        lower_is_better: the sense of that score.
        log_every: steps. A report has means over the steps since the last one, and how many were taken a second, the
            compilation of a stage included; each evaluation and each checkpoint has one before it.
        save_every: steps; there is a checkpoint at the end of each stage as well.
        keep: number of latest checkpoints.
        mesh: of `make_mesh`, by default all devices with a whole state on each.
        layout: `replicated`, `fsdp`, or one's own.
        accumulate: microbatches of each batch (`train_step`).
        precision: of the losses.
        tensorboard: write event files as well; needs the extra `tensorboard`.
        profile: first and last step of a trace by `jax.profiler`.
        quiet: no bar on the terminal.

    Returns:
        The state after the last step.

    Raises:
        NotFiniteError: a term, gradient or statistic that is not finite, found before anything that follows from it is
            saved; it names the first bad step, the term and the batch.
        Terminated: SIGTERM came; the state was saved before. With several processes it is heard at the next
            `log_every`.
        CheckpointError: a checkpoint could not be written, or none can be read.
        CheckpointMismatch: the folder holds another training.
        ValueError: stages, batches, intervals or a score that do not fit together.
    """
    every = {"evaluate_every": evaluate_every, "log_every": log_every, "save_every": save_every}
    _check(stages, every | {"keep": keep, "accumulate": accumulate})
    if best is not None and evaluate is None:
        raise ValueError(f"the best {best!r} is to be kept, but nothing evaluates it")
    if profile is not None and folder is None:
        raise ValueError("a profile needs a folder to be written to")
    feeds = feeds_of(batches, stages)
    mesh = make_mesh() if mesh is None else mesh
    begin = _Beginning(key, init, stages, mesh, layout)
    record = Record(folder, keep=keep, best=best, lower_is_better=lower_is_better, tensorboard=tensorboard, quiet=quiet)
    with record, _sigterm() as asked_to_end, _profiler(folder, profile) as profile_at:
        found = record.newest(begin.described)
        if found is None:
            n, state = 0, begin.first()
        else:
            n, state, about = found
            begin.refuse_another_key(state)
            go_to(feeds, about["batches"], stages, n)
            logger.info("going on from step %d in %s", n, folder)
        record.open_logs(n, _end(stages, len(stages)))
        for index, stage in enumerate(stages):
            end = _end(stages, index + 1)
            if n >= end:
                continue
            if n == _end(stages, index) and index > 0:
                state = begin.next(state, index)
            feed = feed_of(feeds, stage)
            step = _Step(stage, feed, state, mesh, accumulate, precision)
            since, reported = time.perf_counter(), n
            while n < end:
                batch = () if callable(feed) else next_batch(feed, mesh, n + 1)
                profile_at(n + 1, state)
                state = step(state, batch)
                n += 1
                ending = asked_to_end(n % log_every == 0)
                saving = n % save_every == 0 or n == end or ending
                evaluating = evaluate is not None and (n % evaluate_every == 0 or n == _end(stages, len(stages)))
                if not (saving or evaluating or n % log_every == 0):
                    continue
                means = step.read(n)
                speed = (n - reported) / (time.perf_counter() - since)
                record.report(n, {"stage": stage.name, **means, "steps_per_second": speed})
                about = {"step": n, "stage": stage.name, "stage_index": index}
                if evaluating:
                    scores = {name: float(value) for name, value in evaluate(state).items()}
                    record.report(n, {"stage": stage.name, **scores})
                    about = {**about, "scores": scores}
                if saving or evaluating:
                    about = {**about, "batches": places_of(feeds)}
                if evaluating:
                    record.save_if_best(n, state, about)
                if saving:
                    record.save(n, state, about)
                if ending:
                    record.wait()
                    raise Terminated
                since, reported = time.perf_counter(), n
    return state


@dataclass(frozen=True)
class _Beginning:
    """States before the first step of each stage, where the layout wants them."""

    key: Array
    init: Callable[[Array], Variables]
    stages: Sequence[Stage]
    mesh: Mesh
    layout: Layout

    def _keys(self) -> tuple[Array, Array]:
        init_key, run_key = jax.random.split(self.key)
        return init_key, run_key

    def _state(self, key_data: Array, variables: Variables) -> TrainState:
        key = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(self.key))
        return init_state(key, variables, self.stages[0])

    def first(self) -> TrainState:
        init_key, run_key = self._keys()
        # As numpy: it is the same in every process, and what a caller holds on to is not donated.
        data, variables = jax.device_get((jax.random.key_data(run_key), self.init(init_key)))
        return begin_on(self.mesh, self.layout, self._state, data, variables)

    def next(self, state: TrainState, index: int) -> TrainState:
        return begin_on(self.mesh, self.layout, partial(begin_stage, stage=self.stages[index]), state)

    def described(self, about: Mapping[str, Any]) -> TrainState:
        """Shapes, dtypes and shardings of a state that was saved in some stage."""
        index, name, step = about["stage_index"], about["stage"], about["step"]
        known = index < len(self.stages) and self.stages[index].name == name
        if not known or not _end(self.stages, index) < step <= _end(self.stages, index + 1):
            steps = {stage.name: stage.steps for stage in self.stages}
            raise CheckpointMismatch(
                f"step {step} was saved in stage {index}, {name!r}, where the stages and their steps are now {steps}"
            )
        init_key, run_key = self._keys()
        state = jax.eval_shape(lambda k, i: self._state(jax.random.key_data(k), self.init(i)), run_key, init_key)
        for stage in self.stages[1 : index + 1]:
            state = jax.eval_shape(partial(begin_stage, stage=stage), state)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, self.layout(state, self.mesh)
        )

    def refuse_another_key(self, state: TrainState) -> None:
        saved, given = (jax.device_get(jax.random.key_data(key)) for key in (state.key, self._keys()[1]))
        if not np.array_equal(saved, given):
            raise CheckpointMismatch("the folder holds a training with another key; choose another folder for this one")


class _Step:
    """The compiled step of a stage, and what its steps measured since that was read."""

    def __init__(
        self, stage: Stage, feed: Batches, state: TrainState, mesh: Mesh, accumulate: int, precision: Precision
    ) -> None:
        self._stage, self._history = stage, []
        self._traced: list[tuple[PyTree, Any]] = []
        step = train_step(stage, accumulate=accumulate, precision=precision)

        def packed(state: TrainState, batch: PyTree) -> tuple[TrainState, Array]:
            if callable(feed):
                batch = feed(state.step)
                batch = lax.with_sharding_constraint(batch, batch_sharding(batch, mesh))
            shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", batch)
            if self._traced:
                raise ValueError(f"a batch differs from those before: {shapes} after {self._traced[0][0]}")
            state, metrics = step(state, batch)
            values, structure = jax.tree.flatten(metrics)
            self._traced.append((shapes, structure))
            return state, jnp.stack(values)  # one array to fetch, not one for each term

        layout = jax.tree.map(lambda x: x.sharding, state)
        whole = NamedSharding(mesh, PartitionSpec())
        self._run = jax.jit(packed, donate_argnums=0, out_shardings=(layout, whole))

    def __call__(self, state: TrainState, batch: PyTree) -> TrainState:
        # The first call compiles, for which constants that a loss closes over are fetched.
        with jax.transfer_guard("disallow" if self._traced else "allow"):
            state, values = self._run(state, batch)
        self._history.append(values)
        if len(self._history) > AHEAD:
            self._history[-1 - AHEAD].block_until_ready()
        return state

    def read(self, last: int) -> dict[str, float]:
        """Means by `update/term` over the steps since the last call, of which `last` is the number of the last one.

        Raises:
            NotFiniteError: a step measured what is not finite.
        """
        rows = np.stack(jax.device_get(self._history))
        self._history.clear()
        metrics: StepMetrics = jax.tree.unflatten(self._traced[0][1], list(rows.T))
        _refuse_not_finite(metrics, self._stage, last - len(rows) + 1)
        means = {}
        for update, terms in metrics.terms.items():
            taken = metrics.taken[update] > 0
            if taken.any():
                means |= {f"{update}/{name}": float(np.mean(x[taken])) for name, x in terms.items()}
        return means


def _refuse_not_finite(metrics: StepMetrics, stage: Stage, first: int) -> None:
    """Raise for the first step that was not finite, and there for the cause rather than what follows from it.

    A gradient that is not finite is none of its own where the optimiser left it out (`optax.apply_if_finite`).
    """
    found = []
    for update in stage.updates:
        terms = metrics.terms[update.name]
        causes = [*sorted(terms.keys() - OWN_TERMS), "loss", "stats_norm", "step_norm"]
        for name in causes:
            bad = ~np.isfinite(terms.get(name, np.zeros(1)))
            if bad.any():
                found.append((int(bad.argmax()), f"{update.name}/{name}"))
    if found:
        row, term = min(found, key=lambda one: one[0])  # of equals the first
        step = first + row
        value = {"step_norm": "the gradient, or the optimiser's step", "stats_norm": "an average of BatchNorm"}.get(
            term.split("/")[-1], "its value"
        )
        raise NotFiniteError(
            f"stage {stage.name!r}, step {step}: {term} is not finite ({value}), on batch {step}. Nothing was saved "
            f"since; the latest checkpoint is good",
            step=step,
            term=term,
            batch=step,
        )


def _end(stages: Sequence[Stage], number: int) -> int:
    """The step at which so many stages have ended."""
    return sum(stage.steps for stage in stages[:number])


def _check(stages: Sequence[Stage], positive: Mapping[str, int]) -> None:
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected stages with names of their own, got {names}")
    wrong = {name: value for name, value in positive.items() if value < 1}
    if wrong:
        raise ValueError(f"expected at least 1, got {wrong}")


@contextmanager
def _sigterm() -> Generator[Callable[[bool], bool], None, None]:
    """Listen for SIGTERM: yields a function that says whether it came, to any process where they are asked together."""
    came = threading.Event()

    def asked(together: bool) -> bool:
        if jax.process_count() == 1:
            return came.is_set()
        if not together:
            return False
        return bool(np.any(process_allgather(np.array(came.is_set()))))

    if threading.current_thread() is not threading.main_thread():  # only the main one may
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _profiler(
    folder: str | os.PathLike | None, steps: tuple[int, int] | None
) -> Generator[Callable[[int, Any], None], None, None]:
    """Trace some steps: yields a function to be called before each with its number and the state so far."""
    running = False

    def at(step: int, state: Any) -> None:
        nonlocal running
        if steps is None or folder is None:
            return
        if not running and steps[0] <= step <= steps[1]:
            jax.block_until_ready(state)
            jax.profiler.start_trace(Path(folder) / "profile")
            running = True
        elif running and step > steps[1]:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            running = False

    try:
        yield at
    finally:
        if running:
            jax.profiler.stop_trace()
