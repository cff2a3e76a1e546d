"""What every test shares. Runs before jax is imported: the environment below decides what jax starts with."""

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Tests mean the CPU, whatever the machine has; one thread each, so that two workers do not fight over two cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]).strip()
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Most of the time of the tests is XLA's, and half of that its emitter of fused loops, which the older one does in a
# fifth. A jaxlib that does not know the flag any more would end the process; workers inherit the answer.
_OLDER_EMITTER = "--xla_cpu_use_fusion_emitters=false"
if "xla_cpu_use_fusion_emitters" not in os.environ["XLA_FLAGS"]:
    _flags = f"{os.environ['XLA_FLAGS']} {_OLDER_EMITTER}"
    _start = [sys.executable, "-c", "import jax; jax.devices()"]
    if not subprocess.run(_start, check=False, capture_output=True, env={**os.environ, "XLA_FLAGS": _flags}).returncode:
        os.environ["XLA_FLAGS"] = _flags

# What one process compiles, no other compiles again: workers and the programs that tests start share a cache, which
# begins empty and goes with the run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="jhand-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis
import pytest

# No deadline: the first example of a property compiles. The same examples every time: a failure is a change.
hypothesis.settings.register_profile("jhand", deadline=None, derandomize=True, max_examples=30, database=None)
hypothesis.settings.load_profile("jhand")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Every compiled program holds memory maps, of which Linux gives a process 65530; then XLA aborts."""
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and len(maps.read_bytes().splitlines()) > 25_000:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compiled_in_a_hurry():
    """For large programs that run once or twice: most of their time is XLA's, which here optimises little."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """`shared_data("leap/leap_recordings.npz")` is the path of that recording; the test skips where it is missing."""
    folder = Path(os.environ.get("JHAND_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in {folder} (set JHAND_DATA to the folder of recordings)")
        return path

    return find


@pytest.fixture(scope="session")
def hands():
    """The built-in hands by side."""
    import jhand

    return {side: jhand.load_hand(side=side) for side in ("right", "left")}


@pytest.fixture(scope="session")
def right(hands):
    return hands["right"]


@pytest.fixture(scope="session")
def left(hands):
    return hands["left"]
