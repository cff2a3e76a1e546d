import jax
import jax.numpy as jnp
import numpy as np

from jhand.fitting import fit, landmark_covariance
from jhand.fitting.measurements import FitSettings
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import vertex_landmarks
from jhand.hand.model import HandParams


def test_errors_are_as_large_as_predicted(right):
    """Of keypoints with noise of the stated sigma, 68 % of coordinates within one predicted one, within 10 points."""
    key = jax.random.split(jax.random.key(0), 4)
    coefficients = jax.random.normal(key[0], (64, 45)) * right.hands_sd
    params = HandParams(
        global_orient=jax.random.normal(key[1], (64, 3)),
        hand_pose=(right.hands_mean + coefficients @ right.hands_components).reshape(64, 15, 3),
        betas=jax.random.normal(key[2], (64, right.num_betas)),
        transl=jnp.zeros((64, 3)),
    )
    truth = keypoints(right, params)
    noisy = truth + 0.004 * jax.random.normal(key[3], truth.shape)
    found = fit(right, keypoints3d=noisy, settings=FitSettings(sigma_3d=0.004))
    covariance = landmark_covariance(right, found)
    assert covariance.shape == (64, 21, 3, 3)
    sigma = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    within = np.abs(np.asarray(found.keypoints - truth)) < sigma
    assert 0.58 < within.mean() < 0.78
    # told of half the noise, the fit claims about half the uncertainty
    bold = fit(right, keypoints3d=noisy, settings=FitSettings(sigma_3d=0.002))
    claimed = np.sqrt(np.diagonal(landmark_covariance(right, bold), axis1=-2, axis2=-1))
    assert 0.4 < np.median(claimed / sigma) < 0.75

    tips = vertex_landmarks(right, right.tips, ("thumb", "index", "middle", "ring", "little"))
    of_tips = landmark_covariance(right, found, tips)
    np.testing.assert_allclose(of_tips, covariance[:, [4, 8, 12, 16, 20]], rtol=1e-3, atol=1e-9)
