from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import glagcn as experiment_of
from jhand.data.made import Made, first_examples
from jhand.experiment import main
from jhand.systems import glagcn
from jhand.train import init_state, train_step

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = glagcn.Config.tiny(widths=(3,), channels=4, kernel=3)
EPS = 1e-5  # of flax's BatchNorm


def waving(key, scene):
    """Points that go round circles, and how they are seen from afar: cheaper than hands."""
    keys = jax.random.split(key, 3)
    centre, radius = 0.05 * jax.random.normal(keys[0], (21, 3)), 0.03 * jax.random.normal(keys[1], (21, 3))
    t = jnp.arange(scene)[:, None, None] / 10
    points = centre + radius * jnp.sin(t + 6 * jax.random.uniform(keys[2], (21, 3)))
    points = points - points[:, :1]
    return {
        "keypoints2d": 50 + 200 * points[..., :2] / (1 + points[..., 2:]),
        "keypoints3d": points,
        "keypoints3d_valid": jnp.ones((scene, 21), bool),
        "size": jnp.array([100.0, 80.0]),
        "right": jnp.ones((), bool),
    }


MADE = Made(waving, 12)


def filled(config, seed=0):
    """Variables none of which is as it begins; variances are positive."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: glagcn.init(key, config), jax.random.key(0))

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = rng.normal(0, 1.5 if "compared" in name else 0.3, leaf.shape)
        return jnp.asarray(np.exp(values) if "var" in name else values, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(jnp.asarray, first_examples(MADE, 0, 8))


network = jax.jit(
    lambda variables, windows, right, config: glagcn.Network(config).apply(
        {"params": variables["params"], "batch_stats": variables["stats"]}, windows, right, False
    ),
    static_argnums=3,
)
predict = jax.jit(glagcn.predict, static_argnums=2)
CONFIGS = {name: glagcn.Config.tiny(**fields) for name, fields in experiment_of.VARIANTS.items()}
CONFIGS |= {"causal": glagcn.Config.tiny(causal=True), "small": glagcn.Config.small(), "paper": glagcn.Config.paper()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_size_and_variant_fits_together(config):
    shapes = jax.eval_shape(lambda key: glagcn.init(key, config), jax.random.key(0))

    def predicted(variables, seen):
        inputs = glagcn.Inputs(seen, jnp.ones((2, 3, 2)), jnp.ones((2, 3), bool))
        return glagcn.predict(variables, inputs, config).keypoints

    found = jax.eval_shape(predicted, shapes, jax.ShapeDtypeStruct((2, 3, 5, 21, 2), jnp.float32))
    assert found.shape == (2, 3, 5, 21, 3)

    def last(variables, windows):
        variables = {"params": variables["params"], "batch_stats": variables["stats"]}
        apply = partial(glagcn.Network(config).apply, capture_intermediates=True, mutable=["intermediates"])
        _, found = apply(variables, windows, jnp.ones(2, bool), False)
        name = f"stage{len(config.widths) - 1}_few" if config.widths else "expand"
        return found["intermediates"][name]["__call__"][0]

    windows = jax.ShapeDtypeStruct((2, config.frames, 21, 2), jnp.float32)
    left = 1 if config.pyramid else config.frames
    assert jax.eval_shape(last, shapes, windows).shape == (2, left, 21, config.channels)


def test_the_published_sizes():
    config = glagcn.Config.paper()
    shapes = jax.eval_shape(lambda key: glagcn.init(key, config), jax.random.key(0))["params"]
    assert config.frames == 243 and sum(name.startswith("stage") for name in shapes) == 10
    block = shapes["stage4_few"]
    assert block["frames"]["kernel"].shape == (9, 1, 96, 96) and block["joints"]["learned"].shape == (21, 21, 3)
    assert block["joints"]["compared"]["kernel"].shape == (96, 2 * 3 * 24) and "past" not in block
    assert shapes["readout"]["kernel"].shape == (96, 63)


def norm(x, params, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + EPS) * params["scale"] + params["bias"]


def block_by_hand(x, params, stats, stride, residual):
    """A block in loops: (T, 21, C)."""
    frames, joints, _ = x.shape
    channels = params["joints"]["bias"].shape[0]
    width = channels // 4
    graph = params["joints"]
    compared = x @ graph["compared"]["kernel"] + graph["compared"]["bias"]
    values = x @ graph["values"]["kernel"]
    y = np.zeros((frames, joints, channels)) + graph["bias"]
    for k in range(3):
        heard = compared[..., k * width : (k + 1) * width]
        hears = compared[..., (3 + k) * width : (4 + k) * width]
        for n in range(joints):
            said = np.array([np.sum(hears[:, n] * heard[:, m]) / (width * frames) for m in range(joints)])
            weights = np.exp(said) / np.exp(said).sum() + glagcn.SKELETON[k, n] + graph["learned"][n, :, k]
            y[:, n] += np.einsum("m,tmc->tc", weights, values[..., k * channels : (k + 1) * channels])
    y = norm(y, params["joints_norm"], stats["joints_norm"])
    kept = (
        norm(x @ params["kept"]["kernel"] + params["kept"]["bias"], params["kept_norm"], stats["kept_norm"])
        if ("kept" in params)
        else x
    )
    y = np.maximum(y + kept, 0)
    kernel = params["frames"]["kernel"][:, 0]
    out = []
    for t in range(0, frames, stride):
        taps = [(t + k - len(kernel) // 2, k) for k in range(len(kernel))]
        out.append(params["frames"]["bias"] + sum(y[s] @ kernel[k] for s, k in taps if 0 <= s < frames))
    y = norm(np.stack(out), params["frames_norm"], stats["frames_norm"])
    if residual:
        past = x
        if "past" in params:
            past = norm(x @ params["past"]["kernel"] + params["past"]["bias"], params["past_norm"], stats["past_norm"])
        y = y + past
    return np.maximum(y, 0)


def test_the_network_by_hand():
    variables = filled(TINY)
    windows = np.random.default_rng(1).normal(size=(2, 3, 21, 2)).astype(np.float32)
    right = np.array([True, False])
    found = network(variables, windows, right, TINY)
    params, stats = jax.tree.map(lambda x: np.asarray(x, float), (variables["params"], variables["stats"]))
    for window, side, answer in zip(windows, (1, -1), found, strict=True):
        size = np.sqrt(np.mean([np.var(window[t, :, axis]) for t in range(3) for axis in range(2)]))
        about = (window - window[1, 0]) / size
        x = norm(about.reshape(3, -1), params["seen_norm"], stats["seen_norm"]).reshape(3, 21, 2)
        told = np.array([*window[1, 0], size, side])
        x = np.concatenate([x, np.broadcast_to(told, (3, 21, 4))], -1)
        x = block_by_hand(x, params["expand"], stats["expand"], 1, True)
        middle = x[1]
        x = block_by_hand(x, params["stage0_all"], stats["stage0_all"], 1, True)
        x = middle + block_by_hand(x, params["stage0_few"], stats["stage0_few"], 3, False)[0]
        expected = np.stack([x[j] @ params["readout"]["kernel"][:, 3 * j : 3 * j + 3] for j in range(21)])
        expected += params["readout"]["bias"].reshape(21, 3)
        np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_stages_keep_the_wanted_frame(causal):
    """With blocks that add nothing, one frame of nine is what is read, and what windows are about."""
    config = replace(TINY, widths=(3, 3), causal=causal)
    variables = filled(config)
    params = dict(variables["params"])
    for number in range(2):
        off = {"scale": jnp.zeros(4), "bias": jnp.zeros(4)}
        params[f"stage{number}_few"] = params[f"stage{number}_few"] | {"frames_norm": off}
    windows = jax.random.normal(jax.random.key(0), (4, 9, 21, 2))

    @jax.jit
    def both(windows):
        apply = partial(glagcn.Network(config).apply, capture_intermediates=True, mutable=["intermediates"])
        variables_ = {"params": params, "batch_stats": variables["stats"]}
        found, said = apply(variables_, windows, jnp.ones(4, bool), False)
        return found, said["intermediates"]["expand"]["__call__"][0]

    found, expanded = both(windows)
    wanted = 8 if causal else 4
    read = glagcn.Readout(config).apply({"params": params["readout"]}, expanded[:, wanted])
    np.testing.assert_allclose(found, read, atol=1e-5)
    about, place = glagcn.about_wrist(windows, config)
    np.testing.assert_allclose(about[:, wanted, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(place[:, :2], windows[:, wanted, 0])


def test_size_and_place_in_the_picture_are_told_apart():
    """A hand twice as large elsewhere looks the same, and is told to be larger and elsewhere."""
    windows = jax.random.normal(jax.random.key(0), (2, 3, 21, 2))
    seen, place = glagcn.about_wrist(windows, TINY)
    other, there = glagcn.about_wrist(2 * windows + 0.3, TINY)
    np.testing.assert_allclose(other, seen, atol=1e-4)
    np.testing.assert_allclose(there[:, 2], 2 * place[:, 2], rtol=1e-5)
    np.testing.assert_allclose(there[:, :2], 2 * place[:, :2] + 0.3, atol=1e-5)
    np.testing.assert_allclose(jnp.mean(jnp.var(seen, 2), (1, 2)), 1, rtol=1e-4)


def test_a_joint_is_read_from_its_own_channels():
    x = jax.random.normal(jax.random.key(0), (2, 21, 4))
    without = x.at[:, 7].set(0.0)
    for kind, own in (("local", True), ("shared", True), ("global", False)):
        readout = glagcn.Readout(replace(TINY, readout=kind))
        found, variables = readout.init_with_output(jax.random.key(1), x)
        changed = np.abs(readout.apply(variables, without) - found).max((0, 2)) > 1e-6
        assert changed[7] and changed.sum() == (1 if own else 21)


def test_a_block_begins_as_what_it_adds_to():
    """The graphs' part is a millionth at first."""
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 5, 21, 4)))
    for kind in ({}, {"computed": False, "learned": False}):
        block = glagcn.Block(replace(TINY, **kind))
        variables = block.init(jax.random.key(1), x, False)
        plain = jax.tree.map(lambda v: v, variables)
        plain["params"]["joints_norm"]["scale"] = jnp.zeros(4)
        np.testing.assert_allclose(block.apply(variables, x, False), block.apply(plain, x, False), atol=1e-4)


def test_windows_stand_still_beyond_the_ends():
    frames = partial(glagcn.window_frames, total=10)
    assert frames(jnp.array(0), config=replace(TINY, widths=(3, 3))).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert frames(jnp.array(9), config=replace(TINY, widths=(5,))).tolist() == [7, 8, 9, 9, 9]
    assert frames(jnp.array(4), config=replace(TINY, widths=(3,), causal=True)).tolist() == [2, 3, 4]
    assert frames(jnp.array(4), config=replace(TINY, widths=())).tolist() == [4]


def test_sequences_frame_by_frame(batch):
    """Any length, any leading axes: each frame is what its own window gives, chunk by chunk or not."""
    variables = filled(TINY)
    inputs = glagcn.inputs_of(jax.tree.map(lambda x: x[:4], batch))
    found = predict(variables, inputs, TINY).keypoints
    seen = np.asarray(glagcn.in_picture(inputs))
    padded = np.concatenate([seen[:, :1], seen, seen[:, -1:]], 1)
    windows = np.stack([padded[1, t : t + 3] for t in range(12)])
    alone = glagcn.lift(variables, jnp.asarray(windows), jnp.ones(12, bool), TINY)
    np.testing.assert_allclose(found[1], alone, atol=1e-5)
    shaped = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), inputs)
    parts = predict(variables, shaped, replace(TINY, at_once=7)).keypoints
    np.testing.assert_allclose(parts.reshape(found.shape), found, atol=1e-5)
    with pytest.raises(ValueError, match="a sequence of pixels"):
        glagcn.predict(variables, _inputs_of(inputs, inputs.keypoints2d[:, :, :20]), TINY)


def _inputs_of(inputs, keypoints2d):
    """Past the check of types, as where it is off."""
    wrong = object.__new__(glagcn.Inputs)
    for name, value in (("keypoints2d", keypoints2d), ("size", inputs.size), ("right", inputs.right)):
        object.__setattr__(wrong, name, value)
    return wrong


def test_places_in_the_picture_are_about_its_middle():
    size = jnp.array([200.0, 100.0])
    corners = jnp.array([[0.0, 0.0], [200.0, 100.0], [100.0, 50.0]])[:, None] * jnp.ones((3, 21, 1))
    found = glagcn.in_picture(glagcn.Inputs(corners, size, jnp.ones((), bool)))
    np.testing.assert_allclose(found[:, 0], [[-1, -0.5], [1, 0.5], [0, 0]], atol=1e-6)


def test_a_mirrored_hand_is_the_mirrored_answer():
    """Exactly: since a prediction is the mean over both, or since one is seen as the other. The network has no such
    symmetry by itself.
    """
    variables = filled(TINY)
    windows = jax.random.normal(jax.random.key(0), (3, 3, 21, 2))
    right, every = jnp.array([True, False, True]), jnp.ones(3, bool)
    both, one = (jax.jit(partial(glagcn.lift, config=replace(TINY, mirror=mirror))) for mirror in (True, False))
    for answer in (both, one):
        found = answer(variables, windows, right)
        turned = answer(variables, glagcn.mirrored(windows, every), ~right)
        np.testing.assert_allclose(glagcn.mirrored(turned, every), found, atol=1e-5)
    plain = network(variables, windows, right, TINY)
    turned = network(variables, glagcn.mirrored(windows, every), ~right, TINY)
    assert np.abs(glagcn.mirrored(turned, every) - plain).max() > 1e-2
    np.testing.assert_allclose(one(variables, windows, every) * 10, network(variables, windows, every, TINY), atol=1e-5)
    np.testing.assert_array_equal(glagcn.mirrored(jnp.ones((2, 1, 3)), right[:2])[:, 0], [[-1, 1, 1], [1, 1, 1]])


def test_the_slope_of_the_loss(batch):
    config = replace(TINY, channels=8)
    variables = filled(config)

    @jax.jit
    def value(params):
        return glagcn.loss(variables | {"params": params}, batch, config, key=jax.random.key(3))[0]

    params = variables["params"]
    slope = jax.jit(jax.grad(value))(params)
    ways = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    along = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slope, ways)), strict=True))
    step = 1e-3
    ahead, behind = (value(jax.tree.map(lambda x, d, s=s: x + s * d, params, ways)) for s in (step, -step))
    np.testing.assert_allclose((ahead - behind) / (2 * step), along, rtol=0.03)


def test_the_loss_is_the_distance_from_true_joints(batch):
    """Of a network that says the wrist for every joint; what is not valid is not read, and frames of all are drawn."""
    zeros = filled(TINY)
    zeros["params"]["readout"] = jax.tree.map(jnp.zeros_like, zeros["params"]["readout"])
    many = jax.tree.map(lambda x: jnp.repeat(x, 64, 0), batch)
    loss = jax.jit(lambda b: glagcn.loss(zeros, b, TINY, key=jax.random.key(0))[0])
    expected = 10 * np.linalg.norm(batch["keypoints3d"], axis=-1).mean()
    np.testing.assert_allclose(loss(many), expected, rtol=0.03)
    some = many["keypoints3d_valid"].at[:, :, 5:].set(False)
    wild = many | {"keypoints3d": many["keypoints3d"].at[:, :, 5:].set(jnp.nan), "keypoints3d_valid": some}
    few = 10 * np.linalg.norm(batch["keypoints3d"][:, :, :5], axis=-1).mean()
    np.testing.assert_allclose(loss(wild), few, rtol=0.05)
    no_wrist = many["keypoints3d_valid"].at[::2, :, 0].set(False)
    lost = many["keypoints3d"].at[::2].set(9.0)
    np.testing.assert_allclose(
        loss(many | {"keypoints3d_valid": no_wrist, "keypoints3d": lost}),
        10 * np.linalg.norm(many["keypoints3d"][1::2], axis=-1).mean(),
        rtol=0.05,
    )
    assert float(loss(many | {"keypoints3d_valid": jnp.zeros_like(some)})) == 0


def test_half_of_what_is_trained_on_is_mirrored(batch):
    """Seen through the averages of what is seen: joints to the right of the wrist are in the middle, with `mirror`."""
    aside = batch["keypoints2d"].at[..., 1:, 0].set(90.0).at[..., 0, 0].set(10.0)
    many = jax.tree.map(lambda x: jnp.repeat(x, 64, 0), batch | {"keypoints2d": aside})
    before = filled(TINY)["stats"]["seen_norm"]["mean"]
    for config, mirror in ((replace(TINY, mirror=True), True), (TINY, False)):
        _, aux = jax.jit(lambda v, b, c=config: glagcn.loss(v, b, c, key=jax.random.key(0)))(filled(config), many)
        across = ((aux.stats["seen_norm"]["mean"] - 0.9 * before) / 0.1)[2::2]
        assert (np.abs(across) < 1).all() if mirror else (across > 3).all()


def test_clips_are_prepared():
    rng = np.random.default_rng(0)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T = np.tile(np.eye(4, dtype=np.float32), (4, 1, 1, 1))
    T[:, 0, :3, :3] = R
    hand = {
        "keypoints2d": rng.normal(size=(4, 1, 21, 2)),
        "keypoints3d": rng.normal(size=(4, 21, 3)),
        "keypoints3d_valid": np.ones((4, 21), bool),
    }
    clip = {"image": np.zeros((4, 1, 60, 80, 3), np.uint8), "camera": {"T_cam_world": T}, "hands": {"right": hand}}
    found = glagcn.prepare(clip, TINY)
    assert found["size"].tolist() == [80, 60] and found["keypoints2d"].shape == (4, 21, 2)
    about = hand["keypoints3d"][2, 8] - hand["keypoints3d"][2, 0]
    np.testing.assert_allclose(found["keypoints3d"][2, 8], R @ about, atol=1e-6)


def test_training_learns(batch):
    config = replace(TINY, channels=8)
    (stage,) = glagcn.stages(config, None, 120)
    state = init_state(jax.random.key(0), jax.jit(glagcn.init, static_argnums=1)(jax.random.key(0), config), stage)
    step = jax.jit(chex.assert_max_traces(train_step(stage), 1))
    losses = []
    for _ in range(120):
        state, told = step(state, batch)
        losses.append(float(told.terms["lift"]["loss"]))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_larger_presets_can_be_stepped(name):
    """By shapes alone: the step of training, of which mirrored hands and dropout are parts."""
    preset = experiment_of.experiment.presets[name]
    (stage,) = glagcn.stages(preset.config, None, preset.steps)

    def step(key, batch):
        state = init_state(key, glagcn.init(key, preset.config), stage)
        state, told = train_step(stage)(state, batch)
        return state.params, told.terms["lift"]["loss"]

    frames = preset.world.scene.frames
    assert frames >= preset.config.frames
    shapes = {"keypoints2d": (frames, 21, 2), "keypoints3d": (frames, 21, 3), "size": (2,)}
    batch = {key: jax.ShapeDtypeStruct((2, *shape), jnp.float32) for key, shape in shapes.items()}
    batch |= {
        "keypoints3d_valid": jax.ShapeDtypeStruct((2, frames, 21), bool),
        "right": jax.ShapeDtypeStruct((2,), bool),
    }
    params, loss = jax.eval_shape(step, jax.random.key(0), batch)
    assert loss.shape == () and params["readout"]["kernel"].shape == (96, 63)


def test_the_rate_goes_down_by_a_cosine():
    """One step of all-alike gradients: Ranger's first is the rate itself, the last next to nothing."""
    config = glagcn.Config.paper()
    (stage,) = glagcn.stages(config, None, 100)
    optimiser = stage.updates[0].optimiser
    x = jnp.zeros(3)
    state, steps = optimiser.init(x), []
    for _ in range(101):
        change, state = optimiser.update(jnp.ones(3), state, x)
        steps.append(float(-change[0]))
    np.testing.assert_allclose(steps[0], config.rate, rtol=1e-5)
    assert steps[99] < 1e-3 * steps[0]


def test_the_experiment_runs(tmp_path, capsys):
    preset = replace(experiment_of.experiment.presets["cpu"], config=TINY, world=MADE)
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: mpjpe" in capsys.readouterr().out
