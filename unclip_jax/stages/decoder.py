"""Stage `decoder`: pictures from a CLIP image embedding and a caption (paper, section 2.1).

The embedding and the caption are dropped independently (10 % and 50 % in the paper), so that
either can be guided, or left out, when sampling.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, DecoderModel, RunConfig, Sampling
from unclip_jax.core import images, precision, rng
from unclip_jax.models import Clip, Decoder, TextFeatures, TextTower, UNet
from unclip_jax.stages import embedding, features
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.conditions import flags
from unclip_jax.stages.objective import Network, diffusion_loss
from unclip_jax.stages.sampling import Conditions, draw
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage


def make_decoder(config: RunConfig, model: DecoderModel) -> Decoder:
    """The network of a config."""
    dtype = precision.compute_dtype(config.precision.compute)
    unet = UNet(
        out_channels=6 if config.diffusion.learned_variance else 3,
        channels=model.channels,
        multipliers=model.multipliers,
        depth=model.depth,
        attention_factors=tuple(model.image_size // r for r in model.attention_resolutions),
        head_dim=model.head_channels,
        norm_groups=model.norm_groups,
        dropout=model.dropout,
        remat=model.remat,
        dtype=dtype,
    )
    tower = TextTower(
        width=model.text_width,
        layers=model.text_layers,
        heads=model.text_heads,
        context_length=model.context_length,
        dtype=dtype,
    )
    trained = model.text_encoder == "trained"
    return Decoder(
        unet=unet,
        context_width=model.text_width if trained else model.context_width,
        image_tokens=model.image_tokens,
        text_encoder={"clip": "states"}.get(model.text_encoder, model.text_encoder),
        text_tower=tower if trained else None,
    )


def context_length(model: DecoderModel, clip: ClipModel) -> int:
    """How many tokens a caption has: CLIP's own length unless the text encoder is trained."""
    return model.context_length if model.text_encoder == "trained" else clip.context_length


def build(config: RunConfig, model: DecoderModel, clip_model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "decoder", beside the frozen CLIP of `clip_model`."""
    net, clip = make_decoder(config, model), make_clip(clip_model, config.precision.compute)
    objective = diffusion_loss(config, num_levels=256)
    stored = config.data.embeddings == "stored"
    reads_clip_text = model.text_encoder == "clip"
    size = model.image_size

    def init(key: Key[Array, ""]) -> Params:
        z = jnp.zeros((1, clip_model.embedding_dim))
        text = _text_arguments(
            model,
            jnp.zeros((1, context_length(model, clip_model)), jnp.int32),
            z,
            jnp.zeros((1, clip_model.context_length, clip_model.text_width)),
            jnp.ones((1, clip_model.context_length), bool),
        )
        no = jnp.zeros(1, bool)
        x = jnp.zeros((1, size, size, 3))
        arguments = {"image_embedding": z, "drop_image": no, "drop_text": no, **text}
        return net.init(key, x, jnp.zeros(1, jnp.int32), **arguments)["params"]

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        z = features.image_embedding(clip, frozen, batch)
        text = features.batch_text(clip, frozen, batch) if reads_clip_text else None
        conditioning = condition(model, frozen, z, text, batch["tokens"]) | {
            "drop_image": flags(keys, "drop image", model.drop_image),
            "drop_text": flags(keys, "drop text", model.drop_text),
        }
        dropout = rng.fold_in_name(keys, "dropout")

        def network(x_t: Array, t: Array) -> Array:
            return net.apply(
                {"params": params},
                x_t,
                t,
                **conditioning,
                deterministic=model.dropout == 0,
                dropout_keys=dropout,
            )

        return objective(network, images.to_float(batch[f"image_{size}"]), keys, frozen)

    def task(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Network, Float[Array, "b s s 3"]]:
        del keys  # nothing is drawn
        z = features.image_embedding(clip, frozen, batch)
        no = jnp.zeros(len(z), bool)
        text = features.batch_text(clip, frozen, batch) if reads_clip_text else None
        conditioning = condition(model, frozen, z, text, batch["tokens"])
        conditioning |= {"drop_image": no, "drop_text": no}
        network = partial(net.apply, {"params": params}, **conditioning)
        return network, images.to_float(batch[f"image_{size}"])

    def preview(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        z = features.image_embedding(clip, frozen, batch)
        drawn = sample_decoder(
            config, model, clip, params, frozen, z, batch["tokens"], keys,
            sampling=config.sampling, guidance_scale=config.sampling.guidance_scale,
        )  # fmt: skip
        return {"real": images.to_float(batch[f"image_{size}"]), "from its embedding": drawn}

    clip_size = () if stored else (clip_model.image_size,)
    needs = BatchNeeds(
        image_sizes=tuple(sorted({size, *clip_size})),
        context_length=context_length(model, clip_model),
        embeddings=(("image",) if stored else ())
        + (features.stored_text(config, "clip") if reads_clip_text else ()),
    )
    return Stage("decoder", needs, init, loss, preview, memory=objective.memory, task=task)


def sample_decoder(
    config: RunConfig,
    model: DecoderModel,
    clip: Clip,
    params: Params,
    frozen: Params,
    z: Float[Array, "b d"],
    tokens: Int[Array, "b l"],
    keys: Key[Array, " b"],
    *,
    sampling: Sampling,
    guidance_scale: Float[Array, ""] | float,
) -> Float[Array, "b s s 3"]:
    """Pictures in [-1, 1] for raw CLIP image embeddings `z` and captions.

    Guidance moves away from the picture without embedding and without caption.
    """
    net = make_decoder(config, model)
    text = features.text_features(clip, frozen, tokens) if model.text_encoder == "clip" else None
    shared = condition(model, frozen, z, text, tokens)
    no, yes = jnp.zeros(len(z), bool), jnp.ones(len(z), bool)

    def network(x_t: Array, t: Array, conditioning: dict[str, Array]) -> Array:
        return net.apply({"params": params}, x_t, t, **conditioning)

    return draw(
        network,
        Conditions(
            cond=shared | {"drop_image": no, "drop_text": no},
            uncond=shared | {"drop_image": yes, "drop_text": yes},
            partial=shared | {"drop_image": no, "drop_text": yes},
        ),
        (model.image_size, model.image_size, 3),
        keys,
        config=config,
        sampling=sampling,
        guidance_scale=guidance_scale,
    )


def condition(
    model: DecoderModel,
    frozen: Params,
    z: Float[Array, "b d"],
    found: TextFeatures | None,
    tokens: Int[Array, "b l"],
) -> dict[str, Array]:
    """The decoder's conditioning arguments, nothing dropped; `found` is CLIP's, if it reads it."""
    scaled = embedding.encode(model.embedding_scale, z, features.statistics(frozen))
    text: dict[str, Array] = {}
    if found is not None:
        text = _text_arguments(model, tokens, found.embedding, found.states, found.mask)
    elif model.text_encoder == "trained":
        text = {"tokens": tokens}
    return {"image_embedding": scaled, **text}


def _text_arguments(
    model: DecoderModel, tokens: Array, pooled: Array, states: Array, mask: Array
) -> dict[str, Array]:
    if model.text_encoder == "clip":
        return {"text_embedding": pooled, "text_states": states, "text_mask": mask}
    return {"tokens": tokens} if model.text_encoder == "trained" else {}
