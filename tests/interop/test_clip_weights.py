"""CLIP importer: recorded state dicts, exact round trips, and refusals that say what is wrong.

That imported weights compute the right embeddings is shown in tests/models/test_clip.py.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from unclip_jax.errors import UserError
from unclip_jax.interop.clip_weights import export_clip, import_clip, read_state_dict
from unclip_jax.models import Clip, stack_layers

VECTORS = pathlib.Path(__file__).parents[1] / "vectors"
DIALECTS = ("open_clip", "huggingface")


@functools.cache
def recording(dialect):
    recorded = np.load(VECTORS / f"clip_{dialect}.npz")
    names = [k for k in recorded if k.startswith("weights/")]
    state = {k.removeprefix("weights/"): recorded[k].astype(np.float32) for k in names}
    return Clip(**json.loads(str(recorded["size"])), scan_layers=False), state


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_export_inverts_import_exactly(dialect):
    clip, state = recording(dialect)
    params = jax.tree.map(jnp.asarray, import_clip(state, clip))
    exported = export_clip(params, clip, dialect)
    assert set(exported) == set(state)
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
        assert value.dtype == np.float32
        assert value.flags.c_contiguous


@pytest.mark.parametrize("scan_layers", [False, True])
def test_both_namings_carry_the_same_parameters(scan_layers):
    clip, state = recording("open_clip")
    clip = clip.clone(scan_layers=scan_layers)
    params = import_clip(state, clip)
    other = import_clip(export_clip(params, clip, "huggingface"), clip)
    assert_equal_trees(params, other)


def test_the_layout_follows_scan_layers():
    clip, state = recording("open_clip")
    plain, scanned = (import_clip(state, clip.clone(scan_layers=s)) for s in (False, True))
    assert "block_1" in plain["text"]["transformer"]
    assert_equal_trees(stack_layers(plain), scanned)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(scanned))


def test_layouts_of_tensors_by_hand():
    clip, state = recording("open_clip")
    params = import_clip(state, clip)
    conv = params["vision"]["patch_embedding"]["kernel"]
    assert conv[1, 2, 0, 3] == state["visual.conv1.weight"][3, 0, 1, 2]
    qkv = params["text"]["transformer"]["block_1"]["qkv"]["kernel"]
    # width 16: rows 16..31 are the keys
    assert qkv[5, 1, 4] == state["transformer.resblocks.1.attn.in_proj_weight"][20, 5]
    assert params["text_projection"]["kernel"][3, 4] == state["text_projection"][3, 4]
    clip, state = recording("huggingface")
    params = import_clip(state, clip)
    qkv = params["text"]["transformer"]["block_1"]["qkv"]["kernel"]
    keys = state["text_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert qkv[5, 1, 4] == keys[4, 5]
    assert params["text_projection"]["kernel"][3, 4] == state["text_projection.weight"][4, 3]


def test_facts_stored_beside_the_weights_are_ignored():
    clip, state = recording("open_clip")
    facts = {k: np.array(7) for k in ("input_resolution", "context_length", "vocab_size")}
    assert_equal_trees(import_clip(state | facts, clip), import_clip(state, clip))
    clip, state = recording("huggingface")
    table = {"text_model.embeddings.position_ids": np.arange(10)[None]}
    assert_equal_trees(import_clip(state | table, clip), import_clip(state, clip))


def test_custom_text_clip_prefixes_and_one_element_scales_are_understood():
    clip, state = recording("open_clip")
    visual = ("visual.", "logit_scale")
    prefixed = {k if k.startswith(visual) else f"text.{k}": v for k, v in state.items()}
    prefixed["logit_scale"] = prefixed["logit_scale"].reshape(1)
    assert_equal_trees(import_clip(prefixed, clip), import_clip(state, clip))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_tower_alone(dialect):
    clip, state = recording(dialect)
    both = import_clip(state, clip)
    for tower in ("vision", "text"):
        part = export_clip(both, clip, dialect, towers=(tower,))
        got = import_clip(part, clip, towers=(tower,))
        assert_equal_trees(got, {k: v for k, v in both.items() if k.startswith(tower)})


def test_a_sigmoid_clip_brings_its_bias():
    clip, state = recording("open_clip")
    clip = clip.clone(initial_logit_bias=-10.0)
    params = import_clip(state | {"logit_bias": np.float32(-3.0)}, clip)
    assert params["logit_bias"] == -3.0
    with pytest.raises(UserError, match=r"1 missing \(logit_bias\)"):
        import_clip(state, clip)


def test_wrong_weights_are_refused_in_one_line():
    clip, state = recording("open_clip")
    less = {k: v for k, v in state.items() if k != "ln_final.bias"}
    extra = {"extra": np.ones(2)}
    linear = "transformer.resblocks.0.mlp.c_fc.weight"
    deeper, other = clip.clone(text_layers=3), clip.clone(embedding_dim=14)
    for given, model, message in (
        (state | extra, clip, r"this CLIP: 1 unknown \(extra\) tensors"),
        (less | extra, clip, r"1 unknown \(extra\) and 1 missing \(ln_final.bias\)"),
        (state | {linear: np.ones(3)}, clip, "c_fc.weight has 1 dimensions, expected 2"),
        (state, deeper, r"12 missing \(transformer.resblocks.2.attn.in_proj_bias, .*, \.\.\.\)"),
        (state, other, r"visual.proj makes vision_projection/kernel \(32, 12\).* \(32, 14\)"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            import_clip(given, model)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown CLIP naming 'hugingface'.*'huggingface'"):
        export_clip(import_clip(state, clip), clip, "hugingface")


def test_safetensors_files_are_read(tmp_path):
    state = recording("open_clip")[1]
    half = {k: v.astype(np.float16) for k, v in state.items()}
    save_file(half, tmp_path / "clip.safetensors")
    read = read_state_dict(tmp_path / "clip.safetensors")
    assert set(read) == set(state)
    np.testing.assert_array_equal(read["visual.proj"], half["visual.proj"])
