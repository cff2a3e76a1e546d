from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import diffpose as experiment_of
from jhand import metrics
from jhand.data.ambiguous_hands import AmbiguousScene, simulate_heatmaps
from jhand.data.made import Made, first_examples
from jhand.diffusion import clamp, cosine_levels, denoiser_from_noise, diffuse, sample_ddpm
from jhand.experiment import main
from jhand.nn import HeatmapSamples
from jhand.systems import diffpose
from jhand.train import init_state, train_step

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = diffpose.Config.tiny(width=16, heads=2, layers=1, mlp=32, condition_width=4, hidden=32, hypotheses=6, samples=8)
SIDE = 16


def scattered(key, scene):
    """Points at random, and what a detector would say of them: cheaper than hands."""
    keys = jax.random.split(key, 4)
    points = 0.03 * jax.random.normal(keys[0], (21, 3))
    hidden = jnp.arange(21) < 12 * jax.random.bernoulli(keys[1])
    other = 0.03 * jax.random.normal(keys[2], (21, 2))
    seen = scene.size / 2 + scene.size * 4 * jnp.stack([points[:, :2], other])
    chances = jnp.where(hidden, 0.5, jnp.array([1.0, 0.0])[:, None])
    return {
        "heatmaps": simulate_heatmaps(keys[3], seen, chances, hidden, scene),
        "keypoints3d": points,
        "keypoints3d_valid": jnp.ones(21, bool),
        "ambiguous": hidden,
    }


MADE = Made(scattered, AmbiguousScene(size=SIDE))
initial = jax.jit(diffpose.init, static_argnums=1)


@pytest.fixture(scope="module")
def variables():
    return initial(jax.random.key(0), TINY)


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(jnp.asarray, first_examples(MADE, 0, 8))


@partial(jax.jit, static_argnames=("config", "train"))
def condition(variables, seen, config=TINY, train=False, key=None):
    params = {"params": variables["params"]}
    rngs = {} if key is None else {"dropout": key}
    return diffpose.Network(config).apply(params, seen, train, method="conditioned", rngs=rngs)


candidates = jax.jit(diffpose.candidates, static_argnums=2)
SHAPES = ("full", "peaks", "concatenated", "no_transformer")
CONFIGS = {name: diffpose.Config.tiny(**experiment_of.VARIANTS[name]) for name in SHAPES}
CONFIGS |= {"paper": diffpose.Config.paper()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_size_and_variant_fits_together(config):
    shapes = jax.eval_shape(lambda key: diffpose.init(key, config), jax.random.key(0))
    maps = jax.ShapeDtypeStruct((2, 3, 21, 64, 64), jnp.float32)

    def predicted(variables, maps):
        found = diffpose.apply(variables, diffpose.Inputs(maps), config)
        return found.hypotheses, found.keypoints

    hypotheses, single = jax.eval_shape(predicted, shapes, maps)
    assert hypotheses.shape == (2, 3, config.hypotheses, 21, 3) and single.shape == (2, 3, 21, 3)


def test_the_published_sizes():
    shapes = jax.eval_shape(lambda key: diffpose.init(key, diffpose.Config.paper()), jax.random.key(0))["params"]
    assert shapes["embedding"]["points"]["kernel"].shape == (128, 128)
    assert shapes["embedding"]["condition"]["kernel"].shape == (21 * 128, 21 * 128)
    assert shapes["denoiser"]["Dense_0"]["kernel"].shape == (63 + 1 + 21 * 128, 1024)
    assert len(shapes["denoiser"]) == 6 and sum(name.startswith("block") for name in shapes["embedding"]) == 4


def test_the_order_of_points_does_not_matter_to_tokens(variables, batch):
    seen = candidates(jax.random.key(0), jnp.asarray(batch["heatmaps"]), TINY)
    assert seen.points.shape == (8, 21, TINY.samples, 2)
    order = jax.random.permutation(jax.random.key(1), TINY.samples)
    mixed = HeatmapSamples(seen.points[:, :, order], seen.values[:, :, order])
    np.testing.assert_allclose(condition(variables, mixed), condition(variables, seen), atol=1e-5)
    other = candidates(jax.random.key(2), jnp.asarray(batch["heatmaps"]), TINY)
    assert np.abs(condition(variables, other) - condition(variables, seen)).max() > 1e-3


def linear(config):
    """A network whose condition is linear in the tokens: no transformer, no vectors of joints, no biases."""
    config = replace(config, transformer=False)
    params = initial(jax.random.key(0), config)["params"]
    embedding = params["embedding"] | {"joints": jnp.zeros((21, config.width))}
    return config, {"params": params | {"embedding": embedding}, "stats": {}}


def test_what_a_map_says_scales_its_token():
    config, variables = linear(TINY)
    points = jax.random.uniform(jax.random.key(0), (1, 21, 8, 2), minval=-1)
    values = jax.random.uniform(jax.random.key(1), (1, 21, 8))
    alone = jnp.zeros((21, 1)).at[4].set(1.0)
    once = condition(variables, HeatmapSamples(points, alone * values), config)
    np.testing.assert_allclose(
        condition(variables, HeatmapSamples(points, 3 * alone * values), config), 3 * once, rtol=1e-3, atol=1e-5
    )
    flat = replace(config, likelihood=False)
    np.testing.assert_allclose(
        condition(variables, HeatmapSamples(points, values), flat),
        condition(variables, HeatmapSamples(points, 3 * values), flat),
    )


def test_of_single_pixels_sampled_and_peak_conditions_differ_by_their_number():
    config, variables = linear(TINY)
    maps = jnp.zeros((2, 21, SIDE, SIDE)).at[:, :, 5, 9].set(0.6)
    drawn = condition(variables, candidates(jax.random.key(0), maps, config), config)
    peak = replace(config, samples=1)
    alone = condition(variables, candidates(jax.random.key(0), maps, peak), peak)
    np.testing.assert_allclose(drawn, config.samples * alone, rtol=1e-4, atol=1e-6)


def test_the_peak_is_the_first_point_unless_it_is_left_out(batch):
    maps = jnp.asarray(batch["heatmaps"], jnp.float32)
    seen = candidates(jax.random.key(0), maps, TINY)
    np.testing.assert_array_equal(seen.values[..., 0], jnp.max(maps, (-1, -2)))
    without = candidates(jax.random.key(0), maps, replace(TINY, argmax=False))
    assert without.points.shape == seen.points.shape
    assert (np.asarray(without.values[..., 0]) < np.asarray(seen.values[..., 0])).mean() > 0.5


def test_joints_are_hidden_in_training_alone():
    config, variables = linear(replace(TINY, joint_dropout=0.5))
    seen = HeatmapSamples(jnp.zeros((400, 21, 8, 2)), jnp.ones((400, 21, 8)))
    # a condition that says how many tokens there are
    embedding = variables["params"]["embedding"]
    embedding["points"]["kernel"] = jnp.ones_like(embedding["points"]["kernel"])
    embedding["condition"]["kernel"] = jnp.ones_like(embedding["condition"]["kernel"])
    whole = np.asarray(condition(variables, seen, config)[:, 0])
    hidden = np.asarray(condition(variables, seen, config, True, jax.random.key(0))[:, 0])
    np.testing.assert_allclose(hidden.mean() / whole.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(np.round(21 * hidden / whole), 21 * hidden / whole, atol=1e-3)
    np.testing.assert_allclose(whole, whole[0], rtol=1e-5)


def test_concatenated_points_come_likeliest_first():
    config = replace(TINY, condition="concatenated")
    variables = diffpose.init(jax.random.key(0), config)
    points = jax.random.uniform(jax.random.key(0), (1, 21, 8, 2))
    values = jnp.arange(8.0) * jnp.ones((1, 21, 1))
    found = condition(variables, HeatmapSamples(points, values), config)
    np.testing.assert_array_equal(found.reshape(1, 21, 8, 2), points[:, :, ::-1])


def test_a_denoiser_that_knows_the_noise_brings_the_hand_back():
    """In the 25 steps of the paper, from all noise, under its clamp."""
    config = diffpose.Config.paper()
    hand = 0.05 * jax.random.normal(jax.random.key(0), (3, 21, 3))
    x0, levels = diffpose.diffused(hand, config), cosine_levels(config.steps)

    def oracle(x, t):
        now = levels[t.astype(int)]
        return (x - now.alpha * x0) / now.sigma

    denoiser = clamp(denoiser_from_noise(oracle), config.limit)
    start = jax.random.normal(jax.random.key(2), x0.shape)
    found = jax.jit(lambda e: sample_ddpm(jax.random.key(1), denoiser, e, levels))(start)
    np.testing.assert_allclose(found, x0, atol=1e-3)
    wild = clamp(lambda x, _: 99 + 0 * x, config.limit)(x0, levels[3])
    np.testing.assert_array_equal(wild, config.limit)


def test_the_slope_of_the_loss(variables, batch):
    @jax.jit
    def value(params):
        return diffpose.loss(variables | {"params": params}, batch, TINY, key=jax.random.key(3))[0]

    params = variables["params"]
    slope = jax.jit(jax.grad(value))(params)
    ways = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    along = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slope, ways)), strict=True))
    step = 1e-3
    ahead, behind = (value(jax.tree.map(lambda x, d, s=s: x + s * d, params, ways)) for s in (step, -step))
    np.testing.assert_allclose((ahead - behind) / (2 * step), along, rtol=0.02)


def test_the_loss_is_the_mean_square_of_missed_noise(variables, batch):
    """A denoiser of zeros misses noise of unit variance; hands that lack a keypoint do not count."""
    zeros = variables | {"params": jax.tree.map(jnp.zeros_like, variables["params"])}
    many = jax.tree.map(lambda x: jnp.repeat(x, 32, 0), batch)
    loss = jax.jit(lambda v, b: diffpose.loss(v, b, TINY, key=jax.random.key(0))[0])
    np.testing.assert_allclose(loss(zeros, many), 1, atol=0.03)
    valid = batch["keypoints3d_valid"].at[4:, 3].set(False)
    missing = batch | {"keypoints3d_valid": valid}
    wild = missing | {"keypoints3d": jnp.where(valid.all(-1)[:, None, None], batch["keypoints3d"], jnp.nan)}
    assert float(loss(variables, missing)) == float(loss(variables, wild)) != float(loss(variables, batch))


def test_place_does_not_matter_to_what_is_diffused(batch):
    points = jnp.asarray(batch["keypoints3d"])
    x = diffpose.diffused(points, TINY)
    np.testing.assert_allclose(diffpose.diffused(points + 0.3, TINY), x, atol=1e-4)
    back = x.reshape(8, 21, 3) / TINY.scale
    np.testing.assert_allclose(back - back[:, :1], points - points[:, :1], atol=1e-6)
    noisy = diffuse(x, jnp.zeros_like(x), cosine_levels(5)[jnp.zeros(8, int)])
    assert 1 < np.std(noisy) < 3  # a body's under the paper's 10


def test_hypotheses_draw_points_of_their_own(variables, batch, monkeypatch):
    """With one noise for all, they still differ: by what each drew."""
    normal = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda key, *a, **k: normal(jax.random.key(0), *a, **k))
    inputs = diffpose.inputs_of({"heatmaps": batch["heatmaps"][:2]})

    def spread(config):
        found = jax.jit(lambda x: diffpose.apply(variables, x, config).hypotheses)(inputs)
        return np.ptp(found, 1).max()

    assert spread(TINY) > 1e-4 > 1e-6 > spread(replace(TINY, samples=1))


def test_leading_axes_and_keys(variables, batch):
    maps = jnp.asarray(batch["heatmaps"], jnp.float32)
    apply = jax.jit(lambda h, key: diffpose.apply(variables, diffpose.Inputs(h), TINY, key=key))
    flat = apply(maps, jax.random.key(0))
    shaped = apply(maps.reshape(2, 4, *maps.shape[1:]), jax.random.key(0))
    np.testing.assert_allclose(shaped.hypotheses.reshape(flat.hypotheses.shape), flat.hypotheses, atol=1e-6)
    assert np.abs(apply(maps, jax.random.key(1)).hypotheses - flat.hypotheses).max() > 1e-3
    with pytest.raises(ValueError, match="one of each keypoint"):
        diffpose.apply(variables, _inputs_of(maps[:, :20]), TINY)


def _inputs_of(maps):
    """Past the check of types, as where it is off."""
    inputs = object.__new__(diffpose.Inputs)
    object.__setattr__(inputs, "heatmaps", maps)
    return inputs


def test_training_learns_and_averages_its_weights():
    """A few steps on new hands each: the noise is told better, and the averages follow behind."""
    config = replace(TINY, rate=1e-2)
    (stage,) = diffpose.stages(config, None, 50)
    first = initial(jax.random.key(0), config)
    state = init_state(jax.random.key(0), first, stage)
    step = jax.jit(chex.assert_max_traces(train_step(stage), 1))
    hands = first_examples(MADE, 0, 32)
    losses = []
    for _ in range(50):
        state, told = step(state, hands)
        losses.append(float(told.terms["noise"]["loss"]))
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    kernel = [tree["params"]["denoiser"]["Dense_0"]["kernel"] for tree in (state.variables, state.averaged)]
    begun = first["params"]["denoiser"]["Dense_0"]["kernel"]
    apart, moved = np.linalg.norm(kernel[0] - kernel[1]), np.linalg.norm(kernel[0] - begun)
    assert 0.01 * moved < apart < 0.8 * moved


def test_averages_are_taken_every_so_many_steps():
    (stage,) = diffpose.stages(diffpose.Config.paper(), None, 10)
    steps = jnp.arange(0, 200_001)
    decay = np.asarray(stage.ema(steps))
    assert (decay[steps % 10 != 0] == 1).all() and decay[0] == 0
    np.testing.assert_allclose(decay[::10][-1], 0.995)


def test_the_best_of_more_is_no_worse_and_splits_are_apart(batch):
    keys = jax.random.split(jax.random.key(0))
    pred = jnp.asarray(batch["keypoints3d"])[:, None] + 0.01 * jax.random.normal(keys[0], (8, 20, 21, 3))
    outputs = diffpose.Outputs(pred - jnp.mean(pred, -2, keepdims=True), pred[:, 0])
    scores = {name: experiment_of.on(hard, experiment_of.best) for name, hard in (("hard", True), ("easy", False))}
    hard, easy = (scores[name](outputs, batch, None) for name in ("hard", "easy"))
    np.testing.assert_array_equal(np.isnan(hard), batch["ambiguous"].sum(-1) < 5)
    np.testing.assert_array_equal(np.isnan(easy), ~np.isnan(hard))
    few = experiment_of.best(diffpose.Outputs(outputs.hypotheses[:, :5], outputs.keypoints), batch, None)
    assert (np.nan_to_num(hard) + np.nan_to_num(easy) <= few + 1e-7).all()
    np.testing.assert_allclose(few, metrics.pa_mpjpe(pred[:, :5], batch["keypoints3d"][:, None]).min(-1), atol=1e-6)
    both = experiment_of.spreads(outputs, batch, None)
    assert both.shape == (8, 21, 2) and np.isfinite(both).all()
    wide = both[..., 1]
    assert np.mean(wide[batch["ambiguous"]]) > 1.2 * np.mean(wide[~batch["ambiguous"]])


def test_the_experiment_runs(tmp_path, capsys):
    preset = replace(experiment_of.experiment.presets["cpu"], config=TINY, world=MADE)
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: best_hard" in capsys.readouterr().out
