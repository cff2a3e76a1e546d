"""What a training carries from step to step: one pytree, from which it goes on bit by bit."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jhand.train.paths import select
from jhand.train.stages import Stage, Variables


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on, besides its batch."""

    params: PyTree
    """Nested dicts."""
    stats: PyTree
    """Averages of BatchNorm, nested dicts; {} without."""
    ema: PyTree
    """Averages of both, `{"params", "stats"}`; {} where the stage keeps none."""
    optimisers: PyTree
    """State of each update's optimiser, by its name."""
    step: PyTree
    """() int32: steps taken."""
    stage_step: PyTree
    """() int32: steps taken in this stage."""
    key: PyTree
    """() key of the run, the same at every step: step n draws from `fold_in(key, n)`."""

    @property
    def variables(self) -> Variables:
        """What losses see."""
        own = {"params": self.params, "stats": self.stats}
        return {**own, "ema": self.ema} if self.ema else own

    @property
    def averaged(self) -> Variables:
        """`{"params", "stats"}` to evaluate and to publish: their averages where the stage keeps some."""
        return self.ema or self.variables


def init_state(key: Array, variables: Variables, stage: Stage) -> TrainState:
    """The state before the first step of the first stage.

    Args:
        key: of the run, () typed key.
        variables: what a system's `init` returns, `{"params", "stats"}`.
        stage: the first one.

    Raises:
        ValueError: other variables, or an update whose trainable part does not exist.
    """
    if set(variables) != {"params", "stats"}:
        raise ValueError(f'expected variables {{"params", "stats"}}, got {sorted(variables)}')
    zero = jnp.zeros((), jnp.int32)
    return begin_stage(TrainState(variables["params"], variables["stats"], {}, {}, zero, zero, key), stage)


def begin_stage(state: TrainState, stage: Stage) -> TrainState:
    """The state before the first step of a stage: optimisers afresh, params, stats and averages carried on.

    Raises:
        ValueError: an update whose trainable part does not exist.
    """
    variables = state.variables
    if stage.begin is not None:
        variables = stage.begin(variables)
    params, stats = variables["params"], variables["stats"]
    optimisers: dict[str, Any] = {}
    for update in stage.updates:
        try:
            part = select(params, update.trainable)
        except ValueError as error:
            raise ValueError(f"stage {stage.name!r}, update {update.name!r}: {error}") from None
        optimisers[update.name] = update.optimiser.init(part)
    started = replace(
        state,
        params=params,
        stats=stats,
        ema={} if stage.ema is None else variables.get("ema", {"params": params, "stats": stats}),
        optimisers=optimisers,
        stage_step=jnp.zeros((), jnp.int32),
    )
    return jax.tree.map(_own, started)


def _own(x: Array) -> Array:
    """A copy: an array that is two leaves, as params and averages are at first, cannot be donated twice.

    Also of a definite dtype, as the step returns it: it would be compiled again otherwise.
    """
    return jnp.copy(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.array(x, x.dtype, copy=True)
