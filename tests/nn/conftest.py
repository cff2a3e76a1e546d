import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_cheaply():
    """These tests compile for longer than they run: XLA's expensive passes do not pay here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
