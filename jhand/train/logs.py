"""What a run says while it goes: a JSON line per report, event files of TensorBoard, a bar with the time left."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

Report = Callable[[int, Mapping[str, Any]], None]
"""`report(step, values)`: numbers and words by name."""


@contextlib.contextmanager
def json_lines(path: str | os.PathLike, *, after: int = 0) -> Generator[Report, None, None]:
    """A file of JSON objects, one a line, each with its `step`; it reaches the disk's cache line by line.

    Args:
        path: made if it is missing.
        after: lines up to this step are kept, those after it belong to steps that will be taken again; so is a
            line that was not finished.

    Yields:
        `report(step, values)`. What is not finite is written as null.

    Raises:
        OSError: a disk that is full, say; it names the file.
    """
    path = Path(path)
    kept = [line for line in _lines(path) if line["step"] <= after]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    part.replace(path)
    with path.open("ab", buffering=0) as out:

        def report(step: int, values: Mapping[str, Any]) -> None:
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
            data = (json.dumps({"step": step, **finite}) + "\n").encode()
            try:
                while data:  # a disk that is filling up takes a part first
                    data = data[out.write(data) :]
            except OSError as error:
                raise OSError(error.errno, f"the log could not be written ({error.strerror})", str(path)) from error

        yield report


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a log, in order; a last one that was cut off is left out.

    Raises:
        FileNotFoundError: no such file.
    """
    Path(path).stat()
    return _lines(Path(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the process ended while it wrote
                break
    return found


@contextlib.contextmanager
def tensorboard_events(folder: str | os.PathLike, *, after: int = 0) -> Generator[Report, None, None]:
    """Event files of TensorBoard, one curve for each number. Needs the extra `tensorboard`.

    Args:
        folder: of the event files.
        after: curves written beyond this step by an interrupted run are discarded by TensorBoard.

    Yields:
        `report(step, values)`; words are left out.

    Raises:
        ImportError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("event files of TensorBoard need tensorboardX: pip install 'jhand[tensorboard]'") from error
    with SummaryWriter(os.fspath(folder), purge_step=after + 1) as writer:

        def report(step: int, values: Mapping[str, Any]) -> None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    writer.add_scalar(name, value, step)
            writer.flush()

        yield report


@contextlib.contextmanager
def progress_bar(total: int, *, quiet: bool = False) -> Generator[Report, None, None]:
    """A line with the stage, the last loss and the time left; nothing where standard error is no terminal.

    Args:
        total: number of steps.
        quiet: nothing at all.

    Yields:
        `report(step, values)`, which shows `stage` and the values that end in `loss`.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda step, values: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("compiling", total=total)

        def report(step: int, values: Mapping[str, Any]) -> None:
            losses = (f"{name} {value:.4g}" for name, value in values.items() if name.endswith("loss"))
            bar.update(task, completed=step, description=" ".join([str(values.get("stage", "")), *losses]))

        yield report
