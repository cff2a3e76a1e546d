"""Examples made by a function of a key, and batches of them."""

import json
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.made import Made, Rows, first_examples, make_examples


@dataclass(frozen=True)
class Scene:
    scale: float = 2.0


def points(key, scene):
    """Points around the origin.

    And nothing else.
    """
    return {"points": scale(scene) * jax.random.normal(key, (3,)), "name": jax.random.key_data(key)[-1]}


def scale(scene):
    return scene.scale


MADE = Made(points, Scene())


def test_the_same_numbers_make_the_same_examples():
    all_of = first_examples(MADE, 0, 10, at_once=4)
    assert all_of["points"].shape == (10, 3) and isinstance(all_of["points"], np.ndarray)
    some = jax.jit(lambda n: make_examples(MADE, 0, n))(jnp.array([7, 2]))
    np.testing.assert_allclose(some["points"], all_of["points"][[7, 2]], rtol=1e-6)
    assert not np.isclose(first_examples(MADE, 1, 10)["points"], all_of["points"]).any()
    assert str(MADE) == "Points around the origin"


def test_an_epoch_has_each_example_once_in_an_order_of_its_own():
    rows = Rows({"n": np.arange(10)}, batch=5, seed=3)
    epochs = [np.concatenate([next(rows)["n"], next(rows)["n"]]) for _ in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    assert not (epochs[0] == epochs[1]).all()
    chex.assert_trees_all_equal(next(Rows({"n": np.arange(10)}, 5, 3))["n"], epochs[0][:5])
    assert not (next(Rows({"n": np.arange(10)}, 5, 4))["n"] == epochs[0][:5]).all()


def test_rows_go_on_where_they_stood():
    rows = Rows({"n": np.arange(7)}, batch=3, seed=0)
    for _ in range(5):
        next(rows)
    state = json.loads(json.dumps(rows.get_state()))
    expected = [next(rows)["n"] for _ in range(4)]
    again = Rows({"n": np.arange(7)}, batch=3, seed=0)
    again.set_state(state)
    chex.assert_trees_all_equal([next(again)["n"] for _ in range(4)], expected)


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="1 to 4, the number of examples, got 5"):
        Rows({"n": np.arange(4)}, batch=5, seed=0)
