"""From text to pictures: prior, decoder and upsamplers of a cascade, one after another.

Which picture comes of which seed is in `keys`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, UInt8, UInt32

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.diffusion import Known
from unclip_jax.errors import UserError
from unclip_jax.generation import (
    ablation,
    decoding,
    guidance_grid,
    img2img,
    inpainting,
    interpolation,
    programs,
    reconstruction,
    reranking,
    settings,
    text_diff,
    typographic,
    variations,
)
from unclip_jax.generation.batches import key_data
from unclip_jax.generation.cascade import Cascade
from unclip_jax.generation.keys import image_keys
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Generated
from unclip_jax.generation.runner import Keys, Options, Runner
from unclip_jax.parallel import make_mesh
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.sampling import Resampling
from unclip_jax.text import tokenize

Program = Literal["stages", "whole"]


class Pipeline:
    """The stages of a cascade on the devices of a mesh, ready to draw.

    `pipeline(prompts)` runs them all; the methods are the single steps, on numpy arrays. A program
    is compiled once per stage and batch size; step tables, guidance scales and seeds are arguments.
    """

    def __init__(self, cascade: Cascade, mesh: Mesh | None = None, *, program: Program = "stages"):
        """Copies the weights to the devices.

        Args:
          mesh: by default a copy of the weights on each of this process's devices, which share
            every batch. The axes `fsdp` and `tensor` split the weights too.
          program: what `pipeline(prompts)` compiles. "stages": a program for each stage. "whole":
            one for all of them, which leaves the devices no gaps between the stages but needs
            memory for the largest of them beside all results, and tells of progress batch by batch
            only. The pictures are the same.
        """
        if program not in ("stages", "whole"):
            raise UserError(f"program: must be 'stages' or 'whole', got {program!r}")
        self.cascade, self.program = cascade, program
        self.mesh = make_mesh(MeshConfig(), jax.local_devices()) if mesh is None else mesh
        self.runner = Runner(cascade, self.mesh)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        images_per_prompt: int = 4,
        seed: int = 0,
        negative: Prompt = None,
        **options: Unpack[Options],
    ) -> Generated:
        """Draws pictures of prompts, with every stage that the cascade has after its prior.

        Args:
          prompts: one caption or several; "(phrase:1.5)" weighs a phrase, see `prompts`.
          seed: 0 to 2^32 - 1.
          negative: what prior and decoder are guided away from; without, from no caption.

        Raises:
          UserError: a cascade without clip and prior, no prompts, or settings that are not valid.
        """
        captions = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        chosen = settings.resolve(self.cascade, options.get("sampling"))
        keys = self.key_data(len(captions), images_per_prompt, seed)
        repeated = [prompt for prompt in captions for _ in range(images_per_prompt)]
        run = self._run_whole if self.program == "whole" else self._run_stages
        z, stages = run(repeated, keys, negative, options)
        shape = (len(captions), images_per_prompt)
        return Generated(
            prompts=captions,
            seed=seed,
            embeddings=z.reshape(*shape, -1),
            stages={name: p.reshape(*shape, *p.shape[1:]) for name, p in stages.items()},
            sampling=chosen,
        )

    def keys(self, prompts: int, images_per_prompt: int, seed: int) -> Key[Array, " n"]:
        """The keys of all images [prompts * images_per_prompt], prompt by prompt."""
        return jax.random.wrap_key_data(
            jnp.asarray(self.key_data(prompts, images_per_prompt, seed))
        )

    def key_data(
        self, prompts: int, images_per_prompt: int, seed: int
    ) -> UInt32[np.ndarray, "n k"]:
        """`keys` as arrays on the host, which every method takes as well."""
        return image_keys(prompts, images_per_prompt, seed)

    def embed_images(
        self, pictures: UInt8[np.ndarray, "n h w 3"], batch_size: int | None = None
    ) -> Float[np.ndarray, "n d"]:
        """Raw CLIP embeddings of pictures of any size; they are cropped to squares."""
        if self.runner.clip.model.towers != "both":
            raise UserError("this CLIP has no image tower: import it with --image-encoder")
        config = settings.compiled_part(self.runner.clip.config)
        program = partial(programs.embed_images, self.runner.params("clip"), config=config)
        return self.runner.run("clip", program, [pictures], {"batch_size": batch_size})

    def embed_texts(
        self, captions: Sequence[str], batch_size: int | None = None
    ) -> Float[np.ndarray, "n d"]:
        """Raw CLIP embeddings of captions."""
        config = settings.compiled_part(self.runner.clip.config)
        program = partial(programs.embed_texts, self.runner.params("clip"), config=config)
        tokens = tokenize(captions, self.runner.clip.model.context_length)
        return self.runner.run("clip", program, [tokens], {"batch_size": batch_size})

    def texts(
        self, stage: str, captions: Sequence[Prompt], negative: Prompt
    ) -> tuple[Captions, Captions]:
        """What a stage is guided to and away from, as its network takes it."""
        return self.runner.texts(stage, captions, negative, self.embed_texts)

    def draw_embeddings(
        self,
        captions: Sequence[Prompt],
        keys: Keys,
        *,
        negative: Prompt = None,
        **options: Unpack[Options],
    ) -> Float[np.ndarray, "n d"]:
        """The prior: one image embedding per caption and key, in CLIP's space."""
        setup, config = self.runner.setup("prior", options)
        program = partial(
            programs.draw_embeddings, setup, config=config, clip_model=self.runner.clip.model
        )
        columns = [*self.texts("prior", captions, negative), key_data(keys)]
        return self.runner.run("prior", program, columns, options)

    def upsample(
        self,
        name: str,
        pictures: UInt8[np.ndarray, "n l k 3"],
        keys: Keys,
        *,
        known: Known | None = None,
        resampling: Resampling | None = None,
        canvas: bool = False,
        **options: Unpack[Options],
    ) -> UInt8[np.ndarray, "n s r 3"]:
        """The upsampler called `name`: larger pictures.

        Args:
          pictures: of its `low_size`.
          known, resampling: as for `decode`, of the large picture.
          canvas: whether the pictures may be larger than that; they are drawn as a whole.
        """
        low_size = self.runner.stage(name).model.low_size
        if pictures.shape[1:] != (low_size, low_size, 3) and not canvas:
            raise UserError(f"{name}: takes pictures of {low_size} px, got {pictures.shape[1:]}")
        resampling = (resampling or Resampling()) if known is not None else None
        setup, config = self.runner.setup(name, options, resampling=resampling)
        program = partial(programs.upsample, setup, config=config)
        return self.runner.run(name, program, [pictures, known, key_data(keys)], options)

    def upsample_all(
        self, pictures: UInt8[np.ndarray, "n h w 3"], keys: Keys, **options: Unpack[Options]
    ) -> dict[str, UInt8[np.ndarray, "n s r 3"]]:
        """{stage name: pictures} of the decoder, which are given, and of all upsamplers."""
        stages = {"decoder": pictures}
        for name in self.upsamplers:
            pictures = stages[name] = self.upsample(name, pictures, keys, **options)
        return stages

    decode = decoding.decode
    invert = decoding.invert

    # The editing operations; each is a file of its own.
    variations_of_embedding = variations.variations_of_embedding
    variations = variations.variations
    interpolate = interpolation.interpolate
    interpolate_prompts = interpolation.interpolate_prompts
    text_diff = text_diff.text_diff
    reconstruct = reconstruction.reconstruct
    ablate = ablation.ablate
    rerank = reranking.rerank
    typographic_probe = typographic.typographic_probe
    inpaint = inpainting.inpaint
    outpaint = inpainting.outpaint
    image_to_image = img2img.image_to_image
    guidance_grid = guidance_grid.guidance_grid

    @property
    def decoder_size(self) -> int:
        """Side of the decoder's pictures."""
        return int(self.runner.stage("decoder").model.image_size)

    @property
    def final_size(self) -> int:
        """Side of the last stage's pictures."""
        return list(self.sizes.values())[-1]

    @property
    def sizes(self) -> dict[str, int]:
        """{stage name: side of its pictures}, in the order they run."""
        names = ["decoder", *self.upsamplers]
        return {name: int(self.runner.stage(name).model.image_size) for name in names}

    @property
    def upsamplers(self) -> list[str]:
        """Their names, in the order they run."""
        return [name for name in self.cascade.named() if name.startswith("upsampler")]

    def _run_stages(
        self, captions: Sequence[str], keys: Keys, negative: Prompt, options: Options
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        z = self.draw_embeddings(captions, keys, negative=negative, **options)
        if not self.cascade.decoder:
            return z, {}
        pictures = self.decode(z, captions, keys, negative=negative, **options)
        return z, self.upsample_all(pictures, keys, **options)

    def _run_whole(
        self, captions: Sequence[str], keys: Keys, negative: Prompt, options: Options
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        self.runner.stage("prior")
        names = [name for name in self.cascade.named() if name != "clip"]
        setups, configs = {}, []
        for name in names:
            setups[name], config = self.runner.setup(name, options)
            configs.append((name, config))
        conditioned = [name for name in names if name in ("prior", "decoder")]
        texts = {name: self.texts(name, captions, negative) for name in conditioned}
        program = partial(
            programs.generate, setups, configs=tuple(configs), clip_model=self.runner.clip.model
        )
        found = self.runner.run("all stages", program, [texts, key_data(keys)], options)
        return found.pop("prior"), {name: found[name] for name in names if name in found}
