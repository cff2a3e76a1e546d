"""Worlds to train on, and how they get onto disk."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jhand.data.records import SUFFIX, ClipRecords, write_clips
from jhand.data.world import cameras, scripts
from jhand.data.world.assets import Assets, load_assets
from jhand.data.world.clips import SEGMENTS, WorldConfig, make_clips

VERSION = 1
"""Of what a configuration and a seed stand for: raised whenever pictures or annotations change."""
_SHARD = 512  # clips a file: what an interrupted writing loses at most


def single_hand(size: int = 64, **changes: Any) -> WorldConfig:
    """One right hand before a camera on any side."""
    return replace(WorldConfig(script=scripts.one_hand, size=(size, size)), **changes)


def two_hands(size: int = 64, **changes: Any) -> WorldConfig:
    """Two hands of one person, half of them closely together."""
    return replace(WorldConfig(script=scripts.two_hands, size=(size, size)), **changes)


def grasps(size: int = 64, **changes: Any) -> WorldConfig:
    """A right hand that reaches for an object, closes around it and carries it."""
    return replace(WorldConfig(script=scripts.hand_and_object, size=(size, size)), **changes)


def egocentric(size: int = 64, **changes: Any) -> WorldConfig:
    """Two hands as their owner sees them, by a wide camera on a moving head."""
    config = WorldConfig(
        script=scripts.before_the_eyes, camera=cameras.head_mounted, size=(size, size), occluders=0, surround=2
    )
    return replace(config, **changes)


WORLDS: dict[str, Callable[..., WorldConfig]] = {
    "single_hand": single_hand,
    "two_hands": two_hands,
    "grasps": grasps,
    "egocentric": egocentric,
}
"""By the names that command lines use."""


def world_clips(
    config: WorldConfig, seed: int, numbers: range, assets: Assets | None = None
) -> Iterator[dict[str, Any]]:
    """Clips of a world, one after the other, with their words: what is written to disk.

    Args:
        config: of the world.
        seed: of the world.
        numbers: which clips.
        assets: what can appear, by default `load_assets()`.
    """
    things = load_assets() if assets is None else assets
    for start in range(numbers.start, numbers.stop, config.at_once):
        several = make_clips(seed, np.arange(start, start + config.at_once), config, things)
        several = jax.tree.map(np.asarray, several)
        for number in range(start, min(start + config.at_once, numbers.stop)):
            clip = jax.tree.map(lambda leaf, n=number - start: leaf[n], several)
            yield with_words(clip, config, seed, number, things)


def with_words(clip: dict[str, Any], config: WorldConfig, seed: int, number: int, assets: Assets) -> dict[str, Any]:
    """A clip of arrays with what the schema asks for in words.

    Args:
        clip: one of `make_clips`.
        config: of the world.
        seed: of the world.
        number: of the clip.
        assets: what could appear.
    """
    hands = {
        side: {**hand, "model": {"right": assets.right, "left": assets.left}[side].name}
        for side, hand in clip["hands"].items()
    }
    meta = {
        "dataset": "world",
        "sequence": f"{script_name(config.script)}/{seed}/{number}",
        "fps": config.fps,
        "world": "x right, y down, z forward",
        "licence": "none needed",
        "segments": list(SEGMENTS),
        "version": VERSION,
    }
    return {**clip, "hands": hands, "meta": meta}


def fingerprint(config: WorldConfig, seed: int, assets: Assets) -> str:
    """What pictures on disk are known by: all that they depend on, as twelve letters."""
    words = {k: (v.__module__, v.__qualname__) if callable(v) else v for k, v in asdict(config).items()}
    words |= {"seed": seed, "version": VERSION, "hand": assets.right.name, "vertices": assets.right.num_vertices}
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    digest.update(np.asarray(assets.backgrounds).tobytes())
    return digest.hexdigest()[:12]


def cached_world(
    config: WorldConfig,
    seed: int,
    number: int,
    *,
    folder: str | os.PathLike | None = None,
    assets: Assets | None = None,
    progress: Callable[[int], None] | None = None,
) -> ClipRecords:
    """The first clips of a world on disk: written once, then read by whoever asks for the same ones.

    Writing that was interrupted goes on where it stopped; a world with more clips adds to what is there.

    Args:
        config: of the world.
        seed: of the world.
        number: how many clips.
        folder: for all worlds; by default `$JHAND_CACHE`, or `.cache/jhand/worlds` in the user's home.
        assets: what can appear, by default `load_assets()`.
        progress: called with how many clips there are, after each file.

    Returns:
        The clips, by index.
    """
    things = load_assets() if assets is None else assets
    at = Path(folder or os.environ.get("JHAND_CACHE") or Path.home() / ".cache" / "jhand" / "worlds")
    at = at / f"{script_name(config.script)}-{fingerprint(config, seed, things)}"
    shards = []
    for start in range(0, number, _SHARD):
        stop = min(start + _SHARD, number)
        path = at / f"{start:07d}-{stop:07d}{SUFFIX}"
        if not path.is_file():
            write_clips(path, world_clips(config, seed, range(start, stop), things))
        shards.append(path)
        if progress is not None:
            progress(stop)
    return ClipRecords(shards)


def script_name(script: Callable[..., Any]) -> str:
    """What a world is called by: the name of what happens in it."""
    return getattr(script, "__name__", type(script).__name__)
