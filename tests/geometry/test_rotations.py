from collections.abc import Iterator

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jhand.geometry import (
    rigid,
    rotation_from_6d,
    rotation_from_quaternion,
    rotation_to_6d,
    rotation_to_quaternion,
    skew,
    so3_exp,
    so3_left_jacobian,
    so3_log,
    transform,
)

BATCHES = [(), (1,), (3, 1, 2)]
ANGLES = [0.0, 1e-12, 1e-7, 1e-4, 0.02, 0.0316, 0.0317, 0.05, 1.0, 3.0, np.pi - 1e-3, np.pi - 1e-6, np.pi]


@pytest.fixture(autouse=True)
def explicit_ranks() -> Iterator[None]:
    """An accidental broadcast between ranks is an error."""
    with jax.numpy_rank_promotion("raise"):
        yield


@st.composite
def axis_angles(draw) -> np.ndarray:
    """Vectors (2, 3) of any direction: almost no rotation, small ones, around pi, and beyond a turn."""
    direction = draw(hnp.arrays(np.float64, (2, 3), elements=st.floats(-1, 1))) + np.array([1e-3, 2e-3, -1e-3])
    angle = draw(
        st.one_of(
            st.floats(0, 1e-6),
            st.floats(0, 0.1),
            st.floats(0, np.pi - 1e-2),
            st.floats(np.pi - 1e-3, np.pi),
            st.floats(np.pi, 20),
        )
    )
    return (angle * direction / np.linalg.norm(direction, axis=-1, keepdims=True)).astype(np.float32)


def oracle(axis_angle: np.ndarray) -> np.ndarray:
    """Rotation matrices in float64, from scipy."""
    w = np.array(axis_angle, np.float64)
    return Rotation.from_rotvec(w.reshape(-1, 3)).as_matrix().reshape(*w.shape, 3)


def random_axis_angles(seed: int, batch: tuple[int, ...], sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, (*batch, 3)).astype(np.float32)


def unit(seed: int, n: int) -> np.ndarray:
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def identity(batch: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.eye(3), (*batch, 3, 3))


@given(axis_angles())
def test_exp_is_scipys(w):
    # beyond a turn, float32 rounds the angle itself
    np.testing.assert_allclose(so3_exp(w), oracle(w), atol=4e-7 + 2e-7 * np.abs(w).max())


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_around_its_special_angles(angle):
    w = (angle * unit(0, 50)).astype(np.float32)
    np.testing.assert_allclose(so3_exp(w), oracle(w), atol=4e-7)


def cross(w: np.ndarray) -> np.ndarray:
    """Cross-product matrices, column by column from numpy's cross product."""
    return np.stack([np.cross(w, e) for e in np.eye(3)], -1)


@pytest.mark.parametrize("batch", BATCHES)
def test_exp_gives_rotations(batch):
    R = so3_exp(random_axis_angles(1, batch))
    assert R.shape == (*batch, 3, 3)
    np.testing.assert_allclose(R @ jnp.swapaxes(R, -1, -2), identity(batch), atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.det(R), np.ones(batch), atol=1e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_group(batch):
    a, b, c = (so3_exp(random_axis_angles(seed, batch)) for seed in (2, 3, 4))
    inverse = so3_exp(-random_axis_angles(2, batch))
    np.testing.assert_allclose(a @ inverse, identity(batch), atol=1e-6)
    np.testing.assert_allclose((a @ b) @ c, a @ (b @ c), atol=1e-6)
    np.testing.assert_allclose(so3_exp(so3_log(a @ b)), a @ b, atol=2e-6)
    # turns about one axis add up, and a turn carried by another is the turn about the carried axis
    w = 0.7 * random_axis_angles(5, batch)
    np.testing.assert_allclose(so3_exp(0.4 * w) @ so3_exp(0.6 * w), so3_exp(w), atol=1e-6)
    carried = jnp.einsum("...ij,...j->...i", a, w)
    np.testing.assert_allclose(a @ so3_exp(w) @ inverse, so3_exp(carried), atol=2e-6)
    np.testing.assert_array_equal(so3_exp(jnp.zeros((*batch, 3))), identity(batch))


@given(axis_angles())
def test_log_undoes_exp(w):
    found = np.asarray(so3_log(so3_exp(w)), np.float64)
    assert np.linalg.norm(found, axis=-1).max() <= np.pi + 1e-6
    np.testing.assert_allclose(oracle(found), oracle(w), atol=1e-6 + 2e-7 * np.abs(w).max())
    # at pi the axis has two signs
    short = np.linalg.norm(w, axis=-1) < np.pi - 1e-2
    np.testing.assert_allclose(found[short], w[short], rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_around_its_special_angles(angle):
    axes = np.concatenate([unit(6, 50), np.eye(3), -np.eye(3)])
    R = Rotation.from_rotvec(angle * axes).as_matrix()
    found = np.asarray(so3_log(R.astype(np.float32)), np.float64)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.full(len(axes), angle), atol=1e-6)
    np.testing.assert_allclose(oracle(found), R, atol=1e-6)


def test_small_rotations_keep_their_digits():
    """The skew part of a matrix carries a small rotation exactly: nothing is rounded to zero or off by a factor."""
    w = (1e-6 * unit(7, 20)).astype(np.float32)
    np.testing.assert_allclose(so3_log(so3_exp(w)), w, rtol=1e-5)


def test_exp_at_zero_has_the_generators_as_its_jacobian():
    J = jax.jacobian(so3_exp)(jnp.zeros(3))
    for i, e in enumerate(np.eye(3)):
        np.testing.assert_array_equal(J[..., i], cross(e))
    np.testing.assert_array_equal(J, jax.jacfwd(so3_exp)(jnp.zeros(3)))


def test_exp_at_zero_has_the_right_curvature():
    """R = I + [w] + [w]^2 / 2 + ..."""
    H = jax.hessian(so3_exp)(jnp.zeros(3))
    E = [cross(e) for e in np.eye(3)]
    expected = np.array([[(E[i] @ E[j] + E[j] @ E[i]) / 2 for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(jnp.moveaxis(H, (0, 1), (2, 3)), expected, atol=1e-7)


@pytest.mark.parametrize("angle", ANGLES)
def test_gradient_of_exp(angle):
    """Against central differences of scipy in float64, on both sides of the switch between series and closed form."""
    w = angle * unit(8, 4)
    J = np.asarray(jax.vmap(jax.jacobian(so3_exp))(w.astype(np.float32)), np.float64)
    step = 1e-5
    expected = np.stack([(oracle(w + step * e) - oracle(w - step * e)) / (2 * step) for e in np.eye(3)], -1)
    np.testing.assert_allclose(J, expected, atol=2e-6)


@pytest.mark.parametrize("angle", ANGLES)
def test_left_jacobian(angle):
    """exp(w + d) exp(-w) = exp(J d): against differences of scipy in float64."""
    w = angle * unit(9, 4)
    step, inverse = 1e-5, np.swapaxes(oracle(w), -1, -2)
    columns = []
    for e in np.eye(3):
        ahead, behind = (Rotation.from_matrix(oracle(w + s * e) @ inverse).as_rotvec() for s in (step, -step))
        columns.append((ahead - behind) / (2 * step))
    np.testing.assert_allclose(so3_left_jacobian(w.astype(np.float32)), np.stack(columns, -1), atol=2e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_left_jacobian_is_smooth(batch):
    assert so3_left_jacobian(random_axis_angles(10, batch)).shape == (*batch, 3, 3)
    J = jax.jacobian(so3_left_jacobian)(jnp.zeros(3))
    for i, e in enumerate(np.eye(3)):
        np.testing.assert_allclose(J[..., i], cross(e) / 2, atol=1e-7)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_has_finite_gradients(angle):
    R = oracle(angle * np.concatenate([unit(11, 20), np.eye(3)])).astype(np.float32)
    gradient = jax.vmap(jax.jacobian(so3_log))(R)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.03, 1.0, 2.5, 3.0])
def test_gradient_of_log(angle):
    """log(exp(d) R) = log(R) + J^-1 d: exp's left Jacobian, inverted."""
    w = (angle * unit(12, 5)).astype(np.float32)
    R = so3_exp(w)
    turned = jax.vmap(jax.jacobian(lambda d, R: so3_log(so3_exp(d) @ R)), (None, 0))(jnp.zeros(3), R)
    expected = np.linalg.inv(np.asarray(so3_left_jacobian(w), np.float64))
    np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=2e-5)


@given(axis_angles())
def test_quaternions_are_scipys(w):
    expected = Rotation.from_rotvec(w.astype(np.float64)).as_quat(canonical=True, scalar_first=True)
    R = oracle(w).astype(np.float32)
    found = np.asarray(rotation_to_quaternion(R))
    assert (found[..., 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.ones(2), atol=3e-7)
    # q and -q are one rotation, and w = 0 lets either pass
    sign = np.where((found * expected).sum(-1, keepdims=True) < 0, -1, 1)
    np.testing.assert_allclose(found, sign * expected, atol=1e-6)
    np.testing.assert_allclose(rotation_from_quaternion(found), R, atol=1e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_quaternions_are_normalised_first(batch):
    q = np.random.default_rng(13).normal(size=(*batch, 4)).astype(np.float32)
    expected = Rotation.from_quat(q.reshape(-1, 4).astype(np.float64), scalar_first=True).as_matrix()
    R = rotation_from_quaternion(q)
    assert R.shape == (*batch, 3, 3)
    np.testing.assert_allclose(R, expected.reshape(*batch, 3, 3), atol=1e-6)
    np.testing.assert_allclose(rotation_from_quaternion(5 * q), R, atol=1e-6)
    np.testing.assert_allclose(rotation_from_quaternion(-q), R, atol=1e-6)


@pytest.mark.parametrize("pivot", range(4))
def test_each_component_of_a_quaternion_can_be_the_largest(pivot):
    q = np.full(4, 0.1)
    q[pivot] = 1
    q = (q / np.linalg.norm(q)).astype(np.float32)
    R = rotation_from_quaternion(q)
    np.testing.assert_allclose(rotation_to_quaternion(R), q, atol=3e-7)
    assert np.isfinite(jax.jacobian(rotation_to_quaternion)(R)).all()


@given(axis_angles())
def test_6d_comes_back(w):
    R = oracle(w).astype(np.float32)
    sixd = rotation_to_6d(R)
    np.testing.assert_array_equal(sixd, np.concatenate([R[..., 0], R[..., 1]], -1))
    np.testing.assert_allclose(rotation_from_6d(sixd), R, atol=1e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_6d_is_gram_and_schmidts(batch):
    a = np.random.default_rng(14).normal(size=(*batch, 6)).astype(np.float32)
    R = np.asarray(rotation_from_6d(a), np.float64)
    assert R.shape == (*batch, 3, 3)
    np.testing.assert_allclose(R @ np.swapaxes(R, -1, -2), identity(batch), atol=2e-6)
    np.testing.assert_allclose(np.linalg.det(R), np.ones(batch), atol=2e-6)
    # a QR decomposition with a positive diagonal does the same
    Q, T = np.linalg.qr(np.swapaxes(a.reshape(*batch, 2, 3), -1, -2).astype(np.float64))
    Q = Q * np.sign(np.diagonal(T, axis1=-2, axis2=-1))[..., None, :]
    np.testing.assert_allclose(R[..., :2], Q, atol=2e-6)


@pytest.mark.parametrize("batch", BATCHES)
def test_skew_is_the_cross_product(batch):
    v, x = random_axis_angles(15, batch), random_axis_angles(16, batch)
    np.testing.assert_allclose(jnp.einsum("...ij,...j->...i", skew(v), x), np.cross(v, x), atol=1e-6)
    np.testing.assert_array_equal(skew(v), -np.swapaxes(skew(v), -1, -2))


@pytest.mark.parametrize(
    ("of_frames", "of_points"), [((), ()), ((3, 1), (3, 1)), ((2,), ()), ((), (2,)), ((2, 1), (3,))]
)
def test_transform_moves_points(of_frames, of_points):
    rng = np.random.default_rng(17)
    R, t = oracle(rng.normal(size=(*of_frames, 3))), rng.normal(size=(*of_frames, 3))
    points = rng.normal(size=(*of_points, 5, 3))
    T = rigid(R.astype(np.float32), t.astype(np.float32))
    assert T.shape == (*of_frames, 4, 4)
    np.testing.assert_array_equal(T[..., 3, :], np.broadcast_to([0, 0, 0, 1], (*of_frames, 4)))
    expected = points @ np.swapaxes(R, -1, -2) + t[..., None, :]
    np.testing.assert_allclose(transform(T, points.astype(np.float32)), expected, atol=2e-6)


def test_rigid_broadcasts():
    R, t = so3_exp(random_axis_angles(18, (2, 1))), random_axis_angles(19, (3,))
    T = rigid(R, t)
    assert T.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(T[1, 2, :3, :3], R[1, 0])
    np.testing.assert_array_equal(T[1, 2, :3, 3], t[2])
