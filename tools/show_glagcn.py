"""A good and a bad case of GLA-GCN: held-out sequences whose joints are nearest to the truth, and furthest from it.

    python -m tools.show_glagcn --folder runs       reads what was trained there; writes docs/pictures/glagcn_*.png

On the left keypoints in the picture over the whole sequence, the last frame dark; then the frame in its middle as the
camera sees it and from the side, lifted in blue, true in black; then the error over time, and the depth of a fingertip.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.glagcn import FPS, experiment
from jhand.hand import load_hand
from tools.skeletons import plot_skeleton
from tools.trained import trained

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MM = 1000
TIP = 8
"""Of the index finger."""


@dataclass(frozen=True)
class Settings:
    """Where what was trained is kept."""

    folder: Path = Path("runs")


def draw(path: Path, said: str, seen: np.ndarray, size: np.ndarray, found: np.ndarray, truth: np.ndarray) -> None:
    """Pixels (T, 21, 2), and joints (T, 21, 3) in metres from the wrist."""
    figure = Figure((13, 3.6), layout="constrained")
    picture, front, side, over_time = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.3))
    middle = len(seen) // 2
    for t in (0, middle, len(seen) - 1):
        plot_skeleton(picture, seen[t], color=str(0.8 - 0.7 * t / (len(seen) - 1)), linewidth=1)
    picture.set(title="what is seen: begin to end", xlim=(0, size[0]), ylim=(size[1], 0), aspect="equal")
    for axes, name, columns in (
        (front, "as the camera sees it", (0, 1)),
        (side, "from the side, depth to the right", (2, 1)),
    ):
        plot_skeleton(axes, MM * found[middle][:, columns], color="tab:blue")
        plot_skeleton(axes, MM * truth[middle][:, columns], color="black", linewidth=1)
        axes.set(title=f"{name}, mm", aspect="equal")
        axes.invert_yaxis()
    seconds = np.arange(len(seen)) / FPS
    over_time.plot(seconds, MM * np.linalg.norm(found - truth, axis=-1).mean(-1), color="tab:red", label="mean error")
    over_time.plot(seconds, MM * found[:, TIP, 2], color="tab:blue", label="depth of the index fingertip")
    over_time.plot(seconds, MM * truth[:, TIP, 2], color="black", label="its true depth")
    over_time.set(title="over time, mm and s")
    over_time.legend(fontsize=7)
    figure.suptitle(said)
    figure.savefig(path, dpi=80)


def main(settings: Settings) -> None:
    hand = load_hand()
    _, (batch, *_), predict = trained(experiment, settings.folder, hand)
    found = np.asarray(predict(batch).keypoints)
    errors = MM * np.linalg.norm(found - batch["keypoints3d"], axis=-1).mean((1, 2))
    for name, n in (("good", np.argmin(errors)), ("bad", np.argmax(errors))):
        said = f"{name}: {errors[n]:.1f} mm over {found.shape[1]} frames"
        seen, size, truth = (batch[key][n] for key in ("keypoints2d", "size", "keypoints3d"))
        draw(PICTURES / f"glagcn_{name}.png", said, seen, size, found[n], truth)


if __name__ == "__main__":
    main(tyro.cli(Settings))
