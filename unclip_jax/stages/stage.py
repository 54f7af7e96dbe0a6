"""What can be trained, as a value: a model, its objective and the batch fields that it needs.

    loss(params, frozen, batch, keys) -> ([B], diagnostics)

`frozen` are arrays that the objective reads and nobody trains (CLIP's weights, statistics of the
embeddings); they are an argument, never constants of the compiled program. `keys` has one random
key per example. Losses stay per example so that whoever reduces them can mask and accumulate
exactly; a diagnostic is a pair (values [B], weights [B]) whose weighted mean is reported.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Float, Key

from unclip_jax.config.needs import BatchNeeds

Params = Mapping[str, Any]
Batch = Mapping[str, Array]
Diagnostics = dict[str, tuple[Float[Array, " b"], Float[Array, " b"]]]
Loss = Callable[[Params, Params, Batch, Key[Array, " b"]], tuple[Float[Array, " b"], Diagnostics]]
Init = Callable[[Key[Array, ""]], Params]
Prepare = Callable[[Batch, Key[Array, " b"]], Batch]
Constrain = Callable[[Params], Params]
Preview = Callable[[Params, Params, Batch, Key[Array, " b"]], dict[str, Array]]
Task = Callable[
    [Params, Params, Batch, Key[Array, " b"]],
    tuple[Callable[[Array, Array], Array], Float[Array, "b *data"]],
]

MEMORY = "memory"
"""Under this name the loss finds the memory among `frozen`."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a stage remembers of its losses from one step to the next, part of the training state.

    Attributes:
      init: () -> arrays.
      update: (memory, losses [B] and keys [B] of one step) -> memory.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Float[Array, " b"], Key[Array, " b"]], Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One trainable stage.

    Attributes:
      name: "clip", "prior", "decoder" or "upsampler".
      needs: what a batch must hold.
      init: key -> parameters (float32, plain nested dicts).
      loss: see the module.
      preview: (params, frozen, batch, keys) -> {column label: images [B, H, W, 3] in [-1, 1]};
        None for stages that draw nothing.
      preview_text: the same of a batch that holds nothing but `tokens`; None for stages that need
        more than a text.
      whole_batch: the loss of an example depends on the others, so that it can't be computed part
        after part; `loss` then heeds `train.accumulate` itself.
      prepare: (batch, keys) -> batch, before it may be taken apart: adds what is drawn over a whole
        training batch; None if nothing is.
      constrain: parameters after an update -> parameters in their allowed range; None if all are.
      memory: None for stages that remember nothing.
      towers, drawing_towers: of the frozen CLIP, "vision" and "text", those that the loss and
        those that the previews read; see `features.towers_in_use`.
      task: (params, frozen, batch, keys) -> (network, x_0): the denoising that the stage is for,
        network(x_t, t) bound to the batch with no condition dropped; None without diffusion.
    """

    name: str
    needs: BatchNeeds
    init: Init
    loss: Loss
    preview: Preview | None = None
    preview_text: Preview | None = None
    constrain: Constrain | None = None
    memory: Memory | None = None
    task: Task | None = None
    towers: tuple[str, ...] = ()
    drawing_towers: tuple[str, ...] = ()
    whole_batch: bool = False
    prepare: Prepare | None = None
