"""Hands through a video: found once, then followed.

A slot holds a hand. While it does, the next picture is searched where the hand was seen last; where slots are free, the
palm detector looks at the whole picture. Everything has a fixed shape, so a video streams through one compiled step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.track.detection import detect_rows, no_palms
from jhand.track.hands import Hands, hands_in_image, landmarks, no_hands
from jhand.track.networks import HAND_SIZE, Networks
from jhand.track.regions import (
    Region,
    checked_images,
    crop_each,
    flattened,
    overlap,
    region_from_keypoints,
    region_from_palm,
)

_SAME_HAND = 0.5
"""Regions that overlap more hold the same hand."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tracker:
    """Where hands are expected in the next picture."""

    present: Bool[Array, "*b n"]
    """Which slots hold a hand."""
    regions: Region
    """Leading axes (..., N)."""


def start_tracker(num_hands: int = 2, batch: tuple[int, ...] = ()) -> Tracker:
    """A tracker that has seen nothing yet.

    Args:
        num_hands: slots of a picture; fewer are faster, since the detector runs while one is free.
        batch: leading axes, one tracker for each video.

    Returns:
        Leading axes (*batch, num_hands).
    """
    shape = (*batch, num_hands)
    nowhere = Region(centre=jnp.zeros((*shape, 2)), side=jnp.zeros(shape), angle=jnp.zeros(shape))
    return Tracker(present=jnp.zeros(shape, bool), regions=nowhere)


@jax.jit
def track_hands(
    networks: Networks,
    tracker: Tracker,
    frames: ArrayLike,
    *,
    detection_threshold: float | Float[Array, ""] = 0.5,
    presence_threshold: float | Float[Array, ""] = 0.5,
) -> tuple[Tracker, Hands]:
    """One step: the next picture of a video, or of several videos side by side.

        tracker = start_tracker(num_hands=1)
        for frame in video:
            tracker, hands = track_hands(networks, tracker, frame)

    Over leading axes, each network works on those pictures and slots alone that need it. `jax.vmap` is right too, but
    works for all whenever one needs it. A hand keeps its slot while it is seen; where two slots came to hold the same
    hand, the first keeps it. The thresholds are MediaPipe's min_detection_confidence and min_tracking_confidence.

    Args:
        networks: from `load_networks`.
        tracker: from `start_tracker` or the last step, leading axes (..., N).
        frames: (..., H, W, 3), red first: uint8, or floats from 0 to 1.
        detection_threshold: the least score of a palm that begins a track.
        presence_threshold: a track ends where the landmark network's score is not above this.

    Returns:
        The tracker for the next picture, and hands (..., N) in this one.

    Raises:
        ValueError: shapes that do not fit.
    """
    x = checked_images(frames)
    batch, num_hands = x.shape[:-3], tracker.present.shape[-1]
    if tracker.present.shape[:-1] != batch:
        raise ValueError(
            f"frames: expected leading axes {tracker.present.shape[:-1]} like the tracker's, got {batch}: "
            "start_tracker(num_hands, batch)"
        )
    images = x.reshape(-1, *x.shape[-3:])
    present = tracker.present.reshape(-1, num_hands)
    regions = jax.tree.map(lambda a: a.reshape(-1, num_hands, *a.shape[len(batch) + 1 :]), tracker.regions)

    chunk = _chunk(len(images))
    palms = _where_needed(
        ~jnp.all(present, -1),
        lambda rows: detect_rows(networks, images, rows, num_hands, detection_threshold),
        no_palms(len(images), num_hands),
        chunk,
    )
    present, regions = _fill(present, regions, palms.present, region_from_palm(palms.box, palms.keypoints))

    every, slots = flattened(regions), jnp.arange(present.size)

    def look(rows: Array) -> Hands:
        there = jax.tree.map(lambda a: a[rows], every)
        crops = crop_each(images, slots[rows] // num_hands, there, HAND_SIZE, "border")
        return hands_in_image(landmarks(networks, crops), there)

    hands = _where_needed(present.reshape(-1), look, no_hands(present.size), chunk)
    next_regions = region_from_keypoints(hands.keypoints2d)
    there = jax.tree.map(lambda a: a.reshape(-1, num_hands, *a.shape[1:]), next_regions)
    seen = first_of_their_kind(there, (hands.score > presence_threshold).reshape(-1, num_hands)).reshape(-1)

    def kept(values: Array) -> Array:
        values = where_rows(seen, values, 0)
        return values.reshape(*batch, num_hands, *values.shape[1:])

    hands, next_regions = jax.tree.map(kept, (hands, next_regions))
    return Tracker(present=hands.present, regions=next_regions), hands


@partial(jax.jit, static_argnames="num_hands")
def detect_hands(
    networks: Networks,
    images: ArrayLike,
    *,
    num_hands: int = 2,
    detection_threshold: float | Float[Array, ""] = 0.5,
    presence_threshold: float | Float[Array, ""] = 0.5,
) -> Hands:
    """Hands in pictures that have nothing to do with each other.

    Args:
        networks: from `load_networks`.
        images: (..., H, W, 3), red first: uint8, or floats from 0 to 1.
        num_hands: slots of a picture.
        detection_threshold: the least score of a palm.
        presence_threshold: what the landmark network's score must be above.

    Returns:
        Leading axes (..., num_hands), best palms first; empty slots hold 0.

    Raises:
        ValueError: images of another shape or type.
    """
    x = checked_images(images)
    thresholds = {"detection_threshold": detection_threshold, "presence_threshold": presence_threshold}
    return track_hands(networks, start_tracker(num_hands, x.shape[:-3]), x, **thresholds)[1]


def first_of_their_kind(regions: Region, present: Array) -> Array:
    """Which regions of those present (M, K) do not show the same hand as an earlier one that stays."""
    one, other = (jax.tree.map(lambda a, axis=axis: jnp.expand_dims(a, axis), regions) for axis in (2, 1))
    same = overlap(one, other) > _SAME_HAND
    for k in range(1, present.shape[1]):
        again = jnp.any(same[:, k, :k] & present[:, :k], -1)
        present = present.at[:, k].set(present[:, k] & ~again)
    return present


def where_rows(which: Array, values: Array, others: ArrayLike) -> Array:
    """Values (*b, ...) where a mask (*b) says so, else the others."""
    return jnp.where(which.reshape(*which.shape, *[1] * (values.ndim - which.ndim)), values, others)


def _fill(present: Array, regions: Region, found: Array, new: Region) -> tuple[Array, Region]:
    """Free slots (M, N) take what was found (M, N), the first ones first, unless a slot has it already."""
    num_slots = present.shape[1]
    together = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), regions, new)
    found = first_of_their_kind(together, jnp.concatenate([present, found], 1))[:, num_slots:]
    place, number = jnp.cumsum(~present, 1)[:, :, None], jnp.cumsum(found, 1)[:, None]
    taken = (place == number) & ~present[:, :, None] & found[:, None]  # (M, slot, found)
    which, filled = jnp.argmax(taken, -1), jnp.any(taken, -1)

    def choose(old: Array, new: Array) -> Array:
        wide = [1] * (old.ndim - 2)
        return where_rows(filled, jnp.take_along_axis(new, which.reshape(*which.shape, *wide), 1), old)

    return present | filled, jax.tree.map(choose, regions, new)


def _where_needed(needed: Array, function: Callable[[Array], Any], nothing: Any, chunk: int) -> Any:
    """`function` of the rows (M,) that are needed, `chunk` at a time; for the others `nothing`, a tree of (M, ...)."""
    total = len(needed)
    if total <= chunk:  # a loop of one step would not do: XLA takes what never changes out of a loop, to run it always
        found = jax.lax.cond(jnp.any(needed), lambda: function(jnp.arange(total)), lambda: nothing)
        return jax.tree.map(lambda a, b: where_rows(needed, a, b), found, nothing)
    order, count = jnp.argsort(~needed, stable=True), jnp.sum(needed)
    order = jnp.pad(order, (0, -total % chunk))

    def step(i: Array, results: Any) -> Any:
        rows = jax.lax.dynamic_slice_in_dim(order, i * chunk, chunk)
        places = jnp.where(i * chunk + jnp.arange(chunk) < count, rows, total)  # what lies beyond is dropped
        return jax.tree.map(lambda a, new: a.at[places].set(new, mode="drop"), results, function(rows))

    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, nothing)


def _chunk(images: int) -> int:
    """How many pictures a network sees at once: on a CPU as many as its caches hold, which is not many."""
    return min(images, 2 if jax.default_backend() == "cpu" else 64)
