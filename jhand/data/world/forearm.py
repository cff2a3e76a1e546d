"""A forearm behind a hand, bare or sleeved: the hand's mesh ends at the wrist, people do not."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import so3_exp
from jhand.hand.model import HandModel

HIGHEST = lax.Precision.HIGHEST
# Rings after the wrist's own: how far each is from the one before, metres (the last goes on to the shoulder, straight);
# how wide beside the wrist, as forearms swell towards the elbow; and how much of the wrist's bend is done
_STEPS = (0.010, 0.013, 0.030, 0.070, 0.120, 0.450)
_WIDTHS = (0.99, 1.0, 1.06, 1.28, 1.45, 1.6)
_BENT = (0.35, 0.7, 1.0, 1.0, 1.0, 1.0)
_SLEEVE = 1.18


def wrist_loop(hand: HandModel) -> tuple[int, ...]:
    """Vertices around a hand's opening at the wrist, in order; found once, outside of jit."""
    faces = np.asarray(hand.faces)
    edges = {(int(a), int(b)) for f in faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))}
    ahead = {b: a for a, b in edges if (b, a) not in edges}  # along the hole, the forearm's side
    start = at = min(ahead)
    loop = [start]
    while (at := ahead[at]) != start:
        loop.append(at)
    if len(loop) != len(ahead):
        raise ValueError(f"hand {hand.name}: its mesh has more than one opening")
    return tuple(loop)


def towards_elbow(hand: HandModel) -> Float[Array, "3"]:
    """From a hand towards its elbow if the wrist is straight, of length one, in the rest frame."""
    away = hand.joint_basis[0, 0] - hand.joint_basis[0, 4]
    return away / jnp.linalg.norm(away)


def forearm_faces(num_vertices: int, loop: tuple[int, ...]) -> np.ndarray:
    """Triangles (F, 3) between the wrist loop and the rings that follow a mesh's `num_vertices` own vertices."""
    n = len(loop)
    rings = [np.array(loop)] + [num_vertices + k * n + np.arange(n) for k in range(len(_STEPS))]
    triangles = []
    for a, b in pairwise(rings):
        a1, b1 = np.roll(a, -1), np.roll(b, -1)
        triangles += [np.stack([a, a1, b], -1), np.stack([a1, b1, b], -1)]
    return np.concatenate(triangles).astype(np.int32)


def forearm_rings(loop_points: ArrayLike, away: ArrayLike, bend: ArrayLike, sleeve: ArrayLike) -> Float[Array, "n 3"]:
    """Vertices of the rings of one forearm, in the wrist frame.

    Args:
        loop_points: (L, 3) metres, the wrist's loop, wrist frame.
        away: (3,) of length one: from the hand towards the elbow, if the wrist is straight.
        bend: (3,) axis-angle of the forearm beside the hand.
        sleeve: 1 with a sleeve, from the third ring on, else 0.

    Returns:
        (rings * L, 3) metres.
    """
    loop, d = jnp.asarray(loop_points), jnp.asarray(away)
    centre = jnp.mean(loop, 0)
    rings = []
    at = centre
    for number, (step, width, bent) in enumerate(zip(_STEPS, _WIDTHS, _BENT, strict=True)):
        R = so3_exp(bent * jnp.asarray(bend))
        at = at + step * jnp.matmul(R, d, precision=HIGHEST)
        wide = width * (1 + (_SLEEVE - 1) * jnp.asarray(sleeve) * (number >= 2))
        rings.append(at + wide * jnp.einsum("ij,lj->li", R, loop - centre, precision=HIGHEST))
    return jnp.concatenate(rings)


def forearm_colours(loop_colours: ArrayLike, cloth: ArrayLike, sleeve: ArrayLike) -> Float[Array, "n 3"]:
    """Linear RGB of the rings' vertices: skin of the wrist (L, 3), then cloth (3,) where there is a sleeve."""
    skin = jnp.broadcast_to(jnp.mean(jnp.asarray(loop_colours), 0), jnp.asarray(loop_colours).shape)
    dressed = jnp.where(jnp.asarray(sleeve) > 0, jnp.broadcast_to(jnp.asarray(cloth), skin.shape), skin)
    return jnp.concatenate([skin if number < 2 else dressed for number in range(len(_STEPS))])
