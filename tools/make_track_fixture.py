"""What the original runtime says of random pictures: tests/track/networks.npz, a few seconds.

    python tools/make_track_fixture.py build/mediapipe-0.10.14-*.whl

For both sizes of both networks: their outputs, as LiteRT computes them, of a picture that `random_picture` in
tests/track/pictures.py makes of a seed. Of the palm detector's anchors every sixteenth is kept.

Needs ai-edge-litert beside the packages of tools/requirements.txt.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # ty: ignore[import-not-found]

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "track"
sys.path.insert(0, str(FOLDER))
from pictures import EVERY, random_picture  # noqa: E402

MODELS = {
    "palm": ("palm_detection/palm_detection", 192, ("values", "logits")),
    "hand": ("hand_landmark/hand_landmark", 224, ("image", "presence", "right", "world")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="mediapipe-0.10.14-*.whl, of any platform")
    wheel = zipfile.ZipFile(parser.parse_args().wheel)
    found = {}
    for network, (path, size, names) in MODELS.items():
        for variant in ("lite", "full"):
            runtime = Interpreter(model_content=wheel.read(f"mediapipe/modules/{path}_{variant}.tflite"))
            runtime.allocate_tensors()
            runtime.set_tensor(runtime.get_input_details()[0]["index"], random_picture(size)[None])
            runtime.invoke()
            for name, output in zip(names, runtime.get_output_details(), strict=True):
                values = runtime.get_tensor(output["index"])[0]
                found[f"{variant}.{network}.{name}"] = values[::EVERY] if network == "palm" else values
    np.savez_compressed(FOLDER / "networks.npz", **found)


if __name__ == "__main__":
    main()
