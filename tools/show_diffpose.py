"""A good and a bad case of DiffPose: hard hands whose best hypothesis is nearest to the truth, and furthest from it.

    python -m tools.show_diffpose --folder runs       reads what was trained there; writes docs/pictures/diffpose_*.png

On the left the heat maps, ambiguous joints' in front, with the true joints (rings: ambiguous); then hypotheses as the
camera sees them and from the side, not aligned, the best after alignment in blue, the truth in black.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.diffpose import HARD, best, experiment, pa_mpjpe
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
    path: Path, said: str, maps: np.ndarray, example: dict[str, np.ndarray], many: np.ndarray, nearest: int
) -> None:
    """Maps (21, H, W), hypotheses (N, 21, 3) in metres about their mean."""
    figure = Figure((10, 3.6), layout="constrained")
    seen, front, side = figure.subplots(1, 3)
    ambiguous, at = example["ambiguous"], example["keypoints2d"]
    seen.imshow(maps[ambiguous].max(0) if ambiguous.any() else maps.max(0), cmap="magma")
    seen.plot(*at.T, ".", color="white", markersize=3)
    seen.plot(*at[ambiguous].T, "o", color="cyan", markersize=7, fillstyle="none")
    height, width = maps.shape[-2:]
    seen.set(
        title="maps of ambiguous joints", xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5)
    )
    truth = example["keypoints3d"] - example["keypoints3d"].mean(0)
    for axes, name, columns in (
        (front, "as the camera sees it", (0, 1)),
        (side, "from the side, depth to the right", (2, 1)),
    ):
        for number, points in enumerate(many):
            style = {"color": "tab:blue", "zorder": 3} if number == nearest else {"color": "0.75", "linewidth": 0.5}
            plot_skeleton(axes, MM * points[:, columns], **style)
        plot_skeleton(axes, MM * truth[:, columns], color="black", zorder=4, linewidth=1)
        axes.set(title=f"{name}, mm", aspect="equal")
        axes.invert_yaxis()
    figure.suptitle(said)
    figure.savefig(path, dpi=80)


def main(settings: Settings) -> None:
    hand = load_hand()
    run, (batch, *_), predict = trained(experiment, settings.folder, hand)
    outputs = predict(batch)
    errors, nearest = MM * np.asarray(best(outputs, batch, hand)), np.argmin(pa_mpjpe(outputs, batch), -1)
    hard = np.flatnonzero(batch["ambiguous"].sum(-1) >= HARD)
    order = hard[np.argsort(errors[hard])]
    for name, n in (("good", order[0]), ("bad", order[-1])):
        said = (
            f"{int(batch['ambiguous'][n].sum())} ambiguous joints; best of {run.config.hypotheses}: {errors[n]:.1f} mm"
        )
        example = {key: np.asarray(value[n]) for key, value in batch.items()}
        maps, many = example["heatmaps"].astype(np.float32), np.asarray(outputs.hypotheses[n])
        draw(PICTURES / f"diffpose_{name}.png", said, maps, example, many, int(nearest[n]))


if __name__ == "__main__":
    main(tyro.cli(Settings))
