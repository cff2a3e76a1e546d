"""Tracked hands: put together over time, placed, and fitted to known ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jhand
from jhand.fitting.terms import Term
from jhand.geometry.camera import project
from jhand.hand.landmark_sets import keypoint_landmarks
from jhand.track import (
    Hands,
    TrackedHand,
    bone_vectors,
    fit_tracked,
    guess_camera,
    hands_by_frame,
    hands_of_one_person,
    hands_over_time,
    learn_landmarks,
    place_points,
)
from tests.fitted import poses_of

SIZE = (640, 480)
SHAPE = np.random.default_rng(0).uniform(0, 40, (21, 2))


def seen(places) -> Hands:
    """Hands (T, N): of each frame and slot where it is, and how probably it is a right one; None where none."""
    T, N = len(places), len(places[0])
    score, right, uv = np.zeros((T, N)), np.zeros((T, N)), np.zeros((T, N, 21, 2))
    for t, frame in enumerate(places):
        for n, place in enumerate(frame):
            if place is not None:
                score[t, n], right[t, n], uv[t, n] = 0.9, place[1], SHAPE + place[0]
    zeros = jnp.zeros((T, N, 21))
    xyz = jnp.repeat(zeros[..., None], 3, -1)
    return Hands(jnp.asarray(score), jnp.asarray(right), jnp.asarray(uv), zeros, xyz)


def described(hands):
    return [(hand.side, np.flatnonzero(hand.present).tolist()) for hand in hands]


def test_two_hands_keep_apart():
    found = hands_over_time(seen([[(0, 0.9), (300, 0.1)]] * 4))
    assert described(found) == [("right", [0, 1, 2, 3]), ("left", [0, 1, 2, 3])]
    np.testing.assert_allclose(found[1].keypoints2d[2], SHAPE + 300, rtol=1e-6)
    assert found[0].right == pytest.approx(0.9)


def test_a_hand_that_is_lost_and_found():
    lost = [[(0, 0.9)]] * 3 + [[None]] * 2 + [[(10, 0.2)]] * 2  # near where it was: the side of one moment is no matter
    assert described(hands_over_time(seen(lost))) == [("right", [0, 1, 2, 5, 6])]
    far = [[(0, 0.9)]] * 3 + [[None]] * 2 + [[(400, 0.2)]] * 2  # in the same slot, another one
    assert described(hands_over_time(seen(far))) == [("right", [0, 1, 2]), ("left", [5, 6])]
    assert described(hands_over_time(seen(far), min_frames=3)) == [("right", [0, 1, 2])]


def test_the_hands_of_one_person():
    long, other, short = hands_over_time(
        seen([[(0, 0.9), (300, 0.6), None]] * 3 + [[(0, 0.9), (300, 0.6), (600, 0.1)]])
    )
    assert hands_of_one_person([short, other, long], 4) == (long, other)  # the less right of the two is the left one
    right, left = hands_of_one_person([short], 4)
    assert left is short and right.keypoints3d.shape == (4, 21, 3) and not right.present.any()
    assert not any(hand.present.any() for hand in hands_of_one_person([], 4))
    with pytest.raises(ValueError, match="no frame shows"):
        hands_by_frame(jhand.load_hand(), right, guess_camera(SIZE))


def test_a_hand_that_comes_back_in_another_slot():
    places = [[(0, 0.9), (300, 0.1)]] * 2 + [[(305, 0.1), None]] + [[(305, 0.1), (100, 0.9)]] * 2
    places[2:2] = [[None, None]] * 40
    assert described(hands_over_time(seen(places))) == [("right", [0, 1, 43, 44]), ("left", [0, 1, 42, 43, 44])]


def test_a_hand_that_is_read_twice_is_one():
    places = [[(0, 0.9), None], [(0, 0.9), (10, 0.8)], [(0, 0.9), (8, 0.9)], [None, (8, 0.9)]]
    assert described(hands_over_time(seen(places))) == [("right", [0, 1, 2, 3])]
    clasped = [[(0, 0.9), (10, 0.1)]] * 2
    assert described(hands_over_time(seen(clasped))) == [("right", [0, 1]), ("left", [0, 1])]


def test_nothing_seen():
    assert hands_over_time(seen([[None, None]] * 3)) == []


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_points_are_placed_where_they_are_seen(batch):
    rng = np.random.default_rng(1)
    points, shift = rng.normal(0, 0.05, (*batch, 21, 3)), rng.uniform((-0.1, -0.1, 0.5), (0.1, 0.1, 0.8), (*batch, 3))
    camera = guess_camera(SIZE, 500.0)
    pixels = project(camera, points + shift[..., None, :])
    np.testing.assert_allclose(place_points(camera, points, pixels), shift, atol=2e-4)


def test_points_are_placed_before_the_camera():
    points = np.random.default_rng(1).normal(0, 0.05, (21, 3))
    shift = place_points(guess_camera(SIZE), points, np.zeros((21, 2)))
    assert np.isfinite(shift).all() and (points[:, 2] + shift[2]).min() > 0.099


def test_bone_vectors_do_not_know_where_the_hand_is(right):
    _, points = poses_of(right, 1)
    term = bone_vectors(keypoint_landmarks(right), points[0] + jnp.array([3.0, 2, 1]))
    assert isinstance(term, Term) and term.data.shape == (20, 3)
    residual = jax.vmap(lambda p, d: term.residual(p, jnp.zeros(3), jnp.zeros((0, 7)), d))(
        points[0][term.groups], term.data
    )
    np.testing.assert_allclose(residual, 0, atol=1e-6)
    weights = np.ones(21)
    weights[8] = 0
    assert np.flatnonzero(bone_vectors(keypoint_landmarks(right), points[0], weights).weights == 0).size == 1


def tracked_of(hand, num_frames, camera):
    """A hand as a perfect tracker would see it; frame 2 is missed. Its keypoints."""
    params, _ = poses_of(hand, 1)
    repeated = jax.tree.map(lambda a: jnp.repeat(a, num_frames, 0), params)
    transl = jnp.array([0.02, -0.03, 0.6]) + 2e-3 * jnp.arange(num_frames)[:, None] * jnp.array([1.0, 0, 1])
    truth = np.asarray(jhand.keypoints(hand, jhand.HandParams(*jax.tree.leaves(repeated)[:3], transl)))
    there = np.ones(num_frames)
    there[2] = 0
    pixels, xyz = np.asarray(project(camera, truth)), truth - truth.mean(1, keepdims=True)
    shown = lambda a: np.where(there.reshape(-1, *[1] * (a.ndim - 1)) > 0, a, 0).astype(np.float32)  # noqa: E731
    right = float(hand.side == "right")
    return TrackedHand(right, there, shown(pixels), np.zeros((num_frames, 21)), shown(xyz)), truth


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_perfect_tracker(hands, side):
    camera = guess_camera(SIZE, 600.0)
    tracked, truth = tracked_of(hands[side], 4, camera)
    found = fit_tracked(hands[side], tracked, camera)
    apart = np.linalg.norm(np.asarray(found.keypoints) - truth, axis=-1).mean(-1)
    assert apart[tracked.present].max() < 0.006 and apart[2] < 0.012  # the prior's share; the gap is bridged
    assert found.errors.shape == (4, 21) and not found.errors[2].any()
    assert found.covariance.shape == (4, 61, 61) and not found.doubt.any()
    np.testing.assert_allclose(found.params.betas[0], found.params.betas[3])
    assert fit_tracked(hands[side], tracked, camera, betas=np.ones(10)).params.betas[1, 3] == 1


def test_long_sequences_are_solved_in_parts(hands, monkeypatch):
    """With two frames at a time: as the whole, but for the shape, which comes from some frames."""
    from jhand.track import fitted

    camera = guess_camera(SIZE, 600.0)
    tracked, truth = tracked_of(hands["right"], 7, camera)
    monkeypatch.setattr(fitted, "_AT_ONCE", 4)
    monkeypatch.setattr(fitted, "_OVERLAP", 2)
    found = fit_tracked(hands["right"], tracked, camera)
    apart = np.linalg.norm(np.asarray(found.keypoints) - truth, axis=-1).mean(-1)
    assert found.rms.shape == (7,) and apart[tracked.present].max() < 0.008


def test_wrong_hands(right):
    camera = guess_camera(SIZE)
    tracked, _ = tracked_of(right, 4, camera)
    with pytest.raises(ValueError, match="is a right one, the model is a left one"):
        fit_tracked(jhand.load_hand(side="left"), tracked, camera)
    nothing = TrackedHand(1.0, *(np.zeros((4, *s)) for s in ((), (21, 2), (21,), (21, 3))))
    with pytest.raises(ValueError, match="no frame shows"):
        fit_tracked(right, nothing, camera)
    assert learn_landmarks(right, tracked) is None
