"""What a config says about sampling reaches the sampler, the guidance and the thresholding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng
from unclip_jax.diffusion import DynamicThresholding, StaticThresholding, make_schedule
from unclip_jax.errors import UserError
from unclip_jax.stages.configured_sampler import configured_sampler
from unclip_jax.stages.sampling import (
    Conditions,
    draw,
    make_guidance,
    make_plan,
    make_thresholding,
    start,
)
from unclip_jax.stages.schedule import training_schedule

CLIP = load_config("clip:tiny").model


def configured(stage="decoder", **overrides):
    return load_config(f"{stage}:tiny", {k.replace("__", "."): v for k, v in overrides.items()})


def sampler_of(config):
    return configured_sampler(training_schedule(config), config.diffusion, config.sampling)


def test_spacing_goes_before_steps():
    config = configured(sampling__spacing="fast27")
    table = sampler_of(config).table
    assert len(table["t"]) == 27
    assert table["t"][0] == 997  # GLIDE's: T-3 instead of T-1
    assert len(sampler_of(configured(sampling__steps="7")).table["t"]) == 7


def test_the_variance_of_ddpm_is_learned_if_it_can_be_and_nothing_else_is_said():
    plain = configured(sampling__sampler="ddpm")
    learned = configured(sampling__sampler="ddpm", diffusion__learned_variance="true")
    assert "high" in sampler_of(learned).table
    small = sampler_of(plain).table["std"]
    large = sampler_of(configured(sampling__sampler="ddpm", sampling__variance="fixed_large"))
    assert np.all(large.table["std"][:-1] > small[:-1])


def test_moments_of_analytic_dpm_must_fit_the_steps():
    moments = "(0.2,0.5,1.0)"
    config = configured(
        sampling__sampler="analytic_dpm", sampling__steps="3", sampling__moments=moments
    )
    assert sampler_of(config).name == "analytic_dpm"
    more = dataclasses.replace(config.sampling, steps=4)
    with pytest.raises(UserError, match=r"each of 4 steps, but has 3: .*unclip moments"):
        configured_sampler(training_schedule(config), config.diffusion, more)


def test_thresholding_is_what_the_config_says():
    make = lambda **o: make_thresholding(make_plan(configured(**o)))  # noqa: E731
    assert make() == StaticThresholding(1.0)
    assert make(sampling__clip_range="none") is None
    dynamic = make(sampling__thresholding="dynamic", sampling__threshold_quantile="0.9")
    assert dynamic == DynamicThresholding(0.9, 1.0)


def test_guidance_is_what_the_config_says():
    conditions = Conditions("cond", "uncond", "without text")
    make = lambda **o: make_guidance(  # noqa: E731
        conditions, make_plan(configured(**({"sampling__guidance_scale": "3"} | o)))
    )
    assert make(sampling__guidance_scale="1") is None
    one = make(sampling__guidance_interval="(100,900)", sampling__guidance_rescale="0.7")
    assert (one.guidance_scale, one.interval) == (3.0, (100, 900))
    assert one.rescale == pytest.approx(0.7)
    two = make(sampling__text_guidance_scale="5", sampling__guidance_scale="1")
    assert (two.guidance_scale, two.intermediate_scale, two.intermediate) == (
        *(5.0, 1.0),
        "without text",
    )
    with pytest.raises(UserError, match="no condition beside its text"):
        make_guidance(
            Conditions("cond", "uncond"),
            make_plan(configured(sampling__text_guidance_scale="5")),
        )


def test_text_and_embedding_are_guided_separately_in_a_draw():
    """A network that is linear in its conditions shows the scales: x_0 = s_text - s_other."""
    config = configured(
        diffusion__prediction="x0", sampling__steps="1", sampling__text_guidance_scale="5",
        sampling__clip_range="none", sampling__guidance_scale="2",
    )  # fmt: skip

    def network(x_t, t, condition):
        return jnp.zeros_like(x_t) + condition[:, None]

    keys = rng.example_keys(jax.random.key(0), "sample", 0, 2)
    value = lambda v: jnp.full(2, v)  # noqa: E731
    plan = make_plan(config)
    drawn = draw(
        network,
        Conditions(cond=value(1.0), uncond=value(1.0), partial=value(0.0)),
        start(plan, config, keys, (3,)),
        keys,
        config=config,
        plan=plan,
    )
    # uncond + 2 (partial - uncond) + 5 (cond - partial) = 1 - 2 + 5
    np.testing.assert_allclose(drawn, 4.0, rtol=1e-6)


def test_the_schedule_is_shifted_for_the_picture_size_and_ends_in_pure_noise():
    plain = make_schedule("cosine").snr
    config = configured("upsampler", diffusion__reference_size="4")  # of 16 px pictures
    np.testing.assert_allclose(training_schedule(config).snr, plain / 16, rtol=1e-9)
    zero = configured(diffusion__zero_terminal_snr="true")
    assert training_schedule(zero).alpha_bars[-1] == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sampling__sampler": "ddin"}, "unknown sampler 'ddin'.*did you mean"),
        ({"sampling__spacing": "fast26"}, "cannot read sampling steps 'fast26'"),
        ({"diffusion__schedule": "cosin"}, "unknown noise schedule 'cosin'.*'cosine'"),
    ],
)
def test_a_stage_that_could_not_draw_is_refused_before_it_is_trained(overrides, message):
    with pytest.raises(UserError, match=message):
        stages.build(configured(**overrides), CLIP)
