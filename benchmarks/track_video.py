"""Hands fitted to tracked videos, beside what was tracked: benchmarks/results/track_video.json and .md.

    python benchmarks/track_video.py --recordings FOLDER      some minutes on two cores, most of them compiling

Of each video, the hand seen longest. Jitter: root mean square of the keypoints' third difference in the picture, per
frame cubed, of what was tracked and of what was fitted. Lag: the shift at which the speeds of both go best together,
frames. The fit smooths over the whole sequence, so it should have none. Agreement: mean distance from the landmarks
that were recorded beside the first video (MediaPipe's, with the same networks). Where 30 frames or more show the hand,
what the tracker's points are is learned on the very frames that are scored. Nobody knows where these hands really
were; for that see benchmarks/track_renders.py.

The videos are hand_video/human_hand_video.mp4 (dexsuite/dex-retargeting, MIT) and signing/test_video.mp4
(sign-language-processing, MIT). Needs the extra `video`.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from jhand.data.readers.open_recordings import read_hand_video
from jhand.geometry.camera import project
from jhand.hand.files import load_hand
from jhand.studies import fit_footage
from jhand.track import load_networks, track_video
from jhand.track.fitted import size_in_picture

FOLDER = Path(__file__).parent / "results"
VIDEOS = ("hand_video/human_hand_video.mp4", "signing/test_video.mp4")


def jitter(points: np.ndarray, present: np.ndarray) -> float:
    """Of keypoints (T, 21, 2), over the frames that are seen with the three before them."""
    third = np.linalg.norm(np.diff(points, 3, axis=0), axis=-1)
    whole = np.stack([present[i : len(present) - 3 + i] for i in range(4)]).all(0)
    return float(np.sqrt(np.mean(np.square(third[whole]))))


def lag(tracked: np.ndarray, fitted: np.ndarray, present: np.ndarray, most: int = 5) -> float:
    """Frames by which fitted points come after the tracked ones: where their velocities correlate best, between whole
    frames by a parabola.
    """
    a, b = (np.diff(p, axis=0).reshape(len(p) - 1, -1) for p in (tracked, fitted))
    both = present[1:] & present[:-1]
    scores = []
    for shift in range(-most, most + 1):
        here, there = slice(max(0, -shift), len(a) - max(0, shift)), slice(max(0, shift), len(a) - max(0, -shift))
        seen = both[here] & both[there]
        x, y = a[here][seen], b[there][seen]
        scores.append(float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))))
    best = int(np.argmax(scores))
    if 0 < best < 2 * most:
        left, middle, right = scores[best - 1 : best + 2]
        return best - most + 0.5 * (left - right) / (left - 2 * middle + right)
    return float(best - most)


def measure(folder: Path, name: str, max_frames: int | None) -> dict:
    networks = load_networks()
    start = time.perf_counter()
    footage = track_video(networks, folder / name, max_frames=max_frames)
    tracking = time.perf_counter() - start
    tracked = max(footage.hands, key=lambda hand: hand.present.sum())
    hand = load_hand(side=tracked.side)
    start = time.perf_counter()
    study = fit_footage(hand, footage, tracked, name)
    fitting = time.perf_counter() - start
    present = tracked.present
    fitted = np.asarray(project(jax.tree.map(lambda a: a[None], footage.camera), study.fit.landmarks))
    apart = np.linalg.norm(fitted - tracked.keypoints2d, axis=-1)[present]
    world = tracked.keypoints3d - tracked.keypoints3d.mean(1, keepdims=True)
    points = np.asarray(study.fit.landmarks) - np.asarray(study.fit.landmarks).mean(1, keepdims=True)
    row = {
        "video": name,
        "frames": footage.num_frames,
        "frames_with_the_hand": int(present.sum()),
        "side": tracked.side,
        "hand_px": float(np.median(size_in_picture(tracked.keypoints2d)[present])),
        "jitter_px": {"tracked": jitter(tracked.keypoints2d, present), "fitted": jitter(fitted, present)},
        "lag_frames": lag(tracked.keypoints2d, fitted, present),
        "fitted_from_tracked_px": float(apart.mean()),
        "fitted_from_tracked_mm": float(1e3 * np.linalg.norm(points - world, axis=-1)[present].mean()),
        "largest_beta": float(np.abs(np.asarray(study.fit.params.betas)).max()),
        "seconds": {"tracking": tracking, "fitting": fitting},
    }
    if name == VIDEOS[0]:
        recorded = read_hand_video(folder).keypoints2d
        assert recorded is not None
        recorded = recorded[: footage.num_frames] - 0.5
        some = present[: len(recorded)]
        for what, points in (("tracked", tracked.keypoints2d), ("fitted", fitted)):
            off = np.linalg.norm(points[: len(recorded)] - recorded, axis=-1)[some]
            row[f"{what}_from_recorded_px"] = float(off.mean())
    return row


def markdown(rows: list[dict]) -> str:
    lines = [
        "Hands fitted to tracked videos, beside what was tracked. Jitter: root mean square of the third difference in",
        "the picture, pixels per frame cubed; lag is in frames. Written by benchmarks/track_video.py, which says more.",
        "",
        "| video | frames with the hand | hand, px | jitter tracked | fitted | lag | fitted from tracked, px | mm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["video"],
            f"{row['frames_with_the_hand']} of {row['frames']}",
            f"{row['hand_px']:.0f}",
            f"{row['jitter_px']['tracked']:.1f}",
            f"{row['jitter_px']['fitted']:.1f}",
            f"{row['lag_frames']:+.2f}",
            f"{row['fitted_from_tracked_px']:.1f}",
            f"{row['fitted_from_tracked_mm']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    first = rows[0]
    lines += [
        "",
        f"From MediaPipe's recorded landmarks of the first video: tracked {first['tracked_from_recorded_px']:.1f} px, "
        f"fitted {first['fitted_from_recorded_px']:.1f} px in the mean.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--max-frames", type=int, default=120, help="of each video")
    arguments = parser.parse_args()
    rows = [measure(arguments.recordings, name, arguments.max_frames) for name in VIDEOS]
    print(markdown(rows))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "track_video.json").write_text(json.dumps(rows, indent=1) + "\n")
    (FOLDER / "track_video.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
