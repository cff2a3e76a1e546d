"""Synthetic hand files in MANO's layout: arrays, and the ways in which such files are written."""

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
MIRROR = np.array([-1.0, 1.0, 1.0])

# right hand, millimetres, MANO order: the middle of the wrist, then base to end of index, middle, pinky, ring, thumb
_SKELETON = 1e-3 * np.array(
    [
        *[[95, 6, 6]],
        *[[8, 1, 27], [-24, 5, 29], [-46, 4, 30]],
        *[[2, 5, 3], [-28, 8, 3], [-53, 6, 2]],
        *[[26, -3, -36], [8, -3, -44], [-7, -3, -49]],
        *[[13, 2, -18], [-15, 6, -21], [-39, 5, -24]],
        *[[71, -9, 32], [47, -9, 53], [21, -11, 65]],
    ]
)


def hand_arrays(seed: int, side: str = "right", vertices: int = 778, faces: int = 1538) -> dict[str, Any]:
    """MANO's arrays for points scattered about a hand's bones: sparse weights, a first shape direction that is size."""
    rng = np.random.default_rng(seed)
    joints = _SKELETON + rng.normal(0, 5e-4, (16, 3))
    bone = rng.integers(0, 16, vertices)
    ends = joints.copy()
    ends[[p for p in PARENTS if p > 0]] = joints[[j for j, p in enumerate(PARENTS) if p > 0]]
    for joint in (3, 6, 9, 12, 15):
        ends[joint] = 2 * joints[joint] - joints[PARENTS[joint]]
    along = rng.random((vertices, 1))
    v_template = joints[bone] * (1 - along) + ends[bone] * along + rng.normal(0, 6e-3, (vertices, 3))

    neighbours = np.stack([bone, np.maximum(np.array(PARENTS)[bone], 0), rng.integers(0, 16, vertices)], 1)
    weights = np.zeros((vertices, 16))
    np.add.at(weights, (np.arange(vertices)[:, None], neighbours), rng.dirichlet([8, 3, 1], vertices))
    regressor = np.zeros((16, vertices))
    for joint in range(16):
        nearest = np.argsort(((v_template - joints[joint]) ** 2).sum(1))[:8]
        regressor[joint, nearest] = rng.dirichlet(np.ones(8))

    shapedirs = rng.normal(0, 3e-4, (vertices, 3, 10))
    shapedirs[..., 0] += 0.06 * (v_template - joints[0])
    shapedirs[..., 1] += 0.02 * (v_template - joints[0]) * [0, 1, 1]
    arrays = {
        "v_template": v_template,
        "shapedirs": shapedirs,
        "posedirs": rng.normal(0, 5e-4, (vertices, 3, 135)),
        "J_regressor": regressor,
        "weights": weights,
        "f": rng.integers(0, vertices, (faces, 3)).astype(np.uint32),
        "hands_mean": rng.normal(0, 0.2, 45),
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
        "hands_coeffs": rng.normal(0, 0.7, (60, 45)),
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(16)], np.int64),
    }
    if side == "left":
        arrays["v_template"] = arrays["v_template"] * MIRROR
        arrays["shapedirs"] = arrays["shapedirs"] * MIRROR[:, None]
        arrays["posedirs"] = arrays["posedirs"] * MIRROR[:, None]
    return arrays


def noise_arrays(seed: int, vertices: int = 778, faces: int = 1538) -> dict[str, Any]:
    """MANO's arrays of numbers without any geometry behind them."""
    rng = np.random.default_rng(seed)
    return hand_arrays(seed, vertices=vertices, faces=faces) | {
        "v_template": rng.normal(0, 0.04, (vertices, 3)),
        "shapedirs": rng.normal(0, 2e-3, (vertices, 3, 10)),
        "J_regressor": rng.dirichlet(np.full(vertices, 0.02), 16),
        "weights": rng.dirichlet(np.full(16, 0.2), vertices),
    }


def write_clean(path: Path, arrays: dict[str, Any], protocol: int = 2) -> Path:
    """A pickle as tools write it that have removed chumpy: plain arrays, the regressor still sparse."""
    sparse = {"J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"])} if "J_regressor" in arrays else {}
    path.write_bytes(pickle.dumps({"bs_style": "lbs", **arrays, **sparse}, protocol=protocol))
    return path


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    """An npz with MANO's keys."""
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def write_distributed(path: Path, arrays: dict[str, Any]) -> Path:
    """A pickle as MANO is distributed: by Python 2, shape directions in chumpy, regressor in scipy."""
    entries: dict[str, object] = {"bs_type": "lrotmin", "bs_style": "lbs", **arrays}
    if "shapedirs" in arrays:
        entries["shapedirs"] = chumpy_select(arrays["shapedirs"])
    if "J_regressor" in arrays:
        entries["J_regressor"] = csc_matrix(arrays["J_regressor"])
    path.write_bytes(python2_pickle(entries))
    return path


@dataclass(eq=False)
class Pickled:
    """An object as a pickle sees it: the name of its class and its attributes."""

    module: str
    name: str
    state: object


def chumpy_select(shapedirs: np.ndarray) -> Pickled:
    """The first columns of twice as many, as chumpy keeps `variable[:, :, :10]`."""
    betas = shapedirs.shape[-1]
    full = np.concatenate([shapedirs, shapedirs[..., ::-1] + 1], -1)
    chosen = np.arange(full.size).reshape(full.shape)[..., :betas]
    bookkeeping = {
        "_dirty_vars": Pickled("__builtin__", "set", ["a"]),
        "_itr": None,
        "_make_dense": False,
        "_make_sparse": False,
        "_depends_on_deps": {},
    }
    variable = Pickled("chumpy.ch", "Ch", {**bookkeeping, "x": full, "_status": "new"})
    state = {**bookkeeping, "a": variable, "preferred_shape": shapedirs.shape, "idxs": chosen.ravel()}
    return Pickled("chumpy.reordering", "Select", state)


def csc_matrix(dense: np.ndarray) -> Pickled:
    sparse = scipy.sparse.csc_matrix(dense)
    state = {key: getattr(sparse, key) for key in ("indices", "indptr", "data")}
    return Pickled("scipy.sparse.csc", "csc_matrix", {**state, "_shape": dense.shape, "maxprint": 50, "format": "csc"})


def python2_pickle(value: object) -> bytes:
    """What Python 2's cPickle writes with protocol 2: 8-bit strings, arrays in strings, old module names."""
    out = bytearray(b"\x80\x02")
    memo: dict[object, int] = {}

    def remember(key: object) -> None:
        memo[key] = len(memo)
        out.extend(b"q" + bytes([memo[key]]) if memo[key] < 256 else b"r" + struct.pack("<I", memo[key]))

    def recall(key: object) -> None:
        out.extend(b"h" + bytes([memo[key]]) if memo[key] < 256 else b"j" + struct.pack("<I", memo[key]))

    def named(module: str, name: str) -> None:
        if (module, name) in memo:
            recall((module, name))
        else:
            out.extend(f"c{module}\n{name}\n".encode())
            remember((module, name))

    def write(value: object) -> None:
        match value:
            case None | True | False:
                out.extend({None: b"N", True: b"\x88", False: b"\x89"}[value])
            case int() if 0 <= value < 256:
                out.extend(b"K" + bytes([value]))
            case int() if 0 <= value < 2**16:
                out.extend(b"M" + struct.pack("<H", value))
            case int():
                out.extend(b"J" + struct.pack("<i", value))
            case bytes() | str():
                raw = value.encode("latin1") if isinstance(value, str) else value
                out.extend(b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)))
                out.extend(raw)
            case tuple():
                out.extend(b"(")
                for item in value:
                    write(item)
                out.extend(b"t")
            case list():
                out.extend(b"](")
                for item in value:
                    write(item)
                out.extend(b"e")
            case dict():
                out.extend(b"}")
                remember(id(value))
                out.extend(b"(")
                for key, item in value.items():
                    write(key)
                    write(item)
                out.extend(b"u")
            case np.ndarray():
                named("numpy.core.multiarray", "_reconstruct")
                out.extend(b"(")
                named("numpy", "ndarray")
                write((0,))
                write("b")
                out.extend(b"tR(")
                write(1)
                write(value.shape)
                named("numpy", "dtype")
                write((value.dtype.str[1:], 0, 1))
                out.extend(b"R")
                write((3, "<", None, None, None, -1, -1, 0))
                out.extend(b"b\x89")
                write(value.tobytes())
                out.extend(b"tb")
            case Pickled(module, name, list() as items):
                named(module, name)
                write((items,))
                out.extend(b"R")
            case Pickled(module, name, state):
                named(module, name)
                out.extend(b")\x81")
                remember(id(value))
                write(state)
                out.extend(b"b")

    write(value)
    return bytes(out) + b"."
