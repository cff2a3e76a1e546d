import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compiled_in_a_hurry():
    """Clips are large programs, run once or twice: most of their time is XLA's, which here optimises little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
