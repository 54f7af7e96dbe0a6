"""What reviewers can't see in code: resolved configs, parameters and shardings of every preset.

A mismatch means that a preset changed. If that is intended, `make golden` writes the files anew;
their diff is part of the review.
"""

import json
import os
import pathlib

import jax
import pytest
from presets import CASES, CLIP_OF, PRESETS

from unclip_jax import stages
from unclip_jax.cli.inspect_shardings import report
from unclip_jax.config import load_config, preset_dir, to_mapping
from unclip_jax.core import trees
from unclip_jax.preflight.topology import tpu_topology
from unclip_jax.training.optimizer import decay_mask

HERE = pathlib.Path(__file__).parent


def compare(name, text):
    path = HERE / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    expected = path.read_text() if path.exists() else ""
    assert text == expected, f"{name} differs; `make golden` writes it anew, then review the diff"


@pytest.mark.parametrize(("stage", "variant"), CASES)
def test_resolved_config(stage, variant):
    config = to_mapping(load_config(f"{stage}:{variant}"))
    compare(f"{stage}_{variant}.config.json", json.dumps(config, indent=1) + "\n")


@pytest.mark.parametrize(("stage", "variant"), CASES)
def test_parameter_table(stage, variant):
    """path, shape, d if weight decay applies."""
    config = load_config(f"{stage}:{variant}")
    clip = load_config(f"clip:{CLIP_OF.get(variant, 'tiny')}").model
    params = jax.eval_shape(stages.build(config, clip).init, jax.random.key(0))
    decays = trees.flatten(decay_mask(params))
    lines = [f"{trees.count(params):,} parameters"]
    for path, leaf in trees.flatten(params).items():
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        lines.append(f"{path}  {shape}  {'d' if decays[path] else '-'}")
    compare(f"{stage}_{variant}.parameters.txt", "\n".join(lines) + "\n")


SPLIT = [case for case in CASES if case[1] == "tiny" or "paper" in case[1]]


@pytest.mark.parametrize(("stage", "variant"), [*SPLIT, ("clip", "vit_h16")])
def test_shardings(stage, variant):
    """What `unclip inspect shardings` says for 16 devices, 4 by fsdp and 2 by tensor."""
    mesh = {"mesh.data": "2", "mesh.fsdp": "4", "mesh.tensor": "2"}
    tiny = {"mesh.min_size": "64"} if variant == "tiny" else {}
    config = load_config(f"{stage}:{variant}", mesh | tiny)
    clip = load_config(f"clip:{CLIP_OF.get(variant, 'tiny')}").model
    compare(f"{stage}_{variant}.shardings.txt", report(config, clip, devices=16))


def test_shardings_on_a_named_topology():
    """The paper's prior on 64 chips, by the preset's own mesh: needs no compiler."""
    topology = tpu_topology("v5p:4x4x4")
    config, clip = load_config("prior:paper"), load_config("clip:paper").model
    text = report(config, clip, devices=topology.chips)
    compare("prior_paper.v5p_4x4x4.shardings.txt", text)


def test_every_preset_file_is_covered():
    files = {p.stem for p in preset_dir().glob("*.py")} - {"__init__"}
    assert files == set(PRESETS)
