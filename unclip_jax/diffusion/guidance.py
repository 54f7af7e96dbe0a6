"""Classifier-free guidance: extrapolate from a weaker condition towards the wanted one.

    guided = uncond + s (cond - uncond)                         s = 1: none, and exactly `cond`

(Ho & Salimans 2022, with s = 1 + w of that paper.) It is applied to the prediction as the network
makes it; x_0, epsilon and v are affine in each other with the same x_t, so the choice does not
matter for the sum above. The unconditional side may be anything the caller builds: an encoding of
"" or of a negative prompt, a learned null.

With an intermediate condition, say the image embedding without the text, each part has its scale
(Brooks et al. 2023, InstructPix2Pix, eq. 3):

    guided = uncond + s_i (intermediate - uncond) + s (cond - intermediate)

Options: `interval`, guide only at timesteps low <= t <= high (Kynkäänniemi et al. 2024); `rescale`,
pull the standard deviation of each example back towards that of `cond` (Lin et al. 2024, section
3.4). A learned variance is always the conditional one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unclip_jax.diffusion.process import per_example
from unclip_jax.errors import UserError

Conditioning = Any
"""Whatever the network takes: a pytree of arrays with the batch leading."""
Network = Callable[[Array, Array, Conditioning], Array]
"""(x_t [B, ...], t int32 [B], conditioning) -> raw output [B, ...]."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "cond",
        "uncond",
        "guidance_scale",
        "intermediate",
        "intermediate_scale",
        "interval",
        "rescale",
    ],
    meta_fields=[],
)
@dataclass(frozen=True)
class Guidance:
    """A pytree, so that it can be an argument of a jitted function; every number may be traced.

    Attributes:
      cond, uncond, intermediate: conditionings of one structure; intermediate is optional.
      guidance_scale, intermediate_scale: a number, or one per example [B].
      interval: (low, high), original timesteps, both included; None: always.
      rescale: 0..1, how far to restore the standard deviation; None: not at all.
    """

    cond: Conditioning
    uncond: Conditioning
    guidance_scale: Any
    intermediate: Conditioning = None
    intermediate_scale: Any = None
    interval: tuple[Any, Any] | None = None
    rescale: Any = None


def guided_output(
    network: Network, x_t: Float[Array, "b *data"], t: Int[Array, " b"], guidance: Guidance
) -> Float[Array, "b *out"]:
    """The network's output under guidance, from one call with 2 (or 3) passes per example.

    Channels beyond the data's (a learned variance) are those of the conditional pass.
    """
    chain = [guidance.cond, guidance.uncond]
    if guidance.intermediate is not None:
        if guidance.intermediate_scale is None:
            raise UserError("guidance by an intermediate condition needs an intermediate_scale")
        chain.insert(1, guidance.intermediate)
    outputs = _batched_call(network, x_t, t, chain)
    channels = x_t.shape[-1]
    cond = outputs[0][..., :channels]
    scales = [guidance.guidance_scale, guidance.intermediate_scale]
    guided = cond
    # From the full condition downwards, so that scales of 1 leave `cond` as it is, bit for bit.
    for stronger, weaker, scale in zip(outputs, outputs[1:], scales, strict=False):
        extra = per_example(_extra_scale(scale, t, guidance.interval), x_t)
        guided = guided + extra * (stronger - weaker)[..., :channels]
    if guidance.rescale is not None:
        guided = _match_std(guided, cond, guidance.rescale)
    return jnp.concatenate([guided, outputs[0][..., channels:]], axis=-1)


def _batched_call(
    network: Network, x_t: Array, t: Array, conditionings: list[Conditioning]
) -> list[Array]:
    """Outputs under each conditioning. The passes of an example are neighbours in the batch:
    a batch sharded over devices then stays where it is."""
    structures = {jax.tree.structure(c) for c in conditionings}
    if len(structures) > 1:
        raise UserError(
            "the conditionings of guidance differ in structure (a field that one has and another "
            f"has not): {' / '.join(map(str, structures))}"
        )
    passes = len(conditionings)

    def interleave(*arrays: Array) -> Array:
        return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])

    output = network(
        interleave(*[x_t] * passes),
        interleave(*[t] * passes),
        jax.tree.map(interleave, *conditionings),
    ).astype(jnp.float32)
    output = output.reshape(-1, passes, *output.shape[1:])
    return [output[:, i] for i in range(passes)]


def _extra_scale(scale: Any, t: Int[Array, " b"], interval: tuple[Any, Any] | None) -> Array:
    extra = jnp.broadcast_to(jnp.asarray(scale, jnp.float32) - 1, t.shape)
    if interval is None:
        return extra
    low, high = interval
    return jnp.where((low <= t) & (t <= high), extra, 0.0)


def _match_std(guided: Array, cond: Array, rescale: Any) -> Array:
    def std(x: Array) -> Array:
        return x.reshape(x.shape[0], math.prod(x.shape[1:])).std(axis=1)

    # A network that starts from zero outputs has no deviation to restore.
    ratio = std(cond) / jnp.maximum(std(guided), 1e-12)
    return guided * per_example(1 + rescale * (ratio - 1), guided)
