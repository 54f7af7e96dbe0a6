"""What a block recomputes in the backward pass, by name.

    "none"    everything the gradient needs is stored
    "norms"   results of convolutions, dense layers and attention are stored; norms, activations
              and the softmax are recomputed: little arithmetic, about half of the memory
    "full"    only the block's input is stored; one more forward pass (a third more arithmetic)

Blocks mark those results with `checkpoint_name`: "conv", "dense" and "attention".

Source: Chen et al. 2016 (arXiv 1604.06174).
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from unclip_jax.errors import UserError, did_you_mean

POLICIES = {
    "norms": jax.checkpoint_policies.save_only_these_names("conv", "dense", "attention"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rematerialised(
    block: type[nn.Module], policy: str, in_scan: bool = False
) -> Callable[..., nn.Module]:
    """The block class itself ("none") or wrapped to recompute as the policy says.

    Args:
      in_scan: the block is a loop's body, where the loop keeps XLA from merging the recomputation
        with the original and no barrier is needed.

    Raises:
      UserError: for an unknown policy.
    """
    if policy == "none":
        return block
    if policy not in POLICIES:
        hint = did_you_mean(policy, ["none", *POLICIES])
        raise UserError(f"unknown remat policy {policy!r}{hint}")
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=not in_scan)
