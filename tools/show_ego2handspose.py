"""A good and a bad case of Ego2HandsPose: the videos with the least and the largest error of tracking.

    python -m tools.show_ego2handspose           about a minute; writes docs/pictures/ego2handspose_{good,bad}.png

Above, what the camera sees: true hands (dots) and those found (lines), at times over the video; below, the depth of
each wrist as it is (dotted), fitted frame by frame (thin) and tracked (thick).
"""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.ego2handspose import error, experiment, paper_camera, problems
from jhand.geometry import project
from jhand.hand import bones, load_hand
from jhand.systems import ego2handspose as system

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
COLOURS = ("tab:blue", "tab:orange")


def draw(path: Path, said: str, true: np.ndarray, tracked: np.ndarray, staged: np.ndarray) -> None:
    """Keypoints (T, 2, 21, 3) of one video, metres."""
    figure = Figure((12, 5), layout="constrained")
    axes = figure.subplot_mosaic([[f"{k}" for k in range(5)], ["depth"] * 5], height_ratios=(1.4, 1))
    seen, found = (np.asarray(project(paper_camera(), x)) for x in (true, tracked))
    for k, t in enumerate(np.linspace(0, len(true) - 1, 5).astype(int)):
        for m, colour in enumerate(COLOURS):
            axes[f"{k}"].plot(*seen[t, m].T, ".", color="0.5", markersize=4)
            for a, b in bones("openpose21"):
                axes[f"{k}"].plot(*found[t, m, [a, b]].T, "-", color=colour, linewidth=1.5)
        axes[f"{k}"].set(title=f"frame {t}", aspect="equal", xlim=(0, 400), ylim=(400, 0), xticks=[], yticks=[])
    for m, colour in enumerate(COLOURS):
        for points, style, width in ((true, ":", 1.5), (staged, "-", 0.6), (tracked, "-", 2.0)):
            axes["depth"].plot(100 * points[:, m, 0, 2], style, color=colour, linewidth=width)
    axes["depth"].set(xlabel="frame", ylabel="depth of the wrist, cm", title=said)
    figure.savefig(path, dpi=80)


def main() -> None:
    hand, preset = load_hand(), experiment.presets["cpu"]
    inputs, truth = problems(0, replace(preset, number=8), PICTURES)
    outputs = {
        method: jax.device_get(system.solve(inputs, replace(preset.config, method=method), hand))
        for method in ("tracked", "staged")
    }
    missed = 100 * np.asarray(error(outputs["tracked"], truth, hand))
    for name, n in (("good", np.argmin(missed)), ("bad", np.argmax(missed))):
        said = f"tracked, error {missed[n]:.1f} cm: true (dotted), frame by frame (thin), tracked (thick)"
        each = (np.asarray(outputs[method].keypoints[n]) for method in ("tracked", "staged"))
        draw(PICTURES / f"ego2handspose_{name}.png", said, np.asarray(truth.keypoints[n]), *each)


if __name__ == "__main__":
    main()
