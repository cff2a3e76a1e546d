"""What is learned, by which losses, in which order: stages of updates, each of a part of the parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_map_with_path
from jaxtyping import PyTree

from jhand.train.paths import is_under

Variables = dict[str, Any]
"""`"params"` and `"stats"`, nested dicts; where averages are kept also `"ema"`, a dict of both."""

Loss = Callable[..., tuple[Any, "LossAux"]]
"""`loss(variables, batch, *, key) -> (scalar, LossAux)`, in train mode."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossAux:
    """What a loss returns beside its value."""

    stats: PyTree = field(default_factory=dict)
    """New averages of BatchNorm: those that changed, a part of `variables["stats"]`."""
    terms: dict[str, Any] = field(default_factory=dict)
    """Scalars to log."""
    outputs: PyTree = None
    """Whatever else a caller of the loss wants; a training drops it, and XLA then does not compute it."""


@dataclass(frozen=True)
class Update:
    """One loss, the parameters it moves and how.

    A loss sees all variables; gradients and optimiser state exist for the trainable part alone.
    """

    name: str
    loss: Loss
    optimiser: optax.GradientTransformation
    """It counts its own updates: a schedule inside has as many as there are steps divided by `every`."""
    trainable: tuple[str, ...] = ("",)
    """Prefixes of paths in `params`, such as `"decoder"`; by default everything."""
    every: int = 1
    """Taken at every so-manieth step of the stage, the first included."""


@dataclass(frozen=True)
class Stage:
    """Steps that are alike: in each, all updates in turn, each seeing what the one before changed."""

    name: str
    steps: int
    updates: tuple[Update, ...]
    ema: float | Callable[[Any], Any] | None = None
    """Decay of exponential averages of all params and stats, or a function of the step of the stage; None keeps none.
    Averages begin as copies and are carried on by following stages that keep them."""
    begin: Callable[[Variables], Variables] | None = None
    """Changes the variables when the stage begins: copies a student into its teacher, say. Traced."""

    def __post_init__(self) -> None:
        names = [update.name for update in self.updates]
        if self.steps < 1 or not names or len(set(names)) < len(names) or any(u.every < 1 for u in self.updates):
            raise ValueError(
                f"stage {self.name!r}: expected steps and every of at least 1 and updates with names of their own, "
                f"got {self.steps} steps and updates {names}"
            )


@dataclass(frozen=True)
class Precision:
    """The dtype a loss computes in. Parameters stay float32 between steps; gradients come back in it.

    Only float32 leaves are cast, and never the stats. Targets in metres lose their third digit in bfloat16: name the
    entries of the batch that a network reads.
    """

    dtype: Any = jnp.float32
    params: tuple[str, ...] = ("",)
    """Prefixes of the parameters that are cast."""
    batch: tuple[str, ...] = ("",)
    """Prefixes of the entries of a batch that are cast, such as `"image"`."""

    def cast_variables(self, variables: Variables) -> Variables:
        """Variables as the loss sees them, averages included."""
        return {
            name: self.cast_variables(part)
            if name == "ema"
            else _cast(part, self.params, self.dtype)
            if name == "params"
            else part
            for name, part in variables.items()
        }

    def cast_batch(self, batch: PyTree) -> PyTree:
        """A batch, with any leading axes, as the loss sees it."""
        return _cast(batch, self.batch, self.dtype)


def _cast(tree: PyTree, prefixes: Sequence[str], dtype: Any) -> PyTree:
    def cast(path: tuple, x: Any) -> Any:
        if x.dtype != jnp.float32 or not is_under(keystr(path, simple=True, separator="/"), prefixes):
            return x
        return x.astype(dtype)

    return tree_map_with_path(cast, tree)


def adamw(
    peak: float, steps: int, *, warm_up: float = 0.05, weight_decay: float = 1e-4, clip: float = 1.0
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up, a cosine down to zero, and gradients clipped by norm.

    Args:
        peak: learning rate after the warm-up.
        steps: number of updates, warm-up included.
        warm_up: fraction of the steps.
        weight_decay: of AdamW.
        clip: largest global norm of a gradient.
    """
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, round(warm_up * steps), steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=weight_decay))
