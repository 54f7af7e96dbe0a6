"""A CLIP of ours as a folder, loaded by the libraries' own loaders: the same embeddings.

Pictures and captions go through their preparation and tokenizers, ours through `Pipeline`.
"""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from karlo_cascade import make_stage
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import read_bundle, write_bundle

pytestmark = pytest.mark.filterwarnings("ignore")
CAPTIONS = ["a red heart", "hi! two fish, naïve 日本語 😀", ""]
SIZES = {"vision_width": 64, "vision_heads": 1, "text_width": 64, "text_heads": 1}
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def bundle(request, tmp_path_factory):
    """Its weights are float16 numbers, which is what OpenAI's class keeps them in."""
    clip = make_stage("clip", activation=request.param, **SIZES)
    params = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), clip.params)
    path = tmp_path_factory.mktemp("clip") / "bundle"
    write_bundle(compose([dataclasses.replace(clip, params=params)]), path)
    return path


def export(bundle, name, out, *options):
    command = ["export", "--workdir", str(bundle), "--format", f"clip-{name}", "--out", str(out)]
    return main([*command, *options])


def assert_ours(claim, library, bundle, image, text):
    pipeline = Pipeline(read_bundle(bundle).cascade)
    for ours, theirs in (
        (pipeline.embed_images(PICTURES), image),
        (pipeline.embed_texts(CAPTIONS), text),
    ):
        what = "embeddings by an exported CLIP's folder, with its own preparation"
        claim.near(what, library, theirs.numpy(), ours, bound=1e-5)


@pytest.mark.parametrize("limit", [(), ("--max-file-gb", "0.0005")], ids=["whole", "in parts"])
def test_transformers_loads_what_is_written(bundle, tmp_path, limit, claim):
    from transformers import CLIPModel, CLIPProcessor

    assert export(bundle, "huggingface", tmp_path / "hf", *limit) == 0
    assert bool(limit) == (not (tmp_path / "hf/model.safetensors").is_file())
    model, info = CLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = CLIPProcessor.from_pretrained(tmp_path / "hf")
    pictures = [Image.fromarray(x) for x in PICTURES]
    given = processor(text=CAPTIONS, images=pictures, return_tensors="pt", padding=True)
    with torch.no_grad():
        text = model.text_projection(
            model.text_model(given.input_ids, given.attention_mask).pooler_output
        )
        image = model.visual_projection(model.vision_model(given.pixel_values).pooler_output)
    assert_ours(claim, "transformers CLIPModel", bundle, image, text)


def test_open_clip_loads_what_is_written(bundle, tmp_path, claim):
    import open_clip

    assert export(bundle, "openclip", tmp_path / "oc") == 0
    name = f"local-dir:{tmp_path / 'oc'}"
    model, _, prepare = open_clip.create_model_and_transforms(name)
    pixels = torch.stack([prepare(Image.fromarray(x)) for x in PICTURES])
    with torch.no_grad():
        image = model.eval().encode_image(pixels)
        text = model.encode_text(open_clip.get_tokenizer(name)(CAPTIONS))
    assert_ours(claim, "open_clip, from a local folder", bundle, image, text)


def test_openais_loader_takes_what_is_written(bundle, tmp_path, capsys, claim):
    """Its port in open_clip, which opens pickles only: the tensors are put into one."""
    import open_clip
    from safetensors.torch import load_file

    made = export(bundle, "openai", tmp_path / "openai")
    if read_bundle(bundle).cascade.clip.model.activation != "quick_gelu":
        assert made == 2
        assert "no other activation" in capsys.readouterr().err
        return
    torch.save(load_file(tmp_path / "openai/model.safetensors"), tmp_path / "ViT.pt")
    model = open_clip.load_openai_model(str(tmp_path / "ViT.pt"), precision="fp32", device="cpu")
    prepare = open_clip.image_transform(16, is_train=False)
    pixels = torch.stack([prepare(Image.fromarray(x)) for x in PICTURES])
    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(open_clip.SimpleTokenizer()(CAPTIONS))
    assert_ours(claim, "open_clip load_openai_model", bundle, image, text)
