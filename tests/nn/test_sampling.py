import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand import nn
from jhand.nn import pixels_from_normalised
from tests.nn.networks import draw

sample_bilinear = jax.jit(nn.sample_bilinear, static_argnames="outside")

H, W = 4, 5
FEATURES = draw(0, 2, H, W, 3)
POINTS = jnp.asarray(np.random.default_rng(1).uniform(-2, 6, (2, 40, 2)), jnp.float32)
EXACT = jnp.array([[0.0, 0.0], [W - 1, H - 1], [2.0, 1.0], [1.5, 2.0], [-0.5, 0.0], [W - 0.5, 1.0], [1e9, -1e9]])


def slow(features, points, outside):
    y = np.zeros((len(points), features.shape[-1]))
    for k, (u, v) in enumerate(np.asarray(points, np.float64)):
        if outside == "border":
            u, v = np.clip(u, 0, W - 1), np.clip(v, 0, H - 1)
        for i in range(H):
            for j in range(W):
                y[k] += max(0, 1 - abs(v - i)) * max(0, 1 - abs(u - j)) * np.asarray(features[i, j], np.float64)
    return y


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_values_and_gradients(outside):
    points = jnp.concatenate([POINTS, jnp.broadcast_to(EXACT, (2, *EXACT.shape))], 1)
    y = sample_bilinear(FEATURES, points, outside=outside)
    for b in range(2):
        np.testing.assert_allclose(y[b], slow(FEATURES[b], points[b], outside), atol=1e-5)
    np.testing.assert_allclose(y[:, 40], FEATURES[:, 0, 0], atol=1e-6)

    number = lambda f, p: jnp.sum(jnp.sin(sample_bilinear(f, p, outside=outside)))  # noqa: E731
    of_features, of_points = jax.jit(jax.grad(number, (0, 1)))(FEATURES, POINTS)
    rng = np.random.default_rng(2)
    step = 1e-6
    for of, place in ((of_features, 0), (of_points, 1)):
        direction = rng.normal(size=of.shape)
        ends = []
        for sign in (1, -1):
            given = [np.asarray(FEATURES, np.float64), np.asarray(POINTS, np.float64)]
            given[place] = given[place] + sign * step * direction
            ends.append(sum(np.sin(slow(given[0][b], given[1][b], outside)).sum() for b in range(2)))
        np.testing.assert_allclose(np.sum(of * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-4)


def test_batches_broadcast():
    y = sample_bilinear(FEATURES, POINTS[0])
    np.testing.assert_allclose(y[1], slow(FEATURES[1], POINTS[0], "zeros"), atol=1e-5)
    mapped = jax.vmap(sample_bilinear, (0, None))(FEATURES, POINTS[0])
    np.testing.assert_allclose(mapped, y, atol=1e-6)


def test_normalised_coordinates_reach_across_the_map():
    found = pixels_from_normalised(np.array([[0.0, 0.0], [1.0, 1.0], [0.5 / W, 0.5 / H]]), (H, W))
    np.testing.assert_allclose(found, [[-0.5, -0.5], [W - 0.5, H - 0.5], [0, 0]], atol=1e-6)
