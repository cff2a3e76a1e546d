"""Levels of noise: x = alpha x0 + sigma noise, whatever the process.

A process is a row of levels from nearly clean to all noise: variance preserving (DDPM), variance exploding (EDM), or
straight lines (flow matching). Samplers and losses know nothing else of it.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Levels:
    """One or many levels of noise.

    Attributes:
        alpha: share of the signal, (...).
        sigma: standard deviation of the noise, (...).
        t: what a network is told of the level, (...).
    """

    alpha: Float[Array, "*b"]
    sigma: Float[Array, "*b"]
    t: Float[Array, "*b"]

    def __len__(self) -> int:
        return self.t.shape[0]

    def __getitem__(self, index: ArrayLike | slice) -> "Levels":
        return jax.tree.map(lambda leaf: leaf[index], self)


def cosine_levels(steps: int, *, offset: float = 0.008, largest: float = 0.999) -> Levels:
    """DDPM's levels, t = 0 to steps - 1: alpha^2 falls as a squared cosine (Nichol & Dhariwal, ICML 2021, eq. 17).

    Args:
        steps: how many.
        offset: keeps the first steps from being too small.
        largest: a step takes no more than this share of the variance.
    """
    t = jnp.arange(steps + 1) / steps
    bar = jnp.cos((t + offset) / (1 + offset) * jnp.pi / 2) ** 2
    return variance_preserving_levels(jnp.minimum(1 - bar[1:] / bar[:-1], largest))


def linear_levels(steps: int, *, first: float = 1e-4, last: float = 0.02) -> Levels:
    """DDPM's levels as first published (Ho et al., NeurIPS 2020): a step's share of the variance grows linearly.

    Args:
        steps: how many; `first` and `last` belong to 1000 and are scaled to these.
        first: share of the first step.
        last: share of the last one.
    """
    scale = 1000 / steps
    return variance_preserving_levels(jnp.clip(jnp.linspace(scale * first, scale * last, steps), 0, 0.999))


def variance_preserving_levels(betas: ArrayLike) -> Levels:
    """Levels of alpha^2 + sigma^2 = 1 from each step's share of the variance.

    Args:
        betas: (T,) from 0 to 1.
    """
    log_bar = jnp.cumsum(jnp.log1p(-jnp.asarray(betas, jnp.float32)))
    t = jnp.arange(log_bar.shape[0], dtype=jnp.float32)
    return Levels(jnp.exp(log_bar / 2), jnp.sqrt(-jnp.expm1(log_bar)), t)


def karras_levels(steps: int, *, smallest: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> Levels:
    """EDM's levels: the signal whole, noise dense where it is small (Karras et al., NeurIPS 2022, eq. 5).

    Args:
        steps: how many.
        smallest: noise of the first level.
        largest: noise of the last one.
        rho: how much denser; 1 spaces evenly.
    """
    share = jnp.linspace(0.0, 1.0, steps)
    return edm_levels((smallest ** (1 / rho) + share * (largest ** (1 / rho) - smallest ** (1 / rho))) ** rho)


def edm_levels(sigma: ArrayLike) -> Levels:
    """Levels of a whole signal under noise; a network is told log(sigma) / 4.

    Args:
        sigma: (...) above 0.
    """
    s = jnp.asarray(sigma, jnp.float32)
    return Levels(jnp.ones_like(s), s, jnp.log(s) / 4)


def flow_levels(t: ArrayLike) -> Levels:
    """Levels on straight lines from data at t = 0 to noise at t = 1 (Lipman et al., ICLR 2023).

    Args:
        t: (...) from 0 to 1.
    """
    x = jnp.asarray(t, jnp.float32)
    return Levels(1 - x, x, x)


def evenly(levels: Levels, steps: int) -> Levels:
    """Every so many of levels, the last always among them; a network is told what it was told of all.

    Args:
        levels: (T,).
        steps: how many remain.

    Raises:
        ValueError: there are not as many.
    """
    if not 1 <= steps <= len(levels):
        raise ValueError(f"steps: expected 1 to {len(levels)}, the number of levels, got {steps}")
    spaced = [math.ceil((k + 1) * len(levels) / steps) - 1 for k in range(steps)]
    return levels[jnp.array(spaced)]


def draw_levels(key: Array, levels: Levels, shape: tuple[int, ...]) -> Levels:
    """Levels to train with, all equally often.

    Args:
        key: of the draw.
        levels: (T,).
        shape: of the levels.
    """
    return levels[jax.random.randint(key, shape, 0, len(levels))]


def draw_edm_levels(key: Array, shape: tuple[int, ...], *, mean: float = -1.2, sd: float = 1.2) -> Levels:
    """Levels to train EDM with: the logarithm of the noise is normal (Karras et al., table 1).

    Args:
        key: of the draw.
        shape: of the levels.
        mean: of log(sigma).
        sd: of log(sigma).
    """
    return edm_levels(jnp.exp(mean + sd * jax.random.normal(key, shape)))


def draw_flow_levels(key: Array, shape: tuple[int, ...]) -> Levels:
    """Levels to train a flow with, even in time.

    Args:
        key: of the draw.
        shape: of the levels.
    """
    return flow_levels(jax.random.uniform(key, shape))


def across(of_level: Array, x: Array) -> Array:
    """A number of each level (*b) so that it multiplies x (*b, ...)."""
    return of_level.reshape(*of_level.shape, *(1,) * (x.ndim - of_level.ndim))


def diffuse(x0: ArrayLike, noise: ArrayLike, levels: Levels) -> Float[Array, "*b"]:
    """Data under noise: alpha x0 + sigma noise.

    Args:
        x0: (*b, ...).
        noise: as x0, standard normal.
        levels: (*b), one for each.
    """
    x, e = jnp.asarray(x0), jnp.asarray(noise)
    return across(levels.alpha, x) * x + across(levels.sigma, x) * e
