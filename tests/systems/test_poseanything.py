from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import poseanything as experiment_of
from jhand.experiment import main
from jhand.systems import poseanything

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = poseanything.Config.tiny(
    size=32,
    backbone=16,
    backbone_layers=1,
    backbone_heads=2,
    channels=16,
    heads=2,
    mlp=32,
    pattern=8,
    map_size=16,
    encoder_layers=1,
)
K = 9


def dots(key):
    """Pictures of nine spots, each of its own colour; seven are keypoints, joined in a row: cheaper than creatures."""
    colours = jax.random.uniform(key, (K, 3))

    def picture(key):
        points = jax.random.uniform(key, (K, 2), minval=0.15, maxval=0.85)
        maps = poseanything.marked_maps(points, TINY.size)
        return jnp.round(255 * jnp.clip(jnp.einsum("khw,kc->hwc", maps, colours), 0, 1)).astype(jnp.uint8), points

    images, points = jax.vmap(picture)(jax.random.split(jax.random.fold_in(key, 1), 3))
    valid = jnp.arange(K) < 7
    row = jnp.eye(K, k=1, dtype=jnp.uint8) + jnp.eye(K, k=-1, dtype=jnp.uint8)
    return {
        "support_images": images[:2],
        "support_points": points[:2],
        "query_image": images[2],
        "query_points": points[2],
        "keypoints_valid": valid,
        "skeleton": row * valid[:, None] * valid,
        "hidden": jnp.arange(K) < 2,
        "twin": valid,
        "category": jnp.int32(0),
    }


@pytest.fixture(scope="module")
def batch():
    return jax.jit(jax.vmap(dots))(jax.random.split(jax.random.key(0), 6))


@pytest.fixture(scope="module")
def variables():
    """Any values: drawing the first ones takes a compiler long, and the last layers' are zeros."""
    shapes = jax.eval_shape(lambda key: poseanything.init(key, TINY), jax.random.key(0))
    rng = np.random.default_rng(0)

    def drawn(path, x):
        mean, spread = (1, 0.1) if path[-1].key == "scale" else (0, 0.7 / np.sqrt(x.shape[0]))
        return jnp.asarray(rng.normal(mean, spread, x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


apply = jax.jit(poseanything.apply, static_argnums=2)


@pytest.mark.parametrize("name", ["small", "paper", *experiment_of.VARIANTS])
def test_every_size_and_variant_fits_together(name):
    fields = experiment_of.VARIANTS.get(name, {})
    config = getattr(poseanything.Config, name if name in ("small", "paper") else "tiny")(**fields)
    shapes = jax.eval_shape(lambda key: poseanything.init(key, config), jax.random.key(0))
    keypoints = 100 if name == "paper" else 21

    def predicted(variables, x):
        side = (config.size, config.size, 3)
        inputs = poseanything.Inputs(
            jnp.zeros((2, config.shots, *side)) + x,
            jnp.zeros((2, config.shots, keypoints, 2)),
            jnp.zeros((2, *side)),
            jnp.ones((2, keypoints), bool),
            jnp.zeros((2, keypoints, keypoints)),
        )
        found = poseanything.apply(variables, inputs, config)
        return found.points, found.layers

    points, layers = jax.eval_shape(predicted, shapes, jnp.zeros(()))
    assert points.shape == (2, keypoints, 2) and layers.shape == (2, config.decoder_layers, keypoints, 2)


def count(config):
    shapes = jax.eval_shape(lambda key: poseanything.init(key, config), jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_the_published_sizes_and_equal_parameters():
    config = poseanything.Config.paper()
    layer = jax.eval_shape(lambda key: poseanything.init(key, config), jax.random.key(0))["params"]["layer0"]
    assert layer["skeleton"]["Dense_0"]["kernel"].shape == (256, 2 * 768)
    assert layer["picture"]["query"]["kernel"].shape == (512, 8, 64)
    assert layer["picture"]["value"]["kernel"].shape == (256, 8, 64) and layer["choker"]["kernel"].shape == (512, 256)
    assert abs(count(replace(config, graph=False)) / count(config) - 1) < 0.002


def test_any_order_of_keypoints(variables, batch):
    """Asked for in another order, they come in that order, and are the same."""
    order = np.random.default_rng(0).permutation(K)
    mixed = batch | {
        "support_points": batch["support_points"][:, :, order],
        "keypoints_valid": batch["keypoints_valid"][:, order],
        "skeleton": batch["skeleton"][:, order][:, :, order],
    }
    found, other = (apply(variables, poseanything.inputs_of(b), TINY) for b in (batch, mixed))
    valid = np.asarray(mixed["keypoints_valid"])
    np.testing.assert_allclose(other.points[valid], found.points[:, order][valid], atol=2e-5)
    assert np.std(found.points[np.asarray(batch["keypoints_valid"])]) > 0.005


def test_padding_does_not_matter(variables, batch):
    wild = batch["support_points"].at[:, :, 7:].set(0.3)
    joined = batch["skeleton"].at[:, 7:].set(1).at[:, :, 7:].set(1)
    found, other = (
        apply(variables, poseanything.inputs_of(b), TINY).points[:, :7]
        for b in (batch, batch | {"support_points": wild, "skeleton": joined})
    )
    np.testing.assert_allclose(other, found, atol=1e-6)
    none = apply(variables, poseanything.inputs_of(batch | {"skeleton": 0 * batch["skeleton"]}), TINY).points[:, :7]
    assert np.abs(none - found).max() > 1e-4


def test_tokens_are_features_at_marks():
    """Of a map that is linear across the picture, the token says where the mark is; marks away from the border."""
    y, x = jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0), indexing="ij")
    features = jnp.stack([(x + 0.5) / 8, (y + 0.5) / 8], -1)[None, None].repeat(2, 1)
    points = jax.random.uniform(jax.random.key(0), (1, 2, 5, 2), minval=0.25, maxval=0.75)
    found = poseanything.support_tokens(features, poseanything.marked_maps(points, 32))
    np.testing.assert_allclose(found, points.mean(1), atol=0.004)


def test_the_likeliest_place_by_hand():
    maps = np.random.default_rng(0).normal(size=(2, 3, 6, 8)).astype(np.float32)
    everywhere, local = poseanything.likeliest(maps)
    for index in np.ndindex(2, 3):
        m = maps[index].astype(np.float64)
        share = np.exp(m) / np.exp(m).sum()
        rows, columns = np.mgrid[:6, :8]
        for found, near in ((everywhere, np.ones((6, 8), bool)), (local, None)):
            if near is None:
                r, c = divmod(m.argmax(), 8)
                near = (abs(rows - r) <= 1) & (abs(columns - c) <= 1)
            s = share * near / (share * near).sum()
            np.testing.assert_allclose(
                found[index], [(s * (columns + 0.5)).sum() / 8, (s * (rows + 0.5)).sum() / 6], atol=1e-5
            )


def test_mixing_by_hand():
    skeleton = np.zeros((5, 5), np.float32)
    skeleton[0, 1] = skeleton[1, 2] = skeleton[1, 3] = skeleton[3, 4] = 1
    own, joined = poseanything.mixing(skeleton, np.array([True, True, True, True, False]))
    np.testing.assert_array_equal(own, np.diag([1, 1, 1, 1, 0]))
    third = 1 / 3
    expected = [[0, 1, 0, 0, 0], [third, 0, third, third, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(joined, expected, atol=1e-6)


def test_layers_along_the_skeleton_by_hand():
    config = replace(TINY, dropout=0.0)
    x = jax.random.normal(jax.random.key(0), (1, 4, 16))
    mixed = poseanything.mixing(jnp.eye(4, k=1), jnp.ones(4, bool))[None]
    layer = poseanything.FeedForward(config)
    params = layer.init(jax.random.key(1), x, mixed, False)["params"]
    a, b = ({k: np.asarray(v, np.float64) for k, v in params[f"Dense_{n}"].items()} for n in (0, 1))
    both = np.asarray(x[0], np.float64) @ a["kernel"] + a["bias"]
    own, others = both[:, : config.mlp], both[:, config.mlp :]
    hidden = np.maximum(own + np.asarray(mixed[0, 1]) @ others, 0)
    np.testing.assert_allclose(
        layer.apply({"params": params}, x, mixed, False)[0], hidden @ b["kernel"] + b["bias"], atol=1e-5
    )


def test_places_do_not_pass_gradients_between_layers(variables, batch):
    """The last layer's places depend on the tokens alone, not on where earlier layers put them."""

    def last(params):
        found = poseanything.Network(TINY).apply({"params": params}, poseanything.inputs_of(batch), False)
        return jnp.sum(jnp.square(found.points))

    slope = jax.jit(jax.grad(last))(variables["params"])
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(slope["move0"]))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope["move1"]))


def test_the_first_answer_is_the_proposal(variables, batch):
    """As long as nothing moves it; the first values of what moves it are zeros."""
    init = poseanything.Move(TINY).init(jax.random.key(0), jnp.zeros((1, K, TINY.channels)))["params"]
    assert not init["Dense_3"]["kernel"].any() and not init["Dense_3"]["bias"].any()
    still = variables["params"] | {"move0": init, "move1": init}
    found = apply(variables | {"params": still}, poseanything.inputs_of(batch), TINY)
    _, local = poseanything.likeliest(found.likeness)
    np.testing.assert_allclose(found.points, local, atol=1e-5)


def test_the_losses_by_hand(variables, batch):
    outputs = apply(variables, poseanything.inputs_of(batch), TINY)
    found = poseanything.losses(outputs, batch, TINY)
    valid = np.asarray(batch["keypoints_valid"])
    truth = np.asarray(batch["query_points"], np.float64)
    off = np.abs(np.asarray(outputs.proposals) - truth).sum(-1)[valid].mean()
    layers = sum(np.abs(np.asarray(outputs.layers[:, n]) - truth).sum(-1)[valid].mean() for n in range(2))
    np.testing.assert_allclose(found["proposals"], off, rtol=1e-5)
    np.testing.assert_allclose(found["layers"], layers, rtol=1e-5)
    told = 1 / (1 + np.exp(-np.asarray(outputs.likeness, np.float64)))
    size = TINY.map_size
    centre, h = np.arange(size), told.shape[-1]
    squares = []
    for n, k in zip(*np.nonzero(valid), strict=True):
        x, y = truth[n, k] * size - 0.5
        full = np.exp(-((centre - x) ** 2 + (centre[:, None] - y) ** 2) / 2)
        at = (np.arange(h) + 0.5) * size / h - 0.5
        low = np.floor(at).astype(int)
        weights = np.zeros((h, size))
        weights[np.arange(h), low] = 1 - (at - low)
        weights[np.arange(h), np.minimum(low + 1, size - 1)] += at - low
        small = weights @ full @ weights.T
        squares.append(np.mean((told[n, k] - small / max(small.max(), 1e-6)) ** 2))
    np.testing.assert_allclose(found["likeness"], np.mean(squares), rtol=1e-4)
    total, aux = poseanything.loss(variables, batch, TINY, key=jax.random.key(0))
    np.testing.assert_allclose(total, 2 * found["likeness"] + found["proposals"] + found["layers"], rtol=1e-5)
    assert set(aux.terms) == {"likeness", "proposals", "layers"}
    wild = batch | {"query_points": jnp.where(batch["keypoints_valid"][..., None], batch["query_points"], jnp.nan)}
    assert all(np.isfinite(term) for term in poseanything.losses(outputs, wild, TINY).values())


@pytest.fixture(scope="module")
def sloping(batch):
    """The loss and its slope; traced once."""

    def value(params):
        return poseanything.loss({"params": params, "stats": {}}, batch, TINY, key=jax.random.key(3))[0]

    return jax.jit(jax.value_and_grad(chex.assert_max_traces(value, 1)))


def test_the_slope_of_the_loss(variables, sloping):
    params = variables["params"]
    slope = sloping(params)[1]
    # along the slope of the last layer: what comes before it also moves places, which pass no gradient
    last = {
        name: part if name in ("move1", "layer1") else jax.tree.map(jnp.zeros_like, part)
        for name, part in slope.items()
    }
    steep = optax.tree.norm(last)
    step = 3e-3
    ahead, behind = (sloping(jax.tree.map(lambda x, d, s=s: x + s * d / steep, params, last))[0] for s in (step, -step))
    np.testing.assert_allclose((ahead - behind) / (2 * step), steep, rtol=0.02)


def test_a_skeleton_of_others_is_as_large(variables, batch):
    inputs = poseanything.inputs_of(batch)
    other = np.asarray(poseanything._skeleton(inputs, replace(TINY, skeleton="shuffled"), False))
    own = np.asarray(inputs.skeleton)
    np.testing.assert_array_equal(np.sort(other.sum(-1)), np.sort(own.sum(-1)))
    assert (other != own).any() and other[:, 7:].sum() == 0
    np.testing.assert_array_equal(poseanything._skeleton(inputs, replace(TINY, skeleton="shuffled"), True), own)


def test_leading_axes_and_too_few_pictures(variables, batch):
    inputs = poseanything.inputs_of(batch)
    flat = apply(variables, inputs, TINY)
    shaped = apply(variables, jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), inputs), TINY)
    np.testing.assert_allclose(shaped.points.reshape(flat.points.shape), flat.points, atol=1e-6)
    with pytest.raises(ValueError, match="expected 5 or more"):
        poseanything.apply(variables, inputs, replace(TINY, shots=5))


def test_a_hand_in_a_clip_is_asked_about_by_its_first_frame():
    rng = np.random.default_rng(0)
    clip = {
        "image": rng.integers(0, 255, (3, 1, 32, 32, 3), np.uint8),
        "hands": {"right": {"keypoints2d": rng.uniform(0, 31, (3, 1, 21, 2)), "confidence": np.ones((3, 1, 21))}},
    }
    clip["hands"]["right"]["confidence"][2, 0, 4] = 0
    found = poseanything.prepare(clip, TINY)
    np.testing.assert_array_equal(found["query_image"], clip["image"][2, 0])
    np.testing.assert_allclose(found["support_points"][0], (clip["hands"]["right"]["keypoints2d"][0, 0] + 0.5) / 32)
    assert found["keypoints_valid"].sum() == 20 and not found["keypoints_valid"][4]
    assert found["skeleton"].sum() == 40
    with pytest.raises(ValueError, match="crops of 64 x 64"):
        poseanything.prepare(clip, poseanything.Config.tiny())


def test_training_learns(variables, batch, sloping):
    (stage,) = poseanything.stages(replace(TINY, rate=5e-3, warm_up=2), None, 20)
    params, optimiser = variables["params"], stage.updates[0].optimiser
    state, losses = optimiser.init(params), []
    for _ in range(20):
        value, slope = sloping(params)
        change, state = optimiser.update(slope, state)
        params = optax.apply_updates(params, change)
        losses.append(float(value))
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_metrics_are_of_the_box_and_of_those_meant(batch):
    truth = batch["query_points"]
    box = np.ptp(np.asarray(truth[:, :7]), 1).max(-1)
    shifted = truth + jnp.asarray(np.array([0.1, 0.19, 0.21, 0.3, 0.0, 0.5]) * box)[:, None, None] * jnp.array([1.0, 0])
    zeros = jnp.zeros((6, K, 1, 1))
    outputs = poseanything.Outputs(shifted, truth, truth[:, None], zeros)
    score = partial(lambda name, o: experiment_of.experiment.metrics[name](o, batch, None), o=outputs)
    np.testing.assert_array_equal(score("pck"), [1, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(score("auc"), [0.7, 0.4, 0.2, 0.0, 1.0, 0.0], atol=0.11)
    np.testing.assert_allclose(score("nme"), [0.1, 0.19, 0.21, 0.3, 0.0, 0.5], atol=1e-5)
    assert np.allclose(score("nme_proposals"), 0)
    hidden = replace(outputs, points=truth.at[:, 1].add(10.0))
    np.testing.assert_array_equal(score("pck_hidden", o=hidden), 0.5)
    none = batch | {"hidden": batch["keypoints_valid"] & False}
    assert np.isnan(experiment_of.experiment.metrics["pck_hidden"](outputs, none, None)).all()
    answer = experiment_of.as_annotated(batch, None)(batch)
    np.testing.assert_array_equal(answer.points, batch["support_points"][:, 0])


def test_the_experiment_runs(tmp_path, capsys):
    from jhand.data.made import Made

    preset = experiment_of.experiment.presets["cpu"]
    preset = replace(
        preset, config=replace(TINY, decoder_layers=1), world=Made(_made, None), held_out_world=Made(_made, None)
    )
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: pck" in capsys.readouterr().out


def _made(key, scene):
    """Nine spots."""
    return dots(key)
