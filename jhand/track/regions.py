"""Rotated squares in a picture: where a hand is looked for, cut out, and put back.

Pixels have their centres at integers, so a picture of width W reaches from -0.5 to W - 0.5. MediaPipe's normalised x is
(u + 0.5) / W here, everywhere. Its own CPU code cuts crops in a way that takes the corner of the first pixel for its
centre: against what it says, landmarks here lie (s - 1) / 2 pixels nearer to the crop's upper left corner, where s is
the size of a crop's pixel in the picture.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

# Of MediaPipe's graphs: how much larger than what was found a region is, and how far it is moved towards the fingers,
# in sides of what was found.
_FROM_PALM = (2.6, 0.5)
_FROM_KEYPOINTS = (2.0, 0.1)
# The keypoints that move little as fingers bend: wrist, thumb but for its tip, the two lower joints of each finger.
_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Region:
    """Rotated squares of a picture."""

    centre: Float[Array, "*b 2"]
    """Pixels."""
    side: Float[Array, "*b"]
    """Pixels."""
    angle: Float[Array, "*b"]
    """Radians by which the square is turned clockwise as one sees it, from x to y."""


def whole_picture(size: tuple[int, int]) -> Region:
    """The square around a picture of `size` (height, width)."""
    height, width = size
    return Region(
        centre=jnp.array([(width - 1) / 2, (height - 1) / 2], jnp.float32),
        side=jnp.array(max(size), jnp.float32),
        angle=jnp.zeros(()),
    )


@jax.jit
def region_from_palm(box: ArrayLike, keypoints: ArrayLike) -> Region:
    """The region of a whole hand, fingers up, from its palm.

    Args:
        box: (..., 4) left, top, width and height, pixels.
        keypoints: (..., 7, 2) of the palm, pixels: the first is the wrist, the third the middle finger's knuckle.

    Returns:
        Leading axes (...). MediaPipe's `PalmDetectionDetectionToRoi`.
    """
    b, p = jnp.asarray(box, jnp.float32), jnp.asarray(keypoints, jnp.float32)
    angle = _upright(p[..., 2, :] - p[..., 0, :])
    return _grown(b[..., :2] + b[..., 2:] / 2, b[..., 2:], angle, *_FROM_PALM)


@jax.jit
def region_from_keypoints(keypoints: ArrayLike) -> Region:
    """The region of a hand, fingers up, from its 21 keypoints: where a tracker looks in the next picture.

    Args:
        keypoints: (..., 21, 2), pixels.

    Returns:
        Leading axes (...). MediaPipe's `HandLandmarkLandmarksToRoi`.
    """
    p = jnp.asarray(keypoints, jnp.float32)
    fingers = ((p[..., 5, :] + p[..., 13, :]) / 2 + p[..., 9, :]) / 2
    angle = _upright(fingers - p[..., 0, :])
    steady = turned(p[..., jnp.array(_STEADY), :], -angle[..., None])
    low, high = jnp.min(steady, -2), jnp.max(steady, -2)
    return _grown(turned((low + high) / 2, angle), high - low, angle, *_FROM_KEYPOINTS)


def boxes_around(keypoints2d: ArrayLike, confidence: ArrayLike, margin: float = 1.5) -> Float[Array, "*b 4"]:
    """Squares around what is seen of hands: left, top, width, height.

    Args:
        keypoints2d: (..., 21, 2) pixels.
        confidence: (..., 21); joints of 0 are not seen.
        margin: sides over the longer extent of the points.
    """
    x, seen = jnp.asarray(keypoints2d), jnp.asarray(confidence)[..., None] > 0
    low, high = jnp.min(jnp.where(seen, x, jnp.inf), -2), jnp.max(jnp.where(seen, x, -jnp.inf), -2)
    any_seen = jnp.any(seen, -2)
    centre = jnp.where(any_seen, (low + high) / 2, 0)
    side = margin * jnp.max(jnp.where(any_seen, high - low, 0), -1, keepdims=True)
    return jnp.concatenate([centre - side / 2, side, side], -1)


def regions_of_boxes(boxes: ArrayLike) -> Region:
    """Upright regions of squares (..., 4): left, top, width, height; one without size is a pixel wide."""
    b = jnp.asarray(boxes, jnp.float32)
    return Region(b[..., :2] + b[..., 2:] / 2, jnp.maximum(b[..., 2], 1.0), jnp.zeros(b.shape[:-1]))


@jax.jit
def overlap(a: Region, b: Region) -> Float[Array, "*b"]:
    """Intersection over union of the squares as if they were not turned, as MediaPipe compares them.

    Args:
        a: leading axes (...), which broadcast with those of b.
        b: leading axes (...).
    """
    apart = jnp.abs(a.centre - b.centre)
    reach = (a.side + b.side)[..., None] / 2 - apart
    smaller = jnp.minimum(a.side, b.side)[..., None]
    common = jnp.prod(jnp.clip(reach, 0, smaller), -1)
    return common / jnp.maximum(a.side**2 + b.side**2 - common, 1e-9)


@partial(jax.jit, static_argnames=("size", "outside"))
def crop(
    images: ArrayLike, regions: Region, size: int, *, outside: Literal["zeros", "border"] = "border"
) -> Float[Array, "*b size size c"]:
    """Pictures of regions, read bilinearly; differentiable with respect to the images and the regions.

    Args:
        images: (..., H, W, 3): uint8, or floats from 0 to 1.
        regions: one of each image, leading axes (...), or several, (..., N).
        size: side of the crop, pixels.
        outside: what lies beyond the image: 0, or what its border shows.

    Returns:
        (..., size, size, 3), or (..., N, size, size, 3), from 0 to 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    x = checked_images(images)
    batch, batch_of_regions = x.shape[:-3], regions.side.shape
    if batch_of_regions[: len(batch)] != batch or len(batch_of_regions) > len(batch) + 1:
        raise ValueError(
            f"regions: expected leading axes {batch} like those of the images, or one more, got {batch_of_regions}"
        )
    each = math.prod(batch_of_regions[len(batch) :])
    which = jnp.repeat(jnp.arange(math.prod(batch)), each)
    crops = crop_each(x.reshape(-1, *x.shape[-3:]), which, flattened(regions), size, outside)
    return crops.reshape(*batch_of_regions, *crops.shape[1:])


def crop_each(
    images: Array, which: Int[Array, "k"], regions: Region, size: int, outside: Literal["zeros", "border"]
) -> Float[Array, "k size size c"]:
    """`crop` of K regions, the k-th of `images[which[k]]`, of images (M, H, W, C), which are not copied for it."""
    height, width = images.shape[1:3]
    across = (jnp.arange(size) + 0.5) / size
    grid = jnp.stack(jnp.broadcast_arrays(across, across[:, None]), -1)  # x, y
    points = points_in_image(regions, grid.reshape(-1, 2)[None])  # (K, size^2, 2)
    limit = jnp.array([width, height], jnp.float32)
    points = jnp.clip(points, 0, limit - 1) if outside == "border" else jnp.clip(points, -1, limit)
    low = jnp.floor(points)
    x_share, y_share = jnp.moveaxis(points - low, -1, 0)[..., None]
    x, y = jnp.moveaxis(low.astype(jnp.int32), -1, 0)

    def pixels(y: Array, x: Array) -> Array:
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        found = images[which[:, None], jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)].astype(jnp.float32)
        return found if outside == "border" else jnp.where(inside[..., None], found, 0)

    above = (1 - x_share) * pixels(y, x) + x_share * pixels(y, x + 1)
    below = (1 - x_share) * pixels(y + 1, x) + x_share * pixels(y + 1, x + 1)
    values = (1 - y_share) * above + y_share * below
    values = values / 255 if jnp.issubdtype(images.dtype, jnp.integer) else values
    return values.reshape(len(which), size, size, -1)


def points_in_image(regions: Region, points: ArrayLike) -> Float[Array, "*b k 2"]:
    """Where points of regions lie in the image.

    Args:
        regions: leading axes (...).
        points: (..., K, 2), from 0 to 1 across the region.

    Returns:
        (..., K, 2) pixels of the image.
    """
    from_centre = (jnp.asarray(points) - 0.5) * regions.side[..., None, None]
    return regions.centre[..., None, :] + turned(from_centre, regions.angle[..., None])


def checked_images(images: ArrayLike) -> Array:
    """Images (..., H, W, 3) as an array, or a ValueError."""
    x = jnp.asarray(images)
    if x.ndim < 3 or x.shape[-1] != 3 or 0 in x.shape:
        raise ValueError(f"images: expected (..., height, width, 3), red first, got {x.shape}")
    if x.dtype != jnp.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"images: expected uint8, or floats from 0 to 1, got {x.dtype}: convert them")
    return x


def flattened(regions: Region) -> Region:
    """One leading axis."""
    return Region(centre=regions.centre.reshape(-1, 2), side=regions.side.reshape(-1), angle=regions.angle.reshape(-1))


def _upright(direction: Array) -> Array:
    """The angle of a square in which `direction` (..., 2) points up."""
    return jnp.arctan2(direction[..., 0], -direction[..., 1])


def turned(points: Array, angle: Array) -> Array:
    """Points (..., 2) turned from x to y."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return jnp.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _grown(centre: Array, size: Array, angle: Array, scale: float, towards_fingers: float) -> Region:
    """MediaPipe's `RectTransformationCalculator`: a square on the longer side of a box (..., 2), moved and scaled."""
    up = jnp.stack([jnp.zeros_like(angle), -towards_fingers * size[..., 1]], -1)
    return Region(centre=centre + turned(up, angle), side=scale * jnp.max(size, -1), angle=angle)
