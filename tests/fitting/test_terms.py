"""Terms of a fit: their slopes, and what each of them pulls a hand to."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jhand.fitting import fit, surfaces, terms
from jhand.fitting.measurements import FitSettings
from jhand.geometry import closest_on_mesh, make_camera, project
from jhand.hand.anatomy import pose_from_angles
from jhand.hand.kinematics import forward
from jhand.hand.landmark_sets import landmarks, vertex_landmarks
from jhand.hand.model import HandParams
from tests.geometry.rigs import ring_of_cameras

CAMERA = make_camera(focal=300.0, principal=np.array([63.5, 63.5]))


def _posed(hand, seed=0, bend=0.4):
    """One gently closed hand half a metre in front of the camera, its fingers up."""
    rng = np.random.default_rng(seed)
    angles = np.zeros((15, 3), np.float32)
    angles[:12, 0] = bend * rng.uniform(0.5, 1, 12)
    return HandParams(
        global_orient=jnp.array([0.1, 0.2, 1.4]),
        hand_pose=pose_from_angles(hand, angles),
        betas=jnp.zeros(hand.num_betas).at[:2].set(jnp.array([0.5, -0.4])),
        transl=jnp.array([0.0, 0.1, 0.5]),
    )


def _moved(params, shift=(0.006, -0.005, 0.004), turn=0.05):
    """A start that is off by a centimetre and a few degrees."""
    return replace(params, transl=params.transl + jnp.array(shift), global_orient=params.global_orient + turn)


def _scan(mesh, hand, num=300, seed=1):
    """Points on the skin (num, 3) and their normals."""
    rng = np.random.default_rng(seed)
    v, f = np.asarray(mesh.vertices), np.asarray(hand.faces)
    a, b, c = v[f].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    area = np.linalg.norm(normals, axis=1)
    pick = rng.choice(len(f), num, p=area / area.sum())
    u = rng.dirichlet(np.ones(3), num)
    return np.einsum("pk,pkc->pc", u, v[f[pick]]), normals[pick] / area[pick, None]


def _skin_distance(points, mesh, hand):
    feet, _, _ = closest_on_mesh(jnp.asarray(points), mesh.vertices, hand.faces)
    return np.linalg.norm(np.asarray(feet) - points, axis=-1)


def _data_of(name, rng):
    """Data of a residual by name, about one random point."""
    unit = rng.normal(size=3)
    unit /= np.linalg.norm(unit)
    foot = surfaces._Foot(*(jnp.asarray(x, jnp.float32) for x in (rng.normal(size=3), unit, rng.dirichlet(np.ones(3)))))
    return {
        "offset": jnp.asarray(rng.normal(size=3)),
        "pixel_offset": terms.Pixel(jnp.asarray(rng.normal(size=2)), CAMERA, jnp.array(0)),
        "_surface_offset": foot,
        "_plane_offset": foot,
        "_normal_offset": foot,
        "_height": surfaces._Tangent(foot.point, foot.normal),
        "_depth_inside": surfaces._Tangent(foot.point, foot.normal),
        "_overlap": jnp.array(3.0),
    }[name]


@pytest.mark.parametrize(
    ("name", "num"),
    [
        ("offset", 1), ("pixel_offset", 1), ("_surface_offset", 3), ("_plane_offset", 3), ("_normal_offset", 3),
        ("_height", 1), ("_depth_inside", 1), ("_overlap", 2),
    ],
)  # fmt: skip
def test_residuals_have_the_slopes_of_finite_differences(name, num):
    """At 20 random points, over the landmarks, the translation and the unknowns of a camera."""
    residual, step = getattr(surfaces if name.startswith("_") else terms, name), 1e-3
    for seed in range(20):
        rng = np.random.default_rng(seed)
        datum = _data_of(name, rng)
        x = jnp.asarray(rng.normal(size=(num, 3)), jnp.float32).at[:, 2].add(4.0 if name == "pixel_offset" else 0.0)
        flat = jnp.concatenate([x.ravel(), jnp.asarray(rng.normal(size=10) * 0.1, jnp.float32)])

        def along(v, datum=datum):
            return residual(v[: 3 * num].reshape(num, 3), v[3 * num : 3 * num + 3], v[3 * num + 3 :][None], datum)

        J = jax.jacfwd(along)(flat)
        both = jax.vmap(along)(jnp.concatenate([flat + step * jnp.eye(len(flat)), flat - step * jnp.eye(len(flat))]))
        numerical = (both[: len(flat)] - both[len(flat) :]).T / (2 * step)
        np.testing.assert_allclose(J, numerical, rtol=2e-2, atol=2e-2 * max(1.0, float(np.abs(J).max())))


def test_free_weak_camera_has_the_slopes_of_finite_differences():
    seen = terms.Pixel(jnp.zeros(2), terms.FreeWeakCamera(jnp.array(500.0)), jnp.array(0))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        flat = jnp.asarray(np.concatenate([rng.normal(size=3), [0.1, 0.2, 2.0]]), jnp.float32)
        along = lambda v: terms.pixel_offset(v[None, :3], v[3:], jnp.zeros((0, 7)), seen)  # noqa: E731
        J = jax.jacfwd(along)(flat)
        numerical = np.stack([(along(flat + h) - along(flat - h)) / 2e-3 for h in 1e-3 * np.eye(6, dtype=np.float32)])
        np.testing.assert_allclose(J, numerical.T, rtol=2e-2, atol=1.0)


def test_vertices_give_the_hand(right):
    truth = _posed(right)
    mesh = forward(right, truth)
    found = fit(right, terms=[terms.mesh_vertices(right, mesh.vertices, sigma=5e-4)], start=_moved(truth))
    apart = np.linalg.norm(forward(right, found.params).vertices - mesh.vertices, axis=-1)
    assert apart.mean() < 3e-4
    assert np.isfinite(found.cost) and found.converged
    assert found.errors.sum() == 0  # nothing was measured point by point


@pytest.mark.parametrize("kind", ["points", "planes", "normals too"])
def test_a_scan_draws_the_hand_to_it(right, kind):
    truth = _posed(right)
    points, normals = _scan(forward(right, truth), right)
    every = {
        "points": lambda: [surfaces.point_cloud(right, points)],
        "planes": lambda: [surfaces.point_cloud_planes(right, points, normals)],
        "normals too": lambda: [
            surfaces.point_cloud(right, points, normals=normals),
            surfaces.surface_normals(right, points, normals),
        ],
    }[kind]()
    start = _moved(truth)
    before = _skin_distance(points, forward(right, start), right).mean()
    found = fit(right, terms=every, start=start, iterations=60)
    after = _skin_distance(points, forward(right, found.params), right).mean()
    assert after < 1e-3 and after < 0.3 * before


def _mask(mesh, hand):
    """Pixels (128, 128) that the hand covers: its surface, densely sampled."""
    points, _ = _scan(mesh, hand, num=60_000)
    column, row = np.round(np.asarray(project(CAMERA, jnp.asarray(points, jnp.float32)))).astype(int).T
    mask = np.zeros((128, 128), bool)
    mask[row, column] = True
    return ndimage.binary_closing(mask, iterations=2)


def test_a_silhouette_places_the_hand_in_the_picture(right):
    truth = _posed(right)
    mask = _mask(forward(right, truth), right)
    assert 800 < mask.sum() < 8000
    start = _moved(truth, shift=(0.012, -0.01, 0.0), turn=0.0)
    term = surfaces.silhouette(right, CAMERA, mask, sigma=1.0)
    found = fit(right, terms=[term], start=start, betas=truth.betas, iterations=40)
    overlap = [
        (mask & other).sum() / (mask | other).sum()
        for other in (_mask(forward(right, p), right) for p in (start, found.params))
    ]
    assert overlap[0] < 0.8 and overlap[1] > 0.93


def _ball(centre, radius, num=400):
    i = np.arange(num) + 0.5
    z, azimuth = 1 - 2 * i / num, np.pi * (1 + 5**0.5) * i
    n = np.stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], -1)
    return np.asarray(centre) + radius * n, n


def test_fingertips_touch_an_object_and_stay_out_of_it(right):
    truth = _posed(right, bend=0.9)
    mesh = forward(right, truth)
    tips = vertex_landmarks(right, right.tips, ("thumb", "index", "middle", "ring", "little"))
    at = np.asarray(landmarks(right, truth, tips))
    # a ball that the index and the middle finger have just entered
    centre = at[[1, 2]].mean(0) + np.array([0.0, 0.0, 0.025])
    radius = np.linalg.norm(at[[1, 2]] - centre, axis=1).max() + 0.004
    points, normals = _ball(centre, radius)
    touching = np.array([0, 1, 1, 0, 0])
    every = [
        surfaces.contact(tips, points, normals, touching, sigma=5e-4),
        surfaces.object_penetration(right, points, normals, sigma=5e-4),
    ]
    settings = FitSettings(sigma_3d=0.01)
    found = fit(right, keypoints3d=mesh.keypoints, terms=every, start=truth, betas=truth.betas, settings=settings)
    height = lambda x: np.linalg.norm(np.asarray(x) - centre, axis=-1) - radius  # noqa: E731
    # the pads of the fingers touch first, so that the tips themselves end a little above
    assert np.abs(height(landmarks(right, found.params, tips))[[1, 2]]).max() < 3e-3
    inside = [-height(forward(right, p).vertices).min() for p in (truth, found.params)]
    assert inside[0] > 3e-3 and inside[1] < 2e-3


def test_fingers_do_not_cross(right):
    spheres, radii = surfaces.collision_spheres(right)
    angles = np.zeros((15, 3), np.float32)
    angles[0, 1], angles[3, 1] = -0.4, 0.3  # index and middle finger towards and into each other
    crossed = HandParams(jnp.zeros(3), pose_from_angles(right, angles), jnp.zeros(right.num_betas), jnp.zeros(3))
    term = surfaces.self_penetration(right, sigma=2e-4)

    def overlap(params):
        x = np.asarray(landmarks(right, params, spheres))
        pairs = np.asarray(term.groups)
        return (np.asarray(term.data) - np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=-1)).max()

    assert overlap(HandParams.zeros()) < 0 < overlap(crossed)
    measured = forward(right, crossed).keypoints
    found = fit(right, keypoints3d=measured, terms=[term], settings=FitSettings(sigma_3d=0.003))
    assert overlap(found.params) < 0.2 * overlap(crossed)
    assert (radii > 0.003).all() and (radii < 0.03).all()


def test_several_views_and_cameras_that_are_not_quite_known(right):
    params = replace(_posed(right), transl=jnp.zeros(3))
    truth = forward(right, params).keypoints
    cameras = ring_of_cameras(4)
    uv = project(cameras, jnp.broadcast_to(truth, (4, 21, 3)))
    found = fit(right, keypoints2d=uv, camera=cameras, views=4, settings=FitSettings(sigma_2d=0.5))
    assert found.errors.shape == (4, 21) and found.rms < 0.5
    assert np.linalg.norm(found.keypoints - truth, axis=-1).max() < 1e-3

    off = terms.adjust_camera(cameras, jnp.zeros((4, 7)).at[1, 1].set(0.01).at[2, 6].set(0.03))
    settings = FitSettings(sigma_2d=0.5)
    known = fit(right, keypoints2d=uv, camera=off, views=4, settings=settings)
    refined = fit(right, keypoints2d=uv, camera=off, views=4, settings=settings, refine_cameras=True)
    assert refined.rms < 0.3 * known.rms
    assert refined.covariance.shape == (51 + 10 + 28,) * 2
    np.testing.assert_allclose(refined.camera.K[2, 0, 0], 600.0, rtol=0.02)


def test_a_depth_picture_gives_points_in_space(right):
    mesh = forward(right, _posed(right))
    points, _ = _scan(mesh, right, num=60_000)
    column, row = np.round(np.asarray(project(CAMERA, jnp.asarray(points, jnp.float32)))).astype(int).T
    depth = np.full((128, 128), np.inf, np.float32)
    np.minimum.at(depth, (row, column), points[:, 2].astype(np.float32))
    depth[np.isinf(depth)] = 0
    cloud, weights = surfaces.points_from_depth(CAMERA, depth, num_points=256)
    assert weights.sum() == 256
    assert np.percentile(_skin_distance(cloud, mesh, right), 90) < 1.5e-3  # a pixel is 1.7 mm wide
    cloud, weights = surfaces.points_from_depth(CAMERA, depth, mask=np.zeros((128, 128), bool))
    assert weights.sum() == 0 and np.isfinite(cloud).all()


def test_two_explanations_are_told_apart_or_said_to_be_two(right):
    """A flat hand seen from the side is as good as its mirror image in depth."""
    params = replace(_posed(right, bend=0.0), global_orient=jnp.array([0.0, 0.7, 0.0]))
    uv = project(CAMERA, forward(right, params).keypoints)
    found = fit(right, keypoints2d=uv, camera=CAMERA)
    assert found.runner_up_cost >= found.cost
    assert np.isfinite(found.runner_up_cost)
    other = forward(right, found.runner_up).keypoints
    assert np.linalg.norm(other - found.keypoints, axis=-1).mean() > 5e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda h: terms.mesh_vertices(h, np.zeros((5, 3))), r"\(\.\.\., 778, 3\)"),
        (lambda h: surfaces.point_cloud(h, np.zeros((5, 3)), np.ones(4)), "one for each"),
        (lambda h: surfaces.point_cloud_planes(h, np.zeros((5, 3)), np.zeros((4, 3))), "one shape|one for each"),
        (lambda h: surfaces.silhouette(h, CAMERA, np.zeros(5)), r"\(\.\.\., H, W\)"),
        (lambda h: surfaces.points_from_depth(CAMERA, np.zeros(5)), r"\(\.\.\., H, W\)"),
        (lambda h: fit(h, terms=[surfaces.self_penetration(h)]), "give a start"),
        (lambda h: fit(h, keypoints3d=np.zeros((2, 21, 3)), terms=[surfaces.self_penetration(h)]), "same leading axes"),
        (lambda h: fit(h, keypoints3d=np.zeros((21, 3)), refine_cameras=True), "no full camera"),
        (lambda h: fit(h, keypoints2d=np.zeros((3, 21, 2)), views=2, camera=CAMERA), "2 views"),
    ],
)
def test_bad_input_is_answered(right, make, message):
    with pytest.raises(ValueError, match=message):
        make(right)


def test_nothing_measured_is_finite(right):
    """A mask without a hand, and points of no weight: the start remains, with the prior's uncertainty."""
    start = _posed(right)
    empty = surfaces.silhouette(right, CAMERA, np.zeros((128, 128), bool))
    nothing = surfaces.point_cloud(right, np.zeros((50, 3)), np.zeros(50))
    found = fit(right, terms=[empty, nothing], start=start, iterations=10)
    for leaf in jax.tree.leaves((found.params, found.covariance, found.keypoints)):
        assert np.isfinite(leaf).all()
