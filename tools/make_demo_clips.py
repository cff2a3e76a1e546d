"""Make the embedded fingerspelling clips: jhand/data/assets/fingerspelling.npz.

    python tools/make_demo_clips.py [spoken_to_signed-0.4.0-py3-none-any.whl]

Takes clips from the package spoken-to-signed==0.4.0 (MIT), one or two of each sign language whose hand is seen best,
and keeps the image landmarks of the signing hand: eighths of a pixel in int16. Without an argument the wheel is
downloaded from the package index.
"""

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jhand.data.pose_file import PoseFile, parse_pose  # noqa: E402

LEXICON = "spoken_to_signed/assets/fingerspelling_lexicon/"
NUM_CLIPS = 24
MIN_FRAMES, MAX_FRAMES = 25, 32  # nearly equal lengths share one compiled fit; of longer clips the middle is kept
MIN_SIZE = 90  # pixels from wrist to farthest fingertip: smaller hands say little
SCALE = 8  # stored units per pixel


def download(folder: Path) -> Path:
    """The wheel of the clips, from the package index into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), "spoken-to-signed==0.4.0"]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def read_lexicon(wheel: zipfile.ZipFile) -> Iterator[tuple[dict[str, str], PoseFile]]:
    """Every clip of the wheel: its row of the index (`signed_language`, `words`, ...), and its pose."""
    for row in csv.DictReader(io.StringIO(wheel.read(LEXICON + "index.csv").decode())):
        yield row, parse_pose(wheel.read(LEXICON + row["path"]))


def main() -> None:
    wheel = zipfile.ZipFile(sys.argv[1] if len(sys.argv) > 1 else download(Path(tempfile.mkdtemp())))
    candidates: dict[str, list] = {}
    for row, pose in read_lexicon(wheel):
        for side, name in (("right", "RIGHT_HAND_LANDMARKS"), ("left", "LEFT_HAND_LANDMARKS")):
            here = pose.component(name)
            first = max(0, (len(pose.coordinates) - MAX_FRAMES) // 2)
            frames = slice(first, first + MAX_FRAMES)
            uv, seen = pose.coordinates[frames, 0, here, :2], pose.confidence[frames, 0, here] > 0
            visible = seen.all(-1)
            if visible.mean() < 0.9 or len(uv) < MIN_FRAMES:
                continue
            if (uv[visible] < 0).any() or (uv[visible] >= pose.size).any():
                continue  # landmarks outside the picture are invented
            if any(np.array_equal(uv, other) for found in candidates.values() for *_, other, _ in found):
                continue  # a clip that another language shares
            size = np.median(np.linalg.norm(uv[visible] - uv[visible][:, :1], axis=-1).max(-1))
            jitter = np.median(np.abs(np.diff(uv[visible], 2, axis=0))) / size
            if size > MIN_SIZE:
                label = f"{row['signed_language']} {row['words']}"
                candidates.setdefault(row["signed_language"], []).append((jitter, label, side, pose, uv, visible))
    chosen = []
    ranked = {language: sorted(found, key=lambda c: c[0]) for language, found in sorted(candidates.items())}
    while len(chosen) < NUM_CLIPS:  # the steadiest of each language, then the second steadiest, ...
        for language in list(ranked):
            if ranked[language] and len(chosen) < NUM_CLIPS:
                chosen.append(ranked[language].pop(0))
    arrays = {}
    for i, (_, label, side, pose, uv, visible) in enumerate(chosen):
        arrays[f"{i:02d}/uv"] = np.round(uv * visible[:, None, None] * SCALE).astype(np.int16)
        arrays[f"{i:02d}/seen"] = visible
        arrays[f"{i:02d}/about"] = np.array([label, side, str(pose.fps), *map(str, pose.size)])
    licence = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    notice = "Fingerspelling clips from spoken-to-signed 0.4.0.\n\n" + wheel.read(licence).decode()
    out = ROOT / "jhand" / "data" / "assets" / "fingerspelling.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, licence=np.array(notice), scale=SCALE, **arrays)
    for _, label, side, pose, uv, visible in chosen:
        print(f"{label:12s} {side:6s} {len(uv):3d} frames at {pose.fps:g} fps, {visible.mean():.0%} seen")
    print(f"{out.relative_to(ROOT)}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
