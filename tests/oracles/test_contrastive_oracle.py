"""Contrastive losses and their gradients against open_clip's `ClipLoss` and `SigLipLoss`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unclip_jax.models import clip_loss, siglip_loss

pytestmark = pytest.mark.filterwarnings("ignore")


def theirs(loss, arrays):
    arguments = [torch.tensor(x, requires_grad=True) for x in arrays]
    image, text, scale, *bias = arguments
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    value = loss(image, text, scale.exp(), *bias)
    value.backward()
    return value.item(), [x.grad.numpy() for x in arguments]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [0.5, 2.659, 4.5])
def test_value_and_gradients_equal_the_oracle(kind, scale, claim):
    from open_clip.loss import ClipLoss, SigLipLoss

    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 8, 32)).astype(np.float32)
    arrays = [image, text, np.float32(scale)]
    if kind == "sigmoid":
        arrays.append(np.float32(-5.0))
    oracle, ours = {"softmax": (ClipLoss(), clip_loss), "sigmoid": (SigLipLoss(), siglip_loss)}[
        kind
    ]
    wanted, wanted_grads = theirs(oracle, arrays)
    mean = lambda *x: jnp.mean(ours(*x))  # noqa: E731
    got, grads = jax.value_and_grad(mean, argnums=tuple(range(len(arrays))))(
        *map(jnp.asarray, arrays)
    )
    errors = [abs(float(got) - wanted) / abs(wanted)]
    errors += [
        np.abs(a - b).max() / np.abs(b).max() for a, b in zip(grads, wanted_grads, strict=True)
    ]
    what = f"{kind} contrastive loss and all of its gradients"
    claim.within(what, f"open_clip {type(oracle).__name__}", max(errors), bound=1e-6)
