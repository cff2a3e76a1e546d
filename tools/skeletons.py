"""Hands as lines in a plot."""

import numpy as np
from matplotlib.axes import Axes

from jhand.hand import bones


def plot_skeleton(axes: Axes, points: np.ndarray, **style) -> None:
    """The bones of 21 keypoints (21, 2), all in one style of matplotlib's."""
    for a, b in bones("openpose21"):
        axes.plot(*points[[a, b]].T, "-", **style)
