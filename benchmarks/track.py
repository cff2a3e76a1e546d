"""Hands in video beside MediaPipe: benchmarks/results/track.json and .md.

    python benchmarks/track.py VIDEO            some minutes on two cores
    python benchmarks/track.py VIDEO --quick    few frames and rounds; prints, and writes nothing

The whole path, from a decoded frame to 21 landmarks in pixels and in metres: `jhand.track` beside `mediapipe` 0.10.14
(`solutions.hands`, in video mode), both with the same two networks, sizes and thresholds, one after the other on the
same cores. Frames differ from each other and follow each other in time. Two slots, of which one stays empty where one
hand is seen: then the palm detector sees every frame, in both. One slot: it sees the first frame.

One stream: a frame goes in when the hands of the last one are there. Batches: 16 pieces of the video side by side, one
frame of each a step, which MediaPipe takes one after the other, in sixteen graphs. Frames lie in memory that is aligned
to 64 bytes, where a decoder may put them and XLA reads them in place.

Exits non-zero where landmarks are more than `TOLERANCE` pixels away, in the mean, from the peer's, or speed is below
`SLACK` of a goal. The packages are those of benchmarks/requirements.txt and opencv. The video is the recording
hand_video/human_hand_video.mp4 of dexsuite/dex-retargeting (MIT): one hand.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import timing  # before jax  # isort: skip
import jax
import mediapipe  # ty: ignore[import-not-found]
import numpy as np

from jhand.track import load_networks, start_tracker, track_hands

BATCH = 16
CASES = (("full", 1), ("full", 2), ("lite", 1), ("lite", 2))  # networks, slots
GOALS = {"one stream": 1, f"batches of {BATCH}": 2}  # how many times faster
SLACK = 0.7  # machines are noisy
TOLERANCE = 2.0  # MediaPipe's crops are shifted by up to a pixel: jhand/track/regions.py
FOLDER = Path(__file__).parent / "results"


def read(video: Path, number: int) -> np.ndarray:
    """Frames (number, H, W, 3), red first, aligned."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    frames = []
    while len(frames) < number:
        found, frame = capture.read()
        if not found:
            raise SystemExit(f"{video}: expected at least {number} frames, found {len(frames)}")
        frames.append(frame[..., ::-1])
    return aligned(np.stack(frames))


def aligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    result = memory[start : start + array.nbytes].reshape(array.shape)
    result[:] = array
    return result


def jhand_call(size: str, slots: int, steps: list[np.ndarray]) -> Callable[[], list]:
    """Landmarks (..., slots, 21, 2) and presence of each step, from a tracker that begins anew."""
    networks = load_networks(size)

    def call() -> list:
        tracker, found = start_tracker(slots, steps[0].shape[:-3]), []
        for frame in steps:
            tracker, hands = track_hands(networks, tracker, frame)
            found.append((np.asarray(hands.keypoints2d), np.asarray(hands.present)))
        return found

    return call


def mediapipe_call(size: str, slots: int, steps: list[np.ndarray]) -> Callable[[], list]:
    """The peer's, as pixels with centres at integers, of the first hand that it sees; None where it sees none."""
    streams = int(np.prod(steps[0].shape[:-3]))
    graphs = [
        mediapipe.solutions.hands.Hands(model_complexity=int(size == "full"), max_num_hands=slots)
        for _ in range(streams)
    ]

    def call() -> list:
        for graph in graphs:
            graph.reset()
        found = []
        for frames in steps:
            for graph, frame in zip(graphs, frames.reshape(-1, *frames.shape[-3:]), strict=True):
                hands = graph.process(frame).multi_hand_landmarks
                points = hands and np.array([[p.x * frame.shape[1], p.y * frame.shape[0]] for p in hands[0].landmark])
                found.append(None if points is None else points - 0.5)
        return found

    return call


def distance(own: list, peers: list) -> float:
    """Mean distance, pixels, of the peer's landmarks from the nearest of our hands, where both see one."""
    flat = [pair for points, present in own for pair in zip(*_flat(points, present), strict=True)]
    apart = []
    for (points, present), other in zip(flat, peers, strict=True):
        if other is not None and present.any():
            apart.append(np.linalg.norm(points[present] - other, axis=-1).mean(-1).min())
    return float(np.mean(apart))


def _flat(points: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.reshape(-1, *points.shape[-3:]), present.reshape(-1, present.shape[-1])


def measure(size: str, slots: int, how: str, steps: list[np.ndarray], rounds: int) -> dict:
    calls = {"jhand": jhand_call(size, slots, steps), "mediapipe": mediapipe_call(size, slots, steps)}
    apart = distance(*(call() for call in calls.values()))
    frames = len(steps) * int(np.prod(steps[0].shape[:-3]))
    times = timing.interleave(calls, rounds=rounds, seconds=0.1)
    row = {
        "networks": size,
        "slots": slots,
        "how": how,
        "frames": frames,
        "goal": GOALS[how],
        "over_peer": vars(timing.Spread.of(times["mediapipe"] / times["jhand"])),
        "frames_per_second": {name: vars(timing.Spread.of(frames / t)) for name, t in times.items()},
        "pixels_apart": apart,
    }
    print(markdown_row(row), flush=True)
    return row


def markdown_row(row: dict) -> str:
    ratio, speed = row["over_peer"], row["frames_per_second"]
    cells = [
        f"{row['networks']}, slots: {row['slots']}, {row['how']}",
        f"{ratio['median']:.2f} [{ratio['low']:.2f}..{ratio['high']:.2f}]",
        row["goal"],
        f"{speed['jhand']['median']:.0f}",
        f"{speed['mediapipe']['median']:.0f}",
        f"{row['pixels_apart']:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def markdown(report: dict) -> str:
    lines = [
        "Hands in a video of one hand, 1280 x 720, from decoded frames to landmarks: jhand.track beside mediapipe.",
        "Speed as a multiple of the peer's: median [lowest..highest] over rounds; frames per second; mean distance of",
        "landmarks from the peer's, pixels.",
        f"{report['machine']}. Written by benchmarks/track.py, which says what is compared.",
        "",
        "| | over mediapipe | goal | frames/s | frames/s of mediapipe | px apart |",
        "|---|---|---|---|---|---|",
        *map(markdown_row, report["rows"]),
    ]
    return "\n".join(lines) + "\n"


def failures(report: dict) -> list[str]:
    found = []
    for row in report["rows"]:
        name = markdown_row(row).split(" | ")[0][2:]
        if not row["pixels_apart"] <= TOLERANCE:
            found.append(f"{name}: {row['pixels_apart']:.1f} pixels from the peer's landmarks")
        if row["over_peer"]["median"] < SLACK * row["goal"]:
            found.append(f"{name}: {row['over_peer']['median']:.2f} times mediapipe, goal {row['goal']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="human_hand_video.mp4")
    parser.add_argument("--quick", action="store_true", help="few frames and rounds, nothing written")
    arguments = parser.parse_args()
    quick = arguments.quick
    jax.config.update("jax_enable_compilation_cache", False)

    steps = 4 if quick else 12
    frames = read(arguments.video, BATCH * steps)
    alone = list(frames[: steps if quick else 60])
    # 16 pieces of the video, each in its own order of time: steps of (16, H, W, 3)
    pieces = [aligned(frames[i::steps]) for i in range(steps)]
    rows = []
    for size, slots in CASES[:2] if quick else CASES:
        for how, work in zip(GOALS, (alone, pieces), strict=True):
            rows.append(measure(size, slots, how, work, rounds=2 if quick else 7))
    report = {
        "rows": rows,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "versions": {name: version(name) for name in ("jax", "mediapipe", "numpy")},
    }
    print(markdown(report))
    if not quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "track.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "track.md").write_text(markdown(report))
    missed = failures(report)
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
