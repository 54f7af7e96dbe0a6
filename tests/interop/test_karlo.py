"""karlo's own checkpoints, written here from a cascade of ours by the names of its code.

That interleaved heads are read in the right order is checked against attention as karlo computes
it. Its files are pickles; tests/oracles/test_karlo_files.py reads such.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest
from karlo_cascade import make_cascade
from safetensors.numpy import save_file

from unclip_jax.cli import main
from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.interop import read_bundle, write_bundle
from unclip_jax.interop.karlo import Untold, read_karlo
from unclip_jax.interop.karlo_names import ladder, split_heads, unet_names
from unclip_jax.models.spatial_attention import SpatialAttention

HEAD = 4  # of the decoder; the prior has heads of 12
UNTOLD = Untold(image_size=16, large_size=32, head_dim=HEAD, norm_groups=4)


def torch_layout(path, value):
    if path.endswith("kernel"):
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return np.ascontiguousarray(value)


def interleave(parts):
    """[heads * HEAD, ...] of q, k, v -> rows (head, {q, k, v}, HEAD)."""
    heads = [p.reshape(-1, HEAD, *p.shape[1:]) for p in parts]
    return np.stack(heads, 1).reshape(-1, *parts[0].shape[1:])


def leaf(path):
    return "bias" if path.endswith("bias") else "weight"


def karlo_unet(params):
    """guided-diffusion's numbering, counted by hand for two levels of one block each."""
    places = {
        "conv_in": "input_blocks.0.0",
        "down_0_res_0": "input_blocks.1.0",
        "down_0_resample": "input_blocks.2.0",
        "down_1_res_0": "input_blocks.3.0",
        "down_1_attention_0": "input_blocks.3.1",
        "mid_res_0": "middle_block.0",
        "mid_attention": "middle_block.1",
        "mid_res_1": "middle_block.2" if "mid_attention" in params else "middle_block.1",
        "up_1_res_0": "output_blocks.0.0",
        "up_1_attention_0": "output_blocks.0.1",
        "up_1_res_1": "output_blocks.1.0",
        "up_1_attention_1": "output_blocks.1.1",
        "up_1_resample": "output_blocks.1.2" if "mid_attention" in params else "output_blocks.1.1",
        "up_0_res_0": "output_blocks.2.0",
        "up_0_res_1": "output_blocks.3.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
    }
    inside = {
        **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_proj": "emb_layers.1"},
        **{"norm2": "out_layers.0", "conv2": "out_layers.3", "skip": "skip_connection"},
        **{"norm": "norm", "out": "proj_out", "linear_1": "0", "linear_2": "2"},
    }
    state, attention = {}, {}
    for path, value in trees.flatten(params).items():
        first, *rest = path.split("/")
        value = torch_layout(path, np.asarray(value))
        place = places.get(first, "time_embed")
        if len(rest) == 1:
            state[f"{place}.{leaf(path)}"] = value
        elif rest[0] in ("query", "key", "value", "context_key", "context_value"):
            attention[place, rest[0], leaf(path)] = value
        else:
            state[f"{place}.{inside[rest[0]]}.{leaf(path)}"] = value
    for place, kind in {key[::2] for key in attention}:
        for fused, parts in (
            ("qkv", ("query", "key", "value")),
            ("encoder_kv", ("context_key", "context_value")),
        ):
            value = interleave([attention[place, part, kind] for part in parts])
            state[f"{place}.{fused}.{kind}"] = value[..., None] if kind == "weight" else value
    for name in [n for n in state if n.endswith("proj_out.weight")]:
        state[name] = state[name][..., None]
    return state


def karlo_decoder(params):
    names = {
        "text/states_proj": "text_seq_proj.0",
        "text/states_norm": "text_seq_proj.1",
        "text/pooled_proj": "text_feat_proj",
        "image/tokens_proj": "clip_tok_proj",
        "image/embedding_proj": "clip_emb",
    }
    state = karlo_unet(params["unet"]) | {"cf_param": np.asarray(params["image"]["null"])}
    for group in ("image", "text"):
        for path, value in trees.flatten(params[group]).items():
            owner = f"{group}/{path.split('/')[0]}"
            if owner in names:
                state[f"{names[owner]}.{leaf(path)}"] = torch_layout(path, np.asarray(value))
    return state


def karlo_prior(params):
    names = {
        **{"time_embedding/linear_1": "time_embed.0", "time_embedding/linear_2": "time_embed.2"},
        **{"image_embedding_in": "clip_img_proj", "text_embedding_in": "text_emb_proj"},
        **{"text_states_in": "text_enc_proj", "norm_final": "final_ln", "out": "out_proj"},
        **{"norm_1": "ln_1", "norm_2": "ln_2", "attention_out": "attn.c_proj"},
        **{"mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"},
    }
    state = {
        "prd_emb": np.asarray(params["query"])[None, None],
        "positional_embedding": np.asarray(params["position_embedding"])[None],
    }
    for path, value in trees.flatten(params).items():
        owner = path.rpartition("/")[0]
        if not owner.startswith("transformer"):
            if owner:
                state[f"{names[owner]}.{leaf(path)}"] = torch_layout(path, np.asarray(value))
            continue
        inner = owner.removeprefix("transformer/blocks/")
        for i, layer in enumerate(np.asarray(value)):
            name = names.get(inner, "attn.c_qkv")
            if inner == "qkv":
                parts = np.moveaxis(layer, -2, 0)  # of [in, 3, out], or of [3, out]
                value_i = interleave([torch_layout(path, part) for part in parts])
            else:
                value_i = torch_layout(path, layer)
            state[f"transformer.resblocks.{i}.{name}.{leaf(path)}"] = value_i
    return state


def prefixed(prefix, state):
    return {f"{prefix}.{k}": np.ascontiguousarray(v) for k, v in state.items()}


@pytest.fixture(scope="module")
def cascade():
    return make_cascade()


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("karlo")
    upsampler = cascade.upsamplers[0].params
    first = prefixed("model_first_steps", karlo_unet(upsampler["unet"]))
    last = prefixed("model_last_step", karlo_unet(upsampler["last_step"]["unet"]))
    statistics = {"0": cascade.prior.statistics["mean"], "1": cascade.prior.statistics["std"]}
    for name, state in (
        (
            "prior-ckpt-step=01000000-of-01000000",
            prefixed("model", karlo_prior(cascade.prior.params)),
        ),
        (
            "decoder-ckpt-step=01000000-of-01000000",
            prefixed("model", karlo_decoder(cascade.decoder.params)),
        ),
        ("improved-sr-ckpt-step=1.2M", first | last),
        ("ViT-L-14_stats", statistics),
    ):
        save_file(state, path / f"{name}.safetensors")
    return path


def test_every_weight_arrives(cascade, folder):
    found = read_karlo(folder, cascade.clip, UNTOLD)
    for name in ("prior", "decoder", "upsampler"):
        stage, original = found.named()[name], cascade.named()[name]
        jax.tree.map(np.testing.assert_array_equal, stage.params, original.params)
        # The prior's heads are told by --head-dim, which is one number for all in karlo.
        assert stage.config.model == original.config.model or name == "prior"
        assert stage.config.diffusion == dataclasses.replace(
            original.config.diffusion, num_steps=1000
        )
    for key, value in cascade.prior.statistics.items():
        np.testing.assert_array_equal(found.prior.statistics[key], value)
    assert found.prior.step == found.decoder.step == 1_000_000
    assert found.upsamplers[0].step == 1_200_000
    assert found.prior.config.sampling.clip_range == 10.0
    facts = found.decoder.provenance["imported"]
    assert facts["format"] == "karlo"
    assert re.fullmatch(r"[0-9a-f]{64}", facts["files"][0]["sha256"])


def test_heads_are_read_as_karlo_computes_them():
    """QKVAttention of guided-diffusion: [B * heads, 3 * HEAD, T] is cut into q, k and v."""
    rng = np.random.default_rng(0)
    channels, tokens = 3 * HEAD, 6
    x = rng.normal(size=(1, 2, tokens // 2, channels)).astype(np.float32)
    qkv = rng.normal(size=(3 * channels, channels)).astype(np.float32)

    kernels = [part.T for part in split_heads(qkv, 3, HEAD)]
    params = {
        n: {"kernel": w, "bias": np.zeros(channels)}
        for n, w in zip(("query", "key", "value"), kernels, strict=True)
    }
    params["out"] = {"kernel": np.eye(channels), "bias": np.zeros(channels)}
    params["norm"] = {"scale": np.ones(channels), "bias": np.zeros(channels)}
    # The norm must do nothing, so x is normalised by hand first.
    flat = x.reshape(tokens, 3, -1)
    flat = (flat - flat.mean((0, 2), keepdims=True)) / flat.std((0, 2), keepdims=True)
    x = flat.reshape(x.shape)
    projected = (qkv @ x.reshape(tokens, channels).T).reshape(3, 3 * HEAD, tokens)
    q, k, v = np.split(projected, 3, axis=1)
    logits = np.einsum("hct,hcs->hts", q, k) / np.sqrt(HEAD)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted = np.einsum("hts,hcs->hct", weights, v).reshape(channels, tokens).T
    layer = SpatialAttention(head_dim=HEAD, groups=3)
    got = layer.apply({"params": params}, x) - x
    np.testing.assert_allclose(got.reshape(tokens, channels), wanted, atol=2e-3)


def test_the_command_makes_a_bundle(cascade, folder, tmp_path):
    from unclip_jax.generation import compose

    write_bundle(compose([cascade.clip]), tmp_path / "clip")
    out = tmp_path / "karlo"
    sizes = ["--image-size", "16", "--large-size", "32", "--head-dim", "4", "--norm-groups", "4"]
    command = ["import", "karlo", str(folder), "--clip", str(tmp_path / "clip"), "--out", str(out)]
    assert main([*command, *sizes]) == 0
    found = read_bundle(out).cascade
    assert list(found.named()) == ["clip", "prior", "decoder", "upsampler"]
    assert found.prior.clip_sha256 == cascade.clip.weights_sha256


def test_what_is_not_karlo_is_refused(cascade, folder, tmp_path):
    with pytest.raises(UserError, match=r"0 files are called prior-ckpt\*"):
        read_karlo(tmp_path, cascade.clip, UNTOLD)
    with pytest.raises(UserError, match="give --head-dim"):
        read_karlo(folder, cascade.clip, Untold(16, 32, 64, 4))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    [decoder] = tmp_path.glob("decoder*")
    save_file({"model.other.weight": np.zeros(2, np.float32)}, decoder)
    with pytest.raises(UserError, match="not the weights of a karlo U-Net"):
        read_karlo(tmp_path, cascade.clip, UNTOLD)
    save_file({"other": np.zeros(2, np.float32)}, decoder)
    with pytest.raises(UserError, match="it is not karlo's"):
        read_karlo(tmp_path, cascade.clip, UNTOLD)


def test_an_unknown_tensor_is_named(cascade):
    state = karlo_unet(cascade.decoder.params["unet"])
    assert ladder(state).attends == (1,)
    assert "extra.weight" in unet_names({**state, "extra.weight": np.zeros(1)}, HEAD)
