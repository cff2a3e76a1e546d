"""Convolutions over the nodes of a graph, such as a hand's keypoints along its bones."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from jhand.hand.skeleton import bones, keypoint_names

HAND_EDGES = bones("openpose21")
"""The 20 bones of a hand as pairs of its 21 keypoints: wrist; thumb to little finger, each from base to tip."""

Edges = tuple[tuple[int, int], ...]


def adjacency(edges: Edges, nodes: int) -> Float[np.ndarray, "n n"]:
    """Which nodes are neighbours, both ways, without loops: (N, N) of 0 and 1.

    Args:
        edges: pairs of nodes.
        nodes: N.

    Raises:
        ValueError: an edge to a node that is none, or from a node to itself.
    """
    wrong = [(a, b) for a, b in edges if a == b or not (0 <= a < nodes and 0 <= b < nodes)]
    if wrong:
        raise ValueError(f"edges join two of the nodes 0 to {nodes - 1}, got {wrong}")
    joined = np.zeros((nodes, nodes), np.float32)
    for a, b in edges:
        joined[a, b] = joined[b, a] = 1
    return joined


def normalised_adjacency(edges: Edges, nodes: int) -> Float[np.ndarray, "n n"]:
    """D^-1/2 (A + I) D^-1/2 (N, N), D the row sums of A + I (Kipf and Welling, ICLR 2017, eq. 2).

    Args:
        edges: pairs of nodes.
        nodes: N.
    """
    looped = adjacency(edges, nodes) + np.eye(nodes, dtype=np.float32)
    degree = looped.sum(1)
    return looped / np.sqrt(degree[:, None] * degree)


def directed_adjacency(edges: Edges, nodes: int) -> Float[np.ndarray, "3 n n"]:
    """Whom a node of a tree hears by itself, from the root outwards and towards it: (3, N, N), to a node in rows.

    The first is the identity; the second takes each node's parent; the third the mean of its children (Yan et al.,
    AAAI 2018, section 3.3, as Shi et al., CVPR 2019, normalise it).

    Args:
        edges: (parent, child) pairs of nodes.
        nodes: N.

    Raises:
        ValueError: an edge to a node that is none, or from a node to itself.
    """
    adjacency(edges, nodes)  # says what is wrong with them
    inwards = np.zeros((nodes, nodes), np.float32)
    for parent, child in edges:
        inwards[parent, child] = 1
    ways = np.stack([np.eye(nodes, dtype=np.float32), inwards.T, inwards])
    return ways / np.maximum(ways.sum(-1, keepdims=True), 1)


class GraphConv(nn.Module):
    """y = (M * A') x W + b, of nodes (..., N, C): A' the normalised adjacency, M learned weights of edges and loops.

    Kipf and Welling, ICLR 2017, with the edge importance of Yan et al., AAAI 2018 (section 3.3), which starts at one.

    Attributes:
        features: channels that come out.
        edges: pairs of nodes; a hand's bones unless given.
        dtype: of the computation.
    """

    features: int
    edges: Edges = HAND_EDGES
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        nodes = _nodes_of(x, self.edges)
        importance = self.param("importance", nn.initializers.ones_init(), (nodes, nodes))
        mixing = importance * normalised_adjacency(self.edges, nodes)
        y = nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        y, mixing, bias = promote_dtype(y, mixing, bias, dtype=self.dtype)
        return jnp.einsum("nm,...mc->...nc", mixing, y) + bias


class AdaptiveGraphConv(nn.Module):
    """y = sum_k (A_k + P_k + C_k) x W_k + b, of nodes in time (..., T, N, C): graphs that are given, learned and seen.

    A_k are given; P_k are learned, the same for all inputs, and start at 1e-6; C_k are computed from each input, one
    for all of its frames: a softmax over the nodes that are heard of how well two linear maps of both nodes agree, on
    the mean over channels and frames (Shi et al., CVPR 2019, eq. 3 and 4).

    Attributes:
        features: channels that come out; a quarter of them are compared for C.
        given: whether A is among the graphs.
        learned: whether P is.
        computed: whether C is.
        dtype: of the computation.
    """

    features: int
    given: bool = True
    learned: bool = True
    computed: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, graphs: Float[ArrayLike, "k n n"], joinable: ArrayLike | None = None) -> Array:
        """Nodes (..., T, N, C) and given graphs (K, N, N), to a node in rows; `joinable` (N, N): which others a node
        may hear by what is learned or computed, by default all.
        """
        A = jnp.asarray(graphs)
        number, nodes = A.shape[:2]
        if x.ndim < 3 or x.shape[-2] != nodes:
            raise ValueError(f"expected x (..., T, {nodes}, C), of as many nodes as the graphs have, got {x.shape}")
        mixing = A if self.given else jnp.zeros_like(A)
        if self.learned:
            P = self.param("learned", nn.initializers.constant(1e-6), (nodes, nodes, number))
            P = jnp.moveaxis(P, -1, 0)
            mixing = mixing + (P if joinable is None else jnp.where(joinable, P, 0))
        if self.computed:
            width = max(1, self.features // 4)
            compared = nn.Dense(2 * number * width, dtype=self.dtype, name="compared")(x)
            heard, hears = jnp.split(compared.reshape(*x.shape[:-1], 2 * number, width), 2, -2)
            agreement = jnp.einsum("...tnke,...tmke->...knm", hears, heard) / (width * x.shape[-3])
            mixing = mixing + nn.softmax(agreement, -1, where=joinable)
        y = nn.Dense(number * self.features, use_bias=False, dtype=self.dtype, name="values")(x)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        y, mixing, bias = promote_dtype(y, mixing, bias, dtype=self.dtype)
        y = y.reshape(*x.shape[:-1], number, self.features)
        return jnp.einsum("...knm,...tmkf->...tnf", mixing, y) + bias


class NodewiseGraphConv(nn.Module):
    """y_n = x_n W0_n + sum_m a_nm x_m W1_m + b, of nodes (..., N, C): every node has matrices of its own.

    a are learned weights of the neighbours m of n, a softmax that starts even. This is the graph convolution of Hamba
    (Dong et al., NeurIPS 2024), whose code has a second softmax over each node itself alone; that is one, and left out.

    Attributes:
        features: channels that come out.
        edges: pairs of nodes; a hand's bones unless given.
        dtype: of the computation.
    """

    features: int
    edges: Edges = HAND_EDGES
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        nodes = _nodes_of(x, self.edges)
        to, source = np.nonzero(adjacency(self.edges, nodes))
        initial = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0, 1))
        kernel = self.param("kernel", initial, (2, nodes, x.shape[-1], self.features))
        logits = self.param("logits", nn.initializers.ones_init(), (len(to),))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        # a softmax along the edges of a node; one without neighbours has an empty sum, which is no trouble
        weights = jnp.exp(logits - logits.max(initial=0.0))
        weights = weights / jnp.zeros(nodes).at[to].add(weights)[to]
        mixing = jnp.zeros((nodes, nodes)).at[to, source].set(weights)
        x, kernel, mixing, bias = promote_dtype(x, kernel, mixing, bias, dtype=self.dtype)
        own, others = jnp.einsum("...nc,knce->k...ne", x, kernel)
        return own + jnp.einsum("nm,...me->...ne", mixing, others) + bias


def _nodes_of(x: Array, edges: Edges) -> int:
    nodes = x.shape[-2]
    if edges == HAND_EDGES and nodes != len(keypoint_names("openpose21")):
        raise ValueError(f"a hand's bones join 21 keypoints, got x {x.shape}; other graphs are given as edges")
    return nodes
