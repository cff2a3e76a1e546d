"""Articulated creatures: pictures with keypoints and a skeleton, of categories that differ in topology.

A creature is a random tree of 5 to 21 nodes: a spine, and limbs that are single or mirrored pairs, alike in colour, so
that left and right are told by the skeleton and by the whole alone. Category 0 is the hand, its 21 keypoints posed by
the library's hand. No two categories have the same tree, so categories held out are topologies never seen.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.data.made import read_once
from jhand.draws import between, normals, uniforms
from jhand.geometry.rotations import so3_exp
from jhand.hand.anatomy import pose_from_angles, sample_angles
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.model import HandParams
from jhand.hand.skeleton import bones

NODES = 21
HIGHEST = lax.Precision.HIGHEST
_hand = read_once(load_hand)


@dataclass(frozen=True)
class CreatureScene:
    """What of `creature_episode` can be chosen."""

    size: int = 64
    """Side of the pictures, pixels."""
    categories: tuple[int, ...] = tuple(range(24))
    """Numbers of the categories that episodes are drawn from, all as often."""
    shots: int = 1
    """Annotated pictures of each episode."""
    bend: float = 0.35
    """Standard deviation of joints' angles about those of the category, radians."""
    tilt: float = 0.4
    """Of limbs out of the picture."""
    turned: float = 0.5
    """Of the whole, in the picture."""
    patches: int = 3
    """Things before a creature, at most."""
    patch: tuple[float, float] = (0.1, 0.25)
    """Their sides, in sides of the picture."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Categories:
    """What all creatures of a category have in common; padded to 21 nodes."""

    valid: Float[Array, "*n 21"]
    adjacency: Float[Array, "*n 21 21"]
    """Which nodes a limb joins, 0 or 1."""
    upward: Float[Array, "*n 21 21"]
    """Row k: 1 for node k and all that it hangs on."""
    parent: Int[Array, "*n 21"]
    """The root is its own."""
    twin: Float[Array, "*n 21"]
    """Whether a node has a mirror image of the same look."""
    angle: Float[Array, "*n 21"]
    """Of the limb that ends in a node, to that before it."""
    length: Float[Array, "*n 21"]
    width: Float[Array, "*n 21"]
    """Radius of a limb, in mean lengths of limbs."""
    colours: Float[Array, "*n 21 2 3"]
    stripes: Float[Array, "*n 21 2"]
    """Of a limb: how many, and the phase."""
    hand: Float[Array, "*n"]
    """Whether it is the hand."""


def creature_episode(key: Array, scene: CreatureScene) -> dict[str, Any]:
    """Annotated pictures of a creature, and another picture of its category: trees of 5 to 21 nodes, and hands.

    Args:
        key: random key.
        scene: sizes and chances.

    Returns:
        `support_images` (S, H, W, 3) and `query_image` (H, W, 3) uint8; their keypoints `support_points` (S, 21, 2) and
        `query_points` (21, 2), from 0 to 1 across the picture, in an order that is random in each episode;
        `keypoints_valid` (21,) which of the 21 there are; `skeleton` (21, 21) uint8 0 or 1; of the query `hidden`,
        behind something, and `twin`, of a mirrored pair, (21,) each; `category`, its number.
    """
    each, once = jax.random.split(key)
    which, order = uniforms(once, (), (NODES,))
    number = jnp.array(scene.categories)[jnp.floor(len(scene.categories) * which).astype(jnp.int32)]
    kind = jax.tree.map(lambda leaf: leaf[number], categories(max(scene.categories) + 1))
    order = jnp.argsort(order)
    images, points, hidden = jax.vmap(lambda k: draw_creature(k, kind, scene))(jax.random.split(each, scene.shots + 1))
    images = jnp.round(255 * images).astype(jnp.uint8)
    return {
        "support_images": images[:-1],
        "support_points": points[:-1, order],
        "query_image": images[-1],
        "query_points": points[-1, order],
        "keypoints_valid": kind.valid[order] > 0,
        "skeleton": kind.adjacency[order][:, order].astype(jnp.uint8),
        "hidden": (hidden[-1] & (kind.valid > 0))[order],
        "twin": (kind.twin * kind.valid)[order] > 0,
        "category": number,
    }


def draw_creature(key: Array, kind: Categories, scene: CreatureScene) -> tuple[Array, Array, Array]:
    """One creature of a category before a random background.

    Args:
        key: random key.
        kind: without leading axes.
        scene: sizes and chances.

    Returns:
        A picture (H, W, 3) from 0 to 1; keypoints (21, 2) from 0 to 1 across it, 0 where there is none; and whether
        each lies behind another limb or a patch (21,).
    """
    keys = jax.random.split(key, 4)
    points = jnp.where(kind.hand > 0, _hand_points(keys[:2], scene), _tree_points(keys[0], kind, scene))  # (21, 3)
    fill, place, light = uniforms(keys[2], (), (2,), (3,))
    seen = kind.valid[:, None] > 0
    low = jnp.min(jnp.where(seen, points, jnp.inf), 0)[:2]
    high = jnp.max(jnp.where(seen, points, -jnp.inf), 0)[:2]
    scale = between(fill, 0.6, 0.9) / jnp.max(high - low)
    middle = 0.5 + (place - 0.5) * (1 - scale * (high - low)) * 0.8
    points = scale * (points - jnp.concatenate([(low + high) / 2, jnp.zeros(1)]))
    points = jnp.where(seen, points + jnp.concatenate([middle, jnp.zeros(1)]), 0)
    limb = jnp.linalg.norm(points - points[kind.parent], axis=-1)
    radius = kind.width * jnp.sum(limb) / jnp.maximum(jnp.sum(kind.valid) - 1, 1)
    image, hidden = _picture(keys[3], points, jnp.maximum(radius, 0.012), kind, between(light, 0.7, 1.1), scene)
    return image, points[:, :2], hidden


@lru_cache(maxsize=4)
def categories(number: int) -> Categories:
    """The first categories, the hand and trees: always the same ones.

    Args:
        number: how many, N.

    Returns:
        Leaves (N, ...).
    """
    rng, known, found = np.random.default_rng(0), {_form(_parents(bones("openpose21")))}, [_hand_category()]
    while len(found) < number:
        parent, twin = _random_tree(rng)
        if (form := _form(parent)) not in known:
            known.add(form)
            found.append(_category(rng, parent, twin))
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found[:number])


def _random_tree(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Parents of nodes, each after its parent, the root its own; and each node's mirror image, or itself."""
    parent, twin = [0], [0]
    spine = [0]
    for _ in range(rng.integers(1, 5)):
        parent.append(spine[-1])
        twin.append(len(twin))
        spine.append(len(parent) - 1)
    for _ in range(rng.integers(2, 7)):
        pair, limb, at = rng.random() < 0.7, int(rng.integers(1, 5)), int(rng.choice(spine))
        if len(parent) + limb * (1 + pair) > NODES:
            continue
        first = len(parent)
        for side in range(1 + pair):
            for k in range(limb):
                parent.append(at if k == 0 else len(parent) - 1)
                here = len(twin)
                twin.append(here if not pair else here + limb if side == 0 else first + k)
    return (parent, twin) if len(parent) >= 5 else _random_tree(rng)


def _form(parent: list[int]) -> str:
    """The same for trees that are alike, whatever their root: nested brackets from the middle outwards."""
    number = len(parent)
    near: list[set[int]] = [set() for _ in range(number)]
    for k, p in enumerate(parent):
        if k != p:
            near[k].add(p)
            near[p].add(k)

    def brackets(node: int, before: int) -> str:
        return "(" + "".join(sorted(brackets(n, node) for n in near[node] if n != before)) + ")"

    left, edge = set(range(number)), {k for k in range(number) if len(near[k]) <= 1}
    degree = [len(n) for n in near]
    while len(left) > 2:
        left -= edge
        further = set()
        for leaf in edge:
            for n in near[leaf] & left:
                degree[n] -= 1
                if degree[n] == 1:
                    further.add(n)
        edge = further
    return min(brackets(node, -1) for node in left)


def _category(rng: np.random.Generator, parent: list[int], twin: list[int]) -> Categories:
    """Looks and proportions of a tree."""
    number = len(parent)
    children = np.bincount([p for k, p in enumerate(parent) if k], minlength=number)
    angle, length, width = rng.normal(0, 0.3, number), rng.uniform(0.7, 1.4, number), rng.uniform(0.1, 0.28, number)
    colours, stripes = rng.uniform(0, 1, (number, 2, 3)), rng.uniform(0, 1, (number, 2))
    spine = 1 + next((k - 1 for k in range(1, number) if parent[k] != k - 1 or twin[k] != k), number - 1)
    for k in range(number):
        if k >= spine and parent[k] < spine:  # where a limb begins, it leaves the spine
            angle[k] = rng.uniform(0.6, 2.4) * (1 if twin[k] != k else rng.choice([-1, 1]))
    for k in range(number):
        if twin[k] < k:  # the mirror image of an earlier one
            first = twin[k]
            angle[k], length[k], width[k] = -angle[first], length[first], width[first]
            colours[k], stripes[k] = colours[first], stripes[first]
    assert children.sum() == number - 1
    return _padded(parent, np.array(twin) != np.arange(number), angle, length, width, colours, stripes, 0.0)


def _parents(edges: tuple[tuple[int, int], ...]) -> list[int]:
    parent = list(range(NODES))
    for a, b in edges:
        parent[b] = a
    return parent


def _hand_category() -> Categories:
    """Fingers look alike; lengths and angles are the library's hand's, and not read."""
    rng = np.random.default_rng(1)
    colours = np.broadcast_to(rng.uniform(0, 1, (2, 3)), (NODES, 2, 3))
    stripes = np.broadcast_to(rng.uniform(0, 1, 2), (NODES, 2))
    zeros, width = np.zeros(NODES), np.full(NODES, 0.25)
    return _padded(_parents(bones("openpose21")), zeros > 0, zeros, zeros, width, colours, stripes, 1.0)


def _padded(parent: list[int], twin, angle, length, width, colours, stripes, hand: float) -> Categories:
    number = len(parent)

    def pad(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float32)
        return np.concatenate([values, np.zeros((NODES - number, *values.shape[1:]), np.float32)])

    joined, upward = np.zeros((NODES, NODES), np.float32), np.eye(NODES, dtype=np.float32)
    for k, p in enumerate(parent):
        if k != p:
            joined[k, p] = joined[p, k] = 1
            upward[k] = np.maximum(upward[k], upward[p])
    with jax.ensure_compile_time_eval():
        return Categories(
            valid=jnp.asarray(pad(np.ones(number))),
            adjacency=jnp.asarray(joined),
            upward=jnp.asarray(upward),
            parent=jnp.asarray([*parent, *range(number, NODES)], jnp.int32),
            twin=jnp.asarray(pad(twin)),
            angle=jnp.asarray(pad(angle)),
            length=jnp.asarray(pad(length)),
            width=jnp.asarray(pad(width)),
            colours=jnp.asarray(pad(colours)),
            stripes=jnp.asarray(pad(stripes)),
            hand=jnp.asarray(hand, jnp.float32),
        )


def _tree_points(key: Array, kind: Categories, scene: CreatureScene) -> Array:
    """Nodes (21, 3) of a tree: each limb bends from that before it, and leans out of the picture."""
    bend, tilt, longer, turn = normals(key, (NODES,), (NODES,), (NODES,), ())
    root = kind.parent == jnp.arange(NODES)
    angle = kind.upward @ jnp.where(root, scene.turned * turn - jnp.pi / 2, kind.angle + scene.bend * bend)
    lean = scene.tilt * tilt
    way = jnp.stack([jnp.cos(angle) * jnp.cos(lean), jnp.sin(angle) * jnp.cos(lean), jnp.sin(lean)], -1)
    steps = jnp.where(root, 0, kind.length * jnp.exp(0.1 * longer))
    return jnp.matmul(kind.upward, steps[:, None] * way, precision=HIGHEST)


def _hand_points(keys: Array, scene: CreatureScene) -> Array:
    """Keypoints (21, 3) of a right hand whose palm or back is seen, fingers up, in units of about a bone."""
    hand = _hand()
    about, betas, turn, front = normals(keys[0], (3,), (hand.num_betas,), (), ())
    pose = pose_from_angles(hand, sample_angles(keys[1], ()))
    params = HandParams(jnp.zeros(3), pose, jnp.clip(betas, -2, 2), jnp.zeros(3))
    points = keypoints(hand, params)
    points = points - points[:1]
    # fingers up (-y), and the palm or the back to the camera
    middle, across = points[9], points[5] - points[17]
    up = -middle / jnp.linalg.norm(middle)
    side = across - up * jnp.dot(across, up)
    side = side / jnp.linalg.norm(side)
    side = side * jnp.where(front > 0, 1.0, -1.0)
    axes = jnp.stack([side, up, jnp.cross(side, up)])
    R = so3_exp(jnp.stack([scene.tilt * about[0], scene.tilt * about[1], scene.turned * turn]))
    return 30 * jnp.matmul(points, (R @ axes).T, precision=HIGHEST)


def _picture(
    key: Array, points: Array, radius: Array, kind: Categories, light: Array, scene: CreatureScene
) -> tuple[Array, Array]:
    """Limbs as capsules, the nearest in front (z away from the camera), on a background and behind patches."""
    keys = jax.random.split(key)
    number = scene.size
    patches = (scene.patches, 2)
    many, sides, corners, tints, *waves = uniforms(
        keys[0], (), patches, patches, (scene.patches, 3), (3,), (4, 3), (4, 2), (4,)
    )
    centre = (jnp.arange(number) + 0.5) / number
    pixels = jnp.stack([x.ravel() for x in jnp.meshgrid(centre, centre)])  # x and y of each
    a, b = points[kind.parent], points
    limb = kind.valid * (kind.parent != jnp.arange(NODES))

    def covering(spots: Array, number_of: ArrayLike) -> tuple[Array, Array, Array]:
        """Of a limb at spots (2, P): how far along, how covered from 0 to 1, and how far away, each (P,)."""
        start, along, wide = a[number_of], (b - a)[number_of], radius[number_of]
        dx, dy = spots[0] - start[0], spots[1] - start[1]
        share = (dx * along[0] + dy * along[1]) / jnp.maximum(along[0] ** 2 + along[1] ** 2, 1e-8)
        share = jnp.clip(share, 0, 1)
        off2 = jnp.square(dx - share * along[0]) + jnp.square(dy - share * along[1])
        cover = limb[number_of] * jnp.clip(0.5 + number * (wide - jnp.sqrt(off2)), 0, 1)
        away = start[2] + share * along[2] - jnp.sqrt(jnp.maximum(wide**2 - off2, 0))
        return share, cover, jnp.where(cover > 0, away, jnp.inf)

    def paint_over(below: tuple[Array, Array, Array, Array], which: Array) -> tuple[Any, None]:
        share, cover, away = covering(pixels, which)
        found = (jnp.full_like(share, which, jnp.int32), share, cover, away)
        return tuple(jnp.where(away < below[-1], x, y) for x, y in zip(found, below, strict=True)), None

    # limb after limb, so that what is kept of the pixels fits into a cache
    empty = jnp.zeros(number * number)
    start = (empty.astype(jnp.int32), empty, empty, jnp.full_like(empty, jnp.inf))
    (first, at, alpha, _), _ = lax.scan(paint_over, start, jnp.arange(NODES))
    one, other = kind.colours[first, 0], kind.colours[first, 1]
    count, phase = jnp.moveaxis(kind.stripes[first], -1, 0)
    wave = 0.5 + 0.5 * jnp.sin(2 * jnp.pi * ((1 + 2 * count) * at + phase))
    paint = light * (one + wave[:, None] * (other - one))
    behind = _background(pixels.T, *waves)
    picture = alpha[:, None] * paint + (1 - alpha[:, None]) * behind

    half = between(sides, *scene.patch) / 2
    there = jnp.arange(scene.patches) < jnp.floor(many * (scene.patches + 1))

    def inside(spots: Array) -> Array:
        return there & jnp.all(jnp.abs(spots.T[:, None] - corners) < half, -1)

    before = inside(pixels)
    for k in range(scene.patches):
        picture = jnp.where(before[:, k, None], tints[k], picture)
    noise = 0.03 * jax.random.normal(keys[1], picture.shape)
    # a keypoint is hidden where a limb is nearer than its own and those that it joins
    spots = points[:, :2].T
    over = jax.vmap(lambda which: covering(spots, which)[2], out_axes=-1)(jnp.arange(NODES))  # (21, 21)
    own = (jnp.eye(NODES) > 0) | (kind.parent[None] == jnp.arange(NODES)[:, None])
    nearest = jnp.min(jnp.where(own, over, jnp.inf), -1)
    hidden = (jnp.min(jnp.where(own, jnp.inf, over), -1) < nearest) | jnp.any(inside(spots), -1)
    return jnp.clip(picture + noise, 0, 1).reshape(number, number, 3), hidden


def _background(pixels: Array, base: Array, amount: Array, ways: Array, phases: Array) -> Array:
    """Colours (P, 3) of a few broad waves, as of things far out of focus."""
    waves = jnp.sin(2 * jnp.pi * (pixels @ (8 * (ways - 0.5)).T + phases))
    return between(base, 0.2, 0.8) + waves @ (0.15 * (amount - 0.5))
