import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_cheaply(compiled_in_a_hurry):
    """Every module here compiles for longer than it runs."""
