from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jhand.geometry.rotations import so3_exp
from jhand.hand import kinematics
from jhand.hand.kinematics import (
    PosedHand,
    ShapedHand,
    forward,
    joints,
    keypoints,
    pose_hand,
    pose_hand_by_matrices,
    posed_keypoints,
    shape_hand,
    skin,
)
from jhand.hand.model import HandModel, HandParams, T_world_wrist, make_hand, rest_joints, with_T_world_wrist
from tests.hand import mano_reference
from tests.hand.mano_files import hand_arrays

VERTICES = 50
TIPS = (7, 3, 19, 23, 41)
ARRAYS = hand_arrays(0, vertices=VERTICES, faces=20)
FIELDS = {"global_orient": (3,), "hand_pose": (15, 3), "betas": (10,), "transl": (3,)}
MORE_THAN_A_CHUNK = kinematics._CHUNK + 5


@pytest.fixture(autouse=True)
def explicit_ranks() -> Iterator[None]:
    """An accidental broadcast between ranks is an error."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it: without the annotations that refuse wrong shapes before jhand can explain them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def toy_hand() -> HandModel:
    return make_hand(
        v_template=ARRAYS["v_template"],
        faces=ARRAYS["f"],
        shapedirs=ARRAYS["shapedirs"],
        posedirs=ARRAYS["posedirs"],
        weights=ARRAYS["weights"],
        J_regressor=ARRAYS["J_regressor"],
        hands_mean=ARRAYS["hands_mean"],
        hands_components=ARRAYS["hands_components"],
        tips=TIPS,
        side="right",
        name="toy",
    )


def random_params(seed: int, batch: tuple[int, ...], sd: float = 0.7) -> HandParams:
    rng = np.random.default_rng(seed)
    return HandParams(
        **{name: jnp.asarray(rng.normal(0, sd, (*batch, *shape)), jnp.float32) for name, shape in FIELDS.items()}
    )


def reference(params: HandParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, joints and keypoints in float64, hand by hand."""
    batch = params.batch
    fields = {
        name: np.array(np.broadcast_to(getattr(params, name), (*batch, *shape)), np.float64)
        for name, shape in FIELDS.items()
    }
    vertices, joints, points = np.zeros((*batch, VERTICES, 3)), np.zeros((*batch, 16, 3)), np.zeros((*batch, 21, 3))
    for i in np.ndindex(batch):
        vertices[i], joints[i] = mano_reference.mano(ARRAYS, **{name: x[i] for name, x in fields.items()})
        points[i] = mano_reference.keypoints(vertices[i], joints[i], TIPS)
    return vertices, joints, points


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (MORE_THAN_A_CHUNK,), (2, kinematics._CHUNK), (0,)])
def test_forward_is_mano(batch, toy_hand):
    params = random_params(1, batch)
    vertices, expected_joints, expected_keypoints = reference(params)
    mesh = forward(toy_hand, params)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
    np.testing.assert_allclose(mesh.joints, expected_joints, atol=1e-6)
    np.testing.assert_allclose(mesh.keypoints, expected_keypoints, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (2, 3), (MORE_THAN_A_CHUNK,)])
def test_keypoints_and_joints_are_those_of_forward(batch, toy_hand):
    params = random_params(1, batch)
    mesh = forward(toy_hand, params)
    np.testing.assert_allclose(keypoints(toy_hand, params), mesh.keypoints, atol=3e-7)
    np.testing.assert_allclose(joints(toy_hand, params), mesh.joints, atol=3e-7)


@pytest.mark.parametrize("sd", [0.0, 1e-6, 1e-2, 2.0])
def test_forward_is_mano_from_flat_to_far_beyond_what_hands_do(sd, toy_hand):
    params = random_params(2, (3,), sd)
    np.testing.assert_allclose(forward(toy_hand, params).vertices, reference(params)[0], atol=2e-6)


def test_flat_hand_is_the_template(toy_hand):
    mesh = forward(toy_hand, HandParams.zeros())
    np.testing.assert_allclose(mesh.vertices, ARRAYS["v_template"], atol=1e-8)
    np.testing.assert_allclose(mesh.joints, ARRAYS["J_regressor"] @ ARRAYS["v_template"], atol=1e-8)


@pytest.mark.parametrize("batch", [(), (2, 3), (MORE_THAN_A_CHUNK,)])
def test_stages_are_forward(batch, toy_hand):
    params = random_params(3, batch)
    shaped = shape_hand(toy_hand, params.betas)
    posed = pose_hand(shaped.joints, params.global_orient, params.hand_pose, params.transl)
    mesh = forward(toy_hand, params)
    np.testing.assert_allclose(skin(toy_hand, shaped, posed), mesh.vertices, atol=3e-7)
    np.testing.assert_allclose(posed.joints, mesh.joints, atol=3e-7)
    np.testing.assert_allclose(shaped.joints, rest_joints(toy_hand, params.betas), atol=0)


def test_one_shape_serves_many_poses(toy_hand):
    params = replace(random_params(4, (2, 70)), betas=random_params(5, ()).betas)
    shaped = shape_hand(toy_hand, params.betas)
    posed = pose_hand(shaped.joints, params.global_orient, params.hand_pose, params.transl)
    assert shaped.vertices.shape == (VERTICES, 3)
    np.testing.assert_allclose(skin(toy_hand, shaped, posed), reference(params)[0], atol=1e-6)


def test_one_pose_serves_many_shapes(toy_hand):
    params = replace(random_params(6, ()), betas=random_params(7, (4,)).betas)
    shaped = shape_hand(toy_hand, params.betas)
    posed = pose_hand(shaped.joints, params.global_orient, params.hand_pose, params.transl)
    np.testing.assert_allclose(skin(toy_hand, shaped, posed), reference(params)[0], atol=1e-6)


def test_bones_carry_rest_points(toy_hand):
    params = random_params(8, (3,))
    shaped = shape_hand(toy_hand, params.betas)
    posed = pose_hand(shaped.joints, params.global_orient, params.hand_pose, params.transl)
    carried = jnp.einsum("bjac,bjc->bja", posed.rotations, shaped.joints) + posed.translations
    np.testing.assert_allclose(carried, posed.joints, atol=1e-6)
    identity = np.broadcast_to(np.eye(3), (3, 16, 3, 3))
    product = posed.rotations @ jnp.swapaxes(posed.rotations, -1, -2)
    np.testing.assert_allclose(product, identity, atol=2e-6)


def test_shape_hand_is_the_flat_hand(toy_hand):
    betas = random_params(9, (2, 3)).betas
    zeros = HandParams.zeros((2, 3))
    vertices, expected, _ = reference(replace(zeros, betas=betas))
    shaped = shape_hand(toy_hand, betas)
    assert isinstance(shaped, ShapedHand)
    np.testing.assert_allclose(shaped.vertices, vertices, atol=1e-7)
    np.testing.assert_allclose(shaped.joints, expected, atol=1e-7)


@pytest.mark.parametrize("many", [False, True], ids=["at once", "in chunks"])
def test_leading_axes_broadcast(many, toy_hand):
    people = MORE_THAN_A_CHUNK if many else 3
    alone, row, column, table = (random_params(10, b) for b in ((), (people,), (2, 1), (2, people)))
    params = HandParams(table.global_orient, column.hand_pose, row.betas, alone.transl)
    assert params.batch == (2, people)
    vertices, expected_joints, expected_keypoints = reference(params)
    mesh = forward(toy_hand, params)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
    np.testing.assert_allclose(mesh.joints, expected_joints, atol=1e-6)
    np.testing.assert_allclose(keypoints(toy_hand, params), expected_keypoints, atol=1e-6)


@pytest.mark.parametrize("many", [False, True], ids=["at once", "in chunks"])
def test_vmap_is_batch(many, toy_hand):
    params = random_params(11, (2, MORE_THAN_A_CHUNK) if many else (2, 3))
    vmapped = jax.vmap(partial(forward, toy_hand))(params)
    chex.assert_trees_all_close(vmapped, forward(toy_hand, params), atol=3e-7)


def test_vmap_over_hands(toy_hand):
    scales = jnp.array([1.0, 2.0])
    params = replace(random_params(12, ()), transl=jnp.zeros(3))

    def scaled(scale):
        hand = replace(toy_hand, basis=toy_hand.basis * scale, joint_basis=toy_hand.joint_basis * scale)
        return forward(hand, params).vertices

    small, big = jax.vmap(scaled)(scales)
    np.testing.assert_allclose(2 * small, big, atol=1e-6)


@pytest.fixture(scope="module")
def gradient(toy_hand):
    """Gradient of a random linear function of mesh and keypoints, and the same function of the reference."""
    rng = np.random.default_rng(14)
    of_vertices, of_keypoints = rng.normal(size=(VERTICES, 3)), rng.normal(size=(21, 3))

    def loss(params: HandParams):
        vertices = forward(toy_hand, params).vertices
        points = keypoints(toy_hand, params)
        return jnp.sum(vertices * of_vertices) + jnp.sum(points * of_keypoints)

    def reference_loss(fields: dict[str, np.ndarray]) -> float:
        vertices, joints = mano_reference.mano(ARRAYS, **fields)
        points = mano_reference.keypoints(vertices, joints, TIPS)
        return float((vertices * of_vertices).sum() + (points * of_keypoints).sum())

    return jax.jit(jax.grad(loss)), reference_loss


@pytest.mark.parametrize("sd", [0.0, 1e-5, 0.7])
def test_gradients_are_differences_of_the_reference(sd, gradient):
    found_by, reference_loss = gradient
    params = random_params(13, (), sd)
    found = found_by(params)
    start = {name: np.array(getattr(params, name), np.float64) for name in FIELDS}
    for name, shape in FIELDS.items():
        expected = np.zeros(shape)
        for i in np.ndindex(shape):
            step = np.zeros(shape)
            step[i] = 1e-6
            ahead, behind = (reference_loss(start | {name: start[name] + s}) for s in (step, -step))
            expected[i] = (ahead - behind) / 2e-6
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_gradients_of_many_hands_are_those_of_each(toy_hand):
    """Chunks are recomputed in the backward pass: the gradients of parameters and of the model must not notice."""
    params = random_params(15, (MORE_THAN_A_CHUNK,))
    model = {name: getattr(toy_hand, name) for name in ("basis", "joint_basis", "weights")}

    def loss(model: dict[str, jax.Array], params: HandParams):
        mesh = forward(replace(toy_hand, **model), params)
        return jnp.sum(mesh.vertices**2) + jnp.sum(mesh.keypoints**3)

    gradients = jax.grad(loss, (0, 1))
    of_model, of_params = jax.jit(gradients)(model, params)
    of_model_each, of_params_each = jax.jit(jax.vmap(gradients, (None, 0)))(model, params)
    chex.assert_trees_all_close(of_params, of_params_each, rtol=1e-4, atol=1e-4)
    summed = {name: jnp.sum(each, 0) for name, each in of_model_each.items()}
    chex.assert_trees_all_close(of_model, summed, rtol=1e-4, atol=1e-3)


def test_forward_reverse_and_second_derivatives_of_many_hands_agree(toy_hand):
    params, one, other = (random_params(seed, (MORE_THAN_A_CHUNK,)) for seed in (16, 17, 18))

    def inner(a: HandParams, b: HandParams):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return sum(jnp.vdot(x, y) for x, y in pairs)

    def loss(params: HandParams):
        return jnp.sum(forward(toy_hand, params).vertices ** 2)

    @jax.jit
    def derivatives(direction: HandParams):
        slope = jax.jvp(loss, (params,), (direction,))[1]
        return slope, *jax.jvp(jax.grad(loss), (params,), (direction,))

    slope, gradient, curvature = derivatives(one)
    np.testing.assert_allclose(slope, inner(gradient, one), rtol=1e-4)
    _, _, other_curvature = derivatives(other)
    mixed = inner(curvature, other)
    np.testing.assert_allclose(mixed, inner(other_curvature, one), rtol=1e-3)
    assert abs(mixed) > 1


@pytest.mark.parametrize("fn", [forward, keypoints, joints])
def test_new_values_compile_nothing(fn, toy_hand):
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(fn.__wrapped__, n=1))
    results = [traced(toy_hand, random_params(seed, (2, 3))) for seed in (21, 22)]
    first, second = (jax.tree.leaves(r)[0] for r in results)
    assert float(jnp.abs(first - second).max()) > 1e-2


def test_skin_compiles_once(toy_hand):
    params = random_params(23, (MORE_THAN_A_CHUNK,))
    shaped = shape_hand(toy_hand, params.betas)
    posed = pose_hand(shaped.joints, params.global_orient, params.hand_pose, params.transl)
    skin.clear_cache()
    for _ in range(3):
        skin(toy_hand, shaped, posed)
    assert skin._cache_size() == 1


def test_mesh_is_not_paid_for_by_keypoints(toy_hand, unchecked):
    params = random_params(24, ())
    flops = lambda fn: fn.lower(toy_hand, params).compile().cost_analysis()["flops"]  # noqa: E731
    assert flops(joints) < flops(keypoints) < flops(forward) / 3


@pytest.mark.parametrize(("backend", "in_chunks"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_only_a_cpu_takes_many_hands_in_chunks(backend, in_chunks, toy_hand, monkeypatch):
    """A loop over the batch would gather what an accelerator's devices share among them."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    mesh = jax.make_jaxpr(partial(forward.__wrapped__, toy_hand))(random_params(32, (MORE_THAN_A_CHUNK,)))
    assert ("scan[" in str(mesh)) == in_chunks


WRONG = {
    "axis-angle in one row": (
        {"hand_pose": (45,)},
        r"hand_pose: expected shape \(\.\.\., 15, 3\), got \(45,\).*reshape",
    ),
    "wrist among the fingers": ({"hand_pose": (16, 3)}, r"hand_pose: .*got \(16, 3\).*wrist.*global_orient"),
    "fewer shapes": ({"betas": (4,)}, r"betas: expected shape \(\.\.\., 10\), got \(4,\); toy has 10 .*pad with zeros"),
    "quaternion": ({"global_orient": (4,)}, r"global_orient: expected shape \(\.\.\., 3\), got \(4,\)"),
    "no shape": ({"betas": ()}, r"betas: expected shape \(\.\.\., 10\), got \(\)"),
    "batches": ({"betas": (2, 10), "transl": (3, 3)}, r"do not broadcast.*'betas': \(2, 10\).*'transl': \(3, 3\)"),
}


@pytest.mark.parametrize("fn", [forward, keypoints, joints, T_world_wrist])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_shapes_are_explained(case, fn, toy_hand, unchecked):
    shapes, message = WRONG[case]
    fields = {name: jnp.zeros(shapes.get(name, shape)) for name, shape in FIELDS.items()}
    with pytest.raises(ValueError, match=message):
        fn(toy_hand, HandParams(**fields))


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_wrist_frame_stands_at_the_wrist(batch, toy_hand):
    params = random_params(25, batch)
    T = T_world_wrist(toy_hand, params)
    assert T.shape == (*batch, 4, 4)
    np.testing.assert_allclose(T[..., :3, 3], joints(toy_hand, params)[..., 0, :], atol=1e-6)
    # seen from its wrist frame, the hand is one without orientation whose wrist is at the origin
    still = replace(
        params, global_orient=jnp.zeros((*batch, 3)), transl=-rest_joints(toy_hand, params.betas)[..., 0, :]
    )
    local = forward(toy_hand, still).vertices
    world = jnp.einsum("...ij,...nj->...ni", T[..., :3, :3], local) + T[..., None, :3, 3]
    np.testing.assert_allclose(world, forward(toy_hand, params).vertices, atol=1e-6)


def test_wrist_frame_comes_back(toy_hand):
    params = random_params(26, (2, 3), 0.5)
    elsewhere = random_params(27, (2, 3), 0.5)
    T = T_world_wrist(toy_hand, params)
    moved = with_T_world_wrist(toy_hand, replace(elsewhere, betas=params.betas, hand_pose=params.hand_pose), T)
    chex.assert_trees_all_close(moved, params, atol=2e-6)
    shared = with_T_world_wrist(toy_hand, random_params(28, ()), T)
    np.testing.assert_allclose(T_world_wrist(toy_hand, shared), T, atol=2e-6)


def test_wrist_frame_broadcasts(toy_hand):
    params = replace(random_params(29, (4,)), betas=random_params(30, ()).betas)
    np.testing.assert_allclose(T_world_wrist(toy_hand, params)[:, :3, 3], joints(toy_hand, params)[:, 0], atol=1e-6)


def test_pose_hand_broadcasts(toy_hand):
    one, row, column = (random_params(31, b) for b in ((), (3,), (2, 1)))
    rest = rest_joints(toy_hand, one.betas)
    posed = pose_hand(rest, row.global_orient, column.hand_pose, one.transl)
    assert isinstance(posed, PosedHand)
    assert posed.joints.shape == (2, 3, 16, 3)
    assert posed.pose_features.shape == (2, 3, 135)
    expected = reference(HandParams(row.global_orient, column.hand_pose, one.betas, one.transl))[1]
    np.testing.assert_allclose(posed.joints, expected, atol=1e-6)


def test_matrices_pose_as_their_vectors(toy_hand):
    params = random_params(32, (4,))
    turns = jnp.concatenate([params.global_orient[:, None], params.hand_pose], 1)
    posed = pose_hand_by_matrices(rest_joints(toy_hand, params.betas), so3_exp(turns), params.transl)
    np.testing.assert_allclose(posed.joints, joints(toy_hand, params), atol=1e-7)
    np.testing.assert_allclose(posed_keypoints(toy_hand, params.betas, posed), keypoints(toy_hand, params), atol=1e-7)
