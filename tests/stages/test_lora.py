"""Low-rank adapters: they start as nothing, change what they should, and merge into the base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from karlo_cascade import make_stage

from unclip_jax import stages
from unclip_jax.config.schema import Lora
from unclip_jax.core import rng, trees
from unclip_jax.errors import UserError
from unclip_jax.stages import lora


def test_the_merged_kernel_is_the_formula():
    """Dense, convolution and stacked layers, with einsum in float64."""
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.normal(size=shape)  # noqa: E731
    base = {
        "attention": {"kernel": draw(5, 7), "bias": draw(7)},
        "conv_attention": {"kernel": draw(3, 3, 5, 7)},
        "blocks": {"qkv": {"kernel": draw(4, 5, 3, 7)}},
        "other": {"kernel": draw(5, 7)},
    }
    config = Lora(rank=2, alpha=6.0)
    adapters = {
        "attention": {"a": draw(5, 2), "b": draw(2, 7)},
        "conv_attention": {"a": draw(3, 3, 5, 2), "b": draw(2, 7)},
        "blocks": {"qkv": {"a": draw(4, 5, 2), "b": draw(4, 2, 21)}},
    }
    found = lora.merge(config, base, adapters)
    for path, formula in (
        ("attention", "ir,ro->io"),
        ("conv_attention", "hwir,ro->hwio"),
        ("blocks/qkv", "lir,lro->lio"),
    ):
        pair = trees.flatten(adapters)
        delta = 3.0 * np.einsum(formula, pair[f"{path}/a"], pair[f"{path}/b"])
        kernel = trees.flatten(base)[f"{path}/kernel"]
        delta = delta.reshape(kernel.shape)
        np.testing.assert_allclose(
            trees.flatten(found)[f"{path}/kernel"], kernel + delta, rtol=1e-5, atol=2e-6
        )
    assert found["other"]["kernel"] is base["other"]["kernel"]
    assert found["attention"]["bias"] is base["attention"]["bias"]


@pytest.fixture(scope="module")
def clip():
    return make_stage("clip", text_layers=1)


@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_adapters_start_as_the_base_and_learn(kind, clip):
    small = {
        "prior": {"layers": 1},
        "decoder": {"multipliers": (1,), "attention_resolutions": (16,)},
    }
    base = make_stage(kind, clip, **small[kind])
    stage = stages.build(base.config, clip.model)
    adapted = lora.adapt(stage, Lora(rank=2), base.params)
    adapters = adapted.init(jax.random.key(0))
    count = trees.count(adapters)
    assert 0 < count < trees.count(base.params) / 4

    frozen = {"clip": clip.params, "statistics": {"mean": jnp.zeros(16), "std": jnp.ones(16)}}
    size = base.config.model.image_size if kind == "decoder" else 16
    generator = np.random.default_rng(0)
    batch = {
        "tokens": generator.integers(1, 1000, (4, 77)).astype(np.int32),
        "image_embedding": generator.normal(size=(4, 16)).astype(np.float32),
        f"image_{size}": generator.integers(0, 256, (4, size, size, 3)).astype(np.uint8),
    }
    keys = rng.example_keys(jax.random.key(1), "train", 0, 4)
    whole = {**frozen, lora.BASE: base.params}

    @jax.jit
    @jax.value_and_grad
    def objective(params):
        return jnp.mean(adapted.loss(params, whole, batch, keys)[0])

    unadapted = jax.jit(stage.loss)
    before, gradients = objective(adapters)
    plain = jnp.mean(unadapted(base.params, frozen, batch, keys)[0])
    np.testing.assert_allclose(before, plain, rtol=1e-6)
    flat = trees.flatten(gradients)
    assert all(np.abs(v).max() > 0 for path, v in flat.items() if path.endswith("/b"))
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, adapters, gradients)
    found = objective(moved)[0]
    assert found < before
    merged = lora.merge(Lora(rank=2), base.params, moved)
    after = jnp.mean(unadapted(merged, frozen, batch, keys)[0])
    np.testing.assert_allclose(after, found, rtol=1e-5)


def test_layers_that_are_not_there_are_named():
    upsampler = make_stage("upsampler", multipliers=(1,))
    with pytest.raises(UserError, match=r"attention,qkv names no layer .* conv1, conv2"):
        lora.adapt(stages.build(upsampler.config), Lora(rank=2), upsampler.params)
    adapted = lora.adapt(
        stages.build(upsampler.config), Lora(rank=2, targets=("conv1",)), upsampler.params
    )
    shapes = trees.flatten(jax.eval_shape(adapted.init, jax.random.key(0)))
    assert shapes["unet/mid_res_0/conv1/a"].shape == (3, 3, 8, 2)
