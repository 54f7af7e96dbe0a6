"""What this program sets up before JAX is imported: where compiled programs are kept, freed memory.

Both are defaults: what the environment says already is left alone, and both can be switched off.

  JAX_COMPILATION_CACHE_DIR=    (empty) keeps no compiled programs
  UNCLIP_KEEP_MEMORY=off        gives freed memory back to the system at once
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import stat
import sys
import zlib
from collections.abc import Mapping, MutableMapping

CACHE = "JAX_COMPILATION_CACHE_DIR"
# glibc's mallopt(3): one heap for all threads, which is never trimmed and holds the largest blocks.
_ARENA_MAX, _TRIM_THRESHOLD, _MMAP_MAX = -8, -1, -4
_KEEPING = {_ARENA_MAX: 1, _TRIM_THRESHOLD: -1, _MMAP_MAX: 0}


def prepare(environment: MutableMapping[str, str]) -> None:
    """Sets up both, for a program that computes on devices."""
    keep_compiled_programs(environment)
    if wants_freed_memory(environment):
        keep_freed_memory()


def keep_compiled_programs(environment: MutableMapping[str, str]) -> None:
    """Points JAX's persistent cache to a folder of the user's own.

    Programs in the cache are run, so nobody else may write there: a folder that others can enter is
    not used. Programs are made for the instructions of one kind of processor, which names a
    sub-folder, since home directories are shared between machines.
    """
    if CACHE in environment:
        return
    home = environment.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    folder = pathlib.Path(home) / "unclip_jax" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(stat.S_IRWXU)
        if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
            raise PermissionError(0, "others may write to it")
    except OSError as error:
        print(f"unclip: compiled programs are not kept in {folder}: {error.strerror}; "
              f"set {CACHE} to a folder of your own", file=sys.stderr)  # fmt: skip
        return
    environment[CACHE] = str(folder / _processor())


def _processor() -> str:
    """A name for what machine code this processor runs."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{zlib.crc32(flags.encode()):08x}"


def wants_freed_memory(environment: Mapping[str, str]) -> bool:
    """Whether JAX will compute on CPUs, and nobody has said otherwise or tuned malloc already."""
    if environment.get("UNCLIP_KEEP_MEMORY") == "off":
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    return environment.get("JAX_PLATFORMS", "").startswith("cpu") or not _has_accelerator_plugin()


def _has_accelerator_plugin() -> bool:
    """Whether something is installed that lets JAX compute on other devices than CPUs."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def keep_freed_memory() -> bool:
    """Has malloc keep what is freed for what is asked for next; returns whether it can.

    XLA on a CPU asks for its temporaries anew in every step, hundreds of megabytes that the kernel
    maps and clears 4 KiB at a time: up to a quarter of a step's time (docs/performance.md). The
    price is a larger process. Call it before JAX is imported: threads keep their first heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(*setting) for setting in _KEEPING.items())
