from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.contact import close_fingers, grasping_skin, palm_normal, sample_grasp, sample_solid, solid_distance
from jhand.contact.grasping import _preshape
from jhand.geometry import invert_transform, transform
from jhand.hand import HandParams, forward, joint_angles, pose_from_angles
from jhand.hand.anatomy import JOINT_LIMITS


@pytest.fixture(scope="module")
def points(right):
    return grasping_skin(right)


@pytest.fixture(scope="module")
def grasps(right, points):
    def one(key):
        keys = jax.random.split(key)
        solid = sample_solid(keys[0])
        return solid, sample_grasp(keys[1], right, jnp.zeros(10), points, solid)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 48))


def mesh_distance(right, solid, grasp):
    """(48, V) signed metres of the whole hand's vertices from its object."""
    pose = pose_from_angles(right, grasp.angles)
    zeros = jnp.zeros((48, 3))
    params = HandParams(zeros, pose, jnp.zeros((48, 10)), jnp.broadcast_to(-right.joint_basis[0, 0], (48, 3)))
    v = forward(right, params).vertices
    return np.asarray(jax.vmap(solid_distance)(solid, transform(invert_transform(grasp.T_wrist_object), v)))


def test_the_palm_looks_where_fingers_go(right, left):
    for hand in (right, left):
        bent = pose_from_angles(hand, jnp.zeros((15, 3)).at[3, 0].set(0.5))
        tip = hand.tips[2]
        rest = forward(hand, HandParams.zeros()).vertices[tip]
        moved = forward(hand, replace(HandParams.zeros(), hand_pose=bent)).vertices[tip]
        assert float((moved - rest) @ palm_normal(hand)) > 0.02


def test_objects_are_held(grasps):
    _, grasp = grasps
    touching = np.asarray(grasp.touching)
    assert (touching[:, 4] & (touching[:, :4].sum(-1) >= 1)).mean() > 0.7
    assert touching.any(-1).mean() > 0.95


def test_fingers_touch_and_do_not_enter(right, grasps):
    solid, grasp = grasps
    away = mesh_distance(right, solid, grasp)
    finger = (np.asarray(right.weights).argmax(-1) - 1) // 3
    for number in range(5):
        nearest = away[:, finger == number].min(-1)[np.asarray(grasp.touching)[:, number]]
        assert np.percentile(np.abs(nearest), 90) < 0.003
    depth = np.maximum(-away, 0).max(-1)
    assert np.mean(depth) < 0.002
    assert np.max(depth) < 0.008


def test_poses_are_lawful(right, grasps):
    angles = np.asarray(joint_angles(right, pose_from_angles(right, grasps[1].angles)))
    assert (angles > JOINT_LIMITS[..., 0] - 1e-3).all()
    assert (angles < JOINT_LIMITS[..., 1] + 1e-3).all()


def test_without_an_object_the_hand_closes(right, points):
    start, end = _preshape(jax.random.key(0))
    nothing = lambda p: jnp.full(p.shape[:-1], 1.0)  # noqa: E731
    angles, touching = close_fingers(right, jnp.zeros(10), points, nothing, start, end)
    assert not touching.any()
    np.testing.assert_allclose(angles, end, atol=1e-6)
