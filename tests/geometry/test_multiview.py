import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.geometry import Camera, distort, make_camera, project, triangulate, triangulate_robust, undistort, unproject
from tests.geometry.rigs import ring_of_cameras

LENS = np.array([0.12, -0.05, 0.002, -0.001, 0.01, 0.02, 0.0, 0.0], np.float32)


def test_undistort_is_the_inverse_of_distort():
    xy = np.random.default_rng(0).uniform(-0.6, 0.6, (3, 20, 2)).astype(np.float32)
    np.testing.assert_allclose(undistort(distort(xy, LENS), LENS), xy, atol=2e-6)
    np.testing.assert_allclose(jax.vmap(undistort, (0, None))(distort(xy, LENS), LENS), xy, atol=2e-6)


def test_unproject_is_the_inverse_of_project():
    cameras = ring_of_cameras(4, distortion=LENS)
    points = np.random.default_rng(1).normal(0, 0.1, (4, 9, 3)).astype(np.float32)
    depth = jnp.einsum("vi,vni->vn", cameras.T_cam_world[:, 2, :3], points) + cameras.T_cam_world[:, 2, 3:]
    np.testing.assert_allclose(unproject(cameras, project(cameras, points), depth), points, atol=5e-6)


def _least_squares(cameras: Camera, uv, w, start):
    """Float64 oracle: Gauss-Newton with numerical derivatives on reprojection errors."""
    K, T = np.asarray(cameras.K, float), np.asarray(cameras.T_cam_world, float)

    def residual(p):
        c = T[:, :3, :3] @ p + T[:, :3, 3]
        seen = np.einsum("vij,vj->vi", K, c / c[:, 2:])[:, :2]
        return (np.sqrt(w)[:, None] * (seen - uv)).ravel()

    p = np.array(start, float)
    for _ in range(20):
        J = np.stack([(residual(p + h) - residual(p - h)) / 2e-6 for h in 1e-6 * np.eye(3)], -1)
        p -= np.linalg.solve(J.T @ J, J.T @ residual(p))
    return p, np.linalg.inv(J.T @ J)


def test_points_are_those_of_least_squares():
    cameras = ring_of_cameras(3)
    rng = np.random.default_rng(2)
    points = rng.normal(0, 0.1, (6, 3))
    uv = np.asarray(project(cameras, jnp.asarray(points, jnp.float32))) + rng.normal(0, 1.0, (3, 6, 2))
    w = rng.uniform(0.2, 1, (3, 6))
    found = triangulate(cameras, uv, w)
    assert found.valid.all()
    for n in range(6):
        expected, covariance = _least_squares(cameras, uv[:, n], w[:, n], points[n])
        np.testing.assert_allclose(found.points[n], expected, atol=1e-5)
        np.testing.assert_allclose(found.covariance[n], covariance, rtol=2e-2, atol=1e-9)


def test_lenses_weights_and_batches():
    cameras = ring_of_cameras(4, distortion=LENS)
    points = np.random.default_rng(3).normal(0, 0.1, (2, 5, 3)).astype(np.float32)
    uv = np.array(project(jax.tree.map(lambda a: a[None], cameras), jnp.asarray(points)[:, None]))
    w = np.ones(uv.shape[:-1])
    uv[0, 1, 2], w[0, 1, 2] = np.nan, 0
    found = jax.jit(triangulate)(cameras, uv, w)
    np.testing.assert_allclose(found.points, points, atol=2e-5)
    alone = jax.vmap(triangulate, in_axes=(None, 0, 0))(cameras, uv, w)
    np.testing.assert_allclose(alone.points, found.points, atol=1e-6)


@pytest.mark.parametrize("case", ["one view", "nothing", "parallel rays", "behind"])
def test_what_cannot_be_triangulated_is_said(case):
    cameras = ring_of_cameras(2)
    point = jnp.array([[0.02, 0.01, 0.0]])
    if case == "parallel rays":
        cameras = jax.tree.map(lambda a: jnp.stack([a[0], a[0]]), cameras)
    uv, w = project(cameras, point), jnp.ones((2, 1))
    if case == "one view":
        w = w.at[1].set(0)
    if case == "nothing":
        w = 0 * w
    if case == "behind":
        away = make_camera(focal=500.0, principal=np.array([320.0, 240.0]))
        shifted = away.T_cam_world.at[0, 3].set(0.2)
        cameras = Camera(
            *(
                jnp.stack([a, b])
                for a, b in zip(
                    (away.K, away.T_cam_world, away.distortion), (away.K, shifted, away.distortion), strict=True
                )
            )
        )
        uv = project(cameras, jnp.array([[0.0, 0.0, -0.5]]))
    found = triangulate(cameras, uv, w)
    assert not found.valid.any()
    assert np.isfinite(found.points).all() and np.isfinite(found.covariance).all()


def test_wrong_shapes_are_answered():
    with pytest.raises(ValueError, match=r"\(\.\.\., V, N, 2\)"):
        triangulate(ring_of_cameras(2), np.zeros((21, 2)))


def test_views_that_are_wrong_are_left_out():
    cameras = ring_of_cameras(5, distortion=LENS)
    rng = np.random.default_rng(6)
    points = rng.normal(0, 0.1, (30, 3)).astype(np.float32)
    uv = np.array(project(cameras, jnp.asarray(points)[None])) + rng.normal(0, 0.5, (5, 30, 2)).astype(np.float32)
    w = np.ones(uv.shape[:-1], np.float32)
    wrong = rng.integers(0, 5, 30)
    uv[wrong, np.arange(30)] += rng.choice([-1, 1], (30, 2)) * rng.uniform(60, 200, (30, 2))
    w[0, :5], uv[0, :5] = 0, np.nan
    found, kept = triangulate_robust(cameras, uv, w, threshold=5.0)
    expected = (np.arange(5)[:, None] != wrong) & (w > 0)
    np.testing.assert_array_equal(kept, expected)
    assert found.valid.all()
    assert np.linalg.norm(found.points - points, axis=-1).max() < 2e-3
    plain = triangulate(cameras, uv, w)
    assert np.linalg.norm(plain.points - points, axis=-1).mean() > 5e-3
    np.testing.assert_allclose(found.points, triangulate(cameras, uv, w * kept).points, atol=1e-6)


@pytest.mark.parametrize("views", [1, 2])
def test_robust_with_nothing_to_compare(views):
    cameras = ring_of_cameras(views)
    uv = project(cameras, jnp.array([[[0.02, 0.01, 0.0], [0.0, 0.05, 0.01]]]))
    found, kept = triangulate_robust(cameras, uv, jnp.ones(uv.shape[:-1]).at[0, 1].set(0))
    np.testing.assert_array_equal(found.valid, [views == 2, False])
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found)) and kept.shape == (views, 2)
