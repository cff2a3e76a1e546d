import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jhand
from jhand.hand.anatomy import pose_from_angles, sample_poses
from jhand.hand.bone_angles import bone_excess, bone_limits, bone_measures


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
