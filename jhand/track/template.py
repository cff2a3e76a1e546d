"""A tracker that knows no class: whatever is in a box in one picture is looked for in the next.

Normalised cross-correlation with a template (Briechle and Hanebeck 2001) around the last box, at a few scales, as
discriminative trackers begin; the template follows slowly where the match is good. It stands for trackers of anything
with the same interface: `start_template(image, box)`, then `follow(template, image) -> (template, box, score)`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.track.regions import Region, checked_images, crop

_SIDE = 24  # of a template, pixels
_SEARCH = 48  # of where it is looked for, pixels of a template: twice its side
_SCALES = (0.94, 1.0, 1.06)
_SLOW = 0.1  # what a template takes over from a match
_SURE = 0.8  # correlation from which it does
_STAY = 0.98  # of the scores of other scales than the last one


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Template:
    """What is followed, and where it was."""

    pattern: Float[Array, "h w 3"]
    centre: Float[Array, "2"]
    """Pixels of the picture."""
    size: Float[Array, "2"]
    """Width and height of the box, pixels."""


@jax.jit
def start_template(image: ArrayLike, box: ArrayLike) -> Template:
    """Begin with what is in a box.

    Args:
        image: (H, W, 3) uint8, or floats from 0 to 1.
        box: (4,) left, top, width and height, pixels.
    """
    b = jnp.asarray(box, jnp.float32)
    centre, size = b[:2] + b[2:] / 2, jnp.maximum(b[2:], 4.0)
    return Template(_cut(checked_images(image), centre, jnp.max(size), _SIDE), centre, size)


@jax.jit
def follow(template: Template, image: ArrayLike) -> tuple[Template, Float[Array, "4"], Float[Array, ""]]:
    """Where it is in the next picture.

    Args:
        template: of `start_template` or of the picture before.
        image: (H, W, 3) uint8, or floats from 0 to 1.

    Returns:
        The template there, its box (4,), and the correlation, from -1 to 1: what is below about 0.5 is lost.
    """
    x = checked_images(image)
    side = jnp.max(template.size)

    def at(scale: Array) -> tuple[Array, Array]:
        seen = _cut(x, template.centre, 2 * scale * side, _SEARCH)
        found = correlate(seen, template.pattern)
        best = jnp.argmax(found)
        row, column = jnp.divmod(best, found.shape[1])
        refined = jnp.stack([column, row]) + _between_pixels(found, row, column)
        return found.reshape(-1)[best], (refined - (_SEARCH - _SIDE) / 2) * (scale * side / _SIDE)

    scores, moves = jax.vmap(at)(jnp.asarray(_SCALES))
    chosen = jnp.argmax(scores * jnp.where(jnp.asarray(_SCALES) == 1, 1.0, _STAY))
    score = scores[chosen]
    centre, size = template.centre + moves[chosen], template.size * jnp.asarray(_SCALES)[chosen]
    taken = jnp.where(score > _SURE, _SLOW, 0.0)
    pattern = template.pattern + taken * (_cut(x, centre, jnp.max(size), _SIDE) - template.pattern)
    return Template(pattern, centre, size), jnp.concatenate([centre - size / 2, size]), score


@partial(jax.jit, static_argnames="forwards")
def propagate(
    frames: ArrayLike, box: ArrayLike, start: ArrayLike, *, forwards: bool = True, least: ArrayLike = 0.5
) -> tuple[Float[Array, "t 4"], Float[Array, "t"]]:
    """Follow a box from one frame through all that come after it, or before it, until it is lost.

    Args:
        frames: (T, H, W, 3).
        box: (4,) in frame `start`.
        start: its number.
        forwards: whether to the last frame, else to the first.
        least: correlation below which it is lost, for good.

    Returns:
        Boxes (T, 4), 0 where there is none, and scores (T,), 0 likewise and 1 at the start.
    """
    x, first = jnp.asarray(frames), jnp.asarray(start, jnp.int32)
    number = x.shape[0]
    template = start_template(x[first], box)
    order = jnp.arange(number) if forwards else jnp.arange(number)[::-1]

    def step(state: tuple[Template, Array], t: Array) -> tuple[tuple[Template, Array], tuple[Array, Array]]:
        template, there = state
        after = t > first if forwards else t < first
        found, box, score = follow(template, x[t])
        there = there & (~after | (score >= least))
        moved = after & there
        template = jax.tree.map(lambda new, old: jnp.where(moved, new, old), found, template)
        return (template, there), (jnp.where(moved, box, 0), jnp.where(moved, score, 0))

    _, (boxes, scores) = lax.scan(step, (template, jnp.array(True)), order)
    boxes, scores = (boxes, scores) if forwards else (boxes[::-1], scores[::-1])
    return boxes.at[first].set(jnp.asarray(box, jnp.float32)), scores.at[first].set(1.0)


def correlate(image: ArrayLike, pattern: ArrayLike) -> Float[Array, "rows columns"]:
    """Normalised cross-correlation at every place where the pattern lies inside the image: from -1 to 1.

    Args:
        image: (H, W, C).
        pattern: (h, w, C), no larger.

    Returns:
        (H - h + 1, W - w + 1); 0 where the image does not vary.
    """
    x, p = jnp.asarray(image), jnp.asarray(pattern)
    p = p - jnp.mean(p)
    x = x - jnp.mean(x)

    def slide(image: Array, kernel: Array) -> Array:
        pair = image[None], kernel[..., None]
        return lax.conv_general_dilated(*pair, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0, ..., 0]

    ones = jnp.ones_like(p)
    total, squares = slide(x, ones), slide(x * x, ones)
    spread = jnp.sqrt(jnp.maximum(squares - total**2 / p.size, 0)) * jnp.linalg.norm(p)
    return jnp.where(spread > 1e-4, slide(x, p) / jnp.maximum(spread, 1e-4), 0.0)


def _cut(image: Array, centre: Array, side: Array, size: int) -> Array:
    return crop(image, Region(centre, side, jnp.zeros(())), size)


def _between_pixels(found: Array, row: Array, column: Array) -> Array:
    """Where the parabola through a maximum and its neighbours is highest, (x, y) from -0.5 to 0.5."""

    def offset(before: Array, here: Array, after: Array) -> Array:
        bend = before - 2 * here + after
        return jnp.clip(jnp.where(bend < -1e-6, (before - after) / (2 * jnp.minimum(bend, -1e-6)), 0), -0.5, 0.5)

    padded = jnp.pad(found, 1, mode="edge")
    r, c = row + 1, column + 1
    across = offset(padded[r, c - 1], padded[r, c], padded[r, c + 1])
    down = offset(padded[r - 1, c], padded[r, c], padded[r + 1, c])
    return jnp.stack([across, down])
