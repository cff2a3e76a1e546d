"""Is the world good enough to leave it? A small keypoint net sees nothing but the world, and then a real hand.

    python benchmarks/world_to_real.py --recordings FOLDER       about 40 minutes on two quiet cores

Trains on clips of `single_hand` (or what `--data` names), on disk, augmented; evaluates on the pictures of a video of a
bare right hand that moves (`FOLDER/hand_video`), cropped to its box, beside MediaPipe's landmarks there, which are
agreement and not the truth. PCK: share of keypoints nearer than a tenth of the box's longer side. Several seeds; the
number of the README is their mean and may only rise. Then: how well a small classifier tells crops of the video from
crops of the world.
Needs the extra `video`. Writes benchmarks/results/world_to_real.json and .md.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jhand.data.augmentation import Augmentation, augment, crop_to_hand
from jhand.data.pipeline import Cached, batches
from jhand.data.readers.open_recordings import read_hand_video
from jhand.data.sources import open_source
from jhand.data.world import cached_world, single_hand

RESULTS = Path(__file__).parent / "results"
SIZE, BATCH = 64, 32
WORLD_SIZE = 96  # rendered larger than it is seen: cropped, not enlarged


class Block(nn.Module):
    """Two convolutions and a way past them."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.width, (3, 3), (self.stride, self.stride), use_bias=False)(x)
        y = nn.relu(nn.GroupNorm(8)(y))
        y = nn.GroupNorm(8)(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = nn.Conv(self.width, (1, 1), (self.stride, self.stride))(x)
        return nn.relu(x + y)


class KeypointNet(nn.Module):
    """Pictures to heat maps (B, 16 x 16, 21)."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(24, (3, 3), (2, 2))(images))
        fine = Block(48)(Block(48, 2)(x))
        coarse = Block(96)(Block(96, 2)(fine))
        x = jnp.repeat(jnp.repeat(nn.Conv(48, (1, 1))(coarse), 2, 1), 2, 2) + fine
        return nn.Conv(21, (1, 1))(Block(48)(x)).reshape(images.shape[0], -1, 21)


_CELLS = 16
_AT = (np.stack(np.meshgrid(np.arange(_CELLS), np.arange(_CELLS)), -1).reshape(-1, 2) + 0.5) * SIZE / _CELLS - 0.5


def located(heat: jax.Array) -> jax.Array:
    """Pixels (B, 21, 2) of heat maps (B, P, 21): the mean of what is hot around the hottest cell."""
    at = jnp.asarray(_AT, jnp.float32)
    hottest = at[jnp.argmax(heat, 1)]
    near = jnp.linalg.norm(at[:, None] - hottest[:, None], axis=-1) < 2.5 * SIZE / _CELLS
    share = jax.nn.softmax(jnp.where(near, heat, -1e9), 1)
    return jnp.einsum("bpk,pc->bkc", share, at)


class Classifier(nn.Module):
    """Pictures to how surely they are real."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(16, (5, 5), (2, 2))(images))
        x = nn.relu(nn.Conv(32, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Conv(32, (3, 3), (2, 2))(x))
        return nn.Dense(1)(jnp.mean(x, (1, 2)))[..., 0]


def as_input(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float32) / 255 - 0.5) / 0.25


def cropped(clip: dict, rng: np.random.Generator) -> dict:
    """The world as the net sees it: cropped about the hand, roughly, then augmented."""
    jitter = np.clip(rng.standard_normal(3), -2, 2) * np.array([0.06, 0.06, 0.12])
    clip = crop_to_hand(clip, "right", SIZE, 1.45, jitter)
    return augment(clip, rng, Augmentation(turn=0.35, scale=0.0, shift=0.0, colour=0.25, blur=0.4, noise=8.0))


def prepare(clip: dict) -> dict:
    hand = clip["hands"]["right"]
    uv, visible = hand["keypoints2d"][0, 0], hand["visible"][0, 0]
    return {"image": clip["image"][0, 0], "uv": uv, "visible": visible, "counts": hand["confidence"][0, 0]}


def train(source: Cached, steps: int, seed: int) -> tuple[KeypointNet, dict, float]:
    net = KeypointNet()
    params = net.init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)))
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

    @jax.jit
    def step(params: dict, state: optax.OptState, batch: dict):
        def loss(params: dict) -> jax.Array:
            uv = batch["uv"]
            away = jnp.sum(jnp.square(jnp.asarray(_AT)[:, None] - uv[:, None]), -1)  # (B, P, 21)
            wanted = jax.nn.softmax(-0.5 * away / (SIZE / _CELLS) ** 2, 1)
            miss = -jnp.sum(wanted * jax.nn.log_softmax(net.apply(params, batch["image"]), 1), 1)
            counts = batch["counts"] * jnp.all((uv > -4) & (uv < SIZE + 3), -1)
            return jnp.sum(miss * counts * (0.4 + 0.6 * batch["visible"])) / jnp.sum(counts)

        value, slope = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    state, value, start = optimiser.init(params), jnp.zeros(()), time.time()
    data = iter(batches(source, prepare, batch=BATCH, seed=seed, augment=cropped, threads=2))
    for number in range(steps):
        b = next(data)
        params, state, value = step(params, state, {**b, "image": as_input(b["image"])})
        if number % 200 == 0:
            print(f"seed {seed} step {number}: loss {float(value):.4f}, {time.time() - start:.0f} s", flush=True)
    return net, params, float(value)


def video_clips(folder: str) -> Iterator[dict]:
    """Frames of the video, cropped to the hand, with MediaPipe's landmarks."""
    import cv2

    recording = read_hand_video(folder)
    video = cv2.VideoCapture(str(Path(folder, "hand_video", "human_hand_video.mp4")))
    for uv in recording.keypoints2d:
        good, frame = video.read()
        if not good:
            break
        hand = {
            "present": np.ones(1, bool),
            "keypoints2d": uv[None, None].astype(np.float32),
            "visible": np.ones((1, 1, 21), np.float32),
            "confidence": np.ones((1, 1, 21), np.float32),
        }
        clip = {"image": frame[None, None, :, :, ::-1].copy(), "hands": {"right": hand}}
        yield crop_to_hand(clip, "right", SIZE, 1.45)


def evaluate(net: KeypointNet, params: dict, clips: list[dict]) -> dict:
    image = np.stack([c["image"][0, 0] for c in clips])
    uv = np.stack([c["hands"]["right"]["keypoints2d"][0, 0] for c in clips])
    apply = jax.jit(lambda image: located(net.apply(params, image)))
    found = np.concatenate([np.asarray(apply(as_input(i))) for i in np.array_split(image, max(len(image) // 50, 1))])
    box = (uv.max(1) - uv.min(1)).max(-1)
    off = np.linalg.norm(found - uv, axis=-1) / box[:, None]
    return {
        "pck": float((off < 0.1).mean()),
        "median": float(np.median(off)),
        "per_keypoint": [round(float(p), 3) for p in (off < 0.1).mean(0)],
        "found": found,
    }


def tell_apart(real: np.ndarray, made: np.ndarray, seed: int, steps: int = 400) -> float:
    """Accuracy of a small classifier on the second half of the video, beside as many crops of the world."""
    half = len(real) // 2
    net = Classifier()
    params = net.init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)))
    optimiser = optax.adamw(2e-3)

    @jax.jit
    def step(params: dict, state: optax.OptState, image: jax.Array, label: jax.Array):
        loss = lambda p: optax.sigmoid_binary_cross_entropy(net.apply(p, image), label).mean()  # noqa: E731
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    rng, state = np.random.default_rng(seed), optimiser.init(params)
    for _ in range(steps):
        a, b = rng.integers(0, half, 32), rng.integers(0, len(made) // 2, 32)
        image, label = np.concatenate([real[a], made[b]]), np.repeat([1.0, 0.0], 32)
        params, state = step(params, state, as_input(image), label)
    says = lambda x: np.asarray(net.apply(params, as_input(x))) > 0  # noqa: E731
    return float((says(real[half:]).mean() + 1 - says(made[len(made) // 2 :][:half]).mean()) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", required=True)
    parser.add_argument("--data", default=f"world:single_hand:20000:0:{WORLD_SIZE}", help="as jhand.data.sources says")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="world_to_real", help="of the result files")
    arguments = parser.parse_args()

    train_clips = open_source(arguments.data)
    source = Cached(train_clips)
    unseen = cached_world(single_hand(size=WORLD_SIZE), 1, 512)
    held_out = [cropped(clip, np.random.default_rng(7)) for clip in unseen]
    real = list(video_clips(arguments.recordings))
    rows = []
    for seed in range(arguments.seeds):
        net, params, _ = train(source, arguments.steps, seed)
        on_real, on_world = evaluate(net, params, real), evaluate(net, params, held_out)
        rows.append({"seed": seed, "real": on_real["pck"], "world": on_world["pck"], "median": on_real["median"]})
        rows[-1]["per_keypoint"] = on_real["per_keypoint"]
        print(json.dumps(rows[-1]), flush=True)
    middle = np.array([uv.mean(0) for uv in (c["hands"]["right"]["keypoints2d"][0, 0] for c in real)])
    crops = np.stack([cropped(train_clips[i], np.random.default_rng(i))["image"][0, 0] for i in range(len(real))])
    pictures = np.stack([c["image"][0, 0] for c in real])
    apart = [tell_apart(pictures, crops, seed) for seed in range(3)]
    box = np.array([np.ptp(c["hands"]["right"]["keypoints2d"][0, 0], axis=0).max() for c in real])
    mean_hand = np.mean([c["hands"]["right"]["keypoints2d"][0, 0] for c in held_out], 0)
    uv = np.stack([c["hands"]["right"]["keypoints2d"][0, 0] for c in real])
    baseline = float((np.linalg.norm(mean_hand + 0 * middle[:, None] - uv, axis=-1) < 0.1 * box[:, None]).mean())
    out = {
        "seeds": rows,
        "pck": float(np.mean([r["real"] for r in rows])),
        "sd": float(np.std([r["real"] for r in rows], ddof=1)) if len(rows) > 1 else 0.0,
        "pck_world": float(np.mean([r["world"] for r in rows])),
        "mean_hand": baseline,
        "told_apart": apart,
        "data": arguments.data,
        "clips": len(train_clips),
        "steps": arguments.steps,
        "frames": len(real),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(out, indent=1) + "\n")
    text = f"""A small net (64 x 64) trained on {out["data"]}, {out["clips"]} clips, alone; {out["steps"]} steps of
{BATCH}; {len(rows)} seeds. Written by benchmarks/world_to_real.py.

| evaluated on | PCK at a tenth of the box |
|---|---|
| {out["frames"]} frames of a real hand, beside MediaPipe's landmarks | {out["pck"]:.3f} +- {out["sd"]:.3f} |
| the world, unseen clips | {out["pck_world"]:.3f} |
| the real hand, by the world's mean hand | {out["mean_hand"]:.3f} |

A small classifier tells crops of the video from crops of the world in {100 * np.mean(apart):.0f} % of the cases: it is
trained on the first half of one video of one person before one wall, and asked about the second.
"""
    (RESULTS / f"{arguments.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
