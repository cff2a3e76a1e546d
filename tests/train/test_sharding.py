import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jhand.train import fsdp, make_mesh, read_log, replicated, shard_batch, start_distributed
from tests.train import small
from tests.train.killing import ROOT
from tests.train.two_processes import heavy


def start(module, folder, devices, **environment):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.train.{module}", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    process = start("many_devices", tmp_path_factory.mktemp("eight"), 8)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out)


@pytest.mark.parametrize("how", ["data", "fsdp", "both", "microbatches", "pmap", "moved"])
def test_eight_devices_train_as_one_does(eight, how):
    """With plain SGD, and statistics over the batch: a wrong mean over devices would show."""
    assert eight[how] < 1e-6


def test_layers_under_pmap_see_the_rows_of_one_device(eight):
    """What the docstring of `pmap_step` says; and that the comparison can tell."""
    assert eight["pmap, statistics of each device"] > 1e-3


def test_a_state_in_pieces_is_in_pieces(eight):
    assert eight["largest piece"] <= 2 * small.WIDTH / 8


def test_data_parallelism_costs_one_reduction(eight):
    assert eight["reductions"] == 1


def test_two_processes_train_as_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [start("two_processes", tmp_path, 2, **common, JAX_PROCESS_ID=str(i)) for i in range(2)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    stages = small.stages(noise=0, optimiser=optax.sgd)
    expected = small.flat(small.run(None, best=None, init=heavy, stages=stages))
    found = dict(np.load(tmp_path / "state.npz"))
    assert found.keys() == {name for name in expected if not name.startswith("key")}
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], atol=1e-6, err_msg=name)
    latest = tmp_path / "run" / "checkpoints" / "latest"
    assert (latest / "20.damaged").is_dir() and (latest / "20").is_dir()  # damage to one is damage to all
    steps = [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert steps == [4, 5, 8, 8, 10, 12, 14, 15, 16, 16, 20, 20]  # one process writes, and nothing twice


def test_one_process_needs_no_coordinator(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    start_distributed()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    start_distributed()
    assert jax.process_count() == 1
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="only JAX_NUM_PROCESSES are set: set all three"):
        start_distributed()


def abstract_mesh(model):
    """A mesh of devices that need not be there: layouts look at its shape alone."""
    return jax.sharding.AbstractMesh((8 // model, model), ("data", "model"))


def test_fsdp_cuts_the_longest_even_axis_of_large_leaves():
    shapes = {"wide": (3, 512), "tall": (640, 512), "odd": (1021, 3), "small": (8, 8), "scalar": ()}
    leaves = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    found = {name: s.spec for name, s in fsdp(leaves, abstract_mesh(4)).items()}
    cut = {"wide": PartitionSpec(None, "model"), "tall": PartitionSpec("model")}
    assert found == {**dict.fromkeys(shapes, PartitionSpec()), **cut}
    assert {s.spec for s in replicated(leaves, abstract_mesh(4)).values()} == {PartitionSpec()}


def test_meshes_and_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="1 devices cannot be shared out to groups of 2"):
        make_mesh(model=2, devices=jax.devices()[:1])
    two = make_mesh(devices=jax.devices()[:1])
    placed = shard_batch({"x": np.ones((3, 2)), "rate": np.float32(2)}, two)
    assert placed["x"].dtype == np.float32 and placed["rate"].shape == ()
