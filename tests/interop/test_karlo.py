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
from karlo_files import HEAD, SIZES, import_command, karlo_files, karlo_unet
from safetensors.numpy import save_file

from unclip_jax.cli import main
from unclip_jax.errors import UserError
from unclip_jax.generation import compose
from unclip_jax.interop import read_bundle, write_bundle
from unclip_jax.interop.karlo import Untold, read_karlo
from unclip_jax.interop.karlo_names import ladder, split_heads, unet_names
from unclip_jax.models.spatial_attention import SpatialAttention

UNTOLD = Untold(**SIZES)


@pytest.fixture(scope="module")
def cascade():
    return make_cascade()


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("karlo")
    for name, state in karlo_files(cascade).items():
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
    write_bundle(compose([cascade.clip]), tmp_path / "clip")
    assert main(import_command(folder, tmp_path / "clip", tmp_path / "karlo")) == 0
    found = read_bundle(tmp_path / "karlo").cascade
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
