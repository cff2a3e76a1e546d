"""Tracked files speak of the project alone, and are what a reader can open."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import jhand

ROOT = Path(__file__).resolve().parent.parent

FOREIGN = {
    "a path of one machine": re.compile(
        r"(?<![\w./~:}-])(?:/(?:home|root|Users|work|workspace|tmp|mnt|opt|scratch)/\w|[A-Z]:\\\w)"
    ),
    "a path outside the checkout": re.compile(r"\.\./shared(?!/data\b)"),
    "a registry's host": re.compile(r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com))\b|--(?:extra-)?index-url\b"),
    "an address of one network": re.compile(r"\b(?:192\.168|169\.254)\.\d+\.\d+\b"),
    "a secret": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20}|\bAKIA[0-9A-Z]{16}\b"),
    "a conflict left by a merge": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
    "a note to self": re.compile(r"\b(?:TODO|FIXME|XXX)\b"),
}
BINARY = {".npz", ".png", ".jpg", ".glb", ".safetensors"}


def tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is tracked is unknown")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_text():
    found = []
    for path in tracked():
        if path.suffix in BINARY or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8")
        for what, pattern in FOREIGN.items():
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {what}: {match.group()!r}")
    assert not found, "\n".join(found)


def test_patterns_match_what_they_are_for():
    samples = [
        "see /home/me/x",
        "../shared/secret",
        "pip --index-url x",
        "192.168.0.1",
        "ghp_" + "a" * 30,
        "<<<<<<< HEAD",
    ]
    assert all(any(pattern.search(sample) for pattern in FOREIGN.values()) for sample in samples)
    assert not any(
        pattern.search("https://x.org/home/me, ../shared/data, jhand/work.py") for pattern in FOREIGN.values()
    )


def test_version_is_one():
    """The version is written in jhand/__init__.py; what cites it follows."""
    assert re.search(rf"^version: {re.escape(jhand.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert f"\n## {jhand.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_files_are_small():
    """A clone stays light: no file above 2 MB but the weights of networks that the package or an experiment runs."""
    weights = {ROOT / "jhand" / "track" / "assets" / f"{size}.safetensors" for size in ("lite", "full")}
    weights |= set(ROOT.glob("results/*/weights/weights.safetensors"))  # each below 3 MB
    sizes = {path: path.stat().st_size for path in tracked()}
    large = {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 2_000_000}
    assert set(large) <= {str(path.relative_to(ROOT)) for path in weights}
    assert all(size < 3_000_000 for name, size in large.items() if name.startswith("results"))
    assert sum(size for name, size in large.items() if name.startswith("jhand")) < 12_000_000
