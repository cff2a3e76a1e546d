from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.hand.kinematics import forward, keypoints
from jhand.hand.landmark_sets import (
    LandmarkSet,
    keypoint_landmarks,
    landmarks,
    rest_landmarks,
    shift_landmarks,
    surface_landmarks,
    vertex_landmarks,
)
from jhand.hand.model import HandModel, HandParams
from jhand.hand.skeleton import keypoint_names

FACES = np.array([3, 250, 700, 1200])


@pytest.fixture(scope="module")
def params() -> HandParams:
    k = jax.random.split(jax.random.key(0), 4)
    return HandParams(
        global_orient=jax.random.normal(k[0], (5, 3)),
        hand_pose=0.4 * jax.random.normal(k[1], (5, 15, 3)),
        betas=jax.random.normal(k[2], (5, 10)),
        transl=0.3 * jax.random.normal(k[3], (5, 3)),
    )


def feet(hand: HandModel, barycentric: np.ndarray, height: np.ndarray) -> LandmarkSet:
    return surface_landmarks(hand, FACES, barycentric, height, tuple("abcd"))


@pytest.mark.parametrize("side", ["right", "left"])
def test_keypoints_are_landmarks(side, hands, params):
    hand = hands[side]
    found = landmarks(hand, params, keypoint_landmarks(hand))
    np.testing.assert_allclose(found, keypoints(hand, params), atol=5e-7)
    assert keypoint_landmarks(hand).names == keypoint_names("openpose21")


def test_weights_sum_to_one(right):
    b = np.full((4, 3), 1 / 3, np.float32)
    sets = (keypoint_landmarks(right), vertex_landmarks(right, (1, 2), ("a", "b")), feet(right, b, np.zeros(4)))
    for landmark_set in sets:
        np.testing.assert_allclose(landmark_set.weights.sum(1), 1, atol=2e-6)


def test_vertex_landmarks_are_vertices(right, params):
    ids = (*right.tips, 0, 100)
    chosen = vertex_landmarks(right, ids, tuple(f"v{i}" for i in ids))
    found = landmarks(right, params, chosen)
    np.testing.assert_allclose(found, forward(right, params).vertices[:, ids, :], atol=5e-7)
    assert chosen.names[-1] == "v100"


def test_landmarks_at_corners_of_triangles_are_vertices(right, params):
    corners = np.asarray(right.faces)[FACES, 1]
    found = landmarks(right, params, feet(right, np.tile([0.0, 1.0, 0.0], (4, 1)), np.zeros(4)))
    np.testing.assert_allclose(found, forward(right, params).vertices[:, corners, :], atol=5e-7)


def test_surface_landmarks_rest_above_their_triangles(right):
    b = np.random.default_rng(1).dirichlet(np.ones(3), 4)
    height = np.array([0.0, 0.004, 0.009, -0.002])
    a, e, g = np.moveaxis(np.asarray(right.v_template, np.float64)[np.asarray(right.faces)[FACES]], 1, 0)
    normal = np.cross(e - a, g - a)
    expected = np.einsum("kv,vkc->kc", b, np.stack([a, e, g]))
    expected += height[:, None] * normal / np.linalg.norm(normal, axis=1, keepdims=True)
    found = rest_landmarks(feet(right, b.astype(np.float32), height), np.zeros(10), np.zeros(135))
    np.testing.assert_allclose(found, expected, atol=5e-7)


def test_surface_landmarks_follow_the_mesh(right, params):
    """Off a corner, the mean of the corners' transforms is not the mean of their images: near, within two
    millimetres."""
    params = replace(params, hand_pose=0.5 * params.hand_pose)
    b = np.random.default_rng(2).dirichlet(np.ones(3), 4).astype(np.float32)
    vertices = np.asarray(forward(right, params).vertices, np.float64)[:, np.asarray(right.faces)[FACES]]
    expected = np.einsum("kv,nkvc->nkc", b, vertices)
    found = landmarks(right, params, feet(right, b, np.zeros(4)))
    assert np.linalg.norm(found - expected, axis=-1).max() < 2e-3
    raised = np.asarray(landmarks(right, params, feet(right, b, np.full(4, 0.008))))
    a, e, g = np.moveaxis(vertices, 2, 0)
    normal = np.cross(e - a, g - a)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    height = np.einsum("nkc,nkc->nk", raised - found, normal)
    assert ((height > 0.006) & (height < 0.0085)).all(), height


def test_shifted_landmarks_move_with_their_bone(right, params):
    # the wrist has one bone: its offset turns with the hand
    offsets = np.zeros((21, 3), np.float32)
    offsets[0] = [0.01, 0.02, -0.005]
    base = keypoint_landmarks(right)
    shifted = shift_landmarks(base, offsets)
    moved = landmarks(right, params, shifted) - landmarks(right, params, base)
    theta = np.linalg.norm(np.asarray(params.global_orient), axis=-1, keepdims=True)
    axis = np.asarray(params.global_orient) / theta
    x = offsets[0]
    expected = x * np.cos(theta) + np.cross(axis, x) * np.sin(theta) + axis * (axis @ x)[:, None] * (1 - np.cos(theta))
    np.testing.assert_allclose(moved[:, 0], expected, atol=5e-7)
    np.testing.assert_allclose(moved[:, 1:], 0, atol=1e-7)
    np.testing.assert_array_equal(base.basis, keypoint_landmarks(right).basis)


def test_a_shifted_joint_goes_half_with_each_of_its_bones(right):
    angle, axis = 1.0, np.asarray(right.axes[0, :, 0])
    bend = replace(HandParams.zeros(), hand_pose=jnp.zeros((15, 3)).at[0].set(angle * axis))
    offset = 0.01 * np.asarray(right.axes[0, :, 2])  # along the finger: at right angles to the axis
    base = keypoint_landmarks(right)
    point = keypoint_names("openpose21").index("index_mcp")
    shifted = shift_landmarks(base, np.zeros((21, 3), np.float32) + (np.arange(21) == point)[:, None] * offset)
    moved = np.asarray(landmarks(right, bend, shifted) - landmarks(right, bend, base))[point]
    turned = offset * np.cos(angle) + np.cross(axis, offset) * np.sin(angle)
    np.testing.assert_allclose(moved, (offset + turned) / 2, atol=2e-7)


def test_landmarks_transform(right, params):
    chosen = keypoint_landmarks(right)
    one = jax.vmap(lambda p: landmarks(right, p, chosen))(params)
    np.testing.assert_allclose(one, landmarks(right, params, chosen), atol=5e-7)
    slopes = jax.grad(lambda s: landmarks(right, params, shift_landmarks(chosen, s)).sum())(jnp.zeros((21, 3)))
    assert np.isfinite(slopes).all() and np.abs(slopes).min(1).max() > 0
