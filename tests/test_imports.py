"""Arrows between the parts of jhand point one way, and `import jhand` stays light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jhand"

# Which parts a part may import, besides itself. A new part says here where it stands.
_MODEL = {"geometry", "hand", "draws"}
_TOOLS = {"metrics", "fitting", "motion", "contact", "render"}
_LEARNING = {"nn", "diffusion", "train"}
_BELOW_SYSTEMS = _MODEL | _TOOLS | _LEARNING | {"data", "track"}
_TOP = {"cli", "viz", "report", "gltf", "results", "studies", "experiment", "solving", "judging", "claims", "__main__"}
ARROWS = {
    "geometry": set(),
    "draws": set(),
    "hand": {"geometry", "draws"},
    **dict.fromkeys(_TOOLS, _MODEL | _TOOLS),
    **dict.fromkeys(_LEARNING, _MODEL),
    "data": _MODEL | _TOOLS,
    "track": _MODEL | _TOOLS | _LEARNING | {"data"},
    "systems": _BELOW_SYSTEMS,
    "compile_cache": set(),
    **dict.fromkeys(_TOP, _BELOW_SYSTEMS | _TOP | {"systems", "compile_cache", "jhand"}),
    "jhand": _MODEL | _TOOLS | {"compile_cache"},
}
"""`jhand` is the package's own `__init__`, which only the top may import from."""

# What the parts that everything stands on may import when they are imported themselves.
LIGHT_PARTS = {*_MODEL, *_TOOLS, "compile_cache", "jhand"}
LIGHT = {"jax", "numpy", "jaxtyping"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """`jhand.hand.model` -> `hand`; a name that is no module of jhand belongs to its `__init__`."""
    _, *rest = module.split(".")
    is_part = bool(rest) and ((PACKAGE / rest[0]).is_dir() or (PACKAGE / f"{rest[0]}.py").exists())
    return rest[0] if is_part else "jhand"


def imports_of(path: Path, everywhere: bool) -> set[str]:
    """Modules that a file imports; `from m import n` counts as `m.n`, since n may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if everywhere else list(tree.body)
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def own_name(path: Path) -> str:
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(relative.parts[:-1] if relative.name == "__init__" else relative.parts)


@pytest.mark.parametrize("path", MODULES, ids=own_name)
def test_arrows(path):
    part = part_of(own_name(path))
    assert part in ARROWS, f"{part} is new: say in ARROWS what it may import"
    for module in imports_of(path, everywhere=True):
        if module.split(".")[0] == "jhand":
            assert part_of(module) in ARROWS[part] | {part}, f"{own_name(path)} imports {module}"
        if part == "systems" and module.startswith("jhand.systems."):
            pytest.fail(f"{own_name(path)} imports {module}: what two systems share belongs further down")


def test_parts_do_not_go_round_in_circles():
    graph = {}
    for path in MODULES:
        part = part_of(own_name(path))
        used = {part_of(module) for module in imports_of(path, everywhere=True) if module.split(".")[0] == "jhand"}
        graph[part] = graph.get(part, set()) | (used - {part})
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(own_name(p)) in LIGHT_PARTS], ids=own_name)
def test_light_parts_import_only_jax_and_numpy(path):
    roots = {module.split(".")[0] for module in imports_of(path, everywhere=False)}
    assert roots - set(sys.stdlib_module_names) <= LIGHT | {"jhand"}


def test_import_jhand_is_light():
    """In an interpreter of its own: jhand brings no module that jax, numpy and jaxtyping do not bring."""
    script = """
import sys
import jax, jax.flatten_util, jax.numpy, jax.scipy.linalg, numpy, jaxtyping
jaxtyping.Array, jaxtyping.ArrayLike, jaxtyping.PyTree
before = {name.split(".")[0] for name in sys.modules}
import jhand
after = {name.split(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["jhand"]
