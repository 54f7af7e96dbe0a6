"""A cascade of karlo's form, shrunk, with random weights; and how it is run with known noise.

Weights come from a frozen numpy stream in the order of parameter names, so recorded vectors hold
results only. The process has 100 steps: with karlo's 1000, an epsilon predicted at t = 999 is
divided by sqrt(alpha_bar) = 5e-5, which turns the rounding of any float32 network (1e-7) into 1e-3
of a picture, at the few pixels that clipping does not hide.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from unclip_jax import stages
from unclip_jax.config import from_mapping
from unclip_jax.core import rng, trees
from unclip_jax.core.hashing import weights_hash
from unclip_jax.diffusion.samplers.base import initial_noise, step_noise
from unclip_jax.generation import TrainedStage, compose
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.decoder_drawing import DecoderRequest, sample_decoder
from unclip_jax.stages.prior import sample_prior
from unclip_jax.stages.sampling import make_plan
from unclip_jax.stages.upsampler import sample_upsampler
from unclip_jax.text import tokenize

CLIP = {
    **{"image_size": 16, "patch_size": 8, "vision_width": 32, "vision_layers": 1},
    **{"vision_heads": 2, "text_width": 16, "text_layers": 2, "text_heads": 2},
    **{"embedding_dim": 16, "activation": "quick_gelu"},
}
PRIOR = {"width": 24, "layers": 2, "heads": 2, "null_text": "empty", "embedding_scale": "whiten"}
DECODER = {
    **{"image_size": 16, "channels": 8, "multipliers": (1, 2), "depth": 1, "head_channels": 4},
    **{"attention_resolutions": (8,), "norm_groups": 4, "context_width": 24},
    **{"null_text": "empty", "embedding_scale": "raw"},
}
UPSAMPLER = {
    **{"low_size": 16, "image_size": 32, "channels": 8, "multipliers": (1, 2), "depth": 1},
    **{"norm_groups": 4, "last_step": "own"},
}
KARLO = {"sampler": "ddpm", "steps": 3}
SETTINGS = {
    "clip": {"model": CLIP},
    "prior": {
        "model": PRIOR,
        "diffusion": {"prediction": "x0"},
        "sampling": {**KARLO, "guidance_scale": 4.0, "clip_range": 5.0},
    },
    "decoder": {
        "model": DECODER,
        "diffusion": {"learned_variance": True},
        "sampling": {**KARLO, "guidance_scale": 8.0},
    },
    "upsampler": {"model": UPSAMPLER, "sampling": KARLO},
}
OUTPUT_SCALE = 0.2
CAPTIONS = ("a red heart", "hi! two fish, on a blue plate")


def make_stage(kind, clip=None, *, seed=0, num_steps=100, **model):
    """A stage with random weights; `model` {setting: value} over those above."""
    values = {
        "stage": kind,
        "data": {"train": "data/*.tar"},
        "train": {"batch_size": 4, "duration": "2 steps"},
        "clip": {"path": "runs/clip"} if clip else {},
        **SETTINGS[kind],
    }
    values["diffusion"] = {**values.get("diffusion", {}), "num_steps": num_steps}
    config = from_mapping({**values, "model": {**values["model"], **model}})
    init = stages.build(config, clip.config.model if clip else None).init
    stream = np.random.RandomState(seed)
    params = {}
    for path, leaf in trees.flatten(jax.eval_shape(init, jax.random.key(0))).items():
        fan_in = _fan_in(path, leaf.shape)
        noise = stream.standard_normal(leaf.shape) / np.sqrt(fan_in)
        # Guidance by 8 of a network with large outputs would amplify rounding as no trained one.
        noise *= OUTPUT_SCALE if path.endswith(("conv_out/kernel", "out/kernel")) else 1
        params[path] = (noise + path.endswith("scale")).astype(np.float32)
    params = trees.unflatten(params)
    mean, spread = stream.standard_normal((2, CLIP["embedding_dim"])).astype(np.float32)
    return TrainedStage(
        config=config,
        params=params,
        step=100,
        weights_sha256=weights_hash(params),
        source=f"runs/{kind}",
        clip_sha256=clip.weights_sha256 if clip else None,
        statistics={"mean": mean, "std": abs(spread)} if kind == "prior" else None,
    )


def _fan_in(path, shape):
    """Of kernels; small numbers for vectors, so that none is without effect."""
    layers = shape[:1] if "blocks" in path else ()
    if "embedding" in path:
        return 4
    if not path.endswith("kernel"):
        return layers[0] if layers else 4
    return np.prod(shape[len(layers) : -2 if "qkv" in path else -1])


def make_cascade(num_steps=100):
    """All four stages."""
    clip = make_stage("clip")
    return compose(
        [
            clip,
            make_stage("prior", clip, seed=1, num_steps=num_steps),
            make_stage("decoder", clip, seed=2, num_steps=num_steps),
            make_stage("upsampler", seed=3, num_steps=num_steps),
        ]
    )


def keys_of(count):
    return rng.example_keys(jax.random.key(7), "karlo", 0, count)


def draw_embeddings(cascade, captions=CAPTIONS):
    """Image embeddings [B, D] of captions."""
    clip, prior = cascade.clip, cascade.prior
    frozen = {"clip": clip.params, "statistics": dict(prior.statistics)}
    tokens, no = jnp.asarray(tokenize(captions, 77)), jnp.zeros(len(captions), bool)
    run = jax.jit(partial(sample_prior, prior.config, prior.model, clip.model))
    return np.asarray(
        run(
            prior.params, frozen, Captions(tokens, no), Captions(tokens, ~no),
            keys_of(len(captions)), make_plan(prior.config),
        )
    )  # fmt: skip


def draw(cascade, captions=CAPTIONS):
    """{"embedding": [B, D], "small": [B, 16, 16, 3], "large": [B, 32, 32, 3]}, float, in [-1, 1].

    The stages are put together without rounding to 8 bits in between, as diffusers does.
    """
    tokens, keys = jnp.asarray(tokenize(captions, 77)), keys_of(len(captions))
    clip, prior, decoder = cascade.clip, cascade.prior, cascade.decoder
    [upsampler] = cascade.upsamplers
    frozen = {"clip": clip.params, "statistics": dict(prior.statistics)}

    no, yes = jnp.zeros(len(captions), bool), jnp.ones(len(captions), bool)
    wanted, none = Captions(tokens, no), Captions(tokens, yes)

    @jax.jit
    def run(weights):
        z = sample_prior(
            prior.config, prior.model, clip.model, weights["prior"], frozen, wanted, none, keys,
            make_plan(prior.config),
        )  # fmt: skip
        small = sample_decoder(
            decoder.config, decoder.model, stages.clip.make_clip(clip.model, "float32"),
            weights["decoder"], {"clip": clip.params}, DecoderRequest(z, no, wanted, none), keys,
            make_plan(decoder.config),
        )  # fmt: skip
        small = jnp.clip(small, -1, 1)
        large = sample_upsampler(
            upsampler.config, upsampler.model, weights["upsampler"], small, keys,
            make_plan(upsampler.config),
        )  # fmt: skip
        return {"embedding": z, "small": small, "large": jnp.clip(large, -1, 1)}

    weights = {name: stage.params for name, stage in cascade.named().items()}
    return {name: np.asarray(value) for name, value in run(weights).items()}


def noise(count, steps=3):
    """{stage: (x_T, noise of each step)} that `draw` uses, batch leading, channels last."""
    keys = keys_of(count)
    candidate = jax.vmap(jax.random.fold_in, (0, None))(rng.fold_in_name(keys, "candidate"), 0)
    shapes = {
        "prior": (candidate, (CLIP["embedding_dim"],)),
        "decoder": (keys, (16, 16, 3)),
        "upsampler": (keys, (32, 32, 3)),
    }
    found = {}
    for name, (stage_keys, shape) in shapes.items():
        of_step = partial(step_noise, rng.fold_in_name(stage_keys, "sampler"))
        per_step = [np.asarray(of_step(jnp.int32(i), shape)) for i in range(steps)]
        found[name] = (np.asarray(initial_noise(stage_keys, shape)), per_step)
    return found
