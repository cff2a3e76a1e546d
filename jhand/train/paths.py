"""Parts of nested dicts by the paths of their entries, such as `"encoder/Dense_0/kernel"`."""

from collections.abc import Mapping, Sequence
from typing import Any

Tree = Mapping[str, Any]


def paths_of(tree: Tree) -> list[str]:
    """The paths of everything in nested dicts that is no dict, names joined by `/`."""
    found = []
    for name, value in tree.items():
        found += [f"{name}/{rest}" for rest in paths_of(value)] if isinstance(value, Mapping) else [name]
    return found


def is_under(path: str, prefixes: Sequence[str]) -> bool:
    """Whether one of the prefixes holds a path: whole names count, and `""` holds everything."""
    return any(prefix == "" or path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def select(tree: Tree, prefixes: Sequence[str]) -> dict[str, Any]:
    """The part of nested dicts that lies under some prefixes, without empty dicts.

    Args:
        tree: nested dicts.
        prefixes: whole names joined by `/`; `""` is everything.

    Returns:
        Nested dicts with the same leaves.

    Raises:
        ValueError: a prefix under which there is nothing; it lists the paths that there are.
    """
    every = paths_of(tree)
    for prefix in prefixes:
        if not any(is_under(path, [prefix]) for path in every):
            listed = "\n  ".join(every[:60] + ([f"... {len(every) - 60} more"] if len(every) > 60 else []))
            raise ValueError(f"nothing lies under {prefix!r}; the paths are:\n  {listed}")
    return _pruned(tree, prefixes, "")


def _pruned(tree: Tree, prefixes: Sequence[str], above: str) -> dict[str, Any]:
    kept = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            if part := _pruned(value, prefixes, f"{above}{name}/"):
                kept[name] = part
        elif is_under(above + name, prefixes):
            kept[name] = value
    return kept


def merge(tree: Tree, part: Tree) -> dict[str, Any]:
    """Nested dicts with the leaves of `part` in place of their own.

    Args:
        tree: nested dicts.
        part: some of the same entries.

    Raises:
        ValueError: an entry of `part` that `tree` does not have.
    """
    unknown = part.keys() - tree.keys()
    if unknown:
        raise ValueError(f"unknown entries {sorted(unknown)}; there are {sorted(tree)}")
    return {
        name: merge(value, part[name]) if name in part and isinstance(value, Mapping) else part.get(name, value)
        for name, value in tree.items()
    }
