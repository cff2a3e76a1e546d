"""HOGraspNet's fits: each term against finite differences, what it is for, and both tracks from end to end."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments.hograspnet as experiments
from jhand import track
from jhand.contact import make_solid, solid_faces, solid_vertices
from jhand.data.world.cameras import look_at
from jhand.geometry import make_camera, project, rigid, so3_exp, transform
from jhand.hand import load_hand, sample_angles
from jhand.nn import bone_frames
from jhand.render import make_mesh, make_scene, render
from jhand.systems import hograspnet as system
from jhand.systems.hograspnet import Config, Inputs, Mano
from jhand.track.regions import region_from_keypoints

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
SIZE, FRAMES = 32, 2
QUICK = Config.tiny(halo_steps=30, points=64, pixels=16, samples=6, cells=20, refinements=1)


@pytest.fixture(scope="module")
def scene():
    """Inputs of one sequence, exact, and the hand in it."""
    hand = load_hand()
    eyes = 0.8 * jnp.stack([jnp.array([jnp.sin(a), -0.5, -jnp.cos(a)]) for a in (-1.0, -0.3, 0.4, 1.1)])
    cameras = make_camera(
        focal=jnp.full((4, 2), 3.0 * SIZE),
        principal=jnp.full((4, 2), (SIZE - 1) / 2),
        T_cam_world=jax.vmap(look_at, (0, None))(eyes, jnp.zeros(3)),
    )
    angles = 0.5 * jnp.broadcast_to(sample_angles(jax.random.key(3)), (FRAMES, 15, 3))
    limits = system.axis_limits()
    angles = jnp.clip(angles, limits[..., 0], limits[..., 1])
    turn = jnp.array([[0.3, -0.2, 0.5], [0.35, -0.2, 0.5]])
    state = Mano(turn, angles, 0.5 * jnp.ones(10), jnp.log(1.1), jnp.array([[0.08, 0, 0.0], [0.08, 0.004, 0.0]]))
    keypoints, vertices = jax.jit(system.mano_surface)(state, hand)
    solid = make_solid("ellipsoid", [0.02, 0.02, 0.03])
    T = jnp.stack([rigid(so3_exp(jnp.zeros(3)), keypoints[0, 8] + jnp.array([0, 0, 0.06]))] * FRAMES)
    objects = transform(T, solid_vertices(solid)[None])

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, 0))
    @partial(jax.vmap, in_axes=(0, None, None))
    def pictures(camera, vertices, objects):
        parts = [make_mesh(vertices, hand.faces), make_mesh(objects, solid_faces())]
        picture = render(make_scene(parts), camera, (SIZE, SIZE))
        return picture.depth, (picture.mesh_id == 0).astype(float), (picture.mesh_id == 1).astype(float)

    uv = project(jax.tree.map(lambda x: x[None], cameras), keypoints[:, None])
    seen = pictures(cameras, vertices, objects)
    one = Inputs(cameras, uv, jnp.ones(uv.shape[:-1]), *seen, T, solid_vertices(solid), solid_faces())
    return one, state, keypoints, vertices


def moved(state, key, size=0.05):
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree, [x + size * jax.random.normal(k, jnp.shape(x)) for k, x in zip(keys, leaves, strict=True)]
    )


def check_slope(loss, state, key, step=1e-3, share=0.03):
    """Along a random direction, the slope is what central differences say."""
    way = jax.tree.map(lambda x, y: x - y, moved(state, key, 1.0), state)
    along = lambda s: loss(jax.tree.map(lambda x, w: x + s * w, state, way))  # noqa: E731
    value, slope = jax.jit(lambda s: jax.jvp(along, (s,), (1.0,)))(0.0)
    beside = jax.jit(along)
    numeric = (beside(step) - beside(-step)) / (2 * step)
    assert jnp.isfinite(value)
    np.testing.assert_allclose(slope, numeric, rtol=share, atol=share * max(1e-3, abs(float(value))))


@pytest.mark.parametrize("term", ["keypoints", "limits", "betas", "scale", "smooth", "penetration"])
def test_slopes_of_the_mano_track(scene, right, term):
    one, state, keypoints, _ = scene
    start = moved(state, jax.random.key(1))
    # the object where the hand is, so that there is something to leave
    inside = replace(one, T_world_object=one.T_world_object.at[:, :3, 3].set(keypoints[:, 6]))
    check_slope(lambda s: system.mano_losses(s, inside, right, QUICK)[term], start, jax.random.key(2))


def test_slopes_of_rendered_depth_and_masks(scene, right):
    """Which triangle a pixel sees has no slope: depth is checked along its rays, where that stays as it is."""
    one, _, _, vertices = scene
    camera = jax.tree.map(lambda x: x[0], one.cameras)
    eye = -camera.T_cam_world[:3, :3].T @ camera.T_cam_world[:3, 3]
    alone = replace(
        one,
        cameras=jax.tree.map(lambda x: x[:1], one.cameras),
        keypoints2d=one.keypoints2d[:, :1],
        confidence=one.confidence[:, :1],
        depth=one.depth[:, :1],
        hand_mask=one.hand_mask[:, :1],
        object_mask=one.object_mask[:, :1],
    )
    losses = lambda v: system.rendered_losses(v, alone, right, QUICK)  # noqa: E731
    depth = jax.jit(lambda s: losses(eye + (1.004 + s) * (vertices - eye))[0])
    mask = jax.jit(lambda s: losses(vertices + (0.01 + s) * camera.T_cam_world[0, :3])[1])
    np.testing.assert_allclose(jax.grad(depth)(0.0), (depth(2e-4) - depth(-2e-4)) / 4e-4, rtol=0.05)
    # which edges are the outline's has none either, hence the small step
    np.testing.assert_allclose(jax.grad(mask)(0.0), (mask(1e-4) - mask(-1e-4)) / 2e-4, rtol=0.03)


def ball_of_bones(keypoints, points):
    """An occupancy that needs no training: near to a keypoint."""
    away = jnp.sqrt(jnp.min(jnp.sum((points[..., None, :] - keypoints[..., None, :, :]) ** 2, -1), -1) + 1e-8)
    return jax.nn.sigmoid((0.012 - away) / 0.004)


@pytest.mark.parametrize("term", ["keypoints", "surface", "silhouette", "bones", "penetration"])
def test_slopes_of_the_halo_track(scene, term):
    one, _, keypoints, _ = scene
    one = replace(one, T_world_object=one.T_world_object.at[:, :3, 3].set(keypoints[:, 6]))
    cloud = jax.jit(lambda k: system.sample_cloud(jax.random.key(0), one, k, QUICK))(keypoints)
    start = moved(keypoints, jax.random.key(4), 0.002)
    loss = lambda k: system.halo_losses(k, one, cloud, ball_of_bones, QUICK)[term]  # noqa: E731
    check_slope(loss, start, jax.random.key(5), step=2e-5)


def test_axes_are_locked():
    limits = system.axis_limits()
    assert (limits[1:3, 1:] == 0).all() and (limits[[0, 3, 6, 9], 2] == 0).all() and (limits[14, 1:] == 0).all()
    assert (limits[:, 0, 1] > 0).all() and (limits[system.THUMB_BASE, 1] != 0).all()
    free = jnp.zeros((1, 15, 3)).at[:, :, 0].set(0.3)
    assert system.limit_loss(free, QUICK) == 0
    twisted, base = free.at[0, 1, 2].set(0.1), free.at[0, system.THUMB_BASE, 2].set(1.0)
    bent = free.at[0, 0, 0].set(limits[0, 0, 1] + 1.0 - limits[system.THUMB_BASE, 2, 1])
    np.testing.assert_allclose(system.limit_loss(twisted, QUICK), 1000 * 0.1 / 45, rtol=1e-5)
    np.testing.assert_allclose(system.limit_loss(base, QUICK) / system.limit_loss(bent, QUICK), 10, rtol=1e-3)


def test_scale_and_root_are_as_stored(scene, right):
    """(MANO's joints - root) / scale + root."""
    _, state, keypoints, _ = scene
    same = replace(state, log_scale=jnp.zeros(()), root=jnp.zeros_like(state.root))
    plain, _ = system.mano_surface(same, right)
    np.testing.assert_allclose(plain / 1.1 + state.root[:, None], keypoints, atol=1e-5)
    np.testing.assert_allclose(keypoints[:, 0], state.root, atol=1e-5)


def test_terms_favour_the_hand_that_is_there(scene, right):
    one, _, keypoints, vertices = scene
    rendered = jax.jit(lambda v: system.rendered_losses(v, one, right, QUICK))
    there, beside = rendered(vertices), rendered(vertices + jnp.array([0.02, 0, 0.02]))
    assert there[0] < 0.01 * beside[0] + 1e-3 and there[1] < 0.6 * beside[1]
    cloud = jax.jit(lambda k: system.sample_cloud(jax.random.key(0), one, k, QUICK))(keypoints)
    nearest = jnp.min(jnp.linalg.norm(cloud.points[:, :, None] - vertices[:, None], axis=-1), -1)
    assert jnp.max(jnp.where(cloud.weights > 0, nearest, 0)) < 0.012  # measured depth is on the hand
    assert 0.3 < jnp.mean(cloud.covered) < 0.7
    longer = keypoints.at[1, 8].add(0.01)
    terms = system.halo_losses(longer, one, cloud, ball_of_bones, QUICK)
    assert terms["bones"] > 0.1 and system.halo_losses(keypoints, one, cloud, ball_of_bones, QUICK)["bones"] < 1e-4


def test_what_is_held_does_not_move():
    """While a hand is placed, its angles and shape wait."""
    start = {"root": jnp.zeros(3), "angles": jnp.zeros((2, 3))}
    loss = lambda s: jnp.sum((s["root"] - 1) ** 2) + jnp.sum((s["angles"] - 1) ** 2)  # noqa: E731
    moves = {"root": jnp.ones(3), "angles": jnp.zeros((2, 3))}
    placed = system.descend(loss, start, 100, 0.1, moves)
    np.testing.assert_allclose(placed["root"], 1, atol=0.02)
    assert (placed["angles"] == 0).all()
    both = system.descend(loss, start, 100, 0.1)
    np.testing.assert_allclose(both["angles"], 1, atol=0.02)


def test_the_mano_track(scene, right):
    """Without the stage that only places it, most of whose time here is compiling: two are compiled, not three."""
    one, _, keypoints, _ = scene
    found = system.solve(jax.tree.map(lambda x: x[None], one), replace(QUICK, steps=(0, 60, 3)), right)
    start, _ = jax.jit(lambda o: system.mano_surface(system.start_mano(o, right), right))(one)
    error = lambda k: float(jnp.mean(jnp.linalg.norm(k - keypoints, axis=-1)))  # noqa: E731
    assert error(found.keypoints[0]) < 0.5 * error(start) and error(found.keypoints[0]) < 0.008
    assert found.surface.shape == (1, FRAMES, right.num_vertices, 3)
    assert float(found.contact.min()) >= 0 and float(found.contact.max()) <= 1


def test_the_halo_track(scene, right, monkeypatch):
    one, _, keypoints, _ = scene
    network = type("Network", (), {"apply": lambda self, variables, k, p: ball_of_bones(k, p)})()
    monkeypatch.setattr(system, "HALO", lambda *_: network)
    noisy = replace(
        one, keypoints2d=one.keypoints2d + 0.4 * jax.random.normal(jax.random.key(0), one.keypoints2d.shape)
    )
    inputs = replace(jax.tree.map(lambda x: x[None], noisy), halo={"of no use": jnp.zeros((1, 1))})
    found = system.solve(inputs, replace(QUICK, track="halo"), right)
    assert jnp.mean(jnp.linalg.norm(found.keypoints[0] - keypoints, axis=-1)) < 0.006
    # the surface lies where the occupancy is 1/2, and there are as many points as are asked for
    occupancy = ball_of_bones(found.keypoints[0], found.surface[0])
    assert found.surface.shape == (1, FRAMES, QUICK.spread, 3) and jnp.mean(jnp.abs(occupancy - 0.5)) < 0.12
    lengths = bone_frames(found.keypoints[0]).lengths
    assert jnp.max(jnp.abs(lengths[0] - lengths[1])) < 0.006
    assert (found.mano.betas == 0).all()


def test_what_is_wrong_is_named(scene, right):
    inputs = jax.tree.map(lambda x: x[None], scene[0])
    with pytest.raises(ValueError, match="trained HALO"):
        system.solve(inputs, replace(QUICK, track="halo"), right)
    with pytest.raises(ValueError, match="mano or halo"):
        Config(track="nimble")
    with pytest.raises(ValueError, match="with triangles"):
        system.spread_points(np.zeros((0, 3)), np.zeros((0, 3), int), 10)


def test_each_part_is_asked_about_the_skin_of_its_bone(right):
    keypoints, points, inside, part = experiments.occupancy_samples(
        experiments.Scene(points=64), right, jax.random.key(0), 24
    )
    assert points.shape == (24, 64, 3) and inside.shape == (24, 64) and part.shape == (24, 32)
    assert 0.1 < inside.mean() < 0.5 and set(np.unique(part)) == set(range(16))
    T = np.asarray(bone_frames(keypoints).T_world_bone)
    lengths = np.asarray(bone_frames(keypoints).lengths)
    start = np.take_along_axis(T[..., :3, 3], part[..., None].astype(int), 1)
    along = np.take_along_axis(T[..., :3, 2], part[..., None].astype(int), 1)
    length = np.take_along_axis(lengths, part.astype(int), 1)
    share = np.clip(np.sum((points[:, :32] - start) * along, -1), 0, length)
    away = np.linalg.norm(points[:, :32] - start - share[..., None] * along, axis=-1)
    assert np.quantile(away[part > 0], 0.95) < 0.025  # of fingers; palms are wide


def test_finer_pictures_show_the_same():
    camera = make_camera(focal=jnp.array([40.0, 40.0]), principal=jnp.array([15.5, 15.5]))
    points = jnp.array([[0.1, -0.2, 0.9], [-0.3, 0.1, 1.2]])
    finer = project(experiments.finer(camera, 6.0), points)
    np.testing.assert_allclose(finer, (project(camera, points) + 0.5) * 6 - 0.5, atol=1e-4)


def test_hands_are_read_around_their_masks(scene, monkeypatch):
    """With a network that finds the wrist in the middle of what it is shown, if that is the right way up."""
    way = jnp.stack([jnp.zeros(21), -jnp.arange(21.0)], -1)

    def middle(networks, image, regions):
        score = jnp.exp(-(jnp.abs(regions.angle - jnp.pi / 2)))
        points = regions.centre[..., None, :] + regions.side[..., None, None] * way / 40
        return track.Hands(score, score, points, points[..., 0], jnp.zeros((*points.shape[:-1], 3)))

    monkeypatch.setattr(experiments, "hands_in_regions", middle)
    monkeypatch.setattr(experiments, "load_networks", lambda size: None)
    inputs = jax.tree.map(lambda x: x[None], scene[0])
    mask = jnp.zeros_like(inputs.hand_mask).at[..., 8:16, 20:24].set(1)
    small = experiments.PictureScene(size=SIZE, pixels=4 * SIZE)
    images = jnp.zeros((1, FRAMES, 4, 4 * SIZE, 4 * SIZE, 3), jnp.uint8)
    read = experiments.read_pictures(small, replace(inputs, hand_mask=mask), images)
    # the box of the mask, half of a pixel smaller on each side, 1.3 times as large; then the keypoints' region
    first = jnp.array([21.5, 11.5]) + 1.3 * 7 * way / 40
    found = region_from_keypoints(first)
    expected = found.centre + found.side * way / 40
    np.testing.assert_allclose(read.keypoints2d[0, 0, 0], expected, atol=0.4)
    assert read.confidence.shape == (1, FRAMES, 4, 21)
