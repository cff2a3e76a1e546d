from dataclasses import replace
from functools import partial
from itertools import permutations, product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import h2o as experiment_of
from jhand.contact.solids import KINDS, Solid, solid_vertices
from jhand.data.held_boxes import BoxScene, box_colours, held_box
from jhand.data.made import Made, make_examples
from jhand.data.object_actions import HALF_SIZES, box_points
from jhand.experiment import main
from jhand.geometry import so3_exp
from jhand.systems import h2o as system

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = system.Config.tiny(size=32, widths=(4, 8, 8), deepest=8, depths=3, pose=1.0, unsure=0.1)
K = jnp.array([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]])
OBJECT = 4


def plain(key, scene):
    """A grey picture, brighter to the bottom the further the object is; two hands and a box of class 4."""
    keys = jax.random.split(key, 3)
    root = jax.random.uniform(
        keys[0], (3, 1, 3), minval=jnp.array([-0.1, -0.1, 0.4]), maxval=jnp.array([0.1, 0.1, 0.9])
    )
    points = root + 0.05 * jax.random.normal(keys[1], (3, 21, 3)).at[:, 0].set(0)
    box = jnp.einsum(
        "ij,kj->ki", so3_exp(jax.random.normal(keys[2], (3,))), box_points(jnp.asarray(HALF_SIZES[OBJECT]))
    )
    points = points.at[2].set(root[2] + box)
    ramp = jnp.linspace(0, 255 * root[2, 0, 2], 32)
    return {
        "image": jnp.broadcast_to(ramp[:, None], (32, 32, 3)).astype(jnp.uint8),
        "points": points,
        "valid": jnp.ones(3, bool),
        "classes": jnp.array([0, OBJECT + 1, OBJECT + 1]),
        "object": jnp.int32(OBJECT),
        "K": K,
        "subject": jnp.int32(0),
    }


@pytest.fixture(scope="module")
def batch():
    found = jax.jit(jax.vmap(partial(plain, scene=None)))(jax.random.split(jax.random.key(0), 4))
    return found | {"valid": found["valid"].at[1, 0].set(False)}


def drawn(config, seed=0):
    """Any values: drawing the first ones takes a compiler long."""
    shapes = jax.eval_shape(lambda key: system.init(key, config), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def one(path, x):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype)
        return jnp.asarray(rng.normal(0, 0.7 / np.sqrt(np.prod(x.shape[:-1])), x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


@pytest.fixture(scope="module")
def variables():
    return drawn(TINY)


apply = jax.jit(system.apply, static_argnums=2)


@pytest.fixture(scope="module")
def said(variables, batch):
    images = system.seen(batch["image"])
    both = {"params": variables["params"], "batch_stats": variables["stats"]}
    return jax.jit(lambda x: system.Network(TINY).apply(both, x, False))(images)


@pytest.mark.parametrize(("name", "cells"), [("tiny", 6), ("small", 7), ("paper", 13)])
def test_every_size_and_variant_fits_together(name, cells):
    for fields in experiment_of.VARIANTS.values():
        config = getattr(system.Config, name)(**fields)
        shapes = jax.eval_shape(lambda key, c=config: system.init(key, c), jax.random.key(0))

        def found(variables, x, c=config):
            inputs = system.Inputs(x + jnp.zeros((2, c.size, c.size, 3)), jnp.broadcast_to(K, (2, 3, 3)))
            outputs = system.apply(variables, inputs, c)
            return outputs.points, outputs.classes

        points, classes = jax.eval_shape(found, shapes, jnp.zeros(()))
        assert config.cells == cells and points.shape == (2, 3, 21, 3) and classes.shape == (2, 3, 9)
        assert shapes["params"]["cells"]["bias"].shape == (config.depths * 3 * (63 + 1 + 9),)


def test_how_sure_one_should_be():
    one = lambda pixels, metres: float(system.confidence_of(jnp.array(pixels), jnp.array(metres), TINY))  # noqa: E731
    assert one(0.0, 0.0) == 1 and one(1.0, 1.0) == 0
    np.testing.assert_allclose(one(TINY.pixels / 2, 0.2), np.exp(-1) / 2, rtol=1e-5)
    np.testing.assert_allclose(one(0.5, 0.0375), np.exp(-1) / 2, rtol=1e-5)
    np.testing.assert_allclose(one(0.99999 * TINY.pixels, 1.0), np.exp(-2) / 2, rtol=1e-3)


def test_cells_are_pixels_and_depth(batch):
    points = batch["points"].reshape(4, 63, 3)
    cells = system.cells_from_points(points, batch["K"], TINY)
    np.testing.assert_allclose(system.points_from_cells(cells, batch["K"], TINY), points, atol=1e-5)
    middle = system.cells_from_points(jnp.array([[0.0, 0, 0.5]]), K, TINY)
    np.testing.assert_allclose(middle[0], [2, 2, 1], atol=1e-5)  # of 4 x 4 x 3: the principal point, a third of the way


def test_roots_stay_in_their_cells(said):
    assert said.points.shape == (4, 4, 4, 3, 3, 21, 3)
    here = np.stack(np.meshgrid(np.arange(4), np.arange(4), np.arange(3), indexing="ij"), -1)[..., [1, 0, 2]]
    floors = np.floor(said.points[..., 0, :])
    np.testing.assert_array_equal(floors, np.broadcast_to(here[:, :, :, None], floors.shape))
    assert (np.floor(said.points[..., 1:, :]) != here[:, :, :, None, None]).any()


def test_the_terms_by_hand(said, batch):
    """Cell by cell, in a loop."""
    # distances at which points drawn at random are near for some cells
    config = replace(TINY, pixels=1.0, metres=0.5, unit=TINY.depth)
    terms = system.loss_terms(said, batch, config)
    of_cells = system.loss_terms(said, batch, replace(config, confidence="cell"))
    truth = system.cells_from_points(batch["points"].reshape(4, 63, 3), batch["K"], TINY)
    truth = np.asarray(truth).reshape(4, 3, 21, 3)
    logits = np.asarray(said.classes, np.float64)
    points = np.asarray(said.points)
    metres = np.asarray(system.points_from_cells(said.points.reshape(4, -1, 3), batch["K"], TINY)).reshape(points.shape)
    of_each = lambda x: np.asarray(x)[:, None, None, None]  # noqa: E731
    far = np.linalg.norm((points - of_each(truth))[..., :2], axis=-1).mean(-1) / 4
    away = np.linalg.norm(metres - of_each(batch["points"]), axis=-1).mean(-1)
    wanted = np.asarray(system.confidence_of(jnp.asarray(far), jnp.asarray(away), config)) * of_each(batch["valid"])
    sure = 1 / (1 + np.exp(-np.asarray(said.confidence, np.float64)))
    valid = np.asarray(batch["valid"])
    expected = {"points": 0.0, "confidence": 0.0, "classes": 0.0}
    objectness, responsible = 0.0, 0
    for b, y, x, z, e in np.ndindex(*sure.shape):
        here = valid[b, e] and (np.floor(truth[b, e, 0]) == (x, y, z)).all()
        weight = 5.0 if here else 0.1
        expected["confidence"] += weight * (sure[b, y, x, z, e] - wanted[b, y, x, z, e]) ** 2 / 4
        objectness += weight * (sure[b, y, x, z, e] - here) ** 2 / 4
        if here:
            responsible += 1
            expected["points"] += ((points[b, y, x, z, e] - truth[b, e]).astype(np.float64) ** 2).sum() / 4
            said_of = logits[b, y, x, z, e]
            expected["classes"] += (np.log(np.exp(said_of).sum()) - said_of[int(batch["classes"][b, e])]) / 4
    assert responsible > 6 and wanted.max() > 0
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(of_cells["confidence"], objectness, rtol=1e-4)


def test_depth_weighs_the_same_in_cells_of_any_depth(said, batch):
    """As far off by as many metres, in three cells one behind the other or in one that is as deep as they are."""
    far = jnp.array([0.0, 0.0, 0.06])

    def of_points(config):
        truth = system.cells_from_points(batch["points"].reshape(4, 63, 3), batch["K"], config).reshape(4, 3, 21, 3)
        off = truth + far / config.depth
        grid = (4, 4, 4, config.depths)
        cells = replace(
            said,
            points=jnp.broadcast_to(off[:, None, None, None], (*grid, 3, 21, 3)),
            confidence=jnp.zeros((*grid, 3)),
            classes=jnp.zeros((*grid, 3, 9)),
        )
        return float(system.loss_terms(cells, batch, config)["points"])

    np.testing.assert_allclose(of_points(TINY), of_points(replace(TINY, depths=1)), rtol=1e-3)
    number = np.asarray(batch["valid"]).sum() / 4
    np.testing.assert_allclose(of_points(TINY), number * 21 * (0.06 / 0.15) ** 2, rtol=1e-3)


def test_what_is_not_there_does_not_count(said, batch):
    moved = batch | {"points": batch["points"].at[1, 0].add(0.1), "classes": batch["classes"].at[1, 0].set(3)}
    for name, value in system.loss_terms(said, batch, TINY).items():
        np.testing.assert_allclose(system.loss_terms(said, moved, TINY)[name], value, rtol=1e-6)
    outside = batch | {"points": batch["points"].at[1, 0].set(jnp.nan)}
    assert all(np.isfinite(value) for value in system.loss_terms(said, outside, TINY).values())


def test_the_surest_cell_is_taken(said):
    sure = said.confidence.at[0, 2, 1, 0, 1].set(99.0)
    points, confidence, classes = system.surest(replace(said, confidence=sure))
    np.testing.assert_array_equal(points[0, 1], said.points[0, 2, 1, 0, 1])
    np.testing.assert_array_equal(classes[0, 1], said.classes[0, 2, 1, 0, 1])
    np.testing.assert_allclose(confidence[0, 1], 1)
    best = np.asarray(said.confidence).reshape(4, -1, 3).argmax(1)
    np.testing.assert_array_equal(points[3, 2], np.asarray(said.points)[3].reshape(-1, 3, 21, 3)[best[3, 2], 2])


def test_a_perfect_network_finds_everything(batch, said):
    """Cells that say the truth, each three of one cell; the box is where it is."""
    truth = system.cells_from_points(batch["points"].reshape(4, 63, 3), batch["K"], TINY).reshape(4, 3, 21, 3)
    perfect = replace(
        said,
        points=jnp.broadcast_to(truth[:, None, None, None], said.points.shape),
        classes=jnp.broadcast_to(20 * jax.nn.one_hot(batch["classes"], 9)[:, None, None, None], said.classes.shape),
    )
    terms = system.loss_terms(perfect, batch, TINY)
    assert float(terms["points"]) < 1e-8 and float(terms["classes"]) < 1e-6
    found = system.outputs_of(perfect, batch["K"], TINY)
    np.testing.assert_allclose(found.points, batch["points"], atol=1e-5)
    box = box_points(jnp.asarray(HALF_SIZES[OBJECT]))
    placed = jnp.einsum("bij,kj->bki", found.R_object, box) + found.t_object[:, None]
    np.testing.assert_allclose(placed, batch["points"][:, 2], atol=1e-4)
    for name in ("everything", "hands", "left", "right", "object", "roots", "hands_about_roots", "add"):
        assert float(jnp.nanmax(experiment_of.METRICS[name](found, batch, None))) < 1e-4, name
    assert (experiment_of.classes(found, batch, None) == 1).all()
    np.testing.assert_allclose(experiment_of.auc(found, batch, None), 1, atol=1e-3)
    nobody = batch | {"valid": jnp.zeros((4, 3), bool)}
    assert np.isnan(experiment_of.METRICS["hands"](found, nobody, None)).all()


def test_what_is_there_should_be_surer():
    valid = jnp.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]])[..., None]
    sure = jnp.array([[0.9, 0.3, 0.1], [0.2, 0.1, 0.1], [0.4, 0.3, 0.2]])[..., None]
    # left hand: 0.9 and 0.2 to be above 0.4; right one: 0.3 to be above 0.1 and 0.3, a tie; the object is always there
    value = experiment_of.surer_where_there(jnp.concatenate([sure, valid], -1))
    np.testing.assert_allclose(value, (1 + 0 + 1 + 0.5) / 4)


@pytest.fixture(scope="module")
def sloping(batch, variables):
    """The loss and its slope; traced once. What cells are to be sure of is held: it moves with the points."""

    def value(params):
        both = variables | {"params": params}
        return system.loss(both, batch, replace(TINY, confidence="cell"), key=jax.random.key(0))[0]

    return jax.jit(jax.value_and_grad(chex.assert_max_traces(value, 1)))


def test_the_slope_of_the_loss(variables, sloping):
    slope = sloping(variables["params"])[1]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope["cells"]))
    steep, step = optax.tree.norm(slope), 1e-3
    ahead, behind = (
        sloping(jax.tree.map(lambda x, d, s=s: x + s * d / steep, variables["params"], slope))[0] for s in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), steep, rtol=0.03)


def test_training_learns(variables, sloping):
    params, losses = variables["params"], []
    optimiser = optax.adam(1e-2)
    state = optimiser.init(params)
    for _ in range(25):
        value, slope = sloping(params)
        change, state = optimiser.update(slope, state, params)
        params = optax.apply_updates(params, change)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


def test_leading_axes_and_wrong_pictures(variables, batch):
    inputs = system.inputs_of(batch)
    flat = apply(variables, inputs, TINY)
    shaped = apply(variables, jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), inputs), TINY)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), shaped), flat, atol=1e-4)
    with pytest.raises(ValueError, match="expected 32 x 32 pixels, got 16 x 32"):
        system.apply(variables, system.Inputs(jnp.zeros((1, 16, 32, 3)), K[None]), TINY)


@pytest.fixture(scope="module")
def making():
    """Examples from a number on; traced once."""
    some = chex.assert_max_traces(
        lambda first: make_examples(Made(held_box, BoxScene(size=48)), 0, first + np.arange(24)), 1
    )
    return jax.jit(some)


@pytest.fixture(scope="module")
def made(making):
    return jax.device_get(making(0))


def test_the_same_numbers_are_the_same_examples(making, made):
    later = jax.device_get(making(12))
    chex.assert_trees_all_equal(
        jax.tree.map(lambda x: x[:12], later), jax.tree.map(lambda x: x[12:], made), strict=True
    )
    assert (later["points"][12:] != made["points"][12:]).any((1, 2, 3)).all()


def test_boxes_are_held_and_seen(made):
    points, valid = np.asarray(made["points"], np.float64), np.asarray(made["valid"])
    assert 0.5 < valid.mean() < 1 and made["image"].shape == (24, 48, 48, 3) and made["image"].std() > 10
    f, c = made["K"][0, 0, 0], made["K"][0, 0, 2]
    uv = f * points[..., :2] / points[..., 2:] + c
    roots = uv[:, :, 0][valid]
    assert (roots > -0.5).all() and (roots < 47.5).all()
    held = (np.asarray(made["classes"])[:, :2] > 0) & valid[:, :2]
    to_box = np.linalg.norm(points[:, :2, [4, 8, 12]].mean(2) - points[:, 2:, 0], axis=-1)
    half = HALF_SIZES[np.asarray(made["object"])]
    np.testing.assert_allclose(to_box[held], np.broadcast_to(0.8 * half[:, 2:], held.shape)[held], rtol=0.06)
    assert held.any() and (to_box[~held & valid[:, :2]] > 0.02).any()
    same = np.linalg.norm(points[:, 2, 1:9] - points[:, 2, :1], axis=-1)
    np.testing.assert_allclose(same, np.broadcast_to(np.linalg.norm(half, axis=-1)[:, None], same.shape), rtol=0.06)


def test_no_two_sides_of_a_box_look_alike():
    """A turn that leaves the box as it is changes how it looks: else no picture told where its corners are."""
    half = jnp.array([0.05, 0.05, 0.05])
    surface = np.asarray(solid_vertices(Solid(jnp.array(KINDS.index("box")), half, jnp.ones(2)))).round(6)
    turns = [np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((-1, 1), repeat=3)]
    turns = [R for R in turns if np.linalg.det(R) > 0]
    assert len(turns) == 24
    for thing in range(8):
        looks = [np.asarray(box_colours(jnp.int32(thing), half, jnp.asarray(surface @ R.T))) for R in turns]
        assert len({x.tobytes() for x in looks}) == 24


def test_left_hands_are_mirrored(made):
    """Thumbs are on the other side: the turn from the palm's normal to the thumb has the other sign."""
    points = made["points"][:, :2]
    index, little, thumb = (points[..., n, :] - points[..., 0, :] for n in (5, 17, 2))
    middle = points[..., 9, :] - points[..., 0, :]
    side = np.einsum("bhi,bhi->bh", np.cross(index - little, middle), points[..., 12, :] - points[..., 9, :])
    assert np.sign(np.median(side[:, 0])) == -np.sign(np.median(side[:, 1])) and thumb.shape == (24, 2, 3)


def test_the_experiment_runs(tmp_path, capsys):
    preset = experiment_of.experiment.presets["cpu"]
    preset = replace(preset, config=TINY, world=Made(plain), held_out_world=Made(plain))
    small = replace(experiment_of.experiment, presets={"cpu": preset})
    main(small, ["train", "--smoke", "--folder", str(tmp_path)])
    assert "full, seed 0: everything" in capsys.readouterr().out
