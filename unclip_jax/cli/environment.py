"""What this program is told before JAX is imported: where compiled programs are kept, huge pages.

Both are defaults: what the environment says already is left alone, and both can be switched off.

  JAX_COMPILATION_CACHE_DIR=    (empty) keeps no compiled programs
  UNCLIP_HUGE_PAGES=off         leaves the pages of large arrays at 4 KiB
"""

import os
import pathlib
import platform
import stat
import sys
import zlib
from collections.abc import MutableMapping

CACHE = "JAX_COMPILATION_CACHE_DIR"
TUNABLES = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb"
_THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def prepare(environment: MutableMapping[str, str]) -> None:
    """Sets both in the environment; the second restarts this program, under the same process id."""
    keep_compiled_programs(environment)
    if wants_huge_pages(environment):
        others = environment.get(TUNABLES)
        environment[TUNABLES] = f"{others}:{_HUGE_PAGES}=1" if others else f"{_HUGE_PAGES}=1"
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(environment))


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


def wants_huge_pages(environment: MutableMapping[str, str]) -> bool:
    """Whether large arrays are in small pages, and glibc and the kernel can change that.

    XLA on a CPU asks for its temporaries anew in every step, hundreds of megabytes that the kernel
    hands out 4 KiB at a time: a sixth of the time of a transformer's step (docs/performance.md).
    """
    if environment.get("UNCLIP_HUGE_PAGES") == "off":
        return False
    if _HUGE_PAGES in environment.get(TUNABLES, ""):
        return False
    library, version = platform.libc_ver()
    modern = library == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    return modern and _THP.exists() and "[madvise]" in _THP.read_text()
