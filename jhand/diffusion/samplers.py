"""Samplers: from noise, level by level, to samples, under one scan.

With x0 a denoiser's answer and noise = (x - alpha x0) / sigma, the probability flow is dx = x0 d(alpha) + noise
d(sigma) for any process: DDIM is its Euler step, EDM's and a flow's solvers are the same two steps on other levels.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from jhand.diffusion.denoisers import Denoiser, keep
from jhand.diffusion.levels import Levels


def sample_ddpm(key: Array, denoiser: Denoiser, noise: ArrayLike, levels: Levels, *, eta: float = 1.0) -> Array:
    """Ancestral sampling (Ho et al., NeurIPS 2020, algorithm 2, with the posterior's variance).

    Args:
        key: of the noise of steps.
        denoiser: of x0; see `jhand.diffusion.denoisers`.
        noise: standard normal, of the samples' shape.
        levels: (T,), from nearly clean to all noise.
        eta: share of the posterior's standard deviation (Song et al., ICLR 2021, eq. 16); 0 is `sample_ddim`.

    Returns:
        As noise.
    """

    def step(x: Array, each: tuple[Levels, Levels, Array]) -> tuple[Array, None]:
        now, after, key = each
        return _ancestral(key, x, denoiser(x, now), now, after, eta), None

    now, after = _steps(levels)
    return lax.scan(step, levels.sigma[-1] * jnp.asarray(noise), (now, after, jax.random.split(key, len(levels))))[0]


def sample_means(denoiser: Denoiser, noise: ArrayLike, levels: Levels) -> Array:
    """`sample_ddpm` whose steps add no noise: each goes to the posterior's mean, and the end is a likely answer rather
    than a sample.

    Args:
        denoiser: of x0.
        noise: standard normal, of the samples' shape.
        levels: (T,), from nearly clean to all noise.

    Returns:
        As noise.
    """

    def step(x: Array, each: tuple[Levels, Levels]) -> tuple[Array, None]:
        now, after = each
        return _posterior(x, denoiser(x, now), now, after, 1.0)[0], None

    return lax.scan(step, levels.sigma[-1] * jnp.asarray(noise), _steps(levels))[0]


def sample_ddim(denoiser: Denoiser, noise: ArrayLike, levels: Levels) -> Array:
    """The deterministic sampler of DDIM (Song et al., ICLR 2021, eq. 12), Euler's steps along the probability flow: of
    `flow_levels`, along the flow.

    Args:
        denoiser: of x0.
        noise: standard normal, of the samples' shape.
        levels: (T,), from nearly clean to all noise; `evenly` takes some of many.

    Returns:
        As noise.
    """

    def step(x: Array, each: tuple[Levels, Levels]) -> tuple[Array, None]:
        now, after = each
        x0 = denoiser(x, now)
        return after.alpha * x0 + after.sigma * _noise(x, x0, now), None

    return lax.scan(step, levels.sigma[-1] * jnp.asarray(noise), _steps(levels))[0]


def sample_heun(denoiser: Denoiser, noise: ArrayLike, levels: Levels) -> Array:
    """Heun's steps along the probability flow, two denoisings each: of `karras_levels`, EDM's sampler (Karras et al.,
    NeurIPS 2022, algorithm 1).

    Args:
        denoiser: of x0.
        noise: standard normal, of the samples' shape.
        levels: (T,), from nearly clean to all noise.

    Returns:
        As noise.
    """

    def step(x: Array, each: tuple[Levels, Levels]) -> tuple[Array, None]:
        return _heun(denoiser, x, *each), None

    return _last(denoiser, *_scanned(step, levels.sigma[-1] * jnp.asarray(noise), levels))


def sample_edm(
    key: Array,
    denoiser: Denoiser,
    noise: ArrayLike,
    levels: Levels,
    *,
    churn: float = 40.0,
    between: tuple[float, float] = (0.05, 50.0),
    inflate: float = 1.003,
) -> Array:
    """EDM's stochastic sampler (Karras et al., algorithm 2): each step first adds some noise, which forgets errors.

    Args:
        key: of the noise that is added.
        denoiser: of x0; it reads sigma or log(sigma) / 4.
        noise: standard normal, of the samples' shape.
        levels: (T,) of EDM, alpha 1.
        churn: how much is added, all steps together.
        between: noise levels at which it is.
        inflate: standard deviation of what is added.

    Returns:
        As noise.
    """
    most = min(churn / len(levels), 2**0.5 - 1)

    def step(x: Array, each: tuple[Levels, Levels, Array]) -> tuple[Array, None]:
        now, after, key = each
        gamma = jnp.where((now.sigma >= between[0]) & (now.sigma <= between[1]), most, 0.0)
        sigma = (1 + gamma) * now.sigma
        added = inflate * now.sigma * jnp.sqrt(gamma * (gamma + 2))
        raised = Levels(now.alpha, sigma, jnp.log(sigma) / 4)
        return _heun(denoiser, x + added * jax.random.normal(key, x.shape, x.dtype), raised, after), None

    keys = jax.random.split(key, len(levels) - 1)
    return _last(denoiser, *_scanned(step, levels.sigma[-1] * jnp.asarray(noise), levels, keys))


def sample_repaint(
    key: Array,
    denoiser: Denoiser,
    noise: ArrayLike,
    levels: Levels,
    known: ArrayLike,
    mask: ArrayLike,
    *,
    repeats: int = 10,
) -> Array:
    """Inpainting: the rest of samples of which a part is known (Lugmayr et al., CVPR 2022, algorithm 1).

    Each step is taken several times, with noise put back between, so that the rest learns of the known part; once,
    which is `sample_ddpm` of `keep`, leaves the rest too far from it.

    Args:
        key: of the noise of steps.
        denoiser: of x0.
        noise: standard normal, of the samples' shape.
        levels: (T,), from nearly clean to all noise.
        known: of the samples' shape.
        mask: of it, true where it is known.
        repeats: of each step, 1 or more.

    Returns:
        As noise; what is known is exact.
    """
    held = keep(denoiser, known, mask)

    def step(x: Array, each: tuple[Levels, Levels, Array]) -> tuple[Array, None]:
        now, after, key = each

        def again(x: Array, key: Array) -> tuple[Array, None]:
            down, up = jax.random.split(key)
            x = _ancestral(down, x, held(x, now), now, after, 1.0)
            ratio = now.alpha / after.alpha
            fresh = jnp.sqrt(jnp.maximum(now.sigma**2 - (ratio * after.sigma) ** 2, 0))
            return ratio * x + fresh * jax.random.normal(up, x.shape, x.dtype), None

        last, *rest = jax.random.split(key, repeats)
        if rest:
            x, _ = lax.scan(again, x, jnp.stack(rest))
        return _ancestral(last, x, held(x, now), now, after, 1.0), None

    now, after = _steps(levels)
    keys = jax.random.split(key, len(levels))
    return lax.scan(step, levels.sigma[-1] * jnp.asarray(noise), (now, after, keys))[0]


def _ancestral(key: Array, x: Array, x0: Array, now: Levels, after: Levels, eta: float) -> Float[Array, "*b"]:
    """A draw from q(x_after | x_now, x0), its spread times eta."""
    mean, spread = _posterior(x, x0, now, after, eta)
    return mean + spread * jax.random.normal(key, x.shape, x.dtype)


def _posterior(x: Array, x0: Array, now: Levels, after: Levels, eta: float) -> tuple[Array, Array]:
    """Mean and spread of it."""
    ratio = now.alpha / after.alpha
    gone = jnp.maximum(1 - (ratio * after.sigma / now.sigma) ** 2, 0.0)
    spread = eta * after.sigma * jnp.sqrt(gone)
    along = jnp.sqrt(jnp.maximum(after.sigma**2 - spread**2, 0.0))
    return after.alpha * x0 + along * _noise(x, x0, now), spread


def _noise(x: Array, x0: Array, levels: Levels) -> Array:
    return (x - levels.alpha * x0) / levels.sigma


def _heun(denoiser: Denoiser, x: Array, now: Levels, after: Levels) -> Array:
    alpha, sigma = after.alpha - now.alpha, after.sigma - now.sigma
    x0 = denoiser(x, now)
    noise = _noise(x, x0, now)
    there = x + alpha * x0 + sigma * noise
    x0_there = denoiser(there, after)
    noise_there = _noise(there, x0_there, after)
    return x + alpha * (x0 + x0_there) / 2 + sigma * (noise + noise_there) / 2


def _steps(levels: Levels) -> tuple[Levels, Levels]:
    """Levels from the last to the first, and where each step ends; the last one ends without noise."""
    now = levels[::-1]
    return now, Levels(*(jnp.append(x[1:], end) for x, end in ((now.alpha, 1.0), (now.sigma, 0.0), (now.t, 0.0))))


def _scanned(step, x: Array, levels: Levels, *more: Array) -> tuple[Array, Levels]:
    """All steps but the last one, which ends where there is no noise to divide by."""
    now = levels[::-1]
    return lax.scan(step, x, (now[:-1], now[1:], *more))[0], levels[0]


def _last(denoiser: Denoiser, x: Array, first: Levels) -> Array:
    """From the smallest noise to none, one Euler step."""
    return denoiser(x, first)
