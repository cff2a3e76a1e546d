"""Smooth motion from pose to pose: each move as people make it, with minimum jerk."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import so3_exp, so3_log

HIGHEST = lax.Precision.HIGHEST


def minimum_jerk(share: ArrayLike) -> Float[Array, "*b"]:
    """Share of the way (...,) after a share of the time: 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985), 0 before the
    start and 1 after the end.
    """
    s = jnp.clip(jnp.asarray(share), 0, 1)
    return s**3 * (10 + s * (6 * s - 15))


def between_keyframes(times: ArrayLike, starts: ArrayLike, durations: ArrayLike) -> Float[Array, "t k"]:
    """Weights that turn K + 1 keyframes into motion.

    Move k leaves keyframe k at `starts[k]` and reaches keyframe k + 1 after `durations[k]`; moves may overlap, they are
    then added, as people's are (Flash and Henis 1991).

    Args:
        times: (T,) seconds.
        starts: (K,) seconds.
        durations: (K,) seconds.

    Returns:
        `progress` (T, K): the share of each move that is done. Positions are
        `keyframes[0] + progress @ diff(keyframes)`.
    """
    t, s, d = (jnp.asarray(x) for x in (times, starts, durations))
    return minimum_jerk((t[:, None] - s) / d)


def move_points(progress: ArrayLike, keyframes: ArrayLike) -> Float[Array, "t *n"]:
    """Anything that adds up, such as points and joint angles, moved from keyframe to keyframe.

    Args:
        progress: (T, K) of `between_keyframes`.
        keyframes: (K + 1, ...).

    Returns:
        (T, ...).
    """
    k = jnp.asarray(keyframes)
    return k[0] + jnp.tensordot(jnp.asarray(progress), jnp.diff(k, axis=0), 1, precision=HIGHEST)


def move_rotations(progress: ArrayLike, keyframes: ArrayLike) -> Float[Array, "t 3 3"]:
    """Rotations turned from keyframe to keyframe, each move about one axis.

    Args:
        progress: (T, K) of `between_keyframes`.
        keyframes: (K + 1, 3, 3).

    Returns:
        (T, 3, 3).
    """
    p, R = jnp.asarray(progress), jnp.asarray(keyframes)
    turns = so3_log(jnp.matmul(jnp.swapaxes(R[:-1], -1, -2), R[1:], precision=HIGHEST))  # (K, 3)

    def turn(before: Array, move: tuple[Array, Array]) -> tuple[Array, None]:
        share, whole = move
        return jnp.matmul(before, so3_exp(share[:, None] * whole), precision=HIGHEST), None

    return lax.scan(turn, jnp.broadcast_to(R[0], (p.shape[0], 3, 3)), (p.T, turns))[0]
