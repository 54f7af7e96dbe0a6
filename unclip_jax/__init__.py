"""unclip_jax: train, evaluate, sample and export unCLIP (DALL·E 2) systems in JAX.

    import unclip_jax

    pipeline = unclip_jax.load("bundle")
    pictures = pipeline(["a red heart"], images_per_prompt=4, seed=0).images

Importing the package is fast: JAX and the networks are imported when they are first used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from unclip_jax.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from unclip_jax.generation import Cascade, Generated, Pipeline, TrainedStage, compose
    from unclip_jax.interop import Bundle, read_bundle, write_bundle

__version__ = "0.1.0"

_LAZY = {
    "Bundle": "interop",
    "Cascade": "generation",
    "Generated": "generation",
    "Pipeline": "generation",
    "TrainedStage": "generation",
    "compose": "generation",
    "read_bundle": "interop",
    "write_bundle": "interop",
}

__all__ = [
    "Bundle",
    "Cascade",
    "Generated",
    "Pipeline",
    "TrainedStage",
    "UserError",
    "__version__",
    "compose",
    "load",
    "read_bundle",
    "write_bundle",
]


def load(path: str | os.PathLike[str], mesh: "Mesh | None" = None) -> "Pipeline":
    """The pipeline of a bundle, on this process's devices or on those of `mesh`.

    Raises:
      UserError: no bundle there, or a file of it is missing or altered.
    """
    from unclip_jax.generation import Pipeline
    from unclip_jax.interop import read_bundle

    return Pipeline(read_bundle(path).cascade, mesh)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"unclip_jax.{_LAZY[name]}"), name)
