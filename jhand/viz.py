"""Pictures of fitted hands: skeletons and meshes drawn on pictures, figures, and a small painter in plain numpy.

The painter is for reports and documentation; it is not differentiable. `jhand.render` is.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jhand.geometry.camera import Camera, project
from jhand.geometry.mesh import vertex_normals
from jhand.hand.model import HandModel
from jhand.hand.skeleton import bones
from jhand.render import Light, make_mesh, make_scene, render
from jhand.results import Result, upright, vertices_of

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_SKIN = np.array([0.86, 0.66, 0.55])
_BACKGROUND = np.array([1.0, 1.0, 1.0])
_LIGHT = np.array([-0.35, -0.55, -0.76])  # from the upper left, behind the camera
_TURN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # the view from the side
_MEASURED, _FITTED, _INK = "#b3261e", "#1f4e79", "#333333"


def shade(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    size: tuple[int, int],
    scale: float,
    centre: tuple[float, float] = (0.0, 0.0),
    colour: np.ndarray = _SKIN,
) -> np.ndarray:
    """Paint a mesh in orthographic projection with smooth shading.

    Args:
        vertices: (V, 3) metres in camera axes: x right, y down, z forward.
        faces: (F, 3) triangles, counter-clockwise seen from outside.
        size: height and width of the picture, pixels.
        scale: pixels per metre.
        centre: (x, y) metres that appears in the middle of the picture.
        colour: (3,) of the surface, 0 to 1.

    Returns:
        (H, W, 3) float, 0 to 1; the back of the surface is darker.
    """
    picture, cover = _shaded(vertices, faces, size, scale, centre, colour)
    return picture + (1 - cover[..., None]) * _BACKGROUND


def _shaded(
    vertices: np.ndarray,
    faces: np.ndarray,
    size: tuple[int, int],
    scale: float,
    centre: tuple[float, float],
    colour: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """What `shade` paints on black (H, W, 3), and how much of each pixel it covers (H, W)."""
    supersample = 2
    height, width = (supersample * s for s in size)
    v, faces = np.asarray(vertices, float), np.asarray(faces)
    uv = (v[:, :2] - centre) * scale * supersample + np.array([width - 1, height - 1]) / 2
    normals = np.asarray(_normals(v, faces))

    # every pixel of every triangle's box, all triangles at once
    corners = uv[faces]
    lo = np.maximum(np.ceil(corners.min(1)).astype(int), 0)
    hi = np.minimum(np.floor(corners.max(1)).astype(int), [width - 1, height - 1])
    box = np.maximum(hi - lo + 1, 0)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count = np.where(np.abs(area) > 1e-9, box.prod(1), 0)
    face = np.repeat(np.arange(len(faces)), count)
    within = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    pixel = lo[face] + np.stack([within % box[face, 0], within // box[face, 0]], -1)

    a, b, c = corners[face].transpose(1, 0, 2)
    wb, wc = _cross(pixel - a, c - a) / area[face], _cross(b - a, pixel - a) / area[face]
    weights = np.stack([1 - wb - wc, wb, wc], -1)
    inside = (weights >= 0).all(-1)
    face, pixel, weights = face[inside], pixel[inside], weights[inside]
    z = np.sum(weights * v[faces[face], 2], -1)

    # of several values written to one pixel the last stays: the nearest
    address = pixel[:, 1] * width + pixel[:, 0]
    order = np.argsort(-z, kind="stable")
    nearest = np.full(height * width, -1)
    nearest[address[order]] = order
    shown = nearest[nearest >= 0]
    normal = np.sum(weights[shown, :, None] * normals[faces[face[shown]]], 1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    lit = 0.35 + 0.65 * np.clip(normal @ _LIGHT, 0, 1)
    lit = np.where(normal[:, 2] > 0.05, 0.25, lit)  # from behind: the open wrist, or a face turned inside out
    picture = np.zeros((height * width, 3))
    picture[nearest >= 0] = lit[:, None] * colour
    reduce = lambda a: a.reshape(size[0], supersample, size[1], supersample, -1).mean((1, 3))  # noqa: E731
    return reduce(picture), reduce(nearest >= 0)[..., 0]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


FINGER_COLOURS = ("#d1495b", "#edae49", "#3a9a5b", "#2f7ed8", "#8e5bb5")
"""Thumb, index, middle, ring, little."""


def draw_skeleton(
    image: np.ndarray, keypoints: np.ndarray, visible: np.ndarray | None = None, *, width: float = 2.0
) -> np.ndarray:
    """A picture with a hand's bones and keypoints over it.

    Args:
        image: (H, W, 3) uint8.
        keypoints: (21, 2) pixels, openpose21 order; those that are not finite are left out.
        visible: (21,) which are seen; bones to others are drawn thin. By default all.
        width: of bones, pixels.

    Returns:
        (H, W, 3) uint8, a new picture.

    Raises:
        ValueError: a picture or keypoints of another shape.
    """
    from PIL import Image, ImageDraw

    picture, uv = _uint8(image), np.asarray(keypoints, float)
    if uv.shape != (21, 2):
        raise ValueError(f"keypoints: expected shape (21, 2), got {uv.shape}")
    seen = np.ones(21, bool) if visible is None else np.asarray(visible, bool)
    drawable: np.ndarray = np.all(np.isfinite(uv), axis=1)
    if not drawable.any():
        return picture.copy()
    # only what lies around the hand is drawn anew
    reach, limit = 2 * width + 2, np.array(picture.shape[1::-1])
    left, top = np.clip(np.floor(uv[drawable].min(0) - reach), 0, limit - 1).astype(int)
    right, bottom = np.clip(np.ceil(uv[drawable].max(0) + reach), 1, limit).astype(int)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    fine = 4  # Pillow draws without antialiasing
    part = picture[top:bottom, left:right]
    canvas = Image.fromarray(part).resize((part.shape[1] * fine, part.shape[0] * fine), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    at = (uv - [left, top] + 0.5) * fine
    for start, end in bones("openpose21"):
        if drawable[start] and drawable[end]:
            thick = width if seen[start] and seen[end] else width / 3
            colour = FINGER_COLOURS[(end - 1) // 4]
            draw.line([*at[start], *at[end]], fill=colour, width=max(1, round(fine * thick)))
    for k in np.flatnonzero(drawable & seen):
        r = fine * 0.9 * width
        colour = FINGER_COLOURS[max(k - 1, 0) // 4] if k else _INK
        draw.ellipse([*(at[k] - r), *(at[k] + r)], fill=colour, outline="white", width=fine // 2)
    drawn = picture.copy()
    drawn[top:bottom, left:right] = np.asarray(canvas.resize(part.shape[1::-1], Image.Resampling.BOX))
    return drawn


def draw_mesh(
    image: np.ndarray, vertices: np.ndarray, faces: np.ndarray, camera: Camera, *, opacity: float = 0.85
) -> np.ndarray:
    """A picture with a mesh over it, as its camera sees it.

    Args:
        image: (H, W, 3) uint8.
        vertices: (V, 3) metres, world frame.
        faces: (F, 3).
        camera: of the picture.
        opacity: of the mesh, 0 to 1.

    Returns:
        (H, W, 3) uint8, a new picture.

    Raises:
        ValueError: a picture of another shape.
    """
    picture = _uint8(image)
    size = (picture.shape[0], picture.shape[1])
    away = np.asarray(camera.T_cam_world[:3, :3]).T @ _LIGHT  # the light stays with the camera
    light = Light(jnp.asarray(away / np.linalg.norm(away), float), jnp.full(3, 0.65))
    seen = _render(make_scene(make_mesh(vertices, faces, _SKIN**2.2), [light], ambient=0.35), camera, size)
    over = opacity * np.asarray(seen.alpha)[..., None]
    painted = 255 * np.clip(np.asarray(seen.rgb), 0, 1) ** (1 / 2.2)
    return np.round((1 - over) * picture + over * painted).astype(np.uint8)


_render = jax.jit(render, static_argnums=2)
_project, _normals = jax.jit(project), jax.jit(vertex_normals)
_PAINTED = 320  # pixels: a hand larger than this is painted at this size and enlarged


def draw_fit(
    image: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    camera: Camera,
    keypoints: np.ndarray | None = None,
    *,
    opacity: float = 0.6,
) -> np.ndarray:
    """A picture with a fitted hand over it, and over that what it was fitted to: fast enough for videos.

    `draw_mesh` is exact and slow; this paints the hand as if it were far away.

    Args:
        image: (H, W, 3) uint8.
        vertices: (V, 3) metres, world frame.
        faces: (F, 3).
        camera: of the picture.
        keypoints: (21, 2) pixels, openpose21 order: a skeleton to draw.
        opacity: of the mesh, 0 to 1.

    Returns:
        (H, W, 3) uint8, a new picture.

    Raises:
        ValueError: a picture of another shape.
    """
    from PIL import Image

    picture = _uint8(image)
    height, width = picture.shape[:2]
    uv, T = np.asarray(_project(camera, vertices), float), np.asarray(camera.T_cam_world, float)
    z = np.asarray(vertices, float) @ T[2, :3] + T[2, 3]
    drawable = np.isfinite(uv).all() and (z > 0).all()
    low = np.floor(np.maximum(uv.min(0) - 1, 0)).astype(int) if drawable else np.zeros(2, int)
    high = np.ceil(np.minimum(uv.max(0) + 2, [width, height])).astype(int) if drawable else low
    box = high - low
    if (box > 1).all():
        shrink = min(1.0, _PAINTED / box.max())
        small_width, small_height = np.maximum(np.ceil(shrink * box), 1).astype(int).tolist()
        # pixels for metres, the depth in the same unit
        flat = np.column_stack([uv, (z - z.mean()) * float(camera.K[0, 0]) / z.mean()])
        middle = (float(low[0] + (box[0] - 1) / 2), float(low[1] + (box[1] - 1) / 2))
        painted, cover = _shaded(flat, faces, (small_height, small_width), shrink, middle, _SKIN)
        layers = np.round(255 * np.concatenate([painted, cover[..., None]], -1)).astype(np.uint8)
        layers = np.asarray(Image.fromarray(layers, "RGBA").resize(tuple(box.tolist()), Image.Resampling.BILINEAR))
        here = np.s_[low[1] : high[1], low[0] : high[0]]
        mixed = picture[here] * (1 - opacity * layers[..., 3:] / 255.0) + opacity * layers[..., :3]
        picture = picture.copy()
        picture[here] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    return picture if keypoints is None else draw_skeleton(picture, keypoints, width=max(1.5, width / 500))


def _uint8(image: np.ndarray) -> np.ndarray:
    picture = np.asarray(image)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"image: expected (H, W, 3) of uint8, got {picture.shape} of {picture.dtype}")
    return picture


def _view(result: Result) -> np.ndarray:
    """Rotation (3, 3) from the frame of a result to that of a camera in front of it (y down), up being up."""
    return np.diag([1.0, -1.0, -1.0]) @ upright(result.up)


def _frames(result: Result, num: int) -> list[int]:
    """Up to `num` frames that show a hand, evenly spread."""
    shown = np.flatnonzero(result.seen.sum(1) >= 3)
    return shown[np.unique(np.linspace(0, len(shown) - 1, num).round().astype(int))].tolist()


def _draw(
    axes: "matplotlib.axes.Axes", result: Result, t: int, vertices: np.ndarray, faces: np.ndarray, turn: np.ndarray
) -> None:
    """One frame: the mesh, and the measurements as dots, each joined to the point that was fitted to it."""
    from matplotlib.collections import LineCollection

    R = turn @ _view(result)
    about = vertices.mean(0)
    v, measured, fitted = ((x - about) @ R.T for x in (vertices, result.measured[t], result.landmarks[t]))
    seen = result.seen[t]
    reach = 1.12 * np.abs(v[:, :2]).max()
    size = 170
    picture = shade(v, faces, size=(size, size), scale=size / (2 * reach))
    axes.imshow(picture, extent=(-reach, reach, reach, -reach), interpolation="bilinear")
    skeleton = [pair for pair in bones("openpose21") if seen[list(pair)].all()] if len(seen) == 21 else []
    axes.add_collection(
        LineCollection([measured[list(pair), :2] for pair in skeleton], colors=_MEASURED, lw=0.8, alpha=0.55)
    )
    misses = np.stack([measured, fitted], 1)[seen, :, :2]
    axes.add_collection(LineCollection(list(misses), colors=_INK, lw=0.8))
    axes.plot(*measured[seen, :2].T, "o", ms=2.6, mfc="white", mec=_MEASURED, mew=0.9)
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach))
    axes.set_axis_off()


def plot_fit(hand: HandModel, result: Result, path: str | os.PathLike, *, num_frames: int = 5) -> None:
    """Write a picture of a fit: the mesh under the measurements in a few frames, from in front and from the side.

    Args:
        hand: the model.
        result: a fit of it.
        path: a file of any ending that matplotlib knows, such as `.png`.
        num_frames: at most so many frames.
    """
    frames, faces = _frames(result, num_frames), np.asarray(hand.faces)
    vertices = vertices_of(hand, result, frames)
    figure = _figure((2.1 * len(frames), 4.7))
    rows = _grid(figure, 2, len(frames), top=0.87)
    for column, t in enumerate(frames):
        rows[0, column].set_title(f"{t / result.fps:.2f} s", fontsize=8, color=_INK)
        _draw(rows[0, column], result, t, vertices[column], faces, np.eye(3))
        _draw(rows[1, column], result, t, vertices[column], faces, _TURN)
    scores = result.scores
    figure.suptitle(
        f"{result.name}, {result.side} hand: {scores['mean']:.2f} {result.unit} mean error, p95 {scores['p95']:.2f}",
        fontsize=10,
        color=_INK,
    )
    figure.savefig(path, dpi=110)


def plot_errors(result: Result, path: str | os.PathLike) -> None:
    """Write a figure of the errors of a fit: over time, and of every landmark in every frame."""
    names = [name.replace("_", " ") for name in result.landmark_names]
    counted = np.where(result.seen, result.errors, np.nan)
    seconds = np.arange(result.num_frames) / result.fps
    some = result.seen.any(1)
    mean = np.full(result.num_frames, np.nan)
    mean[some], worst = np.nanmean(counted[some], 1), mean.copy()
    worst[some] = np.nanmax(counted[some], 1)

    figure = _figure((9.0, 5.6))
    figure.set_layout_engine("constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.1))
    above.plot(seconds, worst, color=_MEASURED, lw=0.9, label="worst landmark")
    above.plot(seconds, mean, color=_FITTED, lw=1.4, label="mean")
    above.set_ylim(0)
    above.set_ylabel(f"error, {result.unit}")
    above.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    above.spines[["top", "right"]].set_visible(False)
    half = 0.5 / result.fps
    image = below.imshow(
        counted.T,
        aspect="auto",
        interpolation="nearest",
        cmap="magma_r",
        vmin=0,
        extent=(seconds[0] - half, seconds[-1] + half, len(names) - 0.5, -0.5),
    )
    below.set_yticks(range(len(names)), names, fontsize=7)
    below.set_xlabel("seconds")
    figure.colorbar(image, ax=[above, below], label=result.unit, fraction=0.03, pad=0.02)
    figure.suptitle(result.name, fontsize=10, color=_INK)
    figure.savefig(path, dpi=110)


def plot_overview(hands: dict[str, HandModel], results: Sequence[Result], path: str | os.PathLike) -> None:
    """Write one picture of many fits: the middle frame of each, with its mean error.

    Args:
        hands: the model of each side that occurs.
        results: fits of them.
        path: of the picture.
    """
    columns = min(8, len(results))
    rows = -(-len(results) // columns)
    figure = _figure((1.7 * columns, 2.0 * rows))
    grid = _grid(figure, rows, columns, top=1 - 0.2 / rows, gap=0.22).ravel()
    for axes in grid[len(results) :]:
        axes.set_axis_off()
    for axes, result in zip(grid, results, strict=False):
        hand = hands[result.side]
        shown = _frames(result, result.num_frames)
        t = shown[len(shown) // 2]
        _draw(axes, result, t, vertices_of(hand, result, [t])[0], np.asarray(hand.faces), np.eye(3))
        axes.set_title(f"{result.name}\n{result.scores['mean']:.2f} {result.unit}", fontsize=7, color=_INK)
    figure.savefig(path, dpi=110)


def _figure(size: tuple[float, float]) -> "matplotlib.figure.Figure":
    """A figure that opens no window whatever the user's backend."""
    from matplotlib.figure import Figure

    return Figure(figsize=size)


def _grid(figure: "matplotlib.figure.Figure", rows: int, columns: int, *, top: float, gap: float = 0.0) -> np.ndarray:
    """Axes (rows, columns) side by side below `top`."""
    spacing = {"left": 0.0, "right": 1.0, "bottom": 0.0, "top": top, "wspace": 0.0, "hspace": gap}
    return figure.subplots(rows, columns, squeeze=False, gridspec_kw=spacing)
