"""Cameras: OpenCV axes (x right, y down, z forward), pixel centres at integers.

A camera is a pytree with any leading axes. `project` takes either kind, `unproject` goes back with a depth; weak
perspective is exact at one depth and converts to and from a full camera there.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import transform


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
        focal: one focal length or (..., 2) of them, pixels.
        principal: (..., 2) principal point, pixels.
        T_cam_world: (..., 4, 4); by default the world is the camera's frame.
        distortion: (..., 8) OpenCV order; by default none.
    """
    c = jnp.asarray(principal, jnp.float32)
    f = jnp.asarray(focal, jnp.float32)
    f = f if f.shape[-1:] == (2,) else f[..., None]
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


def unproject(camera: Camera, pixels: ArrayLike, depth: ArrayLike) -> Float[Array, "*b n 3"]:
    """World points that a camera sees at given pixels and depths; the inverse of `project`.

    Args:
        camera: leading axes (...).
        pixels: (..., N, 2).
        depth: (..., N) metres along the camera's z.

    Returns:
        (..., N, 3) metres, world frame.
    """
    uv, z, K = jnp.asarray(pixels), jnp.asarray(depth), camera.K[..., None, :, :]
    y = (uv[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
    x = (uv[..., 0] - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
    xy = undistort(jnp.stack([x, y], -1), camera.distortion)
    in_camera = jnp.concatenate([xy * z[..., None], jnp.broadcast_to(z, xy.shape[:-1])[..., None]], -1)
    R, t = camera.T_cam_world[..., :3, :3], camera.T_cam_world[..., :3, 3]
    return jnp.einsum("...ji,...nj->...ni", R, in_camera - t[..., None, :], precision=jax.lax.Precision.HIGHEST)


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
