"""The public surface: the names of the packages below, with the signatures they were released with.

`make api` (this file run as a script) rewrites `tests/api.txt`. Signatures are read from the source: the list
does not change with the versions of Python or jax.
"""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).with_name("api.txt")
PACKAGES = [
    "jhand.geometry",
    "jhand.hand",
    "jhand.fitting",
    "jhand.metrics",
    "jhand.motion",
    "jhand.render",
    "jhand.train",
    "jhand.contact",
    "jhand.diffusion",
    "jhand.nn",
    "jhand.data",
    "jhand.data.ambiguous_hands",
    "jhand.data.creatures",
    "jhand.data.held_boxes",
    "jhand.data.hidden_hands",
    "jhand.data.made",
    "jhand.data.moving_hands",
    "jhand.data.object_actions",
    "jhand.data.pipeline",
    "jhand.data.sources",
    "jhand.data.world",
    "jhand.data.world.cameras",
    "jhand.data.world.scripts",
    "jhand.claims",
    "jhand.judging",
    "jhand.experiment",
    "jhand.solving",
    "jhand.track",
    "jhand.track.template",
    "jhand.systems.ego2handspose",
    "jhand.systems.diffpose",
    "jhand.systems.glagcn",
    "jhand.systems.h2o",
    "jhand.systems.h2o_action",
    "jhand.systems.hamba",
    "jhand.systems.dynhamr",
    "jhand.systems.hograspnet",
    "jhand.systems.hograspnet_grasp",
    "jhand.systems.poseanything",
    "jhand.systems.surgery_mvhand",
    "jhand",
]

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def tree_of(module: str) -> ast.Module | None:
    path = ROOT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.exists():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def public_names(package: str) -> dict[str, tuple[str, Definition | None]]:
    """Name -> (module that defines it, its definition, None for a module): what a package exports, a module defines."""
    found = {}
    for node in tree_of(package).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.asname == alias.name:  # the redundant alias marks a re-export
                    found[alias.name] = resolve(node.module, alias.name)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = package, node
    return found


def resolve(module: str, name: str) -> tuple[str, Definition | None]:
    if tree_of(f"{module}.{name}") is not None:
        return f"{module}.{name}", None
    for node in tree_of(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return resolve(node.module, name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if name in {ast.unparse(target) for target in targets}:
            return module, node
    raise LookupError(f"{module} does not define {name}")


def signature(node: ast.FunctionDef) -> str:
    kind = "".join(f"{name} " for name in map(ast.unparse, node.decorator_list) if name in ("property", "classmethod"))
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{kind}{node.name}({ast.unparse(node.args)}){result}"


def describe(name: str, module: str, node: Definition | None) -> list[str]:
    if node is None:
        return [f"{name}: module {module}"]
    if isinstance(node, ast.FunctionDef):
        return [signature(node)]
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
        methods = [signature(n) for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return [f"class {name}({bases})" if bases else f"class {name}", *(f"    {line}" for line in fields + methods)]
    return [f"{name}: constant"]


def surface() -> str:
    lines = []
    known = {}
    for package in PACKAGES:
        lines.append(f"[{package}]")
        for name, (module, node) in sorted(public_names(package).items()):
            first = known.setdefault((module, name), package)
            lines += describe(name, module, node) if first == package else [f"{name}: {first}.{name}"]
        lines.append("")
    return "\n".join(lines)


def test_surface_is_the_one_released():
    assert surface() == GOLDEN.read_text(encoding="utf-8"), (
        "after a deliberate change: make api, and a line in CHANGELOG.md"
    )


def test_every_name_can_be_imported():
    for package in PACKAGES:
        module = importlib.import_module(package)
        missing = [name for name in public_names(package) if not hasattr(module, name)]
        assert not missing, f"{package}: {missing}"
        are_modules = {name for name in public_names(package) if isinstance(getattr(module, name), ModuleType)}
        assert are_modules == {name for name, (_, node) in public_names(package).items() if node is None}


DEFINITIONS = {
    f"{module}.{name}": node
    for package in PACKAGES
    for name, (module, node) in public_names(package).items()
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
}
ARRAYS = re.compile(r"\b(ArrayLike|Array|HandParams|PyTree)\b")
SHAPE = re.compile(r"\((\.\.\.|[A-Z]\w*,|\d+,|\(\))")


@pytest.mark.parametrize("name", DEFINITIONS)
def test_docstrings(name):
    """What is public says what it is, and a function of arrays says their shapes."""
    node = DEFINITIONS[name]
    text = ast.get_docstring(node)
    assert text, f"{name} has no docstring"
    if isinstance(node, ast.FunctionDef) and any(ARRAYS.search(ast.unparse(arg.annotation)) for arg in arguments(node)):
        assert SHAPE.search(text) or "leading axes" in text, (
            f"{name}: its docstring gives no shape, such as (..., 21, 3)"
        )


def arguments(node: ast.FunctionDef) -> list[ast.arg]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [arg for arg in every if arg.annotation is not None and arg.arg != "key"]  # a key has no shape to tell


if __name__ == "__main__":
    GOLDEN.write_text(surface(), encoding="utf-8")
