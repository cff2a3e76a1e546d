"""Pose Anything: keypoints of things never trained on, by annotated pictures and a skeleton (Hirschorn & Avidan 2024).

Whoever asks gives pictures of a thing with its keypoints marked, and which of these are joined. Features at the marks
are tokens; together with those of another picture they pass an encoder; how alike a token and each pixel are proposes
where its keypoint is; a decoder moves the proposals, and in each of its layers the tokens speak along the skeleton.
Tokens have no place in a row, so any keypoints can be asked for in any order.

From the paper (ECCV 2024), and numbers that it does not give from the released code. Other than there: the backbone is
the library's ViT, not Swin V2.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.hand import HandModel
from jhand.nn import (
    HAND_EDGES,
    MLP,
    ViT,
    adjacency,
    attend,
    gaussian_maps,
    map_means,
    pixels_from_normalised,
    sinusoidal_places,
)
from jhand.train import LossAux, Stage, Update

KEYPOINTS = 21
"""Of a hand; other things may have as many as are wanted, padded to one number."""


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    size: int = 256
    """Of pictures, pixels."""
    shots: int = 1
    """How many of the annotated pictures are used, the first ones."""
    skeleton: Literal["given", "complete", "shuffled"] = "given"
    """`complete`: all keypoints are joined to all others; `shuffled`: the skeleton is that of other keypoints when
    something is predicted, not in training."""
    graph: bool = True
    """Whether tokens are mixed along the skeleton; else feed-forward layers have as many parameters without."""
    patch: int = 16
    """Pixels of a picture to a feature."""
    backbone: int = 384
    """Channels of features."""
    backbone_layers: int = 12
    backbone_heads: int = 6
    map_size: int = 64
    """Of the maps that marks become; their sigma is one pixel of it."""
    channels: int = 256
    """Of tokens."""
    heads: int = 8
    mlp: int = 768
    """Hidden channels of feed-forward layers."""
    pattern: int = 128
    """Hidden channels of what a token asks for."""
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    map_weight: float = 2.0
    """Of the loss of likenesses; those of places count once."""
    rate: float = 1e-5
    warm_up: int = 1000
    """Steps in which the rate grows from a thousandth."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For pictures of 64 x 64 on a CPU."""
        sizes: dict[str, Any] = {"size": 64, "patch": 8, "backbone": 64, "backbone_layers": 3, "backbone_heads": 2}
        sizes |= {"map_size": 32, "channels": 96, "heads": 4, "mlp": 192, "pattern": 48, "encoder_layers": 2}
        sizes |= {"decoder_layers": 2, "dropout": 0.0, "rate": 1e-3, "warm_up": 200}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """The published head over a small ViT, on one accelerator."""
        sizes: dict[str, Any] = {"size": 128, "patch": 8, "rate": 1e-4}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published, but for the backbone."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """What is asked. Places are from 0 to 1 across a picture, its border to its border; K keypoints, padded."""

    support_images: Float[Array, "*b s h w 3"]
    """Annotated pictures, from 0 to 1."""
    support_points: Float[Array, "*b s k 2"]
    """x then y."""
    query_images: Float[Array, "*b h w 3"]
    """Where the keypoints are to be found."""
    valid: Bool[Array, "*b k"]
    """Which of the K are keypoints, and marked in the annotated pictures."""
    skeleton: Float[Array, "*b k k"]
    """1 where two are joined."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Places from 0 to 1 across the picture."""

    points: Float[Array, "*b k 2"]
    proposals: Float[Array, "*b k 2"]
    """Where likeness alone puts them: the mean over all pixels."""
    layers: Float[Array, "*b l k 2"]
    """After each layer of the decoder; the last are `points`."""
    likeness: Float[Array, "*b k h w"]
    """Of each token and each feature, logits."""


needs = ("image", "hands.right.keypoints2d", "hands.right.confidence")


def prepare(clip: dict[str, Any], config: Config) -> dict[str, Any]:
    """A hand as a thing never trained on: the first frames of a clip are annotated, the last one is asked about.

    Only picks entries, and brings pixels to 0 to 1. Pictures are crops of `config.size`.
    """
    images, hand = clip["image"][:, 0], clip["hands"]["right"]
    frames, side = images.shape[0], images.shape[1:3]
    if side != (config.size, config.size) or frames <= config.shots:
        raise ValueError(
            f"poseanything: expected {config.shots + 1} or more frames, crops of {config.size} x {config.size} pixels, "
            f"got {frames} of {side}"
        )
    points = (hand["keypoints2d"][:, 0] + 0.5) / config.size
    seen = hand["confidence"][:, 0] > 0
    return {
        "support_images": images[: config.shots],
        "support_points": points[: config.shots],
        "query_image": images[-1],
        "query_points": points[-1],
        "keypoints_valid": seen[: config.shots].all(0) & seen[-1],
        "skeleton": adjacency(HAND_EDGES, KEYPOINTS),
    }


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...)."""
    return Inputs(
        batch["support_images"].astype(jnp.float32) / 255,
        batch["support_points"],
        batch["query_image"].astype(jnp.float32) / 255,
        batch["keypoints_valid"],
        batch["skeleton"].astype(jnp.float32),
    )


def pixel_centres(height: int, width: int) -> Float[Array, "n 2"]:
    """Places of the features of a map, row by row, from 0 to 1 across it."""
    x, y = jnp.meshgrid((jnp.arange(width) + 0.5) / width, (jnp.arange(height) + 0.5) / height)
    return jnp.stack([x.ravel(), y.ravel()], -1)


def marked_maps(points: ArrayLike, size: int) -> Float[Array, "*b k s s"]:
    """Gaussians of one pixel's sigma about places (..., K, 2) from 0 to 1; height 1."""
    return gaussian_maps(pixels_from_normalised(points, (size, size)), (size, size), 1.0)


def support_tokens(features: ArrayLike, maps: ArrayLike) -> Float[Array, "b k c"]:
    """Features of annotated pictures at their marks: the mean under each map, then the mean over pictures.

    Args:
        features: (B, S, h, w, C) of S pictures, resized to the maps.
        maps: (B, S, K, H, W), of any sum.

    Returns:
        (B, K, C).
    """
    m = jnp.asarray(maps)
    shares = m / (jnp.sum(m, (-1, -2), keepdims=True) + 1e-8)
    f = jnp.asarray(features)
    resized = jax.image.resize(f, (*f.shape[:2], *m.shape[-2:], f.shape[-1]), "linear")
    return jnp.mean(jnp.einsum("bskhw,bshwc->bskc", shares, resized), 1)


def likeliest(likeness: ArrayLike) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k 2"]]:
    """Places that likenesses (..., K, h, w) mean, from 0 to 1: the softmax's mean over all pixels, and that over the
    3 x 3 about the highest one.
    """
    m = jnp.asarray(likeness)
    h, w = m.shape[-2:]
    row, column = jnp.divmod(jnp.argmax(m.reshape(*m.shape[:-2], h * w), -1)[..., None, None], w)
    near = (jnp.abs(jnp.arange(h)[:, None] - row) <= 1) & (jnp.abs(jnp.arange(w) - column) <= 1)
    size = jnp.array([w, h], m.dtype)
    return (map_means(m) + 0.5) / size, (map_means(jnp.where(near, m, -jnp.inf)) + 0.5) / size


def mixing(skeleton: ArrayLike, valid: ArrayLike) -> Float[Array, "*b 2 k k"]:
    """What a token takes of others: itself, and the mean of its neighbours; nothing of or for what is padding.

    Args:
        skeleton: (..., K, K), 1 where two are joined; made symmetric.
        valid: (..., K).
    """
    counts = jnp.asarray(valid).astype(jnp.float32)
    joined = jnp.asarray(skeleton)
    joined = jnp.maximum(joined, jnp.swapaxes(joined, -1, -2)) * counts[..., None] * counts[..., None, :]
    joined = joined / jnp.maximum(jnp.sum(joined, -1, keepdims=True), 1)
    return jnp.stack([jnp.eye(counts.shape[-1]) * counts[..., None], joined], -3)


class Attention(nn.Module):
    """Attention whose queries, keys and values may each be of other channels; inside, `width` of them."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
        inside = partial(nn.DenseGeneral, (self.heads, self.width // self.heads))
        found = attend(inside(name="query")(query), inside(name="key")(key), inside(name="value")(value), mask=mask)
        return nn.DenseGeneral(self.width, axis=(-2, -1), name="out")(found)


class JointEncoder(nn.Module):
    """Pixels (b, N, C) and tokens (b, K, C) among themselves. Places belong to pixels alone, and are added to what is
    taken from them, too.
    """

    config: Config

    @nn.compact
    def __call__(self, pixels: Array, tokens: Array, places: Array, valid: Array, train: bool) -> tuple[Array, Array]:
        c, number = self.config, pixels.shape[1]
        x = jnp.concatenate([pixels, tokens], 1)
        where = jnp.pad(places, ((0, 0), (0, tokens.shape[1]), (0, 0)))
        seen = jnp.concatenate([jnp.ones(pixels.shape[:2], bool), valid], 1)[:, None]
        dropped = partial(nn.Dropout(c.dropout), deterministic=not train)
        for layer in range(c.encoder_layers):
            placed = x + where
            attention = Attention(c.channels, c.heads, name=f"attention{layer}")
            x = _norm()(x + dropped(attention(placed, placed, placed, seen)))
            mlp = MLP(c.mlp, activation=nn.relu, dropout=c.dropout, name=f"mlp{layer}")
            x = _norm()(x + mlp(x, deterministic=not train))
        return x[:, :number], x[:, number:]


class Proposals(nn.Module):
    """How like each token (b, K, C) each pixel (b, h, w, C) is, logits: channels count as much as the token says."""

    config: Config

    @nn.compact
    def __call__(self, tokens: Array, pixels: Array) -> Array:
        c = self.config
        asked, seen = nn.Dense(c.channels)(tokens), nn.Dense(c.channels)(pixels)
        pattern = jnp.tanh(nn.Dense(c.channels)(nn.relu(nn.Dense(c.pattern)(asked))))
        return jnp.einsum("bkc,bhwc->bkhw", (1 + pattern) * asked, seen)


class FeedForward(nn.Module):
    """Tokens (b, K, C) each by itself and along the skeleton (b, 2, K, K); without that, of as many parameters."""

    config: Config

    @nn.compact
    def __call__(self, x: Array, mixed: Array, train: bool) -> Array:
        c = self.config
        if c.graph:
            both = nn.Dense(2 * c.mlp)(x).reshape(*x.shape[:2], 2, c.mlp)
            hidden = jnp.einsum("bpnm,bmpc->bnc", mixed, both)
        else:
            hidden = nn.Dense(3 * c.mlp // 2)(x)
        hidden = nn.Dropout(c.dropout, deterministic=not train)(nn.relu(hidden))
        return nn.Dense(c.channels)(hidden)


class DecoderLayer(nn.Module):
    """Tokens at places among themselves, to the picture, and along the skeleton. What a token is and where it is are
    beside each other in queries and keys to the picture; the doubled channels come back to those of a token.
    """

    config: Config

    @nn.compact
    def __call__(
        self, x: Array, at: Array, pixels: Array, places: Array, valid: Array, mixed: Array, train: bool
    ) -> Array:
        c = self.config
        dropped = partial(nn.Dropout(c.dropout), deterministic=not train)
        placed = x + at
        x = _norm()(x + dropped(Attention(c.channels, c.heads, name="tokens")(placed, placed, x, valid[:, None])))
        both = Attention(2 * c.channels, c.heads, name="picture")
        query, key = jnp.concatenate([x, at], -1), jnp.concatenate([pixels, places], -1)
        x = _norm()(x + dropped(nn.Dense(c.channels, name="choker")(both(query, key, pixels))))
        return _norm()(x + dropped(FeedForward(c, name="skeleton")(x, mixed, train)))


class Move(nn.Module):
    """What a token (b, K, C) adds to the logits of its place; at first nothing."""

    config: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(3):
            x = nn.gelu(nn.Dense(self.config.channels)(x), approximate=False)
        zero = nn.initializers.zeros_init()
        return nn.Dense(2, kernel_init=zero, bias_init=zero)(x)


class Network(nn.Module):
    """All of it."""

    config: Config

    @nn.compact
    def __call__(self, inputs: Inputs, train: bool) -> Outputs:
        c = self.config
        images, valid = inputs.support_images[:, : c.shots], inputs.valid
        b, shots = images.shape[:2]
        size = (c.size, c.size)
        backbone = ViT(c.backbone, c.backbone_layers, c.backbone_heads, patch=c.patch, image_size=size)
        seen = jnp.concatenate([images.reshape(-1, *images.shape[2:]), inputs.query_images])
        features = backbone(_normalised(seen), deterministic=not train)
        h, w = features.shape[1:3]
        supports = features[: b * shots].reshape(b, shots, h, w, -1)

        maps = marked_maps(inputs.support_points[:, : c.shots], c.map_size)
        tokens = nn.Dense(c.channels, name="support")(support_tokens(supports, maps) * valid[..., None])
        pixels = nn.Dense(c.channels, name="query")(features[b * shots :]).reshape(b, h * w, -1)
        places = jnp.broadcast_to(sinusoidal_places(pixel_centres(h, w), c.channels), pixels.shape)
        pixels, tokens = JointEncoder(c, name="encoder")(pixels, tokens, places, valid, train)
        likeness = Proposals(c, name="proposals")(tokens, pixels.reshape(b, h, w, -1))
        proposals, at = likeliest(likeness)

        mixed = mixing(_skeleton(inputs, c, train), valid)
        to_position = MLP(c.channels, activation=nn.relu, name="positions")
        found = []
        for layer in range(c.decoder_layers):
            at = jax.lax.stop_gradient(at)
            where = to_position(sinusoidal_places(at, c.channels))
            tokens = DecoderLayer(c, name=f"layer{layer}")(tokens, where, pixels, places, valid, mixed, train)
            at = jax.nn.sigmoid(_logit(at) + Move(c, name=f"move{layer}")(_norm()(tokens)))
            found.append(at)
        return Outputs(at, proposals, jnp.stack(found, 1), likeness)


def _skeleton(inputs: Inputs, config: Config, train: bool) -> Array:
    if config.skeleton == "complete":
        return jnp.ones_like(inputs.skeleton) - jnp.eye(inputs.skeleton.shape[-1])
    if config.skeleton == "given" or train:
        return inputs.skeleton
    # that of the keypoints in another order; padding stays padding
    rank = jnp.where(inputs.valid, jax.random.uniform(jax.random.key(0), inputs.valid.shape[-1:]), 2.0)
    own, other = jnp.argsort(~inputs.valid, -1, stable=True), jnp.argsort(rank, -1)
    put = jnp.take_along_axis(other, jnp.argsort(own, -1), -1)
    rows = jnp.take_along_axis(inputs.skeleton, put[..., None], -2)
    return jnp.take_along_axis(rows, put[..., None, :], -1)


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5)


def _normalised(images: Array) -> Array:
    """By the mean and spread of ImageNet's colours."""
    return (images - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])


def _logit(x: Array) -> Array:
    return jax.scipy.special.logit(jnp.clip(x, 1e-3, 1 - 1e-3))


def init(key: Array, config: Config, hand: HandModel | None = None) -> dict[str, Any]:
    """`{"params", "stats"}` of the first values; `hand` is not used."""
    side = (config.size, config.size, 3)
    inputs = Inputs(
        jnp.zeros((1, config.shots, *side)),
        jnp.full((1, config.shots, KEYPOINTS, 2), 0.5),
        jnp.zeros((1, *side)),
        jnp.ones((1, KEYPOINTS), bool),
        jnp.zeros((1, KEYPOINTS, KEYPOINTS)),
    )
    return {"params": Network(config).init(key, inputs, False)["params"], "stats": {}}


def losses(outputs: Outputs, batch: dict[str, Array], config: Config) -> dict[str, Array]:
    """The terms of `loss`, before weights: `likeness`, `proposals` and `layers`; means over keypoints that are marked
    in both pictures.

    Args:
        outputs: of the query pictures.
        batch: `query_points` (B, K, 2) from 0 to 1, `keypoints_valid` (B, K).
        config: sizes.
    """
    counts = batch["keypoints_valid"].astype(jnp.float32)
    number = jnp.maximum(jnp.sum(counts), 1)
    target = jnp.where(batch["keypoints_valid"][..., None], batch["query_points"], 0.5)
    maps = marked_maps(target, config.map_size)
    h, w = outputs.likeness.shape[-2:]
    maps = jax.image.resize(maps, (*maps.shape[:2], h, w), "linear", antialias=False)
    maps = maps / jnp.maximum(jnp.max(maps, (-1, -2), keepdims=True), 1e-6)
    squares = jnp.mean(jnp.square(jax.nn.sigmoid(outputs.likeness) - maps), (-1, -2))
    off = jnp.sum(jnp.abs(outputs.proposals - target), -1)
    layers = jnp.sum(jnp.abs(outputs.layers - target[:, None]), (1, -1))
    terms = {"likeness": squares, "proposals": off, "layers": layers}
    return {name: jnp.sum(counts * term) / number for name, term in terms.items()}


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel | None = None, *, key: Array
) -> tuple[Array, LossAux]:
    """How like pixels and tokens are (squares, twice), and where proposals and each layer put keypoints (|dx| + |dy|).

    Args:
        variables: of `init`.
        batch: of `prepare`, or `jhand.data.creatures.creature_episode`: `support_images` (B, S, H, W, 3) and so on.
        config: sizes.
        hand: not used.
        key: of dropout.
    """
    params = {"params": variables["params"]}
    outputs: Any = Network(config).apply(params, inputs_of(batch), True, rngs={"dropout": key})
    terms = losses(outputs, batch, config)
    total = config.map_weight * terms["likeness"] + terms["proposals"] + terms["layers"]
    return total, LossAux(terms=terms)


def apply(
    variables: dict[str, Any],
    inputs: Inputs,
    config: Config,
    hand: HandModel | None = None,
    *,
    key: Array | None = None,
) -> Outputs:
    """Keypoints of the query pictures.

    Args:
        variables: of `init`.
        inputs: leading axes as they come.
        config: sizes.
        hand: not used.
        key: not used.

    Raises:
        ValueError: fewer annotated pictures than `config.shots`.
    """
    shots = inputs.support_images.shape[-4]
    if shots < config.shots:
        raise ValueError(f"support_images: expected {config.shots} or more, as many as Config.shots, got {shots}")
    batch = inputs.valid.shape[:-1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), inputs)
    found: Any = Network(config).apply({"params": variables["params"]}, flat, False)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)


predict = apply


def stages(config: Config, hand: HandModel | None, steps: int) -> tuple[Stage, ...]:
    """One: Adam, a warm-up, and a tenth of the rate after 80 and 90 % of the steps, as epochs 160 and 180 of 200."""
    warm = min(config.warm_up, steps // 2)
    start = optax.linear_schedule(config.rate / 1000, config.rate, max(warm, 1))
    falls = optax.piecewise_constant_schedule(config.rate, {int(0.8 * steps) - warm: 0.1, int(0.9 * steps) - warm: 0.1})
    update = Update(
        "points", partial(loss, config=config, hand=hand), optax.adam(optax.join_schedules([start, falls], [warm]))
    )
    return (Stage("all", steps, (update,)),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: all."""
    return params
