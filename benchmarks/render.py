"""The renderer: how fast, how right. benchmarks/results/render.json and .md.

    python benchmarks/render.py            about 15 minutes on two cores
    python benchmarks/render.py --quick    a minute; prints, and writes nothing

Speed: pictures a second of batches of 32 random hands, each picture with vertices of its own, compiled; beside a plain
z-buffer over all pixels and faces in the same run. Accuracy: `NUM_POSES` random hands of each level beside a float64
ray caster that shares no code with jhand. Exits non-zero where a goal is missed by more than `SLACK`.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timing  # before jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np

from jhand.geometry import make_camera
from jhand.hand import HandModel, HandParams, forward, load_hand, sample_poses
from jhand.render import Light, make_mesh, make_scene, render, soft_mask

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.render.reference import cast_rays

FOLDER = Path(__file__).parent / "results"
BATCH = 32
GOALS = {"depth and ids, 64 x 64": 500, "finished picture, 64 x 64": 150}
SLACK = 0.7
NUM_POSES = 200
GOAL_IOU, GOAL_DEPTH = 0.995, 1e-4


def camera_of(size: int):
    return make_camera(focal=1.6 * size, principal=np.full(2, (size - 1) / 2))


def random_vertices(hand: HandModel, num: int, seed: int) -> jax.Array:
    """Hands in any pose that fill most of the picture, (num, V, 3)."""
    keys = jax.random.split(jax.random.key(seed), 4)
    params = HandParams(
        1.5 * jax.random.normal(keys[0], (num, 3)),
        sample_poses(keys[1], hand, (num,)),
        jnp.clip(jax.random.normal(keys[2], (num, hand.num_betas)), -2, 2),
        jnp.zeros((num, 3)),
    )
    v = forward(hand, params).vertices
    return v - v.mean(1, keepdims=True) + jnp.array([0.0, 0.0, 0.4])


def lit_scene(hand: HandModel, vertices: jax.Array):
    lights = (
        Light(jnp.array([-0.48, -0.64, -0.6]), jnp.full(3, 0.6), shadows=True),
        Light(jnp.array([0.8, 0.0, -0.6]), jnp.full(3, 0.3)),
    )
    return make_scene(make_mesh(vertices, hand.faces, np.array([0.7, 0.5, 0.4])), lights, gloss=0.2)


def brute_force(hand: HandModel, size: int, vertices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Depth and triangle of each pixel, every triangle tried: the peer."""
    camera = camera_of(size)
    K = camera.K
    uv = vertices[:, :2] / vertices[:, 2:] * jnp.array([K[0, 0], K[1, 1]]) + K[:2, 2]
    a, b, c = (uv[hand.faces[:, k]] for k in range(3))
    z = vertices[hand.faces, 2]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    pixels = jnp.stack(jnp.meshgrid(jnp.arange(size, dtype=float), jnp.arange(size, dtype=float)), -1).reshape(-1, 2)

    def one(p: jax.Array) -> tuple[jax.Array, jax.Array]:
        cross = lambda s, t: s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]  # noqa: E731
        w = jnp.stack([cross(c - b, p - b), cross(a - c, p - c), cross(b - a, p - a)], -1) / area[:, None]
        depth = 1 / jnp.sum(w / z, -1)
        depth = jnp.where(jnp.all(w >= 0, -1), depth, jnp.inf)
        return jnp.min(depth), jnp.argmin(depth)

    return jax.vmap(one)(pixels)


def measure_speed(sizes: tuple[int, ...], rounds: int) -> list[dict]:
    rows = []
    for level in ("default", "fine"):
        hand = load_hand(level=level)
        vertices = random_vertices(hand, BATCH, 0)
        for size in sizes:
            camera = camera_of(size)

            def depth_and_ids(v: jax.Array, hand: HandModel = hand, camera=camera, size: int = size):
                picture = render(make_scene(make_mesh(v, hand.faces)), camera, (size, size))
                return picture.depth, picture.face_id, picture.mesh_id

            def finished(v: jax.Array, hand: HandModel = hand, camera=camera, size: int = size):
                return render(lit_scene(hand, v), camera, (size, size))

            def outline(v: jax.Array, hand: HandModel = hand, camera=camera, size: int = size):
                return soft_mask(make_scene(make_mesh(v, hand.faces)), camera, (size, size))

            calls: dict[str, Callable] = {"depth and ids": depth_and_ids, "finished picture": finished}
            if size == 64:
                calls |= {"soft mask": outline, "brute force": partial(brute_force, hand, size)}
            compiled = {name: jax.jit(jax.vmap(f)) for name, f in calls.items()}
            times = timing.interleave(
                {n: partial(lambda f, v: jax.block_until_ready(f(v)), f, vertices) for n, f in compiled.items()},
                rounds,
                0.3,
            )
            for name, seconds in times.items():
                goal = GOALS.get(f"{name}, {size} x {size}") if level == "default" else None
                spread = vars(timing.Spread.of(BATCH / seconds))
                rows.append(
                    {"what": name, "size": size, "faces": len(hand.faces), "pictures_a_second": spread, "goal": goal}
                )
                print(f"{name:18s} {size:4d} {len(hand.faces)} faces: {spread['median']:.0f} pictures/s", flush=True)
    return rows


def measure_accuracy(num: int) -> dict[str, dict]:
    found = {}
    size = 64
    camera = camera_of(size)
    for level in ("default", "fine"):
        hand = load_hand(level=level)
        draw = jax.jit(lambda v, hand=hand: render(make_scene(make_mesh(v, hand.faces)), camera, (size, size)))
        ious, depths = [], []
        for v in random_vertices(hand, num, 1):
            picture = draw(v)
            depth, face, _ = cast_rays(v, hand.faces, camera.K, camera.T_cam_world, (size, size))
            mask, truth = np.asarray(picture.alpha) > 0, face >= 0
            ious.append((mask & truth).sum() / (mask | truth).sum())
            depths.append(np.abs(np.asarray(picture.depth) - depth)[mask & truth].max())
        found[level] = {"poses": num, "worst_iou": float(min(ious)), "worst_depth_m": float(max(depths))}
        print(level, found[level], flush=True)
    return found


def markdown(report: dict) -> str:
    lines = [
        f"The renderer, {report['machine']}. Written by benchmarks/render.py, which says what is measured.",
        "",
        "| | pixels | triangles | pictures a second | goal |",
        "|---|---|---|---|---|",
    ]
    for row in report["speed"]:
        s = row["pictures_a_second"]
        speed = f"{s['median']:.0f} [{s['low']:.0f}..{s['high']:.0f}]"
        lines.append(
            f"| {row['what']} | {row['size']} x {row['size']} | {row['faces']} | {speed} | {row['goal'] or ''} |"
        )
    lines += ["", "| 64 x 64, beside float64 rays | poses | worst IoU | worst depth, mm |", "|---|---|---|---|"]
    for level, a in report["accuracy"].items():
        lines.append(f"| {level} | {a['poses']} | {a['worst_iou']:.4f} | {1e3 * a['worst_depth_m']:.4f} |")
    return "\n".join(lines) + "\n"


def failures(report: dict) -> list[str]:
    found = []
    for row in report["speed"]:
        if row["goal"] and row["pictures_a_second"]["median"] < SLACK * row["goal"]:
            found.append(
                f"{row['what']}, {row['size']}: {row['pictures_a_second']['median']:.0f}/s, goal {row['goal']}"
            )
    for level, a in report["accuracy"].items():
        if a["worst_iou"] < GOAL_IOU or a["worst_depth_m"] > GOAL_DEPTH:
            found.append(f"{level}: IoU {a['worst_iou']:.4f}, depth {a['worst_depth_m']:.1e} m")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, few poses, nothing written")
    quick = parser.parse_args().quick
    report = {
        "speed": measure_speed((64,) if quick else (64, 128, 256), 3 if quick else 7),
        "accuracy": measure_accuracy(4 if quick else NUM_POSES),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
    }
    print(markdown(report))
    if not quick:
        (FOLDER / "render.json").write_text(json.dumps(report, indent=1) + "\n")
        (FOLDER / "render.md").write_text(markdown(report))
    missed = failures(report)
    print("\n".join(missed) or "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
