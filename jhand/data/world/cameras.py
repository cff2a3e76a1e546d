"""Where the world is seen from."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jhand.geometry.camera import Camera, make_camera
from jhand.geometry.rotations import so3_exp
from jhand.geometry.se3 import rigid
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
    keys = jax.random.split(key, 7)
    flat = points.reshape(-1, 3)
    centre = (jnp.max(flat, 0) + jnp.min(flat, 0)) / 2
    radius = jnp.max(jnp.linalg.norm(flat - centre, axis=-1))
    focal = jnp.exp(jax.random.uniform(keys[0], minval=jnp.log(1.0), maxval=jnp.log(3.5))) * max(size)
    fill = jax.random.uniform(keys[1], minval=0.65, maxval=1.15)
    distance = jnp.maximum(focal * radius / (0.5 * fill * min(size)), radius + 0.05)
    around = jax.random.uniform(keys[2], maxval=2 * jnp.pi)
    above = 0.45 * jax.random.truncated_normal(keys[3], -2.0, 2.0)
    away = jnp.stack([jnp.cos(above) * jnp.sin(around), -jnp.sin(above), jnp.cos(above) * jnp.cos(around)])
    aside = 0.15 * radius * jax.random.normal(keys[4], (3,))
    T = look_at(centre + distance * away, centre + aside, 0.25 * jax.random.normal(keys[5]))
    lens = jnp.zeros(8).at[0].set(0.05 * jax.random.normal(keys[6]))
    number = times.shape[0]
    return _camera(focal, jnp.broadcast_to(T, (number, 4, 4)), jnp.broadcast_to(lens, (number, 8)), size)


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
    keys = jax.random.split(key, 8)
    focal = jax.random.uniform(keys[0], minval=0.45, maxval=0.8) * max(size)
    number = 12
    lasts = jax.random.uniform(keys[1], (number,), minval=0.3, maxval=1.2)
    starts = jnp.cumsum(lasts + jax.random.uniform(keys[2], (number,), maxval=0.6)) - lasts - 1.0
    progress = between_keyframes(times, starts, lasts)
    eye = move_points(progress, 0.02 * jax.random.normal(keys[3], (number + 1, 3)))
    gaze = move_points(progress, 0.12 * jax.random.normal(keys[4], (number + 1, 3)))
    roll = move_points(progress, 0.08 * jax.random.normal(keys[5], (number + 1,)))
    target = jnp.mean(points, (0, 1)) + 0.06 * jax.random.normal(keys[6], (3,))
    T = jax.vmap(look_at)(eye, target + gaze, roll)
    lens = jnp.zeros(8).at[:2].set(jnp.array([-0.08, 0.01]) * jax.random.uniform(keys[7]))
    return _camera(focal, T, jnp.broadcast_to(lens, (times.shape[0], 8)), size)


def _camera(focal: Array, T: Array, lens: Array, size: tuple[int, int]) -> Camera:
    middle = jnp.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return make_camera(
        focal=jnp.broadcast_to(focal, (T.shape[0], 1)),
        principal=jnp.broadcast_to(middle, (T.shape[0], 2)),
        T_cam_world=T,
        distortion=lens,
    )
