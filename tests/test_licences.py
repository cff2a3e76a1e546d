"""What `pip install jhand` brings may be used by anyone for anything: no GPL, nothing non-commercial or unlicensed."""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REFUSED = re.compile(r"\b[AL]?GPL|General Public|non-?commercial|research only|\bNC\b|proprietary", re.IGNORECASE)
# Metadata speaks of the package; wheels may also carry libraries under other terms.
GPL_LIBRARIES = re.compile(r"\blib(x264|x265|xvidcore|postproc|fftw3|gsl|readline)\b", re.IGNORECASE)


def closure() -> dict[str, Distribution]:
    """Installed distributions that jhand pulls on this platform, itself included."""
    found: dict[str, Distribution] = {}
    wanted = [("jhand", "")]
    seen = set()
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is required but not installed: install jhand with pip, or `make test`")
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted += [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]
    return found


def licence(dist: Distribution) -> str:
    """SPDX expression, else the classifiers, else how the licence text begins."""
    metadata = dist.metadata
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    text = metadata.get("License-Expression") or " AND ".join(classifiers) or (metadata.get("License") or "")[:200]
    return text.strip()


def allowed(text: str) -> bool:
    """Whether one of the alternatives that a licence offers is free of refused terms."""
    return bool(text) and any(not REFUSED.search(part) for part in re.split(r"\bOR\b", text))


def test_licences_of_dependencies():
    found = closure()
    assert {"jhand", "jax", "numpy"} <= set(found)
    bad = {name: licence(dist) or "none stated" for name, dist in found.items() if not allowed(licence(dist))}
    assert not bad


def test_no_gpl_library_inside_a_wheel():
    files = [(name, str(file)) for name, dist in closure().items() for file in dist.files or []]
    assert len(files) > 1000
    assert not [(name, file) for name, file in files if GPL_LIBRARIES.search(file.replace("-", " ").replace("_", " "))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("MIT OR GPL-2.0-only", True),
        ("BSD-3-Clause AND GPL-2.0-only", False),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("CC-BY-NC-4.0", False),
        ("", False),
    ],
)
def test_what_is_allowed(text, expected):
    assert allowed(text) is expected
