"""Text to pictures: shapes, prefixes of the chain, and draws that depend on nothing else."""

import jax
import numpy as np
import pytest

from unclip_jax.core import images
from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose, programs
from unclip_jax.stages.clip import make_clip
from unclip_jax.text import tokenize

PROMPTS = ["a red heart", "two blue fish"]
BATCH = 4


def draw(pipeline, prompts=PROMPTS, **options):
    return pipeline(prompts, **({"images_per_prompt": 2, "seed": 3, "batch_size": BATCH} | options))


@pytest.fixture(scope="module")
def drawn(pipeline):
    return draw(pipeline)


@pytest.fixture(scope="module")
def one_by_one(pipeline):
    return draw(pipeline, batch_size=1)


def distance(a, b):
    """The greatest difference of two results, in grey levels, over all stages."""
    return max(int(np.abs(a.stages[k].astype(int) - b.stages[k]).max()) for k in a.stages)


def test_every_stage_has_its_pictures(drawn):
    assert drawn.embeddings.shape == (2, 2, 16)
    assert drawn.embeddings.dtype == np.float32
    assert {k: v.shape for k, v in drawn.stages.items()} == {
        "decoder": (2, 2, 8, 8, 3),
        "upsampler": (2, 2, 16, 16, 3),
    }
    assert all(v.dtype == np.uint8 for v in drawn.stages.values())
    assert drawn.images is drawn.stages["upsampler"]
    assert (drawn.prompts, drawn.seed) == (tuple(PROMPTS), 3)


def test_all_draws_differ(drawn):
    for pictures in drawn.stages.values():
        flat = pictures.reshape(4, -1).astype(int)
        for i in range(4):
            for j in range(i):
                assert (flat[i] != flat[j]).mean() > 0.5


def test_pictures_do_not_depend_on_the_number_of_devices(one_by_one, cascade):
    """One example at a time on each device: on one of them or on eight, bit for bit."""
    eight = draw(Pipeline(cascade), batch_size=8)
    np.testing.assert_array_equal(eight.embeddings, one_by_one.embeddings)
    assert distance(eight, one_by_one) == 0


def test_pictures_hardly_depend_on_the_batch_size(one_by_one, drawn):
    """The draws are equal; products of other shapes may round differently in the last bits."""
    np.testing.assert_allclose(drawn.embeddings, one_by_one.embeddings, rtol=0, atol=2e-6)
    assert distance(drawn, one_by_one) <= 1
    differing = [np.mean(drawn.stages[k] != one_by_one.stages[k]) for k in drawn.stages]
    assert max(differing) < 0.01


def test_more_images_and_more_prompts_leave_the_first_ones_alone(pipeline, drawn):
    more = draw(pipeline, [*PROMPTS, "a tree"], images_per_prompt=3)
    np.testing.assert_array_equal(more.images[:2, :2], drawn.images)
    np.testing.assert_array_equal(more.embeddings[:2, :2], drawn.embeddings)


def test_keys_are_made_of_seed_image_number_and_prompt_index(pipeline):
    keys = pipeline.keys(prompts=3, images_per_prompt=2, seed=7)
    for i in range(3):
        for j in range(2):
            wanted = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), j), i)
            assert keys[2 * i + j] == wanted


def test_the_steps_one_by_one_give_the_whole(pipeline, drawn):
    # Image 1 of prompt 0 and image 0 of prompt 1: the middle two of four.
    keys = pipeline.keys(2, 2, seed=3)[1:3]
    z = pipeline.draw_embeddings(PROMPTS, keys, batch_size=BATCH)
    pictures = pipeline.decode(z, PROMPTS, keys, batch_size=BATCH)
    large = pipeline.upsample("upsampler", pictures, keys, batch_size=BATCH)
    np.testing.assert_array_equal(z, drawn.embeddings.reshape(4, -1)[1:3])
    np.testing.assert_array_equal(pictures, drawn.stages["decoder"].reshape(4, 8, 8, 3)[1:3])
    np.testing.assert_array_equal(large, drawn.images.reshape(4, 16, 16, 3)[1:3])


def test_the_seed_and_the_prompt_matter(pipeline, drawn):
    assert distance(draw(pipeline, seed=4), drawn) > 10
    other = draw(pipeline, ["a green tree", PROMPTS[1]])
    assert np.abs(other.embeddings[0] - drawn.embeddings[0]).max() > 1e-3
    np.testing.assert_array_equal(other.images[1], drawn.images[1])


def test_the_guidance_scale_is_an_argument_of_the_compiled_program(pipeline, drawn, monkeypatch):
    traced = []
    for name in ("sample_prior", "sample_decoder", "sample_upsampler"):
        original = getattr(programs, name)

        def count(*args, _name=name, _original=original, **options):
            traced.append(_name)
            return _original(*args, **options)

        monkeypatch.setattr(programs, name, count)
    scales = {"prior": {"guidance_scale": 3.0}, "decoder": {"guidance_scale": 0.5}}
    other = draw(pipeline, sampling=scales)
    assert traced == []
    assert distance(other, drawn) > 0
    assert np.abs(other.embeddings - drawn.embeddings).max() > 1e-3
    # Without guidance half of the network's work is left out: another program.
    for count, scale in enumerate((2.0, 1.0), start=1):
        how = {"prior": {"guidance_scale": scale, "candidates": 3}}
        pipeline.draw_embeddings(PROMPTS, pipeline.keys(2, 1, 0), sampling=how, batch_size=BATCH)
        assert traced == ["sample_prior"] * count


def test_more_candidates_are_never_further_from_the_text(pipeline, drawn):
    keys = pipeline.keys(2, 2, seed=3)
    captions = [prompt for prompt in PROMPTS for _ in range(2)]
    more = {"prior": {"candidates": 6}}  # the preset's own is 2, and the first two are the same
    many = pipeline.draw_embeddings(captions, keys, sampling=more, batch_size=BATCH)
    text = pipeline.embed_texts(captions)

    def cosine(z):
        return (z * text).sum(1) / np.linalg.norm(z, axis=1)

    few = drawn.embeddings.reshape(4, -1)
    assert (cosine(many) >= cosine(few) - 1e-6).all()
    assert (cosine(many) > cosine(few) + 1e-3).any()


def test_a_cascade_without_upsampler_stops_at_the_decoder(cascade, one_device, drawn):
    stages = cascade.named()
    short = Pipeline(compose(stages[k] for k in ("clip", "prior", "decoder")), one_device)
    np.testing.assert_array_equal(draw(short).images, drawn.stages["decoder"])


def test_a_cascade_without_decoder_gives_embeddings(cascade, one_device, drawn):
    short = draw(Pipeline(compose([cascade.clip, cascade.prior]), one_device))
    np.testing.assert_array_equal(short.embeddings, drawn.embeddings)
    with pytest.raises(UserError, match="no decoder"):
        _ = short.images


def test_a_cascade_without_prior_draws_nothing(cascade, one_device):
    with pytest.raises(UserError, match="has no prior, only clip, decoder"):
        draw(Pipeline(compose([cascade.clip, cascade.decoder]), one_device))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": []}, "nothing to draw"),
        ({"images_per_prompt": 0}, "nothing to draw"),
        ({"seed": -1}, "seed: must be"),
        ({"seed": 2**32}, "seed: must be"),
        ({"batch_size": 0}, "batch_size: must be positive"),
        ({"sampling": {"decoder": {"sampler": "euler"}}}, "no sampler 'euler'"),
    ],
)
def test_bad_requests_are_refused_before_any_work(pipeline, options, words):
    with pytest.raises(UserError, match=words):
        draw(pipeline, **options)


def test_single_steps_refuse_inputs_that_do_not_belong_together(pipeline):
    keys = pipeline.keys(1, 2, seed=0)
    with pytest.raises(UserError, match=r"prior: needs one or more of each.*\[1, 1, 2\]"):
        pipeline.draw_embeddings(["a heart"], keys)
    with pytest.raises(UserError, match="upsampler: takes pictures of 8 px, got"):
        pipeline.upsample("upsampler", np.zeros((2, 16, 16, 3), np.uint8), keys)
    with pytest.raises(UserError, match="clip: needs one or more"):
        pipeline.embed_texts([])


def test_each_stage_reports_every_picture(pipeline):
    told = {}

    class Watch:
        def __init__(self, stage, total):
            self.stage, told[stage] = stage, [total]

        def __enter__(self):
            return told[self.stage].append

        def __exit__(self, *error):
            return None

    draw(pipeline, images_per_prompt=3, report=Watch)
    assert told == {"prior": [6, 4, 2], "decoder": [6, 4, 2], "upsampler": [6, 4, 2]}


def test_clip_embeddings_of_texts_and_pictures(pipeline, cascade):
    clip = make_clip(cascade.clip.config.model, "float32")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    image, text, _, _ = jax.jit(clip.apply)(
        {"params": cascade.clip.params}, images.to_float(pictures), tokenize(PROMPTS, 16)
    )
    np.testing.assert_allclose(pipeline.embed_images(pictures), image, atol=1e-5)
    np.testing.assert_allclose(pipeline.embed_texts(PROMPTS), text, atol=1e-5)


def test_pictures_of_any_size_are_made_to_fit_clip(pipeline):
    smooth = np.linspace(0, 255, 8)[None, :, None, None] * np.array([1.0, 0.5, 0.2])
    smooth = np.broadcast_to(smooth, (1, 8, 8, 3)).astype(np.uint8)
    large = smooth.repeat(4, axis=1).repeat(4, axis=2)
    wide = np.pad(large, ((0, 0), (0, 0), (9, 9), (0, 0)))
    z = pipeline.embed_images(smooth)
    np.testing.assert_allclose(pipeline.embed_images(large), z, atol=0.05 * np.abs(z).max())
    np.testing.assert_array_equal(pipeline.embed_images(wide), pipeline.embed_images(large))
