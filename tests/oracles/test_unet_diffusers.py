"""Decoder, upsampler and their U-Net against diffusers' unCLIP networks with equal weights.

Oracles: `UNet2DConditionModel` + `UnCLIPTextProjModel` (karlo's decoder) and `UNet2DModel` (karlo's
upsampler). Weights are drawn from a frozen stream in the order of our sorted parameter names, so
the recorded vectors hold inputs and outputs only; `UNCLIP_RECORD=1` rewrites them.
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

from unclip_jax.core import trees
from unclip_jax.interop import tensor_map
from unclip_jax.interop.diffusers import names
from unclip_jax.models import Decoder, UNet, Upsampler

pytestmark = pytest.mark.filterwarnings("ignore")
VECTORS = pathlib.Path(__file__).parents[1] / "vectors"
TOLERANCE = 1e-5  # of the largest output


def to_torch(entries, params: dict) -> dict[str, "torch.Tensor"]:
    state = tensor_map.to_theirs(entries, params)
    return {name: torch.from_numpy(value) for name, value in state.items()}


def unet_state(params: dict, levels: int) -> dict[str, "torch.Tensor"]:
    shapes = {path: value.shape for path, value in trees.flatten(params).items()}
    return to_torch(names.unet_entries(shapes, levels), params)


def text_proj_state(params: dict) -> dict[str, "torch.Tensor"]:
    return to_torch(names.text_proj_entries(), params)


def random_params(init, seed: int = 0) -> dict:
    """Weights for every parameter, none of them zero; numpy keeps this stream frozen for ever."""
    stream = np.random.RandomState(seed)
    params = {}
    for path, leaf in sorted(trees.flatten(jax.eval_shape(init)["params"]).items()):
        noise = stream.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        params[path] = (noise + path.endswith("scale")).astype(np.float32)
    return trees.unflatten(params)


def nchw(x: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def nhwc(x: "torch.Tensor") -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def decoder_inputs(size: int, clip_dim: int, tokens: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "x_t": f32(2, size, size, 3),
        "t": np.array([10, 500], np.int32),
        "image_embedding": f32(2, clip_dim),
        "text_embedding": f32(2, clip_dim),
        "text_states": f32(2, tokens, clip_dim),
        "text_mask": np.arange(tokens)[None] < np.array([[tokens // 2], [tokens]]),
    }


def upsampler_inputs(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {
        "x_t": rng.normal(size=(2, size, size, 3)).astype(np.float32),
        "t": np.array([3, 998], np.int32),
        "low_res": rng.uniform(-1, 1, (2, size // 4, size // 4, 3)).astype(np.float32),
    }


def their_decoder(unet: UNet, decoder: Decoder, clip_dim: int, size: int):
    channels = tuple(unet.channels * m for m in unet.multipliers)
    levels = len(channels)
    net = UNet2DConditionModel(
        sample_size=size,
        in_channels=3,
        out_channels=6,
        layers_per_block=unet.depth,
        block_out_channels=channels,
        down_block_types=("ResnetDownsampleBlock2D",)
        + ("SimpleCrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("SimpleCrossAttnUpBlock2D",) * (levels - 1) + ("ResnetUpsampleBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=decoder.context_width,
        attention_head_dim=unet.head_dim,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
        norm_num_groups=unet.norm_groups,
    )
    projections = UnCLIPTextProjModel(
        clip_extra_context_tokens=decoder.image_tokens,
        clip_embeddings_dim=clip_dim,
        time_embed_dim=unet.embedding_width,
        cross_attention_dim=decoder.context_width,
    )
    return net.eval(), projections.eval()


def run_their_decoder(net, projections, given, drop_image):
    """The conditional half, or with `drop_image` the half that guidance calls unconditional."""
    states, embedding = projections(
        image_embeddings=torch.from_numpy(given["image_embedding"]),
        prompt_embeds=torch.from_numpy(np.tile(given["text_embedding"], (2, 1))),
        text_encoder_hidden_states=torch.from_numpy(np.tile(given["text_states"], (2, 1, 1))),
        do_classifier_free_guidance=True,
    )
    tokens = states.shape[1] - given["text_mask"].shape[1]
    mask = np.pad(given["text_mask"], ((0, 0), (tokens, 0)), constant_values=True)
    half = slice(0, 2) if drop_image else slice(2, 4)
    out = net(
        nchw(given["x_t"]),
        torch.from_numpy(given["t"]),
        encoder_hidden_states=states[half],
        class_labels=embedding[half],
        attention_mask=torch.from_numpy(mask),
    )
    return nhwc(out.sample)


def record(name: str, **arrays: np.ndarray) -> None:
    if os.environ.get("UNCLIP_RECORD"):
        np.savez_compressed(VECTORS / f"{name}.npz", **arrays)
    else:
        stored = np.load(VECTORS / f"{name}.npz")
        for key, value in arrays.items():
            np.testing.assert_allclose(stored[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


DECODERS = {
    # channels, multipliers, depth, groups, head_dim, context width, CLIP width, size, tokens
    "published tiny test": (32, (1, 2), 1, 32, 4, 100, 32, 32, 77),
    "recorded": (8, (1, 2, 3), 2, 4, 4, 24, 20, 16, 9),
}


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_decoder_equals_karlos_in_diffusers(name, claim):
    channels, multipliers, depth, groups, head, width, clip_dim, size, tokens = DECODERS[name]
    factors = tuple(2**i for i in range(1, len(multipliers)))
    unet = UNet(6, channels, multipliers, depth, factors, head_dim=head, norm_groups=groups)
    decoder = Decoder(unet, width, null_text="none")
    given = decoder_inputs(size, clip_dim, tokens)
    params = random_params(lambda: decoder.init(jax.random.key(0), **given))
    net, projections = their_decoder(unet, decoder, clip_dim, size)
    net.load_state_dict(unet_state(params["unet"], len(multipliers)))
    projections.load_state_dict(text_proj_state(params))

    ours = jax.jit(lambda given, drop: decoder.apply({"params": params}, **given, drop_image=drop))
    wanted = [run_their_decoder(net, projections, given, drop) for drop in (False, True)]
    for drop in (False, True):
        got = ours({k: jnp.asarray(v) for k, v in given.items()}, jnp.full(2, drop))
        what = "the decoder's prediction and variance, with and without its image embedding"
        library = "diffusers UNet2DConditionModel + UnCLIPTextProjModel"
        claim.near(what, library, got, wanted[drop], bound=TOLERANCE)
    if name == "recorded":
        record("unet_decoder", **given, wanted=wanted[0], wanted_dropped=wanted[1])


UPSAMPLERS = {
    # channels, multipliers, depth, groups, scale_shift, size
    "published tiny test": (32, (1, 2), 1, 32, False, 64),
    "scale and shift": (16, (1, 2), 2, 8, True, 16),
    "recorded": (8, (1, 2, 3), 2, 4, False, 16),
}


@pytest.mark.parametrize("name", UPSAMPLERS)
@torch.no_grad()
def test_upsampler_equals_karlos_in_diffusers(name, claim):
    channels, multipliers, depth, groups, scale_shift, size = UPSAMPLERS[name]
    unet = UNet(3, channels, multipliers, depth, (), False, scale_shift=scale_shift,
                norm_groups=groups)  # fmt: skip
    upsampler = Upsampler(unet)
    given = upsampler_inputs(size)
    params = random_params(lambda: upsampler.init(jax.random.key(0), **given))
    net = UNet2DModel(
        sample_size=size,
        in_channels=6,
        out_channels=3,
        layers_per_block=depth,
        block_out_channels=tuple(channels * m for m in multipliers),
        down_block_types=("ResnetDownsampleBlock2D",) * len(multipliers),
        up_block_types=("ResnetUpsampleBlock2D",) * len(multipliers),
        add_attention=False,
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        norm_num_groups=groups,
    ).eval()
    net.load_state_dict(unet_state(params["unet"], len(multipliers)))
    low_res = torch.nn.functional.interpolate(
        nchw(given["low_res"]), (size, size), mode="bicubic", antialias=True
    )
    x = torch.cat([nchw(given["x_t"]), low_res], dim=1)
    wanted = nhwc(net(x, torch.from_numpy(given["t"])).sample)
    got = jax.jit(lambda given: upsampler.apply({"params": params}, **given))(given)
    claim.near("the upsampler's prediction", "diffusers UNet2DModel", got, wanted, bound=TOLERANCE)
    if name == "recorded":
        record("unet_upsampler", **given, wanted=wanted)


def test_parameter_counts_of_karlo():
    """The published sizes, counted by diffusers; our own counts are in the default tests."""
    with torch.device("meta"):
        shared = {"layers_per_block": 3, "block_out_channels": (320, 640, 960, 1280)}
        upsampler = UNet2DModel(
            sample_size=256, in_channels=6, out_channels=3, add_attention=False,
            down_block_types=("ResnetDownsampleBlock2D",) * 4,
            up_block_types=("ResnetUpsampleBlock2D",) * 4, **shared,
        )  # fmt: skip
        unet = UNet(6, 320)
        net, projections = their_decoder(unet, Decoder(unet, 1536), 768, 64)
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert count(upsampler) == 691_579_523
    assert (count(net), count(projections)) == (885_439_686, 7_878_400)
