from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jhand.geometry import (
    geodesic_distance,
    invert_transform,
    make_camera,
    project,
    reprojection_error,
    rigid,
    se3_log,
    solve_pnp,
    solve_pnp_ransac,
)

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")

CAMERA = make_camera(
    focal=np.array([600.0, 620.0]),
    principal=np.array([320.0, 240.0]),
    distortion=np.array([0.1, -0.05, 0.002, -0.001, 0.01, 0, 0, 0]),
)


def _seen(points, seed):
    """A pose with points (N, 3) some way in front of the camera, and what it shows of them."""
    rng = np.random.default_rng(seed)
    R = Rotation.random(random_state=seed).as_matrix()
    centre = np.array([*rng.normal(0, 0.08, 2), rng.uniform(0.6, 1.1)])
    T = rigid(R.astype(np.float32), (centre - R @ points.mean(0)).astype(np.float32))
    return T, project(replace(CAMERA, T_cam_world=T), jnp.asarray(points, jnp.float32))


def _cloud(kind, num, seed):
    points = np.random.default_rng(seed).normal(0, 0.06, (num, 3)) + np.array([0.3, -0.2, 1.0])
    if kind == "plane":
        normal = np.array([0.3, 0.5, 0.8])
        normal /= np.linalg.norm(normal)
        points -= np.outer((points - points.mean(0)) @ normal, normal)
    return points.astype(np.float32)


@pytest.mark.parametrize(("kind", "num"), [("space", 5), ("space", 21), ("plane", 8)])
def test_exact_pixels_give_the_exact_pose(kind, num):
    points = np.stack([_cloud(kind, num, s) for s in range(40)])
    T, uv = zip(*[_seen(p, s) for s, p in enumerate(points)], strict=True)
    T = jnp.stack(T)
    found = jax.jit(solve_pnp)(CAMERA, points, jnp.stack(uv))
    assert found.valid.all()
    assert float(found.rms.max()) < 0.02
    moved = np.linalg.norm(np.asarray(se3_log(invert_transform(T) @ found.T_cam_world))[:, 3:], axis=-1)
    assert moved.max() < (3e-3 if kind == "space" else 1e-2)
    np.testing.assert_allclose(
        jnp.einsum("bij,bnj->bni", found.T_cam_world[:, :3, :3], points) + found.T_cam_world[:, None, :3, 3],
        jnp.einsum("bij,bnj->bni", T[:, :3, :3], points) + T[:, None, :3, 3],
        atol=2e-3,
    )


def test_covariance_is_that_of_many_trials():
    points = _cloud("space", 12, 0)
    T, uv = _seen(points, 3)
    sigma = 0.8
    noise = sigma * np.random.default_rng(0).normal(size=(600, *uv.shape)).astype(np.float32)
    found = jax.jit(solve_pnp)(CAMERA, points, uv + noise)
    twists = np.asarray(se3_log(jnp.matmul(found.T_cam_world, invert_transform(T), precision="highest")))
    expected = sigma**2 * np.asarray(found.covariance).mean(0)
    ratio = twists.std(0) / np.sqrt(np.diag(expected))
    np.testing.assert_allclose(ratio, 1, atol=0.12)
    assert float(jnp.abs(found.rms - sigma * np.sqrt(2 - 6 / 12)).mean()) < 0.15


def test_wrong_pixels_are_left_out():
    points = _cloud("space", 24, 1)
    T, uv = _seen(points, 5)
    rng = np.random.default_rng(1)
    wrong = np.arange(24) % 3 == 0
    uv = np.where(wrong[:, None], rng.uniform(0, 600, uv.shape), uv + 0.5 * rng.normal(size=uv.shape)).astype(
        np.float32
    )
    pose, inside = jax.jit(solve_pnp_ransac)(jax.random.key(0), CAMERA, points, uv)
    assert pose.valid
    np.testing.assert_array_equal(inside, ~wrong)
    assert float(geodesic_distance(pose.T_cam_world[:3, :3], T[:3, :3])) < 0.02
    alone = solve_pnp(CAMERA, points, uv)
    assert float(geodesic_distance(alone.T_cam_world[:3, :3], T[:3, :3])) > 0.05  # the outliers do matter


@pytest.mark.parametrize("case", ["two points", "nothing", "one place", "on a line", "nan under weight 0"])
def test_what_has_no_pose_is_said(case):
    points = _cloud("space", 9, 2)
    _, uv = _seen(points, 1)
    w = np.ones(9, np.float32)
    if case == "two points":
        w[2:] = 0
    if case == "nothing":
        w[:] = 0
    if case == "one place":
        points, uv = np.tile(points[:1], (9, 1)), jnp.tile(uv[:1], (9, 1))
    if case == "on a line":
        points = (points[0] + np.linspace(-0.1, 0.1, 9)[:, None] * [0.1, 0.9, 0.2]).astype(np.float32)
        _, uv = _seen(points, 1)
    if case == "nan under weight 0":
        w[3:6] = 0
        uv = uv.at[3:6].set(jnp.nan)
    found = solve_pnp(CAMERA, points, uv, w)
    assert bool(found.valid) == (case == "nan under weight 0")
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))


def test_bad_shapes_are_said():
    with pytest.raises(ValueError, match=r"points \(\.\.\., N, 3\) and pixels"):
        solve_pnp(CAMERA, np.zeros((4, 3)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="weights: expected shape"):
        solve_pnp(CAMERA, np.zeros((4, 3)), np.zeros((4, 2)), np.ones(3))
    with pytest.raises(ValueError, match="N of at least 4"):
        solve_pnp_ransac(jax.random.key(0), CAMERA, np.zeros((3, 3)), np.zeros((3, 2)))


def test_reprojection_error_is_infinite_behind():
    T = rigid(np.eye(3), np.array([0, 0, 0.5]))
    camera = jax.tree.map(lambda a: a[None], make_camera(focal=500.0, principal=np.zeros(2), T_cam_world=T))
    points = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0, -1.0]], np.float32)
    miss = reprojection_error(camera, points, np.zeros((1, 3, 2)))
    np.testing.assert_allclose(miss, [[0, 100, np.inf]], rtol=1e-6)
