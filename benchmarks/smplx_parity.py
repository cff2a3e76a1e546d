"""jhand beside smplx on the same files: the largest difference of vertices and joints.

Writes synthetic files in MANO's layout and the built-in hands exported to it, loads each in both libraries, and poses
both at random. No MANO data is involved. smplx (Max Planck's non-commercial licence) is a peer to measure against,
never a dependency: run this with an interpreter that has jhand, scipy, smplx and torch.

    python benchmarks/smplx_parity.py
"""

import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import smplx  # ty: ignore[import-not-found]
import torch  # ty: ignore[import-not-found]

from jhand.hand.files import load_hand, save_hand
from jhand.hand.kinematics import forward
from jhand.hand.model import HandModel, HandParams

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.hand.mano_files import hand_arrays, noise_arrays, write_clean

POSES = 256
FOLDER = Path(__file__).parent / "results"


def random_params(seed: int) -> dict[str, np.ndarray]:
    """Poses far beyond what hands do: rotations of about 1.4 radians at every joint."""
    rng = np.random.default_rng(seed)
    widths = {"global_orient": (3, 1.5), "hand_pose": (45, 0.8), "betas": (10, 1.5), "transl": (3, 0.5)}
    return {name: rng.normal(0, sd, (POSES, n)).astype(np.float32) for name, (n, sd) in widths.items()}


def smplx_forward(path: Path, params: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    model = smplx.MANO(str(path), use_pca=False, flat_hand_mean=True, batch_size=POSES, dtype=dtype)
    with torch.no_grad():
        output = model(**{name: torch.tensor(value, dtype=dtype) for name, value in params.items()})
    return output.vertices.numpy(), output.joints.numpy()


def measure(hand: HandModel, path: Path, seed: int) -> dict[str, float]:
    """Largest differences between `hand` here and `path` in smplx over all poses, vertices and coordinates, metres."""
    params = random_params(seed)
    fields = {name: jnp.asarray(value) for name, value in params.items()}
    mesh = forward(hand, HandParams(**fields | {"hand_pose": fields["hand_pose"].reshape(POSES, 15, 3)}))
    single = smplx_forward(path, params, torch.float32)
    double = smplx_forward(path, params, torch.float64)
    differ = lambda a, b: float(np.abs(np.asarray(a, np.float64) - b).max())  # noqa: E731
    return {
        "vertices": differ(mesh.vertices, single[0]),
        "joints": differ(mesh.joints, single[1]),
        "vertices_to_smplx_in_float64": differ(mesh.vertices, double[0]),
        "smplx_itself_to_float64": differ(single[0], double[0]),
    }


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, side in enumerate(("right", "left")):
            path = Path(folder) / f"MANO_{side.upper()}.pkl"
            for name, arrays in (("hand-like", hand_arrays(seed, side)), ("noise", noise_arrays(seed))):
                hand = load_hand(write_clean(path, arrays))
                results[f"{name} {side}"] = measure(hand, path, seed)
            for level in ("default", "fine"):
                hand = load_hand(side=side, level=level)
                save_hand(hand, path)
                results[f"built-in {side}, {level}, saved"] = measure(hand, path, seed)
    for name, row in results.items():
        print(f"{name:34s}", "  ".join(f"{key} {value:.1e}" for key, value in row.items()))
    largest = max(max(row["vertices"], row["joints"]) for row in results.values())
    print(f"largest difference to smplx: {largest:.2e} m")
    packages = {name: version(name) for name in ("smplx", "torch", "jax", "numpy")}
    report = {"largest_difference_m": largest, "poses": POSES, "files": results, "versions": packages}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "smplx_parity.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    main()
