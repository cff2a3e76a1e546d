"""What is behind the hands: clutter drawn at random, or the user's own pictures."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.draws import between, normals, uniforms

_SHAPES = 14
_GRIDS = (3, 6, 12, 24)  # how coarse each layer of noise is
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def clutter(key: Array, size: tuple[int, int]) -> Float[Array, "h w 3"]:
    """A cluttered picture, linear RGB: a gradient, noise of several sizes, boxes, discs and stripes over each other.

    Args:
        key: random key.
        size: height and width.
    """
    keys = jax.random.split(key, 4)
    height, width = size
    angle, strengths, numbers, here, crowd = uniforms(keys[0], (), (len(_GRIDS),), (_SHAPES, 8), (_SHAPES,), ())
    tints, *octaves = normals(keys[1], (len(_GRIDS), 3), *((grid, grid) for grid in _GRIDS))
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    ends = _colours(keys[2], 2)
    angle = 2 * jnp.pi * angle
    share = jax.nn.sigmoid(2 * (x * jnp.cos(angle) + y * jnp.sin(angle)))[..., None]
    picture = ends[0] * (1 - share) + ends[1] * share
    noise = jnp.zeros((*size, 3))
    for octave, strength, tint in zip(octaves, strengths, tints, strict=True):
        smooth = jax.image.resize(octave, size, "cubic")
        noise = noise + 0.5 * strength**2 * smooth[..., None] * (1 + 0.3 * tint)
    picture = picture * jnp.exp(noise)

    colours = _colours(keys[3], _SHAPES)

    def cover(picture: Array, shape: tuple[Array, Array, Array]) -> tuple[Array, None]:
        (cx, cy, long, ratio, turn, kind, stripes, phase), colour, here = shape
        c, s = jnp.cos(jnp.pi * turn), jnp.sin(jnp.pi * turn)
        px, py = (x - 2.4 * cx + 1.2), (y - 2.4 * cy + 1.2)
        a = 0.08 + 0.9 * long**2
        b = a * (0.12 + 0.88 * ratio)
        u, v = (px * c + py * s) / a, (py * c - px * s) / b
        away = jnp.where(kind < 0.5, jnp.maximum(jnp.abs(u), jnp.abs(v)), jnp.sqrt(u * u + v * v))
        share = (here < crowd) * jax.nn.sigmoid((1 - away) * min(size) * b * 0.5)
        pattern = 1 + 0.6 * (stripes > 0.6) * jnp.sin((10 + 40 * phase) * u)
        return picture + share[..., None] * ((pattern * (1 + 0.3 * v))[..., None] * colour - picture), None

    picture, _ = lax.scan(cover, picture, (numbers, colours, here))
    return jnp.clip(picture, 0, 1.5)


def from_pictures(key: Array, pictures: ArrayLike, size: tuple[int, int]) -> Float[Array, "h w 3"]:
    """One of the user's pictures, cropped at random, linear RGB.

    Args:
        key: random key.
        pictures: (P, H, W, 3) uint8 sRGB, as `load_backgrounds` gives.
        size: height and width.
    """
    number, larger, offset, mirrored = uniforms(key, (), (), (2,), ())
    given = jnp.asarray(pictures)
    chosen = given[(number * given.shape[0]).astype(jnp.int32)]
    scale = between(larger, 1.0, 2.5) * jnp.array([size[0] / given.shape[1], size[1] / given.shape[2]])
    overhang = jnp.array(given.shape[1:3]) * scale - jnp.array(size)
    offset = -offset * jnp.maximum(overhang, 0)
    flipped = jnp.where(mirrored < 0.5, chosen, jnp.flip(chosen, 1))
    linear = (flipped / 255.0) ** 2.2
    return jax.image.scale_and_translate(linear, (*size, 3), (0, 1), scale, offset, "linear")


def load_backgrounds(folder: str | os.PathLike, size: int = 256, most: int = 1000) -> np.ndarray:
    """The user's pictures as backgrounds: squares (P, size, size, 3) of uint8.

    Args:
        folder: of pictures; those below it count too.
        size: pixels that the shorter side is resized to, and the longer cropped to.
        most: pictures that are read, in the order of their names.

    Raises:
        ValueError: a folder without a readable picture.
    """
    from PIL import Image, ImageOps  # here, since only this needs it

    found = []
    for path in sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _ENDINGS):
        try:
            with Image.open(path) as picture:
                found.append(np.asarray(ImageOps.fit(ImageOps.exif_transpose(picture).convert("RGB"), (size, size))))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # of many pictures a few may be damaged
        if len(found) == most:
            break
    if not found:
        raise ValueError(f"{folder}: expected pictures ({', '.join(_ENDINGS)}), found none that can be read")
    return np.stack(found)


def _colours(key: Array, number: int) -> Array:
    """Linear RGB (number, 3): from grey to vivid, from dark to bright."""
    vivid, bright, hue = uniforms(key, (number, 1), (number, 1), (number, 3))
    vivid = vivid**1.5
    return between(bright, 0.02, 0.95) ** 1.5 * (1 - vivid + vivid * 1.5 * hue)
