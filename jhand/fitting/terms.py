"""What a fit minimises besides its priors: terms, each many small residuals of one kind.

A residual is a function of a few landmarks of one hand and of what was measured there; whatever is measured on a hand
is a choice of landmarks and such a function. Each constructor below is one kind of measurement. Their arrays carry the
leading axes of the hands to be fitted, time last in a sequence.

Some measurements do not say which point of the hand they belong to. Their terms find that out again every few
iterations (`Term.correspond`), in between it is held fixed (iterated closest points, Besl and McKay 1992).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.geometry.camera import Camera, WeakCamera, project
from jhand.geometry.rotations import so3_exp
from jhand.hand.landmark_sets import LandmarkSet, vertex_landmarks
from jhand.hand.model import HandModel

HIGHEST = lax.Precision.HIGHEST
CAMERA_UNKNOWNS = 7
"""Of a camera that is not quite known: its turn (3), its shift (3), the logarithm of its focal length's factor."""

Residual = Callable[[Array, Array, Array, Any], Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Term:
    """G residuals on each hand. Made by the functions of this module."""

    landmarks: LandmarkSet
    """The points of the hand that the residuals read."""
    groups: Int[Array, "... g m"]
    """Which m landmarks each residual reads."""
    data: Any
    """What was measured: arrays with leading axes (..., G)."""
    weights: Float[Array, "... g"]
    """Trust in each, 0 for what is missing; a residual has sigma / sqrt(weight)."""
    sigma: Array | float
    """Standard deviation of a residual of weight 1."""
    robust: Array | float
    """Residual, in sigmas, from which it counts linearly (pseudo-Huber) instead of squared."""
    residual: Residual = field(metadata={"static": True})
    """`(points (m, 3), transl (3,), cameras (V, 7), datum) -> (R,)`."""
    correspond: Callable[[Any, Array], tuple[Array, Any, Array]] | None = field(default=None, metadata={"static": True})
    """`(frame's data, landmarks (K, 3)) -> groups (G, m), data, weights`, where the groups depend on the hand."""
    source: Any = None
    """What `correspond` reads: arrays with the leading axes of the hands."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreeWeakCamera:
    """Scaled orthography of unknown scale: u = focal * (x, y) / z of the hand's translation. Its focal length is
    nominal.
    """

    focal: Float[Array, "*b"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixel:
    """A point seen in a picture."""

    uv: Float[Array, "*b 2"]
    camera: Camera | WeakCamera | FreeWeakCamera
    view: Int[Array, "*b"]
    """Which of the cameras it is, where they are not quite known."""


def offset(points: Array, _transl: Array, _cameras: Array, measured: Array) -> Array:
    """Metres (3,) from a measured point to the landmark."""
    return points[0] - measured


def pixel_offset(points: Array, transl: Array, cameras: Array, seen: Pixel) -> Array:
    """Pixels (2,) from where a point was seen to the landmark's image."""
    return image_point(seen, points[0], transl, cameras) - seen.uv


def image_point(seen: Pixel, point: Array, transl: Array, cameras: Array) -> Array:
    """Pixel (2,) of one landmark (3,) of a hand translated by `transl` (3,)."""
    camera = seen.camera
    if isinstance(camera, FreeWeakCamera):
        return camera.focal * point[:2] / transl[2]
    if isinstance(camera, Camera) and cameras.shape[0]:
        camera = adjust_camera(camera, cameras[seen.view])
    return project(camera, point[None])[0]


def adjust_camera(camera: Camera, unknowns: ArrayLike) -> Camera:
    """A camera turned and shifted in its own frame, its focal length scaled.

    Args:
        camera: leading axes (...).
        unknowns: (..., 7): axis-angle, metres, logarithm of the factor.
    """
    c = jnp.asarray(unknowns)
    turn = so3_exp(c[..., :3])
    R = jnp.matmul(turn, camera.T_cam_world[..., :3, :3], precision=HIGHEST)
    t = jnp.matmul(turn, camera.T_cam_world[..., :3, 3:], precision=HIGHEST) + c[..., 3:6, None]
    T = camera.T_cam_world.at[..., :3, :].set(jnp.concatenate([R, t], -1))
    factor = jnp.exp(c[..., 6])[..., None, None]
    return replace(camera, K=camera.K.at[..., :2, :2].multiply(factor), T_cam_world=T)


def each(num: int) -> Int[Array, "g 1"]:
    """Groups of one landmark each."""
    return jnp.arange(num)[:, None]


def measured(points: ArrayLike, weights: ArrayLike | None, what: str) -> tuple[Array, Array]:
    """Measurements (..., G, C) with 0 where their weight is 0, and the weights (..., G)."""
    p = jnp.asarray(points, jnp.float32)
    w = jnp.ones(p.shape[:-1]) if weights is None else jnp.asarray(weights, jnp.float32)
    if w.shape != p.shape[:-1]:
        raise ValueError(f"weights of {what}: expected shape {p.shape[:-1]}, one for each, got {w.shape}")
    return jnp.where(w[..., None] > 0, p, 0), w


def points_3d(
    landmarks: LandmarkSet,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = jnp.inf,
) -> Term:
    """Landmarks measured in space, whichever they are.

    Args:
        landmarks: K points of the hand.
        points: (..., K, 3) metres, where they were measured.
        weights: (..., K), 0 for what is missing.
        sigma: metres.
        robust: see `Term`.
    """
    p, w = measured(points, weights, "points")
    K = len(landmarks.names)
    if p.shape[-2:] != (K, 3):
        raise ValueError(f"points: expected shape (..., {K}, 3), one for each landmark, got {p.shape}")
    return Term(landmarks, each(K), p, w, sigma, robust, offset)


def mesh_vertices(
    hand: HandModel,
    vertices: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 0.002,
    robust: Array | float = jnp.inf,
) -> Term:
    """Every vertex measured, as a scan registered to the model gives them.

    Args:
        hand: the model.
        vertices: (..., V, 3) metres.
        weights: (..., V), 0 for what is missing.
        sigma: metres.
        robust: see `Term`.
    """
    return points_3d(all_vertices(hand), vertices, weights, sigma=sigma, robust=robust)


def all_vertices(hand: HandModel) -> LandmarkSet:
    ids = tuple(range(hand.num_vertices))
    return vertex_landmarks(hand, ids, tuple(f"v{i}" for i in ids))


def points_2d(
    landmarks: LandmarkSet,
    pixels: ArrayLike,
    camera: Camera | WeakCamera | FreeWeakCamera,
    weights: ArrayLike | None = None,
    *,
    sigma: Array | float = 2.0,
    robust: Array | float = jnp.inf,
) -> Term:
    """Landmarks seen by one or several cameras.

    Args:
        landmarks: K points of the hand.
        pixels: (..., V, K, 2) seen in V views.
        camera: leading axes (..., V) or what broadcasts to them.
        weights: (..., V, K), 0 for what is not seen.
        sigma: pixels.
        robust: see `Term`.
    """
    uv, w = measured(pixels, weights, "pixels")
    K = len(landmarks.names)
    if uv.ndim < 3 or uv.shape[-2:] != (K, 2):
        raise ValueError(f"pixels: expected shape (..., V, {K}, 2), got {uv.shape}")
    *batch, V, _, _ = uv.shape
    seen = Pixel(uv, for_each(repeat_camera(camera, (*batch, V)), len(batch) + 1, K), _views((*batch, V, K)))
    flat = lambda a: a.reshape(*batch, V * K, *a.shape[len(batch) + 2 :])  # noqa: E731
    groups = jnp.tile(each(K), (V, 1))
    return Term(landmarks, groups, jax.tree.map(flat, seen), flat(w), sigma, robust, pixel_offset)


def _views(shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Number of the view of points (..., V, K)."""
    return jnp.broadcast_to(jnp.arange(shape[-2])[:, None], shape)


_CAMERA_AXES = {"K": 2, "T_cam_world": 2, "distortion": 1, "scale": 0, "offset": 1, "focal": 0}


def repeat_camera(camera: Any, batch: tuple[int, ...]) -> Any:
    """A camera whose leading axes broadcast to `batch`, with these leading axes."""

    def repeated(name: str) -> Array:
        array = jnp.asarray(getattr(camera, name))
        return jnp.broadcast_to(array, (*batch, *array.shape[array.ndim - _CAMERA_AXES[name] :]))

    return replace(camera, **{f.name: repeated(f.name) for f in fields(camera)})


def for_each(tree: Any, axis: int, num: int) -> Any:
    """Arrays repeated along a new axis."""
    return jax.tree.map(lambda a: jnp.repeat(jnp.expand_dims(a, axis), num, axis), tree)
