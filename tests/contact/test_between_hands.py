import jax.numpy as jnp
import numpy as np

from jhand.contact import clearance_along, skin_gap
from jhand.geometry import signed_distance, vertex_normals
from jhand.hand import HandParams, forward


def sphere(centre, radius, n=600):
    k = np.arange(n) + 0.5
    z, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    normal = np.stack([np.cos(turn) * np.sqrt(1 - z * z), np.sin(turn) * np.sqrt(1 - z * z), z], -1)
    return (np.asarray(centre) + radius * normal).astype(np.float32), normal.astype(np.float32)


def test_gaps_of_a_hand_are_those_of_its_mesh(right):
    v = np.asarray(forward(right, HandParams.zeros()).vertices)
    normals = vertex_normals(v, right.faces)
    rng = np.random.default_rng(0)
    fingers = np.flatnonzero(np.asarray(right.weights)[:, 0] < 0.3)
    points = v[rng.choice(fingers, 200)] + rng.normal(0, 0.003, (200, 3)).astype(np.float32)
    ours, mesh = np.asarray(skin_gap(points, v, normals)), np.asarray(signed_distance(points, v, right.faces))
    assert np.percentile(np.abs(ours - mesh), 95) < 0.0025
    clear = np.abs(mesh) > 0.0015
    assert (np.sign(ours) == np.sign(mesh))[clear].mean() > 0.98


def test_spheres_are_set_beside_each_other():
    fixed, fixed_normals = sphere((0, 0, 0), 0.04)
    for start in (0.0, 0.03, 0.2):
        moving, moving_normals = sphere((start, 0, 0), 0.03)
        along = clearance_along(moving, moving_normals, fixed, fixed_normals, jnp.array([1.0, 0, 0]), 0.005)
        assert abs(start + float(along) - 0.075) < 0.002
