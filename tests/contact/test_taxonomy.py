"""The grasp taxonomy, and grasps made by its types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.contact import (
    GRASP_TYPES,
    HOGRASPNET_GRASPS,
    grasp_attributes,
    grasp_of_type,
    grasp_type,
    grasping_skin,
    gripped_part,
    make_solid,
)

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


def test_rows():
    assert [row.id for row in GRASP_TYPES] == list(range(1, 34))
    assert len({row.name for row in GRASP_TYPES}) == 33
    assert len(HOGRASPNET_GRASPS) == len(set(HOGRASPNET_GRASPS)) == 28
    assert set(range(1, 34)) - set(HOGRASPNET_GRASPS) == {6, 8, 15, 21, 32}
    assert grasp_type(16).name == "lateral" and grasp_type(16).thumb == "adducted"
    assert all(row.opposition != "palm" for row in GRASP_TYPES if row.power == "precision")
    assert all(row.opposition == "side" for row in GRASP_TYPES if row.power == "intermediate")
    np.testing.assert_array_equal(grasp_attributes([1, 16, 9]), [[0, 0, 4, 0], [1, 2, 1, 1], [2, 1, 1, 0]])
    with pytest.raises(ValueError, match="1 to 33"):
        grasp_type(34)


def test_grasps_of_types_touch_with_their_fingers(right):
    skin, numbers = grasping_skin(right), jnp.array([1, 9, 16, 17, 22])
    solid = make_solid("cylinder", [0.025, 0.025, 0.07])

    def one(key, number):
        return grasp_of_type(key, right, jnp.zeros(10), skin, gripped_part(solid, number), number)

    keys = jax.random.split(jax.random.key(0), (6, 5))
    grasps = jax.jit(jax.vmap(jax.vmap(one), (0, None)))(keys, numbers)
    touching = np.mean(np.asarray(grasps.touching), 0)  # index, middle, little, ring, thumb
    assert touching[0, :4].min() > 0.8
    assert touching[1, 0] > 0.8 and touching[1, 1:4].max() < 0.6
    assert touching[2, 4] > 0.6 and touching[2, 1:4].max() < 0.4
    assert touching[3, 1:4].min() > 0.7 and np.mean(grasps.angles[:, 3, 1, 0]) < 0.2  # the index finger stays straight
    # an adducted thumb stays beside the palm; an extension flexes knuckles alone
    assert np.mean(grasps.angles[:, 2, 12, 1]) < np.mean(grasps.angles[:, 0, 12, 1]) - 0.3
    assert np.mean(grasps.angles[:, 4, 1:12:3, 0]) < np.mean(grasps.angles[:, 0, 1:12:3, 0])
    assert np.median(grasps.depth) < 0.004
    thick = gripped_part(solid, jnp.array(16)).half_size
    np.testing.assert_allclose(thick, [0.008, 0.008, 0.07], atol=1e-6)
