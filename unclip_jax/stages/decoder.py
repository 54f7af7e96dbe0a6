"""Stage `decoder`: pictures from a CLIP image embedding and a caption (paper, section 2.1).

The embedding and the caption are dropped independently (10 % and 50 % in the paper), so that
either can be guided, or left out, when sampling. With `inpainting` it is also shown a part of the
picture (see `inpainting.py`).
"""

import dataclasses
from functools import cached_property

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, DecoderModel, RunConfig
from unclip_jax.core import images, rng
from unclip_jax.models import Clip, Decoder
from unclip_jax.stages import features, inpainting
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.conditions import flags
from unclip_jax.stages.decoder_drawing import DecoderRequest, sample_decoder
from unclip_jax.stages.decoder_network import (
    conditioning,
    context_length,
    make_decoder,
    text_arguments,
)
from unclip_jax.stages.objective import DiffusionLoss, Network, diffusion_loss
from unclip_jax.stages.sampling import make_plan
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage


def build(config: RunConfig, model: DecoderModel, clip_model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "decoder", beside the frozen CLIP of `clip_model`."""
    parts = _Parts(config, model, clip_model)
    reads_text = model.text_encoder == "clip"
    image = features.image_tower(config)
    return Stage(
        "decoder",
        parts.needs,
        parts.init,
        parts.loss,
        parts.preview,
        None if model.text_encoder == "none" else parts.preview_text,
        towers=image + (features.text_tower(config, model.null_text) if reads_text else ()),
        drawing_towers=image + (("text",) if reads_text else ()),
        memory=parts.objective.memory,
        prepare=parts.objective.prepare,
        task=parts.task,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """The functions of the stage, over what the configs decide."""

    config: RunConfig
    model: DecoderModel
    clip_model: ClipModel

    @cached_property
    def net(self) -> Decoder:
        return make_decoder(self.config, self.model)

    @cached_property
    def clip(self) -> Clip:
        return make_clip(self.clip_model, self.config.precision.compute)

    @cached_property
    def objective(self) -> DiffusionLoss:
        return diffusion_loss(self.config, num_levels=256)

    @property
    def needs(self) -> BatchNeeds:
        stored, reads_clip_text = self.config.data.embeddings == "stored", self._reads_clip_text
        clip_size = () if stored else (self.clip_model.image_size,)
        return BatchNeeds(
            image_sizes=tuple(sorted({self.model.image_size, *clip_size})),
            context_length=context_length(self.model, self.clip_model),
            embeddings=(("image",) if stored else ())
            + (features.stored_text(self.config, "clip") if reads_clip_text else ()),
        )

    def init(self, key: Key[Array, ""]) -> Params:
        model, clip = self.model, self.clip_model
        z, no = jnp.zeros((1, clip.embedding_dim)), jnp.zeros(1, bool)
        text = text_arguments(
            model,
            jnp.zeros((1, context_length(model, clip)), jnp.int32),
            z,
            jnp.zeros((1, clip.context_length, clip.text_width)),
            jnp.ones((1, clip.context_length), bool),
        )
        channels = 3 + inpainting.EXTRA_CHANNELS * model.inpainting
        x = jnp.zeros((1, model.image_size, model.image_size, channels))
        arguments = {"image_embedding": z, "drop_image": no, **text}
        params = self.net.init(key, x, jnp.zeros(1, jnp.int32), **arguments)["params"]
        return inpainting.start_from_zero(params) if model.inpainting else params

    def loss(
        self, params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        model, picture = self.model, self._picture(batch)
        given = self._conditioning(frozen, batch, flags(keys, "drop text", model.drop_text))
        given["drop_image"] = flags(keys, "drop image", model.drop_image)
        dropout = rng.fold_in_name(keys, "dropout")
        known: tuple[Array, ...] = ()
        if model.inpainting:
            mask_keys = rng.fold_in_name(keys, "mask")
            mask = inpainting.sample_masks(mask_keys, model.image_size, model.drop_known)
            known = (inpainting.known_channels(picture, mask),)

        def network(x_t: Array, t: Array) -> Array:
            return self.net.apply(
                {"params": params},
                jnp.concatenate([x_t, *known], axis=-1),
                t,
                **given,
                deterministic=model.dropout == 0,
                dropout_keys=dropout,
            )

        return self.objective(network, picture, keys, frozen, batch)

    def task(
        self, params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Network, Float[Array, "b s s 3"]]:
        del keys  # nothing is drawn
        no = jnp.zeros(len(batch["tokens"]), bool)
        given = self._conditioning(frozen, batch, no) | {"drop_image": no}

        def network(x_t: Array, t: Array) -> Array:
            if self.model.inpainting:
                unknown = inpainting.nothing_known(*x_t.shape[:3])
                x_t = jnp.concatenate([x_t, unknown], axis=-1)
            return self.net.apply({"params": params}, x_t, t, **given)

        return network, self._picture(batch)

    def preview(
        self, params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        z = features.image_embedding(self.clip, frozen, batch)
        shown = jnp.zeros(len(keys), bool)
        drawn = self._draw(params, frozen, batch, keys, z, drop_image=shown)
        return {"real": self._picture(batch), "from its embedding": drawn}

    def preview_text(
        self, params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        z = jnp.ones((len(keys), self.clip_model.embedding_dim))
        dropped = jnp.ones(len(keys), bool)
        drawn = self._draw(params, frozen, batch, keys, z, drop_image=dropped)
        return {"from the text alone": drawn}

    @property
    def _reads_clip_text(self) -> bool:
        return self.model.text_encoder == "clip"

    def _picture(self, batch: Batch) -> Float[Array, "b s s 3"]:
        return images.to_float(batch[f"image_{self.model.image_size}"])

    def _conditioning(
        self, frozen: Params, batch: Batch, dropped: Bool[Array, " b"]
    ) -> dict[str, Array]:
        z = features.image_embedding(self.clip, frozen, batch)
        found = features.batch_text(self.clip, frozen, batch) if self._reads_clip_text else None
        given = Captions(batch["tokens"], dropped)
        return conditioning(self.model, self.clip, frozen, z, given, found)

    def _draw(
        self, params: Params, frozen: Params, batch: Batch, keys: Array, z: Array, drop_image: Array
    ) -> Float[Array, "b s s 3"]:
        tokens, no = batch["tokens"], jnp.zeros(len(keys), bool)
        captioned, uncaptioned = Captions(tokens, no), Captions(tokens, ~no)
        request = DecoderRequest(z, drop_image, captioned, uncaptioned)
        plan = make_plan(self.config)
        return sample_decoder(
            self.config, self.model, self.clip, params, frozen, request, keys, plan
        )
