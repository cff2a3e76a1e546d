import dataclasses
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jhand.contact import KINDS, Solid, solid_faces, solid_vertices
from jhand.data.augmentation import crop_to_hand
from jhand.data.clip import check_clip, flatten
from jhand.data.pipeline import batches
from jhand.data.records import ClipRecords
from jhand.data.sources import open_source
from jhand.data.world import (
    WorldConfig,
    cached_world,
    egocentric,
    grasps,
    load_assets,
    load_backgrounds,
    sample_scene,
    single_hand,
    world_clips,
)
from jhand.data.world.cameras import facing, upright
from jhand.data.world.clips import LEFT, OBJECT, RIGHT
from jhand.data.world.scripts import finger_motion, wander
from jhand.data.world.scripts import two_hands as two_hands_script
from jhand.geometry import project, signed_distance, transform
from jhand.hand import HandParams, forward, joint_angles, keypoints, load_hand, pose_from_angles
from jhand.hand.anatomy import JOINT_LIMITS
from tests.data.clips import params_of, reprojected
from tests.data.published import write_freihand
from tests.hand.mano_files import hand_arrays, write_clean

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
SIZE = 32
WORLDS = {
    "one hand": single_hand(SIZE),
    "a grasp": grasps(SIZE, samples=1, frames=2),
    "before the eyes, two views": egocentric(SIZE, views=2, frames=2, samples=1),
}


@pytest.fixture(scope="module")
def assets():
    return load_assets()


@pytest.fixture(scope="module", params=WORLDS)
def world(request, assets, compiled_in_a_hurry):
    config = WORLDS[request.param]
    return config, list(world_clips(config, 3, range(12), assets))


def test_clips_keep_to_the_schema(world):
    config, clips = world
    for clip in clips:
        check_clip(clip)
        assert clip["image"].shape == (config.frames, config.views, *config.size, 3)
        assert clip["image"].std() > 3


def test_annotations_agree_with_each_other(world, assets):
    _, clips = world
    for clip in clips:
        for side, hand in clip["hands"].items():
            counts = hand["confidence"] > 0
            assert counts.mean() > 0.5 and not hand["keypoints2d"][~counts].any()
            np.testing.assert_allclose(hand["keypoints2d"][counts], reprojected(clip, side)[counts], atol=2e-3)
            model = {"right": assets.right, "left": assets.left}[side]
            found = keypoints(model, params_of(hand))
            np.testing.assert_allclose(found, hand["keypoints3d"], atol=2e-6)
            angles = np.asarray(joint_angles(model, hand["params"]["hand_pose"]))
            assert (angles > JOINT_LIMITS[..., 0] - 1e-3).all()
            assert (angles < JOINT_LIMITS[..., 1] + 1e-3).all()


def test_what_is_visible_is_seen(world):
    """Beside every keypoint that is said to be visible there is a pixel of its hand, about as deep as the keypoint."""
    _, clips = world
    number = 0
    for clip in clips:
        T = clip["camera"]["T_cam_world"]
        for side, hand in clip["hands"].items():
            own = clip["segmentation"] == {"right": RIGHT, "left": LEFT}[side]
            points = np.einsum("tvij,tkj->tvki", T[..., :3, :3], hand["keypoints3d"]) + T[..., None, :3, 3]
            for t, v, k in np.argwhere(hand["visible"] > 0):
                x, y = np.round(hand["keypoints2d"][t, v, k]).astype(int)
                around = np.s_[t, v, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                assert own[around].any()
                depth = clip["depth"][around][own[around]]
                assert (np.abs(depth - points[t, v, k, 2]) < 0.06).any()
                number += 1
            # a picture without the hand shows none of its points
            absent = ~own.any((2, 3))
            assert not hand["visible"][absent].any()
    assert number > 100


def test_depth_is_where_something_is(world):
    _, clips = world
    for clip in clips:
        np.testing.assert_array_equal(clip["depth"] > 0, clip["segmentation"] > 0)


ON_ONE_DEVICE_AND_TWO = """
import sys, jax, numpy as np
from jhand.data.clip import flatten
from jhand.data.world import load_assets, make_clips, single_hand, world_clips
config, assets = single_hand(32), load_assets()
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
each = lambda seed, numbers, assets: make_clips(seed, numbers, config, assets)
specs = jax.P(), jax.P("data"), jax.P()
each = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=jax.P("data"), check_vma=False))
two = flatten(jax.tree.map(np.asarray, each(3, np.arange(8), assets)))
for number, clip in enumerate(world_clips(config, 3, range(8), assets)):
    for name in two:
        np.testing.assert_array_equal(two[name][number], flatten(clip)[name])
other = next(world_clips(config, 4, range(1), assets))
assert (other["image"] != two["image"][0]).mean() > 0.5
"""


def test_a_clip_is_the_same_whatever_it_is_made_with():
    """Four on each of two devices, or sixteen on one: the same bits. In a process of its own, compiled as by users:
    the emitter of loops that the tests choose for its haste rounds as the shape of a batch lets it.
    """
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "fusion_emitters" not in flag]
    flags = " ".join([*flags, "--xla_force_host_platform_device_count=2"])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-c", ON_ONE_DEVICE_AND_TWO], check=True, env=environment)


def test_the_disk_gives_back_what_was_made_and_goes_on(tmp_path, assets, monkeypatch):
    config = WORLDS["one hand"]
    monkeypatch.setattr("jhand.data.world.datasets._SHARD", 8)
    records = cached_world(config, 3, 12, folder=tmp_path, assets=assets)
    made = list(world_clips(config, 3, range(12), assets))
    assert isinstance(records, ClipRecords)
    assert len(records) == 12
    for number in (0, 9):
        for key, value in flatten(made[number]).items():
            np.testing.assert_array_equal(flatten(records[number])[key], value)
    files = sorted(tmp_path.rglob("*.array_record"))
    before = [f.stat().st_mtime_ns for f in files]
    files[1].unlink()
    assert len(cached_world(config, 3, 12, folder=tmp_path, assets=assets)) == 12
    assert files[0].stat().st_mtime_ns == before[0]
    assert files[1].exists()


@pytest.fixture(scope="module")
def pairs(assets, compiled_in_a_hurry):
    """Actors of 64 two-hand clips at one instant."""
    play = jax.jit(jax.vmap(lambda key: two_hands_script(key, assets, jnp.zeros(1))))
    return play(jax.random.split(jax.random.key(1), 64))


def test_two_hands_come_close_and_do_not_enter_each_other(pairs, assets):
    right, left = (
        forward(hand, jax.tree.map(lambda x, n=n: x[:, n, 0], pairs.params)).vertices
        for n, hand in enumerate((assets.right, assets.left))
    )
    few = np.arange(0, 778, 3)
    away = np.concatenate(
        [
            signed_distance(right[:, few], left, assets.left.faces),
            signed_distance(left[:, few], right, assets.right.faces),
        ],
        1,
    )
    least = away.min(1)
    assert (least < 0.005).mean() >= 0.2
    assert np.maximum(-least, 0).mean() < 0.001


def test_contact_is_the_distance_from_the_mesh(assets):
    """Meshes of superquadrics cut their narrow edges by up to 3 mm; the others are close to their solids."""
    for clip in world_clips(WORLDS["a grasp"], 3, range(6), assets):
        objects, hand = clip["objects"], clip["hands"]["right"]
        solid = Solid(*(jnp.asarray(objects[k][0]) for k in ("mesh_id", "half_size", "roundness")))
        v = np.asarray(solid_vertices(solid))
        T = objects["T_world_object"][0, 0]
        mesh = forward(assets.right, params_of(hand)).vertices[0]
        expected = np.asarray(signed_distance(mesh, v @ T[:3, :3].T + T[:3, 3], solid_faces()))
        near = np.abs(expected) < 0.01
        atol = 3e-3 if KINDS[objects["mesh_id"][0]] == "superquadric" else 1e-3
        np.testing.assert_allclose(hand["contact"][0][near], expected[near], atol=atol)
        on_surface = signed_distance(objects["points"][0], v, solid_faces())
        np.testing.assert_allclose(on_surface, 0, atol=2e-5)  # float32


def test_objects_are_seen(assets):
    clips = list(world_clips(WORLDS["a grasp"], 3, range(12), assets))
    assert np.mean([(c["segmentation"] == OBJECT).any() for c in clips]) > 0.7


def test_before_the_eyes_are_the_owners_hands(assets):
    """Within reach, each on its own side, and the fingers further away than the wrist."""
    clips = list(world_clips(WORLDS["before the eyes, two views"], 3, range(12), assets))
    right, left = (np.stack([c["hands"][side]["keypoints3d"][0] for c in clips]) for side in ("right", "left"))
    assert (right[:, 0, 0] >= 0).all() and (left[:, 0, 0] <= 0).all()
    for points in (right, left):
        assert (np.linalg.norm(points[:, 0], axis=-1) < 0.7).all()
        assert (points[:, 9, 2] > points[:, 0, 2]).mean() > 0.8


def test_motion_is_one_whatever_instants_are_asked_for(right):
    times, others = jnp.linspace(0, 4, 41), jnp.linspace(1, 3, 41)
    key = jax.random.key(0)
    move = jax.jit(lambda times: (finger_motion(key, right, times), wander(key, jnp.eye(3), jnp.zeros(3), times)))
    (whole, path), (between, _) = move(times), move(others)
    np.testing.assert_allclose(whole[10:31], between[::2], atol=1e-5)
    assert np.ptp(np.asarray(path)[:, :3, 3], axis=0).max() > 0.02
    pose = pose_from_angles(right, whole)
    assert np.isfinite(pose).all()


def test_the_users_own_pictures_are_behind(tmp_path, assets):
    for number, colour in enumerate(((250, 0, 0), (250, 10, 0))):
        Image.new("RGB", (300, 200 + number), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = load_backgrounds(tmp_path, 64)
    assert pictures.shape == (2, 64, 64, 3)
    with_pictures = dataclasses.replace(assets, backgrounds=jnp.asarray(pictures))
    behind = jax.jit(lambda key: sample_scene(key, WORLDS["one hand"], with_pictures).background)
    red, _, blue = np.moveaxis(np.asarray(behind(jax.random.key(0))), -1, 0)
    assert red.min() > 0.1 and blue.max() < 1e-6
    with pytest.raises(ValueError, match="expected pictures"):
        load_backgrounds(tmp_path / "nowhere")


def test_worlds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="positive"):
        WorldConfig(frames=0)
    with pytest.raises(ValueError, match="longer"):
        WorldConfig(frames=1000)


def test_sources_have_names(tmp_path, monkeypatch):
    monkeypatch.setenv("JHAND_CACHE", str(tmp_path))
    assert len(open_source("world:single_hand:3:5:32")) == 3
    for name in ("world:nowhere", "world", "freehand:/data", "world:single_hand:many"):
        with pytest.raises(ValueError, match="expected"):
            open_source(name)


def test_one_training_takes_the_world_and_published_data(tmp_path, monkeypatch):
    """By their names alone: the same picture in, the same keypoints out."""
    monkeypatch.setenv("JHAND_CACHE", str(tmp_path / "worlds"))
    mano = write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0))
    write_freihand(tmp_path, load_hand(mano))
    for name in ("world:single_hand:8:0:32", f"freihand:{tmp_path}:training", f"freihand:{tmp_path}:training:{mano}"):
        source = open_source(name)
        check_clip(source[0])
        losses = small_training(source)
        assert losses[-1] < 0.7 * losses[0]


def small_training(source):
    def prepare(clip):
        hand = clip["hands"]["right"]
        uv = hand["keypoints2d"][0, 0] / 16 - 1
        return {"image": clip["image"][0, 0] / np.float32(255), "uv": uv, "counts": hand["confidence"][0, 0]}

    def loss(weights, batch):
        found = (batch["image"].reshape(4, -1) @ weights).reshape(4, 21, 2)
        missed = jnp.square(found - batch["uv"]).sum(-1) * batch["counts"]
        return missed.sum() / batch["counts"].sum()

    @jax.jit
    def step(weights, state, batch):
        value, slope = jax.value_and_grad(loss)(weights, batch)
        updates, state = optimiser.update(slope, state)
        return optax.apply_updates(weights, updates), state, value

    crop = lambda clip, rng: crop_to_hand(clip, "right", 32, jitter=0.02 * rng.standard_normal(3))  # noqa: E731
    optimiser, weights, losses = optax.adam(1e-4), jnp.zeros((32 * 32 * 3, 42)), []
    state = optimiser.init(weights)
    data = iter(batches(source, prepare, batch=4, seed=0, augment=crop))
    for _ in range(60):
        weights, state, value = step(weights, state, next(data))
        losses.append(float(value))
    data.close()
    return losses


def test_the_pages_code(root, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "world.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "world.md", "exec"), {})
    shapes, first, second = capsys.readouterr().out.splitlines()
    assert shapes == "(16, 1, 1, 32, 32, 3) (16, 1, 21, 3)"
    assert first.startswith("one_hand/0/0 ") and second.startswith("one_hand/0/1 ")


def test_fingers_point_up_before_an_upright_camera(right):
    keys = jax.random.split(jax.random.key(0), 32)
    turned = keypoints(right, HandParams(2 * jax.random.normal(keys[0], (32, 3)), *_flat(32)))
    points = jnp.concatenate([turned[:, None, :1], turned[:, None]], 2)  # the wrist's frame, then the keypoints
    cameras = jax.vmap(lambda key, p: upright(key, p, jnp.zeros(1), (48, 64)))(keys, points)
    uv = project(cameras, points)[:, 0, 1:]
    away = transform(cameras.T_cam_world, points)[:, 0, 1:, 2]
    right_of, below = np.moveaxis(np.asarray(uv[:, 9] - uv[:, 0]), -1, 0)
    foreshortened = np.hypot(right_of, below) < 5
    tilt = np.abs(np.arctan2(right_of, -below))[~foreshortened]
    assert (away > 0).all() and len(tilt) > 20 and tilt.max() < 0.9 and tilt.mean() < 0.4


def test_a_hand_shows_its_palm_to_the_camera_it_faces(right):
    keys = jax.random.split(jax.random.key(1), 32)
    turned = keypoints(right, HandParams(2 * jax.random.normal(keys[0], (32, 3)), *_flat(32)))
    points = jnp.concatenate([turned[:, None, :1], turned[:, None]], 2)
    cameras = jax.vmap(lambda key, p: facing(key, p, jnp.zeros(1), (48, 64)))(keys, points)
    uv = np.asarray(project(cameras, points)[:, 0, 1:])
    # fingers up and thumb to the right: a right hand's palm, not its back
    assert (uv[:, 9, 1] < uv[:, 0, 1]).all()
    assert np.mean(uv[:, 2, 0] > uv[:, 17, 0]) == 1


def _flat(number):
    return jnp.zeros((number, 15, 3)), jnp.zeros((number, 10)), jnp.zeros((number, 3))
