from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jhand
from jhand.geometry import distort, make_camera, project
from jhand.render import Light, interpolate, make_mesh, make_scene, render, segmentation, soft_mask
from tests.render.reference import cast_rays

SIZE = (40, 48)
CAMERA = make_camera(focal=70.0, principal=np.array([23.5, 19.5]))
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
HALVES = np.array([[0, 2, 1], [0, 3, 2]])


def hand_at(hand, seed, distance=0.35):
    """A hand in any pose before the camera."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = jhand.HandParams(
        1.5 * jax.random.normal(keys[0], (3,)),
        jhand.sample_poses(keys[1], hand),
        jnp.zeros(10),
        jnp.array([0.0, 0.0, distance]),
    )
    v = jhand.forward(hand, params).vertices
    return v - v.mean(0) + jnp.array([0.0, 0.0, distance])


def compare(scene, camera=CAMERA, size=SIZE):
    """Intersection over union of the masks, and the greatest difference in depth where both see one triangle."""
    picture = jax.jit(render, static_argnames="size")(scene, camera, size)
    vertices = np.concatenate([m.vertices for m in scene.meshes])
    starts = np.cumsum([0, *(len(m.vertices) for m in scene.meshes)])
    faces = np.concatenate([np.asarray(m.faces) + s for m, s in zip(scene.meshes, starts, strict=False)])
    depth, face, bary = cast_rays(vertices, faces, camera.K, camera.T_cam_world, size)
    bounds = np.cumsum([0, *(len(m.faces) for m in scene.meshes)])
    mine = np.where(picture.mesh_id >= 0, np.asarray(picture.face_id) + bounds[np.maximum(picture.mesh_id, 0)], -1)
    mask, truth = np.asarray(picture.alpha) > 0, face >= 0
    assert bool(picture.complete)
    same = (mine == face) & truth
    assert same.sum() > 0.97 * truth.sum()  # others share an edge, or lie as near
    both = mask & truth
    assert np.abs(np.asarray(picture.depth) - depth)[both].max() < 1e-4
    assert np.abs(np.asarray(picture.barycentric) - bary)[same].max() < 2e-3
    return (mask & truth).sum() / max((mask | truth).sum(), 1)


@pytest.mark.parametrize("seed", range(6))
def test_hands_are_those_of_the_ray_caster(right, seed):
    assert compare(make_scene(make_mesh(hand_at(right, seed), right.faces))) > 0.995


def test_two_hands_that_go_through_each_other(right, left):
    scene = make_scene(
        [make_mesh(hand_at(right, 1), right.faces), make_mesh(hand_at(left, 2), left.faces, object_id=1)]
    )
    assert compare(scene) > 0.995
    objects, _ = segmentation(render(scene, CAMERA, SIZE), scene)
    assert set(np.unique(objects)) == {-1, 0, 1}


@pytest.mark.parametrize("case", ["across the near plane", "behind", "smaller than a pixel", "edge on", "huge"])
def test_hard_triangles(case):
    if case == "across the near plane":
        v = np.array([[-0.3, 0.1, -0.5], [0.3, 0.1, -0.5], [0.0, 0.1, 2.0], [0.05, -0.1, 1.0], [0.1, 0.1, 1.0]])
        f = np.array([[0, 1, 2], [2, 3, 4]])
    elif case == "behind":
        v = np.array(
            [[-0.3, 0.1, -0.5], [0.3, 0.1, -0.5], [0.0, 0.1, -2.0], [0.05, -0.1, 1.0], [0.1, 0.1, 1.0], [0, 0, 1]]
        )
        f = np.array([[0, 1, 2], [3, 4, 5]])
    elif case == "smaller than a pixel":
        rng = np.random.default_rng(0)
        centre = np.stack([*rng.uniform(-0.3, 0.3, (2, 4000)), np.full(4000, 1.0)], -1)
        v = (centre[:, None] + rng.normal(0, 0.004, (4000, 3, 3))).reshape(-1, 3)
        f = np.arange(12000).reshape(-1, 3)
    elif case == "edge on":
        v = np.array([[0, 0, 1.0], [0, 0, 2.0], [0, 0, 3.0], [-0.1, 0, 1], [0.1, 0, 1], [0, 0.1, 1]])
        f = np.array([[0, 1, 2], [3, 4, 5]])
    else:
        v, f = np.array([[-50, -40, 1.0], [60, -50, 1.5], [0, 80, 2.0]]), np.array([[0, 1, 2]])
    scene = make_scene(make_mesh(v.astype(np.float32), f))
    assert compare(scene) > 0.995


def test_an_empty_view_and_too_many_triangles():
    scene = make_scene(make_mesh(SQUARE + np.array([0, 0, -3.0], np.float32), HALVES))
    picture = render(scene, CAMERA, SIZE)
    assert not np.asarray(picture.alpha).any() and (np.asarray(picture.mesh_id) == -1).all()
    assert all(np.isfinite(np.asarray(a, float)).all() for a in jax.tree.leaves(picture)) and bool(picture.complete)
    large = make_scene(make_mesh(SQUARE + np.array([0, 0, 1.0], np.float32), HALVES))
    assert not bool(render(large, CAMERA, SIZE, capacity=20).complete)


def test_pixels_are_where_project_says_lens_included(right):
    lens = np.array([0.15, -0.05, 0.004, -0.003, 0.01, 0.02, 0, 0], np.float32)
    camera = make_camera(focal=90.0, principal=np.array([40.0, 30.0]), distortion=lens)
    v = hand_at(right, 3, distance=0.25)
    picture = render(make_scene(make_mesh(v, right.faces)), camera, (60, 80))
    places = interpolate(picture, make_scene(make_mesh(v, right.faces)), [v])
    seen = np.asarray(picture.alpha) > 0
    uv = np.asarray(project(camera, places[seen]))
    row, column = np.nonzero(seen)
    np.testing.assert_allclose(uv, np.stack([column, row], -1), atol=0.05)
    np.testing.assert_allclose(places[seen][:, 2], np.asarray(picture.depth)[seen], atol=1e-5)
    assert np.abs(distort(np.array([[0.3, 0.3]], np.float32), lens) - 0.3).max() > 0.003  # the lens does bend


def test_normals_light_and_the_back():
    towards = Light(jnp.array([0.0, 0.0, -1.0]), jnp.array([0.5, 0.5, 0.5]))
    square = make_mesh(0.2 * SQUARE + np.array([0, 0, 1.0], np.float32), HALVES, np.array([1.0, 0.5, 0.0]))
    front = render(make_scene(square, [towards], ambient=0.25), CAMERA, SIZE)
    middle = lambda p: np.asarray(p)[20, 24]  # noqa: E731
    np.testing.assert_allclose(middle(front.normal), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(middle(front.rgb), [0.75, 0.375, 0], atol=1e-5)
    back = render(make_scene(replace(square, faces=square.faces[:, ::-1]), [towards], ambient=0.25), CAMERA, SIZE)
    np.testing.assert_allclose(middle(back.normal), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(middle(back.rgb), [0.225, 0.1125, 0], atol=1e-5)


def test_what_stands_before_a_light_casts_a_shadow():
    floor = make_mesh(0.4 * SQUARE + np.array([0, 0, 1.0], np.float32), HALVES)
    blind = make_mesh(0.08 * SQUARE + np.array([-0.1, 0, 0.8], np.float32), HALVES)
    direction = np.array([-0.447, 0.0, -0.894], np.float32)
    light = Light(jnp.asarray(direction), jnp.full(3, 0.7), shadows=True)
    both = render(make_scene([floor, blind], [light], ambient=0.2), CAMERA, SIZE)
    alone = render(make_scene([floor], [light], ambient=0.2), CAMERA, SIZE)
    on_floor = np.asarray(both.mesh_id) == 0
    darker = np.asarray(both.rgb[..., 0] < 0.5 * alone.rgb[..., 0]) & on_floor
    row, column = np.nonzero(darker)
    # the middle of the shadow: from (-0.1, 0, 0.8) along the light to the floor
    np.testing.assert_allclose([column.mean(), row.mean()], [23.5, 19.5], atol=1.5)
    assert 0.4 < darker.sum() / (0.16 * 70) ** 2 < 1.3
    lit = on_floor & ~darker
    np.testing.assert_allclose(both.rgb[lit], alone.rgb[lit], atol=0.25)


@pytest.mark.parametrize("what", ["rgb", "depth", "normal"])
def test_gradients_are_those_of_finite_differences(right, what):
    """In pixels whose triangle stays: visibility is hard."""
    v = hand_at(right, 4)
    colours = jax.random.uniform(jax.random.key(0), v.shape)
    push = 0.02 * jax.random.normal(jax.random.key(1), (3,))
    base = render(make_scene(make_mesh(v, right.faces, colours)), CAMERA, SIZE)
    weights = jax.random.normal(jax.random.key(2), getattr(base, what).shape)

    def measure(step, fixed=None):
        # a smooth motion of the hand: shifted, and bent a little
        moved = v + step * (push + 0.3 * jnp.sin(20 * v[:, ::-1]) * 0.02)
        picture = render(make_scene(make_mesh(moved, right.faces, colours)), CAMERA, SIZE)
        stays = (picture.face_id == base.face_id) if fixed is None else fixed
        values = getattr(picture, what)
        mask = stays if values.ndim == 2 else stays[..., None]
        return jnp.sum(jnp.where(mask, weights * values, 0)), stays

    h = 2e-4
    stays = measure(h)[1] & measure(-h)[1]
    slope = jax.grad(lambda s: measure(s, stays)[0])(0.0)
    numeric = (measure(h, stays)[0] - measure(-h, stays)[0]) / (2 * h)
    # the light falls off with a kink where a surface turns away from it
    np.testing.assert_allclose(slope, numeric, rtol=0.1 if what == "rgb" else 0.03, atol=2e-3)


def test_gradients_of_the_soft_mask(right):
    """Pixel by pixel: which edges make the outline is decided hard, and where that changes there is a step."""
    v = hand_at(right, 5)
    measure = jax.jit(lambda shift: soft_mask(make_scene(make_mesh(v + shift, right.faces)), CAMERA, SIZE, 1.5))
    slope = np.asarray(jax.jit(jax.jacfwd(measure))(jnp.zeros(3)))
    h = 1e-4
    numeric = np.stack([(measure(h * e) - measure(-h * e)) / (2 * h) for e in jnp.eye(3)], -1)
    near = np.abs(slope).max(-1) > 0.05 * np.abs(slope).max()
    assert near.sum() > 200
    right_there = np.abs(slope - numeric).max(-1) < 0.02 * np.abs(slope).max()
    assert right_there[near].mean() > 0.95
    np.testing.assert_allclose(np.median(slope[near] - numeric[near], 0), 0, atol=0.1)


def test_the_soft_mask_is_the_distance_from_the_outline():
    disc = np.concatenate([[[0, 0]], [[np.cos(t), np.sin(t)] for t in np.linspace(0, 2 * np.pi, 64, endpoint=False)]])
    v = np.concatenate([0.15 * disc, np.ones((65, 1))], 1).astype(np.float32)
    f = np.array([[0, 1 + (k + 1) % 64, 1 + k] for k in range(64)])
    soft = np.asarray(soft_mask(make_scene(make_mesh(v, f)), CAMERA, SIZE, 1.0))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = 0.15 * 70 - np.hypot(x - 23.5, y - 19.5)
    np.testing.assert_allclose(soft, 1 / (1 + np.exp(-distance)), atol=0.02)
    away = soft_mask(make_scene(make_mesh(v + np.array([9, 0, 0], np.float32), f)), CAMERA, SIZE, 1.0)
    assert float(away.max()) < 1e-6


def test_it_can_be_vmapped_and_bad_input_is_said(right):
    vertices = jnp.stack([hand_at(right, s) for s in (1, 2, 3)])
    one = lambda v: render(make_scene(make_mesh(v, right.faces)), CAMERA, (24, 24))  # noqa: E731
    many = jax.jit(jax.vmap(one))(vertices)
    np.testing.assert_array_equal(many.face_id[1], one(vertices[1]).face_id)
    np.testing.assert_allclose(many.rgb[2], one(vertices[2]).rgb, atol=1e-5)
    with pytest.raises(ValueError, match="at least one mesh"):
        render(make_scene([]), CAMERA, SIZE)
    with pytest.raises(ValueError, match="expected a single one"):
        render(make_scene(make_mesh(SQUARE, HALVES)), jax.tree.map(lambda a: a[None], CAMERA), SIZE)
