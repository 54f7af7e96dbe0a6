"""Sweeps of toy trials."""

import pathlib
import sys

import pytest
from slurm_lab import cluster as cluster

from unclip_jax.config.sweeps import Objective, Sweep

TOY = pathlib.Path(__file__).with_name("toy_trial.py")


@pytest.fixture(scope="session")
def toy():
    """Makes a sweep of toy trials: `toy(trials=…)` or `toy(space=…)`."""

    def make(**changes):
        return Sweep(
            command=(sys.executable, str(TOY), "{out}"),
            option=("{name}={value}",),
            objective=Objective(name="loss"),
            **changes,
        )

    return make


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a sweep file of toy trials; the argument is the source of the further fields."""

    def write(fields):
        path = tmp_path / "toy_sweep.py"
        path.write_text(
            "from unclip_jax.config.sweeps import *\n\n\n"
            "def get_sweep(variant=''):\n"
            f"    return Sweep(command=({sys.executable!r}, {str(TOY)!r}, '{{out}}'),\n"
            "        option=('{name}={value}',), objective=Objective(name='loss'),\n"
            f"        {fields})\n"
        )
        return path

    return write
