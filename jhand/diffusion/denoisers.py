"""Denoisers `(x, levels) -> x0`: what a clean sample looks like, from one under noise. Samplers know only these.

A network predicts the data, the noise, a velocity or a residual: here it becomes a denoiser, and here are the targets
that it is trained on. Guidance and known parts are denoisers made of denoisers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jhand.diffusion.levels import Levels, across

Denoiser = Callable[[Array, Levels], Array]
"""`(x (*b, ...), levels (*b) or ()) -> x0 (*b, ...)`."""
Network = Callable[[Array, Array], Array]
"""`(x (*b, ...), t (*b) or ()) -> (*b, ...)`, where t is what levels say to networks."""


def denoiser_from_data(network: Network) -> Denoiser:
    """Of a network that predicts x0."""
    return lambda x, levels: network(x, levels.t)


def denoiser_from_noise(network: Network) -> Denoiser:
    """Of a network that predicts the noise."""

    def denoise(x: Array, levels: Levels) -> Array:
        return (x - across(levels.sigma, x) * network(x, levels.t)) / across(levels.alpha, x)

    return denoise


def velocity(x0: ArrayLike, noise: ArrayLike, levels: Levels) -> Float[Array, "*b"]:
    """The target v = alpha noise - sigma x0 of variance-preserving levels (Salimans & Ho, ICLR 2022).

    Args:
        x0: (*b, ...).
        noise: as x0.
        levels: (*b).
    """
    x, e = jnp.asarray(x0), jnp.asarray(noise)
    return across(levels.alpha, x) * e - across(levels.sigma, x) * x


def denoiser_from_velocity(network: Network) -> Denoiser:
    """Of a network that predicts `velocity`; levels are variance preserving."""

    def denoise(x: Array, levels: Levels) -> Array:
        return across(levels.alpha, x) * x - across(levels.sigma, x) * network(x, levels.t)

    return denoise


def denoiser_from_flow(network: Network) -> Denoiser:
    """Of a network that predicts noise - x0, the direction of a flow; levels are `flow_levels`."""
    return lambda x, levels: x - across(levels.sigma, x) * network(x, levels.t)


def denoiser_from_edm(network: Network, sigma_data: float = 0.5) -> Denoiser:
    """Of EDM's preconditioned network (Karras et al., NeurIPS 2022, eq. 7): it sees unit variance and predicts unit
    variance. Train it by the weighted error of this denoiser, `edm_weight`.

    Args:
        network: its t is log(sigma) / 4.
        sigma_data: standard deviation of the data.
    """

    def denoise(x: Array, levels: Levels) -> Array:
        s = across(levels.sigma, x)
        both = s**2 + sigma_data**2
        inside = network(x / jnp.sqrt(both), levels.t)
        return sigma_data**2 / both * x + s * sigma_data / jnp.sqrt(both) * inside

    return denoise


def edm_weight(levels: Levels, sigma_data: float = 0.5) -> Float[Array, "*b"]:
    """Of a squared error of x0, so that the network's own is even over levels (Karras et al., table 1).

    Args:
        levels: (*b).
        sigma_data: standard deviation of the data.
    """
    return (levels.sigma**2 + sigma_data**2) / (levels.sigma * sigma_data) ** 2


def clamp(denoiser: Denoiser, limit: float) -> Denoiser:
    """x0 stays between -limit and limit."""
    return lambda x, levels: jnp.clip(denoiser(x, levels), -limit, limit)


def guide(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans, 2022): 1 is the conditional denoiser, more goes beyond it."""

    def denoise(x: Array, levels: Levels) -> Array:
        free = unconditional(x, levels)
        return free + scale * (conditional(x, levels) - free)

    return denoise


def guide_by(denoiser: Denoiser, log_likelihood: Callable[[Array, Levels], Array]) -> Denoiser:
    """Guidance by what was measured: samples of the posterior, as far as the likelihood of a noisy sample is right.

    The score of x grows by the gradient of log p(y | x), which is that of the clean sample predicted from it (Chung et
    al., ICLR 2023); a likelihood that knows how unsure x0 is at a level makes this exact for Gaussians.

    Args:
        denoiser: of the prior.
        log_likelihood: `(x0 (*b, ...), levels) -> scalar`, the sum over samples.
    """

    def denoise(x: Array, levels: Levels) -> Array:
        def of(x: Array) -> tuple[Array, Array]:
            x0 = denoiser(x, levels)
            return log_likelihood(x0, levels), x0

        slope, x0 = jax.grad(of, has_aux=True)(x)
        return x0 + across(levels.sigma**2 / levels.alpha, x) * slope

    return denoise


def keep(denoiser: Denoiser, known: ArrayLike, mask: ArrayLike) -> Denoiser:
    """Known entries are what they are; a sampler then brings them through noise as it would the data.

    Args:
        denoiser: of the rest.
        known: as x.
        mask: as x, true where it is known.
    """
    return lambda x, levels: jnp.where(jnp.asarray(mask), jnp.asarray(known), denoiser(x, levels))
