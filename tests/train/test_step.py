"""One step beside the same computed by hand with optax."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jhand.train import LossAux, Precision, Stage, Update, adamw, begin_stage, init_state, train_step
from tests.train import small

KEY = jax.random.key(5)
SGD = optax.sgd(0.1, momentum=0.9)


def start(stage):
    return init_state(KEY, small.init(jax.random.key(0)), stage)


def steps_of(stage, state, number=3, rows=small.BATCH, **more):
    step = jax.jit(train_step(stage, **more))
    seen = []
    for i in range(number):
        state, metrics = step(state, small.batch_at(i, rows))
        seen.append(metrics)
    return state, seen


def test_steps_are_those_of_optax():
    stage = Stage("s", 9, (Update("all", small.plain_loss, SGD),))
    state, seen = steps_of(stage, start(stage))

    params = small.init(jax.random.key(0))["params"]
    optimiser = SGD.init(params)
    for i in range(3):
        of = lambda p: small.plain_loss({"params": p}, small.batch_at(i), key=KEY)[0]  # noqa: B023, E731
        value, gradient = jax.value_and_grad(of)(params)
        change, optimiser = SGD.update(gradient, optimiser, params)
        params = optax.apply_updates(params, change)
    chex.assert_trees_all_close(state.params, params, atol=1e-6)
    assert seen[-1].terms["all"]["loss"] == pytest.approx(float(value), rel=1e-5)
    assert seen[-1].terms["all"]["gradient_norm"] == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-5)
    assert seen[-1].terms["all"]["step_norm"] == pytest.approx(float(optax.tree.norm(change)), rel=1e-5)
    assert int(state.step) == int(state.stage_step) == 3


def test_statistics_thread_through_steps():
    stage = Stage("s", 9, (Update("all", small.loss, optax.set_to_zero()),))
    state, _ = steps_of(stage, start(stage))
    params = small.init(jax.random.key(0))["params"]
    mean = np.zeros(small.WIDTH)
    for i in range(3):
        mean = 0.9 * mean + 0.1 * np.asarray(small.apply(params, small.batch_at(i)["x"])[1])
    np.testing.assert_allclose(state.stats["encoder"]["mean"], mean, atol=1e-6)
    chex.assert_trees_all_equal(state.params, params)


def test_microbatches_are_the_batch_for_a_loss_that_is_a_mean():
    stage = Stage("s", 9, (Update("all", small.plain_loss, SGD),))
    whole, seen = steps_of(stage, start(stage))
    parts, seen_parts = steps_of(stage, start(stage), accumulate=4)
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
    chex.assert_trees_all_close(seen_parts[-1], seen[-1], rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be split into 3 microbatches"):
        steps_of(stage, start(stage), 1, accumulate=3)


def test_microbatches_see_statistics_one_after_the_other():
    stage = Stage("s", 9, (Update("all", small.loss, optax.set_to_zero()),))
    state, _ = steps_of(stage, start(stage), 1, accumulate=2)
    x, params = small.batch_at(0)["x"], small.init(jax.random.key(0))["params"]
    first, second = (np.asarray(small.apply(params, x[i::2])[1]) for i in range(2))
    np.testing.assert_allclose(state.stats["encoder"]["mean"], 0.1 * (0.9 * first + second), atol=1e-6)


def test_only_the_trainable_part_moves_and_has_a_state():
    stage = Stage("s", 9, (Update("head", small.plain_loss, optax.adam(0.1), trainable=("head/kernel",)),))
    before = start(stage)
    after, _ = steps_of(stage, before)
    moved = {k for k, x in small.flat(after.params).items() if (x != small.flat(before.params)[k]).any()}
    assert moved == {"head/kernel"}
    assert sum(x.size for x in jax.tree.leaves(after.optimisers)) == 2 * small.WIDTH + 1  # two moments and a count


def test_a_trainable_part_that_is_not_there_is_named():
    stage = Stage("s", 9, (Update("u", small.plain_loss, SGD, trainable=("decoder",)),))
    with pytest.raises(ValueError, match=r"stage 's', update 'u': nothing lies under 'decoder'.*\n  encoder/kernel"):
        start(stage)


def scalar_loss(name, target, variables, batch, *, key):
    """Pulls params[name] to half of where `target` of all variables is."""
    return 0.5 * (variables["params"][name] - target(variables)) ** 2, LossAux()


def scalars(**params):
    return {"params": {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}, "stats": {}}


def test_updates_run_in_turn_each_with_its_own_part_and_pace():
    """b moves to a, then every second step a to twice b: as worked out by hand."""
    b_to_a = Update("b", partial(scalar_loss, "b", lambda v: v["params"]["a"]), optax.sgd(1.0), ("b",))
    a_to_2b = Update("a", partial(scalar_loss, "a", lambda v: 2 * v["params"]["b"]), optax.sgd(1.0), ("a",), every=2)
    stage = Stage("s", 9, (b_to_a, a_to_2b))
    state = init_state(KEY, scalars(a=1.0, b=5.0), stage)
    step, seen = jax.jit(train_step(stage)), []
    for _ in range(4):
        state, metrics = step(state, {})
        seen.append((float(state.params["a"]), float(state.params["b"]), float(metrics.taken["a"])))
        assert float(metrics.taken["b"]) == 1
    assert seen == [(2, 1, 1), (2, 2, 0), (4, 2, 1), (4, 4, 0)]


def test_averages_are_seen_by_losses_and_follow():
    teacher = lambda v: v["ema"]["params"]["a"] + 1  # noqa: E731
    stage = Stage("s", 9, (Update("a", partial(scalar_loss, "a", teacher), optax.sgd(1.0)),), ema=0.75)
    state = init_state(KEY, scalars(a=0.0), stage)
    assert state.variables["ema"] == {"params": {"a": 0.0}, "stats": {}}
    for expected, averaged in ((1.0, 0.25), (1.25, 0.5), (1.5, 0.75)):
        state, _ = jax.jit(train_step(stage))(state, {})
        assert float(state.params["a"]) == expected
        assert float(state.averaged["params"]["a"]) == averaged


def test_the_decay_of_averages_may_be_a_schedule():
    stage = Stage("s", 9, (Update("a", partial(scalar_loss, "a", lambda v: 1.0), optax.sgd(1.0)),), ema=lambda n: n / 2)
    state = init_state(KEY, scalars(a=0.0), stage)
    state, _ = train_step(stage)(state, {})
    assert float(state.ema["params"]["a"]) == 1  # decay 0: all new
    state, _ = train_step(stage)(state, {})
    assert float(state.ema["params"]["a"]) == 1


def test_a_stage_begins_with_new_optimisers_and_what_it_asks_for():
    first = Stage(
        "first", 9, (Update("a", partial(scalar_loss, "a", lambda v: 1.0), optax.adam(0.5), ("a",)),), ema=0.5
    )
    copy = lambda v: {**v, "params": {**v["params"], "b": v["ema"]["params"]["a"]}}  # noqa: E731
    second = Stage("second", 9, (Update("b", partial(scalar_loss, "b", lambda v: 1.0), SGD, ("b",)),), begin=copy)
    state = init_state(KEY, scalars(a=0.0, b=0.0), first)
    state, _ = train_step(first)(state, {})
    assert float(state.ema["params"]["a"]) == pytest.approx(0.25, rel=1e-4)
    state = begin_stage(state, second)
    assert float(state.params["b"]) == pytest.approx(0.25, rel=1e-4) and float(state.params["a"]) == pytest.approx(
        0.5, rel=1e-4
    )
    assert state.ema == {} and set(state.optimisers) == {"b"}
    assert (int(state.step), int(state.stage_step)) == (1, 0)
    carried = begin_stage(init_state(KEY, scalars(a=3.0), first), Stage("third", 1, first.updates, ema=0.1))
    assert float(carried.ema["params"]["a"]) == 3


def test_bfloat16_is_seen_by_the_loss_and_nowhere_else():
    seen = {}

    def loss(variables, batch, *, key):
        seen.update({"w": variables["params"]["w"].dtype, "frozen": variables["params"]["frozen"].dtype})
        seen.update({"ema": variables["ema"]["params"]["w"].dtype, "stats": variables["stats"]["m"].dtype})
        seen.update({name: x.dtype for name, x in batch.items()})
        mean = jnp.mean(batch["image"] * variables["params"]["w"])
        return mean, LossAux({"m": mean}, {"mean": mean})

    precision = Precision(jnp.bfloat16, params=("w",), batch=("image",))
    stage = Stage("s", 9, (Update("u", loss, optax.adam(0.1)),), ema=0.5)
    variables = scalars(w=1.0, frozen=1.0) | {"stats": {"m": jnp.zeros(())}}
    batch = {"image": jnp.ones((4, 2)), "target": jnp.ones(4), "id": jnp.arange(4)}
    state, metrics = train_step(stage, precision=precision)(init_state(KEY, variables, stage), batch)
    half, single = jnp.bfloat16, jnp.float32
    expected = {"w": half, "frozen": single, "ema": half, "stats": single, "image": half, "target": single}
    assert seen == {**expected, "id": jnp.int32}
    assert {x.dtype for x in jax.tree.leaves((state.params, state.stats, state.ema))} == {jnp.dtype(single)}
    assert metrics.terms["u"]["loss"].dtype == single
    full = train_step(stage)(init_state(KEY, variables, stage), batch)[0]
    chex.assert_trees_all_close(state.params, full.params, rtol=1e-2)


def test_steps_draw_from_keys_of_their_own():
    drawn = []

    def loss(variables, batch, *, key):
        return 0 * variables["params"]["a"], LossAux({}, {"draw": jax.random.uniform(key)})

    stage = Stage("s", 9, (Update("u", loss, SGD), Update("v", loss, SGD)))
    state = init_state(KEY, scalars(a=0.0), stage)
    for _ in range(2):
        state, metrics = train_step(stage)(state, {})
        drawn += [float(metrics.terms[name]["draw"]) for name in ("u", "v")]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: (x[None], LossAux()), r"loss has shape \(1,\), expected a scalar"),
        (lambda x: (x, LossAux({}, {"t": jnp.ones(3)})), r"t has shape \(3,\), expected a scalar"),
        (lambda x: (x, LossAux({}, {"loss": x})), r"terms may not be called \['loss'\]"),
        (lambda x: (x, LossAux({"new": x})), r"unknown entries \['new'\]"),
    ],
)
def test_losses_that_return_something_else_are_refused(returned, message):
    stage = Stage("s", 9, (Update("u", lambda v, b, *, key: returned(v["params"]["a"]), SGD),))
    with pytest.raises(ValueError, match=message):
        train_step(stage)(init_state(KEY, scalars(a=0.0), stage), {})


def test_stages_and_variables_that_make_no_sense_are_refused():
    update = Update("u", small.plain_loss, SGD)
    for steps, updates in (
        (0, (update,)),
        (1, ()),
        (1, (update, update)),
        (1, (Update("u", small.loss, SGD, every=0),)),
    ):
        with pytest.raises(ValueError, match="expected steps and every of at least 1"):
            Stage("s", steps, updates)
    with pytest.raises(ValueError, match="expected variables"):
        init_state(KEY, {"params": {}}, Stage("s", 1, (update,)))


def test_adamw_warms_up_cools_down_and_clips():
    optimiser = adamw(0.1, 100, warm_up=0.1, weight_decay=0.0, clip=1e-3)
    params = {"w": jnp.zeros(3)}
    state, sizes, update = optimiser.init(params), [], jax.jit(optimiser.update)
    for _ in range(100):
        change, state = update({"w": jnp.full(3, 1e6)}, state, params)
        sizes.append(float(jnp.max(jnp.abs(change["w"]))))
    assert sizes[0] == 0 and np.argmax(sizes) == 10 and sizes[10] == pytest.approx(0.1, rel=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(sizes[10:])) and sizes[-1] < 1e-3
    moments = [x for x in jax.tree.leaves(state) if x.shape == (3,)]
    assert max(float(jnp.max(x)) for x in moments) < 1e-3  # Adam saw clipped gradients
