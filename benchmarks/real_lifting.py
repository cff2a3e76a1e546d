"""Lift real motion, with networks that saw none but the world's: benchmarks/results/real_lifting.{json,md}.

    python -m benchmarks.real_lifting ../shared/data --runs out/runs        what experiments.glagcn trained there

The motion is real, the pictures are not: recorded points are put before cameras drawn as in training, in pieces as long
as those trained on, and networks are shown the pixels of 21 keypoints.

- Leap Motion: the tracker's own 20 joints, and the wrist, which it does not give, of the hand fitted to them. Lifted
  joints are compared with the tracker's, which are its opinion and not the truth. One recording of each group, since
  recordings repeat each other, without frames that repeat the one before.
- Optical markers: keypoints are those of the hand fitted to them. The hand, its shape known, is fitted to what was
  lifted, and where it has the 13 markers is compared with where they were measured.

All distances are after both sides were moved to have their mean at the origin: neither source has a true wrist.
`score` takes any function from a `Piece` to keypoints (T, 21, 3).
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import glagcn as glagcn_experiment
from jhand import metrics, studies
from jhand.compile_cache import enable_compile_cache
from jhand.data.made import first_examples
from jhand.experiment import HELD_OUT_SEED, Experiment, Options, load_published, run_of
from jhand.fitting import FitSettings, fit_sequence
from jhand.geometry.camera import project
from jhand.geometry.se3 import transform
from jhand.hand import HandModel, HandParams, keypoints, load_hand
from jhand.hand.landmark_sets import landmarks
from jhand.motion import resample
from jhand.systems import glagcn

OUT = Path(__file__).parent / "results"
SCENE = glagcn_experiment.SHOWN
PIECES = 4
"""Of each recording, evenly over it."""
UPRIGHT = {(0.0, 1.0, 0.0): np.diag([1.0, -1, -1]), (0.0, 0.0, 1.0): np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])}
"""By a recording's up: the rotation to a level camera's axes, y down."""


@dataclass(frozen=True)
class Piece:
    """A hand for a few seconds, as a camera would see it."""

    source: str
    keypoints2d: np.ndarray
    """(T, 21, 2) pixels."""
    size: np.ndarray
    """(2,) width and height."""
    right: bool
    points: np.ndarray
    """(T, K, 3) what was recorded, in the axes of the camera, metres."""
    seen: np.ndarray
    """(T, K) bool: what of it there is."""
    compared: Callable[[np.ndarray], np.ndarray]
    """From lifted keypoints (T, 21, 3) to the same K points."""


@dataclass(frozen=True)
class Motion:
    """A recorded right hand."""

    source: str
    keypoints3d: np.ndarray
    """(N, 21, 3) of the hand fitted to it, or what was recorded of it, metres."""
    points: np.ndarray
    """(N, K, 3) what was recorded, 0 where it was not."""
    seen: np.ndarray
    """(N, K) bool."""
    fps: float
    up: tuple[float, float, float]
    """In its axes."""
    compared: Callable[..., np.ndarray]
    """From lifted keypoints (..., T, 21, 3) to the same K points; `settings` of the fit that this may take."""


Lift = Callable[[Piece], np.ndarray]


def leap_motions(hand: HandModel, folder: str | Path) -> list[Motion]:
    """Recordings of the groups that landmarks were not learned on."""
    found = []
    for study in studies.leap(hand, folder, num_frames=10**6):
        recording, own = study.recording, study.recording.confidence > 0
        joints = studies.metres(recording)
        whole = np.where(own[..., None], joints, np.asarray(study.fit.keypoints))
        about = (recording.fps, recording.up, lambda lifted, **settings: lifted)
        found.append(Motion(recording.name, whole, joints, own, *about))
    return found


def marker_motion(hand: HandModel, folder: str | Path) -> Motion:
    """The recording of optical markers, after the seconds that they were attached in."""
    attached = studies.attach_hand_markers(hand, folder)
    study = studies.mocap(hand, attached, step=3)
    recording, fps = study.recording, study.recording.fps
    whole = np.asarray(keypoints(hand, study.fit.params))

    def markers(lifted: np.ndarray, **settings: FitSettings) -> np.ndarray:
        fit = fit_sequence(hand, keypoints3d=lifted, betas=attached.betas, fps=SCENE.fps, **settings)
        return np.asarray(landmarks(hand, fit.params, attached.landmarks))

    return Motion("optical markers", whole, recording.points, recording.seen, fps, recording.up, markers)


def pieces_of(motion: Motion) -> list[Piece]:
    """Pieces of a recording, at the frame rate of the world."""
    times = np.arange(len(motion.points)) / motion.fps
    new = np.arange(0, times[-1], 1 / SCENE.fps)
    nearest = np.searchsorted(times, new).clip(0, len(times) - 1)
    both = np.concatenate([motion.keypoints3d, motion.points], 1) @ UPRIGHT[motion.up].T
    both = np.asarray(resample(both.astype(np.float32), times, new))
    seen = motion.seen[nearest] & motion.seen[(nearest - 1).clip(0)]  # between two frames that have it
    starts = np.linspace(0, max(len(new) - SCENE.frames, 0), PIECES).round().astype(int)
    found = []
    for number, start in enumerate(np.unique(starts)):
        part = both[start : start + SCENE.frames]
        instants = jnp.arange(len(part)) / SCENE.fps
        camera = SCENE.camera(jax.random.key(number), jnp.asarray(part[:, :21]), instants, (SCENE.size, SCENE.size))
        there = np.asarray(transform(camera.T_cam_world, part))
        pixels = np.asarray(project(camera, part[:, :21]))
        mask, size = seen[start : start + SCENE.frames], np.full(2, float(SCENE.size))
        found.append(Piece(motion.source, pixels, size, True, there[:, 21:], mask, motion.compared))
    return found


def world_pieces(number: int = 12) -> list[Piece]:
    """Sequences of the world that nothing was trained on, scored alike."""
    made = first_examples(glagcn_experiment.CPU.world, HELD_OUT_SEED, number)
    return [
        Piece("the world", seen, size, True, points, valid, lambda lifted: lifted)
        for seen, size, points, valid in zip(
            made["keypoints2d"], made["size"], made["keypoints3d"], made["keypoints3d_valid"], strict=True
        )
    ]


def score(lift: Lift, pieces: Sequence[Piece]) -> dict[str, dict[str, float]]:
    """Millimetres by source: distances about the mean, after the best scale, after the best similarity."""
    by_source: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        found = piece.compared(np.asarray(lift(piece), np.float32))
        weights = piece.seen[..., None] / np.maximum(piece.seen.sum(1), 1)[:, None, None]
        x, y = (points - np.sum(weights * points, 1, keepdims=True) for points in (found, piece.points))
        # the mean is a point too, at the origin, which scales are about
        x, y = (np.concatenate([np.zeros_like(points[:, :1]), points], 1) for points in (x, y))
        rooted = np.concatenate([np.ones_like(piece.seen[:, :1]), piece.seen], 1)
        number = np.maximum(piece.seen.sum(1), 1)
        errors = (
            metrics.mpjpe(x[:, 1:], y[:, 1:], piece.seen),
            metrics.scale_aligned_mpjpe(x, y, rooted) * (number + 1) / number,
            metrics.pa_mpjpe(x[:, 1:], y[:, 1:], piece.seen),
        )
        by_source.setdefault(piece.source, []).append(1000 * np.stack(errors, -1))
    names = ("mpjpe", "scaled", "aligned")
    means = {source: np.nanmean(np.concatenate(errors), 0) for source, errors in by_source.items()}
    return {source: dict(zip(names, map(float, mean), strict=True)) for source, mean in means.items()}


def lift_by_glagcn(variables: Mapping, config: glagcn.Config) -> Lift:
    """GLA-GCN on whole pieces, each frame from the window about it."""
    predict = jax.jit(lambda inputs: glagcn.predict(variables, inputs, config).keypoints)

    def lift(piece: Piece) -> np.ndarray:
        return np.asarray(
            predict(
                glagcn.Inputs(
                    jnp.asarray(piece.keypoints2d, jnp.float32),
                    jnp.asarray(piece.size, jnp.float32),
                    jnp.asarray(piece.right),
                )
            )
        )

    return lift


def mean_hand(hand: HandModel, piece: Piece) -> np.ndarray:
    """The trivial answer: the same hand in each frame, which says something after an alignment alone."""
    params = replace(HandParams.zeros(), hand_pose=hand.hands_mean.reshape(15, 3))
    return np.broadcast_to(np.asarray(keypoints(hand, params)), (len(piece.keypoints2d), 21, 3))


def trained(experiment: Experiment, runs: Path, preset: str, seed: int, hand: HandModel) -> tuple[Mapping, Any]:
    """Variables of a run that is done, and its configuration."""
    run = run_of(experiment, Options(preset=preset, folder=runs), "full", {}, seed)
    return load_published(experiment, run.folder / "weights", run.config, hand), run.config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="../shared/data")
    parser.add_argument("--runs", type=Path, default=Path("out/runs"))
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    enable_compile_cache()
    hand = load_hand()
    motions = [*leap_motions(hand, arguments.data), marker_motion(hand, arguments.data)]
    pieces = world_pieces() + [piece for motion in motions for piece in pieces_of(motion)]
    results = {"mean hand": [score(partial(mean_hand, hand), pieces)], "GLA-GCN": []}
    for seed in range(arguments.seeds):
        lift = lift_by_glagcn(*trained(glagcn_experiment.experiment, arguments.runs, arguments.preset, seed, hand))
        results["GLA-GCN"].append(score(lift, pieces))
        print(seed, json.dumps(results["GLA-GCN"][-1]), flush=True)
    frames: dict[str, int] = {}
    for piece in pieces:
        frames[piece.source] = frames.get(piece.source, 0) + len(piece.keypoints2d)
    OUT.mkdir(exist_ok=True)
    said = {"preset": arguments.preset, "frames": frames, "results": results}
    (OUT / "real_lifting.json").write_text(json.dumps(said, indent=1) + "\n")
    (OUT / "real_lifting.md").write_text(table(said))
    print(table(said))


def table(said: Mapping) -> str:
    """Markdown: a line for each source."""
    seeds, trivial = said["results"]["GLA-GCN"], said["results"]["mean hand"][0]
    lines = [
        f"GLA-GCN, preset {said['preset']}, {len(seeds)} seeds, trained on the world alone; mean ± standard deviation",
        "over seeds, mm. Leap is a tracker's opinion and not the truth; markers were measured. Written by",
        "benchmarks/real_lifting.py.",
        "",
        "| source | frames | mpjpe about the mean | after the best scale | aligned | mean hand, aligned |",
        "|---|---|---|---|---|---|",
    ]
    for source, frames in said["frames"].items():
        cells = []
        for name in ("mpjpe", "scaled", "aligned"):
            values = [seed[source][name] for seed in seeds]
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}")
        lines.append(f"| {source} | {frames} | {' | '.join(cells)} | {trivial[source]['aligned']:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
