"""Kandinsky 2.2's prior, shrunk, as diffusers writes it: the embeddings of its own pipeline."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
from karlo_cascade import CAPTIONS, draw_embeddings, noise
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.generation import Pipeline
from unclip_jax.interop import read_bundle
from unclip_jax.interop.tokenizer_files import write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
DIM = 16  # of embeddings; ViT-bigG's is 1280


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """With the vision tower's odd width and heads (bigG: 1664 in 16), and random statistics."""
    import transformers
    from diffusers import KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler

    torch.manual_seed(0)
    shared = {"projection_dim": DIM, "hidden_act": "gelu", "num_hidden_layers": 2}
    text = transformers.CLIPTextConfig(
        hidden_size=DIM, intermediate_size=64, num_attention_heads=2, eos_token_id=49407, **shared
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=26, intermediate_size=72, num_attention_heads=2, image_size=16, patch_size=8,
        **shared,
    )  # fmt: skip
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, embedding_dim=DIM
    )
    networks = [
        transformers.CLIPTextModelWithProjection(text).eval(),
        transformers.CLIPVisionModelWithProjection(vision).eval(),
        prior.eval(),
    ]
    with torch.no_grad():
        for parameter in (p for network in networks for p in network.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape))
        prior.clip_std.abs_().add_(1)
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, 77)
    pipe = KandinskyV22PriorPipeline(
        text_encoder=networks[0],
        image_encoder=networks[1],
        prior=prior,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder),
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        image_processor=transformers.CLIPImageProcessor(
            crop_size={"height": 16, "width": 16}, size={"shortest_edge": 16}
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def cascade(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kandinsky")
    pipe.save_pretrained(folder / "theirs")
    command = ["import", "diffusers", str(folder / "theirs"), "--out", str(folder / "bundle")]
    assert main(command) == 0
    return read_bundle(folder / "bundle").cascade


def test_every_setting_and_weight_arrives(pipe, cascade):
    assert list(cascade.named()) == ["clip", "prior"]
    assert cascade.clip.model.towers == "both"
    assert cascade.prior.config.sampling.clip_range == 10.0
    networks = (pipe.text_encoder, pipe.image_encoder, pipe.prior)
    count = sum(p.numel() for network in networks for p in network.parameters())
    statistics, logit_scale = 2 * DIM, 1
    ours = cascade.clip.parameter_count + cascade.prior.parameter_count
    assert ours == count - statistics + logit_scale


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_the_prior_draws_their_embeddings(pipe, cascade, guidance_scale, claim):
    first, steps = noise(len(CAPTIONS))["prior"]
    queue = iter(steps)
    draw_next = lambda *_, **__: torch.from_numpy(next(queue))  # noqa: E731
    with mock.patch("diffusers.schedulers.scheduling_unclip.randn_tensor", draw_next):
        theirs = pipe(
            list(CAPTIONS), num_inference_steps=3, latents=torch.from_numpy(first),
            guidance_scale=guidance_scale,
        ).image_embeds.numpy()  # fmt: skip
    sampling = dataclasses.replace(
        cascade.prior.config.sampling, steps=3, guidance_scale=guidance_scale
    )
    config = dataclasses.replace(cascade.prior.config, sampling=sampling)
    prior = dataclasses.replace(cascade.prior, config=config)
    ours = draw_embeddings(dataclasses.replace(cascade, prior=prior))
    mean, std = (cascade.prior.statistics[name] for name in ("mean", "std"))
    assert np.abs(theirs - mean).max() > 1
    # At t = 0 x0 has the factor beta_0 / (1 - alpha_bar_0), which is 1; theirs loses 5e-4 of it to
    # the float32 difference.
    schedule = pipe.scheduler
    factor = float(schedule.betas[0] / (1 - schedule.alphas_cumprod[0]))
    assert 0 < abs(factor - 1) < 1e-3
    claim.near(
        "embeddings drawn by Kandinsky 2's prior, imported, same noise",
        "diffusers KandinskyV22PriorPipeline",
        factor * (ours - mean) / std,
        (theirs - mean) / std,
        bound=1e-4,
    )


def test_the_image_tower_gives_their_embeddings(pipe, cascade):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels = pipe.image_processor(images=Image.fromarray(picture), return_tensors="pt")
    with torch.no_grad():
        theirs = pipe.image_encoder(pixels.pixel_values).image_embeds.numpy()
    np.testing.assert_allclose(Pipeline(cascade).embed_images(picture[None]), theirs, atol=1e-5)
