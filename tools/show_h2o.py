"""Good and bad cases of H2O's network of a grid: two hands and a box, by people never trained on.

    python -m tools.show_h2o --folder runs  reads what was trained there; writes docs/pictures/h2o_{good,bad}.png

Above what is true, below what the surest cells say, of pictures that all three are in.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.h2o import METRICS, experiment
from jhand.data.object_actions import BOX_EDGES
from jhand.hand import load_hand
from jhand.nn import HAND_EDGES
from tools.trained import trained

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
OUTLINE = tuple(edge for edge in BOX_EDGES if 0 not in edge)


@dataclass(frozen=True)
class Settings:
    """Where what was trained is kept."""

    folder: Path = Path("runs")


def draw(axes, image: np.ndarray, points: np.ndarray, K: np.ndarray) -> None:
    """A picture, and points (3, 21, 3), metres, of the left hand, the right one and the box."""
    axes.imshow(image)
    colours = ("cyan", "magenta", "yellow")
    for one, edges, colour in zip(points, (HAND_EDGES, HAND_EDGES, OUTLINE), colours, strict=True):
        uv = one @ K.T
        uv = uv[:, :2] / uv[:, 2:]
        for a, b in edges:
            axes.plot(*uv[[a, b]].T, "-", color=colour, linewidth=1)
        axes.plot(*uv[0], "o", color=colour, markersize=4)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, len(image) - 0.5), ylim=(len(image) - 0.5, -0.5))


def main(settings: Settings) -> None:
    hand = load_hand()
    _, batches, predict = trained(experiment, settings.folder, hand)
    answers = [predict(batch) for batch in batches]
    found, sure = (np.concatenate([getattr(a, name) for a in answers]) for name in ("points", "confidence"))
    error = np.concatenate([METRICS["everything"](a, b, hand) for a, b in zip(answers, batches, strict=True)])
    every = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    # those with all three: of fewer there is less to see
    whole = np.flatnonzero(every["valid"].all(-1))
    order = whole[np.argsort(error[whole])]
    for said, places in (("good", np.linspace(0.02, 0.3, 6)), ("bad", np.linspace(0.8, 0.99, 6))):
        figure = Figure((12, 4.4), layout="constrained")
        for place, column in zip(places, figure.subplots(2, 6).T, strict=True):
            n = order[int(place * len(order))]
            for axes, points in zip(column, (every["points"][n], found[n]), strict=True):
                draw(axes, every["image"][n], points, every["K"][n])
            column[1].set_title(f"{1000 * error[n]:.0f} mm, sure {', '.join(f'{x:.2f}' for x in sure[n])}", fontsize=8)
        figure.savefig(PICTURES / f"h2o_{said}.png", dpi=80)


if __name__ == "__main__":
    main(tyro.cli(Settings))
