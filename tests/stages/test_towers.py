"""A run places those towers of the frozen CLIP that it reads, and no others."""

import jax
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.preflight import abstract_batch, abstract_frozen
from unclip_jax.preflight.abstract_step import abstract_stage
from unclip_jax.stages import features

CLIP = load_config("clip:tiny").model
STORED = {"data.embeddings": "stored", "data.text_features": "stored"}
PATH = {"clip.path": "unused"}


def made(name, **settings):
    config = load_config(f"{name}:tiny", PATH | settings)
    return config, stages.build(config, CLIP)


def reads(config, function, params, needs, **changed):
    """The towers without any one of which a function of the stage can't be traced."""
    frozen = abstract_frozen(config, CLIP)
    batch = abstract_batch(needs, 2, CLIP) | changed
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    found = []
    for tower in ("vision", "text"):
        clip = {name: value for name, value in frozen["clip"].items() if name != tower}
        try:
            jax.eval_shape(function, params, frozen | {"clip": clip}, batch, keys)
        except Exception as error:  # whatever a network says without its parameters
            assert tower in str(error) or "image tower" in str(error)  # noqa: PT017
            found.append(tower)
    return tuple(found)


@pytest.mark.parametrize("settings", [{}, {"data.embeddings": "stored"}, STORED], ids=len)
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("prior", {}),
        ("prior", {"model.null_text": "empty"}),
        ("decoder", {}),
        ("decoder", {"model.null_text": "empty"}),
        ("decoder", {"model.text_encoder": "none"}),
    ],
    ids=str,
)
def test_what_is_declared_is_what_is_read(name, model, settings):
    config, stage = made(name, **settings, **model)
    params = jax.eval_shape(stage.init, jax.random.key(0))
    assert stage.towers == reads(config, stage.loss, params, stage.needs)
    if stage.preview is not None:
        assert stage.drawing_towers == reads(config, stage.preview, params, stage.needs)


@pytest.mark.parametrize(
    ("settings", "towers"),
    [
        ({"data.validation": "none"}, set()),
        ({"data.validation": "val.tar"}, {"text"}),
        ({"data.validation": "val.tar", "train.preview.examples": "0"}, set()),
        ({"data.validation": "none", "train.preview.prompts": "('a cat',)"}, {"text"}),
    ],
    ids=str,
)
def test_towers_that_only_previews_read_wait_for_one(settings, towers):
    config, stage = made("decoder", **STORED, **settings)
    placed = features.towers_in_use(config, stage, abstract_frozen(config, CLIP)["clip"])
    assert placed.keys() & {"vision", "text"} == towers
    assert bool(placed) == bool(towers)


@pytest.mark.parametrize("settings", [{}, {"data.embeddings": "stored"}], ids=len)
@pytest.mark.parametrize("name", ["decoder", "prior"])
def test_what_is_placed_is_enough(name, settings):
    config, stage = made(name, **settings)
    frozen = abstract_stage(config, CLIP)[1]
    params = jax.eval_shape(stage.init, jax.random.key(0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    jax.eval_shape(stage.loss, params, frozen, abstract_batch(stage.needs, 2, CLIP), keys)


@pytest.mark.parametrize("name", ["decoder", "prior"])
def test_plans_count_what_is_placed(name):
    config = load_config(f"{name}:tiny", PATH | STORED | {"data.validation": "none"})
    assert abstract_stage(config, CLIP)[1]["clip"] == {}
