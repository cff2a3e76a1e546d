"""Points in space from several cameras."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry.camera import Camera, project, undistort

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
    uv = jnp.asarray(pixels)
    if uv.ndim < 3 or uv.shape[-1] != 2:
        raise ValueError(f"pixels: expected shape (..., V, N, 2) in V views, got {uv.shape}")
    w = jnp.ones(uv.shape[:-1]) if weights is None else jnp.broadcast_to(jnp.asarray(weights), uv.shape[:-1])
    uv = jnp.where(w[..., None] > 0, uv, 0)
    *batch, V, N, _ = uv.shape
    each = Camera(
        *(
            jnp.broadcast_to(a, (*batch, V, *a.shape[a.ndim - tail :]))
            for a, tail in ((cameras.K, 2), (cameras.T_cam_world, 2), (cameras.distortion, 1))
        )
    )
    solve = jax.vmap(_triangulate_one, in_axes=(None, 1, 1))
    flat = lambda a, tail: a.reshape(-1, *a.shape[a.ndim - tail :])  # noqa: E731
    each = Camera(flat(each.K, 3), flat(each.T_cam_world, 3), flat(each.distortion, 2))
    points, covariance, valid = jax.vmap(solve)(each, flat(uv, 3), flat(w, 2))
    return Triangulated(points.reshape(*batch, N, 3), covariance.reshape(*batch, N, 3, 3), valid.reshape(*batch, N))


def _triangulate_one(cameras: Camera, uv: Array, w: Array) -> tuple[Array, Array, Array]:
    """One point in V views (V, 2)."""
    y = (uv[:, 1] - cameras.K[:, 1, 2]) / cameras.K[:, 1, 1]
    x = (uv[:, 0] - cameras.K[:, 0, 2] - cameras.K[:, 0, 1] * y) / cameras.K[:, 0, 0]
    xy = undistort(jnp.stack([x, y], -1)[:, None], cameras.distortion)[:, 0]
    R, t = cameras.T_cam_world[:, :3, :3], cameras.T_cam_world[:, :3, 3]
    # (x r3 - r1) . p = t1 - x t3, and the same of y
    rows = xy[:, :, None] * R[:, 2:, :] - R[:, :2, :]
    right = t[:, :2] - xy * t[:, 2:]
    seen = w > 0
    H = jnp.einsum("v,vki,vkj->ij", w, rows, rows, precision=HIGHEST)
    # the least curvature left, in units of one row, is the squared angle between the rays
    parallax = jnp.linalg.eigvalsh(H / jnp.maximum(jnp.sum(w), 1e-9))[0]
    valid = (jnp.sum(seen) >= 2) & (parallax > _MIN_PARALLAX**2)
    H = jnp.where(valid, H, jnp.eye(3))
    start = jnp.linalg.solve(H, jnp.einsum("v,vki,vk->i", w, rows, right, precision=HIGHEST))

    def image(p: Array) -> Array:
        return jax.vmap(lambda camera: project(camera, p[None])[0])(cameras)

    def normal_equations(p: Array) -> tuple[Array, Array]:
        J = jnp.where(seen[:, None, None], jax.jacfwd(image)(p), 0)
        residual = jnp.where(seen[:, None], image(p) - uv, 0)
        H = jnp.einsum("v,vki,vkj->ij", w, J, J, precision=HIGHEST)
        scale = jnp.maximum(jnp.trace(H), 1e-12)
        return H + 1e-7 * scale * jnp.eye(3), jnp.einsum("v,vki,vk->i", w, J, residual, precision=HIGHEST)

    def refine(_: Any, p: Array) -> Array:
        H, g = normal_equations(p)
        moved = p - jnp.linalg.solve(H, g)
        return jnp.where(jnp.isfinite(moved).all(), moved, p)

    point = lax.fori_loop(0, _REFINEMENTS, refine, start)
    depth = jnp.einsum("vi,i->v", R[:, 2], point, precision=HIGHEST) + t[:, 2]
    valid &= jnp.all((depth > 0) | ~seen) & jnp.isfinite(point).all()
    H = jnp.where(valid, normal_equations(point)[0], jnp.eye(3))
    return jnp.where(valid, point, 0), jnp.where(valid, jnp.linalg.inv(H), 0), valid
