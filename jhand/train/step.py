"""One step of training as a pure function: gradients, microbatches, optimisers, averages."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PyTree

from jhand.train.paths import merge, select
from jhand.train.stages import LossAux, Precision, Stage, Update
from jhand.train.state import TrainState

OWN_TERMS = ("loss", "gradient_norm", "step_norm", "stats_norm")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """What one step measured."""

    terms: dict[str, dict[str, Any]]
    """By update and term, () float32: `loss`, the loss's own terms, and the norms of the gradient, of what was added to
    the parameters and, where there are any, of the stats. 0 where the update was not taken."""
    taken: dict[str, Any]
    """By update, () float32: 1 where it was taken, else 0."""


def train_step(
    stage: Stage, *, accumulate: int = 1, precision: Precision = Precision(), axis_name: str | None = None
) -> Callable[[TrainState, PyTree], tuple[TrainState, StepMetrics]]:
    """The step of a stage, to be jitted: `step(state, batch) -> (state, metrics)`.

    Under `jit` with a sharded batch the loss is that of the whole batch, whatever the number of devices.

    Args:
        stage: losses and optimisers.
        accumulate: number of microbatches that a batch is computed in, one after the other, to need less memory; every
            n-th row forms one, so that each device keeps its own rows. Gradients and terms are means over them: equal
            to the whole batch where a loss is a mean over it. BatchNorm sees one microbatch at a time.
        precision: the dtype losses compute in.
        axis_name: of `pmap` or `shard_map`, over which gradients, terms and stats are averaged.

    Returns:
        A pure function; every leaf of its batch has a leading axis (B, ...).
    """

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, StepMetrics]:
        terms, taken = {}, {}
        key = jax.random.fold_in(state.key, state.step)
        for i, update in enumerate(stage.updates):
            run = partial(_take, update, accumulate, precision, axis_name)
            arguments = (state, batch, jax.random.fold_in(key, i))
            if update.every == 1:
                state, terms[update.name] = run(*arguments)
                taken[update.name] = jnp.ones(())
            else:
                due = state.stage_step % update.every == 0
                state, terms[update.name] = lax.cond(due, run, _skip(run), *arguments)
                taken[update.name] = due.astype(jnp.float32)
        if stage.ema is not None:
            decay = stage.ema(state.stage_step) if callable(stage.ema) else stage.ema
            state = replace(state, ema=_average(state.ema, {"params": state.params, "stats": state.stats}, decay))
        state = replace(state, step=state.step + 1, stage_step=state.stage_step + 1)
        return state, StepMetrics(terms, taken)

    return step


def _skip(run: Callable) -> Callable:
    """`run` without doing it: the state as it is, and zeros for what it would measure."""

    def skip(state: TrainState, batch: PyTree, key: Array) -> tuple[TrainState, dict]:
        _, terms = jax.eval_shape(run, state, batch, key)
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), terms)

    return skip


def _take(
    update: Update,
    accumulate: int,
    precision: Precision,
    axis_name: str | None,
    state: TrainState,
    batch: PyTree,
    key: Array,
) -> tuple[TrainState, dict]:
    part = select(state.params, update.trainable)

    def loss(part: PyTree, stats: PyTree, batch: PyTree, key: Array) -> tuple[Array, tuple[PyTree, dict]]:
        variables = state.variables | {"params": merge(state.params, part), "stats": stats}
        value, aux = update.loss(precision.cast_variables(variables), precision.cast_batch(batch), key=key)
        return jnp.asarray(value, jnp.float32), (_with(stats, aux), _terms(update, value, aux))

    def mean(x: PyTree) -> PyTree:
        return x if axis_name is None else lax.pmean(x, axis_name)

    gradient_of = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        gradient, (stats, terms) = gradient_of(part, state.stats, batch, key)
    else:
        gradient, stats, terms = _over_microbatches(gradient_of, accumulate, part, state.stats, batch, key)
    gradient, stats, terms = mean((gradient, stats, terms))
    change, optimiser = update.optimiser.update(gradient, state.optimisers[update.name], part)
    terms |= {"gradient_norm": optax.tree.norm(gradient), "step_norm": optax.tree.norm(change)}
    if jax.tree.leaves(stats):
        terms["stats_norm"] = optax.tree.norm(stats)
    moved: Any = optax.apply_updates(part, change)
    state = replace(
        state,
        params=merge(state.params, moved),
        stats=stats,
        optimisers=state.optimisers | {update.name: optimiser},
    )
    return state, terms


def _over_microbatches(
    gradient_of: Callable, number: int, part: PyTree, stats: PyTree, batch: PyTree, key: Array
) -> tuple[PyTree, PyTree, dict]:
    def split(x: Array) -> Array:
        if x.ndim == 0 or len(x) % number:
            raise ValueError(f"a batch with an entry of shape {x.shape} cannot be split into {number} microbatches")
        return x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1)

    def one(carry: tuple, indexed: tuple) -> tuple:
        total, stats = carry
        i, microbatch = indexed
        gradient, (stats, terms) = gradient_of(part, stats, microbatch, jax.random.fold_in(key, i))
        return (jax.tree.map(jnp.add, total, gradient), stats), terms

    zeros = jax.tree.map(jnp.zeros_like, part)
    (total, stats), terms = lax.scan(one, (zeros, stats), (jnp.arange(number), jax.tree.map(split, batch)))
    return jax.tree.map(lambda x: x / number, total), stats, jax.tree.map(jnp.mean, terms)


def _with(stats: PyTree, aux: LossAux) -> PyTree:
    """Stats with those that a loss changed, in the dtypes they had."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), stats, merge(stats, aux.stats))


def _terms(update: Update, value: Any, aux: LossAux) -> dict[str, Array]:
    for name, term in {"loss": value, **aux.terms}.items():
        if jnp.shape(term) != ():
            raise ValueError(f"update {update.name!r}: {name} has shape {jnp.shape(term)}, expected a scalar: a mean")
    taken = sorted(set(aux.terms) & set(OWN_TERMS))
    if taken:
        raise ValueError(f"update {update.name!r}: terms may not be called {taken}, which every update has itself")
    return {name: jnp.asarray(term, jnp.float32) for name, term in {"loss": value, **aux.terms}.items()}


def _average(ema: PyTree, new: PyTree, decay: Any) -> PyTree:
    def average(old: Array, x: Array) -> Array:
        return old + (1 - decay) * (x - old) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(average, ema, new)
