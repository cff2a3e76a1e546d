"""Palms in pictures: MediaPipe's detector, from pixels to boxes and keypoints."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.track.networks import PALM_SIZE, Networks, palm_outputs
from jhand.track.regions import checked_images, crop_each, points_in_image, whole_picture

_OVERLAP = 0.3
"""Boxes that overlap more are one palm."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Detections:
    """Palms in a picture, in slots, best first; where there are fewer, all is 0."""

    score: Float[Array, "*b n"]
    """From 0 to 1; 0 where a slot is empty."""
    box: Float[Array, "*b n 4"]
    """Left, top, width and height, pixels: of the palm, not of the hand."""
    keypoints: Float[Array, "*b n 7 2"]
    """Pixels: wrist, knuckles of the index, middle, ring and little finger, first and second joint of the thumb."""

    @property
    def present(self) -> Bool[Array, "*b n"]:
        """Which slots hold a palm."""
        return self.score > 0


@partial(jax.jit, static_argnames="num_palms")
def detect(
    networks: Networks, images: ArrayLike, *, num_palms: int = 2, threshold: float | Float[Array, ""] = 0.5
) -> Detections:
    """Palms in pictures.

    Each picture is shrunk to 192 x 192 within black borders, without smoothing, as the detector was made for it.
    Overlapping detections become their mean, weighted by their scores (weighted non-maximum suppression).

    Args:
        networks: from `load_networks`.
        images: (..., H, W, 3), red first: uint8, or floats from 0 to 1.
        num_palms: slots of a picture.
        threshold: the least score.

    Returns:
        Leading axes (..., num_palms).

    Raises:
        ValueError: images of another shape or type.
    """
    x = checked_images(images)
    flat = x.reshape(-1, *x.shape[-3:])
    found = detect_rows(networks, flat, jnp.arange(len(flat)), num_palms, threshold)
    return jax.tree.map(lambda a: a.reshape(*x.shape[:-3], *a.shape[1:]), found)


def no_palms(images: int, num_palms: int) -> Detections:
    """Empty slots (images, num_palms)."""
    shape = images, num_palms
    return Detections(score=jnp.zeros(shape), box=jnp.zeros((*shape, 4)), keypoints=jnp.zeros((*shape, 7, 2)))


def detect_rows(
    networks: Networks, images: Array, rows: Array, num_palms: int, threshold: float | Array
) -> Detections:  # fmt: skip
    """`detect` in `images[rows]`, of images (M, H, W, 3) and rows (K,)."""
    height, width = images.shape[1:3]
    square = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(rows), *a.shape)), whole_picture((height, width)))
    logits, values = palm_outputs(networks.palm, crop_each(images, rows, square, PALM_SIZE, "zeros"))
    scores = jax.nn.sigmoid(jnp.clip(logits, -100, 100))
    # centre, size and keypoints, each x and y; all but the size lie about the anchor
    pairs = (values / PALM_SIZE).reshape(len(rows), -1, 9, 2)
    points = pairs + jnp.asarray(_anchors())[:, None]
    centre, size = points[:, :, 0], pairs[:, :, 1]
    corners = jnp.concatenate([centre - size / 2, centre + size / 2], -1)
    found = jnp.concatenate([corners, points[:, :, 2:].reshape(*scores.shape, 14)], -1)
    score, found = jax.vmap(_suppress, (0, 0, None, None))(scores, found, num_palms, threshold)
    # points of the square become pixels of the image
    where = points_in_image(square, found.reshape(len(rows), -1, 2)).reshape(len(rows), num_palms, 9, 2)
    where = jnp.where(score[..., None, None] > 0, where, 0)
    low, high = where[..., 0, :], where[..., 1, :]
    return Detections(score=score, box=jnp.concatenate([low, high - low], -1), keypoints=where[..., 2:, :])


def _suppress(scores: Array, found: Array, slots: int, threshold: float | Array) -> tuple[Array, Array]:
    """Best scores (slots,) of those (A,) given, and what was found there and nearby, (slots, 18) of (A, 18)."""
    low, high = found[:, :2], found[:, 2:4]

    def take(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        best = jnp.argmax(jnp.where(left, scores, -1))
        common = jnp.prod(jnp.clip(jnp.minimum(high, high[best]) - jnp.maximum(low, low[best]), 0), -1)
        area = jnp.prod(high - low, -1)
        near = common > _OVERLAP * (area + area[best] - common)
        near = left & near.at[best].set(True)
        weights = jnp.where(near, scores, 0)
        mean = weights @ found / jnp.maximum(jnp.sum(weights), 1e-9)
        return left & ~near, (jnp.where(left[best], scores[best], 0), mean)

    candidates = (scores >= threshold) & jnp.all(high >= low, -1)
    return jax.lax.scan(take, candidates, None, slots)[1]


def _anchors() -> np.ndarray:
    """Centres (2016, 2) of the anchors, from 0 to 1: two for each cell of a grid of 24 x 24, six of 12 x 12."""
    grids = []
    for cells, each in ((24, 2), (12, 6)):
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) + 0.5, each, axis=0) / cells)
    return np.concatenate(grids).astype(np.float32)
