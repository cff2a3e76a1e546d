"""The file is read back by its specification (Khronos, glTF 2.0), with struct, json and numpy alone."""

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from jhand.gltf import write_glb
from jhand.hand.kinematics import forward
from jhand.hand.model import HandModel, HandParams

FRAMES, FPS = 6, 24.0
DTYPES = {5121: np.uint8, 5125: np.uint32, 5126: np.float32}
SHAPES = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
TO_GLTF = np.diag([1.0, -1.0, -1.0])


@dataclass
class Glb:
    document: dict[str, Any]
    binary: bytes

    def array(self, accessor: int) -> np.ndarray:
        a = self.document["accessors"][accessor]
        view = self.document["bufferViews"][a["bufferView"]]
        dtype = np.dtype(DTYPES[a["componentType"]]).newbyteorder("<")
        shape = (a["count"], *SHAPES[a["type"]])
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == dtype.itemsize * np.prod(shape)
        data = self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(data, dtype).reshape(shape)

    def attribute(self, name: str) -> np.ndarray:
        return self.array(self.document["meshes"][0]["primitives"][0]["attributes"][name])

    def posed(self, frame: int) -> np.ndarray:
        """Vertices in the scene at a frame: sum of weight * joint's global transform * inverse bind matrix."""
        local = [_matrix(node) for node in self._nodes_at(frame)]
        to_scene = {}

        def descend(node: int, parent: np.ndarray) -> None:
            to_scene[node] = parent @ local[node]
            for child in self.document["nodes"][node].get("children", ()):
                descend(child, to_scene[node])

        for node in self.document["scenes"][0]["nodes"]:
            descend(node, np.eye(4))
        skin = self.document["skins"][0]
        inverse_bind = self.array(skin["inverseBindMatrices"]).transpose(0, 2, 1)  # stored by columns
        carry = np.stack([to_scene[node] for node in skin["joints"]]) @ inverse_bind
        v = np.c_[self.attribute("POSITION").astype(np.float64), np.ones(len(self.attribute("POSITION")))]
        each = np.einsum("vkab,vb->vka", carry[self.attribute("JOINTS_0")], v)
        return np.einsum("vk,vka->va", self.attribute("WEIGHTS_0").astype(np.float64), each)[:, :3]

    def _nodes_at(self, frame: int) -> list[dict[str, Any]]:
        nodes = [dict(node) for node in self.document["nodes"]]
        animation = self.document["animations"][0]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            nodes[channel["target"]["node"]][channel["target"]["path"]] = self.array(sampler["output"])[frame]
        return nodes


def _matrix(node: dict[str, Any]) -> np.ndarray:
    x, y, z, w = np.asarray(node.get("rotation", (0, 0, 0, 1)), np.float64)
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = node.get("translation", (0, 0, 0))
    return T


def read(path: Path) -> Glb:
    data = path.read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert (kind, length % 4) == (b"JSON", 0)
    document = json.loads(data[20 : 20 + length])
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    binary = data[28 + length :]
    assert kind == b"BIN\0" and size == len(binary) == document["buffers"][0]["byteLength"] and size % 4 == 0
    return Glb(document, binary)


def moving(seed: int = 0) -> HandParams:
    k = jax.random.split(jax.random.key(seed), 4)
    return HandParams(
        global_orient=1.5 * jax.random.normal(k[0], (FRAMES, 3)),
        hand_pose=0.4 * jax.random.normal(k[1], (FRAMES, 15, 3)),
        betas=jnp.broadcast_to(jax.random.normal(k[2], (10,)), (FRAMES, 10)),
        transl=0.3 * jax.random.normal(k[3], (FRAMES, 3)),
    )


def without_correctives(hand: HandModel) -> HandModel:
    return replace(hand, basis=hand.basis.at[1 + hand.num_betas :].set(0))


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_file_poses_the_hand(side, hands, tmp_path):
    hand, params = hands[side], moving()
    write_glb(tmp_path / "hand.glb", hand, params, fps=FPS)
    glb = read(tmp_path / "hand.glb")
    expected = np.asarray(forward(without_correctives(hand), params).vertices, np.float64) @ TO_GLTF
    for frame in range(FRAMES):
        np.testing.assert_allclose(glb.posed(frame), expected[frame], atol=1e-5)


def test_returns_how_far_the_file_is_from_the_model(right, tmp_path):
    params = moving(1)
    apart = write_glb(tmp_path / "hand.glb", right, params)
    vertices = np.asarray(forward(right, params).vertices, np.float64) @ TO_GLTF
    glb = read(tmp_path / "hand.glb")
    expected = max(np.linalg.norm(glb.posed(frame) - vertices[frame], axis=-1).max() for frame in range(FRAMES))
    assert apart == pytest.approx(expected, abs=1e-5)
    assert 1e-3 < apart < 0.05
    assert write_glb(tmp_path / "plain.glb", without_correctives(right), params) < 1e-6


def test_more_than_four_weights_are_cut_to_the_largest(right, tmp_path):
    weights = np.random.default_rng(0).dirichlet(np.full(16, 0.5), right.num_vertices).astype(np.float32)
    hand = without_correctives(replace(right, weights=jnp.asarray(weights)))
    params = moving(2)
    apart = write_glb(tmp_path / "hand.glb", hand, params)
    glb = read(tmp_path / "hand.glb")
    chosen = np.take_along_axis(weights, glb.attribute("JOINTS_0").astype(int), 1)
    np.testing.assert_array_equal(chosen, -np.sort(-weights, 1)[:, :4])
    np.testing.assert_allclose(glb.attribute("WEIGHTS_0"), chosen / chosen.sum(1, keepdims=True), rtol=1e-6)
    vertices = np.asarray(forward(hand, params).vertices, np.float64) @ TO_GLTF
    expected = max(np.linalg.norm(glb.posed(frame) - vertices[frame], axis=-1).max() for frame in range(FRAMES))
    assert apart == pytest.approx(expected, abs=1e-5) and apart > 1e-3


def test_the_file_keeps_to_the_specification(right, tmp_path):
    params = moving(3)
    write_glb(tmp_path / "hand.glb", right, params, fps=FPS)
    glb = read(tmp_path / "hand.glb")
    doc, primitive = glb.document, glb.document["meshes"][0]["primitives"][0]
    assert doc["asset"]["version"] == "2.0"
    assert [doc["nodes"][node]["name"] for node in doc["skins"][0]["joints"]][:3] == ["wrist", "index_mcp", "index_pip"]
    np.testing.assert_array_equal(glb.array(primitive["indices"]).reshape(-1, 3), right.faces)

    position, joints, weights = (glb.attribute(name) for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    bounds = doc["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal([bounds["min"], bounds["max"]], [position.min(0), position.max(0)])
    np.testing.assert_allclose(weights.sum(1, dtype=np.float64), 1, atol=1e-6)
    assert not joints[weights == 0].any() and (weights == 0).any()
    for j, w in zip(joints, weights, strict=True):
        assert len(set(j[w > 0])) == (w > 0).sum()

    normals = glb.attribute("NORMAL").astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    mesh = trimesh.Trimesh(position, np.asarray(right.faces), process=False)
    outwards = np.einsum("fc,fc->f", mesh.face_normals, normals[mesh.faces].mean(1))
    assert np.mean(outwards > 0) > 0.99

    for sampler in doc["animations"][0]["samplers"]:
        times, values = glb.array(sampler["input"]), glb.array(sampler["output"])
        np.testing.assert_allclose(times, np.arange(FRAMES) / FPS, rtol=1e-6)
        assert len(values) == FRAMES
        if values.shape[1] == 4:
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
            assert (np.einsum("tq,tq->t", values[1:], values[:-1]) >= 0).all()  # the short way round
    assert doc["accessors"][doc["animations"][0]["samplers"][0]["input"]]["max"] == [pytest.approx((FRAMES - 1) / FPS)]


def test_a_full_turn_does_not_jump(right, tmp_path):
    turns = jnp.linspace(0, 4 * jnp.pi, 40).at[10:15].add(-2 * jnp.pi)  # the same rotations, written differently
    params = replace(HandParams.zeros((40,)), global_orient=turns[:, None] * jnp.array([0.0, 0.0, 1.0]))
    write_glb(tmp_path / "turn.glb", right, params)
    glb = read(tmp_path / "turn.glb")
    q = glb.array(glb.document["animations"][0]["samplers"][1]["output"])
    assert np.abs(np.diff(q, axis=0)).max() < 0.2


def test_trimesh_loads_it(right, tmp_path):
    write_glb(tmp_path / "hand.glb", right, HandParams.zeros((1,)))
    (mesh,) = trimesh.load(tmp_path / "hand.glb", force="scene", process=False).geometry.values()
    np.testing.assert_allclose(mesh.vertices, right.v_template, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, right.faces)
    assert mesh.is_winding_consistent


def test_errors_say_what_to_pass(right, tmp_path):
    path = tmp_path / "hand.glb"
    with pytest.raises(ValueError, match=r"hand.obj: expected a name that ends in .glb"):
        write_glb(tmp_path / "hand.obj", right, moving())
    with pytest.raises(ValueError, match=r"fps: expected a number above 0, got 0"):
        write_glb(path, right, moving(), fps=0)
    with pytest.raises(ValueError, match=r"expected leading axes \(T,\), T frames, got \(\)"):
        write_glb(path, right, HandParams.zeros())
    with pytest.raises(ValueError, match="one shape for all frames, got several"):
        write_glb(path, right, replace(moving(), betas=jax.random.normal(jax.random.key(0), (FRAMES, 10))))
    assert not path.exists()
