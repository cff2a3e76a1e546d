"""A good and a bad case of HOGraspNet's fits: where HALO's surface is nearest to the true one, and where farthest.

    python -m tools.show_hograspnet --folder runs      writes docs/pictures/hograspnet_{good,bad}.png

The folder keeps the trained HALO, by default that of the experiment's runs; where there is none, it is trained first,
which takes a few minutes. Printed are its agreement with hands that it has not seen, the seconds of a frame, and how
far its surface is off where keypoints are right.

The four views of the last frame: a colour picture with the true keypoints (white) and what was detected (yellow); then
the hand of either track over the measured depth, coloured by how far each point is from the true surface.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.hograspnet import (
    PictureScene,
    Scene,
    experiment,
    finer,
    mpjpe,
    occupancy_iou,
    pictures,
    problems,
    surface,
)
from jhand.geometry import Camera, closest_on_mesh, project
from jhand.hand import HandModel, bones, load_hand
from jhand.render import make_mesh, make_scene, render
from jhand.systems import hograspnet as system

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
RUNS = Path("out/runs/hograspnet/parts")
PIXELS = 192
FAR = 0.010
"""Metres at which the colours end."""


def overlay(vertices: np.ndarray, faces: np.ndarray, away: np.ndarray, camera: Camera, depth: np.ndarray) -> np.ndarray:
    """A surface coloured by distances (V,) from the true one, over grey depth (H, W): (PIXELS, PIXELS, 3)."""
    colours = jnp.asarray(colormaps["turbo"](away / FAR)[:, :3], jnp.float32)
    mesh = make_mesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), colours)
    picture = render(make_scene(mesh, ambient=0.75), camera, (PIXELS, PIXELS))
    seen = depth > 0
    grey = np.where(seen, 0.35 + 0.5 * (depth.max() - depth) / max(np.ptp(depth[seen]), 1e-6), 1.0)
    times = PIXELS // len(depth)
    grey = np.repeat(np.repeat(grey, times, 0), times, 1)[..., None] * np.ones(3)
    alpha = 0.85 * np.asarray(picture.alpha)[..., None]
    return np.clip(grey * (1 - alpha) + alpha * np.asarray(picture.rgb), 0, 1)


def draw(path: Path, images: np.ndarray, points: dict, surfaces: dict, cameras: Camera, depth: np.ndarray) -> None:
    """One frame in V views: images (V, P, P, 3); points (V, 21, 2) by what they are, in pixels of these; the surfaces
    of the tracks as (vertices, faces, distances), by what is said of them.
    """
    views = len(images)
    figure = Figure((3 * views, 3 * (1 + len(surfaces)) + 0.4), layout="constrained")
    axes = figure.subplots(1 + len(surfaces), views)
    for v in range(views):
        axes[0, v].imshow(images[v])
        for a, b in bones("openpose21"):
            axes[0, v].plot(*points["true"][v, [a, b]].T, "-", color="white", linewidth=1)
        axes[0, v].plot(*points["detected"][v].T, ".", color="yellow", markersize=4)
        axes[0, v].set(xlim=(-0.5, PIXELS - 0.5), ylim=(PIXELS - 0.5, -0.5))
        camera = jax.tree.map(lambda x, v=v: x[v], cameras)
        for row, (said, (vertices, faces, away)) in enumerate(surfaces.items(), 1):
            axes[row, v].imshow(overlay(vertices, faces, away, camera, depth[v]))
            if v == 0:
                axes[row, 0].set_title(said, loc="left")
    axes[0, 0].set_title("true (lines) and detected (dots)", loc="left")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    scale = ScalarMappable(Normalize(0, 1000 * FAR), "turbo")
    figure.colorbar(scale, ax=axes[1:].ravel().tolist(), label="mm from the true surface", shrink=0.6)
    figure.savefig(path, dpi=60)


def from_truth(vertices: np.ndarray, true: np.ndarray, hand: HandModel) -> np.ndarray:
    """Metres of points from the true surface."""
    foot, _, _ = closest_on_mesh(jnp.asarray(vertices, jnp.float32), true, hand.faces)
    return np.linalg.norm(np.asarray(foot) - vertices, axis=-1)


@dataclass(frozen=True)
class Settings:
    """Where the trained HALO is kept."""

    folder: Path = RUNS


def main(settings: Settings) -> None:
    hand, preset = load_hand(), experiment.presets["cpu"]
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    inputs, truth = problems(0, preset, folder)
    halo = jax.tree.map(lambda x: x[0], inputs.halo)
    scene: Scene = preset.scene
    print(f"HALO: intersection over union {occupancy_iou(halo, scene, preset.config, hand):.3f}")
    inputs, truth = jax.tree.map(lambda x: x[: preset.number // 2], (inputs, truth))
    found, frames = {}, preset.number // 2 * scene.frames
    for track in ("mano", "halo"):
        config = replace(preset.config, track=track)
        jax.block_until_ready(system.solve(inputs, config, hand))
        start = time.process_time()
        found[track] = jax.block_until_ready(system.solve(inputs, config, hand))
        print(f"{track}: {(time.process_time() - start) / frames:.2f} s of a core a frame")
    start = time.process_time()
    best = replace(found["halo"], surface=system.halo_surfaces(inputs.halo, truth.keypoints, preset.config))
    print(f"of which its mesh: {(time.process_time() - start) / frames:.2f} s")
    print(f"surface of HALO, of the true keypoints: {1000 * float(jnp.mean(surface(best, truth, hand))):.1f} mm")
    apart = {track: 1000 * np.asarray(surface(x, truth, hand)) for track, x in found.items()}
    joints = {track: 1000 * np.asarray(mpjpe(x, truth, hand)) for track, x in found.items()}
    fields = {name: getattr(scene, name) for name in Scene.__dataclass_fields__}
    for name, n in (("good", int(np.argmin(apart["halo"]))), ("bad", int(np.argmax(apart["halo"])))):
        one = jax.tree.map(lambda x, n=n: x[n : n + 1], (inputs, truth))
        images = pictures(PictureScene(**fields, pixels=PIXELS), hand, jax.random.key(n), *one)[0, -1]
        times = PIXELS / scene.size
        cameras = finer(jax.tree.map(lambda x, n=n: x[n], truth.cameras), times)
        points = {
            "true": np.asarray(project(cameras, truth.keypoints[n, -1])),
            "detected": (np.asarray(inputs.keypoints2d[n, -1]) + 0.5) * times - 0.5,
        }
        meshes = {
            "mano": (np.asarray(found["mano"].surface[n, -1]), np.asarray(hand.faces)),
            "halo": system.halo_mesh(halo, found["halo"].keypoints[n, -1], preset.config),
        }
        surfaces = {}
        for track, (vertices, faces) in meshes.items():
            said = f"{track.upper()}: surface {apart[track][n]:.1f} mm, joints {joints[track][n]:.1f} mm"
            surfaces[said] = (vertices, faces, from_truth(vertices, truth.vertices[n, -1], hand))
        draw(
            PICTURES / f"hograspnet_{name}.png",
            np.asarray(images),
            points,
            surfaces,
            cameras,
            np.asarray(inputs.depth[n, -1]),
        )


if __name__ == "__main__":
    main(tyro.cli(Settings))
