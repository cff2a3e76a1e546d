"""The pose of a camera from points whose places are known (perspective-n-point)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry.camera import Camera, normalised_points, project
from jhand.geometry.consensus import ransac
from jhand.geometry.rotations import skew, so3_exp
from jhand.geometry.se3 import rigid, transform

HIGHEST = lax.Precision.HIGHEST
_TURNS = 8
_REFINEMENTS = 8
_FLAT = 1e-7  # least curvature, as a share of all, of a pose that the points fix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CameraPose:
    """Where a camera stands, or an object before it."""

    T_cam_world: Float[Array, "*b 4 4"]
    """Rigid transform from world to camera; the identity where not valid."""
    rms: Float[Array, "*b"]
    """Root mean square of the weighted reprojection errors, pixels; 0 where not valid."""
    covariance: Float[Array, "*b 6 6"]
    """Of the twist (metres, then radians; camera frame) between this pose and the true one, for pixels of standard
    deviation 1: multiply by its square. 0 where not valid."""
    valid: Bool[Array, "*b"]
    """Three points or more that fix the pose, all in front of the camera."""


@jax.jit
def solve_pnp(camera: Camera, points: ArrayLike, pixels: ArrayLike, weights: ArrayLike | None = None) -> CameraPose:
    """The pose in which a camera sees known points where they are seen.

    Whatever the points, in space or on a plane: the translation is eliminated in closed form, which leaves a quadratic
    form in the nine entries of R (as in SQPnP: Terzakis and Lourakis, ECCV 2020); its least value over rotations is
    sought from 24 starts, the turns of a cube, and the winner is refined on reprojection errors, lens included. Of
    three points up to four poses are exact, and of a small plane two nearly so: one of them is returned.

    Args:
        camera: K and lens, leading axes (...); its own pose is not read.
        points: (..., N, 3) metres, world frame; not all on a line.
        pixels: (..., N, 2).
        weights: (..., N) trust in each, 0 for what is not seen; by default all 1.

    Returns:
        The pose; everything is finite.

    Raises:
        ValueError: points or pixels of another shape.
    """
    x, uv = jnp.asarray(points), jnp.asarray(pixels)
    if x.ndim < 2 or x.shape[-1] != 3 or uv.shape[-2:] != (x.shape[-2], 2):
        raise ValueError(f"expected points (..., N, 3) and pixels (..., N, 2), got {x.shape} and {uv.shape}")
    w = jnp.ones(uv.shape[-2:-1]) if weights is None else jnp.asarray(weights)
    if w.shape[-1:] != uv.shape[-2:-1]:
        raise ValueError(f"weights: expected shape (..., {x.shape[-2]}), one for each point, got {w.shape}")
    batch = jnp.broadcast_shapes(x.shape[:-2], uv.shape[:-2], w.shape[:-1], camera.K.shape[:-2])

    def flat(a: Array, tail: int) -> Array:
        own = a.shape[a.ndim - tail :]
        return jnp.broadcast_to(a, (*batch, *own)).reshape(-1, *own)

    cameras = Camera(flat(camera.K, 2), flat(jnp.eye(4), 2), flat(camera.distortion, 1))
    found = jax.vmap(_solve)(cameras, flat(x, 2), flat(uv, 2), flat(w, 1))
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), found)


@partial(jax.jit, static_argnames="hypotheses")
def solve_pnp_ransac(
    key: Array,
    camera: Camera,
    points: ArrayLike,
    pixels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    threshold: ArrayLike = 8.0,
    hypotheses: int = 64,
) -> tuple[CameraPose, Bool[Array, "n"]]:
    """`solve_pnp` where some pixels are wrong, by samples of four.

    Args:
        key: random key.
        camera: K and lens of one camera; vmap for more.
        points: (N, 3) metres, world frame.
        pixels: (N, 2).
        weights: (N,) trust in each, 0 for what is not seen; by default all 1.
        threshold: pixels, about three times the noise.
        hypotheses: how many samples are drawn, see `ransac`.

    Returns:
        The pose by the points that it explains, and which they are (N,).

    Raises:
        ValueError: points or pixels of another shape, or fewer than four.
    """
    x, uv = jnp.asarray(points), jnp.asarray(pixels)
    if x.ndim != 2 or x.shape[0] < 4:
        raise ValueError(f"expected points (N, 3) with N of at least 4, got {x.shape}; vmap over batches")
    w = jnp.ones(x.shape[:1]) if weights is None else jnp.asarray(weights)

    def fit(data: tuple[Array, Array], w: Array) -> CameraPose:
        return solve_pnp(camera, *data, w)

    def squared_error(pose: CameraPose, data: tuple[Array, Array]) -> Array:
        seen = replace(camera, T_cam_world=pose.T_cam_world)
        ahead = transform(pose.T_cam_world, data[0])[:, 2] > 0
        miss = jnp.sum(jnp.square(project(seen, data[0]) - data[1]), -1)
        return jnp.where(ahead & pose.valid, miss, jnp.inf)

    pose, inside, _ = ransac(
        key, fit, squared_error, (x, uv), w, sample_size=4, threshold=threshold, hypotheses=hypotheses
    )
    return pose, inside


def _turns_of_a_cube() -> np.ndarray:
    """The 24 rotations (24, 3, 3) whose entries are whole numbers."""
    signs = np.array(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1).T
    orders = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0], [1, 0, 2]])
    R = np.eye(3)[orders][:, None] * signs[None, :, :, None]
    R = R.reshape(-1, 3, 3)
    return R[np.linalg.det(R) > 0]


def _solve(camera: Camera, x: Array, uv: Array, w: Array) -> CameraPose:
    """Of one camera and points (N, 3)."""
    seen = w > 0
    x, uv = jnp.where(seen[:, None], x, 0), jnp.where(seen[:, None], uv, camera.K[:2, 2])
    share = w / jnp.maximum(jnp.sum(w), 1e-12)
    centre = jnp.matmul(share, x, precision=HIGHEST)
    centred = jnp.where(seen[:, None], x - centre, 0)
    size = jnp.sqrt(jnp.sum(share[:, None] * jnp.square(centred)))
    size = jnp.where(size > 0, size, 1)
    R, t = _least_object_error(centred / size, normalised_points(camera, uv), share)

    # Turns about the points' centre and shifts in units of their size: of one scale, and hardly correlated.
    units = jnp.concatenate([jnp.full(3, size), jnp.ones(3)])

    def moved(step: Array, pose: tuple[Array, Array]) -> tuple[Array, Array]:
        R, t = pose
        return jnp.matmul(so3_exp(step[3:]), R, precision=HIGHEST), t + size * step[:3]

    def reproject(step: Array, pose: tuple[Array, Array]) -> Array:
        return project(replace(camera, T_cam_world=rigid(*moved(step, pose))), centred)

    def normal_equations(pose: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        J = jnp.where(seen[:, None, None], jax.jacfwd(reproject)(jnp.zeros(6), pose), 0)
        miss = jnp.where(seen[:, None], reproject(jnp.zeros(6), pose) - uv, 0)
        H = jnp.einsum("n,nki,nkj->ij", w, J, J, precision=HIGHEST)
        return H, jnp.einsum("n,nki,nk->i", w, J, miss, precision=HIGHEST), jnp.sum(w[:, None] * miss * miss)

    def refine(_: Any, state: tuple[tuple[Array, Array], Array]) -> tuple[tuple[Array, Array], Array]:
        pose, damping = state
        H, g, cost = normal_equations(pose)
        damped = H + damping * jnp.diag(jnp.diag(H)) + 1e-9 * jnp.eye(6)
        candidate = moved(-jnp.linalg.solve(damped, g), pose)
        better = normal_equations(candidate)[2] < cost
        pose = jax.tree.map(lambda a, b: jnp.where(better, a, b), candidate, pose)
        return pose, jnp.where(better, 0.1, 10.0) * damping

    (R, t), _ = lax.fori_loop(0, _REFINEMENTS, refine, ((R, size * t), jnp.float32(1e-3)))
    H, _, cost = normal_equations((R, t))
    curvature = jnp.linalg.eigvalsh(H / jnp.maximum(jnp.trace(H), 1e-12))
    T = rigid(R, t - jnp.matmul(R, centre, precision=HIGHEST))
    ahead = jnp.all((transform(T, x)[:, 2] > 0) | ~seen)
    valid = (jnp.sum(seen) >= 3) & ahead & jnp.isfinite(T).all() & (curvature[0] > _FLAT)
    # a turn about the centre is one about the camera's origin and a shift
    about_origin = jnp.eye(6).at[:3, 3:].set(skew(t)) * units
    inverse = jnp.linalg.inv(jnp.where(valid, H, jnp.eye(6)))
    covariance = jnp.matmul(about_origin, jnp.matmul(inverse, about_origin.T, precision=HIGHEST), precision=HIGHEST)
    return CameraPose(
        T_cam_world=jnp.where(valid, T, jnp.eye(4)),
        rms=jnp.where(valid, jnp.sqrt(cost / jnp.maximum(jnp.sum(w), 1e-12)), 0),
        covariance=jnp.where(valid, covariance, 0),
        valid=valid,
    )


def _least_object_error(x: Array, xy: Array, w: Array) -> tuple[Array, Array]:
    """R and t least in the squared distances, across the optical axis, of points (N, 3) from their rays (N, 2).

    A point p = R x + t is on its ray where z (x, y) = p: linear in R and t, so t follows from R.
    """
    axes = jnp.concatenate([jnp.broadcast_to(-jnp.eye(2), (*xy.shape[:-1], 2, 2)), xy[..., None]], -1)  # (N, 2, 3)
    A = (axes[..., None] * x[:, None, None, :]).reshape(*axes.shape[:-1], 9)
    BtB = jnp.einsum("n,nki,nkj->ij", w, axes, axes, precision=HIGHEST)
    BtA = jnp.einsum("n,nki,nkj->ij", w, axes, A, precision=HIGHEST)
    t_of_r = -jnp.linalg.solve(BtB + 1e-7 * jnp.trace(BtB) * jnp.eye(3), BtA)
    rows = A + jnp.einsum("nki,ij->nkj", axes, t_of_r, precision=HIGHEST)
    Omega = jnp.einsum("n,nki,nkj->ij", w, rows, rows, precision=HIGHEST)

    def descend(R: Array) -> tuple[Array, Array]:
        def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
            R, damping = state
            # R exp(w): the derivative of its entries by w is R [e_i]
            J = jnp.einsum("ab,ibc->aci", R, skew(jnp.eye(3)), precision=HIGHEST).reshape(9, 3)
            OJ = jnp.matmul(Omega, J, precision=HIGHEST)
            H, g = jnp.matmul(J.T, OJ, precision=HIGHEST), jnp.matmul(OJ.T, R.reshape(9), precision=HIGHEST)
            scale = jnp.trace(H) + 1e-12
            moved = jnp.matmul(R, so3_exp(-jnp.linalg.solve(H + damping * scale * jnp.eye(3), g)), precision=HIGHEST)
            better = cost(moved) < cost(R)
            return jnp.where(better, moved, R), jnp.where(better, 0.1, 10.0) * damping

        R, _ = lax.fori_loop(0, _TURNS, step, (R, jnp.float32(1e-2)))
        depth = jnp.matmul(t_of_r[2], R.reshape(9), precision=HIGHEST)  # of the points' centre
        return R, jnp.where(depth > 0, cost(R), jnp.inf)

    def cost(R: Array) -> Array:
        r = R.reshape(9)
        return jnp.matmul(r, jnp.matmul(Omega, r, precision=HIGHEST), precision=HIGHEST)

    rotations, costs = jax.vmap(descend)(jnp.asarray(_turns_of_a_cube(), jnp.float32))
    R = rotations[jnp.argmin(costs)]
    return R, jnp.matmul(t_of_r, R.reshape(9), precision=HIGHEST)
