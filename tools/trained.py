"""What an experiment trained, to be looked at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jhand.experiment import Batch, Experiment, Options, Run, fit, held_out_batches, load_published, run_of
from jhand.hand import HandModel


def trained(experiment: Experiment, folder: Path, hand: HandModel) -> tuple[Run, list[Batch], Callable[[Batch], Any]]:
    """The first seed of the full variant at the cpu preset: its run, which is trained where it is not in the folder,
    what it is tested on, and its answer to a batch of that, compiled once for each size.
    """
    run = run_of(experiment, Options(folder=folder), "full", {}, 0)
    fit(experiment, run, hand)
    variables = load_published(experiment, run.folder / "weights", run.config, hand)
    system = experiment.system
    predict = jax.jit(lambda v, batch: system.predict(v, system.inputs_of(batch), run.config, hand))
    return run, held_out_batches(experiment, run), lambda batch: predict(variables, batch)
