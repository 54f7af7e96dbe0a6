"""Which stages are taken together, and which are refused."""

import dataclasses

import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation import compose


@pytest.fixture(scope="module")
def parts(make, clip):
    return {
        "clip": clip,
        "prior": make("prior", clip),
        "decoder": make("decoder", clip),
        "upsampler": make("upsampler"),
        "larger": make("upsampler", model__low_size="16", model__image_size="32"),
    }


def test_stages_are_put_in_order_and_named(parts):
    named = compose(reversed(parts.values())).named()
    assert list(named) == ["clip", "prior", "decoder", "upsampler", "upsampler_32"]
    assert [named[name] for name in named] == list(parts.values())


@pytest.mark.parametrize(
    "names",
    [["clip"], ["clip", "prior"], ["clip", "prior", "decoder"], ["clip", "decoder"], ["larger"]],
)
def test_a_part_of_the_chain_is_a_cascade(parts, names):
    assert list(compose(parts[name] for name in names).named().values()) == [
        parts[name] for name in names
    ]


def _refused(stages, *words):
    with pytest.raises(UserError) as error:
        compose(stages)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_another_clip_is_refused(parts, make, kind):
    other = dataclasses.replace(make("clip", seed=1), source="runs/other")
    _refused([other, parts[kind]], f"runs/{kind}", "another CLIP", "runs/other")


@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_a_missing_clip_is_named(parts, kind):
    _refused([parts[kind]], f"runs/{kind}", "runs/clip")


def test_pictures_of_another_size_are_refused(parts):
    cascade = [parts["clip"], parts["decoder"], parts["larger"]]
    _refused(cascade, "runs/upsampler", "16 px", "runs/decoder", "8 px")


def test_upsamplers_must_follow_each_other(parts, make):
    gap = make("upsampler", model__low_size="32", model__image_size="64")
    _refused([parts["upsampler"], gap], "32 px", "16 px")


def test_two_of_a_kind_are_refused(parts):
    other = dataclasses.replace(parts["decoder"], source="runs/other")
    _refused([parts["clip"], parts["decoder"], other], "runs/decoder", "runs/other")


def test_two_upsamplers_of_one_size_are_refused(parts):
    _refused([parts["upsampler"], parts["upsampler"]], "takes pictures of 8 px", "makes 16 px")


def test_whitening_needs_statistics(parts):
    bare = dataclasses.replace(parts["prior"], statistics=None)
    _refused([parts["clip"], bare], "runs/prior", "whiten", "statistics")


def test_a_decoder_that_needs_the_length_of_embeddings_must_get_it(parts, make, clip):
    unit = make("prior", clip, model__embedding_scale="paper")
    raw = make("decoder", clip, model__embedding_scale="raw")
    _refused([clip, unit, raw], "'raw'", "'paper'")
    assert compose([clip, unit, parts["decoder"]])
    assert compose([clip, parts["prior"], raw])


def test_nothing_is_no_cascade():
    _refused([], "at least one")
