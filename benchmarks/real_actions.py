"""Tell recorded gestures and letters by TA-GCN's layers: benchmarks/results/real_actions.{json,md}.

    python -m benchmarks.real_actions ../shared/data [spoken_to_signed-0.4.0-py3-none-any.whl]    12 minutes of a core

The recordings are of one hand, so its graph is that of one hand, or of a fingertip alone; layers are those of
`jhand.systems.h2o_action`. Both are what MediaPipe saw.

- Histories of a fingertip (gestures2d, 16 frames, four gestures). Rows follow each other as they were recorded and
  overlap: those that are the same are dropped, the last fifth of each gesture is tested on, and as many rows as a
  history is long, before it, are left out.
- Letters A to Z, fingerspelled once in each of many languages (spoken-to-signed 0.4.0, MIT). No language has a letter
  twice, so each of those that spell with one hand is tested on once, by what was trained on all others.

Beside it: the most common class, the nearest neighbour, an MLP of the same budget, and this MLP with ten times the
steps, which says whether it is steps or clips that there are too few of; what networks tell of their training says so
too. Ten times the steps of TA-GCN on letters are hours of a core, and were left out. Places are from the hand's in
the first frame, in hands' lengths; 2D, the third coordinate 0.
"""

import argparse
import json
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jhand.nn import HAND_EDGES
from jhand.systems import h2o_action as system
from tools.make_demo_clips import download, read_lexicon

OUT = Path(__file__).parent / "results"
SEEDS, STEPS, BATCH, FRAMES = 3, 200, 32, 16
SHARE_OF_TWO_HANDED = 0.5
"""Of a language's clips that show both hands half of the time: from there on it is not spelled with one."""
Clips = tuple[np.ndarray, np.ndarray]
"""Places (N, T, V, 3) and classes (N,)."""


def read_histories(folder: Path) -> tuple[Clips, Clips]:
    """Trained and tested ones: (N, 16, 1, 3), pictures' sizes times 4, and four gestures."""
    rows = np.loadtxt(folder / "gestures2d" / "point_history.csv", delimiter=",", dtype=np.float32)
    kept = rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]
    train, test = [], []
    for gesture in np.unique(kept[:, 0]):
        here = kept[kept[:, 0] == gesture]
        cut = int(0.8 * len(here))
        train.append(here[: cut - FRAMES])
        test.append(here[cut:])

    def clips(parts: list[np.ndarray]) -> Clips:
        both = np.concatenate(parts)
        places = 4 * both[:, 1:].reshape(-1, FRAMES, 1, 2)
        return np.pad(places, ((0, 0), (0, 0), (0, 0), (0, 1))), both[:, 0].astype(np.int32)

    return clips(train), clips(test)


def read_letters(wheel: zipfile.ZipFile) -> tuple[Clips, np.ndarray]:
    """Clips (N, 16, 21, 3) of letters A to Z spelled with one hand, and the language (N,) of each."""
    clips, letters, languages, two_handed = [], [], [], {}
    for row, pose in read_lexicon(wheel):
        sides = [pose.component(name) for name in ("RIGHT_HAND_LANDMARKS", "LEFT_HAND_LANDMARKS")]
        seen = np.stack([(pose.confidence[:, 0, side] > 0).all(-1) for side in sides])
        two_handed.setdefault(row["signed_language"], []).append(seen.mean(1).min() > 0.5)
        left = int(seen[1].sum() > seen[0].sum())
        if len(row["words"]) != 1 or not "A" <= row["words"] <= "Z" or not seen[left].any():
            continue
        uv = pose.coordinates[:, 0, sides[left], :2][seen[left]] * np.array([-1 if left else 1, 1])
        uv = uv[np.linspace(0, len(uv) - 1, FRAMES).round().astype(int)]
        size = np.median(np.linalg.norm(uv - uv[:, :1], axis=-1).max(-1))
        clip = np.pad((uv - uv[:1, :1]) / size, ((0, 0), (0, 0), (0, 1))).astype(np.float32)
        if any(np.array_equal(clip, other) for other in clips):
            continue  # a clip that another language shares
        clips.append(clip)
        letters.append(ord(row["words"]) - ord("A"))
        languages.append(row["signed_language"])
    one_handed = np.array([np.mean(two_handed[language]) < SHARE_OF_TWO_HANDED for language in languages])
    both = np.stack(clips)[one_handed], np.array(letters, np.int32)[one_handed]
    return both, np.array(languages)[one_handed]


class Graphs(nn.Module):
    """TA-GCN's layers."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        config = system.Config.tiny(classes=self.classes)
        edges = HAND_EDGES if x.shape[-2] == 21 else ()  # a fingertip hears itself
        return system.Network(config, edges, name="graphs")(x, train)


class Perceptron(nn.Module):
    """An MLP over all of a clip's numbers."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes)(nn.relu(nn.Dense(128)(x)))


def learner(
    network: nn.Module, shape: tuple[int, ...], steps: int = STEPS
) -> Callable[[Clips, Clips, int], tuple[float, float]]:
    """A function from trained and tested clips and a seed to accuracy on tested and on trained ones; compiled once for
    each number of clips.
    """
    optimiser = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-4)

    @jax.jit
    def begin(key: jax.Array) -> Any:
        variables = network.init(key, jnp.zeros((1, *shape)), False)
        params = variables.pop("params")
        return params, variables, optimiser.init(params)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params, stats, moments = state

        def value(params: Any) -> tuple[jax.Array, Any]:
            logits, stats_now = network.apply({"params": params, **stats}, x, True, mutable=list(stats))
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)), stats_now

        slope, stats = jax.grad(value, has_aux=True)(params)
        change, moments = optimiser.update(slope, moments, params)
        return optax.apply_updates(params, change), stats, moments

    @jax.jit
    def answer(state: Any, x: jax.Array) -> jax.Array:
        return jnp.argmax(network.apply({"params": state[0], **state[1]}, x, False), -1)

    def accuracy(train: Clips, test: Clips, seed: int) -> tuple[float, float]:
        state, rng = begin(jax.random.key(seed)), np.random.default_rng(seed)
        for _ in range(steps):
            here = rng.integers(len(train[0]), size=BATCH)
            state = step(state, train[0][here], train[1][here])
        return tuple(float(np.mean(np.asarray(answer(state, x)) == y)) for x, y in (test, train))

    return accuracy


def nearest(train: Clips, test: Clips) -> float:
    """Accuracy of the nearest neighbour's class."""
    x, y = (part.reshape(len(part), -1) for part in (train[0], test[0]))
    far = (x**2).sum(1) - 2 * y @ x.T
    return float(np.mean(train[1][far.argmin(1)] == test[1]))


def most_common(train: Clips, test: Clips) -> float:
    """Accuracy of the class that there is most of."""
    return float(np.mean(np.bincount(train[1]).argmax() == test[1]))


def compare(folds: list[tuple[Clips, Clips]], classes: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Accuracies in per cent by method, of each seed, means over folds by their clips: of tested and trained ones."""
    shape, number = folds[0][0][0].shape[1:], np.array([len(test[1]) for _, test in folds])
    over = lambda scores: float(100 * np.average(scores, weights=number))  # noqa: E731
    found = {
        "most common class": [over([most_common(*fold) for fold in folds])],
        "nearest neighbour": [over([nearest(*fold) for fold in folds])],
    }
    trained = {}
    for name, network, steps in (
        ("MLP", Perceptron(classes), STEPS),
        ("MLP, ten times the steps", Perceptron(classes), 10 * STEPS),
        ("TA-GCN", Graphs(classes), STEPS),
    ):
        accuracy = learner(network, shape, steps)
        scores = np.array([[accuracy(*fold, seed) for fold in folds] for seed in range(SEEDS)])
        found[name], trained[name] = ([over(each) for each in scores[..., which]] for which in (0, 1))
        print(name, found[name], trained[name], flush=True)
    return found, trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that has gestures2d")
    parser.add_argument("wheel", nargs="?", type=Path, help="of spoken-to-signed 0.4.0; by default it is downloaded")
    given = parser.parse_args()
    train, test = read_histories(given.folder)
    report: dict[str, Any] = {
        "steps": STEPS,
        "batch": BATCH,
        "histories": {"train": len(train[1]), "test": len(test[1])},
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }
    scores, trained = ({"histories": each} for each in compare([(train, test)], 4))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(given.wheel or download(Path(folder))) as wheel:
        (places, letters), languages = read_letters(wheel)
    folds = []
    for language in np.unique(languages):
        out = languages == language
        folds.append(((places[~out], letters[~out]), (places[out], letters[out])))
    report["letters"] = {"clips": len(letters), "languages": sorted({*languages.tolist()})}
    scores["letters"], trained["letters"] = compare(folds, 26)
    report |= {"accuracy": scores, "accuracy_on_training": trained}
    (OUT / "real_actions.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        f"Accuracy, %, means and standard deviations of {SEEDS} seeds, {STEPS} steps of {BATCH}; in brackets",
        "what is told of the clips trained on. Written by benchmarks/real_actions.py, which says what is told from",
        "what, and how it is split.",
        "",
        f"| | 4 gestures, {report['histories']['test']} histories of a fingertip | 26 letters, {len(letters)} clips, "
        f"each of {len(folds)} languages left out once |",
        "|---|---|---|",
    ]
    for name in scores["histories"]:
        cells = [np.array(scores[part][name]) for part in ("histories", "letters")]
        said = [f"{x.mean():.1f}" + (f" ± {x.std(ddof=1):.1f}" if len(x) > 1 else "") for x in cells]
        if name in trained["letters"]:
            parts = zip(said, ("histories", "letters"), strict=True)
            said = [f"{cell} ({np.mean(trained[part][name]):.1f})" for cell, part in parts]
        lines.append(f"| {name} | {' | '.join(said)} |")
    (OUT / "real_actions.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
