"""Augmentation of clips in numpy: picture, camera, points, masks and parameters change together.

All frames of a clip are treated alike. Two-dimensional changes never touch the world: a picture that is turned, scaled
and shifted is what a camera with another roll, focal length and principal point sees. A flip mirrors the world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jhand.data.clip import SIDES

Clip = dict[str, Any]
_POINT = np.array([-1.0, 1.0, 1.0], np.float32)
_ROTATION = np.outer(_POINT, _POINT).astype(np.float32)


@dataclass(frozen=True)
class Augmentation:
    """How much clips change; 0 leaves a thing as it is."""

    turn: float = 0.5
    """Radians, standard deviation of turns in the picture, at most two of them."""
    scale: float = 0.2
    """Natural logarithm, of size, likewise."""
    shift: float = 0.08
    """Share of the picture's size, likewise."""
    flip: float = 0.0
    """How often the world is mirrored: right hands become left ones."""
    colour: float = 0.15
    """Of brightness, contrast, saturation and white balance, natural logarithm."""
    blur: float = 0.3
    """How often pictures are blurred, by up to a pixel."""
    noise: float = 4.0
    """Most noise, in steps of 255."""
    occlude: float = 0.3
    """How often a box hides a part of the picture."""


def augment(
    clip: Mapping[str, Any],
    rng: np.random.Generator,
    settings: Augmentation = Augmentation(),
    others: Sequence[Mapping[str, Any]] = (),
) -> Clip:
    """A clip changed at random.

    Args:
        clip: with pictures, cameras, hands; what it lacks is not needed.
        rng: of this clip; the same one makes the same changes.
        settings: how much.
        others: clips whose pictures fill the boxes that hide parts of this one, as CutMix does (Yun et al., ICCV 2019),
            but for the targets, which stay; by default boxes are of one colour or of noise.
    """
    changed = dict(clip)
    if settings.flip and rng.random() < settings.flip:
        changed = flip(changed)
    if "image" in changed:
        height, width = changed["image"].shape[2:4]
        angle, size, *offset = np.clip(rng.standard_normal(4), -2, 2)
        changed = warp(
            changed,
            similarity(
                (width, height),
                (width, height),
                angle=settings.turn * angle,
                scale=float(np.exp(settings.scale * size)),
                shift=settings.shift * np.array(offset) * max(width, height),
            ),
            (height, width),
        )
        changed = recolour(changed, rng, settings)
        if rng.random() < settings.occlude:
            other = others[int(rng.integers(len(others)))] if len(others) else None
            changed = occlude(changed, rng, other)
    return changed


def similarity(
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    centre: np.ndarray | None = None,
    angle: float = 0.0,
    scale: float = 1.0,
    shift: Sequence[float] | np.ndarray = (0.0, 0.0),
) -> np.ndarray:
    """Map (2, 3) of pixels that turns and scales about a point and brings it to the middle of a picture.

    Args:
        source: width and height of the picture that is mapped.
        target: of the one that it is mapped to.
        centre: (2,) pixel of the source; by default its middle.
        angle: radians, from x towards y.
        scale: target pixels in a source pixel.
        shift: (2,) target pixels, added.
    """
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    A = np.array([[c, -s], [s, c]])
    middle = (np.array(source) - 1) / 2 if centre is None else np.asarray(centre, float)
    return np.concatenate([A, ((np.array(target) - 1) / 2 + np.asarray(shift) - A @ middle)[:, None]], 1)


def crop_to_hand(
    clip: Mapping[str, Any],
    side: str,
    size: int,
    margin: float = 1.5,
    jitter: np.ndarray | None = None,
    *,
    upright: bool = False,
) -> Clip:
    """A clip cropped to a square around one hand, the same for all its frames; of each view if there are several.

    Args:
        clip: with keypoints2d of the hand.
        side: `"right"` or `"left"`.
        size: pixels that the square is resized to.
        margin: how much larger it is than the box around the keypoints.
        jitter: (3,) shift in x and y, shares of the square, and log scale; by default none.
        upright: turned so that the base of the middle finger is above the wrist in the first frame.

    Raises:
        ValueError: a hand without keypoints2d, or none that is visible or confident.
    """
    hand = clip.get("hands", {}).get(side, {})
    if "keypoints2d" not in hand:
        raise ValueError(f"crop_to_hand: the clip has no keypoints2d of a {side} hand")
    uv, moved = np.asarray(hand["keypoints2d"], float), np.zeros(3) if jitter is None else np.asarray(jitter, float)
    counts = np.asarray(hand.get("confidence", np.ones(uv.shape[:-1]))) > 0
    height, width = clip["image"].shape[2:4]
    maps = []
    for view in range(uv.shape[1]):
        points = uv[:, view][counts[:, view]]
        if not len(points):
            raise ValueError(f"crop_to_hand: no keypoint of the {side} hand counts in view {view}")
        right, down = uv[0, view, 9] - uv[0, view, 0]
        angle = float(np.arctan2(-right, -down)) if upright else 0.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        low, high = (points @ turn.T).min(0), (points @ turn.T).max(0)
        side_px = max(float((high - low).max()), 2.0) * margin * np.exp(moved[2])
        centre = ((low + high) / 2 + moved[:2] * side_px) @ turn
        maps.append(similarity((width, height), (size, size), centre=centre, angle=angle, scale=size / side_px))
    return warp(dict(clip), np.stack(maps), (size, size))


def warp(clip: Clip, pixels: np.ndarray, size: tuple[int, int]) -> Clip:
    """A clip whose pictures are mapped; cameras and image points with them, and the world stays.

    Args:
        clip: with pictures.
        pixels: (2, 3) map from old to new pixels, a similarity, or (V, 2, 3) of each view.
        size: height and width of the new pictures.
    """
    frames, views = clip["image"].shape[:2]
    maps = np.broadcast_to(pixels, (views, 2, 3))
    out = dict(clip)
    for key, sampling in (
        ("image", Image.Resampling.BILINEAR),
        ("depth", Image.Resampling.NEAREST),
        ("segmentation", Image.Resampling.NEAREST),
    ):
        if key in clip:
            source = clip[key]
            moved = np.zeros((frames, views, *size, *source.shape[4:]), source.dtype)
            for t in range(frames):
                for v in range(views):
                    moved[t, v] = _warp_picture(source[t, v], maps[v], size, sampling)
            out[key] = moved
    if "camera" in clip:
        out["camera"] = _warp_cameras(clip["camera"], maps)
    out["hands"] = {side: _warp_hand(hand, maps, size) for side, hand in clip.get("hands", {}).items()}
    if not out["hands"] and "hands" not in clip:
        del out["hands"]
    if "people" in clip:
        out["people"] = [{s: _warp_hand(h, maps, size) for s, h in hands.items()} for hands in clip["people"]]
    return out


def flip(clip: Clip) -> Clip:
    """The mirror image of a clip's world, x to -x: right hands are left ones, and pictures are mirrored."""
    out = dict(clip)
    for key in ("image", "depth", "segmentation"):
        if key in clip:
            out[key] = clip[key][:, :, :, ::-1].copy()
    width = clip["image"].shape[3] if "image" in clip else None
    if "camera" in clip:
        camera = dict(clip["camera"])
        if "K" in camera:
            if width is None:
                raise ValueError("flip: a clip with cameras but without pictures does not say how wide they are")
            K = camera["K"].copy()
            K[..., 0, 1] *= -1
            K[..., 0, 2] = width - 1 - K[..., 0, 2]
            camera["K"] = K
        if "T_cam_world" in camera:
            camera["T_cam_world"] = _mirror_transforms(camera["T_cam_world"])
        if "distortion" in camera:
            camera["distortion"] = camera["distortion"] * np.array([1, 1, 1, -1, 1, 1, 1, 1], np.float32)
        out["camera"] = camera
    swap = lambda hands: {SIDES[1 - SIDES.index(s)]: _flip_hand(h, width) for s, h in hands.items()}  # noqa: E731
    if "hands" in clip:
        out["hands"] = swap(clip["hands"])
    if "people" in clip:
        out["people"] = [swap(hands) for hands in clip["people"]]
    if "objects" in clip:
        objects = dict(clip["objects"])
        if "T_world_object" in objects:
            objects["T_world_object"] = _mirror_transforms(objects["T_world_object"])
        if "points" in objects:
            objects["points"] = objects["points"] * _POINT
        out["objects"] = objects
    if "segmentation" in out:
        out["segmentation"] = _swap_segments(out["segmentation"], clip.get("meta", {}).get("segments", ()))
    return out


def recolour(clip: Clip, rng: np.random.Generator, settings: Augmentation) -> Clip:
    """Pictures in another light, through another lens and sensor; the same for all frames but for the noise."""
    strength = settings.colour
    brightness, contrast, saturation = np.exp(strength * np.clip(rng.standard_normal(3), -2, 2))
    white = np.exp(0.5 * strength * np.clip(rng.standard_normal(3), -2, 2))
    image = clip["image"].astype(np.float32) * (brightness * white.astype(np.float32))
    grey = image.mean(-1, keepdims=True)
    image = grey + saturation * (image - grey)
    mean = image.mean((2, 3, 4), keepdims=True)
    image = mean + contrast * (image - mean)
    if rng.random() < settings.blur:
        sigma = float(rng.uniform(0.2, 1.0))
        taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
        for axis in (2, 3):
            around = [(2, 2) if a == axis else (0, 0) for a in range(5)]
            padded = np.pad(image, around, mode="edge")
            n = image.shape[axis]
            image = sum(t * padded.take(range(k, k + n), axis) for k, t in enumerate(taps / taps.sum()))
    if settings.noise:
        image = image + rng.uniform(0, settings.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return {**clip, "image": np.clip(np.round(image), 0, 255).astype(np.uint8)}


def occlude(clip: Clip, rng: np.random.Generator, other: Mapping[str, Any] | None = None) -> Clip:
    """A box over the pictures; keypoints under it are not visible, depth and segmentation are 0 there.

    Args:
        clip: with pictures.
        rng: where and how large: up to a sixth of the picture.
        other: a clip whose picture fills the box.
    """
    height, width = clip["image"].shape[2:4]
    area, ratio = rng.uniform(0.02, 0.16) * height * width, np.exp(rng.uniform(-0.8, 0.8))
    h, w = int(np.clip(np.sqrt(area * ratio), 2, height)), int(np.clip(np.sqrt(area / ratio), 2, width))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    box = np.s_[:, :, top : top + h, left : left + w]
    out: Clip = {**clip, "image": clip["image"].copy()}
    if other is not None:
        fill = np.asarray(Image.fromarray(other["image"][0, 0]).resize((width, height)))[top : top + h, left : left + w]
    elif rng.random() < 0.5:
        fill = rng.integers(0, 256, (3,), dtype=np.uint8)
    else:
        fill = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    out["image"][box] = fill
    for key in ("depth", "segmentation"):
        if key in clip:
            out[key] = clip[key].copy()
            out[key][box] = 0

    def hide(hand: Mapping[str, Any]) -> dict[str, Any]:
        if "keypoints2d" not in hand or "visible" not in hand:
            return dict(hand)
        u, v = np.moveaxis(hand["keypoints2d"], -1, 0)
        under = (u >= left - 0.5) & (u < left + w - 0.5) & (v >= top - 0.5) & (v < top + h - 0.5)
        return {**hand, "visible": np.where(under, 0, hand["visible"]).astype(np.float32)}

    if "hands" in clip:
        out["hands"] = {side: hide(hand) for side, hand in clip["hands"].items()}
    if "people" in clip:
        out["people"] = [{side: hide(hand) for side, hand in hands.items()} for hands in clip["people"]]
    return out


def _warp_picture(
    picture: np.ndarray, pixels: np.ndarray, size: tuple[int, int], sampling: Image.Resampling
) -> np.ndarray:
    smaller = int(1 / max(float(np.sqrt(abs(np.linalg.det(pixels[:, :2])))), 1e-3))
    if smaller > 1 and sampling == Image.Resampling.BILINEAR:  # or what lies between the samples would be lost
        height, width = (n // smaller * smaller for n in picture.shape[:2])
        if height and width:
            blocks = picture[:height, :width].reshape(height // smaller, smaller, width // smaller, smaller, -1)
            picture = blocks.mean((1, 3)).round().astype(picture.dtype)
            # centre of block k is old pixel smaller * k + (smaller - 1) / 2
            offset = pixels[:, :2].sum(1) * (smaller - 1) / 2
            pixels = np.concatenate([pixels[:, :2] * smaller, (pixels[:, 2] + offset)[:, None]], 1)
    back = np.linalg.inv(np.concatenate([pixels, [[0, 0, 1]]]))
    # PIL's pixels are centred at one half
    half = back[:2, :2].sum(1) / 2
    data = (*back[0, :2], back[0, 2] - half[0] + 0.5, *back[1, :2], back[1, 2] - half[1] + 0.5)
    image = Image.fromarray(picture)
    return np.asarray(image.transform(size[::-1], Image.Transform.AFFINE, data, resample=sampling))


def _warp_cameras(camera: Mapping[str, Any], maps: np.ndarray) -> dict[str, Any]:
    """K' upper triangular and a roll that together do what the map does after K: its linear part times that of K,
    decomposed into a triangle and a rotation.
    """
    out = dict(camera)
    K = np.asarray(camera["K"], np.float64)
    turned = maps[:, :2, :2] @ K[..., :2, :2]
    a, b = turned[..., 1, 0], turned[..., 1, 1]
    length = np.hypot(a, b)
    c, s = b / length, a / length
    R = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)  # turned = triangle @ R
    triangle = turned @ np.swapaxes(R, -1, -2)
    new = np.zeros_like(K)
    new[..., :2, :2] = triangle
    new[..., 1, 0] = 0
    new[..., :2, 2] = np.einsum("vij,...vj->...vi", maps[:, :2, :2], K[..., :2, 2]) + maps[:, :2, 2]
    new[..., 2, 2] = 1
    out["K"] = new.astype(np.float32)
    roll = np.zeros((*R.shape[:-2], 4, 4))
    roll[..., :2, :2] = R
    roll[..., 2, 2] = roll[..., 3, 3] = 1
    if "T_cam_world" in camera:
        out["T_cam_world"] = (roll @ np.asarray(camera["T_cam_world"], np.float64)).astype(np.float32)
    if "distortion" in camera:  # radial terms are round; the tangential pair (p2, p1) turns like a vector
        d = np.array(camera["distortion"])
        p2, p1 = np.moveaxis(np.einsum("...ij,...j->...i", R, np.stack([d[..., 3], d[..., 2]], -1)), -1, 0)
        d[..., 2], d[..., 3] = p1, p2
        out["distortion"] = d.astype(np.float32)
    return out


def _warp_hand(hand: Mapping[str, Any], maps: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    out = dict(hand)
    if "keypoints2d" in hand:
        uv = np.einsum("vij,tvkj->tvki", maps[:, :2, :2], hand["keypoints2d"]) + maps[None, :, None, :, 2]
        if "confidence" in hand:
            uv = np.where(np.asarray(hand["confidence"])[..., None] > 0, uv, 0)
        out["keypoints2d"] = uv.astype(np.float32)
        if "visible" in hand:
            inside = np.all((uv > -0.5) & (uv < np.array(size[::-1]) - 0.5), -1)
            out["visible"] = (hand["visible"] * inside).astype(np.float32)
    return out


def _flip_hand(hand: Mapping[str, Any], width: int | None) -> dict[str, Any]:
    out = dict(hand)
    if "keypoints3d" in hand:
        out["keypoints3d"] = hand["keypoints3d"] * _POINT
    if "keypoints2d" in hand:
        if width is None:
            raise ValueError("flip: a clip with keypoints2d but without pictures does not say how wide they are")
        uv = hand["keypoints2d"].copy()
        uv[..., 0] = width - 1 - uv[..., 0]
        if "confidence" in hand:
            uv = np.where(np.asarray(hand["confidence"])[..., None] > 0, uv, 0).astype(np.float32)
        out["keypoints2d"] = uv
    if "params" in hand:
        params = dict(hand["params"])
        for key in ("global_orient", "hand_pose"):
            params[key] = params[key] * -_POINT
        params["transl"] = params["transl"] * _POINT
        out["params"] = params
    return out


def _mirror_transforms(T: np.ndarray) -> np.ndarray:
    mirror = np.ones((4, 4), np.float32)
    mirror[:3, :3] = _ROTATION
    mirror[:3, 3] = _POINT
    return T * mirror


def _swap_segments(ids: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """What was named right is left."""
    swapped = np.arange(256, dtype=np.uint8)
    for number, name in enumerate(names):
        other = name.replace("right", "\0").replace("left", "right").replace("\0", "left")
        if other in names:
            swapped[number] = names.index(other)
    return swapped[ids]
