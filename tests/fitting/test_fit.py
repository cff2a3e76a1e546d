"""The fit against hands whose answer is known."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.fitting import measurements
from jhand.fitting.calibrate import attach_markers, fit_landmarks
from jhand.fitting.measurements import FitSettings, Measurements, State
from jhand.fitting.solver import _fit_alone, fit, fit_sequence
from jhand.fitting.terms import points_2d, points_3d
from jhand.geometry.camera import make_camera, project
from jhand.hand.files import load_hand
from jhand.hand.kinematics import keypoints
from jhand.hand.landmark_sets import keypoint_landmarks, landmarks, shift_landmarks, surface_landmarks
from jhand.hand.model import HandParams

EXACT = FitSettings(sigma_3d=3e-4)
LOOSE = FitSettings(orient_rate=1e3, pose_rate=1e3, transl_rate=1e3)


@pytest.fixture(scope="module", params=["right", "left"])
def hand(request):
    return load_hand(side=request.param)


@pytest.fixture(scope="module")
def right():
    return load_hand()


def _random_params(hand, shape, seed=0):
    """Bent fingers, any rotation, plausible shapes."""
    rng = np.random.default_rng(seed)
    angles = np.zeros((*shape, 15, 3))
    angles[..., :12, 0] = rng.uniform(0, 1.0, (*shape, 12))
    angles[..., 12:, 0] = rng.uniform(0, 0.4, (*shape, 3))
    pose = np.einsum("jab,...jb->...ja", np.asarray(hand.axes), angles)
    betas = np.clip(rng.normal(size=(*shape, hand.num_betas)), -1.5, 1.5)
    return HandParams(
        *(
            jnp.asarray(x, jnp.float32)
            for x in (rng.normal(size=(*shape, 3)), pose, betas, rng.normal(size=(*shape, 3)) * 0.2)
        )
    )


def _motion(hand, num_frames, seed=0):
    """A hand that closes while it turns and moves, one shape."""
    ends = _random_params(hand, (2,), seed)
    ends = replace(
        ends, global_orient=ends.global_orient * 0.5, betas=jnp.broadcast_to(ends.betas[:1], ends.betas.shape)
    )
    s = jnp.linspace(0, 1, num_frames)
    return jax.tree.map(lambda a: a[0] + s.reshape(-1, *(1,) * (a.ndim - 1)) * (a[1] - a[0]), ends)


def test_exact_keypoints_are_recovered(hand):
    truth = keypoints(hand, _random_params(hand, (16,)))
    found = fit(hand, keypoints3d=truth, settings=EXACT)
    errors = np.linalg.norm(found.keypoints - truth, axis=-1).mean(-1)
    assert errors.max() < 3e-4
    assert found.converged.all()
    np.testing.assert_allclose(found.errors, np.linalg.norm(found.landmarks - truth, axis=-1), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_any_leading_axes(right, shape):
    truth = keypoints(right, _random_params(right, shape))
    found = fit(right, keypoints3d=truth)
    assert found.rms.shape == shape
    assert found.params.hand_pose.shape == (*shape, 15, 3)
    assert found.covariance.shape == (*shape, 61, 61)
    assert found.keypoints.shape == (*shape, 21, 3)


def test_keypoints_in_a_picture(right):
    params = _random_params(right, (8,), seed=1)
    params = replace(params, transl=jnp.array([0.05, -0.05, 0.6]) + 0.2 * params.transl)
    camera = make_camera(focal=600.0, principal=np.array([320.0, 240.0]))
    truth = keypoints(right, params)
    found = fit(right, keypoints2d=project(camera, truth), camera=camera, settings=FitSettings(sigma_2d=1.0))
    assert np.median(found.rms) < 1.0
    assert found.rms.max() < 4.0
    np.testing.assert_allclose(project(camera, found.landmarks)[3], project(camera, truth)[3], atol=8)


def test_keypoints_in_a_picture_of_an_unknown_camera(right):
    """Scaled orthography: pixels agree with the weak camera that was estimated."""
    truth = keypoints(right, _random_params(right, (8,), seed=2))
    uv = 700.0 * truth[..., :2] + jnp.array([300.0, 200.0])
    found = fit(right, keypoints2d=uv)
    assert np.median(found.rms) < 1.5
    again = project(found.camera, found.landmarks)
    np.testing.assert_allclose(np.linalg.norm(again - uv, axis=-1), found.errors, atol=0.05)
    assert np.abs(np.log(found.camera.scale / 700.0)).max() < 0.4


def test_both_measurements_at_once(right):
    params = _random_params(right, (2,), seed=3)
    params = replace(params, transl=jnp.array([0.0, 0.0, 0.5]) + 0.1 * params.transl)
    camera = make_camera(focal=600.0, principal=np.array([320.0, 240.0]))
    truth = keypoints(right, params)
    noisy = truth + 0.02 * jax.random.normal(jax.random.key(0), (2, 1, 3))  # a tracker that is off by a shift
    found = fit(
        right,
        keypoints3d=noisy,
        keypoints2d=project(camera, truth),
        camera=camera,
        settings=FitSettings(sigma_3d=0.02, sigma_2d=0.5),
    )
    assert np.linalg.norm(project(camera, found.landmarks) - project(camera, truth), axis=-1).mean() < 2


def test_missing_points_are_ignored_whatever_they_hold(right):
    truth = keypoints(right, _random_params(right, (4,)))
    weights = jnp.ones((4, 21)).at[:, 8].set(0).at[1, 3].set(0)
    broken = jnp.where(weights[..., None] > 0, truth, jnp.nan)
    found = fit(right, keypoints3d=broken, weights=weights, settings=EXACT)
    assert np.isfinite(found.covariance).all()
    seen = np.asarray(weights) > 0
    assert np.linalg.norm(found.keypoints - truth, axis=-1)[seen].mean() < 3e-4


def test_an_outlier_is_discounted(right):
    truth = keypoints(right, _random_params(right, (4,)))
    wild = truth.at[:, 12].add(jnp.array([0.1, 0.05, -0.1]))
    seen = np.arange(21) != 12
    plain = fit(right, keypoints3d=wild)
    robust = fit(right, keypoints3d=wild, settings=FitSettings(robust=1.0))

    def error(found):
        return np.linalg.norm(found.keypoints - truth, axis=-1)[:, seen].mean()

    assert error(robust) < 0.5 * error(plain)


def test_a_known_shape_is_kept(right):
    params = _random_params(right, (3,))
    found = fit(right, keypoints3d=keypoints(right, params), betas=params.betas, settings=EXACT)
    chex.assert_trees_all_equal(found.params.betas, params.betas)
    assert found.rms.max() < 5e-4


def test_sequence_has_one_shape_and_bridges_a_gap(hand):
    params = _motion(hand, 30)
    truth = keypoints(hand, params)
    weights = jnp.ones((30, 21)).at[10:16].set(0)
    found = fit_sequence(hand, keypoints3d=truth, weights=weights, settings=EXACT)
    assert np.ptp(found.params.betas, axis=0).max() == 0
    errors = np.linalg.norm(found.keypoints - truth, axis=-1).mean(-1)
    assert errors[np.r_[0:10, 16:30]].max() < 5e-4
    assert errors[10:16].max() < 8e-3
    assert found.rms[12] == 0


def test_sequence_in_a_picture_does_not_flip(right):
    params = _motion(right, 20, seed=4)
    params = replace(params, transl=jnp.array([0.0, 0.0, 0.6]) + 0.2 * params.transl)
    camera = make_camera(focal=600.0, principal=np.array([320.0, 240.0]))
    uv = project(camera, keypoints(right, params))
    found = fit_sequence(right, keypoints2d=uv, camera=camera)
    assert found.rms.max() < 4
    turn = np.linalg.norm(np.diff(np.asarray(found.keypoints[:, 9] - found.keypoints[:, 0]), axis=0), axis=-1)
    assert turn.max() < 0.03  # metres a frame: a flip in depth would be a jump of centimetres


def test_two_sequences_at_once(right):
    params = jax.tree.map(lambda a, b: jnp.stack([a, b]), _motion(right, 8), _motion(right, 8, seed=5))
    truth = keypoints(right, params)
    found = fit_sequence(right, keypoints3d=truth, settings=EXACT)
    alone = fit_sequence(right, keypoints3d=truth[1], settings=EXACT)
    assert found.rms.shape == (2, 8)
    np.testing.assert_allclose(found.keypoints[1], alone.keypoints, atol=2e-4)


def test_what_nothing_observes_has_the_variance_of_the_prior(right):
    truth = keypoints(right, _random_params(right, ()))
    index = np.arange(5, 9)
    found = fit(right, keypoints3d=truth, weights=jnp.ones(21).at[index].set(0))
    W = np.asarray(right.hands_components) / np.asarray(right.hands_sd)[:, None]
    prior = np.linalg.inv(W.T @ W)
    sd = np.sqrt(np.diagonal(found.covariance))[3:48].reshape(15, 3)
    # the other fingers tell something about a hidden one through the prior, never more than all of it
    assert (sd[:3] <= np.sqrt(np.diagonal(prior)).reshape(15, 3)[:3] * 1.01).all()
    seen = fit(right, keypoints3d=truth)
    flexion = np.einsum(
        "jab,jac->jbc", np.asarray(right.axes), np.asarray(right.axes)
    )  # identity: axes are orthonormal
    np.testing.assert_allclose(flexion, np.broadcast_to(np.eye(3), (15, 3, 3)), atol=1e-5)
    seen_sd = np.sqrt(np.diagonal(seen.covariance))[3:48].reshape(15, 3)
    assert sd[0].max() > 2 * seen_sd[0].min()


def _toy_problem(hand, robust, num_frames=3):
    """A state outside the limits and beyond the range of shapes, so that those terms are felt, and two cameras that are
    not quite known.
    """
    params = _motion(hand, num_frames)
    params = replace(params, betas=params.betas[0], transl=params.transl + jnp.array([0.0, 0.0, 0.7]))
    landmark_set = keypoint_landmarks(hand)
    points = measurements.predict_3d(hand, params, landmark_set)
    camera = make_camera(
        focal=500.0, principal=np.array([320.0, 240.0]), distortion=jnp.array([0.1, 0.01, 0.002, 0.001, 0, 0, 0, 0])
    )
    uv = jnp.broadcast_to(project(camera, points)[:, None], (num_frames, 2, 21, 2)) + 3
    noisy = points + 0.01 * jax.random.normal(jax.random.key(0), points.shape)
    seen = Measurements(
        terms=(
            points_3d(landmark_set, noisy, sigma=0.002, robust=robust),
            points_2d(landmark_set, uv, camera, jnp.ones(uv.shape[:-1]).at[0, 0, 3].set(0), sigma=2.0, robust=robust),
        ),
        given=jnp.ones(num_frames),
        linked=jnp.ones(num_frames - 1),
    )
    params = replace(params, hand_pose=params.hand_pose.at[:, 3].add(0.9), betas=params.betas.at[0].set(3.5))
    return State(params, 0.01 * jnp.ones((2, 7))), seen


@pytest.mark.parametrize(("side", "keypoint_rate"), [("right", None), ("left", 0.3)])
def test_linearisation_has_the_gradient_of_the_cost(hands, side, keypoint_rate):
    hand = hands[side]
    state, seen = _toy_problem(hand, robust=2.0)
    settings = FitSettings(keypoint_rate=keypoint_rate)

    def equations(state):
        eq = measurements.linearise(hand, state, seen, settings, 0.1, 1.0)
        return measurements.add_priors(hand, state.params, eq, settings, 2.0, 1.0)

    eq = jax.jit(equations)(state)

    def along(frames, shared):
        return equations(measurements.retract(state, frames, shared)).cost

    zero = jnp.zeros((3, 51)), jnp.zeros(hand.num_betas + 14)
    np.testing.assert_allclose(eq.cost, along(*zero), rtol=1e-5)
    by_frames, by_shared = jax.jit(jax.grad(along, argnums=(0, 1)))(*zero)
    # the turn between frames is linearised about small angles; leave the wrist of a fast motion some slack
    scale = np.abs(by_frames).max()
    np.testing.assert_allclose(2 * eq.g[:, 3:], by_frames[:, 3:], atol=2e-3 * scale)
    np.testing.assert_allclose(2 * eq.g[:, :3], by_frames[:, :3], atol=5e-2 * scale)
    np.testing.assert_allclose(2 * eq.g_shared, by_shared, rtol=2e-3, atol=1e-3 * np.abs(by_shared).max())


def test_smooth_keypoints_couple_frames_as_their_jacobians_say(right):
    """H of the keypoints' steps against J'J of forward mode, couplings included."""
    state, seen = _toy_problem(right, robust=jnp.inf)
    with_steps, without = (
        jax.jit(measurements.linearise)(right, state, seen, FitSettings(keypoint_rate=rate), 0.1, 1.0)
        for rate in (0.3, None)
    )

    def steps(frames, shared):
        params = measurements.retract(state, frames, shared).params
        return jnp.diff(measurements.predict_3d(right, params, keypoint_landmarks(right)), axis=0).reshape(-1)

    zero = jnp.zeros((3, 51)), jnp.zeros(right.num_betas + 14)
    by_frames, by_shared = jax.jit(jax.jacfwd(steps, argnums=(0, 1)))(*zero)
    J = np.asarray(by_frames) / (0.3 * 0.1)
    S = np.asarray(by_shared) / (0.3 * 0.1)
    np.testing.assert_allclose(with_steps.A - without.A, np.einsum("ktx,kty->txy", J, J), rtol=1e-3, atol=0.1)
    coupling = np.einsum("ktx,kty->txy", J[:, :-1], J[:, 1:])
    np.testing.assert_allclose(with_steps.Q - without.Q, -coupling, rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(with_steps.B - without.B, np.einsum("ktx,ky->txy", J, S), rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(with_steps.C - without.C, S.T @ S, rtol=1e-3, atol=0.1)


def test_landmark_jacobian_is_that_of_forward_mode(hand):
    state, _ = _toy_problem(hand, robust=jnp.inf, num_frames=2)
    landmark_set = keypoint_landmarks(hand)
    frames = replace(state.params, betas=jnp.broadcast_to(state.params.betas, (2, hand.num_betas)))
    points, J = jax.jit(jax.vmap(lambda p: measurements.landmark_jacobian(hand, p, landmark_set)))(frames)

    def along(frames, shared):
        return measurements.predict_3d(hand, measurements.retract(state, frames, shared).params, landmark_set)

    zero = jnp.zeros((2, 51)), jnp.zeros(hand.num_betas + 14)
    by_frames, by_shared = jax.jit(jax.jacfwd(along, argnums=(0, 1)))(*zero)
    for t in range(2):
        np.testing.assert_allclose(J[t, :, :, :51], by_frames[t, :, :, t], atol=2e-6)
    np.testing.assert_allclose(J[..., 51:], by_shared[..., : hand.num_betas], atol=2e-6)
    np.testing.assert_allclose(points, measurements.predict_3d(hand, state.params, landmark_set), atol=1e-6)


def test_other_settings_iterations_and_batches_do_not_recompile(right):
    truth = keypoints(right, _random_params(right, (3,)))
    fit(right, keypoints3d=truth)
    compiled = _fit_alone._cache_size()
    fit(right, keypoints3d=truth + 0.01, settings=FitSettings(sigma_3d=0.01, robust=3.0), iterations=7)
    fit(right, keypoints3d=jnp.concatenate([truth, truth[:1]]))
    assert _fit_alone._cache_size() == compiled


def test_a_trackers_joints_are_learned(right):
    """Landmarks moved by known offsets: fitted as joints they miss, learned they are met on other poses."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(21, 3)) * 0.002
    tracker = shift_landmarks(keypoint_landmarks(right), offsets)
    params = _random_params(right, (40,))
    params = replace(params, betas=jnp.broadcast_to(params.betas[0], params.betas.shape))
    points = landmarks(right, params, tracker)
    learned = fit_landmarks(right, points[:30], settings=LOOSE, rounds=8)
    plain = fit_sequence(right, keypoints3d=points[30:], settings=LOOSE)
    found = fit_sequence(right, keypoints3d=points[30:], landmarks=learned, settings=LOOSE)
    assert found.errors.mean() < 0.6 * plain.errors.mean()
    moved = np.linalg.norm(learned.basis[0] - keypoint_landmarks(right).basis[0], axis=0)
    assert moved.max() <= 0.008 + 1e-6


def test_markers_are_attached_to_the_skin(right):
    rng = np.random.default_rng(0)
    faces = rng.choice(right.faces.shape[0], 16, replace=False)
    height = rng.uniform(0.002, 0.012, 16)
    names = tuple(f"m{i}" for i in range(16))
    truth = surface_landmarks(right, faces, np.full((16, 3), 1 / 3), height, names)
    params = _random_params(right, (40,))
    params = replace(params, betas=jnp.broadcast_to(0.5 * params.betas[0], params.betas.shape))
    points = landmarks(right, params, truth)
    guess = truth.basis[0].T + rng.normal(size=(16, 3)) * 0.002
    found = attach_markers(right, points, guess, names, settings=LOOSE, rounds=8)
    at = np.asarray(found.basis[0].T)
    assert np.linalg.norm(at - np.asarray(truth.basis[0].T), axis=-1).mean() < 0.005
    fitted = fit_sequence(right, keypoints3d=points, landmarks=found, settings=LOOSE)
    assert fitted.errors.mean() < 0.0015


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(), "nothing to fit"),
        (dict(keypoints3d=np.zeros((16, 3))), "mano16"),
        (dict(keypoints3d=np.zeros((21, 2))), "needs 3 numbers"),
        (dict(keypoints3d=np.zeros((4, 20, 3))), r"expected shape \(\.\.\., 21, 3\)"),
        (dict(keypoints3d=np.full((2, 21, 3), np.nan)), "weight 0"),
        (dict(keypoints3d=np.zeros((2, 21, 3)), weights=np.ones((3, 21))), "weights"),
        (dict(keypoints3d=np.zeros((2, 21, 3)), weights=-np.ones((2, 21))), "at least 0"),
        (dict(keypoints3d=np.zeros((21, 3)), keypoints2d=np.zeros((21, 2))), "camera"),
    ],
)
def test_bad_input_is_answered(right, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(right, **arguments)


def test_a_sequence_needs_time(right):
    with pytest.raises(ValueError, match="time axis"):
        fit_sequence(right, keypoints3d=np.zeros((21, 3)))
    with pytest.raises(ValueError, match="fps"):
        fit_sequence(right, keypoints3d=np.zeros((5, 21, 3)), fps=0.0)
