"""What a step of two systems' fits costs, and what of it: benchmarks/results/fit_steps.json and .md.

    python benchmarks/fit_steps.py            about a minute of one core

Rows are gradients of hands side by side, as the systems take them: of all that a step makes small, and of its parts
alone. A part is taken together with what it stands on (the kinematics), so parts add up to more than the whole.
"""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import timing  # before jax  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np

from jhand.geometry import make_camera
from jhand.hand import HandParams, keypoints, load_hand
from jhand.systems import ego2handspose, surgery_mvhand

FOLDER = Path(__file__).parent / "results"
HANDS, VIEWS, ROUNDS = 24, 4, 7


def of_ego2handspose() -> dict:
    """Steps of 24 hands: a canonical hand and pixels of a turned one."""
    hand, config = load_hand(), ego2handspose.Config.tiny()
    rng = np.random.default_rng(0)
    rest = ego2handspose.begin_state(hand)
    states = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, (HANDS, *x.shape)), jnp.float32), rest)
    points = jax.vmap(lambda s: ego2handspose.points_of(hand, s))(states)
    pixels, target = ego2handspose.pixels_of(points) + 3, ego2handspose.canonical_of(points) + 0.01
    weights = jnp.ones((HANDS, 21))
    at = lambda s: ego2handspose.points_of(hand, s)  # noqa: E731
    seen = lambda s, p, w, t: ego2handspose.pixel_loss(at(s), p, w)  # noqa: E731
    shaped = lambda s, p, w, t: ego2handspose.canonical_loss(at(s), t, config)  # noqa: E731
    natural = lambda s, p, w, t: ego2handspose.regulariser(s.angles, config)  # noqa: E731
    losses = {
        "all": lambda s, p, w, t: (
            ego2handspose.pixel_loss(x := at(s), p, w)
            + ego2handspose.canonical_loss(x, t, config)
            + natural(s, p, w, t)
        ),
        "kinematics": lambda s, p, w, t: jnp.sum(at(s)),
        "pixels": seen,
        "canonical": shaped,
        "regulariser": natural,
    }
    return {name: gradient(loss, states, pixels, weights, target) for name, loss in losses.items()}


def of_surgery_mvhand() -> dict:
    """Steps of 24 hands' free points before four cameras."""
    config = surgery_mvhand.Config.tiny()
    rng = np.random.default_rng(0)
    rest = 1000 * keypoints(load_hand(), HandParams.zeros())
    points = rest + jnp.asarray(rng.normal(0, 5, (HANDS, 21, 3)), jnp.float32)
    before = points + jnp.asarray(rng.normal(0, 3, (HANDS, 21, 3)), jnp.float32)
    away = jnp.broadcast_to(jnp.eye(4).at[2, 3].set(1.0), (VIEWS, 4, 4))
    cameras = make_camera(focal=jnp.full((VIEWS, 2), 900.0), principal=jnp.full((VIEWS, 2), 400.0), T_cam_world=away)
    pixels = jnp.asarray(rng.uniform(200, 600, (HANDS, VIEWS, 21, 2)), jnp.float32)
    sure = jnp.ones((HANDS, VIEWS, 21))
    left = jnp.zeros((), bool)
    losses = {
        "all": lambda x, b, p, c: surgery_mvhand.frame_loss(x, b, cameras, p, c, left, config),
        "reprojection": lambda x, b, p, c: surgery_mvhand.reprojection_term(x, cameras, p, c),
        "smooth": lambda x, b, p, c: surgery_mvhand.smooth_term(x, b),
        "shape": lambda x, b, p, c: surgery_mvhand.shape_term(x, b),
        "limits, where they are asked for": lambda x, b, p, c: surgery_mvhand.biomechanics_term(x, left),
    }
    return {name: gradient(loss, points, before, pixels, sure) for name, loss in losses.items()}


def gradient(loss, *arguments):
    """A call of the slope for every hand, compiled."""
    slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    return lambda: jax.block_until_ready(slope(*arguments))


def main() -> None:
    found = {}
    for name, calls in (("ego2handspose", of_ego2handspose()), ("surgery_mvhand", of_surgery_mvhand())):
        times = timing.interleave(calls, ROUNDS, 0.2)
        found[name] = {part: vars(timing.Spread.of(1000 * each)) for part, each in times.items()}
    about = {
        "hands": HANDS,
        "views": VIEWS,
        "rounds": ROUNDS,
        "unit": "milliseconds",
        "jax": version("jax"),
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
    (FOLDER / "fit_steps.json").write_text(json.dumps(about | {"systems": found}, indent=1) + "\n")
    lines = [
        f"Gradients of {HANDS} hands, milliseconds: median and range of {ROUNDS} rounds, on {about['cores']} core(s).\n"
    ]
    for name, parts in found.items():
        lines += [f"\n| {name} | ms | range |", "|---|---|---|"]
        lines += [f"| {part} | {s['median']:.3f} | {s['low']:.3f} to {s['high']:.3f} |" for part, s in parts.items()]
    text = "\n".join(lines) + "\n"
    (FOLDER / "fit_steps.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
