"""The components of a diffusers unCLIP folder, each a stage of ours or a part of one."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.generation import TrainedStage
from unclip_jax.interop import clip_configs, tensor_map
from unclip_jax.interop.clip_weights import export_clip, import_clip
from unclip_jax.interop.diffusers import configs, names, sampling
from unclip_jax.interop.foreign import read_folder_weights, read_json
from unclip_jax.interop.imported import imported_config, imported_stage
from unclip_jax.interop.tensor_files import save_indexed
from unclip_jax.interop.tensor_map import Shapes, StateDict
from unclip_jax.interop.tokenizer_files import write_json
from unclip_jax.models import unstack_layers
from unclip_jax.models.clip import INITIAL_LOGIT_SCALE
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.embedding import needs_statistics
from unclip_jax.stages.upsampler import LAST_STEP

Origin = Mapping[str, Any]

WEIGHTS = "diffusion_pytorch_model"
_WEIGHT_NAMES = (WEIGHTS, f"{WEIGHTS}.fp16")
_CLIP_NAMES = ("model", "model.fp16", "pytorch_model")
FIRST, LAST = "super_res_first", "super_res_last"


@dataclass
class Writer:
    """Where components are written, how, and which were."""

    folder: pathlib.Path
    dtype: str
    max_file_bytes: int
    written: dict[str, list[str]] = field(default_factory=dict)

    def network(self, name: str, library: str, config: Mapping[str, Any], state: StateDict) -> None:
        """A component with weights."""
        target = self.folder / name
        target.mkdir()
        write_json(target / "config.json", dict(config))
        stem = "model" if library == "transformers" else WEIGHTS
        save_indexed(state, target, stem, dtype=self.dtype, max_bytes=self.max_file_bytes)
        kind = config.get("_class_name") or config["architectures"][0]
        self.written[name] = [library, kind]

    def settings(self, name: str, library: str, kind: str, file: str, config: Any) -> None:
        """A component without weights."""
        (self.folder / name).mkdir()
        write_json(self.folder / name / file, config)
        self.written[name] = [library, kind]


def read_clip(text: pathlib.Path, vision: pathlib.Path | None, origin: Origin) -> TrainedStage:
    """The stage of CLIPTextModelWithProjection, and CLIPVisionModelWithProjection if it is there.

    Neither folder knows the logit scale, which only training needs: it is CLIP's initial one.
    """
    state = read_folder_weights(text, _CLIP_NAMES)
    model = clip_configs.text_model(read_json(text / "config.json"), state, str(text))
    towers: tuple[str, ...] = ("text",)
    more: dict[str, Any] = clip_configs.TEXT_ONLY
    if vision is not None:
        pictures = read_folder_weights(vision, _CLIP_NAMES)
        more = clip_configs.vision_model(read_json(vision / "config.json"), pictures, str(vision))
        _agree(model, more, text, vision)
        state, towers = state | pictures, ("vision", "text")
    config = imported_config("clip", model | more)
    settings: Any = config.model
    clip = make_clip(settings, "float32")

    def load(shapes: Shapes) -> dict[str, Any]:
        del shapes
        halves = [import_clip(_half(state, tower), clip, (tower,)) for tower in towers]
        params = {name: part for half in halves for name, part in half.items()}
        return {**params, "logit_scale": np.float32(INITIAL_LOGIT_SCALE)}

    return imported_stage(config, load, source=str(text.parent), provenance={"imported": origin})


def read_prior(
    folder: pathlib.Path, clip: TrainedStage, origin: Origin, scheduler: str = "prior_scheduler"
) -> TrainedStage:
    """The stage of PriorTransformer and its scheduler."""
    theirs = read_json(folder / "prior" / "config.json")
    diffusion, clip_range = _process(folder / scheduler)
    chosen = {**sampling.PRIOR, "clip_range": clip_range}
    config = imported_config("prior", configs.prior_model(theirs), diffusion, chosen)
    model: Any = config.model
    expected = configs.prior_config(model, clip.model)
    configs.check_same(theirs, expected, "prior/config.json")
    state = dict(read_folder_weights(folder / "prior", _WEIGHT_NAMES))
    try:
        statistics = {name: state.pop(f"clip_{name}")[0] for name in ("mean", "std")}
    except KeyError as error:
        raise UserError(f"{folder / 'prior'}: the weights lack {error}") from None
    entries = names.prior_entries(model.layers)
    return imported_stage(
        config,
        lambda shapes: tensor_map.to_ours(entries, state, shapes, "prior"),
        source=str(folder),
        clip=clip,
        statistics={name: np.asarray(v, np.float32) for name, v in statistics.items()},
        provenance={"imported": origin},
    )


def read_decoder(folder: pathlib.Path, clip: TrainedStage, origin: Origin) -> TrainedStage:
    """The stage of UNet2DConditionModel, UnCLIPTextProjModel and their scheduler."""
    theirs = read_json(folder / "decoder" / "config.json")
    projections = read_json(folder / "text_proj" / "config.json")
    diffusion, clip_range = _process(folder / "decoder_scheduler")
    settings = configs.decoder_model(theirs, projections)
    chosen = {**sampling.DECODER, "clip_range": clip_range}
    config = imported_config("decoder", settings, diffusion, chosen)
    model: Any = config.model
    configs.check_same(theirs, configs.decoder_config(model, config.diffusion), "decoder")
    configs.check_same(projections, configs.text_proj_config(model, clip.model), "text_proj")
    unet = read_folder_weights(folder / "decoder", _WEIGHT_NAMES)
    rest = read_folder_weights(folder / "text_proj", _WEIGHT_NAMES)

    def load(shapes: Shapes) -> dict[str, Any]:
        own = {k: v for k, v in shapes.items() if not k.startswith("unet/")}
        return {
            "unet": read_unet(unet, shapes, "unet/", len(model.multipliers), "decoder"),
            **tensor_map.to_ours(names.text_proj_entries(), rest, own, "text_proj"),
        }

    return imported_stage(
        config, load, source=str(folder), clip=clip, provenance={"imported": origin}
    )


def read_upsampler(folder: pathlib.Path, low_size: int, origin: Origin) -> TrainedStage:
    """The stage of both UNet2DModels and their scheduler.

    Equal weights are one network for all steps; otherwise the second one draws the last step.
    """
    theirs, last = (read_json(folder / name / "config.json") for name in (FIRST, LAST))
    diffusion, clip_range = _process(folder / "super_res_scheduler")
    first_state, last_state = (
        read_folder_weights(folder / name, _WEIGHT_NAMES) for name in (FIRST, LAST)
    )
    shared = first_state.keys() == last_state.keys() and all(
        np.array_equal(first_state[k], last_state[k]) for k in first_state
    )
    settings = configs.upsampler_model(theirs, low_size)
    settings["last_step"] = "shared" if shared else "own"
    chosen = {**sampling.UPSAMPLER, "clip_range": clip_range}
    config = imported_config("upsampler", settings, diffusion, chosen)
    model: Any = config.model
    expected = configs.upsampler_config(model, config.diffusion)
    configs.check_same(theirs, expected, FIRST)
    configs.check_same(last, expected, LAST)
    levels = len(model.multipliers)

    def load(shapes: Shapes) -> dict[str, Any]:
        first = {"unet": read_unet(first_state, shapes, "unet/", levels, FIRST)}
        if shared:
            return first
        prefix = f"{LAST_STEP}/unet/"
        return {**first, LAST_STEP: {"unet": read_unet(last_state, shapes, prefix, levels, LAST)}}

    return imported_stage(config, load, source=str(folder), provenance={"imported": origin})


def write_text_encoder(writer: Writer, clip: TrainedStage) -> None:
    """CLIPTextModelWithProjection."""
    kind = "CLIPTextModelWithProjection"
    state = export_clip(clip.params, make_clip(clip.model, "float32"), "huggingface", ("text",))
    config = clip_configs.text_config(clip.model, kind)
    writer.network("text_encoder", "transformers", config, state)


def write_image_encoder(writer: Writer, clip: TrainedStage) -> None:
    """CLIPVisionModelWithProjection and the preparation of its pictures."""
    kind = "CLIPVisionModelWithProjection"
    state = export_clip(clip.params, make_clip(clip.model, "float32"), "huggingface", ("vision",))
    config = clip_configs.vision_config(clip.model, kind)
    writer.network("image_encoder", "transformers", config, state)
    settings = clip_configs.preprocessor_config(clip.model)
    writer.settings(
        "feature_extractor", "transformers", "CLIPImageProcessor", "preprocessor_config.json",
        settings,
    )  # fmt: skip


def write_prior(writer: Writer, prior: TrainedStage, clip: TrainedStage) -> None:
    """PriorTransformer, with the statistics of embeddings in it, and its scheduler."""
    config = configs.prior_config(prior.model, clip.model)
    state = tensor_map.to_theirs(
        names.prior_entries(prior.model.layers), unstack_layers(dict(prior.params))
    )
    for name, value in _statistics(prior, clip.model.embedding_dim).items():
        state[f"clip_{name}"] = np.asarray(value, np.float32)[None]
    writer.network("prior", "diffusers", config, state)
    _scheduler(writer, "prior_scheduler", prior)


def write_decoder(writer: Writer, decoder: TrainedStage, clip: TrainedStage) -> None:
    """UNet2DConditionModel, UnCLIPTextProjModel and their scheduler."""
    config = configs.decoder_config(decoder.model, decoder.config.diffusion)
    writer.network(
        "decoder", "diffusers", config, _unet_state(decoder.params["unet"], decoder.model)
    )
    writer.network(
        "text_proj",
        "unclip",
        configs.text_proj_config(decoder.model, clip.model),
        tensor_map.to_theirs(names.text_proj_entries(), decoder.params),
    )
    _scheduler(writer, "decoder_scheduler", decoder)


def write_upsampler(writer: Writer, upsampler: TrainedStage) -> None:
    """Both UNet2DModels (the same one twice, if one network draws all steps); their scheduler."""
    model = upsampler.model
    config = configs.upsampler_config(model, upsampler.config.diffusion)
    last = upsampler.params[LAST_STEP] if model.last_step == "own" else upsampler.params
    writer.network(FIRST, "diffusers", config, _unet_state(upsampler.params["unet"], model))
    writer.network(LAST, "diffusers", config, _unet_state(last["unet"], model))
    _scheduler(writer, "super_res_scheduler", upsampler)


def _scheduler(writer: Writer, name: str, stage: TrainedStage) -> None:
    config = configs.scheduler_config(stage.config.diffusion, stage.config.sampling.clip_range)
    writer.settings(name, "diffusers", "UnCLIPScheduler", "scheduler_config.json", config)


def _process(folder: pathlib.Path) -> tuple[dict[str, Any], float | None]:
    path = folder / "scheduler_config.json"
    return configs.diffusion(read_json(path), str(path))


def _unet_state(params: Mapping[str, Any], model: Any) -> dict[str, np.ndarray]:
    shapes = {path: leaf.shape for path, leaf in trees.flatten(params).items()}
    return tensor_map.to_theirs(names.unet_entries(shapes, len(model.multipliers)), params)


def read_unet(
    state: StateDict, shapes: Shapes, prefix: str, levels: int, what: str
) -> dict[str, Any]:
    """The parameters of a U-Net whose paths in `shapes` begin with `prefix`."""
    own = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
    return tensor_map.to_ours(names.unet_entries(own, levels), state, own, what)


def _statistics(prior: TrainedStage, dim: int) -> Mapping[str, Any]:
    """mean and std [D] that turn the prior's output into an embedding."""
    scale = prior.model.embedding_scale
    if needs_statistics(scale):
        assert prior.statistics is not None  # `compose` refuses such a prior
        return prior.statistics
    if scale != "raw":
        raise UserError(
            f"this prior has embedding_scale={scale!r}, but diffusers' unCLIP feeds it raw text "
            "embeddings: train it with --config.model.embedding_scale=whiten"
        )
    return {"mean": np.zeros(dim), "std": np.ones(dim)}


def _half(state: StateDict, tower: str) -> dict[str, np.ndarray]:
    mine = {"text": "text_", "vision": "vis"}[tower]
    return {k: v for k, v in state.items() if k.startswith(mine)}


def _agree(
    text: Mapping[str, Any], vision: Mapping[str, Any], where: pathlib.Path, other: pathlib.Path
) -> None:
    for name in ("embedding_dim", "activation"):
        if text[name] != vision[name]:
            raise UserError(
                f"{where} and {other} are not of one CLIP: {name} is {text[name]} and "
                f"{vision[name]}"
            )
