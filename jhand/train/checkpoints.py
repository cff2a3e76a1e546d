"""States on disk: written in the background, complete or absent, checked when they are read. The one module on Orbax.

A folder of checkpoints holds a folder for each step: `state`, the arrays, and `about`, a JSON file with what else is
needed to go on. Numbers are read where they are wanted: a state saved on one device may be read on eight.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jax.experimental.multihost_utils import process_allgather, sync_global_devices
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Array, PyTree

log = logging.getLogger(__name__)


class CheckpointError(OSError):
    """A checkpoint that cannot be written or read: which, why, and what is still there."""


class CheckpointMismatch(ValueError):
    """Checkpoints of another training: other parameters, other stages."""


class Checkpoints:
    """A folder of checkpoints, of which the newest are kept. A context manager: leaving it waits for the last write."""

    def __init__(self, folder: str | os.PathLike, *, keep: int = 3, read_only: bool = False) -> None:
        """Opens or makes a folder; what an interrupted write left in it is removed, at the latest by the next one.

        Args:
            folder: of the checkpoints alone. All processes of a run see the same one.
            keep: number of checkpoints; an older one goes after a newer one is complete.
            read_only: leave everything as it is, as beside a run that writes.

        Raises:
            CheckpointError: a folder that cannot be made.
        """
        self.folder = Path(folder).absolute()  # Orbax refuses relative paths
        self._read_only = read_only
        if read_only:
            options = ocp.CheckpointManagerOptions(create=False)
        else:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: {error.strerror or error}") from error
        # Each process reads for itself: who finds damage would leave the others waiting in Orbax for ever.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        self._reader = ocp.Checkpointer(handler, multiprocessing_options=alone)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.wait()
        except CheckpointError:
            if kind is None:
                raise
        finally:
            self._reader.close()
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps of complete checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, state: PyTree, about: dict[str, Any]) -> None:
        """Begin to write a checkpoint; it counts once complete, and the state may be donated at once.

        Args:
            step: its number; one that exists is left as it is.
            state: arrays of any shapes, with any leading axes.
            about: what JSON can hold.

        Raises:
            CheckpointError: this write, or the one before, failed.
        """
        if step in self._manager.all_steps():
            return
        arrays = _by_path(state)
        about = {**about, "arrays": _shapes(arrays), "checksum": _checksum(arrays)}
        full = {name: x for name, x in arrays.items() if x.size}  # Orbax refuses arrays without elements
        items = ocp.args.Composite(state=ocp.args.StandardSave(full), about=ocp.args.JsonSave(about))
        try:
            self._manager.save(step, args=items)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: a write failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error

    def about(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return json.loads((self.folder / str(step) / "about" / "metadata").read_text(encoding="utf-8"))

    def restore_newest(self, like: Callable[[dict[str, Any]], PyTree]) -> tuple[int, PyTree, dict[str, Any]] | None:
        """The newest checkpoint that can be read.

        One that is damaged is passed over with a warning and moved aside, to a name that ends in `.damaged`.

        Args:
            like: from the JSON part to the shapes, dtypes and shardings wanted (`jax.ShapeDtypeStruct`, any leading
                axes).

        Returns:
            Step, state and JSON part; None where there is no checkpoint.

        Raises:
            CheckpointMismatch: a checkpoint with other arrays than `like`.
            CheckpointError: there are checkpoints, and none can be read.
        """
        for step in self.steps():
            about = self._try(step, self.about, step)
            if about is not None:
                state = like(about)  # what is wrong here is no damage
                wanted = _by_path(state)
                _compare(f"{self.folder}, step {step}", about["arrays"], _shapes(wanted))
                arrays = self._try(step, self._arrays, step, wanted)
                if arrays is not None and self._try(step, _verify, arrays, about["checksum"]):
                    return step, jax.tree.unflatten(jax.tree.structure(state), list(arrays.values())), about
        self._refuse_if_damaged()
        return None

    def newest_about(self) -> dict[str, Any] | None:
        """The JSON part of the newest checkpoint that can be read; None where there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        for step in self.steps():
            about = self._try(step, self.about, step)
            if about is not None:
                return about
        self._refuse_if_damaged()
        return None

    def _try(self, step: int, read: Callable[..., Any], *arguments: Any) -> Any:
        """What `read` returns; None where the checkpoint is damaged to any process, and then it stands aside."""
        found, error = None, None
        try:
            found = read(*arguments)
        except (PermissionError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as damage:  # comes out of Orbax as one of many kinds of error
            error = damage
        damaged = error is not None
        if jax.process_count() > 1:
            damaged = bool(np.any(process_allgather(np.array(damaged))))
        if damaged:
            self._set_aside(step, error)
            return None
        return found

    def _refuse_if_damaged(self) -> None:
        if damaged := sorted(path.name for path in self.folder.glob("*.damaged*")):
            raise CheckpointError(
                f"{self.folder}: no checkpoint can be read; {', '.join(damaged)} are damaged. "
                "Move the folder away to begin anew"
            )

    def _arrays(self, step: int, wanted: dict[str, Any]) -> dict[str, Array]:
        full = {name: x for name, x in wanted.items() if x.size}
        arrays = self._reader.restore(self.folder / str(step) / "state", args=ocp.args.StandardRestore(full))
        return {name: arrays[name] if x.size else jnp.zeros(x.shape, x.dtype) for name, x in wanted.items()}

    def _set_aside(self, step: int, error: Exception | None) -> None:
        reason = "so says another process" if error is None else (str(error) or type(error).__name__).splitlines()[0]
        log.warning("%s: the checkpoint at step %d is damaged and passed over: %s", self.folder, step, reason)
        if self._read_only:
            return
        path = self.folder / str(step)
        if jax.process_index() == 0 and path.exists():
            names = (f"{step}.damaged{again}" for again in ("", *range(1, 1000)))
            path.rename(next(self.folder / name for name in names if not (self.folder / name).exists()))
        if jax.process_count() > 1:
            sync_global_devices(f"{path} set aside")
        self._manager.reload()

    def _unwritten(self, error: Exception) -> CheckpointError:
        text = str(error)
        code = re.search(r"os_error_code='(\d+)'", text)  # at the end of a page about files inside the checkpoint
        reason = os.strerror(int(code[1])) if code else " ".join(text.split())[:300]
        self._manager.reload()  # it counted the one that failed
        left = self.steps()
        kept = f"The ones at steps {left} are complete" if left else "There is no complete one yet"
        return CheckpointError(
            f"{self.folder}: a checkpoint could not be written: {reason}. {kept}: make room or mend the cause, and "
            "start again, which goes on from the newest"
        )


def load_newest(folder: str | os.PathLike, like: PyTree) -> tuple[int, PyTree, dict[str, Any]]:
    """Read the newest checkpoint of a folder, such as the best state of a run, which may be going on.

    Args:
        folder: `checkpoints/latest` or `checkpoints/best` of a run.
        like: arrays or `jax.ShapeDtypeStruct` with the shapes, dtypes and shardings wanted, any leading axes: the state
            that `train` returned, say.

    Returns:
        Step, state, and the JSON part, of which `about["scores"]` has the evaluation.

    Raises:
        FileNotFoundError: no checkpoint there.
        CheckpointMismatch, CheckpointError: as `Checkpoints.restore_newest`.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of checkpoints")
    described = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.restore_newest(lambda _: described)
    if found is None:
        raise FileNotFoundError(f"{folder}: no checkpoint in it")
    return found


def load_variables(folder: str | os.PathLike, like: PyTree) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read the variables of the newest checkpoint of a folder, whatever its stage: the averages where it keeps some.

    Args:
        folder: `checkpoints/latest` or `checkpoints/best` of a run.
        like: variables with the shapes expected, any leading axes; arrays or what `jax.eval_shape(init, key)` returns.

    Returns:
        Step, `{"params", "stats"}` on the first device of this process, and the JSON part.

    Raises:
        FileNotFoundError: no checkpoint there.
        CheckpointMismatch: other variables.
        CheckpointError: as `Checkpoints.restore_newest`.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of checkpoints")
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.restore_newest(lambda about: {name: _struct(x) for name, x in about["arrays"].items()})
    if found is None:
        raise FileNotFoundError(f"{folder}: no checkpoint in it")
    step, arrays, about = found
    above = "ema/" if any(name.startswith("ema/") for name in arrays) else ""
    groups = (f"{above}params/", f"{above}stats/")
    part = {name.removeprefix(above): x for name, x in arrays.items() if name.startswith(groups)}
    wanted = _by_path(like)
    _compare(f"{folder}, step {step}", _shapes(part), _shapes(wanted))
    variables = jax.tree.unflatten(jax.tree.structure(like), [part[name] for name in wanted])
    return step, variables, about


def _struct(written: str) -> jax.ShapeDtypeStruct:
    """What `_shapes` wrote of an array, to be put on the first device of this process."""
    name, shape = written.removesuffix("]").split("[")
    made = (jax.random.key(0, impl=impl) for impl in ("threefry2x32", "rbg", "unsafe_rbg"))
    keys = {str(key.dtype): key.dtype for key in made}
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    dtype = keys[name] if name in keys else jnp.dtype(name)
    return jax.ShapeDtypeStruct([int(n) for n in shape.split(",") if n], dtype, sharding=here)


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {keystr(path, simple=True, separator="/"): x for path, x in tree_flatten_with_path(tree)[0]}


def _shapes(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()}


def _compare(where: str, saved: dict[str, str], wanted: dict[str, str]) -> None:
    names = sorted(saved.keys() | wanted.keys())
    other = [
        f"{n}: saved {saved.get(n, 'nothing')}, expected {wanted.get(n, 'nothing')}"
        for n in names
        if saved.get(n) != wanted.get(n)
    ]
    if other:
        listed = "\n  ".join(other[:10] + ([f"... {len(other) - 10} more"] if len(other) > 10 else []))
        raise CheckpointMismatch(f"{where} belongs to another configuration; choose another folder:\n  {listed}")


def _verify(arrays: dict[str, Array], checksum: int) -> bool:
    if _checksum(arrays) != checksum:
        raise ValueError("its numbers are not those that were saved (checksum)")
    return True


def _checksum(arrays: dict[str, Array]) -> int:
    """The sum of all bits taken as whole numbers, modulo 2^32: the same however the arrays lie on devices."""
    sums = [_bits(x) for x in arrays.values()]
    return sum(int(s) for s in jax.device_get(sums)) % 2**32


@jax.jit
def _bits(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    words = lax.bitcast_convert_type(x, np.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}"))
    return jnp.sum(words.astype(jnp.uint32), dtype=jnp.uint32)
