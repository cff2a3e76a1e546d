"""Moving hands as binary glTF 2.0 files: a mesh skinned to sixteen joints, for Blender, game engines and browsers.

A glTF skin is linear blend skinning with four joints a vertex and nothing else: the pose correctives of the model are
not in the file, and of more than four weights the largest are kept. `write_glb` returns how far that leaves the surface
from `forward`.
"""

import json
import os
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jhand.geometry.mesh import vertex_normals
from jhand.geometry.rotations import rotation_to_quaternion, so3_exp
from jhand.hand.kinematics import forward, shape_hand
from jhand.hand.model import PARENTS, HandModel, HandParams, check_params
from jhand.hand.skeleton import keypoint_names
from jhand.results import in_blocks, upright

_MATERIAL = {
    "name": "skin",
    "doubleSided": True,  # the wrist is open
    "pbrMetallicRoughness": {
        "baseColorFactor": [0.72, 0.48, 0.37, 1.0],  # linear RGBA
        "metallicFactor": 0.0,
        "roughnessFactor": 0.75,
    },
}
_FLOAT, _UINT8, _UINT32 = 5126, 5121, 5125  # componentType
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963  # bufferView target


class _Buffer:
    """The binary part of a file and the accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, kind: str, component: int, target: int | None = None) -> int:
        """Append `array` (N,) or (N, C) and return its accessor."""
        raw = np.ascontiguousarray(array).tobytes()
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(raw)}
        self.views.append(view if target is None else view | {"target": target})
        self.data += raw + b"\0" * (-len(raw) % 4)
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if component == _FLOAT and kind in ("SCALAR", "VEC3"):  # required for positions and times
            accessor |= {
                "min": np.atleast_1d(array.min(0)).tolist(),
                "max": np.atleast_1d(array.max(0)).tolist(),
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def write_glb(
    path: str | os.PathLike,
    hand: HandModel,
    params: HandParams,
    *,
    fps: float | int = 30,
    up: tuple[float, float, float] = (0.0, -1.0, 0.0),
) -> float:
    """Write a moving hand as `.glb`: metres, y up.

    Args:
        path: of the file, which is replaced in one step.
        hand: the model.
        params: leading axis (T,) of frames of one shape.
        fps: frames per second.
        up: direction of up in the frame of `params`, by default that of a camera; the file's root node turns it to +y.

    Returns:
        The largest distance, in metres, between a vertex of the file and the same vertex of `forward`.

    Raises:
        ValueError: another ending, other leading axes than (T,), or a shape that changes over time.
    """
    path = Path(path)
    if path.suffix != ".glb":
        raise ValueError(f"{path}: expected a name that ends in .glb")
    if not fps > 0:
        raise ValueError(f"fps: expected a number above 0, got {fps}")
    params = check_params(params, hand)
    if len(params.batch) != 1:
        raise ValueError(f"params: expected leading axes (T,), T frames, got {params.batch}")
    tails = ((3,), (15, 3), (hand.num_betas,), (3,))
    fields = (params.global_orient, params.hand_pose, params.betas, params.transl)
    arrays = [np.broadcast_to(a, (*params.batch, *tail)) for a, tail in zip(fields, tails, strict=True)]
    global_orient, hand_pose, betas, transl = arrays
    if np.ptp(betas, axis=0).max() > 1e-6:
        raise ValueError("betas: expected one shape for all frames, got several; a glTF skin has one")
    order, weights = _four_weights(np.asarray(hand.weights))
    shaped = shape_hand(hand, betas[0])
    vertices, joints = np.asarray(shaped.vertices), np.asarray(shaped.joints)
    quaternions = _continuous(in_blocks(_quaternions, np.concatenate([global_orient[:, None], hand_pose], 1)))
    wrist = joints[0] + transl

    buffer = _Buffer()
    document = {
        "asset": {"version": "2.0", "generator": "jhand"},
        "extras": {"model": hand.name, "side": hand.side, "pose_correctives": "not included"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": _nodes(joints, wrist[0], quaternions[0], up),
        "meshes": [{"name": hand.name, "primitives": [_primitive(buffer, hand, vertices, order, weights)]}],
        "materials": [_MATERIAL],
        "skins": [
            {
                "joints": list(range(1, 17)),
                "skeleton": 1,
                "inverseBindMatrices": buffer.add(_inverse_bind(joints), "MAT4", _FLOAT),
            }
        ],
        "animations": [_animation(buffer, quaternions, wrist, float(fps))],
        "buffers": [{"byteLength": len(buffer.data)}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(buffer.data)
    part = path.with_suffix(".glb.part")
    part.write_bytes(
        struct.pack("<4sII", b"glTF", 2, size)
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(buffer.data), b"BIN\0")
        + bytes(buffer.data)
    )
    part.replace(path)

    written = np.zeros(hand.weights.shape, np.float32)
    np.put_along_axis(written, order.astype(int), weights, 1)
    plain = replace(hand, weights=jnp.asarray(written), basis=hand.basis.at[1 + hand.num_betas :].set(0))
    return float(in_blocks(partial(_largest_distance, hand, plain), *arrays).max())


@jax.jit
def _quaternions(axis_angle: Array) -> Array:
    """x, y, z, w."""
    return jnp.roll(rotation_to_quaternion(so3_exp(axis_angle)), -1, axis=-1)


@jax.jit
def _largest_distance(a: HandModel, b: HandModel, *params: Array) -> Array:
    apart = forward(a, HandParams(*params)).vertices - forward(b, HandParams(*params)).vertices
    return jnp.linalg.norm(apart, axis=-1).max(-1)


def _nodes(
    joints: np.ndarray, wrist: np.ndarray, quaternions: np.ndarray, up: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """Node 0 turns the recording upright, 1 to 16 are the joints, 17 is the mesh, which its skin alone moves."""
    turn = np.roll(rotation_to_quaternion(jnp.asarray(upright(up), jnp.float32)), -1)
    nodes: list[dict[str, Any]] = [{"name": "hand", "rotation": turn.tolist(), "children": [1, 17]}]
    for j, name in enumerate(keypoint_names("mano16")):
        translation = wrist if j == 0 else joints[j] - joints[PARENTS[j]]
        node = {"name": name, "translation": translation.tolist(), "rotation": quaternions[j].tolist()}
        children = [k + 1 for k, parent in enumerate(PARENTS) if parent == j]
        nodes.append(node | {"children": children} if children else node)
    nodes.append({"name": "skin", "mesh": 0, "skin": 0})
    return nodes


def _four_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (V, 4) that move each vertex most and their weights (V, 4), rows of sum 1."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    largest = np.take_along_axis(weights, order, axis=1)
    return order.astype(np.uint8), (largest / largest.sum(1, keepdims=True)).astype(np.float32)


def _primitive(
    buffer: _Buffer, hand: HandModel, vertices: np.ndarray, order: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    faces = np.asarray(hand.faces)
    normals = np.asarray(vertex_normals(vertices, faces))
    attributes = {
        "POSITION": buffer.add(vertices, "VEC3", _FLOAT, _VERTEX_BUFFER),
        "NORMAL": buffer.add(normals, "VEC3", _FLOAT, _VERTEX_BUFFER),
        "JOINTS_0": buffer.add(np.where(weights > 0, order, 0).astype(np.uint8), "VEC4", _UINT8, _VERTEX_BUFFER),
        "WEIGHTS_0": buffer.add(weights, "VEC4", _FLOAT, _VERTEX_BUFFER),
    }
    indices = buffer.add(faces.astype(np.uint32).ravel(), "SCALAR", _UINT32, _INDEX_BUFFER)
    return {"attributes": attributes, "indices": indices, "material": 0}


def _inverse_bind(joints: np.ndarray) -> np.ndarray:
    """Joints of the flat hand have no rotation: bringing a vertex into their frame is a translation. Column-major."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (16, 1, 1))
    matrices[:, :3, 3] = -joints
    return matrices.transpose(0, 2, 1).reshape(16, 16)


def _continuous(quaternions: np.ndarray) -> np.ndarray:
    """Signs chosen along time (T, 16, 4) so that interpolation takes the short way round."""
    turns = np.sum(quaternions[1:] * quaternions[:-1], -1) < 0
    signs = np.where(np.cumsum(turns, axis=0) % 2, -1, 1)
    return np.concatenate([quaternions[:1], quaternions[1:] * signs[..., None]]).astype(np.float32)


def _animation(buffer: _Buffer, quaternions: np.ndarray, wrist: np.ndarray, fps: float) -> dict[str, Any]:
    times = buffer.add((np.arange(len(wrist)) / fps).astype(np.float32), "SCALAR", _FLOAT)
    outputs = [(1, "translation", buffer.add(wrist, "VEC3", _FLOAT))]
    outputs += [(1 + j, "rotation", buffer.add(quaternions[:, j], "VEC4", _FLOAT)) for j in range(16)]
    return {
        "name": "recording",
        "samplers": [{"input": times, "output": data, "interpolation": "LINEAR"} for _, _, data in outputs],
        "channels": [
            {"sampler": i, "target": {"node": node, "path": what}} for i, (node, what, _) in enumerate(outputs)
        ],
    }
