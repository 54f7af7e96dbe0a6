"""Low-rank adapters: a stage is fine-tuned by training two thin matrices beside each chosen kernel.

    W' = W + (alpha / rank) A B        A [.., in, rank], B [rank, out]

W is frozen and A B starts at zero (B does), so training starts from the base's network. For a
convolution [h, w, in, out] A has the kernel's window and B mixes channels; q, k and v in one array
[in, 3, out] share A; layers stacked for a scan have their own A and B each. `adapt` turns a stage
into one whose parameters are the adapters alone: optimiser, averages and checkpoints are as small
as they. `merge` gives a network of the base's form, which is what is exported.

Source: Hu et al. 2021 (arXiv 2106.09685).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unclip_jax.config.schema import Lora
from unclip_jax.core import rng, trees
from unclip_jax.errors import UserError
from unclip_jax.stages.stage import Params, Stage

BASE = "base"
"""Under this name the adapted stage finds the base's parameters among `frozen`."""


def adapt(stage: Stage, config: Lora, base: Params) -> Stage:
    """The stage whose parameters are adapters of `base` (parameters, or their shapes).

    Raises:
      UserError: if no kernel is chosen.
    """
    shapes = target_shapes(config, base)

    def init(key: Key[Array, ""]) -> Params:
        return _init(config, shapes, key)

    def merged(function: Callable[..., Any] | None) -> Any:
        if function is None:
            return None
        return lambda params, frozen, batch, keys: function(
            merge(config, frozen[BASE], params), frozen, batch, keys
        )

    return dataclasses.replace(
        stage,
        init=init,
        loss=merged(stage.loss),
        preview=merged(stage.preview),
        task=merged(stage.task),
        constrain=None,  # what is constrained are vectors, and those stay as they are
    )


def merge(config: Lora, base: Params, adapters: Params) -> dict[str, Any]:
    """The base's parameters with the adapters added."""
    flat, low_rank = trees.flatten(base), trees.flatten(adapters)
    for path in (p.removesuffix("/a") for p in low_rank if p.endswith("/a")):
        kernel, a, b = flat[f"{path}/kernel"], low_rank[f"{path}/a"], low_rank[f"{path}/b"]
        delta = jnp.matmul(a, b.reshape(*(1,) * (a.ndim - b.ndim), *b.shape))
        flat[f"{path}/kernel"] = kernel + scale(config) * delta.reshape(kernel.shape)
    return trees.unflatten(flat)


def scale(config: Lora) -> float:
    """What A B is multiplied by."""
    return 1.0 if config.alpha is None else config.alpha / config.rank


def target_shapes(config: Lora, base: Params) -> dict[str, tuple[int, ...]]:
    """{path of a layer: shape of its kernel} of the layers that are adapted."""
    kernels = {p: x.shape for p, x in trees.flatten(base).items() if p.endswith("/kernel")}
    chosen = {
        path.removesuffix("/kernel"): shape
        for path, shape in kernels.items()
        if any(word in path for word in config.targets)
    }
    if not chosen:
        layers = sorted({path.split("/")[-2] for path in kernels})
        raise UserError(
            f"config.lora.targets={','.join(config.targets)} names no layer of this network; its "
            f"kernels are in layers called {', '.join(layers)}"
        )
    return chosen


def _init(config: Lora, shapes: Mapping[str, tuple[int, ...]], key: Key[Array, ""]) -> Params:
    """A is normal with variance 1 / fan-in, B is zero."""
    flat = {}
    for path, shape in shapes.items():
        stacked = "blocks" in path.split("/")
        first_output = len(shape) - (2 if path.endswith("qkv") else 1)
        layers, inputs = shape[: int(stacked)], shape[int(stacked) : first_output]
        noise = jax.random.normal(rng.fold_in_name(key, path), (*layers, *inputs, config.rank))
        flat[f"{path}/a"] = noise * math.prod(inputs) ** -0.5
        flat[f"{path}/b"] = jnp.zeros((*layers, config.rank, math.prod(shape[first_output:])))
    return trees.unflatten(flat)
