"""From clips to batches, by Grain: mixed, augmented, batched, sharded, and resumed exactly where they stopped.

A source is anything with `len` and `[index] -> clip`: `ClipRecords`, a reader of a published dataset, a list. Workers
see numpy only; JAX never runs in them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from jhand.data.clip import nbytes

Clip = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """Clips by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Clip: ...


class Cached:
    """A source whose clips are kept in memory once read, as far as they fit."""

    def __init__(self, source: Source, most_bytes: int = 2**31) -> None:
        """Wraps a source.

        Args:
            source: slow to read.
            most_bytes: of arrays that are kept, 2 GiB by default; what comes after is read each time.
        """
        self._source, self._left, self._kept = source, most_bytes, dict[int, Clip]()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        if index not in self._kept:
            clip = self._source[index]
            size = nbytes(clip)
            if size > self._left:
                return clip
            self._left -= size
            self._kept[index] = clip
        return self._kept[index]

    def __repr__(self) -> str:
        return f"Cached({self._source!r})"


def batches(
    sources: Source | Sequence[tuple[Source, float]],
    prepare: Callable[[Clip], Mapping[str, Any]],
    *,
    batch: int,
    seed: int,
    augment: Callable[[Clip, np.random.Generator], Clip] | None = None,
    shuffle: bool = True,
    repeat: bool = True,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    ahead: int = 16,
) -> grain.IterDataset:
    """Batches of prepared clips, the same for a seed whatever the number of threads.

    Its iterator has `get_state()` and `set_state()`: a training that resumes with them goes on with the very next
    batch, augmentation included.

    Args:
        sources: one, or several with their weights in the mixture. Where these lack different entries, let `prepare`
            use `select(..., fill=True)`.
        prepare: from a clip to what a system takes: a flat or nested dict of arrays, the same shapes for all clips.
        batch: clips in each batch of this process; the rest of an epoch is dropped.
        seed: of order and augmentation.
        augment: `(clip, rng) -> clip`, such as `jhand.data.augment` with its settings.
        shuffle: every epoch anew.
        repeat: for ever; else one epoch of the mixture.
        process: index and number of this process: each sees its own part of every epoch.
        threads: that read and augment.
        ahead: clips that are read before they are needed.

    Returns:
        Batches; every leaf of `prepare` with a leading axis.

    Raises:
        ValueError: no source, a weight that is not positive, or fewer clips than a batch.
    """
    mixture = (
        [(sources, 1.0)] if hasattr(sources, "__getitem__") and not isinstance(sources, (list, tuple)) else sources
    )
    if isinstance(mixture, (list, tuple)) and mixture and isinstance(mixture[0], Mapping):
        mixture = [(mixture, 1.0)]  # clips in a list
    index, number = process
    if not mixture or not 0 <= index < number:
        raise ValueError(f"expected sources and a process (index, number), got {len(mixture)} sources and {process}")
    parts = []
    for position, (source, weight) in enumerate(mixture):
        if not weight > 0:
            raise ValueError(f"sources[{position}]: expected a positive weight, got {weight}")
        if len(source) < batch * number:
            raise ValueError(f"sources[{position}]: {len(source)} clips are fewer than {number} batches of {batch}")
        data = grain.MapDataset.source(source).seed(seed + position)
        data = data.shuffle() if shuffle else data
        parts.append(data[index::number].repeat() if repeat or len(mixture) > 1 else data[index::number])
    data = parts[0]
    if len(parts) > 1:
        weights = np.array([weight for _, weight in mixture], float)
        data = grain.MapDataset.mix(parts, weights=list(weights / weights.sum()))
        if not repeat:  # as many as there are clips
            data = data[: sum(len(source) for source, _ in mixture) // number]
    if augment is not None:
        data = data.seed(seed).random_map(augment)
    data = data.map(lambda clip: dict(prepare(clip))).batch(batch, drop_remainder=True)
    return data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead // batch, 2)))
