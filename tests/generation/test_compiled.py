"""What is compiled, and when: one program or several, nothing anew for other numbers."""

import jax
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.models import winograd

PROMPTS = ["a red heart", "two blue fish"]
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # once for each program, cached or not


@pytest.fixture
def compilations():
    """A list that grows by one for every program that is compiled."""
    found = []

    def listen(event, duration, **facts):
        if event == LOWERED:
            found.append(facts.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_the_whole_path_in_one_program_gives_the_same_pictures(cascade, one_device, pipeline):
    options = {"images_per_prompt": 2, "seed": 3, "batch_size": 4}
    whole = Pipeline(cascade, one_device, program="whole")(PROMPTS, **options)
    stages = pipeline(PROMPTS, **options)
    np.testing.assert_allclose(whole.embeddings, stages.embeddings, atol=2e-6)
    assert list(whole.stages) == list(stages.stages)
    for name, pictures in whole.stages.items():
        assert pictures.dtype == np.uint8
        off = np.abs(pictures.astype(int) - stages.stages[name])
        assert off.max() <= 1  # products may be fused differently
        assert (off > 0).mean() < 0.01


def test_convolutions_with_fewer_multiplications_give_the_same_pictures(
    clip, make, one_device, pipeline, monkeypatch
):
    """Those that pay are larger than these: the limit is lowered, for configs not yet compiled."""
    taken = []
    monkeypatch.setattr(winograd, "_LEAST_FLOPS", 0)
    monkeypatch.setattr(
        winograd, "convolve", lambda *a, f=winograd.convolve: taken.append(a[0].shape) or f(*a)
    )
    new = {"optim__learning_rate": "0.5"}  # means nothing to a program
    parts = [clip, make("prior", clip), make("decoder", clip, **new), make("upsampler", **new)]
    options = {"images_per_prompt": 2, "seed": 3, "batch_size": 4}
    found = Pipeline(compose(parts), one_device)(PROMPTS, **options)
    assert {shape[1] for shape in taken} >= {8, 16}  # in the decoder and in the upsampler
    for name, pictures in pipeline(PROMPTS, **options).stages.items():
        off = np.abs(pictures.astype(int) - found.stages[name])
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01


def test_an_unknown_choice_of_program_is_refused(cascade):
    with pytest.raises(UserError, match="program: must be 'stages' or 'whole'"):
        Pipeline(cascade, program="one")


def test_nothing_is_compiled_for_other_prompts_seeds_scales_steps_tables_or_counts(
    pipeline, compilations
):
    """A pipeline that has drawn 3 pictures is asked for other things that fit into 4."""

    def draw(prompts, count, seed, **decoder):
        settings = {"decoder": decoder, "prior": {"clip_range": 4.0 + seed}}
        return pipeline(prompts, images_per_prompt=count, seed=seed, sampling=settings)

    draw(PROMPTS[0], 3, 0, guidance_scale=3.0)
    compilations.clear()
    for change in (
        {"prompts": "another prompt"},
        {"count": 4},
        {"prompts": PROMPTS, "count": 2},
        {"seed": 2**32 - 1},
        {"guidance_scale": 9.0},
        {"spacing": "1,2"},  # other timesteps, as many
    ):
        draw(**({"prompts": PROMPTS[0], "count": 3, "seed": 0, "guidance_scale": 3.0} | change))
    assert compilations == []
    draw(PROMPTS[0], 3, 0, guidance_scale=3.0, steps=4)
    assert compilations, "the listener hears nothing"


def test_bfloat16_draws_nearly_the_same_pictures(pipeline):
    """Networks alone round to 8 bits, 0.4 %; the draws and what the steps sum up do not.

    Another seed's pictures are 40 grey levels away on average.
    """
    options = {"images_per_prompt": 2, "seed": 3, "batch_size": 4}
    halved = {name: {"compute": "bfloat16"} for name in ("prior", "decoder", "upsampler")}
    exact, rounded = pipeline(PROMPTS, **options), pipeline(PROMPTS, sampling=halved, **options)
    off = np.linalg.norm(rounded.embeddings - exact.embeddings) / np.linalg.norm(exact.embeddings)
    assert 1e-4 < off < 0.02
    for name, pictures in rounded.stages.items():
        levels = np.abs(pictures.astype(int) - exact.stages[name])
        assert 0 < levels.mean() < 1
        assert levels.max() <= 5
