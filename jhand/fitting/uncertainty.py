"""What the covariance of a fit says about points of the hand."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jhand.fitting.measurements import NUM_FRAME_UNKNOWNS, landmark_jacobian
from jhand.fitting.solver import Fit
from jhand.hand.landmark_sets import LandmarkSet, keypoint_landmarks
from jhand.hand.model import HandModel, HandParams


@jax.jit
def landmark_covariance(hand: HandModel, fit: Fit, landmarks: LandmarkSet | None = None) -> Float[Array, "*b k 3 3"]:
    """Uncertainty of points of fitted hands, to first order: J cov J'.

    It is as good as the sigmas that the fit was given. On 3D keypoints with such noise, 64 to 68 % of the errors of
    coordinates lie within one predicted standard deviation (a Gaussian has 68 %). A single picture leaves choices that
    no Gaussian holds: 52 to 60 % there. Measured by `benchmarks/fit_calibration.py`.

    Args:
        hand: the model that was fitted.
        fit: its fit.
        landmarks: which points, by default the 21 keypoints.

    Returns:
        (..., K, 3, 3) metres^2.
    """
    points = keypoint_landmarks(hand) if landmarks is None else landmarks
    batch = fit.rms.shape
    num = NUM_FRAME_UNKNOWNS + hand.num_betas
    p = fit.params
    flat = HandParams(
        p.global_orient.reshape(-1, 3),
        p.hand_pose.reshape(-1, 15, 3),
        p.betas.reshape(-1, hand.num_betas),
        p.transl.reshape(-1, 3),
    )
    covariance = fit.covariance[..., :num, :num].reshape(-1, num, num)

    def one(params: HandParams, covariance: Array) -> Array:
        J = landmark_jacobian(hand, params, points)[1]
        return jnp.einsum("kax,xy,kby->kab", J, covariance, J, precision=lax.Precision.HIGHEST)

    found = jax.vmap(one)(flat, covariance)
    return found.reshape(*batch, *found.shape[1:])
