"""What a run leaves in its folder: checkpoints of the latest and the best state, and its log."""

import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from jaxtyping import PyTree

from jhand.train.checkpoints import CheckpointError, Checkpoints
from jhand.train.logs import Report, json_lines, progress_bar, tensorboard_events

logger = logging.getLogger(__name__)


class Record:
    """The folder of a run while it goes, a context manager. Without a folder it keeps nothing and shows progress only.

    `log.jsonl`, `checkpoints/latest`, `checkpoints/best`, `events`; only the first process writes the logs.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        *,
        keep: int,
        best: str | None,
        lower_is_better: bool,
        tensorboard: bool,
        quiet: bool,
    ) -> None:
        if folder is None and (best is not None or tensorboard):
            raise ValueError("a best state and event files need a folder to be written to")
        self._folder = None if folder is None else Path(folder)
        self._best, self._sign = best, 1 if lower_is_better else -1
        self._tensorboard, self._quiet, self._keep = tensorboard, quiet, keep
        self._stack = ExitStack()
        self._reports: list[Report] = []
        self._latest: Checkpoints | None = None
        self._best_ones: Checkpoints | None = None
        self._best_score = math.inf

    def __enter__(self) -> "Record":
        with ExitStack() as stack:  # closes what is open already where something cannot be opened
            if self._folder is not None:
                checkpoints = self._folder / "checkpoints"
                self._latest = stack.enter_context(Checkpoints(checkpoints / "latest", keep=self._keep))
                if self._best is not None:
                    self._best_ones = stack.enter_context(Checkpoints(checkpoints / "best", keep=1))
                    self._best_score = self._score_so_far(self._best_ones, self._best)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def newest(self, like: Callable[[dict[str, Any]], PyTree]) -> tuple[int, PyTree, dict[str, Any]] | None:
        """As `Checkpoints.restore_newest`; None without a folder."""
        return None if self._latest is None else self._latest.restore_newest(like)

    def open_logs(self, step: int, total: int) -> None:
        """Begin to report, at a step out of a total; what logs say of later steps is removed."""
        if jax.process_index() != 0:
            return
        if self._folder is not None:
            self._reports.append(self._stack.enter_context(json_lines(self._folder / "log.jsonl", after=step)))
            if self._tensorboard:
                self._reports.append(self._stack.enter_context(tensorboard_events(self._folder / "events", after=step)))
        self._reports.append(self._stack.enter_context(progress_bar(total, quiet=self._quiet)))

    def report(self, step: int, values: Mapping[str, Any]) -> None:
        """Write numbers and words by name."""
        for report in self._reports:
            report(step, values)

    def save(self, step: int, state: PyTree, about: dict[str, Any]) -> None:
        """Begin to write a latest checkpoint."""
        if self._latest is not None:
            self._latest.save(step, state, about)

    def save_if_best(self, step: int, state: PyTree, about: dict[str, Any]) -> None:
        """Begin to write the best checkpoint where `about["scores"]` says that it is; equal is not better.

        Raises:
            ValueError: scores without the one that decides.
        """
        if self._best_ones is None:
            return
        scores = about["scores"]
        if self._best not in scores:
            raise ValueError(f"the evaluation has no {self._best!r}; it has {sorted(scores)}")
        score = self._sign * scores[self._best]
        better = score < self._best_score  # False for NaN
        if jax.process_count() > 1:  # all write together or none does, even if they measured different scores
            better = bool(broadcast_one_to_all(np.array(better)))
        if better:
            self._best_score = score
            self._best_ones.save(step, state, about)

    def wait(self) -> None:
        """Wait until every checkpoint is written."""
        for checkpoints in (self._latest, self._best_ones):
            if checkpoints is not None:
                checkpoints.wait()

    def _score_so_far(self, best_ones: Checkpoints, best: str) -> float:
        try:
            about = best_ones.newest_about()
        except CheckpointError as error:
            # The latest state is what a run goes on from: it is not lost with the best one.
            logger.warning("the best state so far is lost: %s", error)
            return math.inf
        return math.inf if about is None or best not in about["scores"] else self._sign * about["scores"][best]
