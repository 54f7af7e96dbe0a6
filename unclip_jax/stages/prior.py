"""Stage `prior`: which CLIP image embedding goes with a caption (paper, section 2.2).

A causal transformer predicts the clean embedding; its loss is the squared error. The caption is
dropped in 10 % of the examples, the noised embedding never. Drawing several candidates and keeping
the one with the highest dot product with the text embedding is the paper's "two samples".
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, PriorModel, RunConfig
from unclip_jax.core import precision, rng
from unclip_jax.models import PriorTransformer, TextFeatures
from unclip_jax.stages import captions, embedding, features
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.conditions import NULL_TEXTS, flags
from unclip_jax.stages.objective import Network, diffusion_loss
from unclip_jax.stages.sampling import Conditions, Plan, draw, start
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage


def make_prior(config: RunConfig, model: PriorModel, clip_model: ClipModel) -> PriorTransformer:
    """The network of a config."""
    return PriorTransformer(
        embedding_dim=clip_model.embedding_dim,
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        context_length=context_length(model, clip_model),
        text_encoder=model.text_encoder,
        text_width=model.text_width,
        text_layers=model.text_layers,
        text_heads=model.text_heads,
        null_text=NULL_TEXTS[model.null_text],
        scan_layers=model.scan_layers,
        remat=model.remat,
        dtype=precision.compute_dtype(config.precision.compute),
    )


def context_length(model: PriorModel, clip: ClipModel) -> int:
    """How many tokens a caption has: CLIP's own length unless the text encoder is trained."""
    return model.context_length if model.text_encoder == "trained" else clip.context_length


def build(config: RunConfig, model: PriorModel, clip_model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "prior", beside the frozen CLIP of `clip_model`."""
    net = make_prior(config, model, clip_model)
    clip = make_clip(clip_model, config.precision.compute)
    objective = diffusion_loss(config, num_levels=None)
    length = context_length(model, clip_model)

    def init(key: Key[Array, ""]) -> Params:
        z = jnp.zeros((1, clip_model.embedding_dim))
        if model.text_encoder == "trained":
            text = {"tokens": jnp.zeros((1, length), jnp.int32)}
        else:
            text = {
                "text_states": jnp.zeros((1, length, clip_model.text_width)),
                "text_mask": jnp.ones((1, length), bool),
            }
        t = jnp.zeros(1, jnp.int32)
        return net.init(key, z, t, text_embedding=z, **text)["params"]

    def text_arguments(frozen: Params, batch: Batch, dropped: Array) -> dict[str, Array]:
        return captions.arguments(
            model.null_text, Captions(batch["tokens"], dropped),
            features.batch_text(clip, frozen, batch),
            describe=partial(condition, model),
            features_of=partial(features.text_features, clip, frozen),
        )  # fmt: skip

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        z = features.image_embedding(clip, frozen, batch)
        x0 = embedding.encode(model.embedding_scale, z, features.statistics(frozen))
        conditioning = text_arguments(frozen, batch, flags(keys, "drop text", model.drop_text))

        def network(x_t: Array, t: Array) -> Array:
            return net.apply({"params": params}, x_t, t, **conditioning)

        return objective(network, x0, keys, frozen, batch)

    def task(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Network, Float[Array, "b d"]]:
        del keys  # nothing is drawn
        z = features.image_embedding(clip, frozen, batch)
        conditioning = text_arguments(frozen, batch, jnp.zeros(len(z), bool))
        network = partial(net.apply, {"params": params}, **conditioning)
        return network, embedding.encode(model.embedding_scale, z, features.statistics(frozen))

    stored = config.data.embeddings == "stored"
    stored_text = features.stored_text(config, model.text_encoder)
    needs = BatchNeeds(
        image_sizes=() if stored else (clip_model.image_size,),
        context_length=length,
        embeddings=(("image",) if stored else ()) + stored_text,
    )
    return Stage(
        "prior",
        needs,
        init,
        loss,
        towers=features.image_tower(config) + features.text_tower(config, model.null_text),
        memory=objective.memory,
        prepare=objective.prepare,
        task=task,
    )


def sample_prior(
    config: RunConfig,
    model: PriorModel,
    clip_model: ClipModel,
    params: Params,
    frozen: Params,
    given: Captions,
    negative: Captions,
    keys: Key[Array, " b"],
    plan: Plan,
) -> Float[Array, "b d"]:
    """Image embeddings for captions, in CLIP's own space (see `embedding.decode`).

    Of `plan.candidates` draws per caption, the one nearest to the text embedding is kept. Guidance
    moves away from the negative caption.
    """
    net = make_prior(config, model, clip_model)
    clip = make_clip(clip_model, config.precision.compute)
    found = captions.caption_features(clip, frozen, given)
    arguments = partial(
        captions.arguments,
        model.null_text,
        describe=partial(condition, model),
        features_of=partial(features.text_features, clip, frozen),
    )
    conditions = Conditions(
        arguments(given, found),
        arguments(negative, captions.caption_features(clip, frozen, negative)),
    )

    def network(x_t: Array, t: Array, condition: dict[str, Array]) -> Array:
        return net.apply({"params": params}, x_t, t, **condition)

    def one(number: Array) -> Array:
        fold = jax.vmap(jax.random.fold_in, (0, None))
        own = fold(rng.fold_in_name(keys, "candidate"), number)
        begin = start(plan, config, own, (clip_model.embedding_dim,))
        x = draw(network, conditions, begin, own, config=config, plan=plan)
        return embedding.decode(model.embedding_scale, x, features.statistics(frozen))

    candidates = jax.lax.map(one, jnp.arange(plan.candidates))
    return nearest(candidates, found.embedding)


def nearest(candidates: Float[Array, "n b d"], text: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """For each example the candidate with the greatest cosine to its text embedding."""
    lengths = jnp.linalg.norm(candidates, axis=-1)
    cosine = jnp.einsum("nbd,bd->nb", candidates, text) / lengths
    return candidates[jnp.argmax(cosine, axis=0), jnp.arange(candidates.shape[1])]


def condition(
    model: PriorModel, found: TextFeatures, tokens: Int[Array, "b l"]
) -> dict[str, Array]:
    """The prior's conditioning arguments, nothing dropped.

    The text embedding is put on the scale of the image embedding, but for `whiten`, whose
    statistics are those of images: there it stays raw, as in karlo.
    """
    scale = "raw" if model.embedding_scale == "whiten" else model.embedding_scale
    text = {"text_embedding": embedding.encode(scale, found.embedding)}
    if model.text_encoder == "trained":
        return text | {"tokens": tokens}
    return text | {"text_states": found.states, "text_mask": found.mask}
