"""Hypotheses of recorded hands, by networks that saw none but made ones: benchmarks/results/real_hypotheses.{json,md}.

    python -m benchmarks.real_hypotheses ../shared/data --runs out/runs    what experiments.diffpose trained there

Hands are real, heat maps are not: frames of a recording are put before cameras drawn as in training, and a simulated
detector is sure of some joints and not of others, which may be those of two other frames of the same recording, turned
a little and wrist on wrist. Half of the hands are hard, as in training.

- Leap Motion: the tracker's own 20 joints, which are its opinion and not the truth, and the wrist, which it does not
  give, of the hand fitted to them. One recording of each group, since recordings repeat each other.
- Optical markers: maps are of the hand fitted to them. The hand, its shape known, is fitted to each hypothesis, and
  where it has the 13 markers is compared with where they were measured. Its fingers hardly move.

Distances are after Procrustes. `score` takes any function from heat maps (B, 21, H, W) to hypotheses (B, N, 21, 3) and
single answers (B, 21, 3).
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.real_lifting import Motion, leap_motions, marker_motion, trained
from experiments import diffpose as diffpose_experiment
from jhand import metrics
from jhand.compile_cache import enable_compile_cache
from jhand.data.ambiguous_hands import MODES, ambiguous_view
from jhand.data.made import first_examples
from jhand.experiment import HELD_OUT_SEED
from jhand.geometry import so3_exp
from jhand.hand import load_hand
from jhand.studies import UNRELATED
from jhand.systems import diffpose

OUT = Path(__file__).parent / "results"
HANDS = 96
"""Of each recording."""
NAMES = ("best", "single", "mean", "gaussian")
Guess = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Hands:
    """Hands that do not follow each other, as a detector sees them."""

    source: str
    heatmaps: np.ndarray
    """(B, 21, H, W)."""
    hard: np.ndarray
    """(B,) bool: many joints are ambiguous."""
    points: np.ndarray
    """(B, K, 3) what was recorded, in the axes of the camera, metres."""
    seen: np.ndarray
    """(B, K) bool."""
    compared: Callable[..., np.ndarray]
    """From keypoints (..., B, 21, 3) to the same K points."""


def hands_of(motion: Motion, seed: int, number: int = HANDS) -> Hands:
    """Frames evenly over a recording, each with two others of it at random; which of the three is true is drawn too.

    Args:
        motion: the recording.
        seed: of cameras, of what is hidden, of what it is taken for.
        number: how many.
    """
    scene = diffpose_experiment.experiment.presets["cpu"].world.scene
    rng = np.random.default_rng(seed)
    frames = rng.integers(len(motion.points), size=(number, MODES))
    frames[:, 0] = np.linspace(0, len(motion.points) - 1, number).round()
    turns = np.asarray(so3_exp(jnp.asarray(scene.turned * rng.standard_normal((number, MODES, 3)))))
    modes = np.einsum("bmij,bmkj->bmki", turns, motion.keypoints3d[frames])
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(seed), number))
    seen = jax.jit(jax.vmap(lambda k, x: ambiguous_view(k, x, scene)))(keys, modes.astype(np.float32))
    every, true = np.arange(number), np.asarray(seen["true"])
    which = frames[every, true]
    R = np.asarray(seen["R_cam_world"]) @ turns[every, true]
    points = np.einsum("bij,bkj->bki", R, motion.points[which])
    hard = np.asarray(seen["ambiguous"]).sum(-1) >= diffpose_experiment.HARD
    return Hands(motion.source, np.asarray(seen["heatmaps"]), hard, points, motion.seen[which], motion.compared)


def world_hands(number: int = HANDS) -> Hands:
    """Hands of the world that nothing was trained on, scored alike."""
    made = first_examples(diffpose_experiment.experiment.presets["cpu"].world, HELD_OUT_SEED, number)
    hard = made["ambiguous"].sum(-1) >= diffpose_experiment.HARD
    points, valid = made["keypoints3d"], made["keypoints3d_valid"]
    return Hands("the world", made["heatmaps"], hard, points, valid, lambda found, **settings: found)


def score(guess: Guess, groups: Sequence[Hands]) -> dict[str, dict[str, float]]:
    """By source: millimetres after Procrustes of the best hypothesis, the single answer, the mean over hypotheses and
    the best of a Gaussian of their total variance, each on `hard` and `easy` hands; `ece`, the calibration error.
    """
    found = {}
    for hands in groups:
        many, single = guess(hands.heatmaps)
        # hypotheses before hands: frames of a fit are those of a recording, whether they follow each other or not
        both = np.concatenate([np.moveaxis(many, 1, 0), single[None]]).astype(np.float32)
        both = hands.compared(both, settings=UNRELATED)
        many, single = np.moveaxis(both[:-1], 0, 1), both[-1]
        points, seen = hands.points, hands.seen
        each = 1000 * np.asarray(metrics.pa_mpjpe(many, points[:, None], seen[:, None]))
        drawn = metrics.matched_gaussian(jax.random.key(0), many)
        by_hand = {
            "best": each.min(1),
            "single": 1000 * np.asarray(metrics.pa_mpjpe(single, points, seen)),
            "mean": each.mean(1),
            "gaussian": 1000 * np.asarray(metrics.pa_mpjpe(drawn, points[:, None], seen[:, None])).min(1),
        }
        scores = {
            f"{name}_{kind}": float(np.nanmean(values[chosen]))
            for name, values in by_hand.items()
            for kind, chosen in (("hard", hands.hard), ("easy", ~hands.hard))
        }
        weights = seen[..., None] / seen.sum(1)[:, None, None]
        x, y = many - (weights[:, None] * many).sum(2, keepdims=True), points - (weights * points).sum(1, keepdims=True)
        ranks = metrics.truth_rank(x, y, seen)
        found[hands.source] = scores | {"ece": float(metrics.expected_calibration_error(ranks))}
    return found


def random_hands() -> Guess:
    """The trivial answer: 50 made hands whatever is seen, and their mean for a single one."""
    made = first_examples(diffpose_experiment.experiment.presets["cpu"].world, 0, diffpose_experiment.GUESSES)
    points = made["keypoints3d"] - made["keypoints3d"].mean(1, keepdims=True)

    def guess(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.broadcast_to(points, (len(maps), *points.shape)), np.broadcast_to(points.mean(0), (len(maps), 21, 3))

    return guess


def guess_by_diffpose(variables: Mapping, config: diffpose.Config) -> Guess:
    """DiffPose's hypotheses and its z0."""
    predict = jax.jit(lambda maps: diffpose.predict(variables, diffpose.Inputs(maps), config))

    def guess(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = predict(jnp.asarray(maps, jnp.float32))
        return np.asarray(found.hypotheses), np.asarray(found.keypoints)

    return guess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="../shared/data")
    parser.add_argument("--runs", type=Path, default=Path("out/runs"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    enable_compile_cache()
    hand, experiment = load_hand(), diffpose_experiment.experiment
    motions = [*leap_motions(hand, arguments.data), marker_motion(hand, arguments.data)]
    groups = [world_hands(), *(hands_of(motion, number) for number, motion in enumerate(motions))]
    results = {"random hands": [score(random_hands(), groups)], "DiffPose": []}
    for seed in range(arguments.seeds):
        guess = guess_by_diffpose(*trained(experiment, arguments.runs, "cpu", seed, hand))
        results["DiffPose"].append(score(guess, groups))
        print(seed, json.dumps(results["DiffPose"][-1]), flush=True)
    said = {"hands": {group.source: [int((~group.hard).sum()), int(group.hard.sum())] for group in groups}}
    said |= {"results": results}
    OUT.mkdir(exist_ok=True)
    (OUT / "real_hypotheses.json").write_text(json.dumps(said, indent=1) + "\n")
    (OUT / "real_hypotheses.md").write_text(table(said))
    print(table(said))


def table(said: Mapping) -> str:
    """Markdown: a line for each source."""
    seeds, trivial = said["results"]["DiffPose"], said["results"]["random hands"][0]

    def cell(source: str, name: str, digits: int = 1) -> str:
        values = [seed[source][name] for seed in seeds]
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    heads = ("best hypothesis", "single answer", "mean", "best of a Gaussian as wide", "best of 50 random hands")
    lines = [
        f"DiffPose, preset cpu, {len(seeds)} seeds, trained on made hands alone: mean ± standard deviation over seeds,",
        "mm after Procrustes, of 50 hypotheses. Leap is a tracker's opinion and not the truth; markers were measured.",
        "Written by benchmarks/real_hypotheses.py, which says what is seen.",
        "",
        f"| source | ambiguous joints | hands | {' | '.join(heads)} | calibration error of both |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for source, numbers in said["hands"].items():
        for kind, number in zip(("easy", "hard"), numbers, strict=True):
            cells = [cell(source, f"{name}_{kind}") for name in NAMES] + [f"{trivial[source][f'best_{kind}']:.1f}"]
            ece = cell(source, "ece", 3) if kind == "hard" else ""
            joints = "few" if kind == "easy" else "five or more"
            lines.append(f"| {source} | {joints} | {number} | {' | '.join(cells)} | {ece} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
