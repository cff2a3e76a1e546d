"""HOGraspNet's grasp benchmark: what is read, what each split trains and tests on, slopes, and that it learns."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.readers.hograspnet import TEST_GRASPS, TEST_OBJECTS
from jhand.systems import hograspnet_grasp as system
from jhand.systems.hograspnet_grasp import Config
from jhand.train import train

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
TINY = Config.tiny(width=16, dropout=0.0)


def examples(number, vertices, seed=0):
    """Of types that contact alone tells apart: each has its own vertices that touch."""
    rng = np.random.default_rng(seed)
    grasp = rng.choice(TINY.classes, number)
    touching = np.arange(vertices) % len(TINY.classes) == np.searchsorted(np.sort(TINY.classes), grasp)[:, None]
    return {
        "keypoints3d": jnp.asarray(rng.normal(size=(number, 21, 3)).astype(np.float32) * 0.05),
        "contact": jnp.asarray(touching.astype(np.float32)),
        "grasp": jnp.asarray(grasp),
        "subject": jnp.asarray(rng.integers(0, 99, number)),
        "object": jnp.asarray(rng.integers(1, 31, number)),
        "camera": jnp.asarray(rng.integers(0, 4, number)),
    }


def test_what_splits_train_and_test_on(right):
    batch = examples(400, right.num_vertices)
    variables = system.init(jax.random.key(0), TINY, right)
    tests = {
        "s0": np.ones(400, bool),
        "s1": np.asarray(batch["subject"]) >= 73,
        "s2": np.asarray(batch["camera"]) == 3,
        "s3": np.isin(batch["object"], TEST_OBJECTS),
        "s4": np.isin(batch["grasp"], TEST_GRASPS),
    }
    for split, wanted in tests.items():
        config = replace(TINY, split=split)
        found = system.predict(variables, system.inputs_of(batch), config, right)
        np.testing.assert_array_equal(found.tested, wanted)
        slope = jax.grad(lambda x, c=config: _loss_of_contact(variables, batch, x, c, right))(batch["contact"])
        used = np.asarray(jnp.any(slope != 0, -1))
        np.testing.assert_array_equal(used, np.ones(400, bool) if split == "s0" else ~wanted)


def _loss_of_contact(variables, batch, contact, config, hand):
    return system.loss(variables, {**batch, "contact": contact}, config, hand, key=jax.random.key(1))[0]


@pytest.mark.parametrize("reads", [("pose",), ("contact",), ("pose", "contact")])
def test_what_is_read(right, reads):
    config = replace(TINY, reads=reads)
    batch = examples(3, right.num_vertices)
    variables = system.init(jax.random.key(0), config, right)

    def logits(**changed):
        return system.predict(variables, system.inputs_of({**batch, **changed}), config, right).logits

    moved = jnp.max(jnp.abs(logits(keypoints3d=batch["keypoints3d"][:, ::-1]) - logits()))
    touched = jnp.max(jnp.abs(logits(contact=1 - batch["contact"]) - logits()))
    assert (moved > 1e-4) == ("pose" in reads) and (touched > 1e-4) == ("contact" in reads)
    # where the hand is does not matter, how it is turned does
    np.testing.assert_allclose(logits(keypoints3d=batch["keypoints3d"] + 0.5), logits(), atol=1e-4)


def test_slope(right):
    batch = examples(8, right.num_vertices)
    variables = system.init(jax.random.key(0), TINY, right)
    way = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), variables)
    at = jax.jit(
        lambda s: system.loss(
            jax.tree.map(lambda x, w: x + s * w, variables, way), batch, TINY, right, key=jax.random.key(1)
        )[0]
    )
    np.testing.assert_allclose(jax.grad(at)(0.0), (at(1e-4) - at(-1e-4)) / 2e-4, rtol=5e-2)


def test_attributes():
    found = system.right_attributes(jnp.array([16, 16, 1, 9]), jnp.array([16, 29, 9, 24]))
    np.testing.assert_allclose(found, [1, 1, 0.25, 1])


def test_it_learns(right):
    batch = examples(64, right.num_vertices)
    state = train(
        jax.random.key(0), lambda key: system.init(key, TINY, right), system.stages(TINY, right, 150),
        iter(lambda: batch, None), quiet=True,
    )  # fmt: skip
    found = system.predict({"params": state.params, "stats": {}}, system.inputs_of(batch), TINY, right)
    assert jnp.mean(found.grasp == batch["grasp"]) > 0.9


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="pose, contact or both"):
        Config(reads=("depth",))
    with pytest.raises(ValueError, match="s0, s1"):
        Config(split="val")
