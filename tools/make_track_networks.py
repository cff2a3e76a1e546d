"""The networks of `jhand.track`: jhand/track/assets/lite.safetensors and full.safetensors, a few seconds each.

    pip download --no-deps --python-version 3.12 --only-binary=:all: -d build mediapipe==0.10.14
    python tools/make_track_networks.py build/mediapipe-0.10.14-*.whl

The wheel holds MediaPipe's palm detectors and hand landmark networks (Apache-2.0, Google) as .tflite files, whose
weights are in half precision. They are read from there, named as `jhand/track/networks.py` calls them and stored as
they are: nothing is rounded. Batch normalisation is folded into them already; the detectors' depthwise convolutions
have biases of zero, which are left out. The operators must come in the order of the networks, else this stops.

Needs the packages of tools/requirements.txt.
"""

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tflite  # ty: ignore[import-not-found]
from safetensors.numpy import save_file

ASSETS = Path(__file__).resolve().parent.parent / "jhand" / "track" / "assets"
DTYPES = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
METADATA = {
    "licence": "Apache-2.0",
    "source": "mediapipe 0.10.14, Copyright The MediaPipe Authors; taken over by tools/make_track_networks.py",
}
Arrays = dict[str, np.ndarray]
Layers = Iterator[tuple[str, list[np.ndarray]]]


def layers(model: bytes) -> Layers:
    """Operators that have weights, in order: their name and arrays, as tflite lays them out."""
    root = tflite.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    names = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    arrays = {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        buffer = root.Buffers(tensor.Buffer())
        if buffer.DataLength() and tensor.Type() in DTYPES:
            data = np.frombuffer(buffer.DataAsNumpy().tobytes(), DTYPES[tensor.Type()])
            arrays[i] = data.reshape(tensor.ShapeAsNumpy())
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = root.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        weights = [arrays[j] for j in operator.InputsAsNumpy() if j in arrays]
        if name == "DEQUANTIZE":
            arrays[operator.Outputs(0)] = weights[0]
        elif weights:
            yield name, weights


def take(source: Layers, expected: str) -> list[np.ndarray]:
    name, weights = next(source)
    if name != expected:
        raise SystemExit(f"expected {expected} next, found {name}: is this a network of mediapipe 0.10.14?")
    return weights


def stem(source: Layers) -> Arrays:
    """Full convolution: kernel (k, k, C, C')."""
    kernel, bias = take(source, "CONV_2D")
    return {"kernel": kernel.transpose(1, 2, 3, 0), "bias": bias}


def pointwise(source: Layers) -> Arrays:
    """Convolution of 1 x 1: kernel (C, C')."""
    kernel, bias = take(source, "CONV_2D")
    return {"kernel": kernel[:, 0, 0].T, "bias": bias}


def depthwise(source: Layers) -> Arrays:
    """Kernel (k, k, C)."""
    kernel, bias = take(source, "DEPTHWISE_CONV_2D")
    return {"kernel": kernel[0], "bias": bias}


def dense(source: Layers) -> Arrays:
    kernel, bias = take(source, "FULLY_CONNECTED")
    return {"kernel": kernel.T, "bias": bias}


def slope(source: Layers) -> Arrays:
    return {"slope": take(source, "PRELU")[0].reshape(-1)}


def palm_block(source: Layers) -> Arrays:
    spatial = depthwise(source)
    if spatial["bias"].any():
        raise SystemExit("expected depthwise biases of zero")
    return {"depthwise": spatial["kernel"], **pointwise(source), **slope(source)}


def palm(source: Layers, blocks: int) -> dict:
    """The detector: `blocks` residual blocks in each stage, after the one that halves the map."""
    return {
        "stem": {**stem(source), **slope(source)},
        "stages": [[palm_block(source) for _ in range(blocks + (stage > 0))] for stage in range(5)],
        "merges": [
            {
                "lateral": {**pointwise(source), **slope(source)},
                "blocks": [palm_block(source) for _ in range(2)],
                "scores": pointwise(source),
                "boxes": pointwise(source),
            }
            for _ in range(2)
        ],
    }


def hand(source: Layers) -> dict:
    """The landmark network: a block without expansion, fourteen with, and one without projection."""
    first = {"depthwise": depthwise, "project": pointwise}
    whole = {"expand": pointwise, "depthwise": depthwise, "project": pointwise}
    last = {"expand": pointwise, "depthwise": depthwise}
    return {
        "stem": stem(source),
        "blocks": [{name: read(source) for name, read in parts.items()} for parts in (first, *[whole] * 14, last)],
        **{name: dense(source) for name in ("handedness", "presence", "image", "world")},
    }


def flatten(tree: dict | list | np.ndarray, name: str) -> Arrays:
    if isinstance(tree, np.ndarray):
        return {name: np.ascontiguousarray(tree)}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {key: array for part, child in items for key, array in flatten(child, f"{name}.{part}").items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="mediapipe-0.10.14-*.whl, of any platform")
    wheel = zipfile.ZipFile(parser.parse_args().wheel)
    ASSETS.mkdir(parents=True, exist_ok=True)
    for size, blocks in (("lite", 3), ("full", 4)):
        detector = layers(wheel.read(f"mediapipe/modules/palm_detection/palm_detection_{size}.tflite"))
        landmarks = layers(wheel.read(f"mediapipe/modules/hand_landmark/hand_landmark_{size}.tflite"))
        arrays = {**flatten(palm(detector, blocks), "palm"), **flatten(hand(landmarks), "hand")}
        left = [name for source in (detector, landmarks) for name, _ in source]
        wrong = {name: str(array.dtype) for name, array in arrays.items() if array.dtype != np.float16}
        if left or wrong:
            raise SystemExit(f"expected weights in half precision and none left, found {wrong} and {left}")
        save_file(arrays, ASSETS / f"{size}.safetensors", METADATA)
        print(f"{size}: {sum(a.size for a in arrays.values()) / 1e6:.2f} million weights")


if __name__ == "__main__":
    main()
