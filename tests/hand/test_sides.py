from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry.rotations import so3_exp
from jhand.hand.files import load_hand
from jhand.hand.kinematics import forward, keypoints
from jhand.hand.model import HandModel, HandParams, make_hand
from jhand.hand.sides import (
    compare_sides,
    mirror_axis_angle,
    mirror_hand,
    mirror_image,
    mirror_keypoints2d,
    mirror_params,
    mirror_points,
    mirror_rotation,
)
from tests.hand.mano_files import hand_arrays

M = np.diag([-1.0, 1.0, 1.0])


def random_params(seed: int, batch: tuple[int, ...] = (6,)) -> HandParams:
    k = jax.random.split(jax.random.key(seed), 4)
    return HandParams(
        global_orient=jax.random.normal(k[0], (*batch, 3)),
        hand_pose=0.4 * jax.random.normal(k[1], (*batch, 15, 3)),
        betas=jax.random.normal(k[2], (*batch, 10)),
        transl=0.3 * jax.random.normal(k[3], (*batch, 3)),
    )


def noise_hand(seed: int) -> HandModel:
    """A hand with pose correctives, means and components that no symmetry hides."""
    arrays = hand_arrays(seed, vertices=60, faces=80)
    sd = arrays.pop("hands_coeffs").std(0)
    arrays.pop("kintree_table")
    faces = arrays.pop("f")
    return make_hand(**arrays, faces=faces, hands_sd=sd, tips=(0, 1, 2, 3, 4), side="right", name="noise")


def assert_same(a: HandModel | HandParams, b: HandModel | HandParams) -> None:
    for field in fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("seed", [0, 1])
def test_mirror_twice_is_the_identity(seed, right):
    params = random_params(seed)
    assert_same(mirror_params(mirror_params(params)), params)
    R = so3_exp(params.hand_pose)
    np.testing.assert_array_equal(mirror_rotation(mirror_rotation(R)), R)
    image = np.random.default_rng(seed).integers(0, 256, (2, 5, 7, 3), np.uint8)
    np.testing.assert_array_equal(mirror_image(mirror_image(image)), image, strict=True)
    uv = np.random.default_rng(seed).integers(0, 7, (4, 21, 2))
    np.testing.assert_array_equal(mirror_keypoints2d(mirror_keypoints2d(uv, 7), 7), uv)
    for hand in (right, noise_hand(seed)):
        assert_same(mirror_hand(mirror_hand(hand)), hand)


def test_mirrors_agree_with_the_matrix():
    params = random_params(2)
    w, p = np.asarray(params.hand_pose), np.asarray(params.transl)
    np.testing.assert_array_equal(mirror_points(p), (p @ M).astype(np.float32))
    np.testing.assert_array_equal(mirror_rotation(so3_exp(w)), (M @ np.asarray(so3_exp(w)) @ M).astype(np.float32))
    np.testing.assert_allclose(so3_exp(mirror_axis_angle(w)), mirror_rotation(so3_exp(w)), atol=1e-6)


@pytest.mark.parametrize("level", ["default", "fine"])
def test_forward_of_mirror_is_mirror_of_forward(level):
    hand, params = load_hand(level=level), random_params(3)
    expected = jax.tree.map(mirror_points, forward(hand, params))
    found = forward(mirror_hand(hand), mirror_params(params))
    for name in ("vertices", "joints", "keypoints"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-7, err_msg=name)


def test_forward_of_mirror_with_pose_correctives_of_any_kind():
    # noise in every entry of R - I of every joint, so that no wrong sign can hide
    hand, params = noise_hand(0), random_params(4)
    vertices = forward(hand, params).vertices
    without = forward(replace(hand, basis=hand.basis.at[-135:].set(0)), params).vertices
    assert float(jnp.abs(vertices - without).max()) > 1e-3
    mirrored = forward(mirror_hand(hand), mirror_params(params)).vertices
    np.testing.assert_allclose(mirrored, mirror_points(vertices), atol=3e-7)


def test_mirror_of_faces_and_axes(right):
    other = mirror_hand(right)
    for hand in (right, other):
        a, b, c = np.moveaxis(np.asarray(hand.v_template, np.float64)[np.asarray(hand.faces)], 1, 0)
        assert np.einsum("fc,fc->", a, np.cross(b, c)) > 0  # six times the volume: triangles face outwards
    np.testing.assert_allclose(np.linalg.det(np.asarray(other.axes, np.float64)), 1, atol=1e-5)
    angle = 0.7
    turned, mirrored = (so3_exp(angle * h.axes[:, :, 0]) for h in (right, other))
    np.testing.assert_allclose(mirrored, mirror_rotation(turned), atol=1e-6)
    assert (other.side, other.tips, other.name) == ("left", right.tips, right.name)


def test_pose_space_mirrors_with_the_hand():
    hand = noise_hand(1)
    other, coefficients = mirror_hand(hand), np.random.default_rng(0).normal(size=45).astype(np.float32)
    pose, mirrored = (np.asarray(h.hands_mean + coefficients @ h.hands_components) for h in (hand, other))
    np.testing.assert_allclose(mirrored.reshape(15, 3), mirror_axis_angle(pose.reshape(15, 3)), atol=1e-5)


@pytest.mark.parametrize("level", ["default", "fine"])
def test_built_in_left_is_the_mirror_of_the_right(level):
    pair = [load_hand(side=side, level=level) for side in ("right", "left")]
    assert_same(mirror_hand(pair[0]), pair[1])
    assert set(compare_sides(*pair).values()) == {0.0}


def test_compare_sides_measures(right, left):
    moved = replace(
        left,
        basis=left.basis.at[0, 1, 5].add(0.002).at[3, 2, 7].add(-0.003).at[-1, 0, 9].add(0.001),
        joint_basis=left.joint_basis.at[0, 4, 2].add(0.004),
        weights=left.weights.at[3, 2].add(0.25),
        faces=jnp.roll(left.faces, 1, 1).at[2].set(left.faces[2, ::-1]),
    )
    found = compare_sides(right, moved)
    expected = {"v_template": 0.002, "shapedirs": 0.003, "posedirs": 0.001, "joints": 0.004, "weights": 0.25}
    assert found == pytest.approx(dict.fromkeys(found, 0.0) | expected | {"faces": 1}, abs=1e-7)


def test_compare_sides_wants_a_pair(right, left):
    with pytest.raises(ValueError, match="got a left and a right one"):
        compare_sides(left, right)
    with pytest.raises(ValueError, match="got 778 and 60 vertices, 10 and 10 shape"):
        compare_sides(right, mirror_hand(noise_hand(0)))


def test_mirror_image_and_its_points_stay_together():
    image = np.zeros((4, 6, 1), np.uint8)
    image[2, 1] = 255
    u, v = map(int, mirror_keypoints2d(np.array([1, 2]), 6))
    assert (u, v) == (4, 2)
    assert mirror_image(image)[v, u, 0] == 255
    np.testing.assert_allclose(mirror_keypoints2d(np.array([[0.25, 1.5]]), 6), [[4.75, 1.5]])


def test_mirrors_transform(right):
    params = random_params(5)
    found = jax.jit(lambda hand, p: keypoints(mirror_hand(hand), mirror_params(p)))(right, params)
    one = jax.vmap(lambda p: keypoints(mirror_hand(right), mirror_params(p)))(params)
    np.testing.assert_allclose(found, mirror_points(keypoints(right, params)), atol=3e-7)
    np.testing.assert_allclose(found, one, atol=3e-7)
