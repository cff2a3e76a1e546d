import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.hand import hand_measures, load_hand, shape_from_measures
from tests.hand.mano_files import hand_arrays


def test_the_built_in_hands_are_those_of_the_survey(hands):
    """ANSUR II: length 187.2 +- 11.7, breadth 83.2 +- 6.5 mm, correlation 0.71."""
    betas = np.random.default_rng(0).normal(size=(20000, 10)).astype(np.float32)
    for hand in (*hands.values(), load_hand(level="fine")):
        m = hand_measures(hand, betas)
        length, breadth = np.asarray(m.length), np.asarray(m.breadth)
        np.testing.assert_allclose([length.mean(), length.std()], [0.1872, 0.0117], atol=3e-4)
        np.testing.assert_allclose([breadth.mean(), breadth.std()], [0.0832, 0.0065], atol=3e-4)
        assert abs(np.corrcoef(length, breadth)[0, 1] - 0.71) < 0.02


def test_shapes_have_the_measures_asked_for(right):
    length, breadth = np.array([[0.17, 0.19], [0.21, 0.2]]), np.array([0.08, 0.09])
    betas = jax.jit(shape_from_measures)(right, length, breadth)
    m = hand_measures(right, betas)
    np.testing.assert_allclose(m.length, length, atol=1e-6)
    np.testing.assert_allclose(m.breadth, np.broadcast_to(breadth, (2, 2)), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda a, b: shape_from_measures(right, a, b))(length[0], breadth), betas[0])
    # it is the shortest: what leaves both measures alone is not used
    J = jax.jacfwd(lambda b: jnp.stack([*jax.tree.leaves(hand_measures(right, b))]))(betas[0, 0])
    open_directions = np.linalg.svd(np.asarray(J, float))[2][2:]
    np.testing.assert_allclose(open_directions @ np.asarray(betas[0, 0]), 0, atol=1e-4)


def test_one_measure_leaves_the_other_to_people(right):
    betas = shape_from_measures(right, length=jnp.array(0.2))
    m = hand_measures(right, betas)
    np.testing.assert_allclose(m.length, 0.2, atol=1e-6)
    # regression to the mean: breadth 83.2 + 0.71 * 6.5 / 11.7 * 12.8 mm
    np.testing.assert_allclose(m.breadth, 0.0883, atol=6e-4)
    np.testing.assert_allclose(hand_measures(right, shape_from_measures(right, breadth=0.09)).breadth, 0.09, atol=1e-6)
    with pytest.raises(ValueError, match="a length, a breadth or both"):
        shape_from_measures(right)


def test_any_model_in_manos_layout(tmp_path):
    arrays = hand_arrays(0)
    np.savez(tmp_path / "hand_right.npz", **arrays)
    hand = load_hand(tmp_path / "hand_right.npz", side="right")
    betas = shape_from_measures(hand, 0.18)
    np.testing.assert_allclose(hand_measures(hand, betas).length, 0.18, atol=1e-5)
    assert np.isfinite(betas).all()
