"""Where single numbers of a CLIP file go, written out by hand."""

import json
import pathlib

import numpy as np

from unclip_jax.interop.clip_weights import import_clip
from unclip_jax.models.clip import Clip

VECTORS = pathlib.Path(__file__).parents[1] / "vectors"


def recording(dialect):
    """The CLIP and the state dict that were recorded from one of the two libraries."""
    recorded = np.load(VECTORS / f"clip_{dialect}.npz")
    names = [k for k in recorded if k.startswith("weights/")]
    state = {k.removeprefix("weights/"): recorded[k].astype(np.float32) for k in names}
    return Clip(**json.loads(str(recorded["size"]))), state


def test_layouts_of_tensors_by_hand():
    clip, state = recording("open_clip")
    params = import_clip(state, clip)
    conv = params["vision"]["patch_embedding"]["kernel"]
    assert conv[1, 2, 0, 3] == state["visual.conv1.weight"][3, 0, 1, 2]
    qkv = params["text"]["transformer"]["block_1"]["qkv"]["kernel"]
    assert (
        qkv[5, 1, 4] == state["transformer.resblocks.1.attn.in_proj_weight"][20, 5]
    )  # width 16: rows 16..31 are the keys
    assert params["text_projection"]["kernel"][3, 4] == state["text_projection"][3, 4]
    clip, state = recording("huggingface")
    params = import_clip(state, clip)
    qkv = params["text"]["transformer"]["block_1"]["qkv"]["kernel"]
    keys = state["text_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert qkv[5, 1, 4] == keys[4, 5]
    assert params["text_projection"]["kernel"][3, 4] == state["text_projection.weight"][4, 3]
