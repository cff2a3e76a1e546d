"""DiffPose: hypotheses of a hand by diffusion, given points drawn from heat maps (Holmquist & Wandt, ICCV 2023).

A detector's heat maps say more than their peaks. Of each joint's map points are drawn, with replacement, and the peak
is added; each is embedded as a smooth histogram, scaled by what the map says there, and all of a joint are summed: a
token that does not depend on their order. A transformer lets the tokens agree, and all together are the condition of a
diffusion over 3D keypoints, whose denoiser is a small MLP. Each hypothesis draws points of its own, so that what the
maps leave open comes out as hypotheses that differ.

Numbers not in the paper are those of the released code. Other than there: all 21 keypoints are diffused about their
mean, the root among them, since a wrist is not the middle of two joints as a pelvis is; and `Config.scale` is larger,
as a hand is smaller than a body (see there).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jhand.diffusion import (
    clamp,
    cosine_levels,
    denoiser_from_noise,
    diffuse,
    draw_levels,
    sample_ddpm,
    sample_means,
)
from jhand.hand import HandModel
from jhand.nn import (
    MLP,
    HeatmapSamples,
    SelfAttention,
    argmax_heatmaps,
    channel_embedding,
    sample_heatmaps,
)
from jhand.train import LossAux, Stage, Update

JOINTS = 21


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    samples: int = 32
    """Points of each map, the peak among them; 1 is the peak alone."""
    argmax: bool = True
    """Whether one of the points is the peak, rather than one more that is drawn."""
    likelihood: bool = True
    """Whether embeddings are scaled by what the map says."""
    transformer: bool = True
    condition: Literal["embedded", "concatenated"] = "embedded"
    """`concatenated`: the points themselves, likeliest first, go into the denoiser (the paper's baseline)."""
    joint_dropout: float = 0.1
    """Share of joints of which nothing is seen, in training."""
    channels: int = 64
    """Of a coordinate's embedding: as many as a map has pixels across."""
    width: int = 128
    """Of tokens."""
    layers: int = 4
    heads: int = 4
    mlp: int = 512
    """Hidden channels of the transformer's MLPs."""
    dropout: float = 0.1
    """In the transformer."""
    condition_width: int = 128
    """Of the condition, for each joint."""
    hidden: int = 1024
    """Of the denoiser."""
    steps: int = 25
    """Levels of noise."""
    scale: float = 70.0
    """Diffused keypoints are metres times this. The paper multiplies bodies by 10, whose coordinates then spread by 2:
    those of hands, by 0.03 m about their mean, do under 70."""
    limit: float = 10.0
    """Of diffused keypoints, to which x0 is clamped at each step of sampling; the paper's 30 are 3 m of a body, these
    14 cm of a hand."""
    draws: int = 1
    """Levels and noises of each hand and condition in a step of training: more make more of what a condition costs."""
    hypotheses: int = 200
    rate: float = 1e-4
    """Learning rate, constant."""
    ema: float = 0.995
    """Decay of the averaged weights."""
    ema_every: int = 10
    """Steps between two averagings."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For maps of 32 x 32 on a CPU."""
        sizes: dict[str, Any] = {"channels": 32, "width": 64, "layers": 2, "mlp": 128, "condition_width": 16}
        sizes |= {"hidden": 256, "dropout": 0.0, "hypotheses": 50, "draws": 4, "rate": 1e-3, "ema_every": 2}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """The published network, on one accelerator for a fraction of the published steps."""
        sizes: dict[str, Any] = {"rate": 3e-4}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """What a detector says."""

    heatmaps: Float[Array, "*b 21 h w"]
    """Of each keypoint; what is negative counts as 0, and no sum is expected."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """Hands in the axes of the camera, metres, about the mean of their keypoints."""

    hypotheses: Float[Array, "*b n 21 3"]
    keypoints: Float[Array, "*b 21 3"]
    """A single answer, called z0: the reverse process without its noise."""


needs = ("hands.right.keypoints3d", "hands.right.keypoints3d_valid", "camera.T_cam_world", "heatmaps")


def prepare(clip: dict[str, Any], config: Config) -> dict[str, Any]:
    """The first frame and view of a clip to which a detector added `heatmaps` (T, V, 21, H, W): arrays of a batch."""
    hand = clip["hands"]["right"]
    R = clip["camera"]["T_cam_world"][0, 0, :3, :3]
    return {
        "heatmaps": clip["heatmaps"][0, 0],
        "keypoints3d": hand["keypoints3d"][0] @ R.T,
        "keypoints3d_valid": hand["keypoints3d_valid"][0],
    }


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch, whose leaves are (B, ...)."""
    return Inputs(batch["heatmaps"].astype(jnp.float32))


def candidates(key: Array, heatmaps: Array, config: Config) -> HeatmapSamples:
    """The points of each map (..., H, W) that one hypothesis is made of, the peak first."""
    if not config.argmax:
        return sample_heatmaps(key, heatmaps, config.samples)
    peak = argmax_heatmaps(heatmaps)
    if config.samples == 1:
        return peak
    drawn = sample_heatmaps(key, heatmaps, config.samples - 1)
    points = jnp.concatenate([peak.points, drawn.points], -2)
    return HeatmapSamples(points, jnp.concatenate([peak.values, drawn.values], -1))


class PostNormBlock(nn.Module):
    """Attention and an MLP, each added to the tokens (b, T, C) before their norm (Vaswani et al. 2017)."""

    config: Config

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = self.config
        attended = SelfAttention(c.heads, dropout=c.dropout)(x, deterministic=not train)
        x = nn.LayerNorm(epsilon=1e-5)(x + attended)
        changed = MLP(c.mlp, activation=nn.relu, dropout=c.dropout)(x, deterministic=not train)
        return nn.LayerNorm(epsilon=1e-5)(x + changed)


class Embedding(nn.Module):
    """From points of maps (b, 21, S, 2) to a condition (b, 21 condition_width) that does not depend on their order."""

    config: Config

    @nn.compact
    def __call__(self, points: Array, values: Array, train: bool) -> Array:
        c = self.config
        weights = values if c.likelihood else jnp.ones_like(values)
        # The paper maps each point and sums; a linear map of the sum is the same, its bias a part of the joint's vector
        summed = jnp.einsum("bjsxc,bjs->bjxc", channel_embedding(points, c.channels), weights)
        tokens = summed.reshape(*summed.shape[:2], -1)
        if train:
            seen = jax.random.bernoulli(self.make_rng("dropout"), 1 - c.joint_dropout, tokens.shape[:2])
            tokens = tokens * seen[..., None]
        joints = self.param("joints", nn.initializers.normal(1.0), (JOINTS, c.width))
        tokens = nn.Dense(c.width, use_bias=False, name="points")(tokens) + joints
        if c.transformer:
            for number in range(c.layers):
                tokens = PostNormBlock(c, name=f"block{number}")(tokens, train)
        return nn.Dense(JOINTS * c.condition_width, name="condition")(tokens.reshape(len(tokens), -1))


class Denoiser(nn.Module):
    """The noise in x (b, 63), at step t (b,) of the process, under a condition (b, D)."""

    config: Config

    @nn.compact
    def __call__(self, x: Array, t: Array, condition: Array) -> Array:
        width = self.config.hidden
        x = nn.Dense(width)(jnp.concatenate([x, t[:, None], condition], -1))
        for _ in range(2):
            x = x + nn.leaky_relu(nn.Dense(width)(nn.leaky_relu(nn.Dense(width)(x))))
        return nn.Dense(JOINTS * 3)(x)


class Network(nn.Module):
    """Condition and denoiser."""

    config: Config

    def setup(self) -> None:
        self.embedding = Embedding(self.config)
        self.denoiser = Denoiser(self.config)

    def __call__(self, x: Array, t: Array, seen: HeatmapSamples, train: bool) -> Array:
        return self.denoise(x, t, self.conditioned(seen, train))

    def conditioned(self, seen: HeatmapSamples, train: bool) -> Array:
        """The condition (b, D) that points are."""
        if self.config.condition == "embedded":
            return self.embedding(seen.points, seen.values, train)
        order = jnp.argsort(-seen.values, -1)
        return jnp.take_along_axis(seen.points, order[..., None], -2).reshape(len(order), -1)

    def denoise(self, x: Array, t: Array, condition: Array) -> Array:
        """The noise in x (b, 63)."""
        return self.denoiser(x, t, condition)


def init(key: Array, config: Config, hand: HandModel | None = None) -> dict[str, Any]:
    """`{"params", "stats"}` of the first values; `hand` is not used."""
    seen = HeatmapSamples(jnp.zeros((1, JOINTS, config.samples, 2)), jnp.zeros((1, JOINTS, config.samples)))
    variables = Network(config).init(key, jnp.zeros((1, JOINTS * 3)), jnp.zeros(1), seen, False)
    return {"params": variables["params"], "stats": {}}


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel | None = None, *, key: Array
) -> tuple[Array, LossAux]:
    """How well the noise in true hands is told, one level and one draw of points for each: the mean square, of all
    levels alike.

    Args:
        variables: of `init`.
        batch: `heatmaps` (B, 21, H, W); `keypoints3d` (B, 21, 3) metres in the axes of the camera, their place at will;
            `keypoints3d_valid` (B, 21): hands that lack a keypoint do not count.
        config: sizes.
        hand: not used.
        key: of all that is drawn.
    """
    keys = jax.random.split(key, 4)
    whole = jnp.all(batch["keypoints3d_valid"], -1)
    x0 = jnp.where(whole[:, None], diffused(batch["keypoints3d"], config), 0)
    seen = candidates(keys[0], inputs_of(batch).heatmaps, config)
    network: Any = partial(Network(config).apply, {"params": variables["params"]})
    condition = network(seen, True, method="conditioned", rngs={"dropout": keys[3]})
    x0, condition, counts = (jnp.repeat(x, config.draws, 0) for x in (x0, condition, whole))
    levels = draw_levels(keys[1], cosine_levels(config.steps), counts.shape)
    noise = jax.random.normal(keys[2], x0.shape)
    found = network(diffuse(x0, noise, levels), levels.t, condition, method="denoise")
    squares = jnp.mean(jnp.square(found - noise), -1)
    return jnp.sum(squares * counts) / jnp.maximum(jnp.sum(counts), 1), LossAux()


def diffused(keypoints: Array, config: Config) -> Float[Array, "b 63"]:
    """What is diffused of keypoints (B, 21, 3) in metres: (B, 63), about their mean, scaled."""
    about = keypoints - jnp.mean(keypoints, -2, keepdims=True)
    return config.scale * about.reshape(len(about), -1)


def apply(
    variables: dict[str, Any],
    inputs: Inputs,
    config: Config,
    hand: HandModel | None = None,
    *,
    key: Array | None = None,
) -> Outputs:
    """Hypotheses of hands, and a single answer for each.

    Args:
        variables: of `init`.
        inputs: leading axes as they come.
        config: sizes; how many hypotheses.
        hand: not used.
        key: of points and noise; None is always the same one.

    Raises:
        ValueError: maps that are not of 21 keypoints.
    """
    maps = inputs.heatmaps
    if maps.ndim < 3 or maps.shape[-3] != JOINTS:
        raise ValueError(f"heatmaps: expected shape (..., {JOINTS}, H, W), one of each keypoint, got {maps.shape}")
    batch = maps.shape[:-3]
    flat = maps.reshape(-1, *maps.shape[-3:])
    single, many = jax.random.split(jax.random.key(0) if key is None else key)
    z0 = _reverse(variables, single, flat, config, means=True)
    at_once = max(1, 256 // max(1, len(flat)))
    each = partial(_reverse, variables, maps=flat, config=config, means=False)
    found = jax.lax.map(each, jax.random.split(many, config.hypotheses), batch_size=at_once)
    return Outputs(jnp.moveaxis(found, 0, 1).reshape(*batch, -1, JOINTS, 3), z0.reshape(*batch, JOINTS, 3))


predict = apply


def _reverse(variables: dict[str, Any], key: Array, maps: Array, config: Config, means: bool) -> Float[Array, "b 21 3"]:
    """One hypothesis of each hand, of points and of noise of its own."""
    points, start, steps = jax.random.split(key, 3)
    network: Any = partial(Network(config).apply, {"params": variables["params"]})
    condition = network(candidates(points, maps, config), False, method="conditioned")

    def noise_in(x: Array, t: Array) -> Array:
        return network(x, jnp.broadcast_to(t, x.shape[:1]), condition, method="denoise")

    denoiser = clamp(denoiser_from_noise(noise_in), config.limit)
    noise = jax.random.normal(start, (len(maps), JOINTS * 3))
    levels = cosine_levels(config.steps)
    x0 = sample_means(denoiser, noise, levels) if means else sample_ddpm(steps, denoiser, noise, levels)
    return x0.reshape(-1, JOINTS, 3) / config.scale


def stages(config: Config, hand: HandModel | None, steps: int) -> tuple[Stage, ...]:
    """One: Adam at a constant rate. Averages are taken every `ema_every` steps, and forget the first ones quickly."""

    def decay(step: Array) -> Array:
        warm = 1 - (1 + step / config.ema_every) ** (-2 / 3)
        return jnp.where(step % config.ema_every == 0, jnp.minimum(config.ema, warm), 1.0)

    update = Update("noise", partial(loss, config=config, hand=hand), optax.adam(config.rate))
    return (Stage("diffusion", steps, (update,), ema=decay),)


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: all."""
    return params
