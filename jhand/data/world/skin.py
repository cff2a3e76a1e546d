"""Skin of hands and forearms, of any person: a colour for each vertex.

Two pigments darken a pale ground: melanin, more the shorter the wavelength, and blood, most in green (after Jacques,
Physics in Medicine and Biology 58, 2013, coarsely, for three bands). Creases, knuckles, nails and the paler palm are
marks on the rest hand.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.contact.grasping import link_axes, palmar_cosine
from jhand.draws import between, uniforms
from jhand.hand.model import PARENTS, HandModel

HIGHEST = lax.Precision.HIGHEST
# optical depth of a unit of pigment in red, green and blue; the ground they darken
_MELANIN = np.array([1.0, 1.3, 1.62], np.float32)
_BLOOD = np.array([0.25, 1.0, 0.75], np.float32)
_GROUND = np.array([0.86, 0.72, 0.62], np.float32)
_CREASE, _KNUCKLE = 0.0018, 0.007  # metres, half widths


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SkinMap:
    """Marks on the skin of a hand, 0 to 1 for each vertex."""

    palm: Float[Array, "v"]
    crease: Float[Array, "v"]
    knuckle: Float[Array, "v"]
    nail: Float[Array, "v"]
    rest: Float[Array, "v 3"]
    """Metres, where the vertex is on the rest hand: for patterns."""


def make_skin_map(hand: HandModel) -> SkinMap:
    """Where the marks of a hand's skin are, from its skeleton and its rest mesh."""
    v = np.asarray(hand.v_template, np.float64)
    joints = np.asarray(hand.joint_basis[0], np.float64)
    link = np.asarray(hand.weights).argmax(1)
    along, length, flexes_to = link_axes(hand)
    palmar = palmar_cosine(hand)

    crease, knuckle, nail = np.zeros(len(v)), np.zeros(len(v)), np.zeros(len(v))
    for joint in range(1, 16):
        near = (link == joint) | (link == PARENTS[joint])
        offset = v - joints[joint]
        ahead = offset @ along[joint]
        beside = np.linalg.norm(offset - ahead[:, None] * along[joint], axis=-1)
        here = near & (beside < 0.016)
        crease = np.maximum(crease, here * (palmar > 0) * np.exp(-((ahead / _CREASE) ** 2)))
        if joint % 3 != 0:
            knuckle = np.maximum(knuckle, here * (palmar < 0) * np.exp(-((ahead / _KNUCKLE) ** 2)))
        if joint % 3 == 0:  # the last link of a finger
            share = ahead / length[joint]
            side = np.abs(offset @ np.cross(flexes_to[joint], along[joint]))
            nail = np.maximum(nail, (link == joint) * (palmar < -0.5) * (share > 0.5) * (share < 0.95) * (side < 0.006))
    # two lines across the palm
    ahead = (v - joints[0]) @ along[0] / length[0]
    of_palm = (link == 0) & (palmar > 0.3)
    for at in (0.62, 0.85):
        crease = np.maximum(crease, of_palm * 0.7 * np.exp(-(((ahead - at) * length[0] / _CREASE) ** 2)))
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return SkinMap(f32(1 / (1 + np.exp(-6 * palmar))), f32(crease), f32(knuckle), f32(nail), hand.v_template)


def skin_colour(key: Array, marks: SkinMap) -> Float[Array, "v 3"]:
    """The skin of one person's hand, linear RGB of each vertex: tones from the lightest to the darkest, evenly.

    Args:
        key: the same for both hands of a person.
        marks: of the hand.
    """
    keys = jax.random.split(key)
    melanin, blood, strengths, phase, mottling, paint, painted = uniforms(keys[0], (), (), (3,), (6,), (2,), (3,), ())
    melanin, blood = between(melanin, 0.05, 2.6), between(blood, 0.05, 0.4)
    creases, knuckles, nails = between(strengths, 0.2, 1.0)
    # palms hold little melanin; mottling is a few waves over the rest hand
    waves = 150.0 * jax.random.normal(keys[1], (6, 3))
    mottled = jnp.mean(jnp.sin(jnp.matmul(marks.rest, waves.T, precision=HIGHEST) + 2 * jnp.pi * phase), -1)
    mottling = 0.25 * mottling
    dark = melanin * (1 - 0.6 * marks.palm) * (1 + mottling[0] * mottled) + 0.5 * creases * marks.crease
    dark = dark + 0.25 * melanin * knuckles * marks.knuckle
    red = blood * (1 + 0.4 * marks.palm + 0.5 * knuckles * marks.knuckle) + 0.15 * creases * marks.crease
    red = jnp.maximum(red + mottling[1] * 0.4 * mottled, 0)
    skin = _GROUND * jnp.exp(-dark[:, None] * _MELANIN - red[:, None] * _BLOOD)
    # a nail lets its bed shine through, pale at all tones; some are painted
    bed = _GROUND * jnp.exp(-(0.4 * melanin) * _MELANIN - (blood + 0.15) * _BLOOD)
    painted = painted < 0.12
    nail = jnp.where(painted, 0.8 * paint, bed)
    share = (marks.nail * jnp.where(painted, 1.0, nails))[:, None]
    return jnp.asarray(skin * (1 - share) + nail * share)
