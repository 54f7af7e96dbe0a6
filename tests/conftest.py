"""Strict settings for every test: 8 virtual CPU devices, no silent rank promotion, no key reuse.

Tests compile more than they run, so machine code is made without optimising it, in a third of the
time. Commands that tests start as processes of their own have settings of their own.
"""

import importlib.metadata
import io
import os
import tarfile

from packaging.version import Version

# XLA ends the process at a flag that it doesn't know, as it does at the last from jaxlib 0.11.1 on.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false"
        if Version(importlib.metadata.version("jaxlib")) < Version("0.11.1")
        else "",
    ]
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["claims"]

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder with two training shards and one validation shard of captioned 16 px pictures.

    40 training examples: a coloured square on white, with its colour as caption.
    """
    folder = tmp_path_factory.mktemp("shards")
    colours = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220)}
    generator = np.random.default_rng(0)
    for name, count in (("train-00000", 24), ("train-00001", 16), ("val-00000", 10)):
        with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(count):
                colour = list(colours)[i % 3]
                picture = np.full((16, 16, 3), 255, np.uint8)
                top, left = generator.integers(0, 8, 2)
                picture[top : top + 8, left : left + 8] = colours[colour]
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, "PNG")
                members = {"png": buffer.getvalue(), "txt": f"a {colour} square".encode()}
                for field, content in members.items():
                    info = tarfile.TarInfo(f"{i:06d}.{field}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder
