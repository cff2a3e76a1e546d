"""Tracking from the best frames, the terms of the loss, and hands between cameras."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from experiments.surgery_mvhand import Scene, canonical, experiment, mpjpe, problems
from jhand.geometry import make_camera, project
from jhand.solving import Problems
from jhand.systems import surgery_mvhand as system
from jhand.systems.surgery_mvhand import Config

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
CONFIG = Config(iterations=10)


def faithful(reach):
    """A tracker that gets `reach` frames far, whose boxes say where it began."""

    def follow(key, forwards):
        asked.append((key, forwards))
        t = np.arange(20)
        ahead = (t >= key) & (t <= key + reach) if forwards else (t <= key) & (t >= key - reach)
        return np.where(ahead[:, None], float(key), 0) * np.ones(4), np.where(ahead, 0.9, 0.0)

    asked: list = []
    return follow, asked


def test_the_best_frame_begins_and_what_it_reached_begins_no_more():
    sure = np.full(20, 0.2)
    sure[[3, 5, 12, 18]] = 0.6, 0.9, 0.8, 0.35
    follow, asked = faithful(4)
    boxes, scores = system.track_boxes(sure, follow, CONFIG)
    # frame 3 was reached from 5; 12 is the next best; 18 is out of its reach
    assert [key for key, forwards in asked if forwards] == [5, 12, 18]
    assert [key for key, forwards in asked if not forwards] == [5, 12, 18]
    np.testing.assert_array_equal(boxes[:, 0], [0] + [5] * 9 + [12] * 7 + [18] * 3)
    np.testing.assert_array_equal(scores > 0, [False] + [True] * 19)


def test_a_worse_keyframe_takes_nothing_from_a_better_one():
    sure = np.zeros(20)
    sure[[4, 11]] = 0.9, 0.5
    boxes, _ = system.track_boxes(sure, faithful(6)[0], CONFIG)
    np.testing.assert_array_equal(boxes[:11, 0], 4)
    np.testing.assert_array_equal(boxes[11:18, 0], 11)
    assert not boxes[18:].any()


def test_nothing_begins_where_nothing_is_sure():
    follow, asked = faithful(3)
    _, scores = system.track_boxes(np.full(20, 0.29), follow, CONFIG)
    assert not asked and not scores.any()


def test_a_video_is_tracked_from_its_best_frame():
    """With the tracker itself: a patch that moves, whose coarse box is right in one frame and far off in others."""
    rng = np.random.default_rng(0)
    patch, frames = np.kron(rng.random((5, 5, 3)), np.ones((4, 4, 1))), np.full((8, 64, 80, 3), 0.4)
    frames += 0.05 * np.kron(rng.random((1, 16, 20, 3)), np.ones((1, 4, 4, 1)))
    for t in range(8):
        frames[t, 20:40, 10 + 3 * t : 30 + 3 * t] = patch
    coarse = rng.uniform(0, 40, (8, 4)) * [1, 1, 0, 0] + [0, 0, 20, 20]
    coarse[4] = [21.5, 19.5, 20, 20]
    sure = np.full(8, 0.4)
    sure[4] = 0.9
    boxes, scores = system.track_video(frames.astype(np.float32), coarse, sure, CONFIG)
    assert (scores > 0.5).all()
    np.testing.assert_allclose(boxes[:, 0], 9.5 + 3 * np.arange(8), atol=1.5)


def test_confidence_and_boxes():
    points = np.array([[[10.0, 20.0], [30.0, 50.0], [900.0, 900.0]]])
    box = system.boxes_around(points, np.array([[1.0, 0.5, 0.0]]), margin=2.0)
    np.testing.assert_allclose(box, [[20 - 30, 35 - 30, 60, 60]])
    assert not np.asarray(system.boxes_around(points, np.zeros((1, 3)))).any()
    np.testing.assert_allclose(system.hand_confidence(np.array([[1.0, 0.5, 0.0]])), [0.5])


def test_the_shape_term_does_not_see_turns():
    rng = np.random.default_rng(0)
    before = jnp.asarray(rng.normal(0, 50, (21, 3)))
    turned = before @ Rotation.random(random_state=1).as_matrix().T + jnp.array([30.0, -20, 500])
    assert system.shape_term(turned, before) < 1e-3 * system.smooth_term(turned, before)
    mirrored = before * jnp.array([-1.0, 1, 1])  # no rotation makes a left hand of a right one
    assert system.shape_term(mirrored, before) > 1e3
    np.testing.assert_allclose(system.shape_term(before.at[8, 2].add(10), before), 100, rtol=0.15)


@pytest.fixture(scope="module")
def cameras():
    turns = Rotation.from_rotvec(np.array([[0, 0, 0], [0, 1.05, 0], [0, -1.05, 0]])).as_matrix()
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, :3, :3], T[:, 2, 3] = turns, 1.0
    return make_camera(focal=np.full((3, 2), 800.0), principal=np.full((3, 2), 300.0), T_cam_world=T)


def test_terms_have_the_slopes_of_finite_differences(cameras, right):
    rng = np.random.default_rng(0)
    rest = 1000 * np.asarray(system.keypoints(right, system.HandParams.zeros()))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), cameras)
        before, confidence = jnp.asarray(rest + rng.normal(0, 5, (21, 3))), jnp.asarray(rng.random((3, 21)))
        pixels = project(exact, before[None] / 1000) + rng.normal(0, 5, (3, 21, 2))
        terms = {
            "reprojection": lambda x: system.reprojection_term(x, exact, pixels, confidence),
            "smooth": lambda x: system.smooth_term(x, before),
            "shape": lambda x: system.shape_term(x, before),
            "biomechanics": lambda x: system.biomechanics_term(x, jnp.array(False)),
        }
        for name, term in terms.items():
            for _ in range(3):
                x = before + rng.normal(0, 8, (21, 3))
                step = rng.normal(size=(21, 3))
                slope = jnp.vdot(jax.grad(term)(x), step)
                measured = (term(x + 1e-4 * step) - term(x - 1e-4 * step)) / 2e-4
                np.testing.assert_allclose(slope, measured, rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    scene = Scene(frames=8, views=8, hidden=(0.1, 0.2), covered=0.0)
    preset = Problems(CONFIG, number=6, scene=scene)
    return problems(0, preset, Path(tmp_path_factory.mktemp("parts")))


def error(inputs, truth, right, **changes):
    found = system.solve(inputs, replace(CONFIG, **changes), right)
    assert found.keypoints.shape == truth.keypoints.shape
    return float(np.mean(mpjpe(found, truth, right)))


def test_hands_are_found_and_each_term_does_its_part(small, right):
    inputs, truth = small
    trivial = float(np.mean(mpjpe(canonical(inputs, truth, right), truth, right)))
    full = error(inputs, truth, right)
    assert full < 0.5 * trivial
    # half of the views are wrong in one frame, and sure of it: the frame before holds
    wrong = inputs.seen.keypoints2d.at[:, 4, ::2].add(300.0)
    sure = inputs.seen.confidence.at[:, 4, ::2].set(1.0)
    misled = replace(inputs, seen=system.Detections(wrong, sure))
    errors = [error(misled, truth, right, smooth=s, shape=h) for s, h in ((20.0, 50.0), (20.0, 0.0), (0.0, 0.0))]
    assert max(errors[:2]) < errors[2]
    stiff = error(inputs, truth, right, biomechanics=1e5)
    assert stiff > full


def test_left_hands_are_read_in_the_mirror():
    rng = np.random.default_rng(0)
    frames = rng.random((2, 40, 60, 3)).astype(np.float32)
    detector = system.HandKeypoints().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    boxes = np.array([[10.0, 5, 30, 30], [20, 8, 24, 24]])
    mirrored = boxes * [-1, 1, 1, 1] + [59 - 30, 0, 0, 0]
    mirrored[1, 0] = 59 - 20 - 24
    uv, sure = system.read_hands(detector, frames, boxes, False)
    there, same = system.read_hands(detector, frames[:, :, ::-1], mirrored, True)
    np.testing.assert_allclose(there[..., 0], 59 - uv[..., 0], atol=1e-2)
    np.testing.assert_allclose(there[..., 1], uv[..., 1], atol=1e-2)
    np.testing.assert_allclose(same, sure, atol=1e-4)


def test_tracked_boxes_are_read_where_the_detector_fails(right):
    """A video of one view: the coarse hands are right in one frame, and gone or elsewhere in the rest."""
    rng = np.random.default_rng(0)
    frames = np.tile(np.kron(rng.random((1, 1, 1, 16, 20, 3)), np.ones((1, 1, 1, 4, 4, 1))), (1, 5, 1, 1, 1, 1))
    coarse = rng.uniform([20, 20], [40, 40], (1, 5, 1, 2, 21, 2)) + 30
    coarse[:, 2] -= 30
    sure = np.full((1, 5, 1, 2, 21), 0.2)
    sure[:, 2], sure[:, 4] = 0.9, 0.0
    detector = system.HandKeypoints().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    video = system.Video(
        jnp.asarray(255 * frames, jnp.uint8),
        jnp.asarray(coarse, jnp.float32),
        jnp.asarray(sure, jnp.float32),
        jax.tree.map(lambda x: x[None], detector),
    )
    tracked = system.read_video(video, CONFIG)
    still = np.abs(tracked.keypoints2d - tracked.keypoints2d[:, 2:3]) < 0.5
    assert still.mean() > 0.9  # an untrained network is of two minds about some points
    assert (np.asarray(tracked.confidence) > 0).all()
    detected = system.read_video(video, replace(CONFIG, crops="detected"))
    np.testing.assert_allclose(detected.keypoints2d[:, 2], tracked.keypoints2d[:, 2], atol=1e-3)
    assert not np.asarray(detected.confidence[:, 4]).any()
    assert np.abs(detected.keypoints2d[:, 0] - tracked.keypoints2d[:, 0]).mean() > 10


def test_joints_that_are_not_trusted_are_dropped(small, right):
    inputs, truth = small
    wild = jnp.where(inputs.seen.confidence[..., None] < 0.1, jnp.nan, inputs.seen.keypoints2d)
    assert np.isnan(np.asarray(wild)).any()
    kept = system.solve(replace(inputs, seen=replace(inputs.seen, keypoints2d=wild)), CONFIG, right)
    same = system.solve(inputs, CONFIG, right)
    np.testing.assert_allclose(kept.keypoints, same.keypoints, atol=1e-6)
    trusting = error(inputs, truth, right, least=0.0)
    assert trusting != error(inputs, truth, right)


def test_metrics_of_the_truth(small, right):
    """Every metric of the experiment: of the right answer the best value, of the trivial one a worse."""
    inputs, truth = small
    uv = project(jax.tree.map(lambda x: x[:, None, :, None], truth.cameras), truth.keypoints[:, :, None])
    perfect = system.Outputs(truth.keypoints, system.Detections(uv, jnp.ones(uv.shape[:-1])))
    answer = canonical(inputs, truth, right)
    assert experiment.metrics.keys() == experiment.units.keys()
    for name, metric in experiment.metrics.items():
        best, poor = np.asarray(metric(perfect, truth, right)), np.asarray(metric(answer, truth, right))
        assert best.shape == (6,) and (np.isnan(best) == np.isnan(poor)).all()
        np.testing.assert_allclose(best[~np.isnan(best)], 1 if name in ("mpck2d", "mpck3d", "ap") else 0, atol=1e-4)
        assert np.nanmean(np.abs(poor - best)) > 0.01
        assert np.isnan(best).sum() == (4 if name.startswith("mpjpe_") else 0)


def test_the_claims_sides_differ_in_weights_alone():
    for claim in experiment.claims:
        for fields in claim.variants.values():
            assert set(fields) <= {"smooth", "shape", "biomechanics", "crops"}
            assert replace(Config.tiny(), **fields).iterations == Config.tiny().iterations
