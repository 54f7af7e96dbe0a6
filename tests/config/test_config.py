"""The schema refuses what it should, in words that help, and every shipped preset resolves."""

import dataclasses
import json
import textwrap

import pytest

from unclip_jax.config import from_mapping, load_config, to_mapping, to_steps
from unclip_jax.config.duration import parse_duration
from unclip_jax.errors import UserError

DECODER = {
    "stage": "decoder",
    "model": {
        "image_size": 16,
        "channels": 32,
        "multipliers": [1, 2],
        "depth": 1,
        "attention_resolutions": [8],
    },
    "data": {"train": "x.tar"},
    "train": {"batch_size": 8, "duration": "10 steps"},
    "clip": {"path": "clip"},
}


def changed(path, value):
    values = json.loads(json.dumps(DECODER))
    *groups, leaf = path.split(".")
    group = values
    for name in groups:
        group = group.setdefault(name, {})
    group[leaf] = value
    return values


def test_defaults_fill_in_and_round_trip():
    config = from_mapping(DECODER)
    assert config.model.multipliers == (1, 2)
    assert config.ema.decay == 0.9999
    assert from_mapping(json.loads(json.dumps(to_mapping(config)))) == config


def test_configs_are_static_arguments_of_compiled_programs():
    values = json.loads(json.dumps(DECODER))
    part = {"a": {"shards": "a.tar", "weight": 1.0}}
    mixed = from_mapping(values | {"data": {"mixture": part}})
    assert hash(from_mapping(values)) == hash(from_mapping(values))
    assert {mixed: 1}[from_mapping(values | {"data": {"mixture": part}})] == 1


def test_the_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_mapping(DECODER).seed = 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.learning_rat", 1e-3, r"config\.optim\.learning_rat: .*'learning_rate'"),
        ("model.chanels", 3, r"config\.model\.chanels: .*'channels'"),
        ("optim.learning_rate", "fast", r"learning_rate: expected a number, got 'fast'"),
        ("train.batch_size", 2.5, r"batch_size: expected a whole number, got 2\.5"),
        ("train.batch_size", True, r"batch_size: expected a whole number, got True"),
        ("train.batch_size", 0, r"batch_size: must be positive"),
        ("train.duration", "10 parsecs", r"config\.train\.duration: unknown unit"),
        ("train.duration", "soon", r"not a duration such as"),
        ("optim.name", "sgd", r"optim\.name: 'sgd' is not one of adamw"),
        ("stage", "decodr", r"config\.stage: 'decodr' is not one of clip, prior"),
        ("model.attention_resolutions", [7], r"attention_resolutions: 7 .*model\.image_size=16"),
        ("model.image_size", 15, r"image_size=15 .*multipliers"),
        ("model.space_to_depth", 3, r"image_size=16 can't be halved .*space_to_depth=3"),
        ("model.space_to_depth", 0, r"space_to_depth: must be positive"),
        ("sampling.steps", 2000, r"sampling\.steps=2000 exceeds config\.diffusion\.num_steps"),
        ("sampling.guidance_interval", [5], r"guidance_interval=\(5,\): give the first and the"),
        ("sampling.guidance_rescale", 2, r"guidance_rescale: must be from 0 to 1"),
        ("sampling.variance", "learned_range", r"learned_range needs .*learned_variance=True"),
        ("sampling.sampler", "analytic_dpm", r"analytic_dpm needs moments .*unclip moments"),
        ("diffusion.zero_terminal_snr", True, r"prediction must be x0 or v"),
        ("diffusion.reference_size", 0, r"reference_size: must be positive"),
        ("clip.path", None, r"needs config\.clip\.path"),
        ("model.drop_text", 1.5, r"drop_text: is a probability"),
        ("model", 3, r"config\.model: expected a group of settings"),
    ],
)
def test_mistakes_are_one_clear_line(path, value, message):
    with pytest.raises(UserError, match=message) as error:
        from_mapping(changed(path, value))
    assert "\n" not in str(error.value)


def test_a_setting_without_default_must_be_given():
    values = json.loads(json.dumps(DECODER))
    del values["train"]["duration"]
    with pytest.raises(UserError, match=r"config\.train\.duration: must be given"):
        from_mapping(values)


def test_overrides_are_parsed_by_the_type_of_the_setting(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(f"""
        import ml_collections
        def get_config(variant="a"):
            return ml_collections.ConfigDict({DECODER!r})
        """)
    )
    config = load_config(
        f"{file}:a",
        {
            "optim.learning_rate": "1e-4",
            "model.multipliers": "1,2,2",
            "model.attention_resolutions": "(8,)",
            "train.time_limit_minutes": "none",
        },
    )
    assert config.optim.learning_rate == 1e-4
    assert config.model.multipliers == (1, 2, 2)
    assert config.train.time_limit_minutes is None


def test_a_missing_file_names_the_nearest_preset():
    with pytest.raises(UserError, match="did you mean 'decoder'"):
        load_config("configs/decodr.py")


def test_durations():
    assert parse_duration("1.5M examples", "x") == (1.5e6, "examples")
    assert to_steps("3 epochs", batch_size=32, dataset_size=100, where="x") == 10
    assert to_steps("100 examples", batch_size=32, dataset_size=1, where="x") == 4
    assert to_steps("1 step", batch_size=32, dataset_size=1, where="x") == 1
