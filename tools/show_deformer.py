"""A good and a bad case of Deformer: mostly hidden middle frames, nearest to the truth and furthest from it.

    python -m tools.show_deformer --folder runs       reads what was trained there; writes docs/pictures/deformer_*.png

Above, each frame as a detector finds it, hidden keypoints as rings, where they are in grey, and how much the frame
counts; below, the hand of the middle frame as the camera sees it and from the side, in blue, the truth in black.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.deformer import experiment, pa_mpjpe, truth
from jhand.hand import load_hand
from tools.skeletons import plot_skeleton
from tools.trained import trained

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MM = 1000


@dataclass(frozen=True)
class Settings:
    """Where what was trained is kept."""

    folder: Path = Path("runs")


def draw(
    path: Path, said: str, example: dict[str, np.ndarray], points: np.ndarray, true: np.ndarray, weights: np.ndarray
) -> None:
    """Points (21, 3), metres about the wrist; weights (T,)."""
    figure = Figure((12, 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    for number, axes in enumerate(above.subplots(1, len(weights))):
        hidden, seen = example["hidden"][number], example["keypoints2d"][number]
        plot_skeleton(axes, example["region2d"][number], color="0.7")
        axes.plot(*seen[~hidden].T, ".", color="tab:blue")
        axes.plot(*seen[hidden].T, "o", color="tab:red", fillstyle="none", markersize=4)
        axes.set(title=f"{hidden.mean():.0%} hidden, counts {weights[number]:.2f}", aspect="equal")
        axes.set(xlim=(-0.1, 1.1), ylim=(1.1, -0.1), xticks=[], yticks=[])
        axes.title.set_fontsize(8)
    for axes, name, columns in zip(
        below.subplots(1, 2),
        ("as the camera sees it", "from the side, depth to the right"),
        ((0, 1), (2, 1)),
        strict=True,
    ):
        plot_skeleton(axes, MM * points[:, columns], color="tab:blue", linewidth=2)
        plot_skeleton(axes, MM * true[:, columns], color="black", linewidth=1)
        axes.set(title=f"{name}, mm", aspect="equal")
        axes.invert_yaxis()
    figure.suptitle(said)
    figure.savefig(path, dpi=80)


def main(settings: Settings) -> None:
    hand = load_hand()
    run, batches, predict = trained(experiment, settings.folder, hand)
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches[:8])
    outputs = predict(batch)
    errors, true = MM * np.asarray(pa_mpjpe(outputs, batch, hand)), np.asarray(truth(batch))
    heavy = np.flatnonzero(batch["hidden"][:, run.config.frames // 2].mean(-1) > 0.5)
    order = heavy[np.argsort(errors[heavy])]
    for name, n in (("good", order[0]), ("bad", order[-1])):
        example = {key: np.asarray(value[n]) for key, value in batch.items()}
        said = f"{errors[n]:.1f} mm after alignment"
        points, weights = np.asarray(outputs.keypoints[n]), np.asarray(outputs.weights[n])
        draw(PICTURES / f"deformer_{name}.png", said, example, points, true[n], weights)


if __name__ == "__main__":
    main(tyro.cli(Settings))
