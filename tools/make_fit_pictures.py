"""Run the code of docs/fit_your_own_data.md and draw what it fits: docs/pictures/fits.png.

python tools/make_fit_pictures.py
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jhand  # noqa: E402
from jhand.viz import shade  # noqa: E402

PAGE = ROOT / "docs" / "fit_your_own_data.md"
SIZE, SCALE = (300, 300), 1150.0  # pixels, pixels per metre
RED = "#b3261e"


def run_page() -> dict[str, dict]:
    """Names after each section's code, by heading; later sections see what earlier ones defined."""
    names: dict = {}
    after = {}
    heading = ""
    for part in re.split(r"^(#+ .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        if part.startswith("#"):
            heading = part.lstrip("# ").strip()
            continue
        for block in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
            exec(compile(block, PAGE.name, "exec"), names)
            after[heading] = dict(names)
    return after


def draw(ax: plt.Axes, vertices: np.ndarray, faces: np.ndarray, measured: np.ndarray, title: str) -> None:
    """A hand in camera axes with measured points (P, 3) over it."""
    centre = vertices[:, :2].mean(0)
    ax.imshow(shade(vertices, faces, size=SIZE, scale=SCALE, centre=tuple(centre)))
    uv = (measured[:, :2] - centre) * SCALE + (np.array(SIZE[::-1]) - 1) / 2
    ax.plot(*uv.T, "o", ms=3 if len(uv) < 50 else 1.2, color=RED)
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def main() -> None:
    page = run_page()
    hand = page["3D keypoints"]["hand"]
    faces = np.asarray(hand.faces)
    mesh = lambda section: np.asarray(jhand.forward(hand, page[section]["found"].params).vertices)  # noqa: E731
    fig, axes = plt.subplots(1, 5, figsize=(13, 3))

    names = page["3D keypoints"]
    shown = np.asarray(names["keypoints3d"])[np.asarray(names["weights"]) > 0]
    draw(axes[0], mesh("3D keypoints"), faces, shown, "3D keypoints, one missing")

    names, v = page["2D keypoints"], mesh("2D keypoints")
    uv, vertices = np.asarray(names["keypoints2d"]), np.asarray(jhand.project(names["camera"], v))
    axes[1].triplot(*vertices.T, faces, color="#1f4e79", lw=0.25)
    axes[1].plot(*uv.T, "o", ms=3, color=RED)
    axes[1].set(
        title="one picture, pixels", aspect="equal", xlim=(vertices[:, 0].min() - 30, vertices[:, 0].max() + 30)
    )
    axes[1].invert_yaxis()
    axes[1].title.set_fontsize(9)
    axes[1].tick_params(labelsize=6)

    names, v = page["Several calibrated cameras"], mesh("Several calibrated cameras")
    axes[2].triplot(v[:, 0], v[:, 2], faces, color="#1f4e79", lw=0.2)
    axes[2].plot(*np.asarray(names["points"].points)[:, [0, 2]].T, "o", ms=2, color=RED)
    for T in np.linalg.inv(np.asarray(names["cameras"].T_cam_world)):
        x, _, z = T[:3, 3]
        axes[2].plot(x, z, "ks", ms=4)
        axes[2].plot([x, x + 0.15 * T[0, 2]], [z, z + 0.15 * T[2, 2]], "k-", lw=0.8)
    axes[2].set(title="three cameras, from above", aspect="equal")
    axes[2].title.set_fontsize(9)
    axes[2].tick_params(labelsize=6)

    names = page["A depth picture or a scan"]
    cloud = np.asarray(names["cloud"])[np.asarray(names["trust"]) > 0]
    draw(axes[3], mesh("A depth picture or a scan"), faces, cloud, "depth picture")

    names = page["Optical markers"]
    turn = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])  # the back of the hand, fingers up
    flat, guess = np.asarray(hand.v_template) @ turn.T, np.asarray(names["guess"]) @ turn.T
    draw(axes[4], flat, faces, guess, "markers")
    fig.tight_layout()
    fig.savefig(ROOT / "docs" / "pictures" / "fits.png", dpi=110)


if __name__ == "__main__":
    main()
