"""Our prior against diffusers' `PriorTransformer`, karlo's net; it records tests/vectors/prior.npz.

`UNCLIP_RECORD=1` rewrites the vectors, under our own parameter names.
"""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from unclip_jax.core import trees
from unclip_jax.interop.diffusers.names import prior_entries
from unclip_jax.models import PriorTransformer

pytestmark = pytest.mark.filterwarnings("ignore")
VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "prior.npz"
SIZE = {"embedding_dim": 20, "width": 24, "layers": 2, "heads": 2, "context_length": 9}
SIZE["null_text"] = "none"


def inputs():
    rng = np.random.default_rng(1)
    return {
        "x_t": rng.normal(size=(2, 20)).astype(np.float32),
        "t": np.array([10, 500], np.int32),
        "text_embedding": rng.normal(size=(2, 20)).astype(np.float32),
        "text_states": rng.normal(size=(2, 9, 20)).astype(np.float32),
        "text_mask": np.arange(9)[None] < np.array([[5], [9]]),
    }


@pytest.fixture(scope="module")
def oracle():
    from diffusers import PriorTransformer as Oracle

    model = Oracle(num_attention_heads=2, attention_head_dim=12, num_layers=2, embedding_dim=20,
                   num_embeddings=9)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((centre + noise).half().float())
    return model.eval()


def ours(model):
    """Parameters of ours from a diffusers prior, by path."""
    state = {k: v.numpy() for k, v in model.state_dict().items() if not k.startswith("clip_")}
    return {entry.ours: entry.to_ours(state) for entry in prior_entries(SIZE["layers"])}


def run(model, given):
    with torch.no_grad():
        return model(
            torch.tensor(given["x_t"]),
            torch.tensor(given["t"]),
            proj_embedding=torch.tensor(given["text_embedding"]),
            encoder_hidden_states=torch.tensor(given["text_states"]),
            attention_mask=torch.tensor(given["text_mask"]),
        ).predicted_image_embedding.numpy()


def test_prediction_equals_the_oracle(oracle, claim):
    given, flat = inputs(), ours(oracle)
    wanted = run(oracle, given)
    if os.environ.get("UNCLIP_RECORD"):
        params = {f"params/{k}": v.astype(np.float16) for k, v in flat.items()}
        np.savez_compressed(VECTORS, size=json.dumps(SIZE), wanted=wanted, **given, **params)
    prior = PriorTransformer(**SIZE, scan_layers=False)
    got = prior.apply(
        {"params": trees.unflatten(flat)}, **{k: jnp.asarray(v) for k, v in given.items()}
    )
    what = "the prior's prediction, captions of 5 and 9 tokens"
    claim.near(what, "diffusers PriorTransformer", got, wanted, bound=1e-5)


def test_recorded_vectors_are_up_to_date(oracle):
    recorded = np.load(VECTORS)
    np.testing.assert_allclose(recorded["wanted"], run(oracle, inputs()), rtol=1e-5, atol=1e-5)
    for name, value in ours(oracle).items():
        np.testing.assert_array_equal(recorded[f"params/{name}"], value.astype(np.float16))


def test_parameter_count_of_karlo():
    """diffusers counts the statistics clip_mean and clip_std as parameters, we do not."""
    from diffusers import PriorTransformer as Oracle

    with torch.device("meta"):
        theirs = sum(p.numel() for p in Oracle().parameters())
    assert theirs == 1_022_030_080
