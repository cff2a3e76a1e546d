"""The same hand in another model: shape and pose carried from one parameter space to another."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jhand.fitting.measurements import FitSettings
from jhand.fitting.solver import Fit, fit
from jhand.fitting.surfaces import point_cloud, surface_normals
from jhand.geometry.distance import closest_on_mesh
from jhand.geometry.mesh import vertex_normals
from jhand.hand.kinematics import HandMesh, forward
from jhand.hand.model import HandModel, HandParams, check_params

HIGHEST = lax.Precision.HIGHEST
_WRIST, _MIDDLE = 0, 4
# Surfaces are known better than joints, which models place differently within the same finger.
_SIGMA_JOINT, _SIGMA_SKIN, _SIGMA_NORMAL = 0.006, 0.002, 0.3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Transfer:
    """Hands of another model, and how well they are the same."""

    params: HandParams
    """Of the target model, with the leading axes of the source's."""
    distance: Float[Array, "*b"]
    """Mean distance of the source's vertices beyond the wrist from the target's surface, metres."""
    greatest: Float[Array, "*b"]
    """The greatest of these distances, metres."""
    turn: Float[Array, "*b"]
    """Mean angle between the normals of both surfaces there, radians."""


def transfer(params: HandParams, source: HandModel, target: HandModel, *, iterations: int = 60) -> Transfer:
    """Carry hands from one model to another: poses and shapes whose surfaces agree.

    The target is fitted to the source's keypoints, vertices and normals, first at rest for the shape, then posed with
    that shape. Shapes that are shared (`betas` of fewer leading axes) stay shared.

    Args:
        params: of the source, any leading axes.
        source: the model they belong to.
        target: another of the same side; mesh, shape space and joints may all differ.
        iterations: the most to take for each of both.

    Returns:
        The target's parameters and what distance was left.

    Raises:
        ValueError: models of two sides, or parameters that do not fit the source.
    """
    if source.side != target.side:
        raise ValueError(
            f"expected models of one side, got {source.side} and {target.side}; mirror_hand turns one over"
        )
    params = check_params(params, source)
    at_rest = replace(HandParams.zeros(params.betas.shape[:-1], source.num_betas), betas=params.betas)
    shape = _fit_surface(source, forward(source, at_rest), target, None, iterations).params.betas
    mesh = forward(source, params)
    known = jnp.broadcast_to(shape, (*params.batch, target.num_betas))
    found = _fit_surface(source, mesh, target, known, iterations).params
    distance, greatest, turn = _difference(source, mesh, target, forward(target, found))
    return Transfer(replace(found, betas=shape), distance, greatest, turn)


def _fit_surface(source: HandModel, mesh: HandMesh, target: HandModel, betas: Array | None, iterations: int) -> Fit:
    normals = vertex_normals(mesh.vertices, source.faces)
    weights = jnp.broadcast_to(_beyond_wrist(source), mesh.vertices.shape[:-1])
    terms = (
        point_cloud(target, mesh.vertices, weights, normals=normals, sigma=_SIGMA_SKIN),
        surface_normals(target, mesh.vertices, normals, weights, sigma=_SIGMA_NORMAL),
    )
    settings = FitSettings(sigma_3d=_SIGMA_JOINT)
    return fit(target, keypoints3d=mesh.keypoints, terms=terms, betas=betas, settings=settings, iterations=iterations)


@jax.jit
def _difference(source: HandModel, mesh: HandMesh, target: HandModel, found: HandMesh) -> tuple[Array, Array, Array]:
    counts = _beyond_wrist(source)
    feet, face, barycentric = closest_on_mesh(mesh.vertices, found.vertices, target.faces)
    distance = jnp.linalg.norm(feet - mesh.vertices, axis=-1)
    here, there = vertex_normals(mesh.vertices, source.faces), vertex_normals(found.vertices, target.faces)
    corners = jnp.take_along_axis(there[..., None, :, :], target.faces[face][..., None], -2)
    there = jnp.einsum("...pi,...pij->...pj", barycentric, corners, precision=HIGHEST)
    angle = jnp.arctan2(jnp.linalg.norm(jnp.cross(here, there), axis=-1), jnp.sum(here * there, -1))
    mean = lambda a: jnp.sum(counts * a, -1) / jnp.sum(counts)  # noqa: E731
    return mean(distance), jnp.max(counts * distance, -1), mean(angle)


def _beyond_wrist(hand: HandModel) -> Array:
    """1 for vertices (V,) on the fingers' side of the wrist joint: where a model ends on the arm says nothing."""
    J = hand.joint_basis[0]
    along = J[_MIDDLE] - J[_WRIST]
    return (jnp.matmul(hand.v_template - J[_WRIST], along, precision=HIGHEST) > 0).astype(jnp.float32)
