"""One step on many devices and in many processes: meshes, layouts of a state, batches, and the same step under pmap."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jhand.train.stages import Precision, Stage
from jhand.train.state import TrainState
from jhand.train.step import StepMetrics, train_step

Layout = Callable[[PyTree, Mesh], PyTree]
"""`layout(tree, mesh) -> tree of NamedSharding`: where the leaves of a state lie, by their shapes alone."""


def start_distributed() -> None:
    """Join the other processes of a run, before the first use of jax; nothing where there is one process.

    Processes find each other by SLURM's or Open MPI's environment, or by JAX_COORDINATOR_ADDRESS (host:port of process
    0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        ValueError: some of the three variables without the others.
    """
    own = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [name for name in own if name in os.environ]
    if given:
        if len(given) < len(own):
            raise ValueError(f"of {', '.join(own)} only {', '.join(given)} are set: set all three, or none")
        address, number, index = (os.environ[name] for name in own)
        if int(number) > 1:
            jax.distributed.initialize(address, int(number), int(index))
    elif any(int(os.environ.get(name, "1")) > 1 for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")):
        jax.distributed.initialize()


def make_mesh(*, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh ("data", "model") of devices. Batches are split over all of them, a state at most over "model".

    Args:
        model: devices that share one state under `fsdp`; 1 for data parallelism, their number for the least memory,
            those of one host for copies between hosts and pieces inside.
        devices: all devices of all processes by default.

    Raises:
        ValueError: a number of devices that `model` does not divide.
    """
    devices = list(jax.devices() if devices is None else devices)
    if model < 1 or len(devices) % model:
        raise ValueError(f"{len(devices)} devices cannot be shared out to groups of {model}")
    grid = np.array(devices, dtype=object).reshape(-1, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(tree: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """The layout of data parallelism: every leaf whole on every device, whatever its leading axes."""
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


def fsdp(tree: PyTree, mesh: Mesh | AbstractMesh, *, at_least: int = 1024) -> PyTree:
    """The layout of fully sharded data parallelism (ZeRO 3, Rajbhandari et al. 2020): leaves in pieces over "model".

    Args:
        tree: arrays or their shapes, any leading axes. The longest axis that divides evenly is cut.
        mesh: of `make_mesh`.
        at_least: number of elements from which on a leaf is cut.

    Returns:
        A tree of shardings.
    """
    pieces = mesh.shape["model"]

    def place(x: Any) -> NamedSharding:
        even = [axis for axis, length in enumerate(x.shape) if length % pieces == 0]
        if not even or np.prod(x.shape) < at_least:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(even, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "model"))

    return jax.tree.map(place, tree)


def batch_sharding(batch: PyTree, mesh: Mesh) -> PyTree:
    """Where the leaves of a batch lie: leading axes (B, ...) split over all devices, scalars everywhere."""
    split = NamedSharding(mesh, PartitionSpec(("data", "model")))
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: split if np.ndim(x) else whole, batch)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Put a batch of the host onto the devices.

    Args:
        batch: arrays with a leading axis (B, ...), in each process its own part of the global batch.
        mesh: of `make_mesh`.

    Returns:
        Global arrays (B times the number of processes, ...).

    Raises:
        ValueError: a B that the number of this process's devices does not divide.
    """
    devices = mesh.local_mesh.size
    uneven = {np.shape(x) for x in jax.tree.leaves(batch) if np.ndim(x) and len(x) % devices}
    if uneven:
        raise ValueError(f"a batch with entries of shape {sorted(uneven)} cannot be split over {devices} devices")
    shardings = batch_sharding(batch, mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, shardings)
    return jax.tree.map(lambda x, s: jax.make_array_from_process_local_data(s, np.asarray(x)), batch, shardings)


def pmap_step(
    stage: Stage,
    *,
    accumulate: int = 1,
    precision: Precision = Precision(),
    devices: Sequence[jax.Device] | None = None,
) -> Callable[[TrainState, PyTree], tuple[TrainState, StepMetrics]]:
    """The data-parallel step under `jax.pmap`, for code that is built on it; `train` itself uses jit.

    Gradients, terms and stats are means over devices. Layers see the rows of one device: a BatchNorm that is to see
    all of them needs `axis_name="data"`; and all devices draw from the same key.

    Args:
        stage: losses and optimisers.
        accumulate: microbatches on each device.
        precision: the dtype losses compute in.
        devices: all local ones by default.

    Returns:
        `step(state, batch) -> (state, metrics)`, compiled: a state without a device axis, a batch of leaves
        (devices, B / devices, ...).
    """
    step = train_step(stage, accumulate=accumulate, precision=precision, axis_name="data")
    return jax.pmap(step, "data", in_axes=(None, 0), out_axes=(None, None), devices=devices)


def begin_on(mesh: Mesh, layout: Layout, begin: Callable[..., TrainState], *arguments: PyTree) -> TrainState:
    """Compute a state where it is to lie: `begin(*arguments)`, each leaf made on its own devices.

    Args:
        mesh: of `make_mesh`.
        layout: `replicated`, `fsdp` or one's own.
        begin: `init_state` or `begin_stage` with its stage bound.
        arguments: pytrees with any leading axes, the same in every process.
    """
    shardings = layout(jax.eval_shape(begin, *arguments), mesh)
    return jax.jit(begin, out_shardings=shardings)(*arguments)
