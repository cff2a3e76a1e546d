"""MediaPipe's networks for palms and hands: what they compute, and their weights.

The palm detector (BlazePalm; Bazarevsky et al., BlazeFace, 2019; Zhang et al., MediaPipe Hands, 2020) is a pyramid of
residual blocks, each a depthwise convolution of 5 x 5 and a pointwise one. The landmark network is an
EfficientNet-Lite-like stack of inverted residual blocks (Tan and Le, 2019) without squeeze and excitation. Both come in
two sizes, which differ in widths and in the number of blocks alone. Batch normalisation is folded into the weights.
Weights: mediapipe 0.10.14, Apache-2.0, taken over by tools/make_track_networks.py.

On a CPU, pointwise convolutions are fastest as matrix products, depthwise ones as shifted products, and the first
convolution, of 3 channels, as a product of patches.
"""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.nn.convolution import depthwise_conv

PALM_SIZE = 192
"""Side of the square picture that the palm detector sees."""
HAND_SIZE = 224
"""Side of the square crop that the landmark network sees."""

_ASSETS = Path(__file__).parent / "assets"
_SIZES = ("lite", "full")
# Of the landmark network's blocks, in either size; of their depthwise convolutions.
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)

Weights = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Networks:
    """Parameters of both networks, float32: nested dicts and lists as `palm_outputs` and `hand_outputs` read them."""

    palm: Weights
    """Of the palm detector."""
    hand: Weights
    """Of the landmark network."""


def load_networks(size: str = "full") -> Networks:
    """The built-in networks.

    Args:
        size: "full" is what MediaPipe uses unless told otherwise (its model_complexity 1), "lite" (0) takes half of
            the time.

    Returns:
        A pytree to pass to the functions of this package.

    Raises:
        ValueError: another size.
    """
    if size not in _SIZES:
        raise ValueError(f"size: expected {' or '.join(map(repr, _SIZES))}, got {size!r}")
    from safetensors.numpy import load

    arrays = load((_ASSETS / f"{size}.safetensors").read_bytes())
    tree = _nested({name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})
    return Networks(palm=tree["palm"], hand=tree["hand"])


def palm_outputs(weights: Weights, squares: ArrayLike) -> tuple[Float[Array, "b 2016"], Float[Array, "b 2016 18"]]:
    """What the palm detector says at each of its anchors.

    Args:
        weights: `Networks.palm`.
        squares: (B, 192, 192, 3), 0 to 1.

    Returns:
        Logits (B, 2016) that there is a palm, and (B, 2016, 18): its box, centre then size, and seven keypoints, x and
        y, all in pixels of the square about the anchor.
    """
    x = jnp.asarray(squares, jnp.float32)
    x = _prelu(_stem(x, weights["stem"]), weights["stem"])
    maps = []
    for i, stage in enumerate(weights["stages"]):
        for j, block in enumerate(stage):
            x = _palm_block(x, block, stride=2 if i > 0 and j == 0 else 1)
        maps.append(x)
    logits, boxes = [], []
    for merge, skip in zip(weights["merges"], (maps[3], maps[2]), strict=True):  # 12 x 12, then 24 x 24
        # the order of these two does not matter to the result, and the smaller map is the cheaper one
        x = skip + _prelu(_twice_as_large(_pointwise(x, merge["lateral"])), merge["lateral"])
        for block in merge["blocks"]:
            x = _palm_block(x, block, stride=1)
        logits.append(_pointwise(x, merge["scores"]).reshape(len(x), -1))
        boxes.append(_pointwise(x, merge["boxes"]).reshape(len(x), -1, 18))
    return jnp.concatenate(logits[::-1], 1), jnp.concatenate(boxes[::-1], 1)


def hand_outputs(
    weights: Weights, crops: ArrayLike
) -> tuple[Float[Array, "b 21 3"], Float[Array, "b 21 3"], Float[Array, "b"], Float[Array, "b"]]:  # fmt: skip
    """What the landmark network says of a crop.

    Args:
        weights: `Networks.hand`.
        crops: (B, 224, 224, 3), 0 to 1: an upright hand, fingers up.

    Returns:
        Landmarks (B, 21, 3) in pixels from the corner of the crop, and depth; landmarks (B, 21, 3) in metres; logits
        (B,) that there is a hand, and that it is a right one.
    """
    x = jnp.asarray(crops, jnp.float32)
    x = _relu6(_stem(x, weights["stem"]))
    for block, stride in zip(weights["blocks"], _STRIDES, strict=True):
        x = _hand_block(x, block, stride)
    x = jnp.mean(x, (1, 2))
    image, world, presence, right = (
        x @ weights[name]["kernel"] + weights[name]["bias"] for name in ("image", "world", "presence", "handedness")
    )
    return image.reshape(-1, 21, 3), world.reshape(-1, 21, 3), presence[:, 0], right[:, 0]


def _palm_block(x: Array, block: Weights, stride: int) -> Array:
    """Residual; where it halves the map, the shortcut takes maxima and has zeros for channels that are new."""
    y = _pointwise(depthwise_conv(x, block["depthwise"], strides=stride), block)
    if stride == 2:
        x = _half_as_large(x)
    return _prelu(y + jnp.pad(x, [(0, 0)] * 3 + [(0, y.shape[-1] - x.shape[-1])]), block)


def _hand_block(x: Array, block: Weights, stride: int) -> Array:
    """Inverted residual: the first one does not expand, the last one does not project, and where channels are as many
    as before, there is a shortcut.
    """
    y = _relu6(_pointwise(x, block["expand"])) if "expand" in block else x
    depthwise = block["depthwise"]
    y = _relu6(depthwise_conv(y, depthwise["kernel"], strides=stride) + depthwise["bias"])
    if "project" not in block:
        return y
    y = _pointwise(y, block["project"])
    if y.shape[-1] != x.shape[-1]:
        return y
    return y + (_half_as_large(x) if stride == 2 else x)


def _stem(x: Array, layer: Weights) -> Array:
    """The first convolution, of stride 2: kernel (k, k, 3, C). Two columns of three channels are one of six, so that
    patches, one row of them after the other, are put together from few and longer pieces.
    """
    kernel = layer["kernel"]
    k, _, channels, width = kernel.shape
    pairs = (k + 1) // 2
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    vertical, (left, _) = lax.padtype_to_pads(x.shape[1:3], (k, k), (2, 2), "SAME")
    x = jnp.pad(x, ((0, 0), vertical, (left, 2 * (columns + pairs - 1) - left - x.shape[2]), (0, 0)))
    x = x.reshape(*x.shape[:2], -1, 2 * channels)
    x = jnp.concatenate([x[:, :, j : j + columns] for j in range(pairs)], -1)
    kernel = jnp.pad(kernel, ((0, 0), (0, 2 * pairs - k), (0, 0), (0, 0))).reshape(k, -1, width)
    products = (_product(x[:, i : i + 2 * rows - 1 : 2], kernel[i]) for i in range(k))
    return reduce(jnp.add, products) + layer["bias"]


def _pointwise(x: Array, layer: Weights) -> Array:
    return _product(x, layer["kernel"]) + layer["bias"]


def _product(x: Array, kernel: Array) -> Array:
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel, precision=lax.Precision.HIGHEST)
    return y.reshape(*x.shape[:-1], -1)


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _prelu(x: Array, layer: Weights) -> Array:
    return jnp.where(x >= 0, x, x * layer["slope"])


def _half_as_large(x: Array) -> Array:
    """Maxima of 2 x 2 pixels; as a reduction over axes these would compile three times as long."""
    above, below = x[:, ::2], x[:, 1::2]
    rows = jnp.maximum(above, below)
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _twice_as_large(x: Array) -> Array:
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")


def _nested(arrays: dict[str, Array]) -> Any:
    """{"a.0.b": x} -> {"a": [{"b": x}]}."""
    if "" in arrays:
        return arrays[""]
    groups: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = array
    children = {head: _nested(group) for head, group in groups.items()}
    return [children[str(i)] for i in range(len(children))] if "0" in children else children
