"""What cannot be answered is answered with finite values, and the reason is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jhand
from jhand.fitting import DOUBTS
from jhand.geometry import rigid

CAMERA = jhand.make_camera(focal=600.0, principal=np.array([320.0, 240.0]))


@pytest.fixture(scope="module")
def points(right):
    params = jhand.HandParams(
        jnp.array([0.1, 0.2, 1.4]),
        0.5 * jhand.sample_poses(jax.random.key(0), right),
        jnp.zeros(10),
        jnp.array([0.0, 0.1, 0.5]),
    )
    return jhand.keypoints(right, params)


def reason(fit) -> str:
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((fit.params, fit.keypoints, fit.errors, fit.rms)))
    assert np.isfinite(fit.cost).all() and np.isfinite(fit.covariance).all()
    (doubt,) = set(np.asarray(fit.doubt).ravel().tolist())
    return DOUBTS[doubt]


def only(*which: int) -> jnp.ndarray:
    return jnp.zeros(21).at[jnp.array(which)].set(1)


def test_nothing_is_wrong(right, points):
    assert reason(jhand.fit(right, keypoints3d=points)) == "none"


@pytest.mark.parametrize("which", [(8,), (0, 8), (5, 6, 7, 8)])
def test_points_that_leave_a_turn_open(right, points, which):
    straight = jhand.keypoints(right, jhand.HandParams.zeros())  # fingers are straight: four points on one line
    fit = jhand.fit(right, keypoints3d=straight, weights=only(*which))
    assert "too few points, or points on one line" in reason(fit)


def test_points_that_no_hand_has(right, points):
    line = points[0] + jnp.linspace(0, 0.18, 21)[:, None] * jnp.array([0.3, 0.9, 0.3])
    assert "no hand comes near the measurements" in reason(jhand.fit(right, keypoints3d=line))
    assert "no hand comes near the measurements" in reason(jhand.fit(right, keypoints3d=1000 * points))


def test_weights_of_zero_everywhere(right, points):
    nothing = jnp.zeros(21)
    assert "nothing was measured" in reason(jhand.fit(right, keypoints3d=points, weights=nothing))
    uv = jhand.project(CAMERA, points)
    assert "nothing was measured" in reason(jhand.fit(right, keypoints2d=uv, camera=CAMERA, weights=nothing))
    frames = jnp.broadcast_to(points, (2, 8, 21, 3))
    weights = jnp.ones((2, 8, 21)).at[1].set(0)
    both = jhand.fit_sequence(right, keypoints3d=frames, weights=weights)  # the other sequence is fitted all the same
    np.testing.assert_array_equal(np.asarray(both.doubt), [[0] * 8, [1] * 8])
    assert np.isfinite(both.covariance).all()
    np.testing.assert_allclose(both.keypoints[0], frames[0], atol=1e-3)


def test_pixels_in_one_place(right, points):
    uv = jnp.broadcast_to(jhand.project(CAMERA, points)[:1], (21, 2))
    fit = jhand.fit(right, keypoints2d=uv, camera=CAMERA)
    assert "leave open where the hand is" in reason(fit)


def test_a_camera_that_looks_away(right, points):
    behind = jhand.make_camera(
        focal=600.0, principal=np.array([320.0, 240.0]), T_cam_world=rigid(np.eye(3), np.array([0, 0, -2.0]))
    )
    cameras = jax.tree.map(lambda a, b: jnp.stack([a, b]), CAMERA, behind)
    uv = jhand.project(cameras, jnp.broadcast_to(points, (2, 21, 3)))
    fit = jhand.fit(right, keypoints2d=uv, camera=cameras, views=2)
    assert "behind a camera" in reason(fit)
    # one view of two: nothing meets in space, and the fit begins from the picture that there is
    alone = jhand.fit(right, keypoints2d=uv, camera=cameras, views=2, weights=jnp.ones((2, 21)).at[1].set(0))
    assert reason(alone) == "none" and float(alone.rms) < 1.0


def test_too_few_iterations(right, points):
    assert "iterations ended" in reason(jhand.fit(right, keypoints3d=points, iterations=1))
