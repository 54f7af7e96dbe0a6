"""Reading weights that others wrote: safetensors in process, pickles in a process of their own.

A pickle is a program. PyTorch's `weights_only=True` (safe since 2.6) interprets it with an
allow-list; we run that in a child process that may not connect, start programs, write other files
or take more memory and time than the file warrants (`pickle_reader.py`). It hands back safetensors.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.flax import load_file  # unlike safetensors.numpy it knows bfloat16

from unclip_jax.errors import UserError

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".th")
MIN_SECONDS, BYTES_PER_SECOND = 60, 10**7  # of processor time for a pickle, generously
TIMEOUT_SECONDS = 3600
_READER = pathlib.Path(__file__).with_name("pickle_reader.py")


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file, or of a pickled one where torch is installed.

    Of a Lightning checkpoint the "state_dict" is taken; the elements of a tuple or list are called
    "0", "1" and so on. No code from the file runs.

    Raises:
      UserError: for other files, without a recent torch, or if a pickle holds more than tensors.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".safetensors", *PICKLES):
        raise UserError(
            f"{path} is no weights file: expected .safetensors, .pt, .pth, .bin, .ckpt or .th"
        )
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if path.suffix != ".safetensors":
        return _read_pickle(path)
    try:
        return {k: np.asarray(v) for k, v in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file, or it is cut short: {error}") from None


def read_folder_weights(folder: pathlib.Path, stems: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights in a component's folder: safetensors, whole or in parts, else a pickle.

    Args:
      stems: file names without suffix, in the order of preference.
    """
    stems = tuple(stems)
    for stem in stems:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            names = sorted(
                {pathlib.PurePath(n).name for n in read_json(index)["weight_map"].values()}
            )
            return {k: v for name in names for k, v in read_state_dict(folder / name).items()}
    for suffix in (".safetensors", *PICKLES):
        for stem in stems:
            if (folder / f"{stem}{suffix}").is_file():
                return read_state_dict(folder / f"{stem}{suffix}")
    raise UserError(f"{folder} holds no weights: expected {' or '.join(stems)}.safetensors or .bin")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object in a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object")
    return values


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        target = pathlib.Path(scratch) / "weights.safetensors"
        # -I: neither the current folder nor PYTHONPATH can put another torch before the real one.
        seconds = MIN_SECONDS + path.stat().st_size // BYTES_PER_SECOND
        command = [sys.executable, "-I", str(_READER)]
        command += [str(path.absolute()), str(target), str(seconds)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: reading it took more than an hour") from None
        if done.returncode or not target.is_file():
            raise UserError(
                f"{path} can't be read: {_why(done)}; save its state_dict as .safetensors where "
                "you trust it, and import that"
            )
        return read_state_dict(target)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """Why a reader failed, in one line."""
    if done.returncode == -signal.SIGXCPU:
        return "it takes more processor time than weights of its size need"
    if done.returncode < 0:
        return f"its reader was ended by {signal.Signals(-done.returncode).name}"
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
