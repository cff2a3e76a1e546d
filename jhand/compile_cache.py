"""A persistent cache of compiled functions: the second run of a program starts without compiling again."""

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax


def enable_compile_cache(path: str | os.PathLike | None = None) -> Path:
    """Keep what jax compiles on disk, for this process and later ones. Call it before the first computation.

    Entries are native code: the default folder is named by the version of jax and the kind of processor, so that
    machines which share a home folder do not run each other's. Deleting it is always safe.

    Args:
        path: folder of the cache; by default one in the user's cache folder (`XDG_CACHE_HOME`, or what the system has).

    Returns:
        The folder.

    Raises:
        OSError: a folder that cannot be made.
    """
    folder = _user_cache() / "jhand" / f"jax-{jax.__version__}-{_processor()}" if path is None else Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _user_cache() -> Path:
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _processor() -> str:
    """A short name for the processor and its instruction sets."""
    parts = [platform.machine(), platform.processor()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        first = {line.split(":")[0].strip(): line for line in reversed(lines) if ":" in line}
        parts += [first.get("model name", ""), first.get("flags", ""), first.get("Features", "")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
