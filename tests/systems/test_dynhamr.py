"""Tracks in the world, the terms of the cost, what each stage moves, and gaps that the prior fills."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.spatial.transform import Rotation

from experiments import dynhamr as made
from experiments.dynhamr import VARIANTS, Truth, experiment
from jhand.data.camera_files import read_slam_cameras
from jhand.geometry import close_holes, invert_transform, make_camera, project, so3_exp, transform, winding_number
from jhand.hand import HandParams, keypoints, mirror_hand, mirror_params, pose_from_angles
from jhand.motion import MISSING, OUTSIDE, SEEN, PriorConfig, init_motion_prior
from jhand.systems import dynhamr as system
from jhand.systems.dynhamr import Config, Inputs, Motion, Outputs, Seen
from jhand.track import Hands

pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")
FRAMES = 20
PRIOR = PriorConfig(frames=16, local=8, whole=4, hidden=16, layers=2, channels=8)
CONFIG = Config(
    root_iterations=12,
    smooth_iterations=40,
    memory=8,
    prior_iterations=(3, 3),
    prior=PRIOR,
    last="slerp",
    bio=(0.0, 10.0, 1.0),  # limits are most of what is compiled: one of the two descents has them here
)
BOTH = jnp.array([True, False])


def one(tree, n=0):
    return jax.tree.map(lambda x: x[n], tree)


def exact(tree):
    """In double precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.fixture(scope="module")
def small(right, left):
    """Two clips of two hands, which stay where they are or ride along with the camera; the path is too short by two."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, FRAMES)
    path = np.stack([0.3 * np.sin(3 * t), 0.05 * t, 0.1 * np.sin(5 * t)], -1)
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, :3, :3] = Rotation.from_rotvec(np.stack([0.1 * t, 0.2 * np.sin(3 * t), 0 * t], -1)).as_matrix()
    T[:, :3, 3] = -np.einsum("tij,tj->ti", T[:, :3, :3], path)
    cameras = make_camera(
        focal=np.full((FRAMES, 2), 1400.0),
        principal=np.full((FRAMES, 2), 500.0),
        T_cam_world=T.astype(np.float32),
        distortion=np.zeros((FRAMES, 8)),
    )
    # a left hand is made as a right one and mirrored
    bend = 0.6 + 0.4 * np.sin(4 * t + np.arange(2)[:, None])
    pose = pose_from_angles(right, np.einsum("bt,jc->btjc", bend, np.array([[1.0, 0, 0]] * 12 + [[0.3, 0, 0]] * 3)))
    orient = np.stack([0.4 * t, 0 * t, 0.3 + 0 * t], -1) * np.ones((2, 1, 1))
    betas = np.tile(0.5 * rng.normal(size=10), (2, FRAMES, 1))
    clips = []
    for head in (False, True):
        place = np.array([0.12, 0, 0.7]) + 0.04 * np.stack([t**2, np.sin(3 * t), 0 * t], -1) + np.zeros((2, 1, 3))
        ride = head * path
        place += np.stack([ride, ride * [-1, 1, 1]])
        params = HandParams(*(jnp.asarray(x, jnp.float32) for x in (orient, pose, betas, place)))
        params = jax.tree.map(lambda a, b: jnp.stack([a[0], b[1]]), params, mirror_params(params))
        points = jnp.stack([keypoints(hand, one(params, n)) for n, hand in enumerate((right, left))])
        R = np.einsum("tij,btjk->btik", T[:, :3, :3], so3_exp(params.global_orient))
        root = system.root_joint(right, params.betas, jnp.broadcast_to(BOTH[:, None], (2, FRAMES)))
        wrist = np.asarray(transform(cameras.T_cam_world, (params.transl + root)[:, :, None]))[:, :, 0]
        wrist = wrist * (1 + 0.05 * rng.normal(size=(2, FRAMES, 1)))
        estimates = HandParams(
            jnp.asarray(Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(2, FRAMES, 3), jnp.float32),
            params.hand_pose + 0.1 * rng.normal(size=(2, FRAMES, 15, 3)).astype(np.float32),
            params.betas,
            jnp.asarray(wrist, jnp.float32) - root,
        )
        seen = jnp.ones((2, FRAMES), bool).at[0, 6:11].set(False).at[1, 9:13].set(False)
        pixels = project(cameras, points) + 2 * rng.normal(size=(2, FRAMES, 21, 2)).astype(np.float32)
        slam = replace(cameras, T_cam_world=cameras.T_cam_world.at[:, :3, 3].divide(2.0))
        inputs = Inputs(slam, jnp.array(True), BOTH, pixels, jnp.full((2, FRAMES, 21), 0.9), estimates, seen, {})
        truth = Truth(params, points, cameras, jnp.array(2.0), jnp.array(head), seen, ~seen)
        clips.append((inputs, truth))
    inputs, truth = jax.tree.map(lambda *leaves: jnp.stack(leaves), *clips)
    prior = init_motion_prior(jax.random.key(0), PRIOR)
    return replace(inputs, prior=jax.tree.map(lambda x: jnp.stack([x, x]), prior)), truth


@pytest.fixture(scope="module")
def lifted(small, right):
    return system.solve(small[0], replace(CONFIG, last="lift"), right)


@pytest.fixture(scope="module")
def solved(small, right):
    return system.solve(small[0], CONFIG, right)


def compared(small, outputs):
    """The first clip's motion, and what it is compared with."""
    inputs, p = small[0], outputs.params
    motion = Motion(p.transl, p.global_orient, p.hand_pose, p.betas[:, :, 0], outputs.world_scale)
    inside = outputs.states != OUTSIDE
    seen = Seen(inputs.cameras, inputs.moving, inputs.right, inputs.keypoints2d, inputs.confidence, inside)
    return one(motion), one(replace(seen, confidence=jnp.where(inputs.seen[..., None], seen.confidence, 0)))


def test_tracks_are_filled():
    seen = jnp.array([[False, True, False, True, False]])
    turn = jnp.array([0.0, 0.4, 9.0, 0.8, 9.0])[None, :, None] * jnp.array([0.0, 0, 1])
    pose = jnp.broadcast_to(turn[:, :, None], (1, 5, 15, 3))
    betas = jnp.array([9.0, 1.0, 9.0, 2.0, 9.0])[None, :, None] * jnp.ones(10)
    filled, states = system.fill_tracks(HandParams(turn, pose, betas, 3 * turn), seen)
    assert states.tolist() == [[OUTSIDE, SEEN, MISSING, SEEN, OUTSIDE]]
    bent = [0.4, 0.4, 0.6, 0.8, 0.8]
    np.testing.assert_allclose(filled.global_orient[0, :, 2], bent, atol=1e-5)
    np.testing.assert_allclose(filled.hand_pose[0, :, 7, 2], bent, atol=1e-5)
    np.testing.assert_allclose(filled.transl[0, :, 2], 3 * np.array(bent), atol=1e-5)
    np.testing.assert_allclose(filled.betas, 1.5, atol=1e-6)


def test_lifted_hands_are_those_of_the_camera_carried_along(small, right):
    """Points move as a rigid body, so the wrist's own offset is taken out and put back; MANO's is 9 cm."""
    offset = jnp.array([0.09, 0.01, -0.02])
    basis = right.basis.at[0].add(offset[:, None])
    far = replace(right, basis=basis, joint_basis=right.joint_basis.at[0].add(offset))
    params, cameras = one(small[0].estimates), one(small[0].cameras)
    world = system.lift(params, cameras, far, BOTH)
    for n, hand in enumerate((far, mirror_hand(far))):
        back = transform(cameras.T_cam_world, keypoints(hand, one(world, n)))
        np.testing.assert_allclose(back, keypoints(hand, one(params, n)), atol=5e-5)
    plain = transform(invert_transform(cameras.T_cam_world), params.transl[:, :, None])[:, :, 0]
    assert np.abs(plain - world.transl).max() > 0.005


def test_hands_of_either_side_are_those_of_their_models(lifted, right, left):
    for n, hand in enumerate((right, left)):
        expected = keypoints(hand, one(one(lifted.params), n))
        np.testing.assert_allclose(lifted.keypoints[0, n], expected, atol=2e-5)


def test_the_scale_multiplies_the_path_alone(small, solved):
    path, found = small[0].cameras.T_cam_world, solved.cameras.T_cam_world
    np.testing.assert_allclose(found[:, :, :3, 3], solved.world_scale[:, None, None] * path[:, :, :3, 3], rtol=1e-5)
    np.testing.assert_array_equal(found[:, :, :3, :3], path[:, :, :3, :3])
    motion, seen = compared(small, solved)
    more = system.moved(motion, {"world_scale": jnp.array(1.0)}, seen)
    assert more.world_scale > motion.world_scale + 0.2
    # hands ride along with their camera: what is seen of them stays
    from_camera = lambda m: m.transl - system.camera_centres(system.scaled(seen.cameras, m.world_scale))  # noqa: E731
    np.testing.assert_allclose(from_camera(more), from_camera(motion), atol=1e-5)
    still = system.moved(motion, {"world_scale": jnp.array(1.0)}, replace(seen, moving=jnp.array(False)))
    assert still.world_scale == motion.world_scale


def test_terms_and_costs_have_the_slopes_of_finite_differences(small, lifted, right):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        motion, seen, hand, prior = exact((*compared(small, lifted), right, one(small[0].prior)))
        latents = system.encode_hands(prior, motion, seen.right, PRIOR)
        flat, fields = ravel_pytree((motion, latents))
        weights = replace(CONFIG, smooth=(3.0, 5000.0), bio=(7.0, 10.0, 1.0), latent=50.0)

        @jax.jit
        def terms(x, confidence):
            m, z = fields(x)
            points = system.hand_points(hand, m, system.hand_rotations(m), seen.right)
            cameras, now = system.scaled(seen.cameras, m.world_scale), replace(seen, confidence=confidence)
            unknowns = {name: getattr(m, name) for name in ("transl", "global_orient", "betas")} | {"latents": z}
            return jnp.stack(
                [
                    system.reprojection_term(points, cameras, seen.keypoints2d, confidence, 100.0),
                    system.smooth_term(points, seen.inside),
                    system.biomechanics_term(points, seen.right, seen.inside),
                    system.prior_cost(unknowns, replace(motion, world_scale=m.world_scale), now, weights, hand, prior),
                ]
            )

        slopes = jax.jit(jax.jacrev(terms))  # of what is traced already
        for _ in range(3):
            x = flat + 0.02 * rng.normal(size=flat.shape)
            step = rng.normal(size=flat.shape)
            ahead, behind = (terms(x + sign * 1e-6 * step, seen.confidence) for sign in (1, -1))
            found = slopes(x, seen.confidence)
            np.testing.assert_allclose(found @ step, (ahead - behind) / 2e-6, rtol=2e-3)
        # the descents' costs are sums of these, and of squares
        m, frames = fields(x)[0], seen.inside.sum(1)
        pose = weights.pose * jnp.sum(jnp.where(seen.inside[..., None, None], m.hand_pose**2, 0))
        each = terms(x, seen.confidence)
        for stage in range(2):
            weight = jnp.array([weights.reprojection[stage], weights.smooth[stage], weights.bio[stage]])
            expected = weight @ each[:3] + pose + weights.shape[stage] * jnp.sum(frames * jnp.sum(m.betas**2, -1))
            np.testing.assert_allclose(system.clip_cost(m, seen, weights, hand, stage), expected, rtol=1e-6)
        # what sees nothing tells latents nothing but to be small
        at = len(flat) - latents.size
        assert np.abs(found[3, at:]).max() > 1
        blind = slopes(x, jnp.zeros_like(seen.confidence))[3, at:]
        pull = 2 * weights.latent * x[at:]
        assert np.abs(blind - pull).max() < 0.2 * np.abs(found[3, at:] - pull).max()


def test_far_residuals_hardly_count(small):
    cameras = one(small[0].cameras)
    points = jnp.tile(transform(invert_transform(cameras.T_cam_world), jnp.array([[0.0, 0, 0.5]])), (1, 21, 1))[None]
    pixels = project(cameras, points)
    cost = lambda away, c: float(  # noqa: E731
        system.reprojection_term(points, cameras, pixels.at[0, 3, 4, 0].add(away), jnp.full((1, FRAMES, 21), c), 100.0)
    )
    np.testing.assert_allclose(cost(3.0, 1.0), 9 / (1 + 9e-4), rtol=2e-2)
    np.testing.assert_allclose(cost(3.0, 0.5), 0.25 * cost(3.0, 1.0), rtol=1e-3)
    assert cost(1e4, 1.0) < 100**2 + 1 and cost(50.0, 0.0) == 0


def test_fingers_through_the_back_of_a_hand_cost(right):
    pose = pose_from_angles(right, jnp.zeros((2, 1, 15, 3)).at[1, :, :12, 0].set(-1.0))
    still, inside = jnp.zeros((2, 1, 3)), jnp.ones((2, 1), bool)
    cost = jax.jit(lambda points, sides: system.biomechanics_term(points, sides, inside))
    for side, turned in ((True, pose), (False, pose * jnp.array([1.0, -1, -1]))):
        sides = jnp.array([side, side])
        motion = Motion(still, still, turned, jnp.zeros((2, 10)), jnp.ones(()))
        points = system.hand_points(right, motion, system.hand_rotations(motion), sides)
        flat, bent = (float(cost(jnp.stack([points[n]] * 2), sides)) for n in range(2))
        assert flat < 0.02 and bent > 0.4


def test_hands_in_each_other_cost(right):
    sides, inside, rng = jnp.array([True, True]), jnp.ones((2, 1), bool), np.random.default_rng(0)
    one_hand = right.v_template[None]

    def depth(shift):
        return system.penetration_term(jnp.stack([one_hand, one_hand + shift]), right.faces, sides, inside)

    both = jax.jit(jax.value_and_grad(depth))
    at = jnp.array([0.003, 0.012, 0.004])
    found, slope = both(at)
    assert found > 0.05 and both(at + jnp.array([0, 0.5, 0]))[0] == 0
    for _ in range(2):
        step = rng.normal(size=3)
        step = jnp.asarray(1e-5 * step / np.linalg.norm(step))
        measured = both(at + step)[0] - both(at - step)[0]
        np.testing.assert_allclose(jnp.vdot(slope, 2 * step), measured, rtol=0.1, atol=2e-5)
    # at the wrist, only a closed mesh goes all around
    closed = close_holes(right.faces)
    v = right.v_template
    middle = 0.95 * v[np.unique(closed[len(right.faces) :])].mean(0) + 0.05 * v.mean(0)
    around = [float(winding_number(middle[None], v, f)[0]) for f in (right.faces, closed)]
    assert around[0] < 0.99 <= around[1]


def test_a_descent_moves_what_is_free(small, lifted):
    motion, seen = compared(small, lifted)
    cost = lambda m: sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(m))  # noqa: E731
    after = system.descend(cost, motion, ("transl", "global_orient"), seen, 3, 5)
    for name in ("hand_pose", "betas", "world_scale"):
        np.testing.assert_array_equal(getattr(after, name), getattr(motion, name))
    assert cost(after) < cost(motion)
    assert not np.array_equal(after.transl, motion.transl)
    assert not np.array_equal(after.global_orient, motion.global_orient)


def test_rates_decay():
    start = {"transl": jnp.array(0.0), "latents": jnp.array(0.0)}
    down = lambda x: x["transl"] + x["latents"]  # noqa: E731
    config = replace(CONFIG, rate=0.1, decay=0.5, decay_every=4)
    found = system.adam(down, start, config, 8)
    np.testing.assert_allclose(found["latents"], -0.1 * (4 + 2), rtol=1e-3)
    np.testing.assert_allclose(found["transl"], system.UNITS["transl"] * found["latents"], rtol=1e-5)


def test_descents_bring_hands_together(small, lifted, solved, right):
    truth, metric = small[1], experiment.metrics
    for name in ("mpjpe_seen", "acceleration_seen"):
        before, after = (np.asarray(metric[name](o, truth, right)) for o in (lifted, solved))
        assert (after < 0.8 * before).all(), name
    np.testing.assert_array_equal(lifted.world_scale, 1)
    assert abs(metric["scale_bias_apart"](solved, truth, right)[0]) < 0.25
    # hands that ride along seem to stand still, and the path with them
    assert metric["scale_bias_head"](solved, truth, right)[1] < -0.6


def test_missing_frames_are_not_read(small, lifted, solved, right):
    inputs = small[0]
    wild = lambda x: jnp.where(inputs.seen.reshape(*inputs.seen.shape, *(1,) * (x.ndim - 3)), x, 7.7)  # noqa: E731
    changed = replace(
        inputs,
        estimates=jax.tree.map(wild, inputs.estimates),
        keypoints2d=wild(inputs.keypoints2d),
        confidence=wild(inputs.confidence),
    )
    np.testing.assert_allclose(system.solve(changed, CONFIG, right).keypoints, solved.keypoints, atol=1e-5)


def test_a_camera_that_stands_still(small, right):
    still = replace(small[0], moving=jnp.array([False, False]))
    found = system.solve(still, replace(CONFIG, last="lift"), right)
    np.testing.assert_array_equal(found.cameras.T_cam_world, np.broadcast_to(np.eye(4), (2, FRAMES, 4, 4)))
    same = system.solve(small[0], replace(CONFIG, last="lift", still=True), right)
    np.testing.assert_array_equal(same.keypoints, found.keypoints)


def test_missing_frames_are_between_those_found(solved):
    states = np.asarray(solved.states[0, 0])
    gap = np.flatnonzero(states == MISSING)
    first, t, last = gap[0] - 1, gap[1], gap[-1] + 1
    a, here, b = (Rotation.from_rotvec(np.asarray(solved.params.hand_pose[0, 0, i, 5])) for i in (first, t, last))
    share = (t - first) / (last - first)
    expected = a * Rotation.from_rotvec(share * (a.inv() * b).as_rotvec())
    np.testing.assert_allclose(here.as_matrix(), expected.as_matrix(), atol=1e-3)


def test_the_third_stage_is_decoded_in_clips(small, lifted, right):
    """20 frames are two clips of 16; the global latent is 0, and left hands are decoded in the mirror."""
    motion, seen = compared(small, lifted)
    prior = one(small[0].prior)
    latents = jax.jit(lambda m: system.encode_hands(prior, m, seen.right, PRIOR))(motion)
    assert latents.shape == (2, 2, 8)
    decode = jax.jit(lambda z: system.decode_hands(prior, z, BOTH, FRAMES, PRIOR))
    fingers = decode(jnp.stack([latents[0]] * 2))
    assert fingers.shape == (2, FRAMES, 15, 3, 3)
    np.testing.assert_allclose(fingers[1], fingers[0] * np.outer([-1, 1, 1], [-1, 1, 1]), atol=1e-6)
    config = replace(CONFIG, last="prior")
    whole = jax.eval_shape(lambda i: system.solve(i, config, right).keypoints, small[0])
    assert whole.shape == (2, 2, FRAMES, 21, 3)


def test_metrics_of_the_truth(small, lifted, right):
    truth = small[1]
    perfect = Outputs(truth.params, truth.keypoints, truth.world_scale, truth.cameras, lifted.states)
    assert experiment.metrics.keys() == experiment.units.keys()
    for name, metric in experiment.metrics.items():
        best, poor = np.asarray(metric(perfect, truth, right)), np.asarray(metric(lifted, truth, right))
        assert best.shape == (2,) and (np.isnan(best) == np.isnan(poor)).all()
        assert np.isnan(best).sum() == (1 if name.endswith(("apart", "head")) else 0)
        np.testing.assert_allclose(best[~np.isnan(best)], 0, atol=5e-3)
        assert name == "implausible" or np.nanmax(np.abs(poor)) > 1e-3


def test_sides_of_claims_differ_in_what_they_name():
    assert all(replace(Config.tiny(), **fields) for fields in VARIANTS.values())
    for claim in experiment.claims:
        a, b = (claim.variants[side] for side in claim.compare)
        assert a != b and set(a) | set(b) <= {"last", "still", "scale", "bio", "smooth"}


def test_what_does_not_fit(small, right, left):
    inputs = small[0]
    with pytest.raises(ValueError, match="right one"):
        system.solve(inputs, CONFIG, left)
    short = jax.tree.map(lambda x: x[:, :, :5], inputs.estimates)
    with pytest.raises(ValueError, match=re.escape("estimates.transl: expected (2, 2, 20, 3)")):
        system.solve(replace(inputs, estimates=short), CONFIG, right)
    with pytest.raises(ValueError, match="motion prior"):
        system.solve(replace(inputs, prior={}), replace(CONFIG, last="prior"), right)


def test_tracked_hands_are_frames_by_themselves(small, right, left, monkeypatch):
    """What a tracker sees of both hands, its points in the camera's axes about anywhere, stands where the hands are."""
    inputs, truth = one(small)
    inside = transform(truth.cameras.T_cam_world, truth.keypoints)
    by_frame = lambda x: jnp.moveaxis(x, 0, 1)  # noqa: E731
    seen, uv = by_frame(truth.seen), by_frame(project(truth.cameras, truth.keypoints))
    score, right_one = jnp.where(seen, 0.8, 0), jnp.where(seen, jnp.array([0.9, 0.6]), 0)  # the left one by comparison
    points = by_frame(inside - jnp.mean(inside, -2, keepdims=True))
    hands = Hands(score, right_one, uv, jnp.zeros(uv.shape[:-1]), points)
    monkeypatch.setattr(made, "track_frames", lambda networks, frames: hands)
    blank = replace(
        inputs, keypoints2d=0 * inputs.keypoints2d, estimates=jax.tree.map(jnp.zeros_like, inputs.estimates)
    )
    scene = made.VideoScene(frames=FRAMES)
    found, about = made._tracked(scene, right, {}, jnp.zeros((FRAMES, 4, 4, 3)), blank, truth)
    np.testing.assert_array_equal(found.seen, truth.seen)
    np.testing.assert_array_equal(about.missing, truth.missing)
    np.testing.assert_allclose(found.confidence, jnp.where(truth.seen, 0.8, 0)[..., None] * np.ones(21), rtol=1e-6)
    for n, hand in enumerate((right, left)):
        own = keypoints(hand, one(found.estimates, n))
        apart = np.linalg.norm(own - inside[n], axis=-1)[truth.seen[n]]
        assert apart.mean() < 0.01 and apart.max() < 0.03  # they have the mean shape


def test_a_path_from_a_file(tmp_path, small):
    cameras = one(small[0].cameras)
    T, numbers = np.asarray(cameras.T_cam_world), np.array([1400.0, 1400, 500, 500])
    np.savez(tmp_path / "a.npz", cam_R=T[:, :3, :3], cam_t=T[:, :3, 3], intrins=numbers, width=1000, height=1000)
    read, size = read_slam_cameras(tmp_path / "a.npz")
    assert size == (1000, 1000)
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(cameras), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_page_runs_as_pasted(root, capsys):
    text = (root / "docs" / "systems" / "dynhamr.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "dynhamr.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(1, 1, 12, 21, 3)")
