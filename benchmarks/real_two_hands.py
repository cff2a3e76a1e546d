"""Ego2HandsPose's and Dyn-HaMR's fits on real recordings: benchmarks/results/real_two_hands.json and .md.

    python benchmarks/real_two_hands.py --recordings FOLDER      about 10 minutes on two quiet cores

Nobody knows where the joints of these hands were, so nothing here is an error of joints.

- A video of one bare right hand, `jhand.track` on its pictures, both fits on what that says: how far fitted joints are
  from the tracked ones in the picture, how much both jitter there, how well the fitted hand agrees with the network's.
  The focal length is guessed and the camera taken to stand still, so places and sizes in metres mean nothing.
- Two hands before a Leap Motion, seen by made cameras with noise: agreement with the tracker's 20 joints. It gives no
  wrist; that of a hand fitted to its joints stands in, and is not scored.
- Thirteen optical markers on a right hand: a hand fitted to them is seen by made cameras with noise, and what the fits
  make of that is scored on the markers, which were measured.

Made cameras: for Ego2HandsPose one that stands still, of 400 pixels; for Dyn-HaMR a full-HD one that is carried, whose
path is known up to its unit. Single frames come from the points, turned and moved by noise, by `hands_by_frame`.
Needs the extra `video`.
"""

import argparse
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jhand import metrics
from jhand.compile_cache import enable_compile_cache
from jhand.data.readers.open_recordings import read_leap
from jhand.data.world.cameras import look_at
from jhand.fitting.solver import fit_sequence
from jhand.geometry import invert_transform, make_camera, project, so3_exp, transform
from jhand.hand import (
    HandParams,
    bone_hulls,
    bone_measures,
    hull_excess,
    load_hand,
    mirror_hand,
)
from jhand.hand.landmark_sets import landmarks
from jhand.motion import between_keyframes, move_points
from jhand.studies import MARKERS, attach_hand_markers, fit_recording, metres
from jhand.systems import dynhamr, ego2handspose
from jhand.track import TrackedHand, hands_by_frame, load_networks, track_video

RESULTS = Path(__file__).parent / "results"
VIDEO = "hand_video/human_hand_video.mp4"
LEAP = ("flapping", "confidence2")
"""Recordings that show two hands in all of their frames."""
FRAMES, CAMERAS = 64, 3
METHODS = ("projection", "pixels", "staged", "tracked")
STEPS = {
    "single frames, camera taken to stand still": {"last": "lift", "still": True},
    "single frames, lifted": {"last": "lift"},
    "both descents, the scale 1": {"last": "slerp", "scale": False},
    "both descents": {"last": "slerp"},
}
EGO = {"pixels": 4.0, "canonical": 0.06, "turn": 0.1}
"""Noise of Ego2HandsPose's readings, as in its experiment."""
DYN = {"pixels": 4.0, "points": 0.006, "turn": 0.1}
"""Noise of Dyn-HaMR's: full-HD pixels, metres, radians."""
WRIST = np.arange(21) == 0


def model(side: str):
    return _hand() if side == "right" else mirror_hand(_hand())


@lru_cache
def _hand():
    return load_hand()


def jitter2d(points: np.ndarray, shown: np.ndarray) -> float:
    """Mean length of second differences of points (T, 21, 2), pixels per frame squared, where all three are shown."""
    second = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1)
    return float(second[shown[2:] & shown[1:-1] & shown[:-2]].mean())


def implausible(points: np.ndarray) -> float:
    """Share of joints of right hands (..., 21, 3) whose angles lie outside of their hull by more than 0.1."""
    bones = bone_measures(jnp.asarray(points))
    return float(jnp.mean(hull_excess(bones.flexion, bones.abduction, bone_hulls()) > 0.1))


def readings_of(right: dict, left: dict | None) -> ego2handspose.Readings:
    """Of dicts of arrays (N, T, ...): what there is of both hands; a hand that is not there has no weight."""
    none = jax.tree.map(jnp.zeros_like, right) | {"canonical": right["canonical"]}
    both = lambda name: jnp.stack([right[name], (left or none)[name]], 2)  # noqa: E731
    return ego2handspose.Readings(both("pixels"), both("weights"), both("canonical"))


def single_frames(side: str, points: np.ndarray, pixels: np.ndarray, shown: np.ndarray, camera) -> HandParams:
    """Hands frame by frame: points (T, 21, 3) metres along the camera's axes, pixels (T, 21, 2) of a camera."""
    seen = shown.astype(np.float32)
    return hands_by_frame(
        model(side), TrackedHand(float(side == "right"), seen, pixels, pixels[..., 0], points), camera
    )


# A video of a hand


def of_video(folder: Path, frames: int) -> dict:
    footage = track_video(load_networks(), folder / VIDEO, num_hands=1, max_frames=frames)
    tracked = max(footage.hands, key=lambda hand: hand.present.sum())
    if tracked.side != "right":
        raise ValueError(f"{VIDEO}: expected a right hand, tracked a {tracked.side} one")
    shown, seen = tracked.present, tracked.keypoints2d
    about = {
        "frames": footage.num_frames,
        "frames_with_the_hand": int(shown.sum()),
        "hand_px": float(np.median(np.ptp(seen, axis=1).max(-1)[shown])),
        "jitter_tracked_px": jitter2d(seen, shown),
    }
    return about | {
        "ego2handspose": video_ego(footage, tracked)[0],
        "dynhamr": video_dyn(footage, tracked)[0],
    }


def video_ego(footage, tracked: TrackedHand) -> tuple[dict, dict]:
    """Scores by method, and outputs by method."""
    shown, seen, camera = tracked.present, tracked.keypoints2d, footage.camera
    # the network sees a crop: its hand is as from a camera that looks there
    middles = (seen.mean(1) - np.asarray(camera.K[:2, 2])) / footage.focal
    R = ego2handspose.towards(jnp.asarray(middles))
    canonical = jnp.einsum("tij,tkj->tki", R, tracked.keypoints3d, precision="highest")
    canonical = jnp.where(shown[:, None, None], canonical, canonical[np.argmax(shown)])
    weights = np.broadcast_to((tracked.score * shown)[:, None], (len(shown), 21))
    of_right = {"pixels": seen, "weights": weights, "canonical": canonical}
    of_right = {name: jnp.asarray(x, jnp.float32)[None] for name, x in of_right.items()}
    inputs = ego2handspose.Inputs(jax.tree.map(lambda x: x[None], camera), readings_of(of_right, None))
    scores, found = {}, {}
    for method in METHODS:
        out = ego2handspose.solve(inputs, ego2handspose.Config(method=method), _hand())
        points = np.asarray(out.keypoints[0, :, 0])
        pixels = np.asarray(project(jax.tree.map(lambda x: x[None], camera), points))
        own, said = (ego2handspose.normalised_canonical(x) for x in (points, canonical))
        scores[method] = {
            "from_tracked_px": float(np.linalg.norm(pixels - seen, axis=-1)[shown].mean()),
            "jitter_px": jitter2d(pixels, shown),
            "jitter_mm_at_key_bone": 1e3
            * float(metrics.acceleration(points, 1.0, jnp.broadcast_to(shown[:, None], points.shape[:2]))),
            "from_canonical_bones": float(metrics.mpjpe(own, said)[shown].mean()),
        }
        found[method] = pixels
    return scores, found


def video_dyn(footage, tracked: TrackedHand) -> tuple[dict, dict]:
    """Scores by stage, and pixels by stage."""
    shown, seen, frames = tracked.present, tracked.keypoints2d, footage.num_frames
    cameras = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, frames, *x.shape)), footage.camera)
    inputs = dynhamr.Inputs(
        cameras=cameras,
        moving=jnp.array([False]),
        right=jnp.array([[True]]),
        keypoints2d=jnp.asarray(seen)[None, None],
        confidence=jnp.broadcast_to(jnp.asarray(tracked.score)[None, None, :, None], (1, 1, frames, 21)),
        estimates=jax.tree.map(lambda x: x[None, None], hands_by_frame(_hand(), tracked, footage.camera)),
        seen=jnp.asarray(shown)[None, None],
        prior={},
    )
    smaller = 1920 / max(footage.size)  # the weights are those of full-HD pixels
    base = dynhamr.Config.tiny(
        reprojection=(smaller**2 * 0.001, smaller**2 * 0.001, smaller**2 * 0.05), robust=100 / smaller
    )
    scores, found = {}, {}
    stages = {"single frames": {"last": "lift"}, "both descents": {"last": "slerp"}}
    stages["both descents, not smooth"] = {"last": "slerp", "smooth": (0.0, 0.0)}
    for name, fields in stages.items():
        out = dynhamr.solve(inputs, replace(base, **fields), _hand())
        points = np.asarray(out.keypoints[0, 0])
        pixels = np.asarray(project(jax.tree.map(lambda x: x[0], cameras), points))
        counts = jnp.broadcast_to(shown[:, None], points.shape[:2])
        scores[name] = {
            "from_tracked_px": float(np.linalg.norm(pixels - seen, axis=-1)[shown].mean()),
            "jitter_px": jitter2d(pixels, shown),
            "acceleration_m_s2": float(metrics.acceleration(points, footage.fps, counts)),
            "implausible": implausible(points),
            "largest_beta": float(jnp.abs(out.params.betas).max()),
        }
        found[name] = pixels
    return scores, found


# Recorded hands before made cameras


def leap_hands(folder: Path, group: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Both hands (2, T, 21, 3) metres, y down, at about 30 a second; which are scored (2, T, 21); frames a second."""
    both = [read_leap(folder, group, side) for side in ("right", "left")]
    if both[0].num_frames != both[1].num_frames:
        numbers = [one.num_frames for one in both]
        raise ValueError(f"{group}: expected both hands in all frames, got {numbers}: choose another recording")
    points = []
    step = max(1, round(both[0].fps / 30))
    for one in both:
        few = replace(
            one, fps=one.fps / step, **{k: getattr(one, k)[::step][:FRAMES] for k in ("keypoints3d", "confidence")}
        )
        found = np.asarray(fit_recording(model(one.side), few).fit.keypoints)
        points.append(np.where(few.confidence[..., None] > 0, metres(few), found))
    points = np.stack(points) * np.array([1, -1, -1], np.float32)  # the Leap looks upwards, y is up
    return points, np.broadcast_to(~WRIST, points.shape[:3]), both[0].fps / step


def before_the_eyes(points: np.ndarray, key) -> tuple:
    """A camera that stands still, half a metre from what moves, and points (B, T, 21, 3) in its frame."""
    middle = points.reshape(-1, 3).mean(0)
    aside = 0.1 * jax.random.normal(key, (3,))
    T = look_at(jnp.asarray(middle) + jnp.array([0.0, -0.35, -0.4]) + aside, jnp.asarray(middle))
    camera = make_camera(focal=np.full(2, ego2handspose.FOCAL), principal=np.full(2, ego2handspose.CENTRE))
    return camera, transform(T, points.reshape(-1, 3)).reshape(points.shape), T


def through_ego(points: np.ndarray, key) -> tuple[dict, dict]:
    """Points (B, T, 21, 3) in the frame of a camera that stands still, of one or two hands; outputs by method.

    Returns:
        Outputs by method, and what they are compared with: points (T, B, 21, 3) at a key bone of 10 cm.
    """
    keys = jax.random.split(key, 3)
    camera = make_camera(focal=np.full(2, ego2handspose.FOCAL), principal=np.full(2, ego2handspose.CENTRE))
    canonical = ego2handspose.normalised_canonical(points)
    turns = so3_exp(EGO["turn"] * jax.random.normal(keys[0], (*points.shape[:2], 3)))
    canonical = jnp.einsum("btij,btkj->btki", turns, canonical, precision="highest")
    canonical = canonical + EGO["canonical"] * jax.random.normal(keys[1], canonical.shape)
    pixels = project(camera, jnp.asarray(points)) + EGO["pixels"] * jax.random.normal(keys[2], (*points.shape[:-1], 2))
    hands = [
        {"pixels": pixels[b][None], "weights": jnp.ones((1, *points.shape[1:3])), "canonical": canonical[b][None]}
        for b in range(len(points))
    ]
    readings = readings_of(hands[0], hands[1] if len(hands) > 1 else None)
    inputs = ego2handspose.Inputs(jax.tree.map(lambda x: x[None], camera), readings)
    solved = {m: ego2handspose.solve(inputs, ego2handspose.Config(method=m), _hand()) for m in METHODS}
    bone = np.linalg.norm(points[..., ego2handspose.MIDDLE, :] - points[..., 0, :], axis=-1).mean(1)  # (B,)
    return solved, 0.1 * points / bone[:, None, None, None]


def through_dyn(points: np.ndarray, fps: float, key) -> tuple[dict, np.ndarray]:
    """Points (B, T, 21, 3), y down, before `CAMERAS` that are carried; outputs by steps, and true units (N,)."""
    sides = ("right", "left")[: len(points)]
    frames = points.shape[1]
    clips, units = [], []
    for k in jax.random.split(key, CAMERAS):
        keys = jax.random.split(k, 7)
        times = jnp.arange(frames) / fps
        progress = between_keyframes(times, 0.5 * jnp.arange(11) - 0.5, jnp.full(11, 1.0))
        walk, gaze = 0.35 * jax.random.normal(keys[0], (12, 3)), 0.12 * jax.random.normal(keys[1], (12, 3))
        path = move_points(progress, walk)
        middle = jnp.asarray(points.reshape(-1, 3).mean(0))
        eye = middle + jnp.array([0.0, -0.4, -0.7]) + path - path[:1]
        T = jax.vmap(look_at)(eye, middle + move_points(progress, gaze))
        lens = {"focal": jnp.full((frames, 2), 1400.0), "principal": jnp.full((frames, 2), jnp.array([959.5, 539.5]))}
        cameras = make_camera(**lens, T_cam_world=T, distortion=jnp.zeros((frames, 8)))
        seen = transform(T[None], jnp.asarray(points))
        pixels = project(cameras, jnp.asarray(points)) + DYN["pixels"] * jax.random.normal(
            keys[2], (*points.shape[:-1], 2)
        )
        R = so3_exp(DYN["turn"] * jax.random.normal(keys[3], (*points.shape[:2], 3)))
        about = jnp.einsum("btij,btkj->btki", R, seen - seen[..., :1, :], precision="highest")
        about = np.asarray(about + DYN["points"] * jax.random.normal(keys[4], about.shape))
        one = jax.tree.map(lambda x: x[0], cameras)
        shown = np.ones(frames, bool)
        estimates = [single_frames(s, about[b], np.asarray(pixels[b]), shown, one) for b, s in enumerate(sides)]
        unit = float(jnp.exp(jax.random.uniform(keys[5], minval=np.log(0.3), maxval=np.log(3.0))))
        world = jnp.matmul(T, invert_transform(T[0]), precision="highest")  # as SLAM has it: the first camera's
        slam = replace(cameras, T_cam_world=world.at[:, :3, 3].divide(unit))
        clips.append(
            dynhamr.Inputs(
                cameras=slam,
                moving=jnp.array(True),
                right=jnp.array([s == "right" for s in sides]),
                keypoints2d=pixels,
                confidence=jnp.full(points.shape[:3], 0.9).at[..., 0].set(0.0 if len(sides) > 1 else 0.9),
                estimates=jax.tree.map(lambda *x: jnp.stack(x), *estimates),
                seen=jnp.ones(points.shape[:2], bool),
                prior={},
            )
        )
        units.append(unit)
    inputs = jax.tree.map(lambda *x: jnp.stack(x), *clips)
    config = dynhamr.Config.tiny()
    return {n: dynhamr.solve(inputs, replace(config, **f), _hand()) for n, f in STEPS.items()}, np.array(units)


def in_world(found, true: np.ndarray, counts: np.ndarray, units: np.ndarray, scale, fps: float) -> dict:
    """Millimetres between points (N, T, K, 3) and (T, K, 3), whose counts (T, K) say which are scored."""
    counts = jnp.asarray(counts)
    return {
        "g_mm": [1e3 * float(x) for x in metrics.w_mpjpe(found, true, counts, window=len(true))],
        "ga_mm": [1e3 * float(x) for x in metrics.ga_mpjpe(found, true, counts)],
        "acceleration_apart_m_s2": [float(x) for x in metrics.acceleration_error(found, true, fps, counts)],
        "scale_over_true": [float(x) for x in np.asarray(scale) / units],
    }


def of_leap(folder: Path, group: str, key) -> dict:
    points, scored, fps = leap_hands(folder, group)
    about: dict = {"frames": points.shape[1], "fps": fps, "ego2handspose": {m: [] for m in METHODS}, "dynhamr": {}}
    for k in jax.random.split(key, CAMERAS):
        _, seen, _ = before_the_eyes(points, k)
        solved, true = through_ego(np.asarray(seen), jax.random.fold_in(k, 1))
        for method, out in solved.items():
            found = np.moveaxis(np.asarray(out.keypoints[0]), 1, 0)
            about["ego2handspose"][method].append(camera_scores(found[..., 1:, :], true[..., 1:, :]))
    solved, units = through_dyn(points, fps, key)
    flat = lambda x: np.moveaxis(np.asarray(x), -4, -3).reshape(*x.shape[:-4], x.shape[-3], -1, x.shape[-1])  # noqa: E731
    counts = np.moveaxis(scored, 0, 1).reshape(points.shape[1], -1)
    for name, out in solved.items():
        about["dynhamr"][name] = in_world(flat(out.keypoints), flat(points), counts, units, out.world_scale, fps)
    return about


def camera_scores(found: np.ndarray, true: np.ndarray) -> dict:
    """Of points (B, T, K, 3) in the camera's frame, whose key bone is 10 cm, and of their second differences."""
    shift = found - found.mean(-2, keepdims=True) - (true - true.mean(-2, keepdims=True))
    return {
        "apart_cm": 100 * float(np.linalg.norm(found - true, axis=-1).mean()),
        "about_their_middle_cm": 100 * float(np.linalg.norm(shift, axis=-1).mean()),
        "jitter_cm": 100 * float(np.mean(metrics.acceleration(found, 1.0))),
        "jitter_recorded_cm": 100 * float(np.mean(metrics.acceleration(true, 1.0))),
    }


def of_mocap(folder: Path, key, step: int = 3, stretches: int = 3) -> dict:
    """Stretches of the recording in which the hand moves most, beside the markers."""
    hand = _hand()
    attached = attach_hand_markers(hand, folder)
    markers = attached.recording
    fps, length = markers.fps / step, FRAMES * step
    begins = np.arange(attached.first_frame, len(markers.points) - length, length)
    moved = [np.linalg.norm(np.diff(markers.points[b : b + length : step, 0], axis=0), axis=-1).sum() for b in begins]
    about: dict = {"fps": fps, "frames": FRAMES, "stretches": []}
    for b in sorted(begins[np.argsort(moved)[-stretches:]]):
        pick = slice(b, b + length, step)
        turned = np.stack([markers.points[pick, :, k] for k in range(3)], -1)
        turned = np.stack([turned[..., 0], -turned[..., 2], turned[..., 1]], -1)  # z is up; here y is down
        seen = markers.seen[pick]
        weights = seen.astype(np.float32)
        shape = {"landmarks": attached.landmarks, "betas": attached.betas, "fps": fps, "settings": MARKERS}
        fit = fit_sequence(hand, keypoints3d=turned, weights=weights, **shape)
        points, k = np.asarray(fit.keypoints)[None], jax.random.fold_in(key, int(b))
        row: dict = {
            "first_frame": int(b),
            "path_m": float(np.linalg.norm(np.diff(turned[:, 0], axis=0), axis=-1).sum()),
            "fitted_to_markers_mm": 1e3 * float(np.asarray(fit.errors)[seen].mean()),
            "ego2handspose": {},
            "dynhamr": {},
        }
        _, in_camera, T = before_the_eyes(points, k)
        solved, _ = through_ego(np.asarray(in_camera), jax.random.fold_in(k, 1))
        true = np.asarray(transform(T, turned.reshape(-1, 3))).reshape(turned.shape)
        for method, out in solved.items():
            if out.params is not None:  # a closed form has no skin to carry markers
                own = jax.tree.map(lambda x: x[0, :, 0], out.params)
                carried = landmarks(hand, own, attached.landmarks)
                row["ego2handspose"][method] = {"ga_mm": 1e3 * float(metrics.ga_mpjpe(carried, true, seen))}
        solved, units = through_dyn(points, fps, k)
        for name, out in solved.items():
            carried = landmarks(hand, jax.tree.map(lambda x: x[:, 0], out.params), attached.landmarks)
            row["dynhamr"][name] = in_world(carried, turned, seen, units, out.world_scale, fps)
        about["stretches"].append(row)
    return about


def mean(values) -> float:
    return float(np.mean(values))


def markdown(found: dict) -> str:
    v = found["video"]
    lines = [
        "Recordings through Ego2HandsPose's and Dyn-HaMR's fits. Written by benchmarks/real_two_hands.py, which says",
        "what is compared with what: agreement with trackers, and distances from markers; no joints' errors.",
        "",
        f"A video of a right hand, {v['frames_with_the_hand']} of {v['frames']} frames tracked, the hand "
        f"{v['hand_px']:.0f} px; tracked points jitter {v['jitter_tracked_px']:.2f} px.",
        "",
        "| fit | from tracked, px | jitter, px | from the network's hand, key bones | implausible |",
        "|---|---|---|---|---|",
    ]
    for method, s in v["ego2handspose"].items():
        numbers = f"{s['from_tracked_px']:.1f} | {s['jitter_px']:.2f} | {s['from_canonical_bones']:.3f}"
        lines.append(f"| Ego2HandsPose, {method} | {numbers} | - |")
    for name, s in v["dynhamr"].items():
        numbers = f"{s['from_tracked_px']:.1f} | {s['jitter_px']:.2f} | - | {100 * s['implausible']:.1f} %"
        lines.append(f"| Dyn-HaMR, {name} | {numbers} |")
    lines += [
        "",
        "Ego2HandsPose, at a key bone of 10 cm: from the tracker's joints; from markers after one similarity, mm.",
        "",
        "| method | " + " | ".join(f"{g}, cm | about their middle | jitter" for g in LEAP) + " | markers, mm |",
        "|---|" + "---|" * (3 * len(LEAP) + 1),
    ]
    for method in METHODS:
        cells = []
        for group in LEAP:
            rows = found["leap"][group]["ego2handspose"][method]
            cells += [f"{mean([r[k] for r in rows]):.2f}" for k in ("apart_cm", "about_their_middle_cm", "jitter_cm")]
        rows = [
            r["ego2handspose"][method]["ga_mm"] for r in found["mocap"]["stretches"] if method in r["ego2handspose"]
        ]
        lines.append(f"| {method} | {' | '.join(cells)} | {f'{mean(rows):.1f}' if rows else '-'} |")
    lines += [
        "",
        "Dyn-HaMR, mm: aligned by the first two frames (G), as a whole (GA), and the scale found over the true one;",
        f"means over {CAMERAS} made cameras.",
        "",
        "| | " + " | ".join(f"{g}: G | GA | scale" for g in (*LEAP, "markers")) + " |",
        "|---|" + "---|" * (3 * len(LEAP) + 3),
    ]
    for name in STEPS:
        cells = []
        for rows in (
            *([found["leap"][g]["dynhamr"][name]] for g in LEAP),
            [r["dynhamr"][name] for r in found["mocap"]["stretches"]],
        ):
            cells += [f"{mean([r[k] for r in rows]):.0f}" for k in ("g_mm", "ga_mm")]
            cells.append(f"{mean([r['scale_over_true'] for r in rows]):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--max-frames", type=int, default=120, help="of the video")
    arguments = parser.parse_args()
    enable_compile_cache()
    found: dict = {"noise": {"ego2handspose": EGO, "dynhamr": DYN}, "cameras": CAMERAS}
    RESULTS.mkdir(exist_ok=True)

    def keep(name: str, part: dict) -> None:
        """What was measured is on disk before the next is begun."""
        found[name] = part
        (RESULTS / "real_two_hands.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps({name: part}), flush=True)

    keep("video", of_video(arguments.recordings, arguments.max_frames))
    keep("leap", {g: of_leap(arguments.recordings, g, jax.random.key(i)) for i, g in enumerate(LEAP)})
    keep("mocap", of_mocap(arguments.recordings, jax.random.key(len(LEAP))))
    (RESULTS / "real_two_hands.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
