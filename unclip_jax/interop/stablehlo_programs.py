"""The programs of a cascade that are exported: functions of (weights, inputs), and their shapes.

Weights are {stage name: {"params": …, "statistics": …}}; every input has the batch leading, or is a
guidance scale. A key is its raw data, uint32 [b, 2], so that any caller can make one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array

from unclip_jax.core import images
from unclip_jax.generation import Cascade, TrainedStage, programs
from unclip_jax.models.text_tower import EOT_ID
from unclip_jax.stages import decoder_network, features, prior, upsampler
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.sampling import make_plan


@dataclass(frozen=True)
class Program:
    """What is exported.

    Attributes:
      function: (weights, *inputs) -> arrays.
      weights: {stage: shapes}.
      inputs: {name: shapes}, a shape or a dict of shapes each.
    """

    name: str
    function: Callable[..., Any]
    weights: Mapping[str, Any]
    inputs: Mapping[str, Any]


def programs_of(cascade: Cascade) -> list[Program]:
    """All programs that the stages of a cascade make possible."""
    batch = export.symbolic_shape("b")[0]
    found = []
    if cascade.clip:
        found += _clip_programs(cascade.clip, batch)
    if cascade.clip and cascade.prior:
        found.append(_prior_step(cascade.clip, cascade.prior, batch))
    if cascade.clip and cascade.decoder:
        found.append(_decoder_step(cascade.clip, cascade.decoder, batch))
    for name, stage in cascade.named().items():
        if name.startswith("upsampler"):
            found.append(_upsampler_step(name, stage, batch))
    if cascade.clip and cascade.prior and cascade.decoder:
        found.append(_sample(cascade, batch))
    return found


def stage_weights(stage: TrainedStage) -> dict[str, Any]:
    """A stage's arrays as programs take them."""
    extra = {} if stage.statistics is None else {"statistics": dict(stage.statistics)}
    return {"params": stage.params, **extra}


def _shapes(**stages: TrainedStage) -> dict[str, Any]:
    return {
        name: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stage_weights(stage))
        for name, stage in stages.items()
    }


def _float(*shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _clip_programs(clip: TrainedStage, b: Any) -> list[Program]:
    model = clip.model
    net = make_clip(model, clip.config.precision.compute)

    def text(weights: Any, tokens: Array) -> dict[str, Array]:
        params = {"params": weights["clip"]["params"]}
        found: Any = net.apply(params, tokens, method="encode_text")
        return {
            "text_embedding": found.embedding,
            "text_states": found.states,
            "text_mask": found.mask,
        }

    def image(weights: Any, pictures: Array) -> Any:
        params = {"params": weights["clip"]["params"]}
        return net.apply(params, images.to_float(pictures), method="encode_image")

    shapes = _shapes(clip=clip)
    tokens = jax.ShapeDtypeStruct((b, model.context_length), jnp.int32)
    programs = [Program("clip_text", text, shapes, {"tokens": tokens})]
    if model.towers == "both":
        size = model.image_size
        pictures = jax.ShapeDtypeStruct((b, size, size, 3), jnp.uint8)
        programs.append(Program("clip_image", image, shapes, {"pictures": pictures}))
    return programs


def _conditioning(stage: TrainedStage, clip: TrainedStage, b: Any) -> dict[str, Any]:
    """Shapes of a network's text arguments."""
    model = stage.model
    if model.text_encoder == "none":
        return {}
    if model.text_encoder == "trained":
        text = {"tokens": jax.ShapeDtypeStruct((b, model.context_length), jnp.int32)}
    else:
        length = clip.model.context_length
        text = {
            "text_states": _float(b, length, clip.model.text_width),
            "text_mask": jax.ShapeDtypeStruct((b, length), jnp.bool_),
        }
    if model.text_encoder == "clip" or stage.config.stage == "prior":
        text["text_embedding"] = _float(b, clip.model.embedding_dim)
    if model.null_text == "learned":
        text["drop_text"] = jax.ShapeDtypeStruct((b,), jnp.bool_)
    return text


def _prior_step(clip: TrainedStage, stage: TrainedStage, b: Any) -> Program:
    net = prior.make_prior(stage.config, stage.model, clip.model)

    def step(weights: Any, x_t: Array, t: Array, condition: Any) -> Any:
        return net.apply({"params": weights["prior"]["params"]}, x_t, t, **condition)

    inputs = {
        "x_t": _float(b, clip.model.embedding_dim),
        "t": jax.ShapeDtypeStruct((b,), jnp.int32),
        "condition": _conditioning(stage, clip, b),
    }
    return Program("prior_step", step, _shapes(prior=stage), inputs)


def _decoder_step(clip: TrainedStage, stage: TrainedStage, b: Any) -> Program:
    net = decoder_network.make_decoder(stage.config, stage.model)

    def step(weights: Any, x_t: Array, t: Array, condition: Any) -> Any:
        return net.apply({"params": weights["decoder"]["params"]}, x_t, t, **condition)

    size = stage.model.image_size
    inputs = {
        "x_t": _float(b, size, size, 3),
        "t": jax.ShapeDtypeStruct((b,), jnp.int32),
        "condition": {
            **_conditioning(stage, clip, b),
            "image_embedding": _float(b, clip.model.embedding_dim),
            "drop_image": jax.ShapeDtypeStruct((b,), jnp.bool_),
        },
    }
    return Program("decoder_step", step, _shapes(decoder=stage), inputs)


def _upsampler_step(name: str, stage: TrainedStage, b: Any) -> Program:
    model = stage.model
    net = upsampler.make_upsampler(stage.config, model)

    def step(weights: Any, x_t: Array, t: Array, condition: Any) -> Any:
        return upsampler.predict(net, model, weights[name]["params"], x_t, t, condition)

    size, low = model.image_size, model.low_size
    level = {"noise_level": _float(b)} if model.noise_augmentation else {}
    inputs = {
        "x_t": _float(b, size, size, 3),
        "t": jax.ShapeDtypeStruct((b,), jnp.int32),
        "condition": {"low_res": _float(b, low, low, 3), **level},
    }
    return Program(f"{name}_step", step, _shapes(**{name: stage}), inputs)


def _sample(cascade: Cascade, b: Any) -> Program:
    """The whole way, as `generation.Pipeline` goes it: 8-bit pictures between the stages."""
    clip = cascade.clip
    assert clip is not None
    stages = {name: stage for name, stage in cascade.named().items() if name != "clip"}
    lengths = {
        "prior": prior.context_length(stages["prior"].model, clip.model),
        "decoder": decoder_network.context_length(stages["decoder"].model, clip.model),
    }

    def sample(
        weights: Any, tokens: Array, keys: Array, prior_scale: Array, decoder_scale: Array
    ) -> Array:
        scales = {"prior": prior_scale, "decoder": decoder_scale}
        no, yes = jnp.zeros(tokens.shape[:1], bool), jnp.ones(tokens.shape[:1], bool)
        texts = {}
        for name, length in lengths.items():
            own = features.cut(tokens, length, EOT_ID)
            texts[name] = (Captions(own, no), Captions(own, yes))
        setups = {
            name: _setup(stage, weights[name], weights["clip"]["params"], scales.get(name))
            for name, stage in stages.items()
        }
        found = programs.generate(
            setups, texts, keys,
            configs=tuple((name, stage.config) for name, stage in stages.items()),
            clip_model=clip.model,
        )  # fmt: skip
        return found[list(stages)[-1]]

    inputs = {
        "tokens": jax.ShapeDtypeStruct((b, max(lengths.values())), jnp.int32),
        "keys": jax.ShapeDtypeStruct((b, 2), jnp.uint32),
        "prior_scale": _float(),
        "decoder_scale": _float(),
    }
    return Program("sample", sample, _shapes(**cascade.named()), inputs)


def _setup(stage: TrainedStage, weights: Any, clip: Any, scale: Array | None) -> programs.Setup:
    """A stage as its program is given it; a plan without guidance stays without."""
    plan = make_plan(stage.config)
    if plan.guidance_scale is not None and scale is not None:
        plan = dataclasses.replace(plan, guidance_scale=scale)
    statistics = weights.get("statistics")
    known = {} if statistics is None else {"statistics": statistics}
    return programs.Setup(weights["params"], plan, {"clip": clip, **known})
