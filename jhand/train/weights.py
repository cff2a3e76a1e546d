"""Trained variables as others take them: safetensors, with a page that says what they are. No pickle."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jhand.train.stages import Variables

WEIGHTS, CARD = "weights.safetensors", "README.md"


class WeightsError(ValueError):
    """A file of weights that is missing, damaged or of another network: which entries and what to do."""


def versions() -> dict[str, str]:
    """Versions of the packages that a training depends on."""
    found = {}
    for name in ("jhand", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # used from a checkout
            continue
    return found


@dataclass(frozen=True)
class ModelCard:
    """What a reader of weights has to know."""

    system: str
    """Name of the system, such as its module."""
    config: Mapping[str, Any]
    """What `init` was called with, as JSON can hold it."""
    data: str
    """What it was trained on."""
    metrics: Mapping[str, float]
    """Scores by name, with units in the names."""
    licence: str
    """Of the weights, such as an SPDX expression."""
    notes: str = ""
    """Markdown: use, limits, command."""
    packages: Mapping[str, str] = field(default_factory=versions)
    """Version by package."""


def save_weights(folder: str | os.PathLike, variables: Variables, card: ModelCard) -> Path:
    """Write `weights.safetensors` and its card `README.md`; each appears whole or not at all.

    Args:
        folder: made if it is missing.
        variables: `{"params", "stats"}`, such as `state.averaged`: nested dicts of arrays with any leading axes. The
            file names them by their paths, `params/Dense_0/kernel`.
        card: what they are; it is in the file's header too.

    Returns:
        The path of the weights.

    Raises:
        ValueError: a name with `/` in it, or variables that are no nested dicts of arrays.
    """
    from safetensors.numpy import save

    flat = {name: np.ascontiguousarray(jax.device_get(x)) for name, x in _flatten(variables).items()}
    about = {
        name: getattr(card, name) for name in ("system", "config", "data", "metrics", "licence", "notes", "packages")
    }
    data = save(flat, metadata={"format": "jhand", "card": json.dumps(about, default=str)})
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, data)
    _write(folder / CARD, _page(card, flat).encode())
    return folder / WEIGHTS


def load_weights(path: str | os.PathLike, like: PyTree | None = None) -> Variables:
    """Read weights.

    Args:
        path: a folder that `save_weights` wrote, or its `.safetensors` file.
        like: variables with the shapes expected, any leading axes; arrays or what `jax.eval_shape(init, key)` returns.

    Returns:
        `{"params", "stats"}`, nested dicts of numpy arrays.

    Raises:
        WeightsError: no such file, a damaged one, or entries that are missing, unexpected or of other shapes or dtypes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    try:
        flat = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: not readable as safetensors ({error})") from error
    if like is not None:
        _check(file, flat, _flatten(like))
    nested: Variables = {"params": {}, "stats": {}}
    for name, x in flat.items():
        *above, last = name.split("/")
        part = nested
        for step in above:
            part = part.setdefault(step, {})
        part[last] = x
    return nested


def read_card(path: str | os.PathLike) -> ModelCard:
    """The card in the header of weights.

    Raises:
        WeightsError: no such file, or one that `save_weights` did not write.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    try:
        with safe_open(file, framework="numpy") as opened:
            return ModelCard(**json.loads((opened.metadata() or {})["card"]))
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file}: no weights with a card ({error})") from error


def _flatten(variables: PyTree) -> dict[str, Any]:
    flat = {}

    def visit(tree: Mapping[str, Any], above: str) -> None:
        for name, value in tree.items():
            if "/" in name:
                raise ValueError(f"{above}{name}: a name may not contain /")
            if isinstance(value, Mapping):
                visit(value, f"{above}{name}/")
            elif hasattr(value, "shape"):
                flat[above + name] = value
            else:
                raise ValueError(f"{above}{name}: expected an array, got {type(value).__name__}")

    visit(variables, "")
    return flat


def _check(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    lines = [f"missing {name}" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"unexpected {name}" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        has, needs = (f"{x.dtype}{list(x.shape)}" for x in (found[name], wanted[name]))
        if has != needs:
            lines.append(f"{name} is {has}, expected {needs}")
    if lines:
        listed = "\n  ".join(lines[:20] + ([f"... {len(lines) - 20} more"] if len(lines) > 20 else []))
        raise WeightsError(f"{file} has the weights of another configuration; its card says which:\n  {listed}")


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def _page(card: ModelCard, flat: Mapping[str, np.ndarray]) -> str:
    number = sum(x.size for name, x in flat.items() if name.startswith("params/"))
    rows = [f"| {name} | {value:.6g} |" for name, value in card.metrics.items()]
    packages = ", ".join(f"{name} {number}" for name, number in card.packages.items())
    lines = [
        f"# {card.system}",
        "",
        f"{number:,} parameters in `{WEIGHTS}` (safetensors). Licence: {card.licence}.",
        "",
        f"Trained on {card.data}, with {packages}.",
        "",
        *(["| metric | value |", "|---|---|", *rows, ""] if rows else []),
        "```json",
        json.dumps(card.config, indent=1, default=str),
        "```",
        *(["", card.notes] if card.notes else []),
    ]
    return "\n".join(lines) + "\n"
