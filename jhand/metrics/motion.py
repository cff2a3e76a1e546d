"""Errors of motion, in metres and seconds. A mean runs over frames and points of one sequence, never over sequences.

Time is axis T. `valid` says which points of which frames count; the others are not read. A sequence without anything
valid has no error: NaN, with a gradient of zero.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.geometry.alignment import rigid_procrustes
from jhand.metrics import _points

_ALL = (-1, -2)


@jax.jit
def mpjve(pred: ArrayLike, target: ArrayLike, fps: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean per-joint velocity error: the mean distance between the velocities of points, from first differences.

    As in Pavllo et al., CVPR 2019 (VideoPose3D).

    Args:
        pred: (..., T, K, C).
        target: (..., T, K, C), leading axes broadcast.
        fps: (...,) hertz, frames a second; 1 gives the paper's own unit, lengths a frame.
        valid: (..., T, K) which points count; by default all. A velocity needs its two frames.

    Returns:
        (...,) m/s.

    Raises:
        ValueError: points of unlike shapes; fewer than two frames.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T", "K"))
    difference, counts = _derivative(x - y, counts, 1, fps)
    return _points.masked_mean(_points.length(difference), counts, _ALL)


@jax.jit
def acceleration_error(
    pred: ArrayLike, target: ArrayLike, fps: ArrayLike, valid: ArrayLike | None = None
) -> Float[Array, "*b"]:
    """Mean distance between the accelerations of points, from second differences (Kanazawa et al., CVPR 2019, HMMR).

    Args:
        pred: (..., T, K, C).
        target: (..., T, K, C), leading axes broadcast.
        fps: (...,) hertz, frames a second; 1 gives HMMR's own unit, metres per frame squared.
        valid: (..., T, K) which points count; by default all. An acceleration needs its three frames.

    Returns:
        (...,) m/s^2.

    Raises:
        ValueError: points of unlike shapes; fewer than three frames.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T", "K"))
    difference, counts = _derivative(x - y, counts, 2, fps)
    return _points.masked_mean(_points.length(difference), counts, _ALL)


@jax.jit
def acceleration(points: ArrayLike, fps: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean length of the acceleration of points, from second differences.

    Args:
        points: (..., T, K, C).
        fps: (...,) hertz, frames a second.
        valid: (..., T, K) which points count; by default all. An acceleration needs its three frames.

    Returns:
        (...,) m/s^2.

    Raises:
        ValueError: not points in time; fewer than three frames.
    """
    x, _, counts = _points.pair(points, points, valid, ("T", "K"))
    second, counts = _derivative(x, counts, 2, fps)
    return _points.masked_mean(_points.length(second), counts, _ALL)


@jax.jit
def jitter(points: ArrayLike, fps: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Mean length of the jerk of points, from third differences (Yi et al., TOG 2021, TransPose).

    In m/s^3: papers print it in units of 10^2 m/s^3 (TransPose) or of 10 m/s^3 (WHAM).

    Args:
        points: (..., T, K, C).
        fps: (...,) hertz, frames a second.
        valid: (..., T, K) which points count; by default all. A jerk needs its four frames.

    Returns:
        (...,) m/s^3.

    Raises:
        ValueError: not points in time; fewer than four frames.
    """
    x, _, counts = _points.pair(points, points, valid, ("T", "K"))
    third, counts = _derivative(x, counts, 3, fps)
    return _points.masked_mean(_points.length(third), counts, _ALL)


@jax.jit
def ade(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Average displacement error of a trajectory: its mean distance over all frames (Pellegrini et al., ICCV 2009).

    Args:
        pred: (..., T, C) one point in time.
        target: (..., T, C), leading axes broadcast.
        valid: (..., T) which frames count; by default all.

    Returns:
        (...,) in the unit of the points.

    Raises:
        ValueError: trajectories of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T",))
    return _points.masked_mean(_points.length(x - y), counts)


@jax.jit
def fde(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Final displacement error of a trajectory: its distance in the last valid frame (Alahi et al., CVPR 2016).

    Args:
        pred: (..., T, C) one point in time.
        target: (..., T, C), leading axes broadcast.
        valid: (..., T) which frames count; by default all.

    Returns:
        (...,) in the unit of the points.

    Raises:
        ValueError: trajectories of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T",))
    to_come = lax.cumsum(counts.astype(int), counts.ndim - 1, reverse=True)
    return _points.masked_mean(_points.length(x - y), counts & (to_come == 1))


@jax.jit
def ga_mpjpe(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Global-aligned MPJPE: `mpjpe` over a sequence after one similarity that fits all of its frames at once.

    In a world frame; used for hands by Yu et al., CVPR 2025 (Dyn-HaMR).

    Args:
        pred: (..., T, K, 3) in one frame for the whole sequence.
        target: (..., T, K, 3), leading axes broadcast.
        valid: (..., T, K) which points count, in the alignment and in the mean; by default all.

    Returns:
        (...,) in the unit of the points.

    Raises:
        ValueError: points of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T", "K"))
    return _aligned_error(x, y, counts, counts)


@partial(jax.jit, static_argnames="window")
def w_mpjpe(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, *, window: int = 100
) -> Float[Array, "*b"]:
    """World MPJPE: `mpjpe` after each window is aligned by its first two frames (Ye et al., CVPR 2023, SLAHMR).

    A similarity carries the first two frames of a window that have valid points onto the target's, and the whole window
    with them: what drifts afterwards counts. Windows follow each other, and the last takes the frames that are left,
    as in the evaluation of Shin et al., CVPR 2024 (WHAM), which cuts them after dropping frames that are not valid and
    leaves out the last frame. A sequence shorter than a window is one.

    Args:
        pred: (..., T, K, 3) in one frame for the whole sequence.
        target: (..., T, K, 3), leading axes broadcast.
        valid: (..., T, K) which points count, in the alignment and in the mean; by default all.
        window: frames.

    Returns:
        (...,) in the unit of the points: the mean over all frames.

    Raises:
        ValueError: points of unlike shapes; a window of fewer than two frames.
    """
    x, y, counts = _windows(*_points.pair(pred, target, valid, ("T", "K")), window)
    seen = jnp.any(counts, -1)
    first = seen & (jnp.cumsum(seen, -1) <= 2)
    return _aligned_error(x, y, counts, counts & first[..., None], (-1, -2, -3))


@partial(jax.jit, static_argnames="window")
def wa_mpjpe(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None, *, window: int = 100
) -> Float[Array, "*b"]:
    """World-aligned MPJPE: `mpjpe` after each window is aligned as a whole (Ye et al., CVPR 2023, SLAHMR).

    A similarity carries all frames of a window onto the target's at once. Windows are those of `w_mpjpe`.

    Args:
        pred: (..., T, K, 3) in one frame for the whole sequence.
        target: (..., T, K, 3), leading axes broadcast.
        valid: (..., T, K) which points count, in the alignment and in the mean; by default all.
        window: frames.

    Returns:
        (...,) in the unit of the points: the mean over all frames.

    Raises:
        ValueError: points of unlike shapes; a window of fewer than two frames.
    """
    x, y, counts = _windows(*_points.pair(pred, target, valid, ("T", "K")), window)
    return _aligned_error(x, y, counts, counts, (-1, -2, -3))


@jax.jit
def rte(pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """Root translation error: mean distance after a rigid alignment of the whole path, over the path's length.

    As in Shin et al., CVPR 2024 (WHAM), which prints it in percent. Scale is not forgiven.

    Args:
        pred: (..., T, 3) the root in time.
        target: (..., T, 3), leading axes broadcast.
        valid: (..., T) which frames count; by default all. The path goes straight over those that do not.

    Returns:
        (...,) as a share of the target's path; NaN where that does not move.

    Raises:
        ValueError: trajectories of unlike shapes.
    """
    x, y, counts = _points.pair(pred, target, valid, ("T",))
    R, t = rigid_procrustes(x, y, counts.astype(x.dtype))
    moved = jnp.einsum("...ij,...tj->...ti", R, x, precision=lax.Precision.HIGHEST) + t[..., None, :]
    error = _points.masked_mean(_points.length(moved - y), counts)
    latest = lax.cummax(jnp.where(counts, jnp.arange(counts.shape[-1]), -1), counts.ndim - 1)  # valid frame up to now
    filled = jnp.take_along_axis(y, jnp.maximum(latest, 0)[..., None], -2)
    begun = (latest >= 0)[..., :-1]
    path = jnp.sum(jnp.where(begun, _points.length(jnp.diff(filled, axis=-2)), 0), -1)
    return _points.ratio(error, path)


def _derivative(x: Array, counts: Array, order: int, fps: ArrayLike) -> tuple[Array, Array]:
    """Differences of an order along time, per second to that order, and whether all frames of each are valid."""
    frames = x.shape[-3]
    if frames <= order:
        raise ValueError(f"expected {order + 1} or more frames on axis -3, got {frames} in shape {x.shape}")
    rate = jnp.asarray(fps, float)[..., None, None, None]
    whole = counts[..., order:, :]
    for k in range(order):
        whole = whole & counts[..., k : frames - order + k, :]
    return jnp.diff(x, order, axis=-3) * rate**order, whole


def _aligned_error(
    x: Array, y: Array, counts: Array, fitted: Array, axes: tuple[int, ...] = _ALL
) -> Float[Array, "*b"]:
    """Mean distance over `axes` of points (..., T, K, 3) after one similarity for all frames."""
    flat = [a.reshape(*a.shape[:-3], -1, 3) for a in (x, y)]
    aligned = _points.similarity_aligned(*flat, fitted.reshape(*fitted.shape[:-2], -1)).reshape(x.shape)
    return _points.masked_mean(_points.length(aligned - y), counts, axes)


def _windows(
    x: Array, y: Array, counts: Array, window: int
) -> tuple[Float[Array, "*b w l k 3"], Float[Array, "*b w l k 3"], Bool[Array, "*b w l k"]]:
    """Frames (..., T, K, 3) in windows, all as long as the last one; what fills the others up does not count."""
    if window < 2:
        raise ValueError(f"window: expected 2 or more frames, got {window}")
    frames = x.shape[-3]
    starts = np.arange(max(frames // window, 1)) * window
    ends = np.append(starts[1:], frames)
    index = starts[:, None] + np.arange(frames - starts[-1])
    inside = index < ends[:, None]
    index = np.minimum(index, frames - 1)
    x, y = (jnp.take(a, index, axis=-3) for a in (x, y))
    return x, y, jnp.take(counts, index, axis=-2) & inside[..., None]
