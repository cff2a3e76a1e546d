import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import HAND_EDGES, GraphConv, NodewiseGraphConv, adjacency, normalised_adjacency
from tests.nn.networks import draw, fill, run

EDGES = ((0, 1), (1, 2), (1, 3))  # and a node without neighbours


def test_a_hand_is_five_chains_from_the_wrist():
    a = adjacency(HAND_EDGES, 21)
    np.testing.assert_array_equal(a, a.T)
    assert a.sum() == 40
    assert a.trace() == 0
    np.testing.assert_array_equal(np.nonzero(a[0])[0], [1, 5, 9, 13, 17])
    np.testing.assert_array_equal(np.nonzero(a[8])[0], [7])
    normal = normalised_adjacency(HAND_EDGES, 21)
    np.testing.assert_allclose(normal[0, 1], 1 / np.sqrt(6 * 3))
    np.testing.assert_allclose(np.linalg.eigvalsh(normal).max(), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"nodes 0 to 2, got \[\(0, 3\), \(1, 1\)\]"):
        adjacency(((0, 1), (0, 3), (1, 1)), 3)


def test_convolution_along_edges():
    x = np.asarray(draw(0, 2, 5, 3))
    module = GraphConv(4, EDGES)
    p = fill(module, jnp.asarray(x))
    w = p["params"]
    a = normalised_adjacency(EDGES, 5)
    expected = np.zeros((2, 5, 4))
    for n in range(5):
        for m in range(5):
            expected[:, n] += a[n, m] * w["importance"][n, m] * (x[:, m] @ w["Dense_0"]["kernel"])
    np.testing.assert_allclose(run(module, p, jnp.asarray(x)), expected + w["bias"], atol=1e-5)


def test_convolution_with_matrices_of_each_node():
    x = np.asarray(draw(0, 2, 5, 3))
    module = NodewiseGraphConv(4, EDGES)
    p = fill(module, jnp.asarray(x))
    w = p["params"]
    neighbours = [[1], [0, 2, 3], [1], [1], []]
    logits = iter(np.asarray(w["logits"]))
    expected = np.zeros((2, 5, 4))
    for n in range(5):
        e = np.exp([next(logits) for _ in neighbours[n]])
        expected[:, n] = x[:, n] @ w["kernel"][0, n] + w["bias"]
        for m, share in zip(neighbours[n], e / e.sum(), strict=True):
            expected[:, n] += share * (x[:, m] @ w["kernel"][1, m])
    np.testing.assert_allclose(run(module, p, jnp.asarray(x)), expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(module.apply(p, jnp.asarray(x))))))(p)["params"]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert np.abs(gradient["logits"][1:4]).max() > 1e-3


@pytest.mark.parametrize("kind", [GraphConv, NodewiseGraphConv])
def test_hands_unless_told_otherwise(kind):
    assert jax.eval_shape(lambda: kind(4).init_with_output(jax.random.key(0), draw(0, 2, 21, 3)))[0].shape == (2, 21, 4)
    with pytest.raises(ValueError, match="21 keypoints"):
        kind(4).init(jax.random.key(0), draw(0, 2, 16, 3))
