"""One self-contained page about fitted recordings: the moving mesh, turned with the mouse, and every error.

The numbers of the page are JSON in its element `jhand-data`; `jhand/report.html` is the page without them. Arrays are
stored on a grid, as differences over time, deflated: see `pack`.
"""

import base64
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jhand
from jhand.hand.model import HandModel
from jhand.hand.skeleton import bones
from jhand.results import Result, upright, vertices_of

MAX_BYTES = 8_000_000
"""Of a page: longer recordings are thinned out to stay below."""

_MAX_FRAMES = 8000  # of the first attempt: a frame takes a kilobyte or more
_MESH_GRID, _POINT_GRID = 1e-4, 2e-5  # metres between the places that a point can have in the page
_ERROR_GRID = 0.01  # the same for errors, in their unit
_TEMPLATE = Path(__file__).with_name("report.html")
_PLACE = "/*payload*/"


def pack(values: np.ndarray, grid: float) -> dict[str, Any]:
    """An array as JSON: multiples of `grid` (int32, little-endian), differences along axis 0, deflated, in base64."""
    steps = np.round(np.asarray(values, np.float64) / grid).astype("<i4")
    change = np.diff(steps, axis=0, prepend=np.zeros_like(steps[:1]))
    data = base64.b64encode(zlib.compress(change.tobytes(), 6)).decode()
    return {"shape": list(steps.shape), "grid": grid, "data": data}


def write_report(hands: dict[str, HandModel], results: Sequence[Result], path: str | os.PathLike) -> None:
    """Write the page; the file is replaced in one step.

    Args:
        hands: the model of each side that occurs.
        results: fits of them, in the order shown.
        path: of the page, usually `report.html`.
    """
    lengths = [r.num_frames for r in results]
    budget = min(sum(lengths), _MAX_FRAMES)
    page = _page(hands, results, _steps(lengths, budget))
    while len(page) > MAX_BYTES and budget > len(results):
        budget = max(int(0.95 * budget * MAX_BYTES / len(page)), len(results))
        page = _page(hands, results, _steps(lengths, budget))
    part = Path(f"{os.fspath(path)}.part")
    part.write_bytes(page)
    part.replace(path)


def _steps(lengths: Sequence[int], budget: int) -> list[int]:
    """Every how manieth frame of each recording to show, for about `budget` in all: the longest give way first."""
    most = max(lengths)
    while most > 1 and sum(min(n, most) for n in lengths) > budget:
        most = int(0.95 * most)
    return [-(-n // most) for n in lengths]


def _page(hands: dict[str, HandModel], results: Sequence[Result], steps: Sequence[int]) -> bytes:
    payload = {
        "version": jhand.__version__,
        "faces": {side: pack(np.asarray(hand.faces), 1.0) for side, hand in hands.items()},
        "recordings": [_recording(hands[r.side], r, step) for r, step in zip(results, steps, strict=True)],
    }
    # inside a script element "</" would end it, whatever a recording is called
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text, 1).encode()


def _recording(hand: HandModel, result: Result, step: int) -> dict[str, Any]:
    """Every `step`-th frame of a result; points relative to the fitted wrist of their frame."""
    every = slice(None, None, step)
    seen, origin = result.seen[every], result.keypoints[every, :1]
    vertices = vertices_of(hand, result, every)
    counted = np.where(result.seen, result.errors, np.nan)
    per_landmark = [
        {"mean": float(e.mean()), "p95": float(np.percentile(e, 95)), "max": float(e.max())} if len(e) else None
        for e in (column[np.isfinite(column)] for column in counted.T)
    ]
    return {
        "name": result.name,
        "side": result.side,
        "model": result.model,
        "fps": result.fps,
        "frames": result.num_frames,
        "step": step,
        "unit": result.unit,
        "note": result.note,
        "handLength": result.hand_length,
        "scores": result.scores,
        "converged": float(result.converged.mean()),
        "names": [name.replace("_", " ") for name in result.landmark_names],
        "perLandmark": per_landmark,
        "bones": [list(pair) for pair in bones("openpose21")] if len(result.landmark_names) == 21 else [],
        "upright": upright(result.up).tolist(),
        "origin": pack(origin[:, 0], _POINT_GRID),
        "vertices": pack(vertices - origin, _MESH_GRID),
        "landmarks": pack(result.landmarks[every] - origin, _POINT_GRID),
        "measured": pack(np.where(seen[..., None], result.measured[every] - origin, 0), _POINT_GRID),
        "errors": pack(np.where(seen, result.errors[every], -1), _ERROR_GRID),
    }
