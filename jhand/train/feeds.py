"""Where batches come from: an iterator on the host, or a function of the step that runs on the devices."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jaxtyping import PyTree

from jhand.train.sharding import shard_batch
from jhand.train.stages import Stage

Batches = Iterator[PyTree] | Callable[..., PyTree]
"""An iterator over batches of the host, in each process its own part: one of Grain, which is resumed by its state, or
any other, which is resumed by drawing again what was drawn. Or a jittable function from the step (() int32, counted
from 0 through all stages) to a batch, which then is made on the devices."""

Feeds = Mapping[str, Batches]
"""Batches by the name of their stage; those under `""` serve every stage that has none of its own."""


def feeds_of(batches: Batches | Feeds, stages: Sequence[Stage]) -> Feeds:
    """The batches of all stages by name.

    Raises:
        ValueError: batches by name that leave a stage without, or that no stage has.
    """
    if not isinstance(batches, Mapping):
        return {"": batches}
    names = {stage.name for stage in stages}
    if names != batches.keys():
        raise ValueError(f"batches are given for {sorted(batches)}, the stages are {sorted(names)}")
    return batches


def feed_of(feeds: Feeds, stage: Stage) -> Batches:
    """The batches of a stage."""
    return feeds[stage.name if stage.name in feeds else ""]


def next_batch(iterator: Iterator[PyTree], mesh: jax.sharding.Mesh, step: int) -> PyTree:
    """The next batch on the devices, leaves (B, ...).

    Raises:
        ValueError: the batches have ended, or cannot be split over the devices.
    """
    try:
        batch = next(iterator)
    except StopIteration:
        raise ValueError(f"the batches ended before step {step}: let them repeat, or take fewer steps") from None
    return shard_batch(batch, mesh)


def places_of(feeds: Feeds) -> dict[str, list[Any]]:
    """Where iterators stand, in every process, as JSON can hold it: of those that can say."""
    places = {}
    for name, feed in feeds.items():
        get_state = getattr(feed, "get_state", None)
        if get_state is not None:
            try:
                text = json.dumps(get_state())
            except TypeError as error:
                raise TypeError(
                    f"the state of {type(feed).__name__} is no JSON ({error}): iterate a Grain dataset, no DataLoader"
                ) from error
            places[name] = [json.loads(one) for one in _in_all_processes(text)]
    return places


def go_to(feeds: Feeds, places: Mapping[str, list[Any]], stages: Sequence[Stage], step: int) -> None:
    """Take iterators, as they are at the start of a run, to where they stood after a step.

    Raises:
        ValueError: a place that does not fit, or another number of processes where they stood at different ones.
    """
    drawn: dict[int, int] = {}
    before = 0
    for stage in stages:
        feed = feed_of(feeds, stage)
        drawn[id(feed)] = drawn.get(id(feed), 0) + min(max(step - before, 0), stage.steps)
        before += stage.steps
    done = set()
    for name, feed in feeds.items():
        if callable(feed) or id(feed) in done:
            continue
        done.add(id(feed))
        if name in places and hasattr(feed, "set_state"):
            _set(feed, places[name])
        else:
            for _ in range(drawn[id(feed)]):
                next(feed)


def _set(feed: Any, places: list[Any]) -> None:
    number = jax.process_count()
    if len(places) != number and any(place != places[0] for place in places):
        raise ValueError(f"{len(places)} processes stood at different batches; {number} cannot go on from there")
    place = places[jax.process_index() % len(places)]
    try:
        feed.set_state(place)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"the batches cannot go on from {place} ({error!r}): keep the data and the number of workers as they were"
        ) from error


def _in_all_processes(text: str) -> list[str]:
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(process_allgather(np.array(len(data), np.int32))).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    return [bytes(row[:n]).decode() for row, n in zip(process_allgather(padded), lengths, strict=True)]
