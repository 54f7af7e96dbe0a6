"""The two layouts of a transformer's parameters, as pure functions of nested dicts.

Unstacked: {"block_0": {"qkv": {"kernel": [W, 3, W]}}, "block_1": ...}: what other libraries store.
Stacked:   {"blocks": {"qkv": {"kernel": [layers, W, 3, W]}}}: what `scan_layers` runs over.
Both functions walk the whole tree, so they take the parameters of any model that contains
transformers, and leave trees that have the wanted layout already as they are.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = re.compile(r"block_(\d+)")
Params = dict[str, Any]


def stack_layers(params: Params) -> Params:
    """Replaces {"block_0", "block_1", ...} by {"blocks"} with a leading layer axis, everywhere."""
    numbers = sorted(int(m[1]) for key in params if (m := _BLOCK.fullmatch(key)))
    rest = {k: v for k, v in params.items() if not _BLOCK.fullmatch(k)}
    rest = _map_groups(stack_layers, rest)
    if not numbers:
        return rest
    blocks = [params[f"block_{i}"] for i in numbers]
    return {**rest, "blocks": jax.tree.map(lambda *layers: jnp.stack(layers), *blocks)}


def unstack_layers(params: Params) -> Params:
    """The inverse of `stack_layers`."""
    rest = _map_groups(unstack_layers, {k: v for k, v in params.items() if k != "blocks"})
    if "blocks" not in params:
        return rest
    blocks = params["blocks"]
    layers = jax.tree.leaves(blocks)[0].shape[0]
    return {
        **rest,
        **{f"block_{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(layers)},
    }


def _map_groups(function: Callable[[Params], Params], params: Params) -> Params:
    return {k: function(v) if isinstance(v, dict) else v for k, v in params.items()}
