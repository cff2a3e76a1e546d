"""Pictures of two hands and a box: what H2O's network of a grid is trained on where its recordings are not."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.contact.solids import KINDS, Solid, solid_faces, solid_vertices
from jhand.data.made import read_once
from jhand.data.object_actions import HALF_SIZES, OBJECTS, box_points
from jhand.data.world.backgrounds import clutter
from jhand.data.world.clips import draw_sensor, expose
from jhand.data.world.skin import make_skin_map, skin_colour
from jhand.draws import between, normals, uniforms, whole
from jhand.geometry.camera import make_camera, project
from jhand.geometry.rotations import so3_exp
from jhand.hand.anatomy import pose_from_angles, sample_angles
from jhand.hand.files import load_hand
from jhand.hand.kinematics import forward
from jhand.hand.model import HandParams
from jhand.render import Light, make_mesh, make_scene, render

HIGHEST = lax.Precision.HIGHEST
_hand = read_once(load_hand)
_marks = read_once(lambda: make_skin_map(load_hand()))
_PAINT = np.array(
    [
        [0.6, 0.08, 0.06],
        [0.05, 0.3, 0.6],
        [0.7, 0.55, 0.05],
        [0.08, 0.45, 0.12],
        [0.7, 0.7, 0.7],
        [0.25, 0.1, 0.4],
        [0.5, 0.25, 0.1],
        [0.03, 0.03, 0.04],
    ],
    np.float32,
)
"""Linear RGB of the objects, by class."""
_UPRIGHT = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)
"""Of a box that is not turned: one end to the right, the other to the left, onto the camera's axes."""


@dataclass(frozen=True)
class BoxScene:
    """What of `held_box` can be chosen."""

    size: int = 96
    """Side of the pictures, pixels."""
    field: float = 1.2
    """Focal length, in sides of the picture."""
    depth: tuple[float, float] = (0.45, 0.85)
    """Of the object, metres."""
    there: float = 0.85
    """How often each hand, and the object, is there at all."""
    holds: float = 0.7
    """How often a hand that is there holds an end of the object that is there."""
    turn: float = 1.2
    """How far boxes and hands are turned, radians about each axis, a standard deviation."""
    subjects: tuple[int, int] = (0, 30)
    """First and one past the last: a person's hands and skin are the same whenever they come."""


def box_colours(thing: Array, half_size: Array, surface: Array) -> Float[Array, "v 3"]:
    """Linear RGB of an object: its class's colour, with a lid at one end and a band along one side in two others.

    Of one colour alone a box looks the same from several sides, and which of its corners is which could not be told.

    Args:
        thing: () its class.
        half_size: (3,) of the box, metres.
        surface: (V, 3) places on it, in its own axes.
    """
    colours = jnp.asarray(_PAINT)
    band, lid = surface[:, 1:2] < -0.6 * half_size[1], surface[:, 2:] > 0.6 * half_size[2]
    return jnp.where(band, colours[thing - 3], jnp.where(lid, colours[thing - 1], colours[thing]))


def held_box(key: Array, scene: BoxScene) -> dict[str, Any]:
    """Two hands and a box in one picture; each may be missing, hands may hold an end of the box.

    Args:
        key: random key.
        scene: sizes and chances.

    Returns:
        `image` (S, S, 3) uint8 sRGB; `points` (3, 21, 3) metres in the axes of the camera, of the left hand, the right
        one and the object's control points, the first of each in the picture where `valid` (3,); `classes` (3,): what a
        hand holds and what the object is, from 1, or 0; `object`, its class from 0; `K` (3, 3); `subject`.
    """
    hand, marks = _hand(), _marks()
    keys = jax.random.split(key, 6)
    thing, subject, there, holds, long, deep, lamp, size = uniforms(keys[0], (), (), (3,), (2,), (2,), (), (2,), ())
    turns, place, ways, shade = normals(keys[1], (3, 3), (2,), (2, 3), (3,))
    thing, subject = whole(thing, 0, OBJECTS), whole(subject, *scene.subjects)
    there = there < scene.there

    half = jnp.asarray(HALF_SIZES)[thing] * between(size, 0.95, 1.05)
    z = between(deep, *scene.depth)
    centre = jnp.array([0.0, 0.0, 1.0]) * z + jnp.concatenate([jnp.clip(0.05 * place, -0.12, 0.12), jnp.zeros(1)])
    R = jnp.matmul(so3_exp(scene.turn * turns[0]), _UPRIGHT, precision=HIGHEST)
    moved = lambda points: jnp.einsum("ij,kj->ki", R, points, precision=HIGHEST) + centre  # noqa: E731
    control = moved(box_points(half))
    ends = moved(jnp.array([[0.0, 0, -0.8], [0.0, 0, 0.8]]) * half)

    own = jax.random.fold_in(jax.random.key(500), subject)
    betas = jnp.clip(jax.random.normal(own, (hand.num_betas,)), -2.5, 2.5)
    none = jnp.zeros((2, 3))
    pose = pose_from_angles(hand, sample_angles(keys[2], (2,)))
    mesh = forward(hand, HandParams(none, pose, jnp.broadcast_to(betas, (2, hand.num_betas)), none))
    mirrored = jnp.array([[[-1.0, 1, 1]], [[1.0, 1, 1]]])
    R_hands = so3_exp(scene.turn * turns[1:])

    def turned(x: Array) -> Array:
        return jnp.einsum("hij,hkj->hki", R_hands, mirrored * (x - mesh.keypoints[:, :1]), precision=HIGHEST)

    points, vertices = turned(mesh.keypoints), turned(mesh.vertices)
    holds = (holds < scene.holds) & there[2]
    # a hand that holds has its fingertips at an end; another is beside, the left one to the left
    ways = ways / jnp.linalg.norm(ways, axis=-1, keepdims=True)
    beside = centre + jnp.array([[-0.14, 0.0, 0.0], [0.14, 0.0, 0.0]]) + 0.1 * between(long, 0.2, 1.0)[:, None] * ways
    leftmost = jnp.where(ends[0, 0] < ends[1, 0], ends, ends[::-1])
    goes = jnp.where(holds[:, None], leftmost, beside) - jnp.mean(points[:, jnp.array([4, 8, 12])], 1)
    points, vertices = points + goes[:, None], vertices + goes[:, None]

    camera = make_camera(focal=jnp.full(1, scene.field * scene.size), principal=jnp.full(2, (scene.size - 1) / 2))
    skin = skin_colour(own, marks)
    surface = solid_vertices(Solid(jnp.array(KINDS.index("box")), half, jnp.ones(2)))
    box = moved(surface)
    behind = jnp.array([0.0, 0.0, -9.0])  # of the camera: what is not there
    shown = [jnp.where(is_there, x, x + behind) for is_there, x in zip(there, (*vertices, box), strict=True)]
    paint = jnp.clip(box_colours(thing, half, surface) * jnp.exp(0.15 * shade), 0.01, 0.95)
    faces = (hand.faces[:, ::-1], hand.faces, solid_faces())
    meshes = [make_mesh(*parts) for parts in zip(shown, faces, (skin, skin, paint), strict=True)]
    towards = jnp.array([lamp[0] - 0.5, -0.7, -0.6 - 0.4 * lamp[1]])
    lights = (Light(towards / jnp.linalg.norm(towards), jnp.full(3, 0.8)),)
    sides = (scene.size, scene.size)
    picture = render(make_scene(meshes, lights=lights), camera, sides)
    light = picture.rgb + (1 - picture.alpha[..., None]) * clutter(keys[3], sides)

    everything = jnp.concatenate([points, control[None]])
    uv = project(camera, everything[:, 0])
    inside = jnp.all((uv > -0.5) & (uv < scene.size - 0.5), -1)
    held = jnp.concatenate([holds, jnp.ones(1, bool)])
    return {
        "image": expose(keys[4], light, draw_sensor(keys[5])),
        "points": everything,
        "valid": there & inside,
        "classes": jnp.where(held, 1 + thing, 0),
        "object": thing,
        "K": camera.K,
        "subject": subject,
    }
