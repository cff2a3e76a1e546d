"""Where a hand touches an object, and how far into it it goes. Signed distances are in metres, negative inside."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.metrics import _points


@jax.jit
def contact_map(signed_distance: ArrayLike, threshold: ArrayLike) -> Bool[Array, "*b n"]:
    """Which points are in contact: those inside the object or no further than a threshold from its surface.

    Args:
        signed_distance: (..., N) metres from the object, negative inside.
        threshold: (...,) metres, such as 0.005; papers differ, so say yours.

    Returns:
        (..., N).
    """
    return jnp.asarray(signed_distance) <= jnp.asarray(threshold)[..., None]


@jax.jit
def contact_scores(
    pred: ArrayLike, target: ArrayLike, valid: ArrayLike | None = None
) -> tuple[Float[Array, "*b"], Float[Array, "*b"], Float[Array, "*b"]]:
    """Precision, recall and F1 of the points that are in contact, as in Tripathi et al., ICCV 2023 (DECO).

    Args:
        pred: (..., N) which points are in contact; `contact_map` makes it from signed distances.
        target: (..., N), leading axes broadcast.
        valid: (..., N) which points count; by default all.

    Returns:
        precision (...,), NaN where no contact is predicted; recall (...,), NaN where there is none; F1 (...,), the
        share 2 TP / (2 TP + FP + FN), NaN only where neither has contact. They are counts: their gradient is zero.

    Raises:
        ValueError: maps of unlike length, or not of truth values.
    """
    p, t = jnp.asarray(pred), jnp.asarray(target)
    if p.dtype != bool or t.dtype != bool:
        hint = "contact_map makes them from signed distances"
        raise ValueError(f"expected truth values (..., N), got pred of {p.dtype} and target of {t.dtype}; {hint}")
    if p.shape[-1:] != t.shape[-1:] or p.ndim < 1:
        raise ValueError(f"expected pred and target of one length (..., N), got {p.shape} and {t.shape}")
    counts = _points.mask(valid, p.shape[-1:])
    both, predicted, true = (jnp.sum(a & counts, -1) for a in (p & t, p, t))
    both, predicted, true = jnp.broadcast_arrays(both, predicted, true)
    return _points.ratio(both, predicted), _points.ratio(both, true), _points.ratio(2 * both, predicted + true)


@jax.jit
def penetration_depth(signed_distance: ArrayLike, valid: ArrayLike | None = None) -> Float[Array, "*b"]:
    """How deep a hand is in an object: the largest depth of its points, 0 where none is inside.

    As in Hasson et al., CVPR 2019 (ObMan), where the points are the vertices of the hand.

    Args:
        signed_distance: (..., N) metres of the hand's points from the object, negative inside.
        valid: (..., N) which points count; by default all.

    Returns:
        (...,) metres, not negative; NaN where no point counts.

    Raises:
        ValueError: a mask of another length.
    """
    d = jnp.asarray(signed_distance)
    counts = _points.mask(valid, d.shape[-1:])
    deepest = jnp.max(jnp.maximum(-jnp.where(counts, d, 0), 0), -1)
    return jnp.where(jnp.any(counts, -1), deepest, jnp.nan)


def voxel_grid(
    lower: ArrayLike | Sequence[float], upper: ArrayLike | Sequence[float], pitch: float = 0.002
) -> Float[Array, "p 3"]:
    """Centres of the voxels that fill a box, the last ones beyond it where its sides are no whole number of them.

    Args:
        lower: (3,) metres, the corner with the least coordinates. The number of voxels follows from the corners, which
            therefore cannot be traced.
        upper: (3,) metres, the corner with the greatest.
        pitch: metres, the side of a voxel.

    Returns:
        (P, 3) metres, z running fastest.

    Raises:
        TypeError: corners that are traced by jit or vmap.
        ValueError: corners of another shape, or without room between them; a pitch that is not positive.
    """
    if isinstance(lower, Tracer) or isinstance(upper, Tracer):
        raise TypeError("lower and upper set the number of voxels and cannot be traced: make the grid outside of jit")
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if low.shape != (3,) or high.shape != (3,) or not (high > low).all():
        raise ValueError(f"expected corners (3,) with lower below upper, got {low} and {high}")
    if not pitch > 0:
        raise ValueError(f"pitch: expected a positive length in metres, got {pitch}")
    number = np.ceil((high - low) / pitch - 1e-4).astype(int)  # what rounding adds to a whole number is no voxel
    axes = [start + pitch * (np.arange(n) + 0.5) for start, n in zip(low, np.maximum(number, 1), strict=True)]
    return jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3), jnp.float32)


@jax.jit
def penetration_volume(inside_a: ArrayLike, inside_b: ArrayLike, voxel: ArrayLike) -> Float[Array, "*b"]:
    """Volume that two solids share, by counting voxels (Hasson et al., CVPR 2019, ObMan: 5 mm; here any).

    The occupancies are any inside tests of the centres of one `voxel_grid` that holds the intersection, such as signed
    distances below zero or winding numbers above one half. Of the 59 cm^3 that two spheres of 3 cm share, voxels of
    2 mm count 1.6 % too much.

    Args:
        inside_a: (..., P) which voxels lie in the one solid.
        inside_b: (..., P) which lie in the other, leading axes broadcast.
        voxel: metres, the side of a voxel, such as 0.002.

    Returns:
        (...,) cubic metres; a cubic centimetre is 1e-6. It is a count: its gradient is zero.

    Raises:
        ValueError: occupancies of unlike length, or not of truth values.
    """
    a, b = jnp.asarray(inside_a), jnp.asarray(inside_b)
    if a.dtype != bool or b.dtype != bool:
        hint = "of signed distances, `distance < 0`"
        raise ValueError(f"expected truth values (..., P), got inside_a of {a.dtype} and inside_b of {b.dtype}; {hint}")
    if a.shape[-1:] != b.shape[-1:] or a.ndim < 1:
        raise ValueError(f"expected occupancies of one voxel grid (..., P), got {a.shape} and {b.shape}")
    return jnp.sum(a & b, -1) * jnp.asarray(voxel, float) ** 3
