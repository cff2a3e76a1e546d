"""Timing of functions beside each other: one process, interleaved rounds, order rotating from round to round.

Import this module before torch and before jax: libgomp's default spinning makes torch with two threads 30 times slower
as soon as anything else wants a core, which would flatter whatever it is compared with.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and range over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        return cls(float(np.median(values)), float(np.min(values)), float(np.max(values)))


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, np.ndarray]:
    """Seconds a call, (rounds,) for each of `calls`.

    In each round every function runs once to warm up and then as often as fits into `seconds`, at least once.

    Args:
        calls: functions that return when their work is done.
        rounds: how often each function is timed.
        seconds: time of a function in a round.
    """
    repeats = {name: _repeats(call, seconds) for name, call in calls.items()}
    names = list(calls)
    times = {name: np.zeros(rounds) for name in names}
    for i in range(rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            call = calls[name]
            call()
            start = perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name][i] = (perf_counter() - start) / repeats[name]
    return times


def _repeats(call: Callable[[], object], seconds: float) -> int:
    call()  # compiles
    start = perf_counter()
    call()
    return max(1, int(seconds / (perf_counter() - start)))
