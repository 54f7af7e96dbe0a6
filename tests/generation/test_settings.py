"""What a caller asks for is put over what a stage's config says, and checked."""

import dataclasses

import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation.settings import compiled_part, resolve


def test_without_overrides_each_stage_samples_as_its_config_says(cascade):
    found = resolve(cascade)
    assert list(found) == ["prior", "decoder", "upsampler"]
    assert all(found[name] == cascade.named()[name].config.sampling for name in found)


def test_overrides_touch_their_stage_and_setting_only(cascade):
    found = resolve(cascade, {"decoder": {"steps": "7", "guidance_scale": 3}})
    assert (found["decoder"].steps, found["decoder"].guidance_scale) == (7, 3.0)
    assert found["decoder"].sampler == cascade.decoder.config.sampling.sampler
    assert found["prior"] == cascade.prior.config.sampling


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"decode": {}}, "sampling.decode: no such stage here (did you mean 'decoder'?)"),
        ({"clip": {"steps": 2}}, "sampling.clip: no such stage"),
        ({"prior": {"step": 2}}, "sampling.prior.step: no such setting (did you mean 'steps'?)"),
        ({"prior": {"sampler": "ddin"}}, "no sampler 'ddin' (did you mean"),
        ({"prior": {"sampler": "analytic_dpm"}}, "sampling.prior: sampling.sampler=analytic_dpm"),
        ({"prior": {"text_guidance_scale": 2}}, "sampling.prior.text_guidance_scale: only"),
        ({"decoder": {"spacing": "10,x"}}, "sampling.decoder: cannot read sampling steps '10,x'"),
        ({"prior": {"sampler": "ddim_inversion"}}, "no sampler 'ddim_inversion'"),
        ({"decoder": {"steps": 1001}}, "sampling.decoder.steps: must be 1 to 1000"),
        ({"decoder": {"steps": 0}}, "sampling.decoder.steps: must be 1 to 1000"),
        ({"prior": {"candidates": 0}}, "sampling.prior.candidates: must be positive"),
        ({"decoder": {"guidance_scale": "much"}}, "expected a number, got 'much'"),
    ],
)
def test_bad_settings_are_named(cascade, overrides, words):
    with pytest.raises(UserError) as error:
        resolve(cascade, overrides)
    assert words in str(error.value)


def test_programs_do_not_depend_on_the_data_but_on_the_precision(cascade):
    config = cascade.decoder.config
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, mixture={"a": {}}))
    assert hash(compiled_part(other)) == hash(compiled_part(config))
    chosen = resolve(cascade, {"decoder": {"compute": "bfloat16"}})["decoder"]
    assert compiled_part(config, chosen).precision.compute == "bfloat16"
    assert compiled_part(config, config.sampling).precision == config.precision
