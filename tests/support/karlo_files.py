"""karlo's four files, of a cascade of ours, by the names of its own code: {stem: state dict}.

Its names and its order of heads are written down here by hand, independently of the importer.
"""

import numpy as np

from unclip_jax.core import trees

HEAD = 4  # of the decoder; the prior has heads of 12
SIZES = {"image_size": 16, "large_size": 32, "head_dim": HEAD, "norm_groups": 4}  # no tensor tells


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


def karlo_files(cascade):
    """What each file of karlo's holds; of the statistics, as a tuple is read."""
    upsampler = cascade.upsamplers[0].params
    first = prefixed("model_first_steps", karlo_unet(upsampler["unet"]))
    last = prefixed("model_last_step", karlo_unet(upsampler["last_step"]["unet"]))
    prior, decoder = karlo_prior(cascade.prior.params), karlo_decoder(cascade.decoder.params)
    return {
        "prior-ckpt-step=01000000-of-01000000": prefixed("model", prior),
        "decoder-ckpt-step=01000000-of-01000000": prefixed("model", decoder),
        "improved-sr-ckpt-step=1.2M": first | last,
        "ViT-L-14_stats": {
            str(i): cascade.prior.statistics[k] for i, k in enumerate(("mean", "std"))
        },
    }


def import_command(folder, clip, out):
    """`unclip import karlo` with the sizes of the shrunk karlo."""
    sizes = [part for k, v in SIZES.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    return ["import", "karlo", str(folder), "--clip", str(clip), "--out", str(out), *sizes]
