"""The decoder's two ways: from embedding, caption and noise to pictures, and back to the noise.

(z, x_T) are the bipartite latents of the paper, section 3: z what CLIP sees, x_T the rest.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from jaxtyping import Float, UInt8

from unclip_jax.diffusion import Known
from unclip_jax.errors import UserError
from unclip_jax.generation import programs, settings
from unclip_jax.generation.batches import key_data
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.runner import Keys, Options
from unclip_jax.stages.decoder_drawing import DecoderRequest
from unclip_jax.stages.sampling import Resampling, inversion_plan

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline


def decode(
    pipeline: "Pipeline",
    z: Float[np.ndarray, "n d"] | None,
    captions: Sequence[Prompt],
    keys: Keys,
    *,
    negative: Prompt = None,
    noise: Float[np.ndarray, "n h w 3"] | None = None,
    picture: UInt8[np.ndarray, "n h w 3"] | None = None,
    strength: float = 1.0,
    known: Known | None = None,
    shown: bool = True,
    resampling: Resampling | None = None,
    **options: Unpack[Options],
) -> UInt8[np.ndarray, "n h w 3"]:
    """The decoder: one picture per image embedding, caption and key.

    Args:
      z: None leaves the embedding out.
      captions: None for a picture without caption.
      negative: what guidance moves away from.
      noise: x_T, as `invert` gives it; by default each key's own.
      picture, strength: start from a picture with noise on it, after the part of the process
        that `strength` leaves: near 0 keeps it, 1 keeps nothing.
      known: a part of the picture, uint8, that is kept; `resampling` says how.
      shown: whether a decoder that was trained to inpaint is shown it as well.
    """
    if not 0 < strength <= 1:
        raise UserError(f"strength: must be above 0 and at most 1, got {strength}")
    resampling = (resampling or Resampling()) if known is not None else None
    setup, config = pipeline.runner.setup(
        "decoder", options, strength=strength, resampling=resampling
    )
    request = _request(
        pipeline, z, captions, negative, noise=noise, picture=picture, known=known, shown=shown
    )
    program = partial(programs.decode, setup, config=config, clip_model=pipeline.runner.clip.model)
    return pipeline.runner.run("decoder", program, [request, key_data(keys)], options)


def invert(
    pipeline: "Pipeline",
    pictures: UInt8[np.ndarray, "n s s 3"],
    z: Float[np.ndarray, "n d"] | None,
    captions: Sequence[Prompt],
    *,
    negative: Prompt = None,
    iterations: int = 4,
    **options: Unpack[Options],
) -> Float[np.ndarray, "n s s 3"]:
    """The x_T which the decoder, by DDIM without noise, turns into pictures of its size.

    It must be decoded with the same embedding, caption, steps and guidance scale, and without
    bound on the predicted picture (`clip_range` none).

    Args:
      iterations: network calls for each step; more bring the picture back more exactly.
    """
    setup, config = pipeline.runner.setup("decoder", options)
    chosen = settings.resolve(pipeline.cascade, options.get("sampling"))["decoder"]
    plan = inversion_plan(pipeline.runner.stage("decoder").config, chosen, iterations)
    program = partial(
        programs.invert,
        setup._replace(plan=plan),
        config=config,
        clip_model=pipeline.runner.clip.model,
    )
    request = _request(pipeline, z, captions, negative, noise=pictures)
    keys = np.zeros((len(pictures), *pipeline.key_data(1, 1, 0).shape[1:]), np.uint32)
    return pipeline.runner.run("inversion", program, [request, keys], options)


def _request(
    pipeline: "Pipeline",
    z: np.ndarray | None,
    captions: Sequence[Prompt],
    negative: Prompt,
    **given: Any,
) -> DecoderRequest:
    drop_image = np.full(len(captions), z is None)
    if z is None:  # any embedding of a length that is not zero: it is dropped
        z = np.ones((len(captions), pipeline.runner.clip.model.embedding_dim), np.float32)
    return DecoderRequest(z, drop_image, *pipeline.texts("decoder", captions, negative), **given)
