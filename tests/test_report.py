"""The page: its numbers are the fit's, frame by frame; it needs nothing from outside; a browser shows it."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jhand
from jhand import report
from jhand.report import pack, write_report
from jhand.results import vertices_of
from tests.fitted import fitted, renamed

NUM_FRAMES = 7


class _Scripts(HTMLParser):
    """Text of the script elements, by their id."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str | None, str] = {}
        self.inside: str | None = None

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.inside = dict(attrs).get("id")
            self.texts[self.inside] = ""

    def handle_data(self, data):
        if self.inside in self.texts:
            self.texts[self.inside] += data

    def handle_endtag(self, tag):
        self.inside = ""


def payload_of(path: Path) -> dict[str, Any]:
    scripts = _Scripts()
    scripts.feed(path.read_text(encoding="utf-8"))
    return json.loads(scripts.texts["jhand-data"])


def decoded(packed: dict[str, Any]) -> np.ndarray:
    """What the page's own script does, written once more."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), "<i4").astype(np.int64)
    values = values.reshape(packed["shape"])
    for t in range(1, len(values)):
        values[t] += values[t - 1]
    return values * packed["grid"]


@pytest.fixture(scope="module")
def results(hands):
    return [
        fitted(hands["right"], NUM_FRAMES, name="first"),
        fitted(hands["left"], NUM_FRAMES + 2, name="second", dims=2, seed=1),
    ]


@pytest.fixture(scope="module")
def page(hands, results, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(hands, results, path)
    return path


def test_the_payload_is_the_fit_frame_by_frame(page, hands, results):
    payload = payload_of(page)
    assert payload["version"] == jhand.__version__
    for side, packed in payload["faces"].items():
        np.testing.assert_array_equal(decoded(packed), hands[side].faces)
    assert len(payload["recordings"]) == len(results)
    for shown, result in zip(payload["recordings"], results, strict=True):
        assert (shown["name"], shown["side"], shown["unit"]) == (result.name, result.side, result.unit)
        assert (shown["frames"], shown["step"], shown["fps"]) == (result.num_frames, 1, result.fps)
        origin, vertices = decoded(shown["origin"]), decoded(shown["vertices"])
        landmarks, measured, errors = (decoded(shown[key]) for key in ("landmarks", "measured", "errors"))
        expected = vertices_of(hands[result.side], result)
        for t in range(result.num_frames):
            np.testing.assert_allclose(origin[t] + vertices[t], expected[t], atol=7e-5)
            np.testing.assert_allclose(origin[t] + landmarks[t], result.landmarks[t], atol=3e-5)
            seen = result.seen[t]
            np.testing.assert_allclose(origin[t] + measured[t][seen], result.measured[t][seen], atol=3e-5)
            np.testing.assert_allclose(errors[t][seen], result.errors[t][seen], atol=6e-3)
            np.testing.assert_array_equal(errors[t][~seen], -1)
        assert shown["scores"] == pytest.approx(result.scores)
        for k, row in enumerate(shown["perLandmark"]):
            column = result.errors[result.seen[:, k], k]
            assert row["mean"] == pytest.approx(column.mean()) and row["max"] == pytest.approx(column.max())


def test_pack_rounds_to_the_grid():
    values = np.random.default_rng(0).normal(size=(5, 4, 3)) * [1e-3, 1, 100]
    assert np.abs(decoded(pack(values, 1e-3)) - values).max() <= 0.5e-3 + 1e-12


def test_the_page_needs_nothing_from_outside(page):
    text = re.sub(r'<script type="application/json".*?</script>', "", page.read_text(), flags=re.DOTALL)
    assert not re.search(r"https?:|src\s*=|href\s*=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", text)
    assert "localStorage" not in text


def test_the_page_is_the_same_every_time(page, hands, results, tmp_path):
    write_report(hands, results, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_a_name_cannot_leave_the_payload(right, tmp_path):
    name = "</script><script>alert(1)</script><!-- & 手"
    write_report({"right": right}, [renamed(fitted(right, 1), name)], tmp_path / "report.html")
    assert payload_of(tmp_path / "report.html")["recordings"][0]["name"] == name


def test_long_recordings_are_thinned_to_fit(right, results, tmp_path, monkeypatch):
    long, short = fitted(right, 96, name="long"), fitted(right, 4, name="short")
    monkeypatch.setattr(report, "MAX_BYTES", 150_000)
    write_report({"right": right}, [long, short], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size <= 150_000
    shown = payload_of(tmp_path / "report.html")["recordings"]
    step = shown[0]["step"]
    assert step > 1 and shown[1]["step"] == 1  # the short one is whole
    assert shown[0]["frames"] == 96
    assert shown[0]["scores"] == pytest.approx(long.scores)  # of every frame
    vertices = decoded(shown[0]["origin"])[:, None] + decoded(shown[0]["vertices"])
    np.testing.assert_allclose(vertices, vertices_of(right, long)[::step], atol=7e-5)


PROBE = """
<script>
Promise.all([load(0), load(1)]).then(async (all) => {
  await show(1);
  const sum = (a) => a.reduce((s, x, i) => s + x * ((i % 7) + 1), 0);
  const digests = all.map((d) => [sum(d.vertices), sum(d.errors), d.num, d.faces.length]);
  document.body.dataset.digest = JSON.stringify(digests);
}).catch((error) => problems.push(String(error)))
  .finally(() => { document.body.dataset.problems = JSON.stringify(problems); });
</script>
</body>"""


def test_a_browser_shows_it(page, hands, results, tmp_path):
    """In headless Chromium, where there is one: no error, and the page's own decoding gives the numbers of the fit."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on the PATH")
    watch = "<script>const problems = []; onerror = (message) => { problems.push(message); };</script>"
    text = page.read_text(encoding="utf-8")
    text = text.replace("<body>", "<body>" + watch).replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(text, encoding="utf-8")
    quiet = ["--headless", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-sandbox", "--no-first-run"]
    offline = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    budget = ["--virtual-time-budget=4000", "--window-size=1400,1000", f"--user-data-dir={tmp_path / 'profile'}"]
    address = (tmp_path / "probe.html").as_uri()
    command = [browser, *quiet, *offline, *budget, "--dump-dom", address]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    body = re.search(r"<body([^>]*)>", done.stdout)
    assert body, done.stderr[-2000:]
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', body.group(1)))
    assert found["problems"] == "[]"
    digest = json.loads(found["digest"])
    for (vertices, errors, num, num_indices), shown, result in zip(
        digest, payload_of(page)["recordings"], results, strict=True
    ):
        for value, key in ((vertices, "vertices"), (errors, "errors")):
            flat = decoded(shown[key]).ravel()
            assert value == pytest.approx(np.sum(flat * (np.arange(len(flat)) % 7 + 1)), rel=1e-3, abs=1e-3)
        assert (num, num_indices) == (result.num_frames, hands[result.side].faces.size)
    assert f"{results[1].scores['mean']:.2f} px" in done.stdout  # the second recording is the one shown
    assert "2 recordings, fitted" in done.stdout
