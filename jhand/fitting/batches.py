"""Batches of sequences: arrays (N, T, ...) of measurements, mapped over and padded to size classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array

from jhand.fitting.measurements import Measurements
from jhand.fitting.terms import Term


def _arrays_of_hands(term: Term) -> tuple:
    """The arrays with leading axes of hands and frames: all but what the term's residuals have in common."""
    return term.data, term.weights, term.source


def _with_arrays(term: Term, arrays: tuple) -> Term:
    data, weights, source = arrays
    return replace(term, data=data, weights=weights, source=source)


def map_term(change: Callable[[Array], Array], term: Term) -> Term:
    """Every array of hands and frames changed alike."""
    return _with_arrays(term, jax.tree.map(change, _arrays_of_hands(term)))


def map_arrays(change: Callable[[Array], Array], seen: Measurements, linked: Array) -> Measurements:
    """Every array of hands and frames changed alike, and new links between the frames."""
    return Measurements(tuple(map_term(change, term) for term in seen.terms), change(seen.given), linked)


def for_each_hand(function: Callable[..., Any], seen: Measurements, *arrays: Any) -> Any:
    """`function(measurements of one sequence, ...)` over the leading axis."""

    def one(arrays_of_terms: tuple, given: Array, linked: Array, *rest: Any) -> Any:
        terms = tuple(_with_arrays(term, a) for term, a in zip(seen.terms, arrays_of_terms, strict=True))
        return function(Measurements(terms, given, linked), *rest)

    return jax.vmap(one)(tuple(map(_arrays_of_hands, seen.terms)), seen.given, seen.linked, *arrays)


def size_class(num: int) -> int:
    """The next power of two: batches and sequences of nearly the same size share one compiled solve."""
    return 1 << max(num - 1, 0).bit_length()
