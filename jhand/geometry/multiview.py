"""Points in space from several cameras."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry.camera import Camera, normalised_points, project
from jhand.geometry.se3 import transform

HIGHEST = lax.Precision.HIGHEST
_REFINEMENTS = 5
_MIN_PARALLAX = 3e-3  # radians, about, between two rays that cross


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Triangulated:
    """Points seen by several cameras."""

    points: Float[Array, "*b n 3"]
    """Metres, world frame; 0 where not valid."""
    covariance: Float[Array, "*b n 3 3"]
    """Of each point, metres^2, for pixels of standard deviation 1: multiply by its square; 0 where not valid."""
    valid: Bool[Array, "*b n"]
    """Seen by two cameras or more, from directions that differ, in front of them."""


@jax.jit
def triangulate(cameras: Camera, pixels: ArrayLike, weights: ArrayLike | None = None) -> Triangulated:
    """Points in space from what V cameras see of them.

    A linear solution (Hartley and Zisserman 2004, 12.2) on undistorted rays begins, Gauss-Newton on the weighted
    reprojection errors finishes.

    Args:
        cameras: leading axes (..., V) or what broadcasts to them.
        pixels: (..., V, N, 2).
        weights: (..., V, N) trust in each, 0 for what is not seen; by default all 1.

    Returns:
        Points, covariances and which are valid; everything is finite.

    Raises:
        ValueError: pixels of another shape than (..., V, N, 2).
    """
    return Triangulated(*_point_by_point(_triangulate_one, cameras, pixels, weights))


@jax.jit
def triangulate_robust(
    cameras: Camera, pixels: ArrayLike, weights: ArrayLike | None = None, *, threshold: ArrayLike = 10.0
) -> tuple[Triangulated, Bool[Array, "*b v n"]]:
    """`triangulate` where some views are wrong: the views that agree about a point are kept, the others left out.

    Every pair of views, and all together, propose a point; each view charges its squared reprojection error up to the
    threshold (MSAC: Torr and Zisserman 2000); the views within the threshold of the cheapest proposal triangulate
    again.

    Args:
        cameras: leading axes (..., V) or what broadcasts to them.
        pixels: (..., V, N, 2).
        weights: (..., V, N) trust in each, 0 for what is not seen; by default all 1.
        threshold: pixels, about three times the noise.

    Returns:
        Points as of `triangulate`, and which views were kept (..., V, N). A point that only two views see is theirs,
        with nothing to check it.

    Raises:
        ValueError: pixels of another shape than (..., V, N, 2).
    """
    limit = jnp.square(jnp.asarray(threshold, float))

    def one(cameras: Camera, uv: Array, w: Array) -> tuple[Array, Array, Array, Array]:
        views = np.arange(w.shape[0])
        pairs = [(views == a) | (views == b) for a in views for b in views[:a]]

        def propose(subset: Array) -> tuple[Array, Array]:
            point, valid = _linear(cameras, uv, w * subset)
            squared = jnp.sum(jnp.square(_reproject(cameras, point) - uv), -1)
            squared = jnp.where(_depth(cameras, point) > 0, squared, jnp.inf)
            cost = jnp.sum(w * jnp.minimum(squared, limit))
            return jnp.where(valid, cost, jnp.inf), squared

        costs, squared = jax.vmap(propose)(jnp.asarray([views >= 0, *pairs]))
        best = jnp.argmin(costs)
        kept = (squared[best] < limit) & (w > 0) & jnp.isfinite(costs[best])
        return *_triangulate_one(cameras, uv, w * kept), kept

    *found, kept = _point_by_point(one, cameras, pixels, weights)
    return Triangulated(*found), jnp.swapaxes(kept, -1, -2)


def reprojection_error(cameras: Camera, points: ArrayLike, pixels: ArrayLike) -> Float[Array, "*b v n"]:
    """Distances between where points are seen and where they should be, by view.

    Args:
        cameras: leading axes (..., V).
        points: (..., N, 3) metres, world frame.
        pixels: (..., V, N, 2).

    Returns:
        (..., V, N) pixels; infinite for points not in front of the camera.
    """
    x = jnp.asarray(points)[..., None, :, :]
    miss = jnp.linalg.norm(project(cameras, x) - jnp.asarray(pixels), axis=-1)
    return jnp.where(transform(cameras.T_cam_world, x)[..., 2] > 0, miss, jnp.inf)


def _point_by_point(
    solve: Callable[[Camera, Array, Array], tuple[Array, ...]],
    cameras: Camera,
    pixels: ArrayLike,
    weights: ArrayLike | None,
) -> list[Array]:
    """`solve(cameras (V,), pixels (V, 2), weights (V,))` of each point; what it returns as (..., N, ...)."""
    uv = jnp.asarray(pixels)
    if uv.ndim < 3 or uv.shape[-1] != 2:
        raise ValueError(f"pixels: expected shape (..., V, N, 2) in V views, got {uv.shape}")
    w = jnp.ones(uv.shape[:-1]) if weights is None else jnp.broadcast_to(jnp.asarray(weights), uv.shape[:-1])
    uv = jnp.where(w[..., None] > 0, uv, 0)
    *batch, V, N, _ = uv.shape
    broadcast = lambda a, tail: jnp.broadcast_to(a, (*batch, V, *a.shape[a.ndim - tail :]))  # noqa: E731
    flat = lambda a, tail: a.reshape(-1, *a.shape[a.ndim - tail :])  # noqa: E731
    each = Camera(
        flat(broadcast(cameras.K, 2), 3),
        flat(broadcast(cameras.T_cam_world, 2), 3),
        flat(broadcast(cameras.distortion, 1), 2),
    )
    found = jax.vmap(jax.vmap(solve, in_axes=(None, 1, 1)))(each, flat(uv, 3), flat(w, 2))
    return [a.reshape(*batch, N, *a.shape[2:]) for a in found]


def _reproject(cameras: Camera, point: Array) -> Array:
    """Pixels (V, 2) of one point (3,)."""
    return jax.vmap(lambda camera: project(camera, point[None])[0])(cameras)


def _depth(cameras: Camera, point: Array) -> Array:
    """Of one point (3,) in each view (V,)."""
    return transform(cameras.T_cam_world, point[None])[:, 0, 2]


def _linear(cameras: Camera, uv: Array, w: Array) -> tuple[Array, Array]:
    """The point (3,) nearest to the weighted rays, in units of the focal length; whether two of them cross."""
    xy = normalised_points(cameras, uv[:, None])[:, 0]
    R, t = cameras.T_cam_world[:, :3, :3], cameras.T_cam_world[:, :3, 3]
    # (x r3 - r1) . p = t1 - x t3, and the same of y
    rows = xy[:, :, None] * R[:, 2:, :] - R[:, :2, :]
    right = t[:, :2] - xy * t[:, 2:]
    H = jnp.einsum("v,vki,vkj->ij", w, rows, rows, precision=HIGHEST)
    # the least curvature left, in units of one row, is the squared angle between the rays
    parallax = jnp.linalg.eigvalsh(H / jnp.maximum(jnp.sum(w), 1e-9))[0]
    crossing = (jnp.sum(w > 0) >= 2) & (parallax > _MIN_PARALLAX**2)
    H = jnp.where(crossing, H, jnp.eye(3))
    return jnp.linalg.solve(H, jnp.einsum("v,vki,vk->i", w, rows, right, precision=HIGHEST)), crossing


def _triangulate_one(cameras: Camera, uv: Array, w: Array) -> tuple[Array, Array, Array]:
    """One point in V views (V, 2): itself, its covariance, whether it is valid."""
    start, valid = _linear(cameras, uv, w)
    seen = w > 0

    def normal_equations(p: Array) -> tuple[Array, Array]:
        J = jnp.where(seen[:, None, None], jax.jacfwd(lambda p: _reproject(cameras, p))(p), 0)
        residual = jnp.where(seen[:, None], _reproject(cameras, p) - uv, 0)
        H = jnp.einsum("v,vki,vkj->ij", w, J, J, precision=HIGHEST)
        scale = jnp.maximum(jnp.trace(H), 1e-12)
        return H + 1e-7 * scale * jnp.eye(3), jnp.einsum("v,vki,vk->i", w, J, residual, precision=HIGHEST)

    def refine(_: Any, p: Array) -> Array:
        H, g = normal_equations(p)
        moved = p - jnp.linalg.solve(H, g)
        return jnp.where(jnp.isfinite(moved).all(), moved, p)

    point = lax.fori_loop(0, _REFINEMENTS, refine, start)
    valid &= jnp.all((_depth(cameras, point) > 0) | ~seen) & jnp.isfinite(point).all()
    H = jnp.where(valid, normal_equations(point)[0], jnp.eye(3))
    return jnp.where(valid, point, 0), jnp.where(valid, jnp.linalg.inv(H), 0), valid
