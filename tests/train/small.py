"""A training small enough to be run many times: a perceptron with BatchNorm's averages, on points of a parabola."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jhand.train import LossAux, Stage, Update, train

WIDTH, BATCH = 8, 16
TERMS = ("loss", "gradient_norm", "step_norm", "stats_norm")


def init(key):
    first, second = jax.random.split(key)
    params = {
        "encoder": {"kernel": 0.5 * jax.random.normal(first, (2, WIDTH)), "bias": jnp.zeros(WIDTH)},
        "head": {"kernel": 0.5 * jax.random.normal(second, (WIDTH, 1)), "bias": jnp.zeros(1)},
    }
    return {"params": params, "stats": {"encoder": {"mean": jnp.zeros(WIDTH)}}}


def apply(params, x):
    """Predictions (B,) and the mean over the batch (WIDTH,) that BatchNorm takes away."""
    hidden = x @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    mean = hidden.mean(0)
    return (jnp.tanh(hidden - mean) @ params["head"]["kernel"] + params["head"]["bias"])[:, 0], mean


def loss(variables, batch, *, key, noise=0.0):
    x = batch["x"] + noise * jax.random.normal(key, batch["x"].shape) if noise else batch["x"]
    found, mean = apply(variables["params"], x)
    old = variables["stats"]["encoder"]["mean"]
    square = jnp.mean((found - batch["y"]) ** 2)
    return square, LossAux({"encoder": {"mean": 0.9 * old + 0.1 * mean}}, {"rms": jnp.sqrt(square)})


def plain_loss(variables, batch, *, key):
    """Without statistics of the batch: a mean over its rows."""
    hidden = jnp.tanh(batch["x"] @ variables["params"]["encoder"]["kernel"] + variables["params"]["encoder"]["bias"])
    found = (hidden @ variables["params"]["head"]["kernel"] + variables["params"]["head"]["bias"])[:, 0]
    return jnp.mean((found - batch["y"]) ** 2), LossAux()


def batch_at(step, rows=BATCH):
    rng = np.random.default_rng(step)
    x = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] ** 2 + 0.5 * x[:, 1]).astype(np.float32)}


class Batches:
    """An endless iterator that can say where it stands, as Grain's can."""

    def __init__(self, rows=BATCH):
        self.next_index, self.rows = 0, rows

    def __iter__(self):
        return self

    def __next__(self):
        self.next_index += 1
        return batch_at(self.next_index, self.rows)

    def get_state(self):
        return {"next_index": self.next_index}

    def set_state(self, state):
        self.next_index = state["next_index"]


def stages(steps=20, noise=0.1, optimiser=optax.adam):
    whole = Update("all", partial(loss, noise=noise), optimiser(1e-2))
    head = Update("head", partial(loss, noise=noise), optimiser(1e-3), trainable=("head",))
    return (Stage("first", steps - steps // 3, (whole,), ema=0.9), Stage("second", steps // 3, (head,), ema=0.9))


def evaluate(state):
    batch = batch_at(0, 64)
    found, _ = jax.jit(apply)(state.averaged["params"], batch["x"])
    return {"error": float(jnp.mean(jnp.abs(found - batch["y"])))}


def run(folder, *, steps=20, **more):
    """The training of the tests; every argument of `train` may be replaced."""
    settings = dict(
        key=jax.random.key(3),
        init=init,
        stages=stages(steps),
        batches=Batches(),
        folder=folder,
        evaluate=evaluate,
        evaluate_every=8,
        best="error",
        log_every=4,
        save_every=5,
        quiet=True,
    )
    return train(**settings | more)


def flat(state):
    """A state as numpy arrays by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        for path, x in leaves
    }


class Announcing(Batches):
    """Says which batch it gives, so that who started the process knows how far it is."""

    def __next__(self):
        print(self.next_index + 1, flush=True)
        return super().__next__()


if __name__ == "__main__":
    folder, steps, save_every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    state = run(folder, steps=steps, save_every=save_every, batches=Announcing())
    np.savez(folder.with_suffix(".npz"), **flat(state))
