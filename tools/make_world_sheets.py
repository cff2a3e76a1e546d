"""Contact sheets of the synthetic world for docs/world.md.

python tools/make_world_sheets.py        two minutes; rewrites docs/pictures/world_*.jpg
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jhand.data.world import egocentric, grasps, load_assets, single_hand, two_hands, world_clips  # noqa: E402
from jhand.viz import draw_skeleton  # noqa: E402

COLUMNS, ROWS, SIZE, QUALITY = 8, 4, 128, 88
SEGMENT_COLOURS = np.array(
    [[30, 30, 30], [230, 120, 60], [70, 130, 220], [150, 80, 40], [40, 80, 150], [120, 120, 120], [90, 190, 90]],
    np.uint8,
)


def sheet(pictures: list[np.ndarray], columns: int = COLUMNS) -> Image.Image:
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def annotated(clip: dict) -> list[np.ndarray]:
    """The picture with its skeletons, the segmentation, the depth."""
    picture = clip["image"][0, 0]
    for hand in clip["hands"].values():
        picture = draw_skeleton(picture, hand["keypoints2d"][0, 0], visible=hand["visible"][0, 0])
    depth = clip["depth"][0, 0]
    near, far = depth[depth > 0].min(initial=9.0), depth.max()
    grey = np.where(depth > 0, 255 - 200 * (depth - near) / max(far - near, 1e-3), 0).astype(np.uint8)
    return [np.asarray(picture), SEGMENT_COLOURS[clip["segmentation"][0, 0]], np.repeat(grey[..., None], 3, -1)]


def main() -> None:
    assets, folder = load_assets(), ROOT / "docs" / "pictures"
    worlds = {
        "single": single_hand(SIZE, samples=4),
        "two": two_hands(SIZE, samples=4),
        "grasps": grasps(SIZE, samples=4),
        "egocentric": egocentric(SIZE, samples=4),
    }
    for name, config in worlds.items():
        clips = list(world_clips(config, 11, range(COLUMNS * ROWS), assets))
        sheet([clip["image"][0, 0] for clip in clips]).save(folder / f"world_{name}.jpg", quality=QUALITY)
        if name == "two":
            shown = [annotated(clip) for clip in clips[:COLUMNS]]
            sheet([p for row in zip(*shown, strict=True) for p in row]).save(
                folder / "world_known.jpg", quality=QUALITY
            )
    motion = two_hands(SIZE, frames=COLUMNS, fps=12.0, samples=6, occluders=0)
    clips = list(world_clips(motion, 12, range(ROWS), assets))
    sheet([picture for clip in clips for picture in clip["image"][:, 0]]).save(
        folder / "world_motion.jpg", quality=QUALITY
    )


if __name__ == "__main__":
    main()
