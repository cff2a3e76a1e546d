"""Convex solids for hands to hold: box, ellipsoid, cylinder, capsule and superquadric, as meshes and as distances.

A solid is three numbers of size, two of roundness and a kind, all of which may be traced: a batch mixes kinds. Meshes
share one topology, a cube's surface cut into squares, whose edges become the edges of box and cylinder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.draws import between, uniforms

KINDS = ("box", "ellipsoid", "cylinder", "capsule", "superquadric")
CUTS = 8
"""Squares along each edge of the cube: 386 vertices, 768 triangles."""
_FLOOR = 1e-9


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solid:
    """A convex solid about the origin of its own frame; round ones stand along z."""

    kind: Int[Array, "*b"]
    """Index into `KINDS`."""
    half_size: Float[Array, "*b 3"]
    """Metres, half the extent along x, y, z. A cylinder's and a capsule's radius is the first; the second is unused."""
    roundness: Float[Array, "*b 2"]
    """Exponents of a superquadric (Barr 1981), from pole to pole and around: 0.1 is nearly a box, 1 an ellipsoid, 2 a
    double pyramid. Unused by the others."""


def make_solid(
    kind: str, half_size: ArrayLike | Sequence[float], roundness: ArrayLike | Sequence[float] = (1.0, 1.0)
) -> Solid:
    """A solid from its numbers.

    Args:
        kind: one of `KINDS`.
        half_size: (..., 3) metres.
        roundness: (..., 2), of a superquadric, 0.1 to 2.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    size = jnp.asarray(half_size, float)
    return Solid(
        jnp.full(size.shape[:-1], KINDS.index(kind)),
        size,
        jnp.broadcast_to(jnp.asarray(roundness, float), (*size.shape[:-1], 2)),
    )


def sample_solid(key: Array) -> Solid:
    """A solid that a hand can hold: 4 to 8 cm across where it is gripped, up to 20 cm long, any kind."""
    across, along, kind, roundness = uniforms(key, (2,), (1,), (), (2,))
    across, along = between(across, 0.018, 0.04), between(along, 0.02, 0.09)
    kind = (len(KINDS) * kind).astype(jnp.int32)
    # a capsule's caps are part of its length
    along = jnp.where(kind == KINDS.index("capsule"), jnp.maximum(along, across[:1] + 0.005), along)
    return Solid(kind, jnp.concatenate([across, along]), between(roundness, 0.15, 1.6))


def solid_faces() -> Int[Array, "f 3"]:
    """Triangles of every solid's mesh, counter-clockwise seen from outside."""
    return jnp.asarray(_TRIANGLES)


def solid_vertices(solid: Solid) -> Float[Array, "v 3"]:
    """Vertices of one solid's mesh in its own frame, metres; use `jax.vmap` for several."""
    a, _, c = solid.half_size
    cube = jnp.asarray(_CUBE)
    direction = cube / jnp.linalg.norm(cube, axis=-1, keepdims=True)
    # squares to discs along z: where the square's border is at distance m, the disc's is at radius m
    flat = jnp.linalg.norm(cube[:, :2], axis=-1, keepdims=True)
    disc = cube[:, :2] * jnp.max(jnp.abs(cube[:, :2]), -1, keepdims=True) / jnp.where(flat > 0, flat, 1)
    box = cube * solid.half_size
    ellipsoid = direction * solid.half_size
    cylinder = jnp.concatenate([disc * a, cube[:, 2:] * c], -1)
    capsule = direction * a + jnp.sign(direction[:, 2:]) * jnp.array([0.0, 0, 1]) * jnp.maximum(c - a, 0)
    # made round before it is stretched: the cube's edges and corners then become those of a box that is not a cube
    unit = Solid(solid.kind, jnp.ones(3), solid.roundness)
    superquadric = solid.half_size * direction / _inside_out(unit, direction)[:, None]
    return jnp.select([solid.kind == k for k in range(4)], [box, ellipsoid, cylinder, capsule], superquadric)


def solid_distance(solid: Solid, points: ArrayLike, steps: int = 4) -> Float[Array, "n"]:
    """Signed distance of points from one solid, negative inside.

    Exact for box, cylinder and capsule, and for a sphere. Ellipsoids and superquadrics are solved for, and never too
    small: within a centimetre of ellipsoids to a fraction of a millimetre, beside sharp edges of superquadrics by a few
    millimetres too large. Signs are always right.

    Args:
        solid: one; use `jax.vmap` for several.
        points: (N, 3) metres, in the solid's frame.
        steps: of Newton's method towards the surface of ellipsoids and superquadrics; one is enough close by.

    Returns:
        (N,) metres.
    """
    p = jnp.asarray(points)
    a, _, c = solid.half_size
    q = jnp.abs(p) - solid.half_size
    box = _norm(jnp.maximum(q, 0)) + jnp.minimum(jnp.max(q, -1), 0)
    radial = _norm(p[:, :2])
    q = jnp.stack([radial - a, jnp.abs(p[:, 2]) - c], -1)
    cylinder = _norm(jnp.maximum(q, 0)) + jnp.minimum(jnp.max(q, -1), 0)
    beyond = p[:, 2] - jnp.clip(p[:, 2], -jnp.maximum(c - a, 0), jnp.maximum(c - a, 0))
    capsule = jnp.sqrt(radial**2 + beyond**2 + _FLOOR**2) - a
    ones = jnp.ones_like(solid.roundness)
    as_ellipsoid = Solid(solid.kind, solid.half_size, ones)
    is_ellipsoid = solid.kind == KINDS.index("ellipsoid")
    implicit = jax.tree.map(lambda x, y: jnp.where(is_ellipsoid, x, y), as_ellipsoid, solid)
    return jnp.select(
        [solid.kind == 0, solid.kind == 2, solid.kind == 3], [box, cylinder, capsule], _level(implicit, p, steps)
    )


def _inside_out(solid: Solid, p: Array) -> Array:
    """How many times larger a superquadric through each point is: Barr's function, made homogeneous of degree one."""
    e1, e2 = solid.roundness
    scaled = jnp.maximum(jnp.abs(p) / solid.half_size, 1e-6)
    largest = jnp.max(scaled, -1)
    x, y, z = (jnp.maximum(scaled[..., k] / largest, 1e-6) for k in range(3))  # powers of large numbers overflow
    around = _power(_power(x, 2 / e2) + _power(y, 2 / e2), e2 / e1)
    return largest * _power(around + _power(z, 2 / e1), e1 / 2)


def _power(x: Array, exponent: Array) -> Array:
    """Of positive numbers: several times faster than `**`, which no CPU's compiler vectorises."""
    return jnp.exp(exponent * jnp.log(x))


def _level(solid: Solid, p: Array, steps: int) -> Array:
    """Signed distance from a superquadric: each step goes along the gradient to a point of the surface, and from there
    half the way sideways towards the point that is asked for; the nearest of these points counts.
    """

    def size(x: Array) -> Array:
        return _inside_out(solid, x)

    def one(x: Array) -> Array:
        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            at, nearest = carry
            value, slope = jax.value_and_grad(size)(at)
            foot = at - (value - 1) * slope / jnp.maximum(jnp.sum(slope * slope), _FLOOR)
            foot = foot / jnp.maximum(size(foot), _FLOOR)  # of degree one: exactly on the surface
            nearest = jnp.where(jnp.sum((x - foot) ** 2) < jnp.sum((x - nearest) ** 2), foot, nearest)
            away, out = x - foot, slope / _norm(slope)
            return (foot + 0.5 * (away - jnp.sum(away * out) * out), nearest), None

        radial = x / jnp.maximum(size(x), _FLOOR)
        (_, foot), _ = lax.scan(step, (x, radial), None, length=steps)
        return jnp.sign(size(x) - 1) * _norm(x - lax.stop_gradient(foot))

    return jax.vmap(one)(p)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, -1) + _FLOOR**2)


def _cube_surface(cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a cube's surface of half side 1, each edge cut into `cuts`, and its triangles."""
    index: dict[tuple[int, int, int], int] = {}
    triangles = []

    def number(at: tuple[int, int, int]) -> int:
        return index.setdefault(at, len(index))

    for axis in range(3):
        for end in (0, cuts):
            for i in range(cuts):
                for j in range(cuts):
                    corner = []
                    for u, v in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)):
                        at = [0, 0, 0]
                        at[axis], at[(axis + 1) % 3], at[(axis + 2) % 3] = end, u, v
                        corner.append(number((at[0], at[1], at[2])))
                    a, b, c, d = corner if end else corner[::-1]
                    triangles += [(a, b, c), (a, c, d)]
    grid = np.array(list(index), np.float32) / cuts * 2 - 1
    return grid, np.array(triangles, np.int32)


_CUBE, _TRIANGLES = _cube_surface(CUTS)
