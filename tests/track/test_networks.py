from pathlib import Path

import jax
import numpy as np
import pytest

from jhand.track import load_networks
from jhand.track.networks import hand_outputs, palm_outputs
from tests.track.pictures import EVERY, random_picture

RECORDED = np.load(Path(__file__).with_name("networks.npz"))


@pytest.mark.parametrize("size", ["lite", "full"])
def test_palm_detector_is_the_original_one(size):
    networks = load_networks(size)
    logits, values = jax.jit(palm_outputs)(networks.palm, random_picture(192)[None])
    np.testing.assert_allclose(values[0, ::EVERY], RECORDED[f"{size}.palm.values"], atol=1e-3)
    np.testing.assert_allclose(logits[0, ::EVERY], RECORDED[f"{size}.palm.logits"][:, 0], atol=1e-3)


@pytest.mark.parametrize("size", ["lite", "full"])
def test_landmark_network_is_the_original_one(size):
    networks = load_networks(size)
    image, world, presence, right = jax.jit(hand_outputs)(networks.hand, random_picture(224)[None])
    np.testing.assert_allclose(image[0].reshape(-1), RECORDED[f"{size}.hand.image"], atol=1e-3)
    np.testing.assert_allclose(world[0].reshape(-1), RECORDED[f"{size}.hand.world"], atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(presence), RECORDED[f"{size}.hand.presence"], atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(right), RECORDED[f"{size}.hand.right"], atol=1e-5)


def test_weights_are_stored_in_half_precision():
    from safetensors.numpy import load_file

    import jhand.track.networks as module

    for size in ("lite", "full"):
        arrays = load_file(Path(module.__file__).parent / "assets" / f"{size}.safetensors")
        assert {array.dtype for array in arrays.values()} == {np.dtype("float16")}
        leaves = jax.tree.leaves(load_networks(size))
        assert sum(leaf.size for leaf in leaves) == sum(array.size for array in arrays.values())
        assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="'lite' or 'full'"):
        load_networks("medium")
