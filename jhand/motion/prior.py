"""A prior of how hands move: a variational autoencoder of whole clips, whose decoder is a function of time.

As NeMF has it for bodies (He et al., NeurIPS 2022) and HMP for hands (Duran et al., WACV 2024): a local latent z_l for
what the fingers do, a global one z_g for how the wrist turns, and a perceptron that takes both and an instant, written
as sines and cosines, to rotations. What was not seen of a motion is filled by looking for a latent whose motion
agrees with the rest.

Parameters are nested dicts, so that `jhand.train` trains and keeps them.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.geometry.rotations import geodesic_distance, rotation_from_6d, rotation_to_6d
from jhand.hand.kinematics import pose_hand_by_matrices, posed_keypoints
from jhand.hand.model import HandModel, rest_joints

HIGHEST = lax.Precision.HIGHEST
Params = dict[str, Any]
_JOINTS = 16


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of a motion prior."""

    frames: int = 128
    """Of a clip."""
    local: int = 1024
    """Numbers in z_l."""
    whole: int = 256
    """Numbers in z_g."""
    hidden: int = 1024
    """Of the decoder's layers."""
    layers: int = 8
    """Of the decoder, between the first and the last."""
    bands: int = 7
    """Frequencies of the time embedding: 1, 2, 4, ... half waves in a clip."""
    channels: int = 256
    """Of the encoders' convolutions."""

    def __post_init__(self) -> None:
        if self.frames % 8 or min(self.frames, self.local, self.whole, self.hidden, self.layers, self.bands) < 1:
            raise ValueError(f"motion prior: expected positive sizes and frames in eights, got {self}")

    @classmethod
    def tiny(cls, **changes: Any) -> "PriorConfig":
        """For two seconds, and minutes of training on a CPU."""
        sizes = {"frames": 64, "local": 96, "whole": 16, "hidden": 192, "layers": 3, "channels": 96}
        return cls(**sizes | changes)

    @classmethod
    def small(cls, **changes: Any) -> "PriorConfig":
        """For one accelerator and an hour."""
        return cls(**{"local": 256, "whole": 64, "hidden": 512, "layers": 6} | changes)

    @classmethod
    def paper(cls, **changes: Any) -> "PriorConfig":
        """As published; the numbers of layers and of the encoders' channels are ours."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Latents:
    """What an encoder says of motions: normal distributions."""

    local: Float[Array, "*b l"]
    local_log_variance: Float[Array, "*b l"]
    whole: Float[Array, "*b g"]
    whole_log_variance: Float[Array, "*b g"]


def init_motion_prior(key: Array, config: PriorConfig) -> Params:
    """Parameters of encoders and decoder, not trained.

    Args:
        key: random key.
        config: sizes.
    """
    keys = jax.random.split(key, 3)
    given = config.local + config.whole + 2 * config.bands + 1
    hidden = config.hidden
    widths = [given, *[hidden] * config.layers]
    widths[len(widths) // 2] += given if len(widths) > 2 else 0  # the input again, in the middle
    every = jax.random.split(keys[2], config.layers + 1)
    decoder = {f"layer{i}": _dense(every[i], width, hidden) for i, width in enumerate(widths[: config.layers])}
    return {
        "local_encoder": _init_encoder(keys[0], 12 * (_JOINTS - 1), config.local, config),
        "whole_encoder": _init_encoder(keys[1], 12, config.whole, config),
        "decoder": decoder | {"out": _dense(every[-1], hidden, 6 * _JOINTS)},
    }


def encode_motion(params: Params, rotations: ArrayLike, config: PriorConfig) -> Latents:
    """Latents of clips.

    Args:
        params: of `init_motion_prior`, trained.
        rotations: (..., T, 16, 3, 3) of T = `config.frames` frames: the wrist's, then those of the fingers relative to
            the flat hand, MANO order, of a right hand.
        config: sizes.

    Raises:
        ValueError: clips of another length.
    """
    R = jnp.asarray(rotations)
    if R.shape[-4:] != (config.frames, _JOINTS, 3, 3):
        raise ValueError(f"rotations: expected (..., {config.frames}, {_JOINTS}, 3, 3), got {R.shape}")
    sixd = rotation_to_6d(R)
    local = _encode(params["local_encoder"], sixd[..., 1:, :])
    whole = _encode(params["whole_encoder"], sixd[..., :1, :])
    return Latents(*jnp.split(local, 2, -1), *jnp.split(whole, 2, -1))


def decode_motion(
    params: Params, local: ArrayLike, whole: ArrayLike, times: ArrayLike, config: PriorConfig
) -> Float[Array, "*b t 16 3 3"]:
    """Rotations of latents at any instants.

    Args:
        params: of `init_motion_prior`, trained.
        local: z_l (..., L).
        whole: z_g (..., G), leading axes as of z_l.
        times: (T,) from -1 at the first frame of a clip to 1 at its last.
        config: sizes.

    Returns:
        (..., T, 16, 3, 3), as in `encode_motion`.
    """
    z = jnp.concatenate([jnp.asarray(local), jnp.asarray(whole)], -1)
    embedded = _time_embedding(jnp.asarray(times, float), config.bands)
    decoder = params["decoder"]

    def given(kernel: Array) -> Array:
        """The input's part of a layer: latents once a clip, instants once for all clips."""
        at = z.shape[-1]
        of_clip = jnp.matmul(z, kernel[:at], precision=HIGHEST)
        return of_clip[..., None, :] + jnp.matmul(embedded, kernel[at:], precision=HIGHEST)

    width = z.shape[-1] + embedded.shape[-1]
    x = jax.nn.gelu(given(decoder["layer0"]["kernel"]) + decoder["layer0"]["bias"])
    for i in range(1, config.layers):
        kernel, bias = decoder[f"layer{i}"]["kernel"], decoder[f"layer{i}"]["bias"]
        y = jnp.matmul(x, kernel[: config.hidden], precision=HIGHEST) + bias
        x = jax.nn.gelu(y + given(kernel[config.hidden :]) if kernel.shape[0] == config.hidden + width else y)
    sixd = jnp.matmul(x, decoder["out"]["kernel"], precision=HIGHEST) + decoder["out"]["bias"]
    sixd = sixd.reshape(*sixd.shape[:-1], _JOINTS, 6) + jnp.array([1.0, 0, 0, 0, 1, 0])  # about the identity
    return rotation_from_6d(sixd)


def motion_prior_loss(
    params: Params,
    rotations: ArrayLike,
    hand: HandModel,
    key: Array,
    config: PriorConfig,
    *,
    points: float = 10.0,
    divergence: float = 1e-4,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """What is minimised over clips of a recording: angles and points of the decoded motion, and the latents'
    divergence from the normal distribution (Kingma and Welling 2014, appendix B).

    Args:
        params: of `init_motion_prior`.
        rotations: (B, T, 16, 3, 3), as in `encode_motion`.
        hand: the right hand whose points are compared, about its wrist and in the wrist's axes.
        key: random key, of the latents that are drawn.
        config: sizes.
        points: weight of the mean distance of keypoints, 1 / 0.1 metres.
        divergence: weight of the sum over a clip's latents.

    Returns:
        The loss, in radians, and its terms: `rotation` and `wrist` radians, `points` metres, `divergence`.
    """
    R = jnp.asarray(rotations)
    found = encode_motion(params, R, config)
    keys = jax.random.split(key)
    local, whole = (
        mean + jnp.exp(0.5 * log_variance) * jax.random.normal(k, mean.shape)
        for k, mean, log_variance in (
            (keys[0], found.local, found.local_log_variance),
            (keys[1], found.whole, found.whole_log_variance),
        )
    )
    decoded = decode_motion(params, local, whole, jnp.linspace(-1, 1, config.frames), config)
    away = geodesic_distance(decoded, R)
    apart = jnp.sqrt(jnp.sum(jnp.square(_finger_points(hand, decoded) - _finger_points(hand, R)), -1) + 1e-12)
    terms = {
        "rotation": jnp.mean(away[..., 1:]),
        "wrist": jnp.mean(away[..., 0]),
        "points": jnp.mean(apart),
        "divergence": jnp.mean(
            _divergence(found.local, found.local_log_variance) + _divergence(found.whole, found.whole_log_variance)
        ),
    }
    total = terms["rotation"] + terms["wrist"] + points * terms["points"] + divergence * terms["divergence"]
    return total, terms


def _finger_points(hand: HandModel, rotations: Array) -> Array:
    """Keypoints (..., 21, 3) of the mean shape, the wrist not turned."""
    betas = jnp.zeros((*rotations.shape[:-3], hand.num_betas))
    still = rotations.at[..., 0, :, :].set(jnp.eye(3))
    posed = pose_hand_by_matrices(rest_joints(hand, betas), still, jnp.zeros(3))
    return posed_keypoints(hand, betas, posed)


def _divergence(mean: Array, log_variance: Array) -> Array:
    """From the standard normal distribution, nats, summed over the last axis."""
    return 0.5 * jnp.sum(jnp.exp(log_variance) + mean * mean - 1 - log_variance, -1)


def _time_embedding(times: Array, bands: int) -> Float[Array, "t e"]:
    """Instants (T,) from -1 to 1, and sines and cosines of their multiples by powers of two (Mildenhall et al., ECCV
    2020, eq. 4).
    """
    angles = jnp.pi / 2 * times[:, None] * 2.0 ** jnp.arange(bands)
    return jnp.concatenate([times[:, None], jnp.sin(angles), jnp.cos(angles)], -1)


def _dense(key: Array, inputs: int, outputs: int) -> Params:
    return {"kernel": jax.random.normal(key, (inputs, outputs)) / jnp.sqrt(inputs), "bias": jnp.zeros(outputs)}


def _init_encoder(key: Array, features: int, latent: int, config: PriorConfig) -> Params:
    keys = jax.random.split(key, 4)
    widths = (features, config.channels, config.channels)
    layers = {f"layer{i}": _dense(keys[i], 4 * width, config.channels) for i, width in enumerate(widths)}
    return layers | {"out": _dense(keys[3], config.frames // 8 * config.channels, 2 * latent)}


def _encode(params: Params, sixd: Array) -> Array:
    """Means and logarithms of variances (..., 2 L), side by side, of rotations (..., T, J, 6).

    Three convolutions over four frames halve the number of frames each; their patches are products.
    """
    change = 10 * (sixd - jnp.concatenate([sixd[..., :1, :, :], sixd[..., :-1, :, :]], -3))
    x = jnp.concatenate([sixd, change], -1).reshape(*sixd.shape[:-2], -1)
    for i in range(3):
        edges = [(0, 0)] * (x.ndim - 2) + [(1, 1), (0, 0)]
        padded = jnp.pad(x, edges, mode="edge")
        half = x.shape[-2] // 2
        patches = jnp.concatenate([padded[..., k : k + 2 * half - 1 : 2, :] for k in range(4)], -1)
        layer = params[f"layer{i}"]
        x = jax.nn.gelu(jnp.matmul(patches, layer["kernel"], precision=HIGHEST) + layer["bias"])
    flat = x.reshape(*x.shape[:-2], -1)
    return jnp.matmul(flat, params["out"]["kernel"], precision=HIGHEST) + params["out"]["bias"]
