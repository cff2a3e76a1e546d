"""Good and bad cases of Pose Anything: creatures and hands of categories never trained on.

    python -m tools.show_poseanything --folder runs  reads what was trained there; writes docs/pictures/poseanything.png

Each case is a pair: the annotated picture with its skeleton, and the other one with what was found; rings are true.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.poseanything import experiment, nme
from jhand.hand import load_hand
from tools.trained import trained

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


@dataclass(frozen=True)
class Settings:
    """Where what was trained is kept."""

    folder: Path = Path("runs")


def draw(axes, image: np.ndarray, points: np.ndarray, skeleton: np.ndarray, valid: np.ndarray) -> None:
    """A picture, and keypoints (K, 2) from 0 to 1 with what joins them."""
    at, colours = points * len(image) - 0.5, np.arange(len(points))
    axes.imshow(image)
    for a, b in zip(*np.nonzero(np.triu(skeleton)), strict=True):
        axes.plot(*at[[a, b]].T, "-", color="white", linewidth=0.8)
    axes.scatter(*at[valid].T, c=colours[valid], cmap="hsv", s=14, zorder=3)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, len(image) - 0.5), ylim=(len(image) - 0.5, -0.5))


def main(settings: Settings) -> None:
    hand = load_hand()
    _, batches, predict = trained(experiment, settings.folder, hand)
    answers = [predict(batch) for batch in batches]
    found = np.concatenate([answer.points for answer in answers])
    error = np.concatenate([nme(answer, batch, hand) for answer, batch in zip(answers, batches, strict=True)])
    every = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(error)
    hands = [n for n in order if every["category"][n] == 0]
    trees = [n for n in order if every["category"][n] != 0]
    figure = Figure((12, 4.4), layout="constrained")
    rows = figure.subplots(2, 6)
    for row, (said, places) in zip(rows, (("good", (0.1, 0.25, 0.1)), ("bad", (0.9, 0.97, 0.97))), strict=True):
        for pair, (place, of) in enumerate(zip(places, (trees, trees, hands), strict=True)):
            n = of[int(place * len(of))]
            valid, skeleton = every["keypoints_valid"][n], every["skeleton"][n]
            asked, answered = row[2 * pair : 2 * pair + 2]
            draw(asked, every["support_images"][n, 0], every["support_points"][n, 0], skeleton, valid)
            draw(answered, every["query_image"][n], found[n], skeleton, valid)
            truth = every["query_points"][n][valid] * len(every["query_image"][n]) - 0.5
            answered.scatter(*truth.T, c=np.arange(len(valid))[valid], cmap="hsv", s=40, marker="$o$")
            asked.set_title("annotated", fontsize=8)
            answered.set_title(f"{said}: {100 * error[n]:.0f} % of the box off", fontsize=8)
    figure.savefig(PICTURES / "poseanything.png", dpi=80)


if __name__ == "__main__":
    main(tyro.cli(Settings))
