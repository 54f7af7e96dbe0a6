"""diffusers' own UnCLIPPipeline on our export, and ours on its export, with the same noise.

The pipelines are frozen in diffusers and UnCLIPTextProjModel has moved; from 0.38 on, diffusers is
told where it is (see interop/diffusers/folder.py). `UNCLIP_RECORD=1` rewrites
tests/vectors/karlo.npz, with which tests/interop/test_diffusers.py repeats the comparison without
torch.
"""

import contextlib
import itertools
import os
import pathlib
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import UnCLIPImageVariationPipeline, UnCLIPPipeline, pipelines
from karlo_cascade import CAPTIONS, draw, make_cascade, noise
from safetensors.numpy import load_file

from unclip_jax.core import trees
from unclip_jax.interop.diffusers import read_folder, write_folder
from unclip_jax.text import tokenize

with contextlib.suppress(ImportError):  # up to 0.37 it is where folders say
    from diffusers.pipelines.deprecated import unclip

    pipelines.unclip = unclip

pytestmark = pytest.mark.filterwarnings("ignore")
VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "karlo.npz"
TOLERANCE = 1e-3  # of pictures in [0, 1]
STEPS = {f"{name}_num_inference_steps": 3 for name in ("decoder", "super_res")}


def load(pipeline, folder):
    pipe = pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def torch_noise(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x)


def run(pipe, stages, **arguments):
    """The pipeline's pictures with our noise, NHWC in [0, 1]."""
    found = noise(len(CAPTIONS))
    names = {"prior": "prior", "decoder": "decoder", "upsampler": "super_res"}
    latents = {f"{names[s]}_latents": torch_noise(found[s][0]) for s in stages}
    # The last step of a stage draws none.
    queue = itertools.chain(*(found[s][1][:-1] for s in stages))
    draw_next = lambda *_, **__: torch_noise(next(queue))  # noqa: E731
    with mock.patch("diffusers.schedulers.scheduling_unclip.randn_tensor", draw_next):
        pictures = pipe(**latents, **STEPS, **arguments, output_type="np").images
    assert next(queue, None) is None
    return pictures


def text_to_image(pipe):
    arguments = {"prompt": list(CAPTIONS), "prior_num_inference_steps": 3}
    return run(pipe, ("prior", "decoder", "upsampler"), **arguments)


def assert_same_pictures(claim, what, ours, theirs):
    statement = f"{what}, same noise (absolute, of [0, 1])"
    claim.within(statement, "diffusers' pipelines", np.abs(theirs - ours).max(), TOLERANCE)


def assert_same_weights(claim, theirs, ours):
    """Every tensor that diffusers wrote is in our folder, by its name and bit for bit."""
    statement = "weights of a folder, imported and exported again"
    files = sorted(p.relative_to(theirs) for p in theirs.rglob("*.safetensors"))
    assert len(files) >= 5
    for file in files:
        wanted, found = load_file(theirs / file), load_file(ours / file)
        assert wanted.keys() == found.keys(), file
        for name, value in wanted.items():
            claim.equal(statement, "the folder as diffusers wrote it", found[name], value)


@pytest.fixture(scope="module")
def cascade():
    return make_cascade()


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "karlo"
    write_folder(cascade, path)
    return path


@pytest.fixture(scope="module")
def pipe(folder):
    return load(UnCLIPPipeline, folder)


def test_their_pipeline_draws_our_pictures(cascade, pipe, claim):
    theirs, ours = text_to_image(pipe), draw(cascade)["large"] / 2 + 0.5
    assert ours.std() > 0.05
    assert_same_pictures(claim, "text to image by an exported cascade", ours, theirs)
    if os.environ.get("UNCLIP_RECORD"):
        np.savez_compressed(VECTORS, pictures=theirs.astype(np.float32))
    np.testing.assert_allclose(np.load(VECTORS)["pictures"], theirs, atol=1e-4)


def test_with_all_of_karlos_timesteps(tmp_path):
    """See karlo_cascade.py: few values differ by more, alike for any two float32 networks."""
    cascade = make_cascade(num_steps=1000)
    write_folder(cascade, tmp_path / "karlo")
    pipe = load(UnCLIPPipeline, tmp_path / "karlo")
    error = np.abs(text_to_image(pipe) - (draw(cascade)["large"] / 2 + 0.5))
    print(f"1000 timesteps: {(error > TOLERANCE).mean():.2%} of values differ by more than 1e-3")
    assert np.quantile(error, 0.98) < TOLERANCE
    assert error.max() < 2e-2


def test_our_pipeline_draws_their_pictures(pipe, tmp_path, claim):
    """The folder that diffusers writes, of networks with other weights."""
    generator = torch.Generator().manual_seed(0)
    networks = (pipe.prior, pipe.text_proj, pipe.decoder, pipe.super_res_first, pipe.super_res_last)
    before = [p.clone() for network in networks for p in network.parameters()]
    with torch.no_grad():
        for network in networks:
            for p in network.parameters():
                p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator))
    pipe.save_pretrained(tmp_path / "theirs")
    theirs = text_to_image(pipe)
    imported = read_folder(tmp_path / "theirs")
    write_folder(imported, tmp_path / "back")
    assert_same_weights(claim, tmp_path / "theirs", tmp_path / "back")
    with torch.no_grad():
        for p, old in zip((p for n in networks for p in n.parameters()), before, strict=True):
            p.copy_(old)
    for stage in (imported.prior, imported.decoder, *imported.upsamplers):
        object.__setattr__(stage.config.sampling, "steps", 3)
    ours = draw(imported)["large"] / 2 + 0.5
    assert_same_pictures(claim, "text to image by an imported folder", ours, theirs)
    assert np.abs(ours - (draw(make_cascade())["large"] / 2 + 0.5)).max() > 0.1


def test_image_variations(cascade, folder, tmp_path, claim):
    write_folder(cascade, tmp_path / "variation", layout="variation")
    pipe = load(UnCLIPImageVariationPipeline, tmp_path / "variation")
    z = draw(cascade, ("", ""))["embedding"]
    theirs = run(pipe, ("decoder", "upsampler"), image_embeddings=torch.from_numpy(z))
    ours = draw(cascade, ("", ""))["large"] / 2 + 0.5
    assert_same_pictures(claim, "variations by an exported cascade", ours, theirs)
    pipe.save_pretrained(tmp_path / "theirs")
    found = read_folder(tmp_path / "theirs")
    write_folder(found, tmp_path / "back", layout="variation")
    assert_same_weights(claim, tmp_path / "theirs", tmp_path / "back")
    assert list(found.named()) == ["clip", "decoder", "upsampler"]
    read = trees.flatten(found.clip.params)
    for path, value in trees.flatten(cascade.clip.params).items():
        if path != "logit_scale":  # which the towers don't have
            np.testing.assert_array_equal(read[path], value)
    # A text-to-image folder has no image tower; another folder may lend it.
    whole = read_folder(folder, image_encoder=tmp_path / "variation")
    assert whole.clip.model.towers == "both"
    assert whole.prior.clip_sha256 == whole.clip.weights_sha256


def test_their_tokenizer_gives_our_tokens(pipe):
    texts = [*CAPTIONS, "", "!", "😀 naïve 日本語", "very " * 100]
    found = pipe.tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="np"
    )
    ours = tokenize(texts, 77)
    real = found["attention_mask"].astype(bool)
    np.testing.assert_array_equal(np.where(real, found["input_ids"], 0), ours)


def test_their_image_encoder_gives_our_embeddings(cascade, tmp_path):
    from PIL import Image

    from unclip_jax.generation import Pipeline, compose

    write_folder(cascade, tmp_path / "variation", layout="variation")
    pipe = load(UnCLIPImageVariationPipeline, tmp_path / "variation")
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels = pipe.feature_extractor(images=Image.fromarray(picture), return_tensors="pt")
    with torch.no_grad():
        theirs = pipe.image_encoder(pixels.pixel_values).image_embeds.numpy()
    ours = Pipeline(compose([cascade.clip])).embed_images(picture[None])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
