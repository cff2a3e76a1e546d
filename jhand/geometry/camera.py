"""Cameras: OpenCV axes (x right, y down, z forward), pixel centres at integers.

A camera is a pytree with any leading axes. `project` takes either kind, `unproject` goes back with a depth; weak
perspective is exact at one depth and converts to and from a full camera there.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.se3 import invert_transform, transform


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Camera:
    """A pinhole camera with OpenCV's rational distortion."""

    K: Float[Array, "*b 3 3"]
    """Intrinsics, pixels."""
    T_cam_world: Float[Array, "*b 4 4"]
    """Rigid transform from world to camera."""
    distortion: Float[Array, "*b 8"]
    """k1 k2 p1 p2 k3 k4 k5 k6."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WeakCamera:
    """Scaled orthography: u = scale * (x, y) + offset, of points in camera axes; depth is dropped."""

    scale: Float[Array, "*b"]
    """Pixels per metre."""
    offset: Float[Array, "*b 2"]
    """Pixel of the camera-frame origin."""


def make_camera(
    *, focal: ArrayLike, principal: ArrayLike, T_cam_world: ArrayLike | None = None, distortion: ArrayLike | None = None
) -> Camera:
    """A full camera from its numbers.

    Args:
        focal: one focal length, (..., 1) or (..., 2) of them, pixels.
        principal: (..., 2) principal point, pixels.
        T_cam_world: (..., 4, 4); by default the world is the camera's frame.
        distortion: (..., 8) OpenCV order; by default none.
    """
    c = jnp.asarray(principal, jnp.float32)
    f = jnp.asarray(focal, jnp.float32)
    f = jnp.broadcast_to(f, c.shape)
    o, one = jnp.zeros_like(f[..., 0]), jnp.ones_like(f[..., 0])
    rows = [
        jnp.stack([f[..., 0], o, c[..., 0]], -1),
        jnp.stack([o, f[..., 1], c[..., 1]], -1),
        jnp.stack([o, o, one], -1),
    ]
    batch = c.shape[:-1]
    T = jnp.eye(4) if T_cam_world is None else jnp.asarray(T_cam_world)
    d = jnp.zeros(8) if distortion is None else jnp.asarray(distortion)
    return Camera(
        K=jnp.stack(rows, -2),
        T_cam_world=jnp.broadcast_to(T, (*batch, 4, 4)) if T_cam_world is None else T,
        distortion=jnp.broadcast_to(d, (*batch, 8)) if distortion is None else d,
    )


def distort(normalised: ArrayLike, distortion: ArrayLike) -> Float[Array, "*b n 2"]:
    """OpenCV's radial (rational) and tangential distortion of normalised image points.

    Args:
        normalised: (..., N, 2), x / z and y / z.
        distortion: (..., 8): k1 k2 p1 p2 k3 k4 k5 k6.

    Returns:
        Distorted normalised points (..., N, 2).
    """
    xy, d = jnp.asarray(normalised), jnp.asarray(distortion)
    k1, k2, p1, p2, k3, k4, k5, k6 = jnp.moveaxis(d[..., None, :], -1, 0)
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return jnp.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        -1,
    )


def project(camera: Camera | WeakCamera, points: ArrayLike) -> Float[Array, "*b n 2"]:
    """Pixels of world points.

    Args:
        camera: leading axes (...).
        points: (..., N, 3) metres, world frame; for a weak camera in camera axes. Points on the plane z = 0 of a full
            camera have no image (infinite), points behind it a mirrored one: mask them by depth.

    Returns:
        (..., N, 2) pixels.
    """
    x = jnp.asarray(points)
    if isinstance(camera, WeakCamera):
        return camera.scale[..., None, None] * x[..., :2] + camera.offset[..., None, :]
    cam = transform(camera.T_cam_world, x)
    xy = distort(cam[..., :2] / cam[..., 2:], camera.distortion)
    K = camera.K[..., None, :, :]
    u = K[..., 0, 0] * xy[..., 0] + K[..., 0, 1] * xy[..., 1] + K[..., 0, 2]
    v = K[..., 1, 1] * xy[..., 1] + K[..., 1, 2]
    return jnp.stack([u, v], -1)


def undistort(distorted: ArrayLike, distortion: ArrayLike, iterations: int = 10) -> Float[Array, "*b n 2"]:
    """Normalised image points without distortion: the inverse of `distort`, by Newton's method.

    Args:
        distorted: (..., N, 2), in units of the focal length about the principal point.
        distortion: (..., 8): k1 k2 p1 p2 k3 k4 k5 k6.
        iterations: a few suffice within the field of view; far outside, strong distortion has no inverse.

    Returns:
        Normalised points (..., N, 2).
    """
    target, d = jnp.asarray(distorted), jnp.asarray(distortion)
    batch = jnp.broadcast_shapes(target.shape[:-1], (*d.shape[:-1], 1))
    target = jnp.broadcast_to(target, (*batch, 2))
    each = jnp.broadcast_to(d[..., None, :], (*batch, 8))

    def one(goal: Array, d: Array) -> Array:
        bend = lambda xy: distort(xy[None], d)[0]  # noqa: E731

        def step(_: Any, xy: Array) -> Array:
            (a, b), (c, e) = jax.jacfwd(bend)(xy)
            miss = bend(xy) - goal
            determinant = a * e - b * c
            safe = jnp.where(jnp.abs(determinant) > 1e-6, determinant, 1.0)
            return xy - jnp.stack([e * miss[0] - b * miss[1], a * miss[1] - c * miss[0]]) / safe

        return jax.lax.fori_loop(0, iterations, step, goal)

    flat = jax.vmap(one)(target.reshape(-1, 2), each.reshape(-1, 8))
    return flat.reshape(*batch, 2)


def normalised_points(camera: Camera, pixels: ArrayLike) -> Float[Array, "*b n 2"]:
    """x / z and y / z, in the camera's frame, of what is seen at given pixels: K and the lens taken away.

    Args:
        camera: leading axes (...).
        pixels: (..., N, 2).

    Returns:
        (..., N, 2).
    """
    uv, K = jnp.asarray(pixels), camera.K[..., None, :, :]
    y = (uv[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
    x = (uv[..., 0] - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
    return undistort(jnp.stack([x, y], -1), camera.distortion)


def unproject(camera: Camera, pixels: ArrayLike, depth: ArrayLike) -> Float[Array, "*b n 3"]:
    """World points that a camera sees at given pixels and depths; the inverse of `project`.

    Args:
        camera: leading axes (...).
        pixels: (..., N, 2).
        depth: (..., N) metres along the camera's z.

    Returns:
        (..., N, 3) metres, world frame.
    """
    xy, z = normalised_points(camera, pixels), jnp.asarray(depth)
    in_camera = jnp.concatenate([xy * z[..., None], jnp.broadcast_to(z, xy.shape[:-1])[..., None]], -1)
    return transform(invert_transform(camera.T_cam_world), in_camera)


def rays(camera: Camera, pixels: ArrayLike) -> tuple[Float[Array, "*b 3"], Float[Array, "*b n 3"]]:
    """Where the camera stands, and the directions in which it sees given pixels.

    Args:
        camera: leading axes (...).
        pixels: (..., N, 2).

    Returns:
        Centre (..., 3), metres, and unit directions (..., N, 3), both in the world frame.
    """
    xy = normalised_points(camera, pixels)
    ahead = jnp.concatenate([xy, jnp.ones_like(xy[..., :1])], -1)
    ahead = ahead / jnp.linalg.norm(ahead, axis=-1, keepdims=True)
    T_world_cam = invert_transform(camera.T_cam_world)
    R = T_world_cam[..., :3, :3]
    return T_world_cam[..., :3, 3], jnp.einsum("...ij,...nj->...ni", R, ahead, precision=jax.lax.Precision.HIGHEST)


def crop_camera(camera: Camera, box: ArrayLike, size: tuple[int, int]) -> Camera:
    """The camera of a picture cut out and resized by `crop_image` with the same box and size.

    Args:
        camera: leading axes (...).
        box: (..., 4): left, top, width, height, in pixels of the whole picture; `image[top:top+height,
            left:left+width]` where they are whole numbers. It may reach beyond the picture.
        size: height and width of the new picture, pixels.

    Returns:
        The camera: K changes, pose and lens stay. To resize a whole picture, the box is (0, 0, W, H).
    """
    scale, shift = _crop(box, size)
    o = jnp.zeros_like(scale[..., 0])
    A = jnp.stack(
        [
            jnp.stack([scale[..., 0], o, shift[..., 0]], -1),
            jnp.stack([o, scale[..., 1], shift[..., 1]], -1),
            jnp.stack([o, o, o + 1], -1),
        ],
        -2,
    )
    return replace(camera, K=jnp.matmul(A, camera.K, precision=jax.lax.Precision.HIGHEST))


def crop_pixels(pixels: ArrayLike, box: ArrayLike, size: tuple[int, int]) -> Float[Array, "*b n 2"]:
    """Where points of a picture lie after `crop_image` with the same box and size.

    Args:
        pixels: (..., N, 2).
        box: (..., 4), see `crop_camera`.
        size: height and width of the new picture, pixels.
    """
    scale, shift = _crop(box, size)
    return scale[..., None, :] * jnp.asarray(pixels) + shift[..., None, :]


def crop_image(image: ArrayLike, box: ArrayLike, size: tuple[int, int]) -> Float[Array, "*b h w c"]:
    """A part of a picture, resized: linear, smoothed first where it shrinks, 0 beyond the picture.

    Args:
        image: (..., H, W, C).
        box: (..., 4), see `crop_camera`; leading axes broadcast with the picture's.
        size: height and width of the new picture, pixels.

    Returns:
        (..., height, width, C), float.
    """
    picture = jnp.asarray(image)
    picture = picture if jnp.issubdtype(picture.dtype, jnp.floating) else picture.astype(jnp.float32)
    scale, _ = _crop(box, size)
    shift = -scale * jnp.asarray(box, float)[..., :2]  # counted from the edges of pixels, not their centres
    batch = jnp.broadcast_shapes(picture.shape[:-3], scale.shape[:-1])
    picture = jnp.broadcast_to(picture, (*batch, *picture.shape[-3:])).reshape(-1, *picture.shape[-3:])
    scale, shift = (jnp.broadcast_to(a, (*batch, 2)).reshape(-1, 2)[:, ::-1] for a in (scale, shift))
    shape = (*size, picture.shape[-1])
    cut = jax.vmap(lambda p, s, t: jax.image.scale_and_translate(p, shape, (0, 1), s, t, "linear"))
    return cut(picture, scale, shift).reshape(*batch, *shape)


def _crop(box: ArrayLike, size: tuple[int, int]) -> tuple[Array, Array]:
    """u' = scale * u + shift between pixel centres, each (..., 2): the edge of a picture lies at -1/2."""
    b = jnp.asarray(box, float)
    if b.shape[-1:] != (4,):
        raise ValueError(f"box: expected (..., 4), left, top, width and height, got {b.shape}")
    height, width = size
    scale = jnp.array([width, height], float) / b[..., 2:]
    return scale, scale * (0.5 - b[..., :2]) - 0.5


def weak_from_camera(camera: Camera, depth: ArrayLike) -> WeakCamera:
    """The weak camera that agrees with `camera` (no distortion, square pixels) on the plane z = `depth` (...) metres of
    its frame.
    """
    z = jnp.asarray(depth)
    return WeakCamera(scale=camera.K[..., 0, 0] / z, offset=camera.K[..., :2, 2])


def translation_from_weak(weak: WeakCamera, camera: Camera) -> Float[Array, "*b 3"]:
    """Where the origin of a weak camera's points lies in the frame of a full camera: adding it makes both agree at that
    depth.

    Args:
        weak: leading axes (...).
        camera: intrinsics to convert to, without distortion.

    Returns:
        (..., 3) metres, camera frame; the inverse of `weak_from_camera` for points about the origin.
    """
    z = camera.K[..., 0, 0] / weak.scale
    xy = (weak.offset - camera.K[..., :2, 2]) / weak.scale[..., None]
    return jnp.concatenate([xy, z[..., None]], -1)
