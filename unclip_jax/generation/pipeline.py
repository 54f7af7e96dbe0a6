"""From text to pictures: prior, decoder and upsamplers of a cascade, one after another.

Image j of prompt i is drawn with the key

    fold_in(fold_in(key(seed), j), i)

from which each stage derives its own by name. A picture is therefore a function of the weights, the
seed, its prompt and the two numbers, and not of how many others are drawn, of the batch size or of
the number of devices (up to the rounding of matrix products, which may depend on shapes: see
docs/sampling.md for what is exact).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, UInt8

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.config.schema import Sampling
from unclip_jax.errors import UserError
from unclip_jax.generation import programs, settings
from unclip_jax.generation.batches import Report, choose_batch_size, no_report, run_batched
from unclip_jax.generation.cascade import Cascade, TrainedStage
from unclip_jax.parallel import make_mesh, shardings
from unclip_jax.stages import decoder, prior
from unclip_jax.text import tokenize

MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Pictures of P prompts, n each, with what every stage made of them.

    Attributes:
      prompts: P captions.
      seed: the one they were drawn with.
      embeddings: the prior's image embeddings, float32 [P, n, D], in CLIP's space.
      stages: {stage name: uint8 [P, n, S, S, 3]} of decoder and upsamplers, in order.
      sampling: {stage name: settings} in force.
    """

    prompts: tuple[str, ...]
    seed: int
    embeddings: Float[np.ndarray, "p n d"]
    stages: Mapping[str, UInt8[np.ndarray, "p n s s 3"]]
    sampling: Mapping[str, Sampling]

    @property
    def images(self) -> UInt8[np.ndarray, "p n s s 3"]:
        """The pictures of the last stage."""
        if not self.stages:
            raise UserError("this cascade has no decoder, so there are embeddings but no pictures")
        return list(self.stages.values())[-1]


class Pipeline:
    """The stages of a cascade on the devices of a mesh, ready to draw.

    `pipeline(prompts)` runs them all; the methods are the single steps, on numpy arrays. A program
    is compiled once per stage, settings and batch size; guidance scales and seeds are arguments.
    """

    def __init__(self, cascade: Cascade, mesh: Mesh | None = None):
        """Copies the weights to the devices.

        Args:
          mesh: by default a copy of the weights on each of this process's devices, which share
            every batch. A mesh with an `fsdp` axis splits the weights too.
        """
        self.cascade = cascade
        self.mesh = make_mesh(MeshConfig(), jax.local_devices()) if mesh is None else mesh
        self._params = {
            name: jax.device_put(stage.params, shardings(stage.params, self.mesh))
            for name, stage in cascade.named().items()
        }

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        images_per_prompt: int = 4,
        seed: int = 0,
        sampling: settings.Overrides | None = None,
        batch_size: int | None = None,
        report: Report = no_report,
    ) -> Generated:
        """Draws pictures of prompts, with every stage that the cascade has after its prior.

        Args:
          prompts: one caption or several.
          seed: 0 to 2^32 - 1.
          sampling: {stage name: {setting: value}} over the stages' own, see `settings`.
          batch_size: examples at a time, rounded up to a multiple of the devices; give one to a
            long-lived pipeline so that no request compiles anew. By default all, up to 16.
          report: told of the progress of each stage, see `batches.Report`.

        Raises:
          UserError: a cascade without clip and prior, no prompts, or settings that are not valid.
        """
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        chosen = settings.resolve(self.cascade, sampling)
        keys = self.keys(len(prompts), images_per_prompt, seed)
        captions = [prompt for prompt in prompts for _ in range(images_per_prompt)]
        shared: dict[str, Any] = {"sampling": sampling, "batch_size": batch_size, "report": report}
        z = self.draw_embeddings(captions, keys, **shared)
        stages: dict[str, np.ndarray] = {}
        if self.cascade.decoder:
            pictures = stages["decoder"] = self.decode(z, captions, keys, **shared)
            for name in chosen:
                if name.startswith("upsampler"):
                    pictures = stages[name] = self.upsample(name, pictures, keys, **shared)
        shape = (len(prompts), images_per_prompt)
        return Generated(
            prompts=prompts,
            seed=seed,
            embeddings=z.reshape(*shape, -1),
            stages={name: p.reshape(*shape, *p.shape[1:]) for name, p in stages.items()},
            sampling=chosen,
        )

    def keys(self, prompts: int, images_per_prompt: int, seed: int) -> Key[Array, " n"]:
        """The keys of all images [prompts * images_per_prompt], prompt by prompt."""
        if prompts < 1 or images_per_prompt < 1:
            raise UserError(
                f"nothing to draw: {prompts} prompts with {images_per_prompt} images each"
            )
        if not 0 <= seed <= MAX_SEED:
            raise UserError(f"seed: must be 0 to {MAX_SEED}, got {seed}")
        root = jax.random.key(np.uint32(seed))
        return programs.image_keys(root, prompts, images_per_prompt)

    def embed_images(
        self, pictures: UInt8[np.ndarray, "n h w 3"], batch_size: int | None = None
    ) -> Float[np.ndarray, "n d"]:
        """Raw CLIP embeddings of pictures of any size; they are cropped to squares."""
        program = partial(programs.embed_images, self._params_of("clip"), config=self._clip.config)
        return self._run(program, [pictures], batch_size)

    def embed_texts(
        self, captions: Sequence[str], batch_size: int | None = None
    ) -> Float[np.ndarray, "n d"]:
        """Raw CLIP embeddings of captions."""
        program = partial(programs.embed_texts, self._params_of("clip"), config=self._clip.config)
        return self._run(program, [tokenize(captions, self._clip.model.context_length)], batch_size)

    def draw_embeddings(
        self,
        captions: Sequence[str],
        keys: Key[Array, " n"],
        *,
        sampling: settings.Overrides | None = None,
        batch_size: int | None = None,
        report: Report = no_report,
    ) -> Float[np.ndarray, "n d"]:
        """The prior: one image embedding per caption and key, in CLIP's space."""
        length = prior.context_length(self._stage("prior").model, self._clip.model)
        program = self._conditioned("prior", programs.draw_embeddings, sampling)
        columns = [tokenize(captions, length), keys]
        return self._run(program, columns, batch_size, report, "prior")

    def decode(
        self,
        z: Float[np.ndarray, "n d"],
        captions: Sequence[str],
        keys: Key[Array, " n"],
        *,
        sampling: settings.Overrides | None = None,
        batch_size: int | None = None,
        report: Report = no_report,
    ) -> UInt8[np.ndarray, "n s s 3"]:
        """The decoder: one picture per image embedding, caption and key."""
        length = decoder.context_length(self._stage("decoder").model, self._clip.model)
        program = self._conditioned("decoder", programs.decode, sampling)
        columns = [z, tokenize(captions, length), keys]
        return self._run(program, columns, batch_size, report, "decoder")

    def upsample(
        self,
        name: str,
        pictures: UInt8[np.ndarray, "n l l 3"],
        keys: Key[Array, " n"],
        *,
        sampling: settings.Overrides | None = None,
        batch_size: int | None = None,
        report: Report = no_report,
    ) -> UInt8[np.ndarray, "n s s 3"]:
        """The upsampler called `name`: larger pictures."""
        low_size = self._stage(name).model.low_size
        if pictures.shape[1:] != (low_size, low_size, 3):
            raise UserError(f"{name}: takes pictures of {low_size} px, got {pictures.shape[1:]}")
        chosen = settings.resolve(self.cascade, sampling)
        program = partial(
            programs.upsample,
            self._params_of(name),
            config=self._stage(name).config,
            sampling=settings.compiled_part(chosen[name]),
        )
        return self._run(program, [pictures, keys], batch_size, report, name)

    def _conditioned(self, name: str, program: Any, sampling: settings.Overrides | None) -> Any:
        """The program of a stage that CLIP conditions, bound to weights and settings."""
        stage = self._stage(name)
        chosen = settings.resolve(self.cascade, sampling)[name]
        frozen = {"clip": self._params_of("clip")}
        if stage.statistics is not None:
            frozen["statistics"] = dict(stage.statistics)
        return partial(
            program,
            self._params_of(name),
            frozen,
            jnp.float32(chosen.guidance_scale),
            config=stage.config,
            clip_model=self._clip.model,
            sampling=settings.compiled_part(chosen),
        )

    def _run(
        self,
        program: Any,
        columns: Sequence[Any],
        batch_size: int | None,
        report: Report = no_report,
        name: str = "clip",
    ) -> np.ndarray:
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise UserError(f"{name}: needs one or more of each of its inputs, got {lengths}")
        size = choose_batch_size(lengths[0], batch_size, self.mesh)
        with report(name, lengths[0]) as advance:
            return run_batched(program, columns, batch_size=size, mesh=self.mesh, advance=advance)

    def _stage(self, name: str) -> TrainedStage:
        stages = self.cascade.named()
        if name not in stages:
            raise UserError(f"this cascade has no {name}, only {', '.join(stages)}")
        return stages[name]

    def _params_of(self, name: str) -> Any:
        self._stage(name)
        return self._params[name]

    @property
    def _clip(self) -> TrainedStage:
        return self._stage("clip")
