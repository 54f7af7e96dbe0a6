"""Code to push: the files that git knows or would know, packed under the hash of their content.

The same content gives the same bytes (names sorted, no times, no owners), so hosts that have it
need no second copy. What should never leave the machine is refused, not left out in silence.
"""

import gzip
import hashlib
import io
import os
import pathlib
import subprocess
import tarfile

from unclip_jax.errors import UserError

from . import secrets
from .spec import Code

LARGEST_FILE = 10 << 20  # bytes
LARGEST_TOTAL = 100 << 20
_SECRET_FILES = ("id_rsa", "id_ed25519", "id_ecdsa", ".env", ".netrc", ".git-credentials")
_SECRET_SUFFIXES = (".pem", ".p12", ".pfx", ".key")
_LOCKS = ("setup.py", "pyproject.toml", "constraints.txt", "requirements.txt")


def pack(folder: pathlib.Path) -> tuple[Code, bytes]:
    """(what it is, the gzipped tar) of a git working tree.

    Raises:
      UserError: no git repository, or a file that is too large, a secret, or a link out of it.
    """
    folder = folder.resolve()
    names = _listed(folder)
    total = 0
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            content = _read(folder, name)
            total += len(content)
            if total > LARGEST_TOTAL:
                raise UserError(
                    f"the code in {folder} is larger than {LARGEST_TOTAL >> 20} MiB: "
                    "add what is no code to .gitignore"
                )
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if os.access(folder / name, os.X_OK) else 0o644
            tar.addfile(info, io.BytesIO(content))
    packed = gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    return Code(folder=str(folder), sha256=digest, files=len(names), size=len(packed)), packed


def lock_of(folder: pathlib.Path, *more: str) -> str:
    """A hash of what pins the environment: the lock files, and `more` that decides it."""
    digest = hashlib.sha256()
    for name in _LOCKS:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    digest.update("\n".join(more).encode())
    return digest.hexdigest()[:16]


def _listed(folder: pathlib.Path) -> list[str]:
    argv = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others"]
    try:
        ran = subprocess.run([*argv, "--exclude-standard"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            f"{folder} is no git repository, so what of it is code can't be told: give --code "
            "with the folder of one, or --code none if the hosts have it"
        ) from None
    names = {os.fsdecode(name) for name in ran.stdout.split(b"\0") if name}
    return sorted(name for name in names if (folder / name).is_file())


def _read(folder: pathlib.Path, name: str) -> bytes:
    path = folder / name
    if folder not in path.resolve().parents:
        raise UserError(f"{path} leads out of the pushed folder: remove it or add it to .gitignore")
    if path.name in _SECRET_FILES or path.suffix in _SECRET_SUFFIXES:
        raise UserError(f"{path} looks like a secret by its name: add it to .gitignore")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise UserError(
            f"{path} has {size >> 20} MiB, more than {LARGEST_FILE >> 20}: code is smaller; add it "
            "to .gitignore"
        )
    content = path.read_bytes()
    kind = secrets.find(content.decode("latin-1"))
    if kind:
        raise UserError(f"{path} holds what looks like {kind}: remove it before the code is pushed")
    return content
