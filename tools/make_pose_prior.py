"""Learn the pose prior of the built-in hands from real motion: rewrites hands_mean, hands_components and hands_sd in
their npz files.

    python tools/make_pose_prior.py [spoken_to_signed-0.4.0-py3-none-any.whl]

Fits the right hand to fingerspelling clips of the package spoken-to-signed==0.4.0 (MIT; left hands are mirrored in the
picture), keeps the poses of frames that fit well, thinned so that a held letter counts once, and takes their principal
components. Letters alone would make a flat or a gripping hand improbable, so that a third as many poses drawn within
joint limits are mixed in.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from make_demo_clips import download, read_lexicon  # noqa: E402

from jhand.fitting.measurements import FitSettings  # noqa: E402
from jhand.fitting.solver import fit_sequence  # noqa: E402
from jhand.hand.anatomy import sample_poses  # noqa: E402
from jhand.hand.files import load_hand  # noqa: E402

NUM_CLIPS, NUM_FRAMES = 192, 32
BATCH = 24
LARGEST_RMS = 0.05  # of the hand's size in the picture
SMALLEST_STEP = 0.15  # radians between kept poses of a clip, rms over joints
FLOOR = 0.1  # radians: clips say little about twist and play, which are lawful; a stiff tail would bend exact fits


def read_clips(wheel: zipfile.ZipFile) -> np.ndarray:
    """Image landmarks (N, T, 21, 2) of right hands about 100 pixels long, every language in turn."""
    by_language: dict[str, list[np.ndarray]] = {}
    for row, pose in read_lexicon(wheel):
        for name, flip in (("RIGHT_HAND_LANDMARKS", 1), ("LEFT_HAND_LANDMARKS", -1)):
            here = pose.component(name)
            seen = (pose.confidence[:, 0, here] > 0).all(-1)
            if seen.mean() > 0.9 and seen.sum() >= 12:
                uv = pose.coordinates[:, 0, here, :2][seen] * np.array([flip, 1])
                uv = uv[np.linspace(0, len(uv) - 1, NUM_FRAMES).round().astype(int)]
                size = np.median(np.linalg.norm(uv - uv[:, :1], axis=-1).max(-1))
                by_language.setdefault(row["signed_language"], []).append((uv - uv[:, :1].mean(0)) * 100 / size)
    chosen = []
    while len(chosen) < NUM_CLIPS and any(by_language.values()):
        for clips in by_language.values():
            if clips and len(chosen) < NUM_CLIPS:
                chosen.append(clips.pop(0))
    return np.stack(chosen).astype(np.float32)


def thin(poses: np.ndarray, good: np.ndarray) -> list[np.ndarray]:
    """Poses (T, 45) of well fitted frames that differ from the one kept before."""
    kept: list[np.ndarray] = []
    for pose in poses[good]:
        if not kept or np.sqrt(np.mean((pose - kept[-1]) ** 2)) > SMALLEST_STEP:
            kept.append(pose)
    return kept


def main() -> None:
    clips = read_clips(zipfile.ZipFile(sys.argv[1] if len(sys.argv) > 1 else download(Path(tempfile.mkdtemp()))))
    hand = load_hand()
    poses, rms = [], []
    for start in range(0, len(clips), BATCH):
        uv = clips[start : start + BATCH]
        found = fit_sequence(hand, keypoints2d=uv, fps=15.0, settings=FitSettings(sigma_2d=1.5, robust=3.0))
        fitted = np.asarray(found.params.hand_pose).reshape(len(uv), NUM_FRAMES, 45)
        for pose, error in zip(fitted, np.asarray(found.rms), strict=True):
            poses += thin(pose, error < 100 * LARGEST_RMS)
            rms.append(error)
        done, share = start + len(uv), np.concatenate(rms).mean()
        print(f"{done} of {len(clips)} clips, {len(poses)} poses, rms {share:.2f} % of the hand", flush=True)
    drawn = np.asarray(sample_poses(jax.random.key(0), hand, (len(poses) // 3,))).reshape(-1, 45)
    every = np.concatenate([np.stack(poses), drawn]).astype(np.float64)
    mean = every.mean(0)
    _, s, components = np.linalg.svd(every - mean, full_matrices=False)
    components *= np.sign(components[np.arange(45), np.abs(components).argmax(1)])[:, None]
    sd = np.maximum(s / np.sqrt(len(every) - 1), FLOOR)
    mirror = np.tile([1.0, -1.0, -1.0], 15)
    for side in ("right", "left"):
        signs = mirror if side == "left" else np.ones(45)
        for level in ("", "_fine"):
            prior = {"hands_mean": mean * signs, "hands_components": components * signs, "hands_sd": sd}
            rewrite(ROOT / "jhand" / "hand" / "assets" / f"{side}{level}.npz", prior)
    share = np.cumsum(s**2) / np.sum(s**2)
    report = {
        "clips": len(clips),
        "poses_from_fits": len(poses),
        "poses_drawn": len(drawn),
        "rms_percent_of_hand": float(np.concatenate(rms).mean()),
        "variance_of_components": {str(n): round(float(share[n - 1]), 3) for n in (6, 10, 15, 20)},
    }
    path = ROOT / "docs" / "hand.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pose_prior": report}, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def rewrite(path: Path, changed: dict[str, np.ndarray]) -> None:
    with np.load(path, allow_pickle=False) as z:
        arrays = {key: z[key] for key in z.files} | {k: v.astype(np.float32) for k, v in changed.items()}
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as out:
        np.savez_compressed(out, **arrays)
    Path(out.name).chmod(0o644)
    Path(out.name).replace(path)


if __name__ == "__main__":
    main()
