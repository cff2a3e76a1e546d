"""Landmark sets on disk: what a source calls its joints, learned once and used for its other recordings."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jhand.hand.landmark_sets import LandmarkSet
from jhand.hand.model import HandModel


class LandmarkFileError(ValueError):
    """A file that holds no landmark set for this hand: which file, and what was expected and found."""


def save_landmarks(hand: HandModel, landmark_set: LandmarkSet, path: str | os.PathLike) -> None:
    """Write a landmark set of K points of `hand` as `.npz`; the file is replaced in one step."""
    part = Path(f"{os.fspath(path)}.part")
    with part.open("wb") as out:
        np.savez_compressed(
            out,
            basis=np.asarray(landmark_set.basis),
            weights=np.asarray(landmark_set.weights),
            names=np.array(landmark_set.names),
            hand=hand.name,
            side=hand.side,
        )
    part.replace(path)


def load_landmarks(hand: HandModel, path: str | os.PathLike) -> LandmarkSet:
    """Read a landmark set of `hand`.

    Raises:
        LandmarkFileError: another file, or landmarks of another hand.
    """
    try:
        with np.load(path, allow_pickle=False) as z:
            entries = {key: z[key] for key in ("basis", "weights", "names", "hand", "side")}
    except OSError as error:
        raise LandmarkFileError(f"{path}: {error.strerror or 'not an .npz file'}") from None
    except (ValueError, EOFError, KeyError) as error:
        raise LandmarkFileError(f"{path}: not a landmark set ({error}); `jhand learn-landmarks` writes one") from None
    name, side, names = str(entries["hand"]), str(entries["side"]), tuple(str(n) for n in entries["names"])
    shapes = {"basis": (hand.basis.shape[0], 3, len(names)), "weights": (len(names), 16)}
    wrong = {key: entries[key].shape for key, shape in shapes.items() if entries[key].shape != shape}
    if (name, side) != (hand.name, hand.side) or wrong:
        raise LandmarkFileError(
            f"{path}: these are landmarks of the {side} hand {name!r}, not of the {hand.side} hand {hand.name!r}; "
            "learn them on the hand that is fitted"
        )
    return LandmarkSet(jnp.asarray(entries["basis"]), jnp.asarray(entries["weights"]), names)
