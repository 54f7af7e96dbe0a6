"""The decoder: diffusers' recorded outputs, published size, and where conditions may leak."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.models import Decoder, TextTower, UNet
from unclip_jax.models.conditioning import ImageConditioning

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "unet_decoder.npz"
LENGTH = 4
TOWER = TextTower(8, 1, 2, context_length=LENGTH, vocab_size=32, eot_id=31)


def make(text_encoder="states", **options):
    """Two levels, attention on the second, dropout where it is switched on."""
    unet = UNet(2, 8, (1, 2), 1, (2,), head_dim=4, norm_groups=4, dropout=0.5)
    tower = TOWER if text_encoder == "trained" else None
    return Decoder(unet, 8, text_encoder=text_encoder, text_tower=tower, **options)


def inputs(seed=0, text_encoder="states", size=4):
    rng = np.random.default_rng(seed)
    f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    given = {"x_t": f32(2, size, size, 3), "t": np.array([5, 800], np.int32)}
    given["image_embedding"] = f32(2, 6)
    if text_encoder == "states":
        given |= {"text_embedding": f32(2, 6), "text_states": f32(2, LENGTH, 7)}
        given["text_mask"] = np.arange(LENGTH) < rng.integers(1, LENGTH, (2, 1))
    if text_encoder == "trained":
        given["tokens"] = np.array([[3, 31, 0, 0], [4, 5, 6, 31]], np.int32)
    return given


@pytest.fixture(scope="module", params=["states", "trained"])
def network(request, random_params):
    """(text_encoder, apply(given)): all weights random, nulls included."""
    decoder = make(request.param)
    given = inputs(text_encoder=request.param)
    params = random_params(lambda: decoder.init(jax.random.key(0), **given))
    return request.param, jax.jit(lambda given: decoder.apply({"params": params}, **given))


def rows_that_change(apply, first, second):
    return (np.asarray(apply(first)) != np.asarray(apply(second))).any((1, 2, 3)).tolist()


def drop(image=(False, False), text=(False, False)):
    return {"drop_image": np.array(image), "drop_text": np.array(text)}


def test_equals_diffusers_recorded_outputs(random_params):
    recorded = dict(np.load(VECTORS))
    wanted = [recorded.pop("wanted"), recorded.pop("wanted_dropped")]
    unet = UNet(6, 8, (1, 2, 3), 2, (2, 4), head_dim=4, norm_groups=4)
    decoder = Decoder(unet, 24, null_text="none")
    params = random_params(lambda: decoder.init(jax.random.key(0), **recorded))
    apply = jax.jit(lambda drop: decoder.apply({"params": params}, **recorded, drop_image=drop))
    for dropped in (False, True):
        error = np.abs(apply(jnp.full(2, dropped)) - wanted[dropped]).max()
        assert error < 1e-5 * np.abs(wanted[dropped]).max()


def test_published_sizes():
    shape = lambda *s, dtype=jnp.float32: jax.ShapeDtypeStruct(s, dtype)  # noqa: E731
    images = {"x_t": shape(1, 64, 64, 3), "t": shape(1, dtype=jnp.int32)}

    def count(decoder, given):
        init = lambda given: decoder.init(jax.random.key(0), **given)["params"]  # noqa: E731
        params = jax.eval_shape(init, images | given)
        return {name: trees.count(part) for name, part in params.items()}

    given = {"image_embedding": shape(1, 768), "text_embedding": shape(1, 768)}
    karlo = count(
        Decoder(UNet(6, 320), 1536, null_text="none"),
        given | {"text_states": shape(1, 77, 768)},
    )
    assert karlo.pop("unet") == 885_439_686
    assert sum(karlo.values()) == 7_878_400  # diffusers' text_proj
    tower = TextTower(2048, 24, 32, context_length=256)
    paper = count(
        Decoder(UNet(6, 512), 2048, text_encoder="trained", text_tower=tower),
        {"image_embedding": shape(1, 1024), "tokens": shape(1, 256, dtype=jnp.int32)},
    )
    assert round(paper["unet"] / 1e9, 2) == 2.24
    assert round(paper["text_tower"] / 1e9, 2) == 1.31
    assert round(sum(paper.values()) / 1e9, 1) == 3.6  # "3.5B" in the paper


def test_conditions_are_seen_and_dropped_independently_row_by_row(network):
    text_encoder, apply = network
    first, other = (inputs(seed, text_encoder) for seed in (0, 1))
    image = first | {"image_embedding": other["image_embedding"]}
    text = first | {k: v for k, v in other.items() if k.startswith("text")}
    if text_encoder == "trained":
        text["tokens"] = first["tokens"][::-1].copy()
    change = functools.partial(rows_that_change, apply)
    for changed, mine, others in ((image, "image", "text"), (text, "text", "image")):
        keep_all, drop_others = drop(), drop(**{others: (True, True)})
        drop_first, drop_both = drop(**{mine: (True, False)}), drop((True, True), (True, True))
        assert change(first | keep_all, changed | keep_all) == [True, True]
        assert change(first | drop_others, changed | drop_others) == [True, True]
        assert change(first | drop_first, changed | drop_first) == [False, True]
        assert change(first | drop_both, changed | drop_both) == [False, False]
        # Dropping a row changes that row and leaves the other as it was.
        assert change(first | keep_all, first | drop_first) == [True, False]


def test_padding_of_captions_is_not_seen(network):
    text_encoder, apply = network
    given = inputs(text_encoder=text_encoder) | drop()
    if text_encoder == "trained":  # what follows the end of text is replaced by learned padding
        noisy = given | {"tokens": np.where([[0, 0, 1, 1], [0] * 4], 9, given["tokens"])}
    else:
        hidden = ~given["text_mask"][..., None]
        noisy = given | {"text_states": given["text_states"] + 10 * hidden}
    assert rows_that_change(apply, given, noisy) == [False, False]


def test_without_a_mask_every_text_token_is_seen(network):
    text_encoder, apply = network
    if text_encoder == "trained":
        pytest.skip("the tower makes its own mask")
    given = inputs()
    everything = apply(given | {"text_mask": np.ones((2, LENGTH), bool)})
    np.testing.assert_array_equal(apply(given | {"text_mask": None}), everything)
    assert (apply(given) != everything).any()


@pytest.mark.parametrize("padding", ["learned", "mask"])
def test_the_trained_tower_decides_whether_padding_is_context(random_params, padding):
    """The decoder, put together by hand: learned padding is attended to, other padding is not."""
    unet = UNet(2, 8, (1,), 1, (1,), head_dim=4, norm_groups=4)
    tower = TextTower(8, 1, 2, LENGTH, vocab_size=32, eot_id=31, padding=padding)
    decoder = Decoder(unet, 8, text_encoder="trained", text_tower=tower, pooled_text=False)
    given = inputs(text_encoder="trained")
    params = random_params(lambda: decoder.init(jax.random.key(0), **given))
    got = jax.jit(lambda given: decoder.apply({"params": params}, **given))(given)

    z = ImageConditioning(8, unet.embedding_width)
    tokens, embedding = z.apply({"params": params["image"]}, given["image_embedding"], None)
    text = tower.apply({"params": params["text_tower"]}, given["tokens"])
    visible = np.ones((2, LENGTH), bool) if padding == "learned" else np.asarray(text.mask)
    wanted = jax.jit(unet.apply)(
        {"params": params["unet"]},
        given["x_t"],
        given["t"],
        embedding=embedding,
        context=jnp.concatenate([tokens, text.states], axis=1),
        context_mask=np.concatenate([np.ones((2, 4), bool), visible], axis=1),
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_dropped_image_is_the_null_embedding(random_params):
    for null_image in ("learned", "zeros"):
        decoder = make("none", null_image=null_image)
        given = inputs(text_encoder="none")
        params = random_params(lambda d=decoder, g=given: d.init(jax.random.key(0), **g))
        null = params["image"].pop("null") if null_image == "learned" else np.zeros(6)
        assert "null" not in params["image"]
        explicit = given | {"image_embedding": np.tile(null, (2, 1)).astype(np.float32)}
        if null_image == "learned":
            params["image"]["null"] = null
        apply = jax.jit(lambda given, p=params, d=decoder: d.apply({"params": p}, **given))
        dropped = apply(given | drop((True, True)))
        np.testing.assert_allclose(dropped, apply(explicit | drop()), rtol=1e-5, atol=1e-6)


def test_extra_tokens_are_in_karlos_order():
    """Element channel * tokens + token of the projection is that channel of that token."""
    module = ImageConditioning(width=3, embedding_width=2, tokens=4)
    kernel = np.arange(12, dtype=np.float32)[None]
    params = {"tokens_proj": {"kernel": kernel, "bias": np.zeros(12)}, "null": np.zeros(1)}
    params["embedding_proj"] = {"kernel": np.zeros((1, 2)), "bias": np.zeros(2)}
    tokens, _ = module.apply({"params": params}, jnp.ones((1, 1)), None)
    np.testing.assert_array_equal(tokens[0], [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]])


def test_a_new_decoder_starts_with_zero_nulls():
    unet = UNet(2, 8, (1,), 1, (), head_dim=4, norm_groups=4)
    params = jax.jit(Decoder(unet, 8).init)(jax.random.key(0), **inputs())["params"]
    assert not params["image"]["null"].any()
    assert not params["text"]["null_pooled"].any()
    assert not params["unet"]["conv_out"]["kernel"].any()
    assert not params["unet"]["mid_attention"]["out"]["kernel"].any()
    assert 0.3 < params["text"]["null_token"].std() < 3


def test_dropout_is_per_example_and_needs_keys(random_params):
    decoder, given = make("none"), inputs(text_encoder="none")
    params = random_params(lambda: decoder.init(jax.random.key(0), **given))

    @functools.partial(jax.jit, static_argnames="deterministic")
    def apply(given, keys, deterministic=False):
        return decoder.apply(
            {"params": params}, **given, deterministic=deterministic, dropout_keys=keys
        )

    keys = lambda: jax.random.split(jax.random.key(0), 2)  # noqa: E731
    both = apply(given, keys())
    second = apply({k: v[1:] for k, v in given.items()}, keys()[1:])
    np.testing.assert_allclose(both[1:], second, rtol=1e-4, atol=1e-5)
    calm = apply(given, None, deterministic=True)
    assert np.abs(calm - both).max() > 0.01
    with pytest.raises(ValueError, match="needs dropout_keys"):
        apply(given, None)


def init_shapes(decoder, given):
    return jax.eval_shape(lambda: decoder.init(jax.random.key(0), **given))


@pytest.mark.parametrize(
    ("options", "missing", "message"),
    [
        ({}, "text_states", "text_encoder='states' needs text_states"),
        ({}, "text_embedding", "text_encoder='states' needs text_embedding"),
        ({"text_encoder": "trained"}, "tokens", "text_encoder='trained' needs tokens"),
        ({"text_encoder": "state"}, None, "unknown text_encoder 'state' .did you mean 'states'"),
        ({"null_image": "mean"}, None, "unknown null_image 'mean'"),
        ({"null_text": "zeros"}, None, "unknown null_text 'zeros'"),
    ],
)
def test_mistakes_have_clear_errors(options, missing, message):
    given = inputs(text_encoder=options.get("text_encoder", "states"))
    given.pop(missing, None)
    with pytest.raises(UserError, match=message):
        init_shapes(make(**options), given)


def test_a_decoder_without_null_text_refuses_to_drop_captions():
    decoder = make(null_text="none")
    assert "null_token" not in init_shapes(decoder, inputs())["params"]["text"]
    with pytest.raises(UserError, match="captions cannot be dropped"):
        init_shapes(decoder, inputs() | drop())


def test_parameters_do_not_depend_on_the_image_size():
    small, large = (init_shapes(make(), inputs(size=size)) for size in (4, 16))
    assert small == large
