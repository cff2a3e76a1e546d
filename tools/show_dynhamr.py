"""Pictures of Dyn-HaMR for its page: a clip whose hands are independent of the camera, and one whose hands ride along.

    python -m tools.show_dynhamr            a few minutes on two cores, with the motion prior trained before

Writes `dynhamr_good.png` and `dynhamr_bad.png`: wrists and camera from above as they were, as single frames put
together say, and as found; and the error of the fingers over time, across the gap.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.dynhamr import VARIANTS, Truth, experiment, g_mpjpe, problems
from jhand.compile_cache import enable_compile_cache
from jhand.geometry import rigid_procrustes
from jhand.hand import HandModel, load_hand
from jhand.solving import Problems
from jhand.systems import dynhamr as system
from jhand.systems.dynhamr import Inputs, Outputs

SHOWN = {"static": "single frames, put together", "slerp": "descents, slerp in gaps", "prior": "with the motion prior"}
COLOURS = {"static": "tab:red", "slerp": "tab:orange", "prior": "tab:blue"}


def aligned(outputs: Outputs, truth: Truth, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Wrists (2, T, 3) and camera (T, 3) of a clip, brought to the truth by the keypoints of its first two frames."""
    found, true = (x.keypoints[n, :, :2].reshape(-1, 3) for x in (outputs, truth))
    R, t = rigid_procrustes(found, true)
    there = lambda x: np.asarray(x @ R.T + t)  # noqa: E731
    centres = system.camera_centres(jax.tree.map(lambda x: x[n], outputs.cameras))
    return there(outputs.keypoints[n, :, :, 0]), there(centres)


def finger_errors(outputs: Outputs, truth: Truth, n: int) -> np.ndarray:
    """Mean distance (2, T) of keypoints about the wrist in camera axes, metres."""
    found, true = (
        jnp.einsum("tij,btkj->btki", x.cameras.T_cam_world[n, :, :3, :3], x.keypoints[n]) for x in (outputs, truth)
    )
    away = (found - found[:, :, :1]) - (true - true[:, :, :1])
    return np.asarray(jnp.mean(jnp.linalg.norm(away, axis=-1), -1))


def draw(path: Path, title: str, found: dict[str, Outputs], inputs: Inputs, truth: Truth, n: int) -> None:
    """One clip."""
    figure = Figure((11, 4.2), layout="constrained")
    above, over_time = figure.subplots(1, 2, width_ratios=[1, 1.2])
    true_wrists = np.asarray(truth.keypoints[n, :, :, 0])
    true_camera = np.asarray(system.camera_centres(jax.tree.map(lambda x: x[n], truth.cameras)))
    for wrist in true_wrists:
        above.plot(wrist[:, 0], wrist[:, 2], "k-", lw=3, alpha=0.4)
    above.plot(true_camera[:, 0], true_camera[:, 2], "k:", lw=3, alpha=0.4)
    for name in ("static", "prior"):
        wrists, camera = aligned(found[name], truth, n)
        for i, wrist in enumerate(wrists):
            above.plot(wrist[:, 0], wrist[:, 2], "-", color=COLOURS[name], label=SHOWN[name] if i == 0 else None)
        if name == "prior":
            above.plot(camera[:, 0], camera[:, 2], ":", color=COLOURS[name])
    above.plot([], [], "k-", lw=3, alpha=0.4, label="truth (dotted: the camera)")
    above.set(xlabel="x, metres", ylabel="z, metres", aspect="equal", title="wrists from above")
    above.legend(fontsize=7)
    seen = np.asarray(inputs.seen[n, 0])
    for name in ("slerp", "prior"):
        error = 1000 * finger_errors(found[name], truth, n)[0]
        over_time.plot(error, color=COLOURS[name], label=SHOWN[name])
    over_time.fill_between(
        np.arange(len(seen)),
        0,
        1,
        where=~seen,
        transform=over_time.get_xaxis_transform(),
        color="0.9",
        label="right hand not seen",
    )
    over_time.set(xlabel="frame", ylabel="millimetres about the wrist", ylim=(0, None), title="right hand's keypoints")
    over_time.legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=80)


def solved(inputs: Inputs, config: system.Config, hand: HandModel) -> dict[str, Outputs]:
    """What the variants that are shown say."""
    return {name: system.solve(inputs, replace(config, **VARIANTS[name]), hand) for name in SHOWN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--folder", type=Path, default=Path("out/runs"), help="where the experiment keeps its prior")
    options = parser.parse_args()
    enable_compile_cache()
    hand = load_hand()
    preset: Problems = replace(experiment.presets["cpu"], number=4)
    folder = options.folder / "dynhamr" / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    inputs, truth = problems(0, preset, folder)
    found = solved(inputs, preset.config, hand)
    errors = 1000 * np.asarray(g_mpjpe(found["prior"], truth, hand))
    apart = np.where(np.asarray(truth.with_head), np.inf, errors)
    head = np.where(np.asarray(truth.with_head), errors, -np.inf)
    for name, n in (("good", int(apart.argmin())), ("bad", int(head.argmax()))):
        ratio = float(found["prior"].world_scale[n] / truth.world_scale[n])
        said = {"good": "hands independent of the camera", "bad": "hands that ride along with the camera"}[name]
        title = f"{said}: aligned by the first frames, {errors[n]:.0f} mm; scale {ratio:.2f} of the true one"
        draw(options.out / f"dynhamr_{name}.png", title, found, inputs, truth, n)


if __name__ == "__main__":
    main()
