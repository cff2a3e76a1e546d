import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jhand
from jhand.hand.anatomy import pose_from_angles, sample_poses
from jhand.hand.bone_angles import bone_excess, bone_hulls, bone_limits, bone_measures, hull_excess


def posed(hand, angles, betas=None):
    betas = jnp.zeros(10) if betas is None else betas
    return np.asarray(
        jhand.keypoints(hand, jhand.HandParams(jnp.zeros(3), pose_from_angles(hand, angles), betas, jnp.zeros(3)))
    )


def test_bending_and_spreading_are_told_apart(right):
    flat = np.zeros((15, 3))
    bent, spread = flat.copy(), flat.copy()
    bent[:12, 0] = 0.8
    spread[[0, 3, 6, 9], 1] = 0.3
    at_rest, b, s = (
        bone_measures(posed(right, flat)),
        bone_measures(posed(right, bent)),
        bone_measures(posed(right, spread)),
    )
    np.testing.assert_allclose(b.flexion[1:] - at_rest.flexion[1:], 0.8, atol=0.05)
    np.testing.assert_allclose(s.abduction[1:, 0] - at_rest.abduction[1:, 0], 0.3, atol=0.02)
    np.testing.assert_allclose(s.flexion[1:], at_rest.flexion[1:], atol=0.08)
    np.testing.assert_allclose(b.lengths, at_rest.lengths, atol=1e-6)
    index, _ = posed(right, flat)[5:7]
    np.testing.assert_allclose(at_rest.lengths[1, 0], np.linalg.norm(index - posed(right, flat)[0]), atol=1e-6)


def test_it_does_not_matter_where_a_hand_is(right):
    points = posed(right, np.full((15, 3), 0.1))
    moved = points @ Rotation.random(random_state=0).as_matrix().T + [0.1, -0.3, 0.8]
    for a, b in zip(jax.tree.leaves(bone_measures(points)), jax.tree.leaves(bone_measures(moved)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_limits_hold_what_hands_do_and_nothing_else(right):
    limits = bone_limits()
    poses = sample_poses(jax.random.key(1), right, (64,))
    points = jhand.keypoints(
        right, jhand.HandParams(jnp.zeros((64, 3)), poses, jnp.zeros((64, 10)), jnp.zeros((64, 3)))
    )
    excess = bone_excess(points, limits)
    assert all((np.asarray(leaf) >= 0).all() for leaf in jax.tree.leaves(excess))
    assert (np.asarray(excess.flexion) == 0).mean() > 0.9
    back = np.zeros((15, 3))
    back[:12, 0] = -1.2  # fingers through the back of the hand
    assert (np.asarray(bone_excess(posed(right, back), limits).flexion)[1:] > 0.3).all()
    longer = bone_excess(1.5 * posed(right, np.zeros((15, 3))), limits).lengths
    assert (np.asarray(longer) > 0).mean() > 0.9
    mirrored = posed(right, np.full((15, 3), [0.9, 0, 0])) * [-1, 1, 1]  # a left hand seems bent backwards
    assert np.asarray(bone_excess(mirrored, limits).flexion).max() > 0.3


def test_slopes_are_those_of_finite_differences(right):
    rng = np.random.default_rng(0)
    points = posed(right, np.full((15, 3), [0.4, 0.05, 0])) + rng.normal(0, 0.004, (21, 3))
    with jax.enable_x64(True):
        found = lambda p: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(bone_measures(p))])  # noqa: E731
        step = rng.normal(size=(21, 3))
        _, slope = jax.jvp(found, (jnp.asarray(points),), (jnp.asarray(step),))
        measured = (found(points + 1e-6 * step) - found(points - 1e-6 * step)) / 2e-6
        np.testing.assert_allclose(slope, measured, rtol=1e-4, atol=1e-4)


def test_points_are_21():
    with pytest.raises(ValueError, match="21"):
        bone_measures(np.zeros((20, 3)))


def test_hulls_are_convex_and_hold_what_hands_do(right):
    hulls = bone_hulls()
    edges = np.roll(hulls, -1, -2) - hulls
    turns = np.roll(edges, -1, -2)
    assert (edges[..., 0] * turns[..., 1] - edges[..., 1] * turns[..., 0] > -1e-5).all()
    poses = sample_poses(jax.random.key(1), right, (64,))
    points = jhand.keypoints(
        right, jhand.HandParams(jnp.zeros((64, 3)), poses, jnp.zeros((64, 10)), jnp.zeros((64, 3)))
    )
    bones = bone_measures(points)
    excess = np.asarray(hull_excess(bones.flexion, bones.abduction, hulls))
    assert (excess == 0).mean() > 0.95 and excess.max() < 0.3
    back = np.zeros((15, 3))
    back[:12, 0] = -1.2
    bones = bone_measures(posed(right, back))
    assert (np.asarray(hull_excess(bones.flexion, bones.abduction, hulls))[1:] > 0.3).all()


def test_excess_over_a_hull_is_that_of_its_closest_point():
    square = np.tile(np.array([[-0.5, -0.2], [0.5, -0.2], [0.5, 0.2], [-0.5, 0.2]]), (5, 3, 1, 1))
    flexion, abduction = np.zeros((5, 3)), np.zeros((5, 3))
    flexion[1, 0], abduction[2, 1] = 0.9, -0.5  # beside an edge, and below one
    flexion[3, 2], abduction[3, 2] = 0.7, 0.3  # beyond a corner
    away = lambda p, q: abs(np.cos(p) - np.cos(q)) + abs(np.sin(p) - np.sin(q))  # noqa: E731
    expected = np.zeros((5, 3))
    expected[1, 0], expected[2, 1] = away(0.9, 0.5), away(-0.5, -0.2)
    expected[3, 2] = away(0.7, 0.5) + away(0.3, 0.2)
    np.testing.assert_allclose(hull_excess(flexion, abduction, square), expected, atol=1e-6)


def test_excess_over_hulls_has_the_slopes_of_finite_differences():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        hulls = jnp.asarray(bone_hulls(), jnp.float64)
        total = lambda x: jnp.sum(hull_excess(x[0], x[1], hulls))  # noqa: E731
        for _ in range(3):
            x, step = jnp.asarray(rng.normal(0, 0.8, (2, 5, 3))), rng.normal(size=(2, 5, 3))
            slope = jnp.vdot(jax.grad(total)(x), step)
            measured = (total(x + 1e-6 * step) - total(x - 1e-6 * step)) / 2e-6
            np.testing.assert_allclose(slope, measured, rtol=1e-5)
