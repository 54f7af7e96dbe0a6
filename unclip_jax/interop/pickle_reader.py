"""A program of its own: python -I pickle_reader.py WEIGHTS TARGET.safetensors SECONDS

Reads a pickled state dict with torch's `weights_only=True` and writes its tensors as safetensors,
after giving up what reading weights does not need:

* an audit hook, which Python code can't remove, refuses sockets, new processes, loading libraries
  and writing any file but the target;
* where the kernel allows it, a network namespace without a network;
* limits on memory, file size and core dumps, in proportion to the file, and on processor time.

It imports nothing of unclip_jax. The last line on stderr says what is wrong.
"""

import contextlib
import ctypes
import math
import os
import resource
import sys
import time
from typing import Any

OLDEST_TORCH = (2, 6)  # CVE-2025-32434: weights_only could be evaded before
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # unshare(2)
GIB = 2**30
FORBIDDEN = (
    *("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.kill"),
    *("ctypes.dlopen", "ctypes.dlsym", "shutil.", "ftplib.", "http.", "urllib.", "smtplib."),
)


def restrict(target: str, file_bytes: int, seconds: int) -> None:
    """Gives up, for good, what is listed in the module's docstring.

    Args:
      seconds: of processor time from now on; SIGXCPU ends the process then.
    """
    _leave_network()
    for limit, value in (
        (resource.RLIMIT_AS, 16 * GIB + 6 * file_bytes),
        (resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds),
        (resource.RLIMIT_FSIZE, GIB // 4 + 4 * file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        hard = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        # Of processor time the hard limit, which kills without a word, is a second later.
        later = value + (limit == resource.RLIMIT_CPU)
        resource.setrlimit(limit, (min(value, hard), min(later, hard)))
    sys.addaudithook(lambda event, arguments: _audit(event, arguments, target))


def _leave_network() -> None:
    # Not every kernel lets an ordinary user do this; the audit hook forbids sockets anyway.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_NETWORK)


def _audit(event: str, arguments: Any, target: str) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"the file tried {event}, which weights have no need of")
    if event == "open":
        name, mode, flags = arguments
        writes = (mode and any(c in mode for c in "wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        # safetensors writes beside the target and renames, from Rust, which raises no event.
        if writes and name not in (target, os.devnull):
            raise PermissionError(f"the file tried to write {name!r}")


def tensors_of(found: Any) -> dict[str, Any]:
    """The tensors of a state dict, of a Lightning checkpoint, or of a tuple or list."""
    import torch

    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if isinstance(found, tuple | list):
        found = {str(i): value for i, value in enumerate(found)}
    if not isinstance(found, dict):
        raise TypeError(f"it holds a {type(found).__name__}, not tensors by name")
    # Copies: tied weights share memory, which safetensors refuses to write.
    return {
        str(name): value.detach().contiguous().clone()
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    }


def main(source: str, target: str, seconds: str) -> int:
    """Converts; exit code 1 with one line on stderr if it can't be done."""
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError:
        return _fail("reading pickles needs torch >= 2.6, which is not installed here")
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        return _fail(f"torch {torch.__version__} cannot read pickles safely: install 2.6 or newer")
    torch.set_num_threads(1)
    restrict(target, os.path.getsize(source), int(seconds))
    try:
        tensors = tensors_of(torch.load(source, map_location="cpu", weights_only=True))
        if not tensors:
            return _fail("it holds no tensors")
        save_file(tensors, target)
    except Exception as error:  # whatever a hostile file provokes, the caller gets one line
        first = (str(error).splitlines() or [""])[0]
        return _fail(f"it holds more than weights, or is damaged ({type(error).__name__}: {first})")
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
