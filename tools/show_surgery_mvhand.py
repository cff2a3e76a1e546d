"""A good and a bad case of the surgery hands: the sequences of the ladder with the least and the largest error.

    python -m tools.show_surgery_mvhand           about a minute; writes docs/pictures/surgery_mvhand_{good,bad}.png

Above, one view with the true hands (dots) and those found (lines), at times over the sequence; below, the error of each
frame, with the number of views that see the hand.
"""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.surgery_mvhand import experiment, problems
from jhand import metrics
from jhand.geometry import project
from jhand.hand import bones, load_hand
from jhand.systems import surgery_mvhand as system

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MM = 1000


def draw(path: Path, said: str, found: np.ndarray, true: np.ndarray, views, error: np.ndarray) -> None:
    """Keypoints (T, 2, 21, 2) of one view, errors (T, 2) in millimetres, and how many views see each hand (T, 2)."""
    figure = Figure((12, 5), layout="constrained")
    axes = figure.subplot_mosaic([[f"{k}" for k in range(5)], ["error"] * 5], height_ratios=(1.4, 1))
    for k, t in enumerate(np.linspace(0, len(found) - 1, 5).astype(int)):
        for m, colour in enumerate(("tab:blue", "tab:orange")):
            axes[f"{k}"].plot(*true[t, m].T, ".", color="0.5", markersize=4)
            for a, b in bones("openpose21"):
                axes[f"{k}"].plot(*found[t, m, [a, b]].T, "-", color=colour, linewidth=1.5)
        axes[f"{k}"].set(title=f"frame {t}", aspect="equal", xticks=[], yticks=[])
        axes[f"{k}"].invert_yaxis()
    for m, colour in enumerate(("tab:blue", "tab:orange")):
        axes["error"].plot(error[:, m], color=colour, label=("right", "left")[m])
    seen = axes["error"].twinx()
    seen.plot(views, ":", linewidth=0.8)
    seen.set(ylabel="views that see it (dotted)", ylim=(0, None))
    axes["error"].set(xlabel="frame", ylabel="error, mm", ylim=(0, None), title=said)
    axes["error"].legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    hand, preset = load_hand(), experiment.presets["cpu"]
    inputs, truth = problems(0, replace(preset, number=6), PICTURES)
    outputs = jax.device_get(system.solve(inputs, preset.config, hand))
    error = MM * np.asarray(metrics.mpjpe(outputs.keypoints, truth.keypoints))  # (n, t, 2)
    camera = jax.tree.map(lambda x: x[:, :1, None], truth.cameras)
    found, true = (np.asarray(project(camera, points)) for points in (outputs.keypoints, truth.keypoints))
    views = (np.asarray(inputs.seen.confidence).mean(-1) > 0.4).sum(2)
    order = np.argsort(error.mean((1, 2)))
    for name, n in (("good", order[0]), ("bad", order[-1])):
        level = ("static", "slow", "fast")[int(truth.level[n])]
        said = f"{level} sequence, {error[n].mean():.1f} mm"
        draw(PICTURES / f"surgery_mvhand_{name}.png", said, found[n], true[n], views[n], error[n])


if __name__ == "__main__":
    main()
