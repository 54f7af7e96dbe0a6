"""Stored embeddings that a run may not build on are refused before it starts."""

import argparse
import dataclasses

import numpy as np
import pytest

from unclip_jax.cli import train as command
from unclip_jax.cli.frozen import FrozenClip, frozen_parameters
from unclip_jax.config import load_config
from unclip_jax.data import Provenance, write_embeddings
from unclip_jax.errors import UserError
from unclip_jax.preflight import abstract_frozen
from unclip_jax.preflight.flops import Flops

CLIP = FrozenClip("runs/clip", load_config("clip:tiny"), {}, "abc")


@pytest.fixture
def config(tmp_path, shards):
    """A prior on a copy of the training shards with embeddings of `made_by` beside them."""

    def make(made_by, scale="paper", **settings):
        for name, count in (("train-00000.tar", 24), ("train-00001.tar", 16)):
            (tmp_path / name).write_bytes((shards / name).read_bytes())
            rows = np.random.default_rng(count).normal(size=(count, 16)).astype(np.float32)
            if made_by.normalised:
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            for kind in ("image", "text"):
                write_embeddings(tmp_path / name, kind, rows, made_by)
        chosen = {
            "data.train": f"{tmp_path}/*.tar",
            "data.embeddings": "stored",
            "clip.path": "runs/clip",
            "model.embedding_scale": scale,
        }
        return load_config("prior:tiny", chosen | settings)

    return make


MINE = Provenance("mine", "abc", normalised=False)


@pytest.mark.parametrize(
    ("made_by", "scale", "message"),
    [
        (dataclasses.replace(MINE, model_hash="other"), "paper", "made by another CLIP"),
        (dataclasses.replace(MINE, model_hash="unknown"), "paper", "nobody says which CLIP"),
        (dataclasses.replace(MINE, normalised=True), "whiten", "whiten needs the length"),
        (dataclasses.replace(MINE, normalised=True), "raw", "raw needs the length"),
    ],
)
def test_refused(config, tmp_path, made_by, scale, message):
    with pytest.raises(UserError, match=message):
        frozen_parameters(config(made_by, scale), CLIP, tmp_path / "run")


@pytest.mark.parametrize(
    ("normalised", "scale"), [(False, "paper"), (True, "paper"), (True, "unit"), (False, "whiten")]
)
def test_accepted(config, tmp_path, normalised, scale):
    made_by = dataclasses.replace(MINE, normalised=normalised)
    found = frozen_parameters(config(made_by, scale), CLIP, tmp_path / "run")
    assert ("statistics" in found) == (scale == "whiten")


def test_stored_text_is_checked_too(config, tmp_path):
    stored = config(dataclasses.replace(MINE, model_hash="other"))
    text_only = dataclasses.replace(
        stored,
        data=dataclasses.replace(stored.data, embeddings="computed", text_features="stored"),
    )
    with pytest.raises(UserError, match="made by another CLIP"):
        frozen_parameters(text_only, CLIP, tmp_path / "run")


def test_a_run_is_given_the_towers_that_it_reads(config, tmp_path, monkeypatch):
    """From the command to the loop: the text tower, its image embeddings being stored."""
    given = {}
    clip = dataclasses.replace(CLIP, params=abstract_frozen(CLIP.config, CLIP.model)["clip"])
    monkeypatch.setattr(command, "config_from", lambda args: config(MINE))
    monkeypatch.setattr(command, "load_clip", lambda path: clip)
    monkeypatch.setattr(command, "stage_flops", lambda *args: Flops())
    monkeypatch.setattr(
        command, "train", lambda config, stage, frozen, *a, **k: given.update(frozen) or True
    )
    assert command.run(argparse.Namespace(workdir=tmp_path / "run")) == 0
    assert given["clip"].keys() & {"vision", "text"} == {"text"}
