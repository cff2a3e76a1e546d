"""Run by test_sharding.py with eight devices: prints how far apart trainings are that ought to be equal."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

from jhand.train import (
    Stage,
    Update,
    fsdp,
    init_state,
    make_mesh,
    pmap_step,
    replicated,
    shard_batch,
    train,
    train_step,
)
from tests.train import small

SGD = optax.sgd(0.1, momentum=0.9)
LAYOUTS = {
    "one": (dict(devices=jax.devices()[:1]), replicated),
    "data": ({}, replicated),
    "fsdp": (dict(model=8), partial(fsdp, at_least=1)),
    "both": (dict(model=4), partial(fsdp, at_least=1)),
}


def stage_of(loss):
    return Stage("s", 5, (Update("all", loss, SGD),), ema=0.9)


def trained(loss, layout, **more):
    devices, place = LAYOUTS[layout]
    return train(
        jax.random.key(2),
        small.init,
        (stage_of(loss),),
        small.Batches(),
        mesh=make_mesh(**devices),
        layout=place,
        quiet=True,
        **more,
    )


def pmapped(loss):
    """Five steps by hand from the state that `train` begins with."""
    stage = stage_of(loss)
    init_key, run_key = jax.random.split(jax.random.key(2))
    state, step, batches = init_state(run_key, small.init(init_key), stage), pmap_step(stage), small.Batches()
    for _ in range(stage.steps):
        state, _ = step(state, jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), next(batches)))
    return state


def distance(a, b):
    a, b = small.flat(a), small.flat(b)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name].astype(float) - b[name]).max()) for name in a)


def collectives():
    """Reductions in the compiled data-parallel step."""
    stage, mesh = stage_of(small.plain_loss), make_mesh()
    state = init_state(jax.random.key(0), small.init(jax.random.key(0)), stage)
    shardings = replicated(state, mesh)
    step = jax.jit(train_step(stage), in_shardings=(shardings, None))
    return step.lower(jax.device_put(state, shardings), shard_batch(small.batch_at(0), mesh)).compile().as_text()


def moved(folder):
    """Runs that go on elsewhere: from one device to eight, in pieces, and from there to one."""

    def run(layout):
        devices, place = LAYOUTS[layout]
        mesh = make_mesh(**devices)
        return small.run(folder, stages=small.stages(noise=0, optimiser=optax.sgd), keep=99, mesh=mesh, layout=place)

    def go_back_to(step):
        latest = folder / "checkpoints" / "latest"
        for path in latest.iterdir():
            if int(path.name) > step:
                shutil.rmtree(path)

    whole = run("one")
    go_back_to(5)
    to_eight = run("fsdp")
    go_back_to(15)
    return max(distance(to_eight, whole), distance(run("one"), whole))


def main(folder):
    one, plain = trained(small.loss, "one"), trained(small.plain_loss, "one")
    found = {name: distance(trained(small.loss, name), one) for name in ("data", "fsdp", "both")}
    found["microbatches"] = distance(trained(small.plain_loss, "data", accumulate=2), plain)
    found["pmap"] = distance(pmapped(small.plain_loss), plain)
    found["pmap, statistics of each device"] = distance(pmapped(small.loss), one)
    split = trained(small.loss, "fsdp").optimisers["all"]
    found["largest piece"] = max(x.addressable_shards[0].data.size for x in jax.tree.leaves(split))
    found["reductions"] = collectives().count(" all-reduce(")
    found["moved"] = moved(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
