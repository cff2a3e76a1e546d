"""Keypoint orders: which point stands where in the arrays of libraries, trackers and datasets.

One table, by anatomical names. A finger's points are called by their joints from the palm outwards: `metacarpal` (base
of the metacarpal), `mcp` (knuckle), `pip`, `dip`, `tip`; the thumb's are `cmc`, `mcp`, `ip`, `tip`.

Sources, by the published description of each format:

- `mano16`, `mano21`: Romero et al. 2017; mano21 appends the tips as smplx does (thumb, index, middle, ring, little)
- `openpose21`: Simon et al. 2017, OpenPose's hand output; the same order in MediaPipe Hands, FreiHAND, H2O, DexYCB, CMU
  Panoptic and OneHand10K
- `interhand21`: InterHand2.6M's skeleton.txt: each finger from tip to base, the wrist last
- `ho3d21`: HO-3D v2 and v3: MANO's joints, then the tips in smplx's order
- `rhd21`: Rendered Hand Pose Dataset's readme: wrist, then each finger from tip to base
- `umetrack21`, `hot3d21`: the landmarks of the Hand Tracking Toolkit: tips, wrist, then inner joints, palm centre last;
  its thumb has no CMC among them
- `webxr25`, `openxr26`: WebXR Hand Input (W3C) and XR_EXT_hand_tracking (Khronos): joints with metacarpal bases; OpenXR
  begins with the palm
- `leap20`: Leap Motion's bones: no wrist; the zero-length metacarpal of its thumb makes its `mcp` the anatomical CMC
- `coco_wholebody_left`, `coco_wholebody_right`: Jin et al. 2020: the hands within 133 points, left from 91, right from
  112
"""

import difflib
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Num

FINGERS = ("thumb", "index", "middle", "ring", "little")


def _chain(finger: str, with_metacarpal: bool = False) -> tuple[str, ...]:
    if finger == "thumb":
        return tuple(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip"))
    base = ("metacarpal",) if with_metacarpal else ()
    return tuple(f"{finger}_{joint}" for joint in (*base, "mcp", "pip", "dip", "tip"))


_TIPS = tuple(f"{finger}_tip" for finger in FINGERS)
_MANO16 = ("wrist", *(name for f in ("index", "middle", "little", "ring", "thumb") for name in _chain(f)[:3]))
_OPENPOSE21 = ("wrist", *(name for f in FINGERS for name in _chain(f)))
_WEBXR25 = ("wrist", *(name for f in FINGERS for name in _chain(f, with_metacarpal=True)))
_UMETRACK21 = (
    *_TIPS, "wrist", "thumb_mcp", "thumb_ip", *(name for f in FINGERS[1:] for name in _chain(f)[:3]), "palm",
)  # fmt: skip


def _within_wholebody(start: int) -> tuple[str, ...]:
    others = [f"wholebody_{i}" for i in range(133)]
    return (*others[:start], *_OPENPOSE21, *others[start + 21 :])


ORDERS: dict[str, tuple[str, ...]] = {
    "mano16": _MANO16,
    "mano21": (*_MANO16, *_TIPS),
    "openpose21": _OPENPOSE21,
    "mediapipe21": _OPENPOSE21,
    "freihand21": _OPENPOSE21,
    "h2o21": _OPENPOSE21,
    "dexycb21": _OPENPOSE21,
    "panoptic21": _OPENPOSE21,
    "onehand10k21": _OPENPOSE21,
    "interhand21": (*(name for f in FINGERS for name in reversed(_chain(f))), "wrist"),
    "ho3d21": (*_MANO16, *_TIPS),
    "rhd21": ("wrist", *(name for f in FINGERS for name in reversed(_chain(f)))),
    "umetrack21": _UMETRACK21,
    "hot3d21": _UMETRACK21,
    "webxr25": _WEBXR25,
    "openxr26": ("palm", *_WEBXR25),
    "leap20": tuple(name for f in FINGERS for name in _chain(f)),
    "coco_wholebody_left": _within_wholebody(91),
    "coco_wholebody_right": _within_wholebody(112),
}


def keypoint_names(order: str) -> tuple[str, ...]:
    """Names of the points of an order, in its order.

    Raises:
        ValueError: an unknown order, with the known ones.
    """
    if order not in ORDERS:
        near = difflib.get_close_matches(order, ORDERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown keypoint order {order!r}: {hint}known are {', '.join(sorted(ORDERS))}")
    return ORDERS[order]


def bones(order: str) -> tuple[tuple[int, int], ...]:
    """Pairs of points to join when drawing a hand in this order: each finger outwards, starting from the wrist if it is
    there.
    """
    names = keypoint_names(order)
    pairs = []
    for finger in FINGERS:
        chain = [name for name in ("wrist", *_chain(finger, with_metacarpal=True)) if name in names]
        pairs += [(names.index(a), names.index(b)) for a, b in itertools.pairwise(chain)]
    return tuple(pairs)


def convert_keypoints(
    keypoints: ArrayLike, *, source: str, target: str
) -> tuple[Num[Array, "*b n c"], Bool[np.ndarray, "n"]]:
    """Keypoints in another order: permutes and drops, never invents a point.

    Args:
        keypoints: (..., N_source, C), any number of channels.
        source: order they are in.
        target: order wanted.

    Returns:
        Keypoints (..., N_target, C), 0 where the source lacks a point, and which of them are valid (N_target,).

    Raises:
        ValueError: an unknown order, or a number of points that is not the source's.
    """
    kp = jnp.asarray(keypoints)
    have, want = keypoint_names(source), keypoint_names(target)
    if kp.ndim < 2 or kp.shape[-2] != len(have):
        fitting = [name for name, names in ORDERS.items() if kp.ndim >= 2 and len(names) == kp.shape[-2]]
        hint = f"; {kp.shape[-2]} points fit {', '.join(fitting)}" if fitting else ""
        raise ValueError(f"keypoints: {source} has shape (..., {len(have)}, C), got {kp.shape}{hint}")
    place = np.array([have.index(name) if name in have else -1 for name in want])
    valid = place >= 0
    moved = kp[..., np.maximum(place, 0), :]
    return jnp.where(jnp.asarray(valid)[:, None], moved, 0), valid
