import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jhand
from jhand.geometry import closest_on_mesh


def test_a_hand_in_another_mesh(right):
    fine = jhand.load_hand(level="fine")
    betas = jnp.array([1.3, -1.0, 0.5, 0, 0, 0, 0, 0, 0, 0])
    rng = np.random.default_rng(0)
    params = jhand.HandParams(
        jnp.asarray(rng.normal(0, 1, (3, 3)), jnp.float32),
        jhand.sample_poses(jax.random.key(0), right, (3,)),
        betas,
        jnp.asarray(rng.normal(0, 0.3, (3, 3)), jnp.float32),
    )
    found = jhand.transfer(params, right, fine)
    assert found.params.betas.shape == (10,)  # one shape stays one shape
    mesh, other = jhand.forward(right, params), jhand.forward(fine, found.params)
    # the two levels of one surface lie 0.2 mm apart at rest
    assert float(found.distance.max()) < 6e-4 and float(found.turn.max()) < np.deg2rad(10)
    feet, _, _ = closest_on_mesh(mesh.vertices, other.vertices, fine.faces)
    away = np.linalg.norm(feet - mesh.vertices, axis=-1)
    np.testing.assert_allclose(found.distance, away.mean(1), rtol=0.2)  # the skin before the wrist aside
    assert (np.asarray(found.greatest) <= away.max(1) + 1e-7).all()
    assert np.linalg.norm(other.keypoints - mesh.keypoints, axis=-1).mean() < 1.5e-3


def test_sides_and_shapes_are_checked(right, left):
    with pytest.raises(ValueError, match="expected models of one side"):
        jhand.transfer(jhand.HandParams.zeros(), right, left)
    with pytest.raises(ValueError, match="betas: expected shape"):
        jhand.transfer(jhand.HandParams.zeros(num_betas=4), right, right)
