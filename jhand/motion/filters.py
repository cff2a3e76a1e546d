"""Smoothing of points and rotations in time: as frames arrive, by local polynomials, or with all frames known.

Points are (..., T, K, C), rotations (..., T, K, 3, 3): T frames of K of them, as in `jhand.metrics`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import slerp, so3_exp, so3_log

HIGHEST = lax.Precision.HIGHEST
_RECENTRINGS = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneEuro:
    """What the one-euro filter keeps from frame to frame."""

    value: Float[Array, "*b k c"]
    """Filtered points."""
    velocity: Float[Array, "*b k c"]
    """Their filtered velocity, per second."""


def one_euro_start(points: ArrayLike) -> OneEuro:
    """The filter's state after a first frame (..., K, C)."""
    x = jnp.asarray(points)
    return OneEuro(x, jnp.zeros_like(x))


def one_euro_step(
    state: OneEuro,
    points: ArrayLike,
    seconds: ArrayLike,
    *,
    min_cutoff: ArrayLike = 1.0,
    beta: ArrayLike = 30.0,
    derivative_cutoff: ArrayLike = 1.0,
) -> OneEuro:
    """One more frame through the one-euro filter (Casiez et al., CHI 2012): slow points are smoothed, fast ones follow.

    The speed that opens the filter is that of the point, not of each coordinate: the axes do not matter.

    Args:
        state: after the last frame.
        points: (..., K, C) metres.
        seconds: since the last frame, one number or (...).
        min_cutoff: hertz, at rest; lower is smoother.
        beta: hertz per metre a second; higher lags less in motion.
        derivative_cutoff: hertz, of the velocity's own filter.

    Returns:
        The state after this frame; `.value` is the filtered points.
    """
    x, dt = jnp.asarray(points), jnp.asarray(seconds, float)[..., None, None]
    velocity = state.velocity + _share(derivative_cutoff, dt) * ((x - state.value) / dt - state.velocity)
    speed = jnp.linalg.norm(velocity, axis=-1, keepdims=True)
    share = _share(min_cutoff + beta * speed, dt)
    return OneEuro(state.value + share * (x - state.value), velocity)


@jax.jit
def one_euro(
    points: ArrayLike,
    fps: ArrayLike,
    *,
    min_cutoff: ArrayLike = 1.0,
    beta: ArrayLike = 30.0,
    derivative_cutoff: ArrayLike = 1.0,
) -> Float[Array, "*b t k c"]:
    """The one-euro filter over recorded frames; see `one_euro_step`.

    Args:
        points: (..., T, K, C) metres.
        fps: hertz.
        min_cutoff: hertz, at rest.
        beta: hertz per metre a second.
        derivative_cutoff: hertz, of the velocity's own filter.

    Returns:
        (..., T, K, C), the first frame as it is.
    """
    x = jnp.moveaxis(_frames(points, 3, "points (..., T, K, C)"), -3, 0)
    settings = dict(min_cutoff=min_cutoff, beta=beta, derivative_cutoff=derivative_cutoff)

    def step(state: OneEuro, frame: Array) -> tuple[OneEuro, Array]:
        state = one_euro_step(state, frame, 1 / jnp.asarray(fps, float), **settings)
        return state, state.value

    _, rest = lax.scan(step, one_euro_start(x[0]), x[1:])
    return jnp.moveaxis(jnp.concatenate([x[:1], rest]), 0, -3)


@jax.jit
def one_euro_rotations(
    rotations: ArrayLike,
    fps: ArrayLike,
    *,
    min_cutoff: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    derivative_cutoff: ArrayLike = 1.0,
) -> Float[Array, "*b t k 3 3"]:
    """The one-euro filter on rotations: the same, along the shortest turn (Casiez et al., CHI 2012).

    Args:
        rotations: (..., T, K, 3, 3).
        fps: hertz.
        min_cutoff: hertz, at rest.
        beta: hertz per radian a second.
        derivative_cutoff: hertz, of the angular velocity's own filter.

    Returns:
        (..., T, K, 3, 3), the first frame as it is.
    """
    R = jnp.moveaxis(_frames(rotations, 4, "rotations (..., T, K, 3, 3)"), -4, 0)
    dt = 1 / jnp.asarray(fps, float)

    def step(state: tuple[Array, Array], frame: Array) -> tuple[tuple[Array, Array], Array]:
        value, velocity = state
        turn = _turn(value, frame)
        velocity = velocity + _share(derivative_cutoff, dt) * (turn / dt - velocity)
        share = _share(min_cutoff + beta * jnp.linalg.norm(velocity, axis=-1), dt)
        value = slerp(value, frame, share)
        return (value, velocity), value

    _, rest = lax.scan(step, (R[0], jnp.zeros(R.shape[1:-1])), R[1:])
    return jnp.moveaxis(jnp.concatenate([R[:1], rest]), 0, -4)


@partial(jax.jit, static_argnames=("window", "order", "derivative"))
def savitzky_golay(
    points: ArrayLike, window: int, order: int, *, derivative: int = 0, fps: ArrayLike = 1.0
) -> Float[Array, "*b t k c"]:
    """Local polynomials by least squares (Savitzky and Golay 1964); at the ends, those of the outermost windows.

    Args:
        points: (..., T, K, C), T of at least `window`.
        window: frames, odd.
        order: degree of the polynomials, below `window`.
        derivative: 0 for the smoothed points, 1 for their velocity, 2 for their acceleration, and so on.
        fps: hertz, the unit of derivatives.

    Returns:
        (..., T, K, C).

    Raises:
        ValueError: a window that is even, too short for the order or longer than the sequence.
    """
    x = _frames(points, 3, "points (..., T, K, C)")
    starts, shares = _polynomial_shares(x.shape[-3], window, order, derivative)
    neighbours = jnp.take(x, starts[:, None] + np.arange(window), axis=-3)  # (..., T, window, K, C)
    smooth = jnp.einsum("tw,...twkc->...tkc", shares, neighbours, precision=HIGHEST)
    return smooth * jnp.asarray(fps, float) ** derivative


@partial(jax.jit, static_argnames=("window", "order"))
def savitzky_golay_rotations(rotations: ArrayLike, window: int, order: int) -> Float[Array, "*b t k 3 3"]:
    """`savitzky_golay` on rotations: in the tangent space at the answer, which is found by recentring.

    Args:
        rotations: (..., T, K, 3, 3), T of at least `window`; within a window less than half a turn.
        window: frames, odd.
        order: degree of the polynomials, below `window`.

    Returns:
        (..., T, K, 3, 3).

    Raises:
        ValueError: a window that is even, too short for the order or longer than the sequence.
    """
    R = _frames(rotations, 4, "rotations (..., T, K, 3, 3)")
    starts, shares = _polynomial_shares(R.shape[-4], window, order, 0)
    neighbours = jnp.take(R, starts[:, None] + np.arange(window), axis=-4)  # (..., T, window, K, 3, 3)
    for _ in range(_RECENTRINGS):
        turns = _turn(R[..., None, :, :, :], neighbours)
        step = jnp.einsum("tw,...twkc->...tkc", shares, turns, precision=HIGHEST)
        R = jnp.matmul(R, so3_exp(step), precision=HIGHEST)
    return R


def _polynomial_shares(num: int, window: int, order: int, derivative: int) -> tuple[np.ndarray, Array]:
    """Each frame's window: where it starts (T,), and the shares (T, window) of its frames."""
    if window % 2 == 0 or not 0 <= order < window or window > num:
        raise ValueError(
            f"expected an odd window longer than the order and at most {num}, the number of frames; got a window of "
            f"{window} and an order of {order}"
        )
    half = window // 2
    starts = np.clip(np.arange(num) - half, 0, num - window)
    powers = np.arange(order + 1)
    fit = np.linalg.pinv(np.power.outer(np.arange(-half, half + 1.0), powers))  # samples -> coefficients
    place = np.arange(num) - starts - half  # of the frame in its window
    falling = np.array([np.prod(n - np.arange(derivative)) for n in powers], float)
    basis = falling * np.power.outer(place.astype(float), np.maximum(powers - derivative, 0))
    return starts, jnp.asarray(basis @ fit, jnp.float32)


def _share(cutoff: ArrayLike, dt: Array) -> Array:
    """How far a low-pass filter of a cutoff in hertz moves towards a new value."""
    turn = 2 * jnp.pi * jnp.asarray(cutoff) * dt
    return turn / (1 + turn)


def _turn(R_from: Array, R_to: Array) -> Array:
    """Axis-angle of R_from^T R_to."""
    return so3_log(jnp.einsum("...ki,...kj->...ij", R_from, R_to, precision=HIGHEST))


def _frames(values: ArrayLike, axes: int, shape: str) -> Array:
    x = jnp.asarray(values, float)
    if x.ndim < axes:
        raise ValueError(f"expected {shape}, got {x.shape}")
    return x
