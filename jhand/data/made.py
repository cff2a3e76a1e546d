"""Examples that a function of a key makes: for systems that read motions or keypoints, not pictures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Example = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """A distribution of examples.

    Attributes:
        make: `(key, scene) -> example`, a dict of arrays, jittable; its docstring's first line says what it makes.
        scene: what of it can be chosen, a frozen dataclass.
    """

    make: Callable[[jax.Array, Any], Example]
    scene: Any = None

    def __str__(self) -> str:
        return (self.make.__doc__ or repr(self.make)).strip().split("\n")[0].rstrip(".")


def read_once(read: Callable[[], T]) -> Callable[[], T]:
    """What examples are made of: read from its file when it is first asked for, as constants also under a trace."""

    @lru_cache(maxsize=1)
    def kept() -> T:
        with jax.ensure_compile_time_eval():
            return read()

    return kept


def make_examples(made: Made, seed: int, numbers: Any) -> Example:
    """Examples by their numbers: the same numbers, the same examples. Inside jit, too.

    Args:
        made: their distribution.
        seed: another one, other examples.
        numbers: (B,).

    Returns:
        Leaves (B, ...).
    """
    key = jax.random.key(seed)
    return jax.vmap(lambda number: made.make(jax.random.fold_in(key, number), made.scene))(jnp.asarray(numbers))


@lru_cache(maxsize=4)
def first_examples(made: Made, seed: int, number: int, *, at_once: int = 64) -> Example:
    """The examples 0 to number - 1, in memory; the last ones asked for are kept.

    Args:
        made: their distribution.
        seed: as in `make_examples`.
        number: how many.
        at_once: how many one program makes.

    Returns:
        Numpy leaves (number, ...).
    """
    size = min(at_once, number)
    some = jax.jit(lambda start: make_examples(made, seed, start + jnp.arange(size)))
    parts = [jax.device_get(some(start)) for start in range(0, number, size)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:number], *parts)


class Rows(Iterator[Example]):
    """Batches of examples in memory: shuffled anew each epoch, without end, and exactly resumable.

    Args:
        examples: leaves (N, ...).
        batch: how many at once, N at most.
        seed: of the shuffling.
    """

    def __init__(self, examples: Example, batch: int, seed: int) -> None:
        self._examples, self._batch, self._seed = examples, batch, seed
        self._number = len(jax.tree.leaves(examples)[0])
        if not 1 <= batch <= self._number:
            raise ValueError(f"batch: expected 1 to {self._number}, the number of examples, got {batch}")
        self._next = 0
        self._epoch, self._order = -1, np.zeros(0, int)

    def __next__(self) -> Example:
        epoch, place = divmod(self._next, self._number // self._batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self._number)
        self._next += 1
        rows = self._order[place * self._batch : (place + 1) * self._batch]
        return jax.tree.map(lambda leaf: leaf[rows], self._examples)

    def get_state(self) -> dict[str, int]:
        """Where it stands."""
        return {"next": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go on from where `get_state` stood."""
        self._next = state["next"]
