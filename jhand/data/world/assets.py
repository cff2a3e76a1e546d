"""What can appear in the world, made once and handed to every function that draws from it."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from jhand.contact.grasping import grasping_skin
from jhand.contact.solids import solid_faces
from jhand.data.world.forearm import forearm_faces, wrist_loop
from jhand.data.world.skin import SkinMap, make_skin_map
from jhand.hand.files import load_hand
from jhand.hand.landmark_sets import LandmarkSet
from jhand.hand.model import HandModel


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Assets:
    """Both hands with what is known of their surface, the topology of things, and the user's backgrounds."""

    right: HandModel
    left: HandModel
    right_points: LandmarkSet
    """The right hand's skin that grasps."""
    right_skin: SkinMap
    left_skin: SkinMap
    arm_faces: tuple[Int[Array, "f 3"], Int[Array, "f 3"]]
    """Triangles of the right and left hand with their forearms."""
    solid_faces: Int[Array, "g 3"]
    backgrounds: UInt8[Array, "p h w 3"]
    """The user's pictures, sRGB; none: clutter is drawn."""
    loops: tuple[tuple[int, ...], tuple[int, ...]] = field(metadata={"static": True})
    """Vertices around the wrist of the right and left hand."""


def load_assets(level: str = "default", backgrounds: np.ndarray | None = None) -> Assets:
    """What can appear, from the built-in hands.

    Args:
        level: of detail of the hands, as in `jhand.load_hand`.
        backgrounds: the user's pictures (P, H, W, 3), as `load_backgrounds` gives; by default clutter is drawn.
    """
    right, left = load_hand(level=level), load_hand(side="left", level=level)
    loops = (wrist_loop(right), wrist_loop(left))
    faces = [
        jnp.concatenate([h.faces, jnp.asarray(forearm_faces(h.num_vertices, loop))])
        for h, loop in zip((right, left), loops, strict=True)
    ]
    return Assets(
        right,
        left,
        grasping_skin(right),
        make_skin_map(right),
        make_skin_map(left),
        (faces[0], faces[1]),
        solid_faces(),
        jnp.zeros((0, 1, 1, 3), jnp.uint8) if backgrounds is None else jnp.asarray(backgrounds),
        loops,
    )
