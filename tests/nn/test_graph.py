import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.nn import (
    HAND_EDGES,
    AdaptiveGraphConv,
    GraphConv,
    NodewiseGraphConv,
    adjacency,
    directed_adjacency,
    normalised_adjacency,
)
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


def tree():
    """A trunk of two, which forks, and a node that is alone."""
    return directed_adjacency(EDGES, 5)


def test_ways_along_a_tree():
    itself, outwards, inwards = tree()
    np.testing.assert_array_equal(itself, np.eye(5))
    np.testing.assert_array_equal(outwards[1:4], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_allclose(inwards[:2], [[0, 1, 0, 0, 0], [0, 0, 0.5, 0, 0]] + np.eye(5)[3] * [[0], [0.5]])
    assert not outwards[[0, 4]].any() and not inwards[2:].any()
    hand = directed_adjacency(HAND_EDGES, 21)
    np.testing.assert_array_equal(hand[1, 5] > 0, np.arange(21) == 0)  # knuckles hear the wrist
    np.testing.assert_allclose(hand[2, 0, [1, 5, 9, 13, 17]], 0.2)
    with pytest.raises(ValueError, match="nodes 0 to 2"):
        directed_adjacency(((0, 3),), 3)


def test_adaptive_graphs():
    x = np.asarray(draw(0, 2, 3, 5, 4))
    module = AdaptiveGraphConv(8)
    p = fill(module, jnp.asarray(x), tree())
    w = p["params"]
    compared = x @ w["compared"]["kernel"] + w["compared"]["bias"]
    values = x @ w["values"]["kernel"]
    expected = np.zeros((2, 3, 5, 8)) + w["bias"]
    for b in range(2):
        for k in range(3):
            heard, hears = compared[b, ..., 2 * k : 2 * k + 2], compared[b, ..., 6 + 2 * k : 8 + 2 * k]
            for n in range(5):
                said = np.exp([np.sum(hears[:, n] * heard[:, m]) / (2 * 3) for m in range(5)])
                mixing = tree()[k, n] + w["learned"][n, :, k] + said / said.sum()
                expected[b, :, n] += np.einsum("m,tmc->tc", mixing, values[b, ..., 8 * k : 8 * k + 8])
    np.testing.assert_allclose(run(module, p, jnp.asarray(x), tree()), expected, atol=1e-5)
    # a graph that is given alone is a convolution along it
    given = AdaptiveGraphConv(8, learned=False, computed=False)
    few = {"params": {name: w[name] for name in ("values", "bias")}}
    parts = values.reshape(2, 3, 5, 3, 8)
    along = np.einsum("knm,btmkc->btnc", tree(), parts) + w["bias"]
    np.testing.assert_allclose(run(given, few, jnp.asarray(x), tree()), along, atol=1e-5)
    with pytest.raises(ValueError, match="as many nodes as the graphs"):
        run(module, p, jnp.asarray(x[:, :, :4]), tree())


def test_names_of_nodes_do_not_matter_to_adaptive_graphs():
    x, order = draw(0, 2, 3, 5, 4), np.array([3, 0, 4, 1, 2])
    module = AdaptiveGraphConv(8)
    p = fill(module, x, tree())
    renamed = {"params": {**p["params"], "learned": p["params"]["learned"][order][:, order]}}
    found = run(module, renamed, x[:, :, order], tree()[:, order][:, :, order])
    np.testing.assert_allclose(found, run(module, p, x, tree())[:, :, order], atol=1e-5)


def test_one_graph_is_computed_from_all_frames():
    """What changes in one frame changes what is heard in the others, through the graph alone."""
    x = draw(0, 1, 3, 5, 4)
    other = x.at[:, 2].mul(3.0)
    for computed in (True, False):
        module = AdaptiveGraphConv(8, computed=computed)
        p = fill(module, x, tree())
        off = np.abs(run(module, p, other, tree()) - run(module, p, x, tree())).max((0, 2, 3))
        assert (off[:2] > 1e-4).all() == computed and off[2] > 1e-3
