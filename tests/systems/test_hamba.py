import json
from dataclasses import asdict, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hamba import HEADS, LADDER, experiment
from jhand.experiment import main, published
from jhand.geometry import rotation_from_6d, so3_log
from jhand.hand import HandParams, keypoints, load_hand
from jhand.nn import HandEstimate
from jhand.systems import hamba
from jhand.train import init_state, load_weights, read_card, train_step
from tests.data.published import write_freihand
from tests.hand.mano_files import hand_arrays, write_clean

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
PARTS = ("backbone", "narrow", "first", "head")
TINY = hamba.Config.tiny(channels=16, blocks=1, state_size=4)
SIDE = TINY.size


@pytest.fixture(scope="module")
def variables(right):
    return jax.jit(lambda key: hamba.init(key, TINY, right))(jax.random.key(0))


@pytest.fixture(scope="module")
def batch(right):
    """Four hands before cameras that look at them from anywhere, without pictures of them."""
    keys = jax.random.split(jax.random.key(1), 6)
    params = HandParams(
        jax.random.normal(keys[0], (4, 3)), 0.3 * jax.random.normal(keys[1], (4, 15, 3)),
        jax.random.normal(keys[2], (4, 10)), 0.1 * jax.random.normal(keys[3], (4, 3)),
    )  # fmt: skip
    R = rotation_from_6d(jax.random.normal(keys[4], (4, 6)))
    T = jnp.zeros((4, 4, 4)).at[:, :3, :3].set(R).at[:, 2, 3].set(0.5).at[:, 3, 3].set(1)
    return {
        "image": jax.random.randint(keys[5], (4, SIDE, SIDE, 3), 0, 256).astype(jnp.uint8),
        "T_cam_world": T,
        "keypoints3d": keypoints(right, params),
        "keypoints3d_valid": jnp.ones((4, 21), bool),
        "keypoints2d": jax.random.uniform(keys[5], (4, 21, 2), maxval=SIDE),
        "keypoints2d_valid": jnp.ones((4, 21), bool),
        "params_valid": jnp.ones(4, bool),
        "global_orient": params.global_orient,
        "hand_pose": params.hand_pose,
        "betas": params.betas,
    }


@pytest.mark.parametrize("make", [hamba.Config.tiny, hamba.Config.small, hamba.Config.paper])
def test_every_size_fits_together(make, right):
    config = make()
    shapes = jax.eval_shape(lambda key: hamba.init(key, config, right), jax.random.key(0))
    image = jax.ShapeDtypeStruct((2, config.size, config.size, 3), jnp.float32)

    def predicted(variables, image):
        found = hamba.apply(variables, hamba.Inputs(image), config, right)
        return found.keypoints, found.params.hand_pose

    points, pose = jax.eval_shape(predicted, shapes, image)
    assert points.shape == (2, 21, 3) and pose.shape == (2, 15, 3)


def test_variants_have_as_many_parameters(right):
    def count(config):
        shapes = jax.eval_shape(lambda key: hamba.init(key, config, right), jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(hamba.predicting(shapes["params"])))

    full = count(hamba.Config.tiny())
    for name, fields in (HEADS | LADDER).items():
        assert abs(count(hamba.Config.tiny(**fields)) - full) < 0.02 * full, name


def test_targets_are_in_the_cameras_axes(batch, right):
    """The hand that the targets' rotations and shape make is the one that the targets' points show."""
    wanted = hamba.targets(batch, TINY)
    turns = so3_log(wanted.rotations)
    params = HandParams(turns[:, 0], turns[:, 1:], wanted.betas, jnp.zeros((4, 3)))
    found = keypoints(right, params)
    np.testing.assert_allclose(found - found[:, :1], wanted.from_wrist, atol=2e-6)


def test_the_first_estimate_is_the_mean_hand_before_the_camera(right):
    config = hamba.Config.tiny()
    start = hamba.mean_estimate(right)
    estimate = HandEstimate(*(jnp.asarray(x)[None] for x in (start.pose, start.betas, start.camera)))
    found = hamba._regression(estimate, right, config)
    size = np.ptp(np.asarray(found.keypoints2d[0]), axis=0).max()
    assert 0.5 < size < 1.0  # of the crop
    assert np.abs(np.asarray(found.keypoints2d)).max() < 0.75
    # the wrist is where the weak camera puts it
    moved = replace(estimate, camera=estimate.camera.at[0, 1].add(0.03))
    shift = hamba._regression(moved, right, config).keypoints2d - found.keypoints2d
    np.testing.assert_allclose(shift[0, :, 0], 0.03 * estimate.camera[0, 0] / 2, rtol=0.02)


def test_tokens_are_sampled_where_joints_are_seen():
    """Of a map whose features are their own places in the crop, whose middle columns alone the backbone saw."""
    config = replace(TINY, size=64, columns=48, channels=2)
    rows, columns = 8, 6
    x = (np.arange(columns) + 0.5) / columns * 48 / 64 - 0.5 * 48 / 64
    y = (np.arange(rows) + 0.5) / rows - 0.5
    features = jnp.asarray(np.stack(np.meshgrid(x, y), -1), jnp.float32)[None]
    joints = jnp.asarray(np.random.default_rng(0).uniform(-0.3, 0.3, (1, 21, 2)), jnp.float32)

    class Places(hamba.nn.Module):
        @hamba.nn.compact
        def __call__(self, joints):
            return hamba.TokenSampler(config, name="sampler")(features, joints, False)

    params = Places().init(jax.random.key(0), joints)
    first = params["params"]["sampler"]["Dense_0"]
    first["kernel"], first["bias"] = jnp.eye(2), jnp.ones(2)  # past the rectifier
    last = params["params"]["sampler"]["Dense_1"]
    last["kernel"], last["bias"] = jnp.eye(2), -jnp.ones(2)
    tokens = Places().apply(params, joints)
    np.testing.assert_allclose(tokens, joints, atol=2e-5)
    slope = jax.grad(lambda j: jnp.sum(Places().apply(params, j)))(joints)
    assert not np.asarray(slope).any()


def test_the_global_token_goes_past_the_graph():
    """Without a scan, the last token hears of no other, and joints hear of their neighbours only."""
    config = replace(TINY, scan=False)
    block = hamba.GraphScanBlock(config)
    tokens = jax.random.normal(jax.random.key(0), (1, 22, config.channels))
    params = block.init(jax.random.key(1), tokens, False)
    apply = jax.jit(lambda tokens: block.apply(params, tokens, False))
    before = apply(tokens)
    after = apply(tokens.at[0, 4].add(1.0))  # the thumb's tip
    changed = np.flatnonzero(np.abs(np.asarray(after - before)[0]).max(-1) > 1e-6)
    assert set(changed) <= {3, 4} and 4 in changed
    np.testing.assert_array_equal(apply(tokens.at[0, 21].add(1.0))[0, :21], before[0, :21])


@pytest.mark.parametrize("name", ["whole", "first", "pretraining"])
def test_a_step_trains_what_its_stage_says(name, batch, variables, right):
    every = (*hamba.pretraining(TINY, right, 30), *hamba.stages(TINY, right, 30))
    stage = {stage.name: stage for stage in every}[name]
    chex.clear_trace_counter()
    state = init_state(jax.random.key(0), variables, stage)
    step = jax.jit(chex.assert_max_traces(train_step(stage), 1))
    losses = []
    for _ in range(6):
        before = state
        state, metrics = step(state, batch)
        losses.append(float(metrics.terms[stage.updates[0].name]["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    network = {part: changed(before.params["network"][part], state.params["network"][part]) for part in PARTS}
    assert network == {part: name == "whole" or part != "head" for part in PARTS}
    assert changed(before.params["discriminator"], state.params["discriminator"]) == (name == "whole")
    assert changed(before.params["heat_maps"], state.params["heat_maps"]) == (name == "pretraining")


def test_heat_maps_are_hot_where_keypoints_are(batch, variables, right):
    """The cross-entropy is least where a map says what is wanted: a Gaussian about each keypoint, 0.7 cells wide."""
    cell = TINY.size / 8
    inside = batch | {
        "keypoints2d": (jnp.tile(jnp.arange(21) % 8, (2, 1)).T * cell + (cell - 1) / 2)[None].repeat(4, 0)
    }
    params = jax.tree.map(jnp.zeros_like, variables["params"]["heat_maps"])
    flat = variables | {"params": variables["params"] | {"heat_maps": params}}
    loss = jax.jit(lambda v, b: hamba.loss_pretraining(v, b, TINY, right, key=jax.random.key(0))[1].terms["heat_maps"])
    np.testing.assert_allclose(loss(flat, inside), np.log(64), rtol=1e-5)
    outside = batch | {"keypoints2d": batch["keypoints2d"] + 2 * TINY.size}
    assert float(loss(flat, outside)) == 0


def changed(before, after):
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), before, after)))


def test_entries_that_do_not_count_are_not_read(batch, variables, right):
    missing = batch | {
        "keypoints3d_valid": jnp.zeros((4, 21), bool),
        "keypoints2d_valid": jnp.zeros((4, 21), bool),
        "params_valid": jnp.zeros(4, bool),
    }
    other = missing | {
        "keypoints3d": batch["keypoints3d"] + 9,
        "betas": batch["betas"] - 5,
        "keypoints2d": batch["keypoints2d"] * 3,
    }
    terms = jax.jit(lambda b: hamba.loss_first(variables, b, TINY, right, key=jax.random.key(0))[1].terms)
    for found in (terms(missing), terms(other)):
        assert all(float(value) == 0 for value in found.values())


def test_predictions_are_the_hands_that_their_parameters_make(variables, right):
    image = jax.random.uniform(jax.random.key(5), (2, SIDE, SIDE, 3))
    found = jax.jit(lambda v, x: hamba.apply(v, hamba.Inputs(x), TINY, right))(variables, image)
    np.testing.assert_allclose(keypoints(right, found.params), found.keypoints, atol=2e-5)


def test_pictures_of_another_size_are_refused():
    clip = {"image": np.zeros((1, 1, 32, 48, 3), np.uint8), "hands": {"right": {}}, "camera": {}}
    with pytest.raises(ValueError, match="crop_to_hand"):
        hamba.prepare(clip, TINY)


def test_the_experiment_runs_on_published_data(tmp_path, capsys):
    mano = write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0))
    write_freihand(tmp_path, load_hand(mano))
    data = f"freihand:{tmp_path}:training:{mano}"
    folder = tmp_path / "runs"
    preset = replace(experiment.presets["cpu"], config=TINY)
    main(
        replace(experiment, presets={"cpu": preset}),
        ["train", "--smoke", "--data", data, "--held-out", data, "--folder", str(folder)],
    )
    assert "full, seed 0: pa_mpjpe" in capsys.readouterr().out
    sizes = [path.stat().st_size for path in folder.rglob("weights.safetensors")]
    assert len(sizes) == 2 and max(sizes) < 5e6  # of the pretraining, and of the run that began from it


def test_committed_weights_are_those_of_the_cpu_preset(root, right):
    folder = root / "results" / "hamba" / "weights"
    config = experiment.presets["cpu"].config
    shapes = jax.eval_shape(lambda key: hamba.init(key, config, right), jax.random.key(0))
    variables = load_weights(folder, like=published(experiment, shapes))
    card = read_card(folder)
    assert card.config == json.loads(json.dumps(asdict(config))) and card.metrics["pa_mpjpe_mm"] < 18
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6
    image = jnp.zeros((1, config.size, config.size, 3))
    found = jax.jit(lambda v, x: hamba.predict(v, hamba.Inputs(x), config, right).keypoints)(variables, image)
    assert np.isfinite(found).all()
