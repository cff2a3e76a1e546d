"""Hand models from files and back: the built-in hands, MANO's pickles as distributed, clean pickles, npz."""

import io
import operator
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

import jax.numpy as jnp
import numpy as np

from jhand.hand._unpickle import read_pickle, to_array
from jhand.hand.axes import joint_axes
from jhand.hand.model import NUM_JOINTS, NUM_POSE_FEATURES, PARENTS, HandModel, make_hand


class HandFileError(ValueError):
    """A file that does not hold the hand it should: which file, which field, what was expected and what was found."""


TIPS = {"smplx": (744, 320, 443, 554, 671), "manopth": (745, 317, 444, 556, 673)}
"""Fingertips (thumb, index, middle, ring, little) among MANO's 778 vertices, as other libraries chose them."""

_TipChoice = str | Iterable[SupportsIndex]

_ASSETS = Path(__file__).parent / "assets"
_BUILT_IN = {"default": ("{side}.npz", "jhand"), "fine": ("{side}_fine.npz", "jhand_fine")}

_SHAPES = {
    "v_template": ("vertices", 3),
    "f": ("faces", 3),
    "faces": ("faces", 3),
    "shapedirs": ("vertices", 3, "betas"),
    "posedirs": ("vertices", 3, NUM_POSE_FEATURES),
    "weights": ("vertices", NUM_JOINTS),
    "J_regressor": (NUM_JOINTS, "vertices"),
    "kintree_table": (2, NUM_JOINTS),
    "hands_mean": (45,),
    "hands_components": (45, 45),
    "hands_coeffs": ("poses", 45),
    "hands_sd": (45,),
    "joints": (NUM_JOINTS, 3),
    "joint_shapedirs": (NUM_JOINTS, 3, "betas"),
    "tip_ids": (5,),
}
_INTEGER = {"f", "faces", "kintree_table", "tip_ids"}
_STRINGS = {"side", "name"}
_COMMON = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "hands_mean", "hands_components")
_MANO = (*_COMMON, "f", "kintree_table")
_JHAND = (*_COMMON, "faces", "joints", "joint_shapedirs", "tip_ids", "side")
_OPTIONAL = ("hands_coeffs", "hands_sd", "tip_ids", "side", "name")

_BODIES = {5: "a FLAME head", 24: "an SMPL body", 52: "an SMPL-H body", 55: "an SMPL-X body"}
_MAX_ARRAY_BYTES = 2**28  # a zip can promise far more than it holds; the largest array of SMPL-X takes half of this
_WEIGHTS_TOLERANCE = 1e-3


def load_hand(
    path: str | os.PathLike | None = None,
    *,
    side: str | None = None,
    level: str = "default",
    tips: _TipChoice | None = None,
) -> HandModel:
    """A built-in hand, or one from a file. Nothing in the file is executed, and its arrays are kept as they are.

    Reads MANO_RIGHT.pkl and MANO_LEFT.pkl as distributed (Romero et al. 2017; chumpy and scipy are not needed), pickles
    and npz files of the same arrays, and what `save_hand` writes.

    Args:
        path: the file; None for a built-in hand.
        side: `"right"` or `"left"`. None: right for a built-in hand; for a file what it says, else what its name says.
        level: `"default"` (778 vertices) or `"fine"`, of the built-in hand.
        tips: vertices of the fingertips: five numbers (thumb, index, middle, ring, little), or the choice of `"smplx"`
            or `"manopth"` for a mesh with MANO's numbering. None: what the file says, else `"smplx"`.

    Returns:
        The model, in float32.

    Raises:
        HandFileError: the file is damaged, of another kind, incomplete, contradicts itself or `side`, or names code.
        ValueError: an argument that does not fit.

    Warns:
        UserWarning: the shape directions of a left hand are those of a right one (see `correct_left_shapedirs`).
    """
    if side not in (None, "right", "left"):
        raise ValueError(f'side: expected "right" or "left", got {side!r}')
    if level not in _BUILT_IN:
        raise ValueError(f'level: expected "default" or "fine", got {level!r}')
    if path is None:
        side = side or "right"
        pattern, name = _BUILT_IN[level]
        path = _ASSETS / pattern.format(side=side)
        if isinstance(tips, str) and tips != "smplx":
            raise ValueError(f'tips: the built-in hand has "smplx" or five vertices, got {tips!r}')
    else:
        path = Path(path)
        name = path.stem
        if level != "default":
            raise ValueError(f"level: {level!r} is a built-in hand, and {path} was asked for: leave out one of the two")

    arrays, labels = _check(path, _read(path))
    side = _side(path, labels.get("side"), side, _rest_joints(arrays))
    hand = _make(path, arrays, side, labels.get("name", name), tips)
    if hand.side == "left" and (r := _length_breadth_correlation(hand)) < -0.25:
        warnings.warn(
            f"{path}: over the shapes this left hand can take, length and breadth correlate {r:+.2f} (in people about "
            "+0.7): its shape directions have the x of a right hand, as known of MANO_LEFT.pkl. They are kept; "
            "correct_left_shapedirs(hand) returns the corrected hand",
            stacklevel=2,
        )
    return hand


def save_hand(hand: HandModel, path: str | os.PathLike) -> None:
    """Write a hand as `.npz` (all of it, for `load_hand`) or `.pkl` (MANO's layout in plain arrays, for smplx).

    A pickle has its joints from `J_regressor` alone. Where that only approximates the hand's joints, the pickle gets
    the nearest regressor that is exact for every shape. smplx wants RIGHT or LEFT in the file's name. The file is
    replaced in one step: an interrupted run leaves the old one.

    Args:
        hand: the model.
        path: where to; the suffix decides the format.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".pkl"):
        raise ValueError(f"{path}: expected a name that ends in .npz or .pkl")
    data = _npz(hand) if path.suffix == ".npz" else _mano_pickle(hand)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def with_tips(hand: HandModel, tips: _TipChoice) -> HandModel:
    """`hand` with other fingertips, and the joint axes that follow from them.

    Args:
        hand: the model.
        tips: five vertices (thumb, index, middle, ring, little), or `"smplx"` or `"manopth"` for MANO's numbering.

    Raises:
        ValueError: tips that the mesh does not have.
    """
    chosen = _tips(tips, hand.num_vertices)
    axes = joint_axes(np.asarray(hand.joint_basis[0]), np.asarray(hand.v_template)[list(chosen)], hand.side)
    return replace(hand, tips=chosen, axes=jnp.asarray(axes, jnp.float32))


def correct_left_shapedirs(hand: HandModel) -> HandModel:
    """A left hand whose shape directions are those of a right one, with their x mirrored.

    MANO_LEFT.pkl has the mirrored template of MANO_RIGHT.pkl but its shape directions as they are, so that a hand which
    should grow longer grows shorter (github.com/vchoutas/smplx, issue 48). `load_hand` recognises it by what people are
    like: long hands are broad (Pearson correlation +0.70 over the 6068 people of ANSUR II), and a wrong sign along the
    fingers turns that round.

    Args:
        hand: a left hand, as loaded.

    Returns:
        The hand with the x of `shapedirs`, and of what they do to the joints, negated.

    Raises:
        ValueError: a right hand, or a left one whose shape directions are mirrored already.
    """
    if hand.side != "left":
        raise ValueError(f"expected a left hand, got {hand.name}, a {hand.side} one")
    if (r := _length_breadth_correlation(hand)) > 0.25:
        raise ValueError(f"{hand.name}: nothing to correct, length and breadth correlate {r:+.2f} over its shapes")
    return replace(
        hand,
        basis=hand.basis.at[1 : 1 + hand.num_betas, 0].multiply(-1),
        joint_basis=hand.joint_basis.at[1:, :, 0].multiply(-1),
    )


def _length_breadth_correlation(hand: HandModel) -> float:
    """Correlation of length (x) and breadth (z) over shapes with betas from N(0, I); 0 where nothing can be said.

    Each direction's displacements are fitted by a stretch along x and one along z, whose slopes are the changes of
    length and breadth. Where these stretches explain less than a tenth of the displacements, the directions are not
    those of hands of different size (noise: one part in the number of vertices), and tell nothing of the sign of x.
    """
    v = np.asarray(hand.v_template, np.float64)[:, [0, 2]]
    S = np.asarray(hand.shapedirs, np.float64)[:, [0, 2]]
    v, S = v - v.mean(0), S - S.mean(0)
    slopes = np.einsum("vc,vcb->cb", v, S) / (v**2).sum(0)[:, None]
    stretched = (slopes**2).sum(1) * (v**2).sum(0)
    if not (stretched > 0.1 * (S**2).sum((0, 2))).all():
        return 0.0
    return float(slopes[0] @ slopes[1] / np.sqrt((slopes[0] ** 2).sum() * (slopes[1] ** 2).sum()))


def _arrays(hand: HandModel) -> dict[str, Any]:
    """What both formats call by the same name."""
    names = ("v_template", "shapedirs", "posedirs", "weights", "hands_mean", "hands_components", "hands_sd")
    arrays = {name: np.ascontiguousarray(getattr(hand, name)) for name in names}
    return arrays | {"side": hand.side, "name": hand.name, "tip_ids": np.array(hand.tips)}


def _npz(hand: HandModel) -> bytes:
    joints = np.asarray(hand.joint_basis)
    entries: dict[str, Any] = _arrays(hand) | {
        "J_regressor": np.asarray(hand.J_regressor),
        "faces": np.asarray(hand.faces),
        "joints": joints[0],
        "joint_shapedirs": joints[1:].transpose(1, 2, 0),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **entries)
    return buffer.getvalue()


def _mano_pickle(hand: HandModel) -> bytes:
    entries = _arrays(hand) | {
        "J_regressor": _exact_regressor(hand),
        "J": np.asarray(hand.joint_basis[0]),
        "f": np.asarray(hand.faces, np.uint32),
        "kintree_table": np.array([(2**32 - 1, *PARENTS[1:]), range(NUM_JOINTS)], np.int64),
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }
    for key, value in entries.items():
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            entries[key] = value.astype(np.float64)  # as MANO's
    data = pickle.dumps(entries, protocol=3)
    # numpy 2 writes its module's new name, which numpy 1 does not know; both know the old one
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _exact_regressor(hand: HandModel) -> np.ndarray:
    """The regressor nearest to `J_regressor` (least squares, row sums kept) that gives the joints of every shape."""
    regressor = np.asarray(hand.J_regressor, np.float64)
    joints = np.asarray(hand.joint_basis, np.float64)
    meshes = np.asarray(hand.basis, np.float64)[: 1 + hand.num_betas].transpose(2, 1, 0).reshape(hand.num_vertices, -1)
    missing = joints.transpose(1, 2, 0).reshape(NUM_JOINTS, -1) - regressor @ meshes
    if np.abs(missing).max() < 1e-7:
        return regressor
    constraints = np.concatenate([meshes, np.ones((hand.num_vertices, 1))], 1)
    missing = np.concatenate([missing, np.zeros((NUM_JOINTS, 1))], 1)
    return regressor + np.linalg.lstsq(constraints.T, missing.T)[0].T


def _read(path: Path) -> dict[str, np.ndarray | str]:
    """The entries of a file that a hand can have."""
    data = path.read_bytes()
    kind = "npz" if data.startswith(b"PK") else "pickle"
    try:
        return _read_npz(data) if kind == "npz" else _read_pickle(data)
    except ValueError as error:
        beginning = f"{len(data)} bytes, starting with {data[:16]!r}"
        raise HandFileError(f"{path}: cannot be read as {kind} ({beginning}): {error}") from error


def _read_pickle(data: bytes) -> dict[str, np.ndarray | str]:
    pickled = read_pickle(data)
    entries = {}
    for key in _known(pickled):
        try:
            entries[key] = to_array(pickled[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return entries


def _read_npz(data: bytes) -> dict[str, np.ndarray | str]:
    entries = {}
    key = "archive"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for key in _known(name.removesuffix(".npy") for name in archive.namelist()):
                member = archive.getinfo(f"{key}.npy")
                if member.file_size > _MAX_ARRAY_BYTES:
                    raise ValueError(f"expected at most {_MAX_ARRAY_BYTES} bytes, found {member.file_size}")
                with archive.open(member) as stream:
                    value = np.lib.format.read_array(stream, allow_pickle=False)
                entries[key] = str(value) if key in _STRINGS else value
    except Exception as error:  # zipfile, zlib and numpy answer damage with half a dozen kinds
        raise ValueError(f"{key}: {error}") from error
    return entries


def _known(keys: Iterable) -> list[str]:
    return [key for key in keys if key in _SHAPES or key in _STRINGS]


def _check(path: Path, entries: dict[str, np.ndarray | str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and strings that count in the file's layout, MANO's or ours; an error where they are not a hand."""

    def fail(key: str, message: str) -> NoReturn:
        raise HandFileError(f"{path}: {key}: {message}")

    for key in ("kintree_table", "weights"):
        shape = np.shape(entries.get(key, ""))
        if len(shape) == 2 and shape[1] != NUM_JOINTS:
            what = f": this is {_BODIES[shape[1]]}, and a hand is needed" if shape[1] in _BODIES else ""
            fail(key, f"expected MANO's {NUM_JOINTS} joints, found {shape[1]}{what}")
    needed = _JHAND if "faces" in entries and "f" not in entries else _MANO
    if missing := [key for key in needed if key not in entries]:
        fail(", ".join(missing), f"missing; a hand has {', '.join(needed)}")

    arrays: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    for key in (*needed, *_OPTIONAL):
        if key not in entries or key in _STRINGS:
            continue
        value, expected = entries[key], _SHAPES[key]
        kinds, numbers = ("iu", "integers") if key in _INTEGER else ("fiu", "numbers")
        if isinstance(value, str) or value.dtype.kind not in kinds:
            fail(key, f"expected {numbers}, found {'a string' if isinstance(value, str) else value.dtype}")
        for axis, size in zip(expected, value.shape, strict=False):
            if isinstance(axis, str) and size:
                sizes.setdefault(axis, size)
        if value.shape != tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in expected):
            known = "".join(f", {axis} = {sizes[axis]}" for axis in expected if axis in sizes)
            fail(key, f"expected shape ({', '.join(map(str, expected))}){known}, found {value.shape}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(value.astype(np.float32))
        if not finite.all():
            where = tuple(map(int, np.argwhere(~finite)[0]))
            fail(key, f"expected finite numbers, found {(~finite).sum()} that are not in float32, the first at {where}")
        arrays[key] = value

    key = "faces" if "faces" in arrays else "f"
    lowest, highest = int(arrays[key].min()), int(arrays[key].max())
    if lowest < 0 or highest >= sizes["vertices"]:
        fail(key, f"expected vertices 0 to {sizes['vertices'] - 1}, found {lowest} to {highest}")
    least, sums = arrays["weights"].min(), arrays["weights"].sum(1, dtype=np.float64)
    if least < -_WEIGHTS_TOLERANCE or np.abs(sums - 1).max() > _WEIGHTS_TOLERANCE:
        found = f"a least weight of {least:.4g} and sums from {sums.min():.4g} to {sums.max():.4g}"
        fail("weights", f"expected weights of at least 0 that sum to 1 at each vertex, found {found}")
    if "kintree_table" in arrays:
        root, *parents = map(int, arrays["kintree_table"][0])
        if root not in (-1, 2**32 - 1) or tuple(parents) != PARENTS[1:]:
            fail("kintree_table", f"expected MANO's parents {PARENTS}, found {(root, *parents)}")
    deviations = _standard_deviations(arrays)
    if deviations is not None and deviations.min() <= 0:
        key = "hands_sd" if "hands_sd" in arrays else "hands_coeffs"
        fail(key, "expected coefficients that vary, found a standard deviation of 0")
    return arrays, {key: str(entries[key]) for key in _STRINGS if key in entries}


def _make(path: Path, arrays: dict[str, np.ndarray], side: str, name: str, tips: _TipChoice | None) -> HandModel:
    vertices = len(arrays["v_template"])
    if tips is None and "tip_ids" in arrays:
        try:
            chosen = _tips(arrays["tip_ids"], vertices)
        except ValueError as error:
            raise HandFileError(f"{path}: tip_ids: {error}") from error
    else:
        chosen = _tips("smplx" if tips is None else tips, vertices)
    with np.errstate(invalid="ignore", divide="ignore"):
        hand = make_hand(
            v_template=arrays["v_template"].astype(np.float32),  # the axes too are those of the model as stored
            faces=arrays["faces"] if "faces" in arrays else arrays["f"],
            shapedirs=arrays["shapedirs"],
            posedirs=arrays["posedirs"],
            weights=arrays["weights"],
            J_regressor=arrays["J_regressor"],
            hands_mean=arrays["hands_mean"],
            hands_components=arrays["hands_components"],
            hands_sd=_standard_deviations(arrays),
            joints=_rest_joints(arrays),
            joint_shapedirs=arrays.get("joint_shapedirs"),
            tips=chosen,
            side=side,
            name=name,
        )
    if not np.isfinite(hand.axes).all():
        raise HandFileError(
            f"{path}: J_regressor: expected a skeleton, found joints or fingertips that coincide at rest"
        )
    return hand


def _standard_deviations(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """Of each pose component's coefficient, radians: as said, or over the poses that a MANO file lists."""
    if "hands_coeffs" in arrays and "hands_sd" not in arrays:
        return arrays["hands_coeffs"].std(0)
    return arrays.get("hands_sd")


def _rest_joints(arrays: dict[str, np.ndarray]) -> np.ndarray:
    if "joints" in arrays:
        return arrays["joints"].astype(np.float32)
    return (arrays["J_regressor"].astype(np.float64) @ arrays["v_template"].astype(np.float64)).astype(np.float32)


def _side(path: Path, said: str | None, asked: str | None, joints: np.ndarray) -> str:
    """Which hand a file holds: its entry, its name or what was asked; an error where they or the fingers disagree."""
    named = re.findall("(?<![a-z])(right|left)", path.stem.lower())
    if said is None and len(set(named)) == 1:
        said = named[0]
    if said not in (None, "right", "left"):
        raise HandFileError(f'{path}: side: expected "right" or "left", found {said!r}')
    side = asked or said
    if side is None:
        raise HandFileError(
            f'{path}: side: expected "right" or "left" in the file or its name, found neither: '
            'pass side="right" or side="left"'
        )
    if said not in (None, side):
        raise HandFileError(f"{path}: side: expected the {side} hand asked for, found a {said} one: mixed-up files?")
    pointing = _pointing(joints)
    if pointing not in (None, side):
        raise HandFileError(
            f"{path}: v_template: expected a {side} hand, found the fingers along x as in MANO's {pointing} hand: "
            "mixed-up files?"
        )
    return side


def _pointing(joints: np.ndarray) -> str | None:
    """The side whose fingers point this way in MANO's layout; None unless fingers and metacarpals all agree."""
    bones = np.concatenate([joints[[1, 4, 7, 10]] - joints[0], joints[[3, 6, 9, 12]] - joints[[1, 4, 7, 10]]])
    along = bones[:, 0] / np.maximum(np.linalg.norm(bones, axis=1), 1e-9)
    if (along < -0.6).all():
        return "right"
    return "left" if (along > 0.6).all() else None


def _tips(tips: _TipChoice, num_vertices: int) -> tuple[int, ...]:
    """Five vertices of the mesh, from their numbers or the name of a choice."""
    if isinstance(tips, str):
        if tips not in TIPS:
            raise ValueError(f"tips: expected {' or '.join(map(repr, TIPS))} or five vertices, got {tips!r}")
        if num_vertices != 778:
            raise ValueError(
                f"tips: {tips!r} is for MANO's 778 vertices, this mesh has {num_vertices}: pass five vertices"
            )
        return TIPS[tips]
    chosen = tuple(operator.index(tip) for tip in tips)
    if len(chosen) != 5 or not all(0 <= tip < num_vertices for tip in chosen):
        raise ValueError(f"tips: expected five vertices from 0 to {num_vertices - 1}, got {chosen}")
    return chosen
