"""The synthetic world: how fast it is made, how its motion compares with people's, how close its hands come.

    python benchmarks/world.py --recordings FOLDER        about 15 minutes on two cores

Speed: clips a second of one picture of 64 x 64 with all annotations, compiled, in batches, and with their way to disk.
Motion: 1-Wasserstein distances of speeds and accelerations from those of recordings, in units of the recordings'
standard deviation: the wrist from optical markers on the back of a hand, joints from hands fitted to Leap and to a
video. Both sides are sampled at 30 Hz and differenced alike. Writes benchmarks/results/world.json and .md; exits
non-zero where a goal is missed.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import wasserstein_distance

from jhand.contact import solid_distance
from jhand.data.readers.open_recordings import LEAP_GROUPS, read_hand_markers, read_hand_video, read_leap
from jhand.data.recording import RecordingError
from jhand.data.world import WORLDS, cached_world, load_assets, make_clips, world_clips
from jhand.data.world.scripts import finger_motion, hand_and_object, two_hands, wander
from jhand.fitting import fit_sequence
from jhand.geometry import geodesic_distance, invert_transform, signed_distance, so3_exp, transform
from jhand.hand import forward, load_hand, pose_from_angles
from jhand.motion import resample, savitzky_golay

FOLDER = Path(__file__).parent / "results"
GOALS = {"pictures a second": 150.0, "wasserstein": 0.5, "share closer than 5 mm": 0.2, "mean penetration, mm": 1.0}
RATE, BATCH, CLIPS, SECONDS = 30.0, 32, 200, 4.0


def derivatives(points: np.ndarray) -> dict[str, np.ndarray]:
    """Speeds and accelerations, lengths, of points (T, 3) at `RATE`."""
    velocity = np.diff(points, axis=0) * RATE
    acceleration = np.diff(velocity, axis=0) * RATE
    return {
        "wrist speed, m/s": np.linalg.norm(velocity, axis=-1),
        "wrist acceleration, m/s^2": np.linalg.norm(acceleration, axis=-1),
    }


def turning(hand_pose: np.ndarray) -> np.ndarray:
    """Angular speeds (T - 1, 15) of joints, rad/s, of poses (T, 15, 3) at `RATE`."""
    R = so3_exp(hand_pose)
    return np.asarray(geodesic_distance(R[:-1], R[1:])) * RATE


def at_rate(values: np.ndarray, fps: float) -> np.ndarray:
    """(T, ...) at `RATE`, freed from jitter faster than a hand."""
    flat = values.reshape(len(values), 1, -1)
    if len(values) > 12:
        window = max(5, round(0.13 * fps) // 2 * 2 + 1)
        flat = savitzky_golay(flat, window, 2)
    times = np.arange(len(values)) / fps
    return np.asarray(resample(flat, times, np.arange(0, times[-1], 1 / RATE))).reshape(-1, *values.shape[1:])


def real_motion(folder: str) -> dict[str, np.ndarray]:
    markers = read_hand_markers(folder)
    back = [i for i, name in enumerate(markers.names) if name.startswith("hand")]
    seen = markers.seen[:, back].all(-1)
    middle = markers.points[:, back].mean(1)
    frames = np.arange(len(seen))
    whole = np.stack([np.interp(frames, frames[seen], middle[seen, k]) for k in range(3)], -1)
    found = derivatives(at_rate(whole.astype(np.float32), markers.fps))

    hand, speeds = load_hand(), []
    recordings = [read_hand_video(folder)]
    for group in LEAP_GROUPS:
        try:
            recordings.append(read_leap(folder, group))
        except RecordingError:  # no right hand
            continue
    for recording in recordings:
        frames = min(recording.num_frames, 400)
        if frames < 20 or recording.keypoints3d is None:
            continue
        fitted = fit_sequence(
            hand,
            keypoints3d=recording.keypoints3d[:frames],
            weights=recording.confidence[:frames],
            fps=recording.fps,
        )
        poses = at_rate(np.asarray(fitted.params.hand_pose), recording.fps)
        speeds.append(turning(poses).ravel())
        print(f"{recording.name}: {frames} frames, median {np.median(speeds[-1]):.2f} rad/s", flush=True)
    return found | {"joint speed, rad/s": np.concatenate(speeds)}


def made_motion() -> dict[str, np.ndarray]:
    hand, times = load_hand(), jnp.arange(0, SECONDS, 1 / RATE)
    keys = jax.random.split(jax.random.key(0), CLIPS)
    paths = jax.jit(jax.vmap(lambda k: wander(k, jnp.eye(3), jnp.zeros(3), times)))(keys)
    fingers = jax.jit(jax.vmap(lambda k: pose_from_angles(hand, finger_motion(k, hand, times))))(keys)
    wrist = [derivatives(np.asarray(path)[:, :3, 3]) for path in paths]
    found = {name: np.concatenate([w[name] for w in wrist]) for name in wrist[0]}
    return found | {"joint speed, rad/s": np.concatenate([turning(np.asarray(f)).ravel() for f in fingers])}


def compare_motion(folder: str) -> list[dict]:
    real, made = real_motion(folder), made_motion()
    rows = []
    for name, values in real.items():
        distance = wasserstein_distance(values, made[name]) / values.std()
        row = {"what": name, "distance": float(distance)}
        for who, v in (("real", values), ("world", made[name])):
            row[who] = [float(np.round(np.percentile(v, q), 4)) for q in (25, 50, 75, 95)]
        rows.append(row)
        print(row, flush=True)
    return rows


def closeness(assets) -> dict:
    """How near two hands come, and how deep they enter each other, over `CLIPS` clips."""
    play = jax.jit(jax.vmap(lambda key: two_hands(key, assets, jnp.zeros(1))))
    actors = play(jax.random.split(jax.random.key(1), CLIPS))
    skins = [
        forward(hand, jax.tree.map(lambda x, n=n: x[:, n, 0], actors.params)).vertices
        for n, hand in enumerate((assets.right, assets.left))
    ]
    away = np.concatenate(
        [
            np.asarray(signed_distance(skins[0], skins[1], assets.left.faces)),
            np.asarray(signed_distance(skins[1], skins[0], assets.right.faces)),
        ],
        1,
    )
    least = away.min(1)
    return {
        "share closer than 5 mm": float((least < 0.005).mean()),
        "mean penetration, mm": float(1000 * np.maximum(-least, 0).mean()),
        "deepest, mm": float(1000 * np.maximum(-least, 0).max()),
    }


def holding(assets) -> dict:
    """How grasps touch and enter their objects, in the middle of a hold."""
    play = jax.jit(jax.vmap(lambda key: hand_and_object(key, assets, jnp.array([3.9]))))
    actors = play(jax.random.split(jax.random.key(2), CLIPS))
    v = forward(assets.right, jax.tree.map(lambda x: x[:, 0, 0], actors.params)).vertices
    solids = jax.tree.map(lambda x: x[:, 0], actors.solids)
    away = np.asarray(jax.vmap(solid_distance)(solids, transform(invert_transform(actors.T_world_object[:, 0, 0]), v)))
    link = np.asarray(assets.right.weights).argmax(1)
    touch = [(away[:, (link - 1) // 3 == f].min(1) < 0.002) for f in range(5)]
    return {
        "thumb and another finger touch": float((touch[4] & (np.sum(touch[:4], 0) > 0)).mean()),
        "mean of the deepest vertex, mm": float(1000 * np.maximum(-away, 0).max(1).mean()),
        "deepest, mm": float(1000 * np.maximum(-away, 0).max()),
    }


def speed(assets, rounds: int = 5) -> list[dict]:
    rows = []
    for name, make in WORLDS.items():
        config = make()
        start = time.perf_counter()
        jax.block_until_ready(make_clips(0, np.arange(BATCH), config, assets))
        first = time.perf_counter() - start
        each = []
        for n in range(rounds):
            numbers = np.arange(BATCH) + BATCH * (n + 1)
            start = time.perf_counter()
            jax.block_until_ready(make_clips(0, numbers, config, assets))
            each.append(BATCH / (time.perf_counter() - start))
        rows.append(
            {"world": name, "per_second": float(np.median(each)), "range": [min(each), max(each)], "compile": first}
        )
        print(rows[-1], flush=True)
    return rows


def to_disk(assets) -> dict:
    """How fast clips are made, encoded and written, compiled before."""
    next(world_clips(WORLDS["single_hand"](), 1, range(16), assets))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cached_world(WORLDS["single_hand"](), 0, 1024, folder=folder, assets=assets)
        seconds = time.perf_counter() - start
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return {"world": "single_hand, to disk", "per_second": 1024 / seconds, "bytes": size // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", required=True)
    parser.add_argument("--only", choices=("motion", "speed", "disk", "contact"))
    arguments = parser.parse_args()
    path = FOLDER / "world.json"
    out = json.loads(path.read_text()) if path.exists() else {}
    assets = load_assets()
    if arguments.only in (None, "motion"):
        out["motion"] = compare_motion(arguments.recordings)
    if arguments.only in (None, "contact"):
        out["two hands"], out["grasps"] = closeness(assets), holding(assets)
        print(out["two hands"], out["grasps"], flush=True)
    if arguments.only in (None, "speed"):
        out["speed"] = speed(assets)
        out["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}"
    if arguments.only in (None, "disk"):
        out["disk"] = to_disk(assets)
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(out, indent=1) + "\n")
    missed = write_table(out)
    sys.exit("\n".join(missed) or None)


def write_table(out: dict) -> list[str]:
    missed = []
    lines = ["Written by benchmarks/world.py, which says what is compared.", ""]
    if "speed" in out and "disk" in out:
        lines += ["| world, one picture of 64 x 64 | clips a second | first call, s |", "|---|---|---|"]
        for row in [*out["speed"], out["disk"]]:
            spread = "[{:.0f}..{:.0f}]".format(*row["range"]) if "range" in row else ""
            first = f"{row['compile']:.0f}" if "compile" in row else ""
            lines.append(f"| {row['world']} | {row['per_second']:.0f} {spread} | {first} |")
        disk = out["disk"]
        minutes = 20_000 / disk["per_second"] / 60
        lines += ["", f"20,000 clips of one hand take {minutes:.1f} minutes to disk, {disk['bytes']} bytes each.", ""]
        if out["speed"][0]["per_second"] < GOALS["pictures a second"]:
            missed.append(
                f"single_hand: {out['speed'][0]['per_second']:.0f} a second, goal {GOALS['pictures a second']}"
            )
    if "motion" in out:
        lines += [
            "| motion: quartiles and 95 % | recordings | world | distance, sd of the recordings |",
            "|---|---|---|---|",
        ]
        for row in out["motion"]:
            show = lambda v: ", ".join(f"{x:.3g}" for x in v)  # noqa: E731
            lines.append(f"| {row['what']} | {show(row['real'])} | {show(row['world'])} | {row['distance']:.2f} |")
            if row["distance"] > GOALS["wasserstein"]:
                missed.append(f"{row['what']}: distance {row['distance']:.2f}, goal {GOALS['wasserstein']}")
        lines.append("")
    for name in ("two hands", "grasps"):
        if name in out:
            lines += [f"| {name}, {CLIPS} clips | |", "|---|---|"]
            lines += [f"| {what} | {value:.2f} |" for what, value in out[name].items()] + [""]
    if "two hands" in out:
        close = out["two hands"]
        if close["share closer than 5 mm"] < GOALS["share closer than 5 mm"]:
            missed.append(f"two hands: {close['share closer than 5 mm']:.2f} closer than 5 mm")
        if close["mean penetration, mm"] > GOALS["mean penetration, mm"]:
            missed.append(f"two hands: mean penetration {close['mean penetration, mm']:.2f} mm")
    (FOLDER / "world.md").write_text("\n".join(lines).rstrip() + "\n")
    return missed


if __name__ == "__main__":
    main()
