"""What `make demo` shows of a trained system: the loop on Hamba, and its committed weights on pictures it never saw.

    python -m tools.show_hamba -o out/demo       a few minutes on two cores, most of it compiling

Writes `training.png`, the losses of a short training; `predictions.png`, hands of the world beside the truth; and where
the recordings and OpenCV are, `video.png`, frames of a real hand beside MediaPipe's landmarks, which are no truth.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.hamba import experiment, mean_hand, pa_mpjpe
from jhand.compile_cache import enable_compile_cache
from jhand.data.augmentation import crop_to_hand
from jhand.data.pictures import PictureError, open_video, video_frames
from jhand.data.readers.open_recordings import read_hand_video
from jhand.experiment import Batch, Options, feed, held_out_batches, load_published, run_of
from jhand.geometry import make_camera
from jhand.hand import HandModel, forward, load_hand
from jhand.systems import hamba
from jhand.train import read_card, read_log, train
from jhand.viz import draw_mesh, draw_skeleton

WEIGHTS = Path(__file__).parent.parent / "results" / "hamba" / "weights"
LARGE = 256
"""Pixels of a drawn crop."""


def train_a_little(folder: Path, hand: HandModel) -> None:
    """About a minute of Hamba from the start, with the loop and the stages that its experiment has."""
    few = replace(experiment.presets["cpu"], steps=160, clips=1024, pretraining=0)
    run = run_of(replace(experiment, presets={"cpu": few}), Options(folder=folder), "full", {}, 0)
    begin = lambda key: hamba.init(key, run.config, hand)  # noqa: E731
    stages = hamba.stages(run.config, hand, few.steps)
    train(jax.random.key(0), begin, stages, feed(experiment, run), folder=run.folder, log_every=10, save_every=80)
    log = read_log(run.folder / "log.jsonl")
    figure = Figure((6, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in ("first/loss", "whole/loss"):
        rows = [row for row in log if name in row]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
    axes.set(xlabel="step", ylabel="loss", title="a little of Hamba")
    axes.legend()
    figure.savefig(folder / "training.png", dpi=120)


def draw_crops(
    path: Path,
    said: str,
    images: np.ndarray,
    known: tuple[str, np.ndarray],
    outputs: hamba.Outputs,
    scores: Sequence[str],
    hand: HandModel,
) -> None:
    """Eight crops (N, S, S, 3), enlarged: as they are, with the 2D keypoints that are known, and with what was
    predicted, each with its score.
    """
    camera = make_camera(focal=hamba.FOCAL * LARGE, principal=np.full(2, (LARGE - 1) / 2))
    times = LARGE // images.shape[1]
    figure = Figure((16, 6.6), layout="constrained")
    for n, column in enumerate(figure.subplots(3, 8).T):
        picture = np.repeat(np.repeat(images[n], times, 0), times, 1)
        vertices = forward(hand, jax.tree.map(lambda x, n=n: x[n], outputs.params)).vertices
        rows = {
            "seen": picture,
            known[0]: draw_skeleton(picture, (known[1][n] + 0.5) * times - 0.5),
            scores[n]: draw_mesh(picture, vertices, hand.faces, camera, opacity=0.7),
        }
        for axes, (title, shown) in zip(column, rows.items(), strict=True):
            axes.imshow(shown)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
    figure.suptitle(said)
    figure.savefig(path, dpi=80)


def show_world(predict, batch: Batch, hand: HandModel, folder: Path) -> str:
    """Held-out hands, the truth and the prediction."""
    outputs = predict(hamba.inputs_of(batch))
    errors = 1000 * np.asarray(pa_mpjpe(outputs, batch, hand))
    trivial = 1000 * np.asarray(pa_mpjpe(mean_hand(batch, hand)(batch), batch, hand))
    said = (
        f"aligned error over {len(errors)} held-out hands {errors.mean():.1f} mm, the mean hand {trivial.mean():.1f} mm"
    )
    scores = [f"predicted: {error:.1f} mm" for error in errors]
    known = ("truth", batch["keypoints2d"])
    draw_crops(folder / "predictions.png", said, batch["image"], known, outputs, scores, hand)
    return said


def video_crops(recordings: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight frames of the hand video, cropped upright as the world's pictures are: images (8, S, S, 3) and MediaPipe's
    landmarks in them (8, 21, 2).
    """
    landmarks = np.asarray(read_hand_video(recordings).keypoints2d, np.float32)
    video = open_video(recordings / "hand_video" / "human_hand_video.mp4")
    chosen = set(np.linspace(10, len(landmarks) - 10, 8).astype(int).tolist())
    images, points = [], []
    for number, frame in enumerate(video_frames(video, len(landmarks))):
        if number not in chosen:
            continue
        clip = {"image": frame[None, None], "hands": {"right": {"keypoints2d": landmarks[number][None, None]}}}
        seen = crop_to_hand(clip, "right", size, 1.5, upright=True)
        images.append(seen["image"][0, 0])
        points.append(seen["hands"]["right"]["keypoints2d"][0, 0])
    return np.stack(images), np.stack(points)


def show_video(predict, recordings: Path, hand: HandModel, folder: Path) -> str:
    """Frames of a real hand."""
    size = experiment.presets["cpu"].config.size
    images, points = video_crops(recordings, size)
    outputs = predict(hamba.Inputs(jnp.asarray(images, jnp.float32) / 255))
    found = (np.asarray(outputs.keypoints2d) + 0.5) * size - 0.5
    box = (points.max(1) - points.min(1)).max(-1)
    away = np.linalg.norm(found - points, axis=-1) / box[:, None]
    said = f"from MediaPipe's landmarks in the video {100 * away.mean():.0f} % of the hand's box"
    scores = [f"Hamba: {100 * one.mean():.0f} % of the box away" for one in away]
    draw_crops(folder / "video.png", said, images, ("MediaPipe", points), outputs, scores, hand)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("out/demo"))
    folder = parser.parse_args().out / "hamba"
    folder.mkdir(parents=True, exist_ok=True)
    enable_compile_cache()
    hand = load_hand()
    preset = replace(experiment.presets["cpu"], held_out=128)
    print("hamba: making pictures of hands (compiles first)", flush=True)
    run = run_of(replace(experiment, presets={"cpu": preset}), Options(), "full", {}, 0)
    held_out = held_out_batches(experiment, run)
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *held_out)

    config = run.config
    variables = load_published(experiment, WEIGHTS, config, hand)
    print(f"hamba: weights trained on {read_card(WEIGHTS).data}", flush=True)
    predict = jax.jit(lambda inputs: hamba.predict(variables, inputs, config, hand))
    print("hamba:", show_world(predict, batch, hand, folder), flush=True)
    recordings = Path(os.environ.get("JHAND_DATA", "../shared/data"))
    if (recordings / "hand_video").is_dir():
        try:
            print("hamba:", show_video(predict, recordings, hand, folder), flush=True)
        except PictureError as error:
            print(f"hamba: no frames of the video: {error}")
    train_a_little(folder, hand)
    print(f"pictures  {folder.resolve()}")


if __name__ == "__main__":
    main()
