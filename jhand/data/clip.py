"""Clips: one schema for every dataset, real or made, and the check that a reader keeps to it.

A clip is a nested dict of numpy arrays and words. What a dataset does not have is absent, never zero; within what is
there, entries that are not valid hold 0 and are never read: every consumer multiplies by the mask.

    image (T, V, H, W, 3)    uint8 sRGB, T frames of V views
    depth (T, V, H, W)       float32 metres, 0 = no reading
    segmentation             (T, V, H, W) uint8, ids named in meta["segments"]
    camera                   K (T, V, 3, 3), T_cam_world (T, V, 4, 4), distortion (T, V, 8)
    hands {"right", "left"}  present (T,), keypoints3d (T, 21, 3) world metres, keypoints3d_valid (T, 21),
                             keypoints2d (T, V, 21, 2) pixels, visible and confidence (T, V, 21) in [0, 1],
                             params {"global_orient", "hand_pose", "betas", "transl"} (T, ...) of the model `model`,
                             contact (T, N) signed metres from the nearest object
    people                   a list of such dicts of hands, beyond the first person
    objects                  present (T, O), T_world_object (T, O, 4, 4), mesh_id (O,), points (O, 1024, 3)
    body, events (E, 4), num_events, emg (S, C), emg_rate, text, action
    meta                     dataset, sequence, fps, world (which way its axes point), licence, and more words

`ENTRIES` is the same as a table.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

ENTRIES: dict[str, tuple[tuple[int | str, ...], str]] = {
    "image": (("T", "V", "H", "W", 3), "uint8"),
    "depth": (("T", "V", "H", "W"), "float32"),
    "segmentation": (("T", "V", "H", "W"), "uint8"),
    "camera.K": (("T", "V", 3, 3), "float32"),
    "camera.T_cam_world": (("T", "V", 4, 4), "float32"),
    "camera.distortion": (("T", "V", 8), "float32"),
    "hand.present": (("T",), "bool"),
    "hand.keypoints3d": (("T", 21, 3), "float32"),
    "hand.keypoints3d_valid": (("T", 21), "bool"),
    "hand.keypoints2d": (("T", "V", 21, 2), "float32"),
    "hand.visible": (("T", "V", 21), "float32"),
    "hand.confidence": (("T", "V", 21), "float32"),
    "hand.params.global_orient": (("T", 3), "float32"),
    "hand.params.hand_pose": (("T", 15, 3), "float32"),
    "hand.params.betas": (("T", "B"), "float32"),
    "hand.params.transl": (("T", 3), "float32"),
    "hand.params_valid": (("T",), "bool"),
    "hand.contact": (("T", "N"), "float32"),
    "objects.present": (("T", "O"), "bool"),
    "objects.T_world_object": (("T", "O", 4, 4), "float32"),
    "objects.mesh_id": (("O",), "int32"),
    "objects.points": (("O", 1024, 3), "float32"),
    "objects.half_size": (("O", 3), "float32"),
    "objects.roundness": (("O", 2), "float32"),
    "events": (("E", 4), "float32"),
    "num_events": ((), "int32"),
    "emg": (("S", "C"), "float32"),
    "emg_rate": ((), "float32"),
}
"""Shape and dtype of every array, letters standing for sizes that agree within a clip; `hand` is either hand of a
person. `hand.params_valid` may be absent: all are."""
SIDES = ("right", "left")
META = ("dataset", "sequence", "fps", "world", "licence")
_MASKS = {  # what says whether an entry counts, where a mixture lacks it
    "keypoints3d": "keypoints3d_valid", "keypoints2d": "visible", "params": "params_valid",
}  # fmt: skip


class ClipError(ValueError):
    """A clip that breaks the schema: which entry, what was expected, what came."""


def flatten(clip: Mapping[str, Any]) -> dict[str, Any]:
    """Entries by their dotted names, `hands.right.keypoints3d` and such; words too."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else str(key), inner)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            for number, inner in enumerate(value):
                yield from walk(f"{prefix}.{number}", inner)
        else:
            yield prefix, value

    return dict(walk("", clip))


def unflatten(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    clip: dict[str, Any] = {}
    for name, value in entries.items():
        *path, last = name.split(".")
        at = clip
        for key in path:
            at = at.setdefault(key, {})
        at[last] = value
    if "people" in clip:
        clip["people"] = [clip["people"][key] for key in sorted(clip["people"], key=int)]
    return clip


def check_clip(clip: Mapping[str, Any]) -> None:
    """Whether a clip keeps to the schema.

    Args:
        clip: nested dict.

    Raises:
        ClipError: an unknown entry, another dtype or shape, sizes that differ between entries, values that are not
            finite, masks out of [0, 1], cameras or places of objects that are no rotations, or an entry that is not
            valid and not 0.
    """
    name = f"clip {clip.get('meta', {}).get('dataset', '?')}/{clip.get('meta', {}).get('sequence', '?')}"
    missing = [key for key in META if key not in clip.get("meta", {})]
    if missing:
        raise ClipError(f"{name}: meta: expected {', '.join(META)}; missing {', '.join(missing)}")
    sizes: dict[str, tuple[int, str]] = {}
    for key, value in flatten(clip).items():
        kind = _kind(key)
        if kind is None:
            continue
        if kind not in ENTRIES:
            raise ClipError(f"{name}: {key}: not an entry of the schema; put words into meta")
        shape, dtype = ENTRIES[kind]
        array = np.asarray(value)
        if array.dtype != np.dtype(dtype):
            raise ClipError(f"{name}: {key}: expected {dtype}, got {array.dtype}")
        if array.ndim != len(shape):
            raise ClipError(f"{name}: {key}: expected shape ({', '.join(map(str, shape))}), got {array.shape}")
        for axis, (size, want) in enumerate(zip(array.shape, shape, strict=True)):
            if isinstance(want, str):
                known, where = sizes.setdefault(f"{want}{key.split('.')[1]}" if want in "BN" else want, (size, key))
                if size != known:
                    raise ClipError(f"{name}: {key}: axis {axis} has size {size}, but {where} has {want} = {known}")
            elif size != want:
                raise ClipError(f"{name}: {key}: expected shape ({', '.join(map(str, shape))}), got {array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ClipError(f"{name}: {key}: it holds values that are not finite; mask them and write 0")
        if kind in ("hand.visible", "hand.confidence") and array.size and not (0 <= array.min() <= array.max() <= 1):
            raise ClipError(f"{name}: {key}: expected values in [0, 1], got {array.min()} to {array.max()}")
    _check_cameras(name, clip.get("camera", {}))
    _check_objects(name, clip.get("objects", {}))
    for owner, hands in _people(clip):
        for side, hand in hands.items():
            _check_hand(f"{name}: {owner}.{side}", hand)


def select(clip: Mapping[str, Any], needs: Sequence[str], *, fill: bool = False) -> dict[str, Any]:
    """The entries that a system needs.

    Args:
        clip: as `check_clip` allows.
        needs: names of entries or of groups: `image`, `camera`, `hands.right.keypoints3d`.
        fill: where datasets are mixed: what is missing becomes zeros with a mask that says so, in shapes that the rest
            of the clip gives. A loss that ignores the mask is a bug.

    Returns:
        A clip with these entries and meta.

    Raises:
        ClipError: an entry that is missing; it names what the clip has.
    """
    entries = flatten(clip)
    chosen: dict[str, Any] = {key: value for key, value in entries.items() if key.startswith("meta")}
    for need in needs:
        found = {key: value for key, value in entries.items() if key == need or key.startswith(need + ".")}
        if not found and not fill:
            meta = clip.get("meta", {})
            has = ", ".join(sorted({key for key in entries if not key.startswith("meta")}))
            raise ClipError(f"clip {meta.get('dataset')}/{meta.get('sequence')}: no {need}; it has {has}")
        chosen |= found or _filled(entries, need)
    return unflatten(chosen)


def _kind(key: str) -> str | None:
    """The row of `ENTRIES` of a dotted name; None for words."""
    parts = key.split(".")
    if parts[0] in ("meta", "text", "action"):
        return None
    if parts[0] == "people" and len(parts) > 2:
        parts = ["hands", *parts[2:]]
    if parts[0] == "hands" and len(parts) > 2 and parts[1] in SIDES:
        if parts[-1] == "model":
            return None
        return ".".join(["hand", *parts[2:]])
    return None if parts[0] == "body" else key


def _people(clip: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "hands", clip.get("hands", {})
    for number, hands in enumerate(clip.get("people", ())):
        yield f"people[{number}]", hands


def _check_cameras(name: str, camera: Mapping[str, Any]) -> None:
    if "K" in camera:
        K = np.asarray(camera["K"])
        if not (np.all(K[..., 0, 0] > 0) and np.all(K[..., 1, 1] > 0) and np.allclose(K[..., 2, :], [0, 0, 1])):
            raise ClipError(f"{name}: camera.K: expected positive focal lengths and a last row of 0 0 1")
    if "T_cam_world" in camera:
        _check_rotations(f"{name}: camera.T_cam_world", camera["T_cam_world"])


def _check_objects(name: str, objects: Mapping[str, Any]) -> None:
    if "T_world_object" in objects and "present" in objects:
        there = np.asarray(objects["T_world_object"])[np.asarray(objects["present"])]
        _check_rotations(f"{name}: objects.T_world_object", there)


def _check_rotations(name: str, T: Any) -> None:
    R = np.asarray(T, np.float64)[..., :3, :3]
    error = np.abs(np.einsum("...ji,...jk->...ik", R, R) - np.eye(3)).max(initial=0)
    if error > 1e-3 or np.any(np.linalg.det(R) < 0):
        raise ClipError(f"{name}: expected rotations (determinant 1), off by {error:.1e}")


def _check_hand(name: str, hand: Mapping[str, Any]) -> None:
    if "present" not in hand:
        raise ClipError(f"{name}: expected `present` (T,)")
    if "keypoints3d" in hand:
        if "keypoints3d_valid" not in hand:
            raise ClipError(f"{name}.keypoints3d: expected keypoints3d_valid (T, 21) beside it")
        points, valid = np.asarray(hand["keypoints3d"]), np.asarray(hand["keypoints3d_valid"])
        if np.any(points[~valid] != 0):
            raise ClipError(f"{name}.keypoints3d: entries that are not valid must hold 0")
        size = np.ptp(points[valid.all(-1)], axis=-2).max(initial=0)
        if size > 1.0:
            raise ClipError(f"{name}.keypoints3d: a hand of {size:.1f} m; are these millimetres? expected metres")
    if "params" in hand and "model" not in hand:
        raise ClipError(f"{name}.params: expected `model`, the name of the hand model that they belong to")


def _filled(entries: Mapping[str, Any], need: str) -> dict[str, Any]:
    """Zeros in the place of what is missing, and the mask that says so."""
    kinds = {need: ENTRIES.get(_kind(need) or "")}
    if kinds[need] is None:
        prefix = (_kind(need) or need) + "."
        kinds = {need + "." + kind[len(prefix) :]: row for kind, row in ENTRIES.items() if kind.startswith(prefix)}
    sizes: dict[str, int] = {"B": 10}
    for key, value in entries.items():
        row = ENTRIES.get(_kind(key) or "")
        if row:
            sizes |= {n: s for n, s in zip(row[0], np.shape(value), strict=True) if isinstance(n, str)}
    filled: dict[str, Any] = {}
    for key, row in kinds.items():
        if row is None:
            raise ClipError(f"{need}: not an entry of the schema")
        shape, dtype = row
        unknown = [n for n in shape if isinstance(n, str) and n not in sizes]
        if unknown:
            raise ClipError(f"{need}: cannot be filled with zeros: nothing in the clip says how large {unknown} are")
        filled[key] = np.zeros([sizes[n] if isinstance(n, str) else n for n in shape], dtype)
        *owner, last = key.split(".")
        mask = _MASKS.get("params" if "params" in owner else last)
        if mask:
            at = ".".join(owner[: owner.index("params")] if "params" in owner else owner)
            shape, dtype = ENTRIES[f"hand.{mask}"]
            filled.setdefault(
                f"{at}.{mask}", np.zeros([sizes.get(n, 1) if isinstance(n, str) else n for n in shape], dtype)
            )
    return filled


def num_frames(clip: Mapping[str, Any]) -> int:
    """T of a clip."""
    for key, value in flatten(clip).items():
        row = ENTRIES.get(_kind(key) or "")
        if row and row[0][:1] == ("T",):
            return int(np.shape(value)[0])
    return 0


def nbytes(clip: Mapping[str, Any]) -> int:
    """Bytes of a clip's arrays."""
    return sum(math.prod(np.shape(v)) * np.asarray(v).itemsize for k, v in flatten(clip).items() if _kind(k))
