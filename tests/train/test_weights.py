import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from jhand.train import ModelCard, WeightsError, load_weights, read_card, save_weights
from tests.train import small

CARD = ModelCard(
    system="parabola",
    config={"width": 8, "scales": (1, 2)},
    data="points of a parabola",
    metrics={"error_mm": 1.25},
    licence="Apache-2.0",
    notes="Not for use.",
)


@pytest.fixture
def variables():
    made = small.init(jax.random.key(0))
    made["params"]["half"] = jnp.arange(3, dtype=jnp.bfloat16)
    return made


def test_weights_come_back_bit_by_bit(variables, tmp_path):
    path = save_weights(tmp_path / "new" / "folder", variables, CARD)
    for where in (path, path.parent):
        found = load_weights(where, like=variables)
        chex.assert_trees_all_equal(found, variables)
        chex.assert_trees_all_equal_shapes_and_dtypes(found, variables)
    assert sorted(p.name for p in path.parent.iterdir()) == ["README.md", "weights.safetensors"]
    with safe_open(path, "numpy") as opened:
        assert "params/encoder/kernel" in opened.keys()  # noqa: SIM118


def test_weights_without_statistics(tmp_path):
    save_weights(tmp_path, {"params": {"w": jnp.ones(2)}, "stats": {}}, CARD)
    found = load_weights(tmp_path, like=jax.eval_shape(lambda: {"params": {"w": jnp.ones(2)}, "stats": {}}))
    assert found["stats"] == {} and list(found["params"]) == ["w"]


def test_the_card_says_what_they_are(variables, tmp_path):
    path = save_weights(tmp_path, variables, CARD)
    card = read_card(path)
    assert (card.system, card.data, card.licence, card.notes) == (CARD.system, CARD.data, CARD.licence, CARD.notes)
    assert card.metrics == CARD.metrics and card.config == {"width": 8, "scales": [1, 2]}
    assert card.packages == CARD.packages and "jax" in card.packages
    page = (tmp_path / "README.md").read_text()
    number = sum(x.size for x in jax.tree.leaves(variables["params"]))
    for expected in (
        f"# parabola\n\n{number} parameters",
        "Licence: Apache-2.0.",
        "Trained on points of a parabola, with ",
        f"jax {jax.__version__}",
        "| error_mm | 1.25 |",
        json.dumps(dict(CARD.config), indent=1),
        "Not for use.",
    ):
        assert expected in page


def test_weights_of_another_configuration_are_refused(variables, tmp_path):
    save_weights(tmp_path, variables, CARD)
    other = {"params": {**variables["params"], "new": jnp.ones(1)}, "stats": variables["stats"]}
    other["params"]["encoder"] = {"kernel": jnp.ones((2, 9)), "bias": np.zeros(small.WIDTH, np.float64)}
    del other["params"]["half"]
    with pytest.raises(WeightsError) as error:
        load_weights(tmp_path, like=other)
    for line in (
        "missing params/new",
        "unexpected params/half",
        "params/encoder/kernel is float32[2, 8], expected float32[2, 9]",
        "params/encoder/bias is float32[8], expected float64[8]",
    ):
        assert line in str(error.value)


def test_files_that_are_no_weights_are_refused(variables, tmp_path):
    with pytest.raises(WeightsError, match=r"weights.safetensors: not readable"):
        load_weights(tmp_path)
    path = save_weights(tmp_path, variables, CARD)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="not readable as safetensors"):
        load_weights(path)
    with pytest.raises(WeightsError, match="no weights with a card"):
        read_card(path)


def test_an_interrupted_write_leaves_the_weights_before(variables, tmp_path, monkeypatch):
    path = save_weights(tmp_path, variables, CARD)
    before = path.read_bytes()

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path, jax.tree.map(lambda x: x + 1, variables), CARD)
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match="params/a/b: a name may not contain /"):
        save_weights(tmp_path, {"params": {"a/b": jnp.ones(1)}, "stats": {}}, CARD)
    with pytest.raises(ValueError, match="params/a: expected an array, got float"):
        save_weights(tmp_path, {"params": {"a": 1.0}, "stats": {}}, CARD)
    assert not list(tmp_path.iterdir())
