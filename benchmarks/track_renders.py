"""Tracked and fitted hands beside the truth, on renders: benchmarks/results/track_renders.json and .md.

    python benchmarks/track_renders.py            the world compiles for minutes; then some minutes on two cores
    python benchmarks/track_renders.py --pictures build/renders.npz     writes them, or reads them

Pictures of the synthetic world (`single_hand(224, camera=upright)`), each in the middle of a black one twice as large:
palms that fill a picture are not found. They are harder than photos: poses over the full range of motion, seen from any
side, sometimes half hidden. Errors are of those hands that all find. Millimetres: mean distance of the 21 keypoints
after the best similarity (`pa_mpjpe`); pixels: mean distance in the picture. Medians over hands and 90th percentiles.
The truth are the hand's own joints, which are not what MediaPipe's networks call by their names: part of every error
here is a matter of definition. The fit has advantages that it lacks on photos: it is told the focal length and that
the hand is a right one, and the renders show the hand model that it fits, in poses partly from the prior that it uses.

The peer is mediapipe 0.10.14 with the same networks, where it is installed; else it is left out. It needs an older
protobuf than Grain, which reads the world's files: write the pictures where Grain is, and go on where mediapipe is.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np

from jhand.hand.files import load_hand
from jhand.metrics import pa_mpjpe
from jhand.track import TrackedHand, detect_hands, fit_tracked, guess_camera, load_networks

FOLDER = Path(__file__).parent / "results"
SIZE, BORDER, SEED = 224, 112, 7
Points = tuple[np.ndarray, np.ndarray]  # (21, 3) metres, (21, 2) pixels


def pictures(number: int, file: Path | None) -> list[dict]:
    if file is not None and file.exists():
        with np.load(file, allow_pickle=False) as z:
            arrays = {key: z[key] for key in z.files}
    else:
        from jhand.data.world import cached_world, cameras, single_hand

        clips = cached_world(single_hand(SIZE, camera=cameras.upright), SEED, number)
        several = [clips[i] for i in range(number)]
        hands = [clip["hands"]["right"] for clip in several]
        border = ((BORDER, BORDER), (BORDER, BORDER), (0, 0))
        arrays = {
            "image": np.stack([np.pad(clip["image"][0, 0], border) for clip in several]),
            "focal": np.stack([clip["camera"]["K"][0, 0, 0, 0] for clip in several]),
            "points": np.stack([hand["keypoints3d"][0] for hand in hands]),
            "pixels": np.stack([hand["keypoints2d"][0, 0] for hand in hands]) + BORDER,
        }
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(file, **arrays)
    return [{key: values[i] for key, values in arrays.items()} for i in range(len(arrays["image"]))]


def tracked_and_fitted(scenes: list[dict]) -> tuple[list[Points | None], list[Points | None], list[bool]]:
    """Of each picture what was tracked and what was fitted, and whether its side was found to be right."""
    networks, hand = load_networks(), load_hand()
    tracked: list[Points | None] = []
    fitted: list[Points | None] = []
    right = []
    for scene in scenes:
        hands = jax.tree.map(np.asarray, detect_hands(networks, scene["image"], num_hands=1))
        right.append(bool(hands.right[0] > 0.5))
        if not hands.present[0]:
            tracked.append(None)
            fitted.append(None)
            continue
        tracked.append((hands.keypoints3d[0], hands.keypoints2d[0]))
        one = TrackedHand(1.0, hands.score, hands.keypoints2d, hands.depth, hands.keypoints3d)
        size = SIZE + 2 * BORDER
        camera = guess_camera((size, size), float(scene["focal"]))
        found = fit_tracked(hand, one, camera)
        points = np.asarray(found.keypoints[0])
        fitted.append((points, points[:, :2] / points[:, 2:] * scene["focal"] + (size - 1) / 2))
    return tracked, fitted, right


def of_mediapipe(scenes: list[dict]) -> list[Points | None]:
    import mediapipe  # ty: ignore[import-not-found]

    found: list[Points | None] = []
    with mediapipe.solutions.hands.Hands(static_image_mode=True, model_complexity=1, max_num_hands=1) as graph:
        for scene in scenes:
            seen = graph.process(scene["image"])
            if not seen.multi_hand_landmarks:
                found.append(None)
                continue
            size = np.array(scene["image"].shape[1::-1])
            pixels = np.array([[p.x, p.y] for p in seen.multi_hand_landmarks[0].landmark]) * size - 0.5
            world = np.array([[p.x, p.y, p.z] for p in seen.multi_hand_world_landmarks[0].landmark])
            found.append((world, pixels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200, help="of pictures")
    parser.add_argument("--pictures", type=Path, help="file for the pictures, .npz")
    arguments = parser.parse_args()
    scenes = pictures(arguments.number, arguments.pictures)
    if arguments.pictures is not None and not find_spec("mediapipe"):
        print("mediapipe is not installed here and is left out")
    peer = {"mediapipe": of_mediapipe(scenes)} if find_spec("mediapipe") else {}
    tracked, fitted, right = tracked_and_fitted(scenes)
    answers = {"jhand.track": tracked, "jhand.track, fitted": fitted, **peer}
    everyone = [i for i in range(len(scenes)) if all(found[i] is not None for found in answers.values())]
    truth = np.stack([scenes[i]["points"] for i in everyone]).astype(np.float32)
    pixels = np.stack([scenes[i]["pixels"] for i in everyone])
    rows = []
    for name, found in answers.items():
        points, uv = (np.stack([found[i][k] for i in everyone]).astype(np.float32) for k in (0, 1))
        errors = {
            "mm": 1e3 * np.asarray(pa_mpjpe(points, truth)),
            "px": np.linalg.norm(uv - pixels, axis=-1).mean(-1),
        }
        row = {"what": name, "found": sum(f is not None for f in found)}
        for unit, values in errors.items():
            row |= {f"median_{unit}": float(np.median(values)), f"p90_{unit}": float(np.percentile(values, 90))}
        rows.append(row)
    seen = [r for r, f in zip(right, tracked, strict=True) if f is not None]
    report = {"pictures": len(scenes), "compared": len(everyone), "side_right": float(np.mean(seen)), "rows": rows}
    lines = [
        f"{len(scenes)} renders of right hands, {len(everyone)} of them found by all, about {SIZE} px large.",
        "Errors against the hand's own joints: medians, and 90th percentiles. Written by benchmarks/track_renders.py.",
        "The fit is told focal length and side; renders show its own hand model and, in part, poses of its prior.",
        f"jhand.track takes {100 * report['side_right']:.0f} % of those it finds for right hands.",
        "",
        "| | found | aligned, mm | p90 | px | p90 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = " | ".join(f"{row[k]:.1f}" for k in ("median_mm", "p90_mm", "median_px", "p90_px"))
        lines.append(f"| {row['what']} | {row['found']} | {numbers} |")
    text = "\n".join(lines) + "\n"
    print(text)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "track_renders.json").write_text(json.dumps(report, indent=1) + "\n")
    (FOLDER / "track_renders.md").write_text(text)


if __name__ == "__main__":
    main()
