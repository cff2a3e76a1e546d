"""Are the uncertainties of fits what they say? results/fit_calibration.json and docs/pictures/calibration.png.

    python benchmarks/fit_calibration.py

512 hands of each kind, keypoints with Gaussian noise of the sigma that the fit is told. For each coordinate of each
keypoint the error over its predicted standard deviation is a standard normal number if the fit is calibrated: 68 % of
them within one. Exits non-zero where that share is not within 10 points for 3D keypoints. A single picture leaves
choices (a finger towards the camera or away from it) that no Gaussian holds; its shares are reported, not required.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import chi

from jhand.fitting import fit, landmark_covariance
from jhand.fitting.measurements import FitSettings
from jhand.geometry import make_camera, project
from jhand.hand.anatomy import sample_poses
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams

NUM = 512
ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "fit_calibration.json"
CAMERA = make_camera(focal=600.0, principal=np.array([320.0, 240.0]))


def main() -> int:
    hand = load_hand()
    key = jax.random.split(jax.random.key(0), 6)
    of_prior = hand.hands_mean + (jax.random.normal(key[0], (NUM, 45)) * hand.hands_sd) @ hand.hands_components
    full_range = sample_poses(key[1], hand, (NUM,))
    near = HandParams(
        global_orient=jax.random.normal(key[2], (NUM, 3)),
        hand_pose=of_prior.reshape(NUM, 15, 3),
        betas=jnp.clip(jax.random.normal(key[3], (NUM, hand.num_betas)), -3, 3),
        transl=jnp.array([0.0, 0.0, 0.6]) + 0.05 * jax.random.normal(key[4], (NUM, 3)),
    )
    normalised = {}
    for poses, params in (("prior", near), ("full range", replace(near, hand_pose=full_range))):
        truth = keypoints(hand, params)
        for sigma in (0.002, 0.005):
            noisy = truth + sigma * jax.random.normal(key[5], truth.shape)
            found = fit(hand, keypoints3d=noisy, settings=FitSettings(sigma_3d=sigma))
            normalised[f"3D, {1e3 * sigma:.0f} mm, poses of the {poses}"] = errors(hand, found, truth)
        uv = project(CAMERA, truth)
        noisy = uv + 2.0 * jax.random.normal(key[5], uv.shape)
        found = fit(hand, keypoints2d=noisy, camera=CAMERA, settings=FitSettings(sigma_2d=2.0))
        normalised[f"2D, 2 px, poses of the {poses}"] = errors(hand, found, truth)

    report = {
        name: {f"within_{k}_sigma": float((z < k).mean()) for k in (1, 2, 3)} | {"coordinates": z.size}
        for name, z in normalised.items()
    }
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    draw(normalised)
    return int(any(abs(row["within_1_sigma"] - 0.6827) > 0.1 for name, row in report.items() if name.startswith("3D")))


def errors(hand, found, truth) -> np.ndarray:
    """Errors of coordinates (N, 21, 3) over their predicted standard deviation, absolute."""
    variance = jnp.diagonal(landmark_covariance(hand, found), axis1=-2, axis2=-1)
    return np.abs(np.asarray(found.keypoints - truth)) / np.sqrt(np.asarray(variance))


def draw(normalised: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
    expected = np.linspace(0, 1, 101)[:-1]
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    for name, z in normalised.items():
        within = np.sort(z.ravel())
        inside = np.searchsorted(within, chi(1).ppf(expected)) / z.size
        axes.plot(expected, inside, lw=1.6, ls="--" if name.startswith("2D") else "-", label=name)
    axes.set(xlabel="share of errors predicted within", ylabel="share found within", xlim=(0, 1), ylim=(0, 1), aspect=1)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(ROOT / "docs" / "pictures" / "calibration.png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
