import jax
import jax.numpy as jnp
import numpy as np

from jhand.geometry.rotations import so3_exp
from jhand.nn import HandHead, mean_estimate, translation_from_estimate
from tests.nn.networks import draw, fill, run


def test_estimates_are_changes_of_a_start(right):
    x, start = draw(0, 3, 8), jax.jit(mean_estimate)(right)
    head = HandHead()
    p = fill(head, x, start)
    y = run(head, p, x, start)
    for name, shape in (("pose", (16, 6)), ("betas", (10,)), ("camera", (3,))):
        w = p["params"][name]
        expected = getattr(start, name) + (x @ w["kernel"] + w["bias"]).reshape(3, *shape)
        np.testing.assert_allclose(getattr(y, name), expected, atol=1e-5)
    again = run(head, p, x, y)  # an iteration more starts where the last one ended
    np.testing.assert_allclose(again.betas - y.betas, y.betas - start.betas, atol=1e-5)


def test_the_first_estimate_is_the_mean_hand(right):
    x, start = draw(0, 3, 8), jax.jit(mean_estimate)(right)
    y, p = jax.jit(HandHead().init_with_output)(jax.random.key(0), x, start)
    R = np.asarray(jax.jit(lambda y: y.rotations)(y))
    np.testing.assert_allclose(
        R[:, 1:], np.broadcast_to(so3_exp(right.hands_mean.reshape(15, 3)), (3, 15, 3, 3)), atol=0.1
    )
    np.testing.assert_allclose(R[:, 0], np.broadcast_to(np.eye(3), (3, 3, 3)), atol=0.1)
    np.testing.assert_allclose(np.swapaxes(R, -1, -2) @ R, np.broadcast_to(np.eye(3), R.shape), atol=1e-5)
    assert set(p["params"]) == {"pose", "betas", "camera"}


def test_without_a_start_a_mean_is_learned():
    x = draw(0, 3, 8)
    y, p = jax.jit(HandHead(dtype=jnp.bfloat16).init_with_output)(jax.random.key(0), x)
    assert y.pose.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(lambda y: y.rotations)(y), np.broadcast_to(np.eye(3), (3, 16, 3, 3)), atol=0.1)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(HandHead().apply(p, x).rotations[..., 0, 1])))(p)
    assert np.abs(gradient["params"]["mean_pose"]).max() > 0


def test_the_weak_camera_is_a_place_before_a_full_one():
    """A point at the wrist's depth appears where scale and shift put it in a crop from -1 to 1."""
    camera, focal, size = np.array([[2.0, 0.03, -0.02]], np.float32), 5000.0, 256.0
    point = np.array([0.01, 0.02, 0.0]) + np.asarray(translation_from_estimate(camera, focal, size)[0], np.float64)
    pixel = focal * point[:2] / point[2]
    np.testing.assert_allclose(pixel / (size / 2), [2.0 * (0.01 + 0.03), 2.0 * (0.02 - 0.02)], atol=1e-5)
    assert np.isfinite(translation_from_estimate(np.zeros((2, 3), np.float32), focal, size)).all()
