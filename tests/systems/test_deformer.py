from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import deformer as experiment_of
from jhand.data.hidden_hands import HiddenScene, hidden_hand
from jhand.data.made import Made, first_examples
from jhand.experiment import main
from jhand.geometry import rotation_from_6d, so3_exp
from jhand.hand import HandParams, keypoints
from jhand.nn import max_mse, roi_align
from jhand.systems import deformer

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = deformer.Config.tiny(
    frames=3, channels=8, heads=2, layers=1, fused=(16, 12), judge=4, vertices=200, region=4, backbone=8
)
MADE = Made(hidden_hand, HiddenScene(frames=3))


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(jnp.asarray, first_examples(MADE, 0, 4))


def drawn(config, hand, seed=0):
    """Any values: drawing the first ones takes a compiler long."""
    shapes = jax.eval_shape(lambda key: deformer.init(key, config, hand), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def one(path, x):
        mean, spread = (1, 0.1) if path[-1].key in ("scale", "sharpness") else (0, 0.5 / np.sqrt(x.shape[0]))
        return jnp.asarray(rng.normal(mean, spread, x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


@pytest.fixture(scope="module")
def variables(right):
    return drawn(TINY, right)


apply = jax.jit(deformer.apply, static_argnums=2)


@pytest.mark.parametrize("name", ["small", "paper", *experiment_of.VARIANTS])
def test_every_size_and_variant_fits_together(name, right):
    sizes = name if name in ("small", "paper") else "tiny"
    config = getattr(deformer.Config, sizes)(**experiment_of.VARIANTS.get(name, {}))
    shapes = jax.eval_shape(lambda key: deformer.init(key, config, right), jax.random.key(0))
    side = 64 if config.sees == "pictures" else 1

    def predicted(variables, x):
        inputs = deformer.Inputs(
            jnp.zeros((2, 7, side, side, 3)) + x, jnp.zeros((2, 7, 4)), jnp.zeros((2, 7, 21, 2)), jnp.zeros((2, 7, 21))
        )
        found = deformer.apply(variables, inputs, config, right)
        return found.keypoints, found.weights

    points, weights = jax.eval_shape(predicted, shapes, jnp.zeros(()))
    assert points.shape == (2, 21, 3) and weights.shape == (2, 7)


def test_the_published_sizes(right):
    shapes = jax.eval_shape(lambda key: deformer.init(key, deformer.Config.paper(), right), jax.random.key(0))
    network = shapes["params"]["network"]
    assert network["Dense_0"]["kernel"].shape == (298, 1024) and network["Dense_1"]["kernel"].shape == (1024, 512)
    assert network["next"]["kernel"].shape == (512, 96) and network["betas"]["kernel"].shape == (256, 10)


def frames_of(rng, t=5):
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    six = (2, t, 16, 6)
    return deformer.Frames(draw(*six), draw(*six), draw(*six), draw(2, t), draw(2, 10), draw(2, t, 21, 2))


def test_frames_are_carried_by_the_sums_of_single_steps():
    frames = frames_of(np.random.default_rng(0))
    p, f, b = (np.asarray(x, np.float64) for x in (frames.pose, frames.forward, frames.backward))
    expected = np.stack(
        [p[:, 0] + f[:, 0] + f[:, 1], p[:, 1] + f[:, 1], p[:, 2], p[:, 3] + b[:, 3], p[:, 4] + b[:, 3] + b[:, 4]], 1
    )
    carried = deformer.carried_to_the_middle(frames)
    np.testing.assert_allclose(carried, expected, atol=1e-5)
    weights = np.exp(np.asarray(frames.confidence, np.float64))
    weights /= weights.sum(1, keepdims=True)
    for fusion, shares in (
        ("confident", weights),
        ("even", np.full((2, 5), 0.2)),
        ("middle", np.tile([0, 0, 1, 0, 0], (2, 1))),
    ):
        pose, found = deformer.fused(frames, replace(TINY, fusion=fusion))
        np.testing.assert_allclose(found, shares, atol=1e-6)
        np.testing.assert_allclose(pose, np.einsum("bt,btjd->bjd", shares, expected), atol=1e-5)


def test_steps_that_are_right_carry_every_frame_to_the_same_pose(batch, right):
    """Then it does not matter how sure frames are."""
    wanted = deformer.targets(batch, TINY, right)
    six = jnp.moveaxis(wanted.rotations[..., :2], -1, -2).reshape(4, 3, 16, 6)
    np.testing.assert_allclose(rotation_from_6d(six), wanted.rotations, atol=1e-4)
    forward = jnp.concatenate([jnp.diff(six, axis=1), 0 * six[:, :1]], 1)
    backward = jnp.concatenate([0 * six[:, :1], -jnp.diff(six, axis=1)], 1)
    confidence = jax.random.normal(jax.random.key(0), (4, 3))
    frames = deformer.Frames(six, forward, backward, confidence, wanted.betas, batch["region2d"])
    np.testing.assert_allclose(deformer.fused(frames, TINY)[0], six[:, 1], atol=1e-5)
    terms = deformer.loss_terms(frames, wanted, batch, TINY, right)
    assert set(terms) >= {"each_vertices", "next_keypoints", "last_pose", "middle_vertices", "betas", "keypoints2d"}
    assert all(float(value) < 1e-5 for value in terms.values()), terms


def test_targets_are_the_hand_before_the_camera(batch, right):
    wanted = deformer.targets(batch, TINY, right)
    points = batch["keypoints3d"] - batch["keypoints3d"][:, :, :1]
    seen = jnp.einsum("btij,btkj->btki", batch["R_cam_world"], points)
    np.testing.assert_allclose(wanted.keypoints, seen, atol=2e-5)
    np.testing.assert_allclose(experiment_of.truth(batch), seen[:, 1], atol=2e-5)
    assert wanted.vertices.shape == (4, 3, len(range(0, right.num_vertices, 200)), 3)


def test_errors_weigh_themselves():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 5, 3)).astype(np.float32)
    squared = ((x - y).astype(np.float64) ** 2).sum(-1)
    np.testing.assert_allclose(max_mse(x, y), (squared**2).sum(-1) / squared.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(max_mse(x, x + np.float32(0.1)), 0.03 * np.ones(3), rtol=1e-3)
    assert (max_mse(x, x) == 0).all() and np.isfinite(jax.grad(lambda z: max_mse(z, x).sum())(jnp.asarray(x))).all()
    way, step = rng.normal(size=x.shape).astype(np.float32), 1e-3
    slope = np.vdot(jax.grad(lambda z: max_mse(z, y).sum())(jnp.asarray(x)), way)
    moved = (max_mse(x + step * way, y).sum() - max_mse(x - step * way, y).sum()) / (2 * step)
    np.testing.assert_allclose(moved, slope, rtol=0.01)


def test_regions_are_read_where_they_are():
    """Of a map that is linear across the picture, cells hold the places of their middles."""
    y, x = np.mgrid[:9, :12].astype(np.float32)
    features = jnp.asarray(np.stack([x, y], -1))
    found = roi_align(features, jnp.array([2.0, 1.0, 8.0, 7.0]), 3)
    centres = 2 + 6 * (np.arange(3) + 0.5) / 3
    np.testing.assert_allclose(found[..., 0], np.tile(centres, (3, 1)), atol=1e-5)
    np.testing.assert_allclose(found[..., 1], np.tile(centres - 1, (3, 1)).T, atol=1e-5)
    outside = roi_align(features + 1, jnp.array([[20.0, 0.0, 26.0, 6.0]]), 2)
    assert outside.shape == (1, 2, 2, 2) and (outside == 0).all()


@pytest.fixture(scope="module")
def sloping(batch, right):
    """The loss and its slope; traced once."""

    def value(params):
        return deformer.loss({"params": params, "stats": {}}, batch, TINY, right, key=jax.random.key(0))[0]

    return jax.jit(jax.value_and_grad(chex.assert_max_traces(value, 1)))


def test_the_slope_of_the_loss(variables, sloping):
    slope = sloping(variables["params"])[1]
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(slope["judge"]))
    steep, step = optax.tree.norm(slope), 1e-3
    ahead, behind = (
        sloping(jax.tree.map(lambda x, d, s=s: x + s * d / steep, variables["params"], slope))[0] for s in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), steep, rtol=0.03)


def test_training_learns(variables, sloping, right):
    (stage,) = deformer.stages(replace(TINY, rate=1e-2), right, 30)
    hands, judge = stage.updates
    assert hands.trainable == ("network",) and judge.trainable == ("judge",)
    params, state, losses = variables["params"], hands.optimiser.init(variables["params"]), []
    for _ in range(20):
        value, slope = sloping(params)
        change, state = hands.optimiser.update(slope, state, params)
        params = optax.apply_updates(params, change)
        losses.append(float(value))
    assert losses[-1] < 0.6 * losses[0]


def test_the_discriminator_learns_from_true_motions_alone(variables, batch, right):
    def value(params):
        return deformer.loss_judge(variables | {"params": params}, batch, TINY, right, key=jax.random.key(0))[0]

    slope = jax.jit(jax.grad(value))(variables["params"])
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(slope["network"]))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope["judge"]["score"]))
    motion = deformer.motion_of(batch["hand_pose"])
    assert motion.shape == (4, 3, 46) and (motion[..., 0] == 1).all()


def test_what_comes_out_is_one_hand(variables, batch, right):
    inputs = deformer.inputs_of(batch)
    found = apply(variables, inputs, TINY, right)
    again = keypoints(right, found.params)
    np.testing.assert_allclose(again, found.keypoints, atol=2e-5)
    np.testing.assert_allclose(found.keypoints[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-6)
    shaped = apply(variables, jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), inputs), TINY, right)
    np.testing.assert_allclose(shaped.keypoints.reshape(4, 21, 3), found.keypoints, atol=1e-5)
    with pytest.raises(ValueError, match="windows"):
        deformer.apply(variables, inputs, replace(TINY, frames=5), right)
    with pytest.raises(ValueError, match="odd number"):
        replace(TINY, frames=4)


def test_pictures_go_all_the_way(right):
    """Through pyramid, region and spatial transformer; a hand elsewhere in the picture, with its box, is the same."""
    config = replace(TINY, sees="pictures")
    variables = drawn(config, right)
    rng = np.random.default_rng(0)
    small = rng.uniform(size=(1, 3, 24, 24, 3)).astype(np.float32)
    found = []
    for at in (8, 24):
        image = np.zeros((1, 3, 64, 64, 3), np.float32) + 0.45
        image[:, :, at : at + 24, at : at + 24] = small
        box = jnp.broadcast_to(jnp.array([at + 4.0, at + 4.0, at + 20.0, at + 20.0]), (1, 3, 4))
        inputs = deformer.Inputs(jnp.asarray(image), box, jnp.zeros((1, 3, 21, 2)), jnp.zeros((1, 3, 21)))
        found.append(apply(variables, inputs, config, right))
    assert found[0].keypoints2d.min() > 0 and found[0].keypoints2d.max() < 1
    away = np.abs(found[0].keypoints - found[1].keypoints).max()
    assert away < 0.02 and np.ptp(found[0].keypoints2d, -2).max() > 1e-3


def test_pictures_are_learned_from(batch, right):
    """The slope reaches every part of the picture path, and against it the loss falls."""
    config = replace(TINY, sees="pictures", adversarial=0.0)
    image = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32, 3)).astype(np.uint8)
    seen = batch | {"image": jnp.asarray(image), "box": jnp.broadcast_to(jnp.array([4.0, 4.0, 28.0, 28.0]), (4, 3, 4))}
    params = drawn(config, right)["params"]

    @jax.jit
    @jax.value_and_grad
    def value(network):
        both = {"params": params | {"network": network}, "stats": {}}
        return deformer.loss(both, seen, config, right, key=jax.random.key(0))[0]

    before, slope = value(params["network"])
    flat = jax.tree_util.tree_flatten_with_path(slope["seen"])[0]
    still = [jax.tree_util.keystr(path) for path, x in flat if path[-1].key == "kernel" and not np.abs(x).max() > 0]
    assert still == ["['pyramid']['smooth1']['kernel']"]  # only the finest map of the pyramid is read
    step = 0.01 / optax.tree.norm(slope)
    after, _ = value(jax.tree.map(lambda x, d: x - step * d, params["network"], slope))
    assert float(after) < float(before)


def test_a_clip_becomes_a_window(right):
    rng = np.random.default_rng(0)
    uv = rng.uniform(10, 50, (3, 1, 21, 2)).astype(np.float32)
    clip = {
        "image": np.zeros((3, 1, 64, 64, 3), np.uint8),
        "camera": {"T_cam_world": np.tile(np.eye(4, dtype=np.float32), (3, 1, 1, 1))},
        "hands": {
            "right": {
                "keypoints2d": uv,
                "visible": np.ones((3, 1, 21), np.float32),
                "keypoints3d": np.zeros((3, 21, 3), np.float32),
                "keypoints3d_valid": np.ones((3, 21), bool),
                "params": {
                    "global_orient": np.zeros((3, 3)),
                    "hand_pose": np.zeros((3, 15, 3)),
                    "betas": np.ones((3, 10)),
                },
            }
        },
    }
    found = deformer.prepare(clip, TINY)
    box = found["box"]
    side = np.ptp(uv[:, 0], 1).max(-1) * 1.5
    np.testing.assert_allclose(box[:, 2] - box[:, 0], side, rtol=1e-5)
    np.testing.assert_allclose(box[:, 3] - box[:, 1], side, rtol=1e-5)
    again = found["region2d"] * side[:, None, None] + box[:, None, :2]
    np.testing.assert_allclose(again, uv[:, 0], atol=1e-3)
    with pytest.raises(ValueError, match="clips of 7 frames"):
        deformer.prepare(clip, deformer.Config.tiny())


def test_frames_that_are_not_known_are_stood_for_by_those_that_are():
    known = np.array([True, False, True, True, False, False, True])
    for kind in (np.asarray, jnp.asarray):
        np.testing.assert_array_equal(deformer.frames_taken(kind(known)), [0, 2, 2, 3, 3, 3, 6])
    np.testing.assert_array_equal(deformer.frames_taken(np.zeros(3, bool)), 1)
    np.testing.assert_array_equal(deformer.frames_taken(np.ones(5, bool)), np.arange(5))


def test_windows_that_do_not_count_are_not_looked_at(batch, variables, right):
    frames = deformer.Network(TINY).apply({"params": variables["params"]["network"]}, deformer.inputs_of(batch), right)
    counts = jnp.array([True, False, True, True])

    @jax.jit
    def terms(batch):
        return deformer.loss_terms(frames, deformer.targets(batch, TINY, right), batch, TINY, right)

    some = batch | {"counts": counts}
    wild = some | {"hand_pose": batch["hand_pose"].at[1].set(2.0), "region2d": batch["region2d"].at[1].set(0.9)}
    of_some, of_wild, of_all = terms(some), terms(wild), terms(batch)
    for name, value in of_some.items():
        np.testing.assert_allclose(of_wild[name], value, rtol=1e-5, err_msg=name)
        assert abs(float(value - of_all[name])) > 1e-6, name
    outputs = deformer.Outputs(HandParams.zeros((4,)), experiment_of.truth(batch), jnp.ones((4, 3)), batch["region2d"])
    np.testing.assert_array_equal(np.isnan(experiment_of.METRICS["pa_mpjpe"](outputs, some, None)), ~counts)


def test_scores_go_by_what_is_hidden(batch):
    points = experiment_of.truth(batch)
    weights = jnp.where(jnp.arange(3) == 1, 0.0, 0.5) + jnp.zeros((4, 3))
    outputs = deformer.Outputs(HandParams.zeros((4,)), points.at[:, 8, 0].add(0.05), weights, batch["region2d"])
    hidden = jnp.zeros((4, 3, 21), bool).at[1, 1, :5].set(True).at[2, 1, :14].set(True).at[3, 1].set(True)
    score = partial(lambda name: experiment_of.METRICS[name](outputs, batch | {"hidden": hidden}, None))
    for name, counts in (
        ("pa_none", [1, 0, 0, 0]),
        ("pa_quarter", [0, 1, 0, 0]),
        ("pa_most", [0, 0, 1, 0]),
        ("pa_all", [0, 0, 0, 1]),
        ("pa_heavy", [0, 0, 1, 1]),
    ):
        np.testing.assert_array_equal(~np.isnan(score(name)), np.array(counts, bool))
    np.testing.assert_allclose(score("tips"), 0.05 / 5, rtol=1e-3)
    np.testing.assert_allclose(score("worst"), 0.05, rtol=1e-3)
    both = experiment_of.weights_and_hidden(outputs, batch | {"hidden": hidden}, None)
    flat = np.asarray(both).reshape(-1, 2)
    np.testing.assert_allclose(experiment_of.correlation(both), np.corrcoef(flat.T)[0, 1], atol=1e-5)
    assert experiment_of.correlation(both.at[..., 0].set(1.0)) == 0


def test_what_is_hidden_is_told_badly_and_doubted():
    made = first_examples(Made(hidden_hand, HiddenScene(frames=3)), 1, 128)
    off = np.linalg.norm(made["keypoints2d"] - made["region2d"], axis=-1)
    hidden = made["hidden"]
    assert np.median(off[hidden]) > 8 * np.median(off[~hidden])
    assert made["confidence"][hidden].mean() < 0.4 < made["confidence"][~hidden].mean()
    share = hidden.mean(-1)
    assert (share[:, 1] > 0).mean() > 0.65 and (share[:, 0] > 0).mean() < 0.4
    region = made["region2d"]
    np.testing.assert_allclose(np.ptp(region, 2).max(-1), 1 / 1.5, atol=1e-4)
    np.testing.assert_allclose((region.min(2) + region.max(2)) / 2, 0.5, atol=1e-4)
    # axes of the camera: so3_exp of the wrist, seen by it, is what a network is to say
    assert np.allclose(np.linalg.det(made["R_cam_world"]), 1, atol=1e-4)
    assert np.isfinite(so3_exp(made["global_orient"])).all()


def test_the_experiment_runs(tmp_path, capsys):
    preset = replace(experiment_of.experiment.presets["cpu"], config=replace(TINY, adversarial=0.0), world=MADE)
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: pa_mpjpe" in capsys.readouterr().out
