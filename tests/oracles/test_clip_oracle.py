"""Our CLIP and its importer against transformers' `CLIPModel` and open_clip's `CLIP`.

Both oracles get random weights everywhere (norms and biases too, which fresh models leave at one
and zero), rounded to float16 so that they can be recorded in half the space. `UNCLIP_RECORD=1`
rewrites tests/vectors/clip_*.npz, which the default tests replay.
"""

import json
import os
import pathlib

import numpy as np
import pytest
import torch

from unclip_jax.interop.clip_weights import export_clip, import_clip
from unclip_jax.models import Clip

pytestmark = pytest.mark.filterwarnings("ignore")
VECTORS = pathlib.Path(__file__).parents[1] / "vectors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EOT = 63
SIZE = {
    "image_size": 16, "patch_size": 8, "vision_width": 32, "vision_layers": 2, "vision_heads": 2,
    "text_width": 16, "text_layers": 2, "text_heads": 2, "embedding_dim": 12,
    "context_length": 10, "vocab_size": 64, "eot_id": EOT,
}  # fmt: skip


def inputs():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    tokens = rng.integers(1, EOT, (3, 10)).astype(np.int32)
    for row, end in enumerate((3, 9, 6)):
        tokens[row, end], tokens[row, end + 1 :] = EOT, 0
    pixels = ((images.astype(np.float64) + 1) / 2 - MEAN) / STD
    return images, tokens, torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else 16
            noise = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((centre + noise).half().float())
        model.logit_scale.fill_(2.5)
    return model.eval()


def open_clip_model(activation):
    import open_clip

    vision = open_clip.CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=16)
    text = open_clip.CLIPTextCfg(context_length=10, vocab_size=64, width=16, heads=2, layers=2)
    return randomise(open_clip.CLIP(12, vision, text, quick_gelu=activation == "quick_gelu"))


def huggingface_model(activation):
    import transformers

    shared = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": activation}
    vision = dict(hidden_size=32, intermediate_size=128, image_size=16, patch_size=8, **shared)
    text = dict(hidden_size=16, intermediate_size=64, vocab_size=64, eos_token_id=EOT,
                max_position_embeddings=10, **shared)  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return randomise(transformers.CLIPModel(config))


def open_clip_outputs(model, pixels, tokens):
    tokens = torch.tensor(tokens, dtype=torch.long)
    states = []
    hook = model.ln_final.register_forward_hook(lambda *call: states.append(call[2]))
    image, text = model.encode_image(pixels), model.encode_text(tokens)
    hook.remove()
    return image, text, states[0]


def huggingface_outputs(model, pixels, tokens):
    tokens = torch.tensor(tokens, dtype=torch.long)
    out = model.text_model(input_ids=tokens)
    image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    return image, model.text_projection(out.pooler_output), out.last_hidden_state


ORACLES = {
    "open_clip": (open_clip_model, open_clip_outputs),
    "huggingface": (huggingface_model, huggingface_outputs),
}


def oracle(dialect, activation):
    build, run = ORACLES[dialect]
    model = build(activation)
    images, tokens, pixels = inputs()
    names = ("image_embedding", "text_embedding", "states")
    with torch.no_grad():
        outputs = dict(zip(names, (x.numpy() for x in run(model, pixels, tokens)), strict=True))
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    return state, images, tokens, outputs


@pytest.fixture(scope="module", params=list(ORACLES))
def case(request):
    results = {a: oracle(request.param, a) for a in ("gelu", "quick_gelu")}
    if os.environ.get("UNCLIP_RECORD"):
        record(request.param, results)
    return request.param, results


def record(dialect, results):
    state, images, tokens, _ = results["gelu"]
    arrays = {f"weights/{k}": v.astype(np.float16) for k, v in state.items() if v.dtype == "f4"}
    outputs = {f"{a}/{k}": v for a, result in results.items() for k, v in result[3].items()}
    np.savez_compressed(
        VECTORS / f"clip_{dialect}.npz",
        size=json.dumps(SIZE), images=images, tokens=tokens, **arrays, **outputs,
    )  # fmt: skip


def largest_relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_embeddings_and_states_equal_the_oracle(case, activation, scan_layers, claim):
    state, images, tokens, wanted = case[1][activation]
    clip = Clip(**SIZE, activation=activation, scan_layers=scan_layers)
    params = {"params": import_clip(state, clip)}
    image = clip.apply(params, images, method="encode_image")
    text = clip.apply(params, tokens, method="encode_text")
    errors = {
        "image_embedding": largest_relative(image, wanted["image_embedding"]),
        "text_embedding": largest_relative(text.embedding, wanted["text_embedding"]),
        "states": largest_relative(text.states, wanted["states"]),
    }
    library = {"open_clip": "open_clip CLIP", "huggingface": "transformers CLIPModel"}[case[0]]
    what = "CLIP with imported weights: both embeddings and text states"
    claim.within(what, library, max(errors.values()), bound=1e-5)
    np.testing.assert_array_equal(text.mask, np.arange(10) <= np.array([[3], [9], [6]]))


def test_export_is_what_the_oracle_stores(case, claim):
    state = case[1]["gelu"][0]
    clip = Clip(**SIZE)
    exported = export_clip(import_clip(state, clip), clip, case[0])
    tables = {k for k in state if k.endswith("position_ids")}
    assert set(exported) == set(state) - tables
    for name, value in exported.items():
        claim.equal(f"CLIP weights in {case[0]} naming", "its own state_dict", value, state[name])


def test_recorded_vectors_are_up_to_date(case):
    recorded = np.load(VECTORS / f"clip_{case[0]}.npz")
    for activation, (state, *_, outputs) in case[1].items():
        for name, value in outputs.items():
            np.testing.assert_allclose(
                recorded[f"{activation}/{name}"], value, rtol=1e-5, atol=1e-5
            )
        for name, value in state.items():
            if value.dtype == "f4":
                np.testing.assert_array_equal(recorded[f"weights/{name}"], value.astype(np.float16))
