"""Pictures of two hands composed from pictures of single ones, as Ego2Hands' training set is (Lin et al., 2020,
arXiv 2011.07252).

A cut-out is a right hand with an alpha channel. Another one, mirrored, is the left hand. Both are turned, scaled and
moved, brought to one brightness, and laid over a background with soft borders; the hand with more energy, the nearer
one, lies on top, and one of which too little is left is not there.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

LABELS = ("background", "left", "right")


@dataclass(frozen=True)
class Composing:
    """How pictures are composed."""

    size: tuple[int, int] = (288, 512)
    """Height and width."""
    both: float = 0.8
    """How often there are two hands; else one, either as often."""
    turn: float = 0.5
    """Radians: hands are turned by up to this."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Of cut-outs."""
    shift: float = 0.15
    """Share of the picture's size by which hands are moved, at most."""
    brightness: tuple[float, float] = (40.0, 200.0)
    """Of the scene, mean grey level, from which that of each hand differs by up to a tenth."""
    blur: float = 0.3
    """How often a hand is blurred."""
    kernels: tuple[int, int] = (3, 11)
    """Sides of that blur, pixels, odd."""
    border: int = 7
    """Side of the blur of alpha, pixels."""
    energy: float = 20.0
    """Of the energy maps: standard deviation of their Gaussian, pixels (inferred)."""
    visible: float = 5000 / (288 * 512)
    """Share of the picture below which a hidden hand is removed."""


@dataclass(frozen=True)
class Composed:
    """A picture of up to two hands, and what is known of it."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    labels: np.ndarray
    """(H, W) uint8, index into `LABELS`."""
    energy: np.ndarray
    """(2, H, W) float32 from 0 to 1, of the left and the right hand: their masks, blurred, hidden parts included."""
    present: np.ndarray
    """(2,) bool, left and right."""
    to_picture: np.ndarray
    """(2, 3, 3): from pixels of each cut-out, as it was given, to those of the picture."""
    brightness: float
    """Of the scene."""


def compose_hands(
    rng: np.random.Generator,
    right: np.ndarray,
    left: np.ndarray,
    background: np.ndarray,
    settings: Composing = Composing(),
) -> Composed:
    """Two right hands as one picture of a right and a left hand.

    Args:
        rng: of all that is drawn; the same one composes the same picture.
        right: (h, w, 4) uint8, colour and alpha, of a right hand.
        left: likewise, of a right hand that will be mirrored.
        background: (H', W', 3) uint8 of any size.
        settings: how.

    Raises:
        ValueError: pictures of other shapes or types, or a cut-out that is empty.
    """
    for name, picture, channels in (("right", right, 4), ("left", left, 4), ("background", background, 3)):
        if picture.ndim != 3 or picture.shape[2] != channels or picture.dtype != np.uint8:
            raise ValueError(f"{name}: expected uint8 (h, w, {channels}), got {picture.dtype} {picture.shape}")
        if channels == 4 and not (picture[..., 3] > 127).any():
            raise ValueError(
                f"{name}: expected a cut-out with a hand in it, got one whose alpha is below 128 everywhere"
            )
    scene = float(rng.uniform(*settings.brightness))
    image = _at_brightness(_background(rng, background, settings), None, scene * rng.uniform(0.7, 1.3))
    layers, places = [], []
    for cut_out, mirrored in ((left, True), (right, False)):
        place = _place(rng, cut_out.shape[:2], mirrored, settings)
        layer = _warped(cut_out, place, settings.size)
        layer[..., :3] = _at_brightness(layer[..., :3], layer[..., 3] > 127, scene * rng.uniform(0.9, 1.1))
        if rng.random() < settings.blur:
            side = int(rng.integers(settings.kernels[0], settings.kernels[1] + 1)) | 1
            layer[..., :3] = np.asarray(Image.fromarray(layer[..., :3]).filter(ImageFilter.BoxBlur(side // 2)))
        layers.append(layer)
        places.append(place)
    masks = np.stack([layer[..., 3] > 127 for layer in layers])
    present = masks.any((1, 2)) & _drawn(rng, settings.both)
    energy = np.stack([_energy(mask & there, settings) for mask, there in zip(masks, present, strict=True)])
    above = int(energy[1].sum() >= energy[0].sum())  # 0 left, 1 right
    seen = masks & present[:, None, None]
    uncovered = seen[1 - above] & ~seen[above]
    if present.all() and uncovered.sum() < settings.visible * masks[0].size:
        present[1 - above], energy[1 - above], seen[1 - above] = False, 0, False
    labels = np.zeros(settings.size, np.uint8)
    for hand in (1 - above, above):
        if present[hand]:
            image = _over(layers[hand], image, settings)
            labels[seen[hand]] = hand + 1
    return Composed(image, labels, energy, present, np.stack(places), scene)


def _drawn(rng: np.random.Generator, both: float) -> np.ndarray:
    """Which of left and right there are."""
    drawn = rng.random()
    if drawn < both:
        return np.array([True, True])
    return np.array([True, False]) if drawn < (1 + both) / 2 else np.array([False, True])


def _place(rng: np.random.Generator, size: tuple[int, int], mirrored: bool, settings: Composing) -> np.ndarray:
    """From a cut-out's pixels to the picture's: its middle goes near the picture's, on the hand's own side."""
    height, width = settings.size
    scale = rng.uniform(*settings.scale) * min(height / size[0], width / size[1])
    angle = rng.uniform(-settings.turn, settings.turn)
    shift = rng.uniform(-settings.shift, settings.shift, 2) * [width, height]
    aside = -0.12 * width if mirrored else 0.12 * width
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = (np.array(size[::-1]) - 1) / 2
    target = (np.array([width, height]) - 1) / 2 + shift + [aside, 0]
    place = np.eye(3)
    place[:2, :2], place[:2, 2] = linear, target - linear @ middle
    return place


def _warped(cut_out: np.ndarray, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The cut-out in the picture; colours are weighted by alpha, so that what was around the hand does not show."""
    back = np.linalg.inv(place)
    back[:2, 2] += 0.5 - back[:2, :2] @ [0.5, 0.5]  # PIL's pixels have their centres at halves
    weighted = cut_out.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:] / 255
    planes = [
        np.asarray(
            Image.fromarray(weighted[..., k]).transform(
                size[::-1], Image.Transform.AFFINE, tuple(back[:2].ravel()), Image.Resampling.BILINEAR
            )
        )
        for k in range(4)
    ]
    alpha = planes[3]
    colour = [255 * plane / np.maximum(alpha, 1) for plane in planes[:3]]
    return np.clip(np.stack([*colour, alpha], -1).round(), 0, 255).astype(np.uint8)


def _at_brightness(colour: np.ndarray, mask: np.ndarray | None, wanted: float) -> np.ndarray:
    """Scaled so that the mean grey level, under the mask, is what is wanted."""
    grey = colour @ np.array([0.299, 0.587, 0.114])
    mean = grey.mean() if mask is None else grey[mask].mean() if mask.any() else wanted
    return np.clip(colour * (wanted / max(mean, 1.0)), 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, picture: np.ndarray, settings: Composing) -> np.ndarray:
    """A random part of a picture of the wanted proportions, mirrored half of the time."""
    height, width = picture.shape[:2]
    largest = min(height / settings.size[0], width / settings.size[1])
    share = rng.uniform(0.6, 1.0) * largest
    h, w = max(1, int(share * settings.size[0])), max(1, int(share * settings.size[1]))
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    part = Image.fromarray(picture[y : y + h, x : x + w]).resize(settings.size[::-1], Image.Resampling.BILINEAR)
    out = np.asarray(part)
    return out[:, ::-1] if rng.random() < 0.5 else out


def _energy(mask: np.ndarray, settings: Composing) -> np.ndarray:
    blurred = Image.fromarray((255 * mask).astype(np.uint8)).filter(ImageFilter.GaussianBlur(settings.energy))
    return np.asarray(blurred, np.float32) / 255


def _over(layer: np.ndarray, image: np.ndarray, settings: Composing) -> np.ndarray:
    alpha = Image.fromarray(layer[..., 3]).filter(ImageFilter.BoxBlur(settings.border // 2))
    share = np.minimum(np.asarray(alpha, np.float32), layer[..., 3])[..., None] / 255
    return (share * layer[..., :3] + (1 - share) * image + 0.5).astype(np.uint8)
