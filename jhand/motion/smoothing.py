"""The Rauch-Tung-Striebel smoother: a Kalman filter forwards, a correction backwards, missing frames filled.

Points and rotations keep their velocity, which random accelerations change. Points are (..., T, K, C), rotations
(..., T, K, 3, 3): T frames of K of them, as in `jhand.metrics`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import so3_exp, so3_left_jacobian, so3_log

HIGHEST = lax.Precision.HIGHEST
_DIFFUSE = 1e4  # of the first state: in units of the noise and of the noise per frame, squared


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Smoothed:
    """Smoothed points or rotations, how fast they move, and how well each is known."""

    value: Array
    """Points (..., T, K, C) or rotations (..., T, K, 3, 3)."""
    velocity: Float[Array, "*b t k c"]
    """Metres a second, or radians a second about the axes of the rotated body."""
    sigma: Float[Array, "*b t k"]
    """Standard deviation of each coordinate of the value, metres; or of the turn about any axis, radians."""


@jax.jit
def rts_smooth(
    points: ArrayLike,
    fps: ArrayLike,
    *,
    sigma: ArrayLike,
    acceleration: ArrayLike,
    weights: ArrayLike | None = None,
) -> Smoothed:
    """Points as all frames together say they moved (Rauch, Tung and Striebel 1965), velocities changing at random.

    Exact where its model is: velocity a random walk, continuous in time (Bar-Shalom, Li and Kirubarajan 2001, 6.2).

    Args:
        points: (..., T, K, C) metres; not read where the weight is 0.
        fps: hertz.
        sigma: metres, of a measurement of weight 1.
        acceleration: how much a velocity changes within a second, m/s (standard deviation): 2 for a hand that gestures.
        weights: (..., T, K) trust in each, 0 for what is missing; its variance is sigma^2 / weight. By default all 1.

    Returns:
        Points, velocities and deviations. A point that no frame shows is 0, and its deviation large.
    """
    x, w = _measured(points, weights, "points (..., T, K, C)", 1)
    dt, noise = 1 / jnp.asarray(fps, float), jnp.asarray(sigma, float)
    F, Q = jnp.array([[1.0, 1.0], [0.0, 1.0]]), _process_noise(dt, noise, acceleration)
    x = x / noise  # positions in units of the noise, velocities in that per frame
    still = jnp.stack([_first_seen(x, w), jnp.zeros_like(x[0])], -2)
    start = still, _DIFFUSE * jnp.broadcast_to(jnp.eye(2), (*w.shape[1:], 2, 2))

    def forwards(predicted: tuple[Array, Array], frame: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        m, P = predicted
        x, w = frame
        gain, P = _update(P, w, 1)
        m = m + _times(gain, (x - m[..., 0, :])[..., None, :])
        return (_times(F, m), _sandwich(F, P) + Q), (m, P)

    def backwards(later: tuple[Array, Array], filtered: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        (m_later, P_later), (m, P) = later, filtered
        gain, P = _correct(F, Q, P, P_later)
        m = m + _times(gain, m_later - _times(F, m))
        return (m, P), (m, P)

    _, (m, P) = lax.scan(forwards, start, (x, w))
    last = jax.tree.map(lambda a: a[-1], (m, P))
    _, (m, P) = lax.scan(backwards, last, jax.tree.map(lambda a: a[:-1], (m, P)), reverse=True)
    m, P = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), (m, P), last)
    return Smoothed(
        value=jnp.moveaxis(noise * m[..., 0, :], 0, -3),
        velocity=jnp.moveaxis(noise / dt * m[..., 1, :], 0, -3),
        sigma=jnp.moveaxis(noise * jnp.sqrt(P[..., 0, 0]), 0, -2),
    )


@jax.jit
def rts_smooth_rotations(
    rotations: ArrayLike,
    fps: ArrayLike,
    *,
    sigma: ArrayLike,
    acceleration: ArrayLike,
    weights: ArrayLike | None = None,
) -> Smoothed:
    """`rts_smooth` on rotations, by the error-state filter: errors are small turns of the body (Sola 2017, section 7).

    Args:
        rotations: (..., T, K, 3, 3); not read where the weight is 0.
        fps: hertz.
        sigma: radians, of a measurement of weight 1, about each axis.
        acceleration: how much an angular velocity changes within a second, rad/s (standard deviation): 20 for fingers.
        weights: (..., T, K) trust in each, 0 for what is missing; its variance is sigma^2 / weight. By default all 1.

    Returns:
        Rotations, angular velocities and deviations. What no frame shows is the identity, and its deviation large.
    """
    R, w = _measured(rotations, weights, "rotations (..., T, K, 3, 3)", 2)
    dt, noise = 1 / jnp.asarray(fps, float), jnp.asarray(sigma, float)
    Q = jnp.kron(_process_noise(dt, noise, acceleration), jnp.eye(3))
    start = (
        _first_seen(R, w),
        jnp.zeros(R.shape[1:-1]),
        _DIFFUSE * jnp.broadcast_to(jnp.eye(6), (*w.shape[1:], 6, 6)),
    )

    def add(R: Array, velocity: Array, error: Array) -> tuple[Array, Array]:
        """Errors (..., 6) in units of the noise: a turn, and a change of the turn per frame."""
        turned = jnp.matmul(R, so3_exp(noise * error[..., :3]), precision=HIGHEST)
        return turned, velocity + noise * error[..., 3:]

    def move(R: Array, velocity: Array) -> tuple[Array, Array]:
        """A frame later: the rotation, and how errors (..., 6) become those of that frame."""
        turn = so3_exp(velocity)
        top = jnp.concatenate([jnp.swapaxes(turn, -1, -2), so3_left_jacobian(-velocity)], -1)
        bottom = jnp.broadcast_to(jnp.eye(6)[3:], top.shape)
        return jnp.matmul(R, turn, precision=HIGHEST), jnp.concatenate([top, bottom], -2)

    def forwards(predicted: tuple[Array, Array, Array], frame: tuple[Array, Array]) -> tuple[Any, Any]:
        R, velocity, P = predicted
        measured, w = frame
        gain, P = _update(P, w, 3)
        R, velocity = add(R, velocity, _times(gain, _turn(R, measured)[..., None] / noise)[..., 0])
        R_next, F = move(R, velocity)
        return (R_next, velocity, _sandwich(F, P) + Q), (R, velocity, P)

    def backwards(later: tuple[Array, Array, Array], filtered: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        (R_later, velocity_later, P_later), (R, velocity, P) = later, filtered
        R_next, F = move(R, velocity)
        gain, P = _correct(F, Q, P, P_later)
        miss = jnp.concatenate([_turn(R_next, R_later), velocity_later - velocity], -1) / noise
        R, velocity = add(R, velocity, _times(gain, miss[..., None])[..., 0])
        return (R, velocity, P), (R, velocity, P)

    _, found = lax.scan(forwards, start, (R, w))
    last = jax.tree.map(lambda a: a[-1], found)
    _, found = lax.scan(backwards, last, jax.tree.map(lambda a: a[:-1], found), reverse=True)
    R, velocity, P = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), found, last)
    deviation = noise * jnp.sqrt(jnp.trace(P[..., :3, :3], axis1=-2, axis2=-1) / 3)
    return Smoothed(jnp.moveaxis(R, 0, -4), jnp.moveaxis(velocity / dt, 0, -3), jnp.moveaxis(deviation, 0, -2))


def _process_noise(dt: Array, noise: Array, acceleration: ArrayLike) -> Array:
    """(2, 2), of position and velocity per frame, in units of the noise."""
    q = jnp.square(jnp.asarray(acceleration, float) / noise) * dt**3
    return q * jnp.array([[1 / 3, 1 / 2], [1 / 2, 1.0]])


def _update(P: Array, w: Array, dim: int) -> tuple[Array, Array]:
    """Gain (..., n, dim) and covariance once the first `dim` components are measured with variances 1 / w.

    In Joseph's form, which keeps float32 covariances positive.
    """
    w = w[..., None, None]
    S = jnp.eye(dim) + w * P[..., :dim, :dim]
    gain = w * jnp.swapaxes(jnp.linalg.solve(S, P[..., :dim, :]), -1, -2)
    n = P.shape[-1]
    keep = jnp.eye(n) - jnp.concatenate([gain, jnp.zeros((*gain.shape[:-1], n - dim))], -1)
    variance = jnp.where(w > 0, 1 / jnp.where(w > 0, w, 1), 0)
    return gain, _sandwich(keep, P) + variance * _times(gain, jnp.swapaxes(gain, -1, -2))


def _correct(F: Array, Q: Array, P: Array, P_later: Array) -> tuple[Array, Array]:
    """Gain and covariance of a filtered state once the one after it is known."""
    ahead = _sandwich(F, P) + Q
    gain = jnp.swapaxes(jnp.linalg.solve(ahead, _times(F, P)), -1, -2)
    return gain, P + _sandwich(gain, P_later - ahead)


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def _sandwich(a: Array, P: Array) -> Array:
    """a P a^T."""
    return _times(_times(a, P), jnp.swapaxes(a, -1, -2))


def _turn(R_from: Array, R_to: Array) -> Array:
    """Axis-angle of R_from^T R_to."""
    return so3_log(jnp.einsum("...ki,...kj->...ij", R_from, R_to, precision=HIGHEST))


def _first_seen(x: Array, w: Array) -> Array:
    """The first of T frames (T, ..., K, ...) that has weight, by point."""
    first = jnp.argmax(w > 0, 0)[None]
    return jnp.take_along_axis(x, first.reshape(*first.shape, *(1,) * (x.ndim - first.ndim)), 0)[0]


def _measured(values: ArrayLike, weights: ArrayLike | None, shape: str, axes: int) -> tuple[Array, Array]:
    """Values and weights with time in front, 0 or the identity where the weight is 0."""
    x = jnp.asarray(values, float)
    if x.ndim < axes + 2 or (axes == 2 and x.shape[-2:] != (3, 3)):
        raise ValueError(f"expected {shape}, got {x.shape}")
    frames = x.shape[: x.ndim - axes]
    w = jnp.ones(frames) if weights is None else jnp.asarray(weights, float)
    if w.shape[-2:] != frames[-2:]:
        raise ValueError(f"weights: expected (..., {frames[-2]}, {frames[-1]}), one for each value, got {w.shape}")
    w = jnp.broadcast_to(w, jnp.broadcast_shapes(w.shape, frames))
    x = jnp.broadcast_to(x, (*w.shape, *x.shape[x.ndim - axes :]))
    nothing = 0.0 if axes == 1 else jnp.eye(3)
    x = jnp.where((w > 0).reshape(*w.shape, *(1,) * axes), x, nothing)
    return jnp.moveaxis(x, -2 - axes, 0), jnp.moveaxis(w, -2, 0)
