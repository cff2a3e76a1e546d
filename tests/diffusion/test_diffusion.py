"""Noise, denoisers and samplers on a Gaussian, of which everything is known in closed form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.diffusion import (
    Levels,
    clamp,
    cosine_levels,
    denoiser_from_data,
    denoiser_from_edm,
    denoiser_from_flow,
    denoiser_from_noise,
    denoiser_from_velocity,
    diffuse,
    draw_edm_levels,
    draw_flow_levels,
    draw_levels,
    edm_levels,
    edm_weight,
    evenly,
    flow_levels,
    guide,
    guide_by,
    karras_levels,
    keep,
    linear_levels,
    sample_ddim,
    sample_ddpm,
    sample_edm,
    sample_heun,
    sample_means,
    sample_repaint,
    velocity,
)

MEAN = np.array([0.7, -0.4, 0.2])
COVARIANCE = np.array([[0.5, 0.3, 0.0], [0.3, 0.4, -0.1], [0.0, -0.1, 0.2]])
NUMBER = 20_000


def gaussian(mean=MEAN, covariance=COVARIANCE):
    """The ideal denoiser: E[x0 | x]."""

    def denoise(x, levels):
        noisy = levels.alpha**2 * covariance + levels.sigma**2 * jnp.eye(len(mean))
        gain = levels.alpha * jnp.asarray(covariance) @ jnp.linalg.inv(noisy)
        return mean + (x - levels.alpha * mean) @ gain.T

    return denoise


def flow_of(x, levels):
    """Where the probability flow brings x of the last level: whitened there, coloured by the data's covariance."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    alpha, sigma = float(levels.alpha[-1]), float(levels.sigma[-1])
    scale = np.sqrt(values / (alpha**2 * values + sigma**2))
    return MEAN + ((x - alpha * MEAN) @ vectors * scale) @ vectors.T


def noise(number=NUMBER, seed=0):
    return jax.random.normal(jax.random.key(seed), (number, 3))


def check_moments(samples, mean, covariance, at_most=0.03):
    np.testing.assert_allclose(np.mean(samples, 0), mean, atol=at_most)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=at_most)


@pytest.mark.parametrize("levels", [cosine_levels(25), linear_levels(50), linear_levels(1000)])
def test_variance_preserving_levels(levels):
    np.testing.assert_allclose(levels.alpha**2 + levels.sigma**2, 1, atol=1e-6)
    assert (np.diff(levels.sigma) > 0).all() and levels.alpha[-1] < 0.1
    np.testing.assert_array_equal(levels.t, np.arange(len(levels)))


def test_cosine_levels_are_the_published_ones():
    t = np.arange(26) / 25
    bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine_levels(25).alpha[:-1] ** 2, (bar[1:] / bar[0])[:-1], rtol=1e-4)
    # the last step would take everything; it takes 0.999 of what is left
    np.testing.assert_allclose(cosine_levels(25).alpha[-1] ** 2, bar[-2] / bar[0] * 0.001, rtol=1e-3)


def test_karras_and_flow_levels():
    sigma = np.asarray(karras_levels(18).sigma)
    np.testing.assert_allclose(sigma[[0, -1]], [0.002, 80], rtol=1e-5)
    np.testing.assert_allclose(np.diff(sigma ** (1 / 7)), np.diff(sigma ** (1 / 7))[0], rtol=1e-3)
    flow = flow_levels(np.array([0.25, 1.0]))
    np.testing.assert_allclose(flow.alpha, [0.75, 0])
    np.testing.assert_allclose(flow.sigma, [0.25, 1])


def test_fewer_levels_keep_the_last_and_what_networks_are_told():
    few = evenly(cosine_levels(100), 4)
    np.testing.assert_array_equal(few.t, [24, 49, 74, 99])
    chex.assert_trees_all_equal(evenly(cosine_levels(10), 10), cosine_levels(10))
    with pytest.raises(ValueError, match="1 to 10, the number of levels, got 11"):
        evenly(cosine_levels(10), 11)


def test_data_under_noise_has_the_moments_of_its_level():
    levels = cosine_levels(20)
    each = draw_levels(jax.random.key(0), levels, (7,))
    x0 = jnp.ones((7, 2, 3))
    x = diffuse(x0, jnp.zeros_like(x0), each)
    np.testing.assert_allclose(x, np.broadcast_to(each.alpha[:, None, None], x.shape))
    x = diffuse(jnp.zeros((NUMBER, 3)), noise(), levels[jnp.full(NUMBER, 4)])
    np.testing.assert_allclose(np.std(x), levels.sigma[4], rtol=0.02)


def test_draws_cover_what_they_should():
    t = np.asarray(draw_levels(jax.random.key(1), cosine_levels(5), (1000,)).t)
    assert set(t) == {0, 1, 2, 3, 4} and min(np.bincount(t.astype(int))) > 150
    log_sigma = np.log(draw_edm_levels(jax.random.key(2), (NUMBER,)).sigma)
    np.testing.assert_allclose([log_sigma.mean(), log_sigma.std()], [-1.2, 1.2], atol=0.03)
    flow = np.asarray(draw_flow_levels(jax.random.key(3), (NUMBER,)).t)
    np.testing.assert_allclose([flow.min(), flow.mean(), flow.max()], [0, 0.5, 1], atol=0.01)


@pytest.mark.parametrize("kind", ["data", "noise", "velocity", "flow", "edm"])
def test_networks_that_know_the_answer_give_the_data(kind):
    """Each kind of prediction, from the target that it is trained on."""
    x0, e = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3))), noise(5)
    levels = {"flow": flow_levels(jnp.linspace(0.1, 0.9, 5)), "edm": edm_levels(jnp.geomspace(0.01, 10, 5))}
    levels = levels.get(kind, cosine_levels(8)[jnp.arange(5)])
    x = diffuse(x0, e, levels)
    sd, s = 0.5, levels.sigma[:, None]
    both = s**2 + sd**2
    inside = (x0 - sd**2 / both * x) * jnp.sqrt(both) / (s * sd)
    targets = {"data": x0, "noise": e, "velocity": velocity(x0, e, levels), "flow": e - x0, "edm": inside}
    makers = {
        "data": denoiser_from_data,
        "noise": denoiser_from_noise,
        "velocity": denoiser_from_velocity,
        "flow": denoiser_from_flow,
        "edm": denoiser_from_edm,
    }
    told = []

    def network(x, t):
        told.append(t)
        return targets[kind]

    np.testing.assert_allclose(makers[kind](network)(x, levels), x0, atol=1e-4)
    np.testing.assert_array_equal(told[0], levels.t)


def test_the_weight_of_edm_makes_the_inner_error_even():
    """A network that answers 0 misses a target of unit variance at every level."""
    x0 = 0.5 * noise()
    for sigma in (0.02, 0.5, 20.0):
        levels = edm_levels(jnp.full(NUMBER, sigma))
        x = diffuse(x0, noise(seed=1), levels)
        missed = denoiser_from_edm(lambda x, t: jnp.zeros_like(x))(x, levels) - x0
        np.testing.assert_allclose(jnp.mean(edm_weight(levels)[:, None] * missed**2), 1, rtol=0.03)


@pytest.mark.parametrize("levels", [cosine_levels(200), karras_levels(200, largest=20.0)], ids=["vp", "edm"])
def test_ancestral_samples_have_the_gaussian_s_moments(levels):
    sample = jax.jit(lambda key, e: sample_ddpm(key, gaussian(), e, levels))
    check_moments(sample(jax.random.key(1), noise()), MEAN, COVARIANCE)


def test_few_ancestral_steps_spread_as_the_chain_says():
    """The covariance of 10 steps, by the linear recursion that they are."""
    levels, values = cosine_levels(10), np.linalg.eigvalsh(COVARIANCE)
    variance = np.ones(3) * float(levels.sigma[-1]) ** 2
    for i in range(9, -1, -1):
        at, st = float(levels.alpha[i]), float(levels.sigma[i])
        a, s = (float(levels.alpha[i - 1]), float(levels.sigma[i - 1])) if i else (1.0, 0.0)
        gain = at * values / (at**2 * values + st**2)
        gone = 1 - (at * s / (a * st)) ** 2
        linear = a * gone * gain + at / a * s**2 / st**2  # of the posterior's mean
        variance = linear**2 * variance + s**2 * gone
    vectors = np.linalg.eigh(COVARIANCE)[1]
    sample = sample_ddpm(jax.random.key(1), gaussian(), noise(), levels)
    check_moments(sample, np.mean(sample, 0), (vectors * variance) @ vectors.T)


def test_means_alone_end_nearer_to_the_gaussian_s_mean_than_samples():
    """Steps without noise shrink the covariance by the recursion of the posterior's mean."""
    levels, values = cosine_levels(10), np.linalg.eigvalsh(COVARIANCE)
    shrunk = np.ones(3) * float(levels.sigma[-1])
    for i in range(9, -1, -1):
        at, st = float(levels.alpha[i]), float(levels.sigma[i])
        a, s = (float(levels.alpha[i - 1]), float(levels.sigma[i - 1])) if i else (1.0, 0.0)
        gone = 1 - (at * s / (a * st)) ** 2
        shrunk *= a * gone * at * values / (at**2 * values + st**2) + at / a * s**2 / st**2
    vectors = np.linalg.eigh(COVARIANCE)[1]
    found = sample_means(gaussian(), noise(), levels)
    check_moments(found, MEAN, (vectors * shrunk**2) @ vectors.T)
    assert (shrunk**2 < 0.5 * values).all()


def test_deterministic_ancestral_sampling_is_ddim():
    levels = cosine_levels(12)
    ours = sample_ddpm(jax.random.key(0), gaussian(), noise(9), levels, eta=0.0)
    np.testing.assert_allclose(ours, sample_ddim(gaussian(), noise(9), levels), atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "make", "order"),
    [
        (sample_ddim, cosine_levels, 1),
        (sample_ddim, lambda n: flow_levels(jnp.linspace(0, 1, n + 1)[1:]), 1),
        (sample_heun, lambda n: flow_levels(jnp.linspace(0, 1, n + 1)[1:]), 2),
        (sample_heun, lambda n: karras_levels(n, smallest=1e-3, largest=10.0), 2),
    ],
    ids=["ddim", "flow", "flow-heun", "edm-heun"],
)
def test_the_flow_brings_each_sample_where_it_should_and_errors_fall_with_their_order(sampler, make, order):
    errors = []
    for steps in (20, 80):
        levels = make(steps)
        e = noise(50)
        found = sampler(gaussian(), e, levels)
        errors.append(float(np.max(np.abs(found - flow_of(np.asarray(levels.sigma[-1] * e), levels)))))
    assert errors[1] < 0.05
    assert errors[0] / errors[1] > 0.6 * 4**order


def test_edm_s_stochastic_sampler_has_the_gaussian_s_moments():
    levels = karras_levels(60, largest=20.0)
    sample = jax.jit(lambda key, e: sample_edm(key, gaussian(), e, levels, inflate=1.0))
    check_moments(sample(jax.random.key(1), noise()), MEAN, COVARIANCE)
    still = sample_edm(jax.random.key(1), gaussian(), noise(5), levels, churn=0.0)
    np.testing.assert_allclose(still, sample_heun(gaussian(), noise(5), levels), atol=1e-5)


def test_guidance_moves_a_gaussian_s_mean_beyond():
    """Of two Gaussians of one covariance, the guided one has it too, and its mean lies on their line."""
    other = MEAN + np.array([0.2, 0.1, -0.3])
    guided = guide(gaussian(other), gaussian(), 2.5)
    found = sample_ddim(guided, noise(), cosine_levels(200))
    check_moments(found, MEAN + 2.5 * (other - MEAN), COVARIANCE)
    once = guide(gaussian(other), gaussian(), 1.0)(noise(4), cosine_levels(5)[2])
    np.testing.assert_allclose(once, gaussian(other)(noise(4), cosine_levels(5)[2]), atol=1e-6)


def test_guidance_by_a_measurement_samples_the_posterior():
    A, y, sd = np.array([[1.0, -0.5, 0.3]]), np.array([1.5]), 0.2

    def log_likelihood(x0, levels):
        noisy = levels.alpha**2 * COVARIANCE + levels.sigma**2 * jnp.eye(3)
        unsure = COVARIANCE - levels.alpha**2 * COVARIANCE @ jnp.linalg.inv(noisy) @ COVARIANCE
        variance = (A @ unsure @ A.T)[0, 0] + sd**2
        return -jnp.sum((x0 @ A.T - y) ** 2) / (2 * variance)

    found = sample_ddim(guide_by(gaussian(), log_likelihood), noise(), cosine_levels(200))
    gain = COVARIANCE @ A.T / (A @ COVARIANCE @ A.T + sd**2)
    check_moments(found, MEAN + (gain * (y - A @ MEAN)).ravel(), COVARIANCE - gain @ A @ COVARIANCE)


def test_inpainting_gives_the_rest_its_conditional():
    known, mask = np.array([1.6, 0.0, 0.0]), np.array([True, False, False])
    rest = MEAN[1:] + COVARIANCE[1:, 0] / COVARIANCE[0, 0] * (known[0] - MEAN[0])
    spread = COVARIANCE[1:, 1:] - np.outer(COVARIANCE[1:, 0], COVARIANCE[1:, 0]) / COVARIANCE[0, 0]
    paint = jax.jit(
        lambda key, e, repeats: sample_repaint(key, gaussian(), e, cosine_levels(60), known, mask, repeats=repeats),
        static_argnums=2,
    )
    found = paint(jax.random.key(1), noise(), 8)
    np.testing.assert_array_equal(found[:, 0], np.float32(known[0]))
    check_moments(found[:, 1:], rest, spread, 0.06)
    # without repeats, the rest stays nearer to what it would be with nothing known
    once = np.mean(paint(jax.random.key(1), noise(), 1)[:, 1:], 0)
    assert abs(once[0] - rest[0]) > 2 * abs(np.mean(found[:, 1]) - rest[0])
    kept = sample_ddpm(jax.random.key(2), keep(gaussian(), known, mask), noise(5), cosine_levels(60))
    np.testing.assert_array_equal(kept[:, 0], np.float32(known[0]))


def test_clamped_data_stay_inside():
    level = cosine_levels(5)[1]
    assert np.max(np.abs(clamp(gaussian(), 0.3)(10 * noise(50), level))) <= 0.3


def test_samplers_are_traced_once_and_follow_the_batch():
    """One program for all noise; samples of a batch do not know of each other, whatever its axes."""
    levels = cosine_levels(6)
    run = jax.jit(chex.assert_max_traces(lambda key, e: sample_ddpm(key, gaussian(), e, levels), n=1))
    for seed in range(3):
        run(jax.random.key(seed), noise(4, seed))
    e = noise(6).reshape(2, 3, 3)
    flat = sample_heun(gaussian(), e.reshape(6, 3), levels)
    np.testing.assert_allclose(sample_heun(gaussian(), e, levels).reshape(6, 3), flat, atol=1e-6)


def test_gradients_pass_through_samplers():
    """Distillation and refinement differentiate through them."""
    slope = jax.grad(lambda e: jnp.sum(sample_ddim(gaussian(), e, cosine_levels(5)) ** 2))(noise(3))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_levels_are_taken_like_arrays():
    levels = cosine_levels(9)
    assert len(levels) == 9 and isinstance(levels[3], Levels) and levels[jnp.array([1, 2])].t.shape == (2,)
