"""Where the world is seen from."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jhand.draws import between, normals, uniforms
from jhand.geometry.camera import Camera, make_camera
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import rigid, transform
from jhand.motion.keyframes import between_keyframes, move_points

HIGHEST = lax.Precision.HIGHEST


def look_at(eye: Array, target: Array, roll: Array | float = 0.0) -> Float[Array, "4 4"]:
    """`T_cam_world` of a camera at `eye` (3,) that looks at `target` (3,), level but for its roll, radians.

    The world's axes are those of a level camera: y down.
    """
    z = (target - eye) / jnp.linalg.norm(target - eye)
    x = jnp.cross(jnp.array([0.0, 1, 0]), z)
    x = x / jnp.maximum(jnp.linalg.norm(x), 1e-6)
    R = jnp.matmul(so3_exp(jnp.array([0.0, 0, 1]) * roll), jnp.stack([x, jnp.cross(z, x), z]), precision=HIGHEST)
    return rigid(R, -jnp.matmul(R, eye, precision=HIGHEST))


def standing(key: Array, points: Array, times: Array, size: tuple[int, int]) -> Camera:
    """A camera that does not move, on any side of what is to be seen, which fills 0.65 to 1.15 of the picture.

    Args:
        key: random key.
        points: (T, N, 3) metres, what is to be seen.
        times: (T,) seconds.
        size: height and width, pixels.

    Returns:
        A camera with leading axis (T,).
    """
    eye, target, roll, focal, lens = _somewhere(key, points, size)
    return _camera(focal, look_at(eye, target, 0.25 * roll), lens, size, times.shape)


def upright(key: Array, points: Array, times: Array, size: tuple[int, int]) -> Camera:
    """`standing`, rolled so that the first hand's fingers point up at the first instant, more or less: as the crops are
    that a tracker of hands makes.

    Args:
        key: random key.
        points: (T, N, 3) metres, what is to be seen: after wrists, the 21 keypoints of one hand.
        times: (T,) seconds.
        size: height and width, pixels.

    Returns:
        A camera with leading axis (T,).
    """
    eye, target, roll, focal, lens = _somewhere(key, points, size)
    wrist, middle = transform(look_at(eye, target), points[0, jnp.array([-21, -12])])
    up = middle / middle[2] - wrist / wrist[2]
    return _camera(focal, look_at(eye, target, _roll_up(up) + 0.25 * roll), lens, size, times.shape)


def facing(key: Array, points: Array, times: Array, size: tuple[int, int]) -> Camera:
    """A camera that does not move, before the palm of the first hand at the first instant, up to 45 degrees aside, and
    rolled so that the fingers point up, more or less: as the crops are that a tracker makes of a hand shown to it.

    Args:
        key: random key.
        points: (T, N, 3) metres, what is to be seen: after wrists, the 21 keypoints of one right hand.
        times: (T,) seconds.
        size: height and width, pixels.

    Returns:
        A camera with leading axis (T,).
    """
    eye, target, roll, focal, lens = _somewhere(key, points, size)
    wrist, index, middle, little = points[0, jnp.array([-21, -16, -12, -4])]
    palm = jnp.cross(index - wrist, little - wrist)
    aside = jax.random.normal(jax.random.fold_in(key, 1), (3,))
    direction = palm / jnp.linalg.norm(palm) + 0.4 * jnp.clip(aside, -1.4, 1.4)
    eye = target + jnp.linalg.norm(eye - target) * direction / jnp.linalg.norm(direction)
    up = jnp.matmul(look_at(eye, target)[:3, :3], middle - wrist, precision=HIGHEST)
    return _camera(focal, look_at(eye, target, _roll_up(up) + 0.25 * roll), lens, size, times.shape)


def _roll_up(direction: Array) -> Array:
    """The roll after which a direction (x, y, ...) of a level camera's picture points up in it."""
    return jnp.arctan2(-direction[0], -direction[1])


def _somewhere(key: Array, points: Array, size: tuple[int, int]) -> tuple[Array, Array, Array, Array, Array]:
    """Where a camera on any side is, what it looks at, a normal number for its roll, its focal length, its lens."""
    keys = jax.random.split(key)
    zoom, fill, around = uniforms(keys[0], (), (), ())
    above, aside, roll, lens = normals(keys[1], (), (3,), (), ())
    flat = points.reshape(-1, 3)
    centre = (jnp.max(flat, 0) + jnp.min(flat, 0)) / 2
    radius = jnp.max(jnp.linalg.norm(flat - centre, axis=-1))
    focal = jnp.exp(between(zoom, np.log(1.0), np.log(3.5))) * max(size)
    distance = jnp.maximum(focal * radius / (0.5 * between(fill, 0.65, 1.15) * min(size)), radius + 0.05)
    around, above = 2 * jnp.pi * around, 0.45 * jnp.clip(above, -2, 2)
    away = jnp.stack([jnp.cos(above) * jnp.sin(around), -jnp.sin(above), jnp.cos(above) * jnp.cos(around)])
    lens = jnp.zeros(8).at[0].set(0.05 * lens)
    return centre + distance * away, centre + 0.15 * radius * aside, roll, focal, lens


def head_mounted(key: Array, points: Array, times: Array, size: tuple[int, int]) -> Camera:
    """A wide camera on a head near the origin that looks towards the hands and moves as heads do.

    Args:
        key: random key.
        points: (T, N, 3) metres, what is looked at.
        times: (T,) seconds.
        size: height and width, pixels.

    Returns:
        A camera with leading axis (T,).
    """
    keys, number = jax.random.split(key), 12
    wide, lasts, rests, lens = uniforms(keys[0], (), (number,), (number,), ())
    eyes, gazes, rolls, aside = normals(keys[1], (number + 1, 3), (number + 1, 3), (number + 1,), (3,))
    focal = between(wide, 0.45, 0.8) * max(size)
    lasts = between(lasts, 0.3, 1.2)
    progress = between_keyframes(times, jnp.cumsum(lasts + 0.6 * rests) - lasts - 1.0, lasts)
    eye = move_points(progress, 0.02 * eyes)
    gaze = move_points(progress, 0.08 * gazes)
    T = jax.vmap(look_at)(eye, jnp.mean(points, (0, 1)) + 0.06 * aside + gaze, move_points(progress, 0.08 * rolls))
    lens = jnp.zeros(8).at[:2].set(jnp.array([-0.08, 0.01]) * lens)
    return _camera(focal, T, lens, size, times.shape)


def _camera(focal: Array, T: Array, lens: Array, size: tuple[int, int], batch: tuple[int, ...]) -> Camera:
    T, lens = jnp.broadcast_to(T, (*batch, 4, 4)), jnp.broadcast_to(lens, (*batch, 8))
    middle = jnp.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return make_camera(
        focal=jnp.broadcast_to(focal, (T.shape[0], 1)),
        principal=jnp.broadcast_to(middle, (T.shape[0], 2)),
        T_cam_world=T,
        distortion=lens,
    )
