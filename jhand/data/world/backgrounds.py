"""What is behind the hands: clutter drawn at random, or the user's own pictures."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

_SHAPES = 14
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def clutter(key: Array, size: tuple[int, int]) -> Float[Array, "h w 3"]:
    """A cluttered picture, linear RGB: a gradient, noise of several sizes, boxes, discs and stripes over each other.

    Args:
        key: random key.
        size: height and width.
    """
    keys = jax.random.split(key, 7)
    height, width = size
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    ends = _colours(keys[0], 2)
    angle = jax.random.uniform(keys[1], maxval=2 * jnp.pi)
    share = jax.nn.sigmoid(2 * (x * jnp.cos(angle) + y * jnp.sin(angle)))[..., None]
    picture = ends[0] * (1 - share) + ends[1] * share
    for octave, grid in enumerate((3, 6, 12, 24)):
        k = jax.random.fold_in(keys[2], octave)
        strength = 0.5 * jax.random.uniform(jax.random.fold_in(k, 1)) ** 2
        tint = 1 + 0.3 * jax.random.normal(jax.random.fold_in(k, 2), (3,))
        noise = jax.image.resize(jax.random.normal(k, (grid, grid)), size, "linear")
        picture = picture * jnp.exp(strength * noise[..., None] * tint)

    colours = _colours(keys[3], _SHAPES)
    numbers = jax.random.uniform(keys[4], (_SHAPES, 8))
    here = jax.random.bernoulli(keys[5], jax.random.uniform(keys[6]), (_SHAPES,))

    def cover(picture: Array, shape: tuple[Array, Array, Array]) -> tuple[Array, None]:
        (cx, cy, long, ratio, turn, kind, stripes, phase), colour, here = shape
        c, s = jnp.cos(jnp.pi * turn), jnp.sin(jnp.pi * turn)
        px, py = (x - 2.4 * cx + 1.2), (y - 2.4 * cy + 1.2)
        a = 0.08 + 0.9 * long**2
        b = a * (0.12 + 0.88 * ratio)
        u, v = (px * c + py * s) / a, (py * c - px * s) / b
        away = jnp.where(kind < 0.5, jnp.maximum(jnp.abs(u), jnp.abs(v)), jnp.sqrt(u * u + v * v))
        share = here * jax.nn.sigmoid((1 - away) * min(size) * b * 0.5)
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
    keys = jax.random.split(key, 4)
    given = jnp.asarray(pictures)
    number = jax.random.randint(keys[0], (), 0, given.shape[0])
    scale = jax.random.uniform(keys[1], (), minval=1.0, maxval=2.5) * jnp.array(
        [size[0] / given.shape[1], size[1] / given.shape[2]]
    )
    overhang = jnp.array(given.shape[1:3]) * scale - jnp.array(size)
    offset = -jax.random.uniform(keys[2], (2,)) * jnp.maximum(overhang, 0)
    flipped = jnp.where(jax.random.bernoulli(keys[3]), given[number], jnp.flip(given[number], 1))
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
    keys = jax.random.split(key, 3)
    vivid = jax.random.uniform(keys[0], (number, 1)) ** 1.5
    bright = jax.random.uniform(keys[1], (number, 1), minval=0.02, maxval=0.95) ** 1.5
    return bright * (1 - vivid + vivid * 1.5 * jax.random.uniform(keys[2], (number, 3)))
