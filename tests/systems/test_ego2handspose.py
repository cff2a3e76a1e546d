"""The closed form, the losses, the stages, and tracking from frame to frame."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.ego2handspose import average_hand, error, experiment, paper_camera, problems
from jhand.geometry import make_camera, project, so3_exp
from jhand.hand import JOINT_LIMITS, bone_lengths, keypoints, mirror_hand, mirror_points
from jhand.nn import gaussian_maps
from jhand.solving import Problems
from jhand.systems import ego2handspose as system
from jhand.systems.ego2handspose import Config, Inputs, Readings, State

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
SCENE = replace(experiment.presets["cpu"].scene, frames=2)
SHORT = Config(stages=(60, 60, 100, 60), begin=(30, 30, 60), track=(20, 10))


@pytest.fixture(scope="module")
def posed():
    rng = np.random.default_rng(0)
    low, high = system.LIMITS[..., 0], system.LIMITS[..., 1]
    return State(
        jnp.array([3.0, -2.0, 40.0]),
        jnp.array([0.4, -0.8, 0.3]),
        jnp.asarray(low + (high - low) * rng.uniform(0.2, 0.8, (15, 3)), jnp.float32),
    )


@pytest.fixture(scope="module")
def two_videos():
    return problems(2, Problems(SHORT, number=2, scene=replace(SCENE, missing=0.2)), Path())


def test_the_key_bone_is_ten_centimetres_and_the_wrist_is_where_it_is_put(right, posed):
    points = system.points_of(right, posed)
    np.testing.assert_allclose(points[0], posed.root, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(points[9] - points[0]), 10, rtol=1e-5)
    canonical = system.canonical_of(points)
    np.testing.assert_allclose(canonical[9], 0, atol=1e-6)
    np.testing.assert_allclose(system.normalised_canonical(3.7 * points + 5), canonical, atol=1e-5)


def test_limits_are_the_paper_s_and_anatomy_s():
    np.testing.assert_allclose(system.LIMITS[[0, 3, 6, 9]], [[[-1, 1.5], [-0.5, 0.5], [-0.25, 0.25]]] * 4)
    outer = [1, 2, 4, 5, 7, 8, 10, 11]
    assert not system.LIMITS[outer, 1:].any()
    np.testing.assert_allclose(system.LIMITS[outer, 0], JOINT_LIMITS[outer, 0])
    assert system.UNNATURAL[:, 2].all() and not system.UNNATURAL[:, 0].any()
    np.testing.assert_array_equal(np.flatnonzero(system.UNNATURAL[:, 1] == 0), [0, 3, 6, 9, 12])
    wild = system.within(State(jnp.array([0.0, 0, -5]), jnp.zeros(3), jnp.full((15, 3), 9.0)))
    np.testing.assert_allclose(wild.angles, system.LIMITS[..., 1])
    assert wild.root[2] == 1


@pytest.mark.parametrize("which", ["pixels", "canonical", "regulariser"])
def test_losses_against_finite_differences(right, posed, which):
    target = system.points_of(right, replace(posed, rotation=posed.rotation + 0.2))
    weights = jnp.linspace(0, 1, 21)
    losses = {
        "pixels": lambda s: system.pixel_loss(system.points_of(right, s), system.pixels_of(target), weights),
        "canonical": lambda s: system.canonical_loss(system.points_of(right, s), system.canonical_of(target), SHORT),
        "regulariser": lambda s: system.regulariser(s.angles, SHORT),
    }
    flat, unravel = jax.flatten_util.ravel_pytree(posed)
    value = lambda x: losses[which](unravel(x))  # noqa: E731
    with jax.enable_x64(True):
        right, posed, weights, target = (
            jax.tree.map(
                lambda x: jnp.asarray(x, float) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else x, y
            )
            for y in (right, posed, weights, target)
        )
        flat, unravel = jax.flatten_util.ravel_pytree(posed)
        slope = jax.grad(value)(flat)
        rng = np.random.default_rng(1)
        for _ in range(3):
            way = rng.normal(size=flat.shape)
            near = (value(flat + 1e-6 * way) - value(flat - 1e-6 * way)) / 2e-6
            np.testing.assert_allclose(slope @ way, near, rtol=1e-4, atol=1e-4)


def test_the_regulariser_lets_fingers_bend(right, posed):
    bent = jnp.zeros((15, 3)).at[:, 0].set(0.7)
    assert system.regulariser(bent, SHORT) == 0
    assert system.regulariser(jnp.zeros((15, 3)).at[4, 2].set(0.1), SHORT) == pytest.approx(100)
    assert system.regulariser(jnp.zeros((15, 3)).at[4, 1].set(0.1), SHORT) == pytest.approx(100)
    assert system.regulariser(jnp.zeros((15, 3)).at[3, 1].set(0.1), SHORT) == 0


def test_a_retargeted_hand_has_the_model_s_bones_and_keeps_its_directions(right, posed):
    points = system.points_of(right, posed)
    other = system.canonical_of(points)
    other = other.at[5:9].add(0.3 * (other[5] - other[0]))  # a longer palm
    kept = system.retargeted(right, 2.5 * other)
    np.testing.assert_allclose(bone_lengths(kept), bone_lengths(points) / 10, rtol=1e-4)
    np.testing.assert_allclose(kept, system.canonical_of(points), atol=1e-4)


@pytest.mark.parametrize("turn", [(0.0, 0, 0), (0.5, -0.4, 1.0), (-1.0, 0.7, 0.2)])
def test_the_closed_form_is_exact_without_noise(right, posed, turn):
    points = system.points_of(right, replace(posed, rotation=jnp.array(turn), root=jnp.array([-9.0, 7.0, 33.0])))
    found = system.project_alone(system.canonical_of(points), system.pixels_of(points))
    np.testing.assert_allclose(found, points, atol=2e-3)


def test_the_closed_form_takes_the_pair_that_is_further_apart(right, posed):
    """A wrong little knuckle does no harm where the middle one is further from the wrist."""
    points = system.points_of(right, posed)
    pixels = system.pixels_of(points)
    far = jnp.linalg.norm(pixels[np.array([9, 17])] - pixels[0], axis=-1)
    wrong = (17, 9)[int(far[1] > far[0])]
    found = system.project_alone(system.canonical_of(points), pixels.at[wrong].set(pixels[0] + 1.0))
    np.testing.assert_allclose(found, points, atol=2e-3)


def test_stages_move_what_they_should(right, posed):
    """Rotation, then pose, then place; and only stable joints place a hand."""
    points = system.points_of(right, posed)
    target, pixels, ones = system.canonical_of(points), system.pixels_of(points), jnp.ones(21)
    run = jax.jit(lambda pixels, n: system.initialise(right, pixels, ones, target, SHORT, n))
    begun = system.begin_state(right)
    turned, bent, placed = (run(pixels, n) for n in ((60, 0, 0), (60, 60, 0), (60, 60, 100)))
    np.testing.assert_allclose(turned.root, begun.root)
    np.testing.assert_allclose(turned.angles, begun.angles)
    missed = lambda s: system.canonical_loss(system.points_of(right, s), target, SHORT)  # noqa: E731
    assert missed(begun) > 2 * missed(turned) > 4 * missed(bent)
    np.testing.assert_allclose(bent.root, begun.root)
    np.testing.assert_allclose(placed.angles, bent.angles)
    np.testing.assert_allclose(placed.root, posed.root, atol=1.5)
    tips = np.array([4, 8, 12, 16, 20])
    np.testing.assert_array_equal(run(pixels.at[tips].add(50.0), (60, 60, 100)).root, placed.root)


def test_descent_ends_early_and_goes_on_with_its_moments(right):
    loss = lambda s: (jnp.sum(s.root**2), jnp.sum(s.root**2))  # noqa: E731
    start = State(jnp.array([5.0, 0, 20]), jnp.zeros(3), jnp.zeros((15, 3)))
    state, adam, n = system.descend(loss, start, (0.5, 0.0, 0.0), 100, enough=100.0)
    assert n < 100 and 90 < jnp.sum(state.root**2) < 100
    again, _, none = system.descend(loss, state, (0.5, 0.0, 0.0), 100, adam=adam, enough=100.0)
    assert none == 1  # it looks once, and does not move
    np.testing.assert_array_equal(again.root, state.root)
    whole = system.descend(loss, start, (0.5, 0.0, 0.0), 10)[0]
    half, adam, _ = system.descend(loss, start, (0.5, 0.0, 0.0), 5)
    np.testing.assert_allclose(system.descend(loss, half, (0.5, 0.0, 0.0), 5, adam=adam)[0].root, whole.root, atol=1e-5)


def test_any_camera_sees_the_same(two_videos):
    """Another camera, and a picture of another size: what is fitted is the same."""
    inputs, _ = two_videos
    other = make_camera(focal=np.array([900.0, 880.0]), principal=np.array([639.5, 359.5]))
    rays = (inputs.seen.keypoints2d - system.CENTRE) / system.FOCAL
    as_seen = project(other, jnp.concatenate([rays, jnp.ones_like(rays[..., :1])], -1))
    camera = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), other)
    _, ours = system.prepared(Inputs(camera, replace(inputs.seen, keypoints2d=as_seen)))
    seen = inputs.seen.weights > 0
    np.testing.assert_allclose(ours.keypoints2d[seen], system.prepared(inputs)[1].keypoints2d[seen], atol=2e-3)


def test_a_left_hand_is_the_mirror_of_a_right_one(right, posed):
    points = system.points_of(right, posed)
    both = jnp.stack([points, mirror_points(points)])[None, None] / 100
    readings = Readings(project(paper_camera(), both), jnp.ones((1, 1, 2, 21)), both)
    inputs = Inputs(jax.tree.map(lambda x: x[None], paper_camera()), readings)
    _, ready = system.prepared(inputs)
    np.testing.assert_allclose(ready.keypoints2d[:, :, 1], ready.keypoints2d[:, :, 0], atol=1e-3)
    np.testing.assert_allclose(ready.canonical[:, :, 1], ready.canonical[:, :, 0], atol=1e-5)
    found = system.solve(inputs, Config(method="projection"), right)
    np.testing.assert_allclose(found.keypoints, both, atol=1e-4)


def test_missing_keypoints_may_hold_anything(two_videos, right):
    inputs, _ = two_videos
    missing = inputs.seen.weights[..., None] == 0
    assert 0.1 < np.mean(missing) < 0.3
    wild = replace(inputs, seen=replace(inputs.seen, keypoints2d=jnp.where(missing, jnp.nan, inputs.seen.keypoints2d)))
    assert np.isfinite(system.prepared(wild)[1].keypoints2d).all()
    points = system.points_of(right, system.begin_state(right))
    each = [system.prepared(x)[1] for x in (inputs, wild)]
    a, b = (system.pixel_loss(points, x.keypoints2d[0, 0, 0], x.weights[0, 0, 0]) for x in each)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_tracking_beats_the_average_hand_and_parameters_say_its_points(two_videos, right):
    inputs, truth = two_videos
    missed = lambda outputs: float(jnp.mean(error(outputs, truth, right)))  # noqa: E731
    found = system.solve(inputs, SHORT, right)
    assert missed(found) < 0.8 * missed(average_hand(inputs, truth, right))
    for m, hand in enumerate((right, mirror_hand(right))):
        own = keypoints(hand, jax.tree.map(lambda x, m=m: x[:, :, m], found.params))
        np.testing.assert_allclose(own * 0.1 / system.key_length(right), found.keypoints[:, :, m], atol=1e-4)


def test_networks_read_both_hands_in_the_mirror():
    """A mirrored picture of the other hand is read as the mirror image."""
    key = jax.random.key(0)
    maps = jax.jit(system.Keypoints2d().init)(key, jnp.zeros((1, 64, 64, 3)))["params"]
    lifter = jax.jit(system.Lifter().init)(key, jnp.zeros((1, 21, 16, 16)))["params"]
    networks = {"keypoints2d": maps, "lifter": lifter}
    frames = jax.random.uniform(key, (2, 80, 90, 3))
    boxes = jnp.array([[10.0, 12.0, 50.0, 50.0]] * 2)
    mirrored_boxes = boxes.at[:, 0].set(89 - boxes[:, 0] - boxes[:, 2])
    uv, sure, canonical = system.read_hands(networks, frames, boxes, jnp.array(False))
    uv2, sure2, canonical2 = system.read_hands(networks, frames[:, :, ::-1], mirrored_boxes, jnp.array(True))
    np.testing.assert_allclose(uv2[..., 0], 89 - uv[..., 0], atol=1e-3)
    np.testing.assert_allclose(canonical2, mirror_points(canonical), atol=1e-4)
    np.testing.assert_allclose(sure2, sure, atol=1e-4)
    pictures = system.Pictures(
        jnp.asarray(255 * frames, jnp.uint8)[None],
        jnp.stack([boxes, mirrored_boxes], 1)[None],
        jax.tree.map(lambda x: x[None], networks),
    )
    camera = jax.tree.map(lambda x: x[None], paper_camera())
    read = jax.eval_shape(lambda x: jax.tree.leaves(system.read_pictures(x, camera)), pictures)
    assert [x.shape for x in read] == [(1, 2, 2, 21, 2), (1, 2, 2, 21), (1, 2, 2, 21, 3)]


def test_a_hand_beside_the_middle_is_turned_as_it_is_seen(right, posed):
    """What a camera sees that looks at the hand is brought to the axes of the one that sees it beside the middle."""
    rays = jnp.array([[0.4, -0.3], [0.0, 0.0], [-0.1, 0.5]])
    R = system.towards(rays)
    ahead = jnp.concatenate([rays, jnp.ones((3, 1))], -1)
    np.testing.assert_allclose(R[..., 2], ahead / jnp.linalg.norm(ahead, axis=-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(R[..., 0, 1], R[..., 1, 0], atol=1e-6)  # no turn about the axis
    hand = system.points_of(right, posed) - posed.root
    beside = 60 * R[0, :, 2] + hand
    looked_at = jnp.array([0.0, 0, 60]) + hand @ R[0]
    # a small part of the picture shows the same, stretched along the way from the middle
    uv, straight = ((x[:, :2] / x[:, 2:]) for x in (beside, looked_at))
    way = rays[0] / jnp.linalg.norm(rays[0])
    stretch = jnp.eye(2) + (jnp.sqrt(1.25) - 1) * jnp.outer(way, way)
    near = jnp.sqrt(1.25) * straight @ stretch
    far = jnp.linalg.norm(uv - rays[0] - near, axis=-1)
    assert far.max() < 0.25 * jnp.linalg.norm(near, axis=-1).max()
    off = jnp.linalg.norm(uv - rays[0] - jnp.sqrt(1.25) * (hand @ R[0].T)[:, :2] / 60, axis=-1)
    assert far.mean() < 0.5 * off.mean()


def test_heat_maps_of_logits():
    wanted = gaussian_maps(jnp.full((21, 2), 7.3), (16, 16), 1.0)
    np.testing.assert_allclose(system.heat_maps(jnp.log(wanted + 1e-12)), wanted, atol=2e-3)


def test_first_rotation_shows_the_back_of_one_s_own_hand(right):
    points = system.points_of(right, system.begin_state(right))
    assert points[12, 1] < points[0, 1] and points[12, 2] > points[0, 2]  # fingers up and away
    assert points[4, 0] < points[20, 0]  # the right thumb is on the left
    np.testing.assert_allclose(np.linalg.det(so3_exp(system.first_rotation(right))), 1, atol=1e-5)
