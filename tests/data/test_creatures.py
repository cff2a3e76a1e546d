from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.data.creatures import NODES, CreatureScene, categories, creature_episode, draw_creature
from jhand.data.made import Made, first_examples
from jhand.hand import bones

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
SCENE = CreatureScene(size=32, categories=(0, 3, 7), shots=2)


@pytest.fixture(scope="module")
def episodes():
    return first_examples(Made(creature_episode, SCENE), 0, 24, at_once=24)


def as_numpy(number):
    return SimpleNamespace(**{name: np.asarray(leaf) for name, leaf in vars(categories(number)).items()})


def test_categories_are_trees_of_different_topologies():
    kinds = as_numpy(40)
    number = kinds.valid.sum(1)
    assert number.min() >= 5 and number.max() <= NODES
    np.testing.assert_array_equal(kinds.adjacency.sum((1, 2)), 2 * (number - 1))
    np.testing.assert_array_equal(kinds.adjacency, kinds.adjacency.swapaxes(1, 2))
    reached = np.linalg.matrix_power(kinds.adjacency + np.eye(NODES), NODES) > 0
    np.testing.assert_array_equal(reached.sum(2)[kinds.valid > 0], np.repeat(number, number.astype(int)))
    spectra = {tuple(np.round(np.linalg.eigvalsh(a), 4)) for a in kinds.adjacency}
    assert len(spectra) > 35  # few trees have the same spectrum; alike trees always do
    for k, (a, b) in enumerate(bones("openpose21")):
        assert kinds.adjacency[0, a, b] == 1, k
    again = as_numpy(7)
    np.testing.assert_array_equal(again.angle, kinds.angle[:7])


def test_paths_to_the_root():
    kinds = as_numpy(12)
    for parent, upward in zip(kinds.parent, kinds.upward, strict=True):
        for node in range(NODES):
            path, at = {node}, node
            while parent[at] != at:
                at = int(parent[at])
                path.add(at)
            np.testing.assert_array_equal(np.flatnonzero(upward[node]), sorted(path))


def test_mirror_images_look_alike():
    kinds = as_numpy(20)
    paired = kinds.twin.sum(1)
    assert (paired % 2 == 0).all() and paired.max() >= 4
    for k in range(1, 20):
        looks = [tuple(c.ravel()) for c in kinds.colours[k][kinds.twin[k] > 0]]
        assert all(looks.count(look) == 2 for look in looks)


def test_episodes_are_what_they_say(episodes):
    assert episodes["support_images"].shape == (24, 2, 32, 32, 3) and episodes["query_image"].dtype == np.uint8
    assert set(episodes["category"]) == set(SCENE.categories)
    kinds = as_numpy(8)
    for n, category in enumerate(episodes["category"]):
        valid, skeleton = episodes["keypoints_valid"][n], episodes["skeleton"][n]
        assert valid.sum() == kinds.valid[category].sum()
        degrees = sorted(skeleton.sum(1)[valid])
        np.testing.assert_array_equal(degrees, sorted(kinds.adjacency[category].sum(1)[kinds.valid[category] > 0]))
        assert skeleton[~valid].sum() == 0 and not episodes["hidden"][n][~valid].any()
        for points in (*episodes["support_points"][n], episodes["query_points"][n]):
            assert points[valid].min() > 0 and points[valid].max() < 1
            assert np.ptp(points[valid], 0).max() > 0.5  # it fills the picture
    orders = {tuple(rows.sum(1)) for rows in episodes["skeleton"][episodes["category"] == 3]}
    assert len(orders) > 1


def test_a_keypoint_has_its_limb_s_colour():
    """In the middle of a limb that nothing hides, the picture has the paint of that limb."""
    scene = replace(SCENE, size=96, patches=0, bend=0.0, tilt=0.0)
    kind = jax.tree.map(lambda leaf: leaf[3], categories(8))
    plain = replace(kind, colours=jnp.broadcast_to(kind.colours[:, :1], kind.colours.shape))
    image, points, hidden = jax.jit(lambda k: draw_creature(k, plain, scene))(jax.random.key(3))
    paints = np.asarray(plain.colours[:, 0])
    checked = 0
    for node in range(int(kind.valid.sum())):
        parent = int(kind.parent[node])
        if node == parent or hidden[node] or hidden[parent]:
            continue
        x, y = 96 * (0.2 * points[parent] + 0.8 * points[node])
        seen = np.asarray(image)[int(y), int(x)]
        lit = seen @ paints[node] / (paints[node] @ paints[node])  # whatever the light
        checked += np.linalg.norm(seen - lit * paints[node]) < 0.12 and 0.6 < lit < 1.2
    assert checked >= 5


def test_what_is_behind_a_patch_is_hidden():
    bare, covered = (replace(SCENE, patches=n, patch=(0.4, 0.5)) for n in (0, 4))
    kind = jax.tree.map(lambda leaf: leaf[3], categories(8))
    keys = jax.random.split(jax.random.key(0), 20)
    share = [
        jnp.mean(jax.jit(jax.vmap(lambda k, s=s: draw_creature(k, kind, s)[2]))(keys) * kind.valid)
        for s in (bare, covered)
    ]
    assert share[1] > share[0] + 0.15
