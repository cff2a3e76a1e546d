from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import h2o_action as experiment_of
from jhand.data.made import Made
from jhand.experiment import main
from jhand.nn import AdaptiveGraphConv, directed_adjacency
from jhand.systems import h2o_action as system

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = system.Config.tiny(widths=(4, 8), kernel=3, classes=18)
FRAMES = 8


def still(key, scene):
    """Points at random that do not move, an action that says on which side of the left wrist the right one is."""
    points = 0.2 * jax.random.normal(key, (1, 63, 3)) + jnp.zeros((FRAMES, 1, 1))
    return {
        "points": points,
        "estimated": points + 0.02,
        "valid": jnp.ones((FRAMES, 3), bool),
        "object": jnp.int32(2),
        "action": (points[0, 21, 0] > points[0, 0, 0]).astype(jnp.int32),
        "subject": jnp.int32(0),
    }


@pytest.fixture(scope="module")
def batch():
    return jax.jit(jax.vmap(partial(still, scene=None)))(jax.random.split(jax.random.key(0), 12))


def drawn(config, seed=0):
    """Any values: drawing the first ones takes a compiler long."""
    shapes = jax.eval_shape(lambda key: system.init(key, config), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def one(path, x):
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype)
        return jnp.asarray(rng.normal(0, 0.7 / np.sqrt(x.shape[0]), x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


@pytest.fixture(scope="module")
def variables():
    return drawn(TINY)


apply = jax.jit(system.apply, static_argnums=2)


@pytest.mark.parametrize("name", ["small", "paper", *experiment_of.VARIANTS])
def test_every_size_and_variant_fits_together(name):
    fields = experiment_of.VARIANTS.get(name, {})
    config = getattr(system.Config, name if name in ("small", "paper") else "tiny")(**fields)
    shapes = jax.eval_shape(lambda key: system.init(key, config), jax.random.key(0))

    def predicted(variables, x):
        inputs = system.Inputs(x, x, jnp.ones((*x.shape[:-2], 3), bool), jnp.zeros(x.shape[:1], jnp.int32))
        found = system.apply(variables, inputs, config)
        return found.logits, found.topology

    logits, topology = jax.eval_shape(predicted, shapes, jax.ShapeDtypeStruct((2, 32, 63, 3), jnp.float32))
    assert logits.shape == (2, config.classes) and topology.shape == (2, 3, 3)


def test_the_given_graphs_join_nothing_across():
    graphs = directed_adjacency(system.EDGES, system.NODES)
    assert graphs.shape == (3, 63, 63)
    assert (graphs[:, ~system.WITHIN] == 0).all()
    np.testing.assert_array_equal(graphs[0], np.eye(63))
    np.testing.assert_allclose(graphs[1].sum(1), [0, *20 * [1], 0, *20 * [1], 0, *20 * [1]], atol=1e-6)
    assert graphs[1, 21 + 5, 21] == 1 and graphs[1, 42 + 9].max() == 0.5  # a middle has two corners


def test_nodes_begin_at_the_hands_wrists_and_what_is_not_seen_is_nothing(batch):
    config = replace(TINY, scale=2.0)
    points = np.asarray(batch["points"]).copy()
    valid = np.asarray(batch["valid"]).copy()
    valid[0, :, 1] = False  # one hand
    valid[1, :3, :2] = False  # hands come later
    valid[2, :, :2] = False  # no hand
    found = np.asarray(system.features(jnp.asarray(points), jnp.asarray(valid), batch["object"], config))
    wrists = points[:, :, [0, 21]]
    origins = [wrists[0, 0, 0], wrists[1, 3].mean(0), points[2, 0, 42], wrists[3, 0].mean(0)]
    for n, origin in enumerate(origins):
        seen = np.repeat(valid[n], 21, -1)
        np.testing.assert_allclose(found[n, ..., :3][seen], 2 * (points[n] - origin)[seen], atol=1e-5)
        assert (found[n, ..., :3][~seen] == 0).all()
        np.testing.assert_array_equal(found[n, ..., 3], seen)
    np.testing.assert_array_equal(found[:, 0, 42:, 4:].argmax(-1), 2)
    assert (found[:, :, :42, 4:] == 0).all()
    without = system.features(jnp.asarray(points), jnp.asarray(valid), batch["object"], replace(config, without="left"))
    assert (without[:, :, :21, :4] == 0).all() and (without[3, :, 21:42, 3] == 1).all()


def test_where_all_is_does_not_matter(variables, batch):
    moved = batch | {"points": batch["points"] + jnp.array([0.3, -0.2, 0.5])}
    found, other = (apply(variables, system.inputs_of(b), TINY).logits for b in (batch, moved))
    np.testing.assert_allclose(other, found, atol=1e-4)
    assert np.std(found) > 1e-3


def test_a_layer_s_graphs_by_hand():
    """Given, learned and computed, and what may be joined."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    A = rng.uniform(size=(3, 6, 6)).astype(np.float32)
    may = np.kron(np.eye(2), np.ones((3, 3))) > 0
    layer = AdaptiveGraphConv(8)
    params = jax.tree.map(np.asarray, layer.init(jax.random.key(0), jnp.asarray(x), A, may)["params"])
    params = params | {"learned": rng.normal(size=(6, 6, 3)).astype(np.float32)}
    for joinable in (may, None):
        found = layer.apply({"params": params}, jnp.asarray(x), A, joinable)
        allowed = np.ones((6, 6), bool) if joinable is None else joinable
        compared = (x @ params["compared"]["kernel"] + params["compared"]["bias"]).reshape(2, 5, 6, 6, 2)
        values = (x @ params["values"]["kernel"]).reshape(2, 5, 6, 3, 8)
        expected = np.zeros((2, 5, 6, 8)) + params["bias"]
        for b in range(2):
            for k in range(3):
                agree = sum(compared[b, t, :, 3 + k] @ compared[b, t, :, k].T for t in range(5)) / (2 * 5)
                share = np.where(allowed, np.exp(agree), 0)
                mixing = A[k] + np.where(allowed, params["learned"][..., k], 0) + share / share.sum(1, keepdims=True)
                for t in range(5):
                    expected[b, t] += mixing @ values[b, t, :, k]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_within_hears_nothing_across(batch):
    config = replace(TINY, between=False)
    variables = drawn(config)
    topology = apply(variables, system.inputs_of(batch), config).topology
    assert (np.asarray(topology)[:, ~np.eye(3, dtype=bool)] == 0).all() and np.diagonal(topology[0]).min() > 0.001
    both = apply(drawn(TINY), system.inputs_of(batch), TINY).topology
    assert (np.asarray(both) > 1e-3).all()
    none = replace(TINY, learned=False)
    assert (np.asarray(apply(drawn(none), system.inputs_of(batch), none).topology) == 0).all()
    ratio = experiment_of.to_the_object(system.Outputs(jnp.zeros((1, 18)), jnp.arange(9.0).reshape(1, 3, 3)), {}, None)
    np.testing.assert_allclose(ratio, ((2 + 5 + 6 + 7) / 4) / 2)


def test_frames_are_fewer_where_channels_double(variables, batch):
    """A motion in the last of many frames reaches the answer; the number of frames is free."""
    inputs = system.inputs_of(batch)
    longer = jax.tree.map(lambda x: x if x.ndim == 1 else jnp.concatenate([x, x], 1), inputs)
    np.testing.assert_allclose(apply(variables, longer, TINY).logits.shape, apply(variables, inputs, TINY).logits.shape)
    shapes = jax.eval_shape(lambda key: system.init(key, system.Config.paper()), jax.random.key(0))["params"]
    assert shapes["layer8"]["frames"]["kernel"].shape == (9, 1, 256, 256)
    assert shapes["layer3"]["nodes"]["learned"].shape == (63, 63, 3)


@pytest.fixture(scope="module")
def sloping(batch, variables):
    """The loss and its slope; traced once."""

    def value(params):
        return system.loss(variables | {"params": params}, batch, TINY, key=jax.random.key(3))[0]

    return jax.jit(jax.value_and_grad(chex.assert_max_traces(value, 1)))


def test_the_slope_of_the_loss(variables, sloping):
    slope = sloping(variables["params"])[1]
    steep, step = optax.tree.norm(slope), 1e-3
    ahead, behind = (
        sloping(jax.tree.map(lambda x, d, s=s: x + s * d / steep, variables["params"], slope))[0] for s in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), steep, rtol=0.02)


def test_training_learns(variables, sloping):
    (stage,) = system.stages(replace(TINY, rate=0.02), None, 40)
    params, optimiser = variables["params"], stage.updates[0].optimiser
    state, losses = optimiser.init(params), []
    for _ in range(25):
        value, slope = sloping(params)
        change, state = optimiser.update(slope, state, params)
        params = optax.apply_updates(params, change)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_by_hand_and_what_it_is_of(variables, batch):
    value, aux = system.loss(variables, batch, TINY, key=jax.random.key(0))
    logits, _ = system.Network(TINY).apply(
        {"params": variables["params"], "batch_stats": variables["stats"]},
        system.features(batch["points"], batch["valid"], batch["object"], TINY),
        True,
        mutable="batch_stats",
    )
    z = np.asarray(logits, np.float64)
    said = np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), batch["action"]]
    np.testing.assert_allclose(value, said.mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.terms["accuracy"], np.mean(z.argmax(-1) == np.asarray(batch["action"])))
    assert set(aux.stats) == set(variables["stats"])
    other = batch | {"estimated": batch["estimated"] + jax.random.normal(jax.random.key(1), batch["points"].shape)}
    assert float(system.loss(variables, other, TINY, key=jax.random.key(0))[0]) == float(value)
    inputs = system.inputs_of(other)
    given, estimated = (apply(variables, inputs, replace(TINY, tested=of)).logits for of in ("points", "estimated"))
    assert np.abs(given - estimated).max() > 1e-3


def test_leading_axes_and_wrong_points(variables, batch):
    inputs = system.inputs_of(batch)
    flat = apply(variables, inputs, TINY)
    shaped = apply(variables, jax.tree.map(lambda x: x.reshape(3, 4, *x.shape[1:]), inputs), TINY)
    np.testing.assert_allclose(shaped.logits.reshape(flat.logits.shape), flat.logits, atol=1e-4)
    few = object.__new__(system.Inputs)
    for name in ("points", "estimated"):
        object.__setattr__(few, name, jnp.zeros((2, 8, 42, 3)))
    with pytest.raises(ValueError, match="of two hands and an object"):
        system.apply(variables, few, TINY)


def test_scores_are_of_actions_and_verbs(batch):
    names = experiment_of.ACTIONS
    one, other = names.index("carry, left hand, end 0"), names.index("carry, right hand, end 1")
    logits = jax.nn.one_hot(jnp.array([one, one, one]), len(names))
    outputs = system.Outputs(logits, jnp.ones((3, 3, 3)))
    asked = {"action": jnp.array([one, other, names.index("turn, left hand")])}
    np.testing.assert_array_equal(experiment_of.accuracy(outputs, asked, None), [1, 0, 0])
    np.testing.assert_array_equal(experiment_of.verb(outputs, asked, None), [1, 1, 0])
    answer = experiment_of.most_common({"action": np.array([3, 3, 1])}, None)(batch)
    assert (np.asarray(answer.logits).argmax(-1) == 3).all()


def test_the_experiment_runs(tmp_path, capsys):
    preset = experiment_of.experiment.presets["cpu"]
    preset = replace(preset, config=TINY, world=Made(still), held_out_world=Made(still))
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: accuracy" in capsys.readouterr().out
