"""Run by test_sharding.py as each of two processes, between which a state lies in pieces: trains and resumes."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
from jax.experimental.multihost_utils import process_allgather, sync_global_devices

from jhand.train import fsdp, make_mesh, start_distributed
from tests.train import small


class Part(small.Batches):
    """Every second row, beginning with the number of this process."""

    def __next__(self):
        return jax.tree.map(lambda x: x[jax.process_index() :: 2], super().__next__())


def evaluate(state):
    """A number of a state that no process holds alone."""
    return {"error": float(process_allgather(state.params["head"]["bias"], tiled=True)[0])}


def heavy(key):
    """With parameters so large that each process keeps its part in files of its own."""
    variables = small.init(key)
    return {**variables, "params": {**variables["params"], "ballast": jax.random.normal(key, (400, 400))}}


def main(folder):
    start_distributed()
    assert jax.process_count() == 2 and len(jax.devices()) == 4
    together = partial(
        small.run,
        folder / "run",
        init=heavy,
        stages=small.stages(noise=0, optimiser=optax.sgd),
        evaluate=evaluate,
        mesh=make_mesh(model=4),
        layout=partial(fsdp, at_least=1),
    )
    together(batches=Part())
    sync_global_devices("done")
    if jax.process_index() == 0:
        newest = folder / "run" / "checkpoints" / "latest" / "20"
        for path in (newest / "state" / "ocdbt.process_1" / "d").iterdir():
            path.write_bytes(b"")  # which the first process does not read
    sync_global_devices("damaged")
    state = together(batches=Part())
    arrays = {name: x for name, x in state.__dict__.items() if name != "key"}
    whole = jax.tree.map(lambda x: process_allgather(x, tiled=True), arrays)
    if jax.process_index() == 0:
        np.savez(folder / "state.npz", **small.flat(whole))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
