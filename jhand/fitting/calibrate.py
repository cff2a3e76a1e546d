"""Where a source's points lie on the hand: trackers' joints and mocap markers as landmark sets.

Estimated once, from other recordings than are scored, then frozen. Pose, shape and landmarks are refined in turn: poses
and shapes by `fit_sequence`, landmarks by the linear least squares that is left, kept within bounds.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.fitting.measurements import FitSettings
from jhand.fitting.solver import fit_sequence
from jhand.geometry.distance import closest_on_mesh
from jhand.hand.kinematics import pose_hand
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks, shift_landmarks, surface_landmarks
from jhand.hand.model import HandModel, HandParams, rest_joints

HIGHEST = lax.Precision.HIGHEST
_OFFSET_SIGMA = 0.004  # metres: how far from its start a landmark is expected to lie


@jax.jit
def _best_shift(
    hand: HandModel,
    params: HandParams,
    landmark_set: LandmarkSet,
    residual: Array,
    weights: Array,
    offsets: Array,
    sigma: ArrayLike,
) -> Array:
    """Shift (K, 3) on the rest hand that best explains residuals (M, K, 3) of M posed hands, towards zero total
    offset.
    """
    posed = pose_hand(rest_joints(hand, params.betas), params.global_orient, params.hand_pose, params.transl)
    M = jnp.einsum("kj,njab->nkab", landmark_set.weights, posed.rotations, precision=HIGHEST)
    w = weights / jnp.square(sigma)
    H = jnp.einsum("nk,nkab,nkac->kbc", w, M, M, precision=HIGHEST) + jnp.eye(3) / _OFFSET_SIGMA**2
    g = jnp.einsum("nk,nkab,nka->kb", w, M, residual, precision=HIGHEST) - offsets / _OFFSET_SIGMA**2
    return jnp.linalg.solve(H, g[..., None])[..., 0]


def _alternate(
    hand: HandModel,
    landmark_set: LandmarkSet,
    points: Array,
    weights: ArrayLike | None,
    within_bounds: Callable[[LandmarkSet, LandmarkSet], LandmarkSet],
    settings: FitSettings,
    fps: float,
    rounds: int,
) -> LandmarkSet:
    start, found = landmark_set, None
    later = replace(settings, anneal=0.0)  # what is nearly right already is not led away from it
    w = jnp.ones(points.shape[:-1]) if weights is None else jnp.broadcast_to(weights, points.shape[:-1])
    flat = lambda a, tail: a.reshape(-1, *a.shape[a.ndim - tail :])  # noqa: E731
    for _ in range(rounds):
        found = fit_sequence(
            hand,
            keypoints3d=points,
            weights=w,
            landmarks=landmark_set,
            settings=settings if found is None else later,
            fps=fps,
            start=None if found is None else found.params,
            iterations=25 if found is None else 6,
        )
        p = found.params
        poses = HandParams(flat(p.global_orient, 1), flat(p.hand_pose, 2), flat(p.betas, 1), flat(p.transl, 1))
        residual = jnp.where(w[..., None] > 0, points - found.landmarks, 0)
        offsets = (landmark_set.basis[0] - start.basis[0]).T
        shift = _best_shift(hand, poses, landmark_set, flat(residual, 2), flat(w, 1), offsets, settings.sigma_3d)
        landmark_set = within_bounds(start, shift_landmarks(landmark_set, shift))
    return landmark_set


def fit_landmarks(
    hand: HandModel,
    keypoints3d: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    landmarks: LandmarkSet | None = None,
    max_offset: float = 0.008,
    settings: FitSettings = FitSettings(),
    fps: float = 30.0,
    rounds: int = 12,
) -> LandmarkSet:
    """What a tracker calls its joints, as landmarks of `hand`.

    Args:
        hand: the model.
        keypoints3d: (..., T, K, 3) metres: sequences of one shape each, of the same source.
        weights: (..., T, K), 0 for what is missing.
        landmarks: what the points nearly are; by default the 21 keypoints.
        max_offset: metres: how far a landmark may move on the rest hand.
        settings: sigmas and rates; poses that do not follow each other want high rates.
        fps: frames per second.
        rounds: of poses and shapes, then landmarks.

    Returns:
        The landmark set to give to `fit` and `fit_sequence` for other data of this source.
    """

    def within(start: LandmarkSet, moved: LandmarkSet) -> LandmarkSet:
        offset = (moved.basis[0] - start.basis[0]).T
        length = jnp.linalg.norm(offset, axis=-1, keepdims=True)
        bounded = offset * jnp.minimum(1, max_offset / jnp.maximum(length, 1e-9))
        return shift_landmarks(start, bounded)

    start = keypoint_landmarks(hand) if landmarks is None else landmarks
    points = jnp.asarray(keypoints3d, jnp.float32)
    return _alternate(hand, start, points, weights, within, settings, fps, rounds)


def attach_markers(
    hand: HandModel,
    points3d: ArrayLike,
    guess: ArrayLike,
    names: tuple[str, ...],
    *,
    weights: ArrayLike | None = None,
    max_height: float = 0.015,
    settings: FitSettings = FitSettings(),
    fps: float = 100.0,
    rounds: int = 40,
) -> LandmarkSet:
    """Where motion-capture markers sit on the skin.

    Args:
        hand: the model.
        points3d: (T, K, 3) metres.
        guess: (K, 3) rough places on the rest hand, metres; they are moved to the skin.
        names: K names.
        weights: (T, K), 0 for what is missing.
        max_height: metres: a marker's centre lies between 0 and this above the rest surface, along its normal.
        settings: sigmas and rates.
        fps: frames per second.
        rounds: of poses and shape, then markers.

    Returns:
        The markers as a landmark set.
    """

    def onto_skin(positions: Float[Array, "k 3"]) -> LandmarkSet:
        foot, face, barycentric = closest_on_mesh(positions, hand.v_template, hand.faces)
        a, b, c = jnp.moveaxis(hand.v_template[hand.faces[face]], 1, 0)
        normal = jnp.cross(b - a, c - a)
        normal = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
        height = jnp.clip(jnp.sum((positions - foot) * normal, -1), 0, max_height)
        return surface_landmarks(hand, face, barycentric, height, names)

    def within(_: LandmarkSet, moved: LandmarkSet) -> LandmarkSet:
        return onto_skin(moved.basis[0].T)

    points = jnp.asarray(points3d, jnp.float32)
    return _alternate(hand, onto_skin(jnp.asarray(guess)), points, weights, within, settings, fps, rounds)
