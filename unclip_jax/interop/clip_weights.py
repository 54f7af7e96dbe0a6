"""CLIP weights in and out, in the two namings that exist.

"open_clip" is OpenAI's and open_clip's `CLIP` class (and `CustomTextCLIP`, which prefixes the text
tower with `text.`); "huggingface" is transformers' `CLIPModel` and its text-only and vision-only
halves. PyTorch stores linear weights [out, in] and convolutions [out, in, height, width]; ours are
[in, out] and [height, width, in, out]. OpenAI fuses q, k and v in one matrix [3 out, in], Hugging
Face has three; ours is [in, 3, out]. Both keep the logarithm of the logit scale.

Every tensor of a file must be known and every parameter must be there, in its shape: anything else
is a `UserError`, since a CLIP that is half loaded still returns plausible embeddings.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.flax import load_file  # unlike safetensors.numpy it knows bfloat16

from unclip_jax.core import trees
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.models.clip import Clip
from unclip_jax.models.params import stack_layers, unstack_layers

StateDict = Mapping[str, np.ndarray]
DIALECTS = ("open_clip", "huggingface")
TOWERS = ("vision", "text")

# Facts about the model, or constant tables, that some files store beside the weights.
_NOT_WEIGHTS = {
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
}


@dataclass(frozen=True)
class Entry:
    """One parameter of ours and where it is stored.

    Attributes:
      ours: path of the parameter.
      theirs: one tensor, or three (q, k, v) that follow each other along their output axis.
      layout: "same", "linear" ([out, in] there) or "conv" ([out, in, h, w] there).
      fused: q, k and v in one: the last axis is split in [3, out] here.
    """

    ours: str
    theirs: tuple[str, ...]
    layout: str = "same"
    fused: bool = False

    def to_ours(self, state: StateDict) -> np.ndarray:
        parts = [np.asarray(state[k], np.float32) for k in self.theirs]
        value = parts[0] if len(parts) == 1 else np.concatenate(parts)
        axes = {"same": range(value.ndim), "linear": (1, 0), "conv": (2, 3, 1, 0)}[self.layout]
        if len(axes) != value.ndim:
            raise UserError(f"{self.theirs[0]} has {value.ndim} dimensions, expected {len(axes)}")
        value = value.transpose(*axes)
        return value.reshape(*value.shape[:-1], 3, -1) if self.fused else value

    def to_theirs(self, value: np.ndarray) -> dict[str, np.ndarray]:
        if self.fused:
            value = value.reshape(*value.shape[:-2], -1)
        axes = {"same": range(value.ndim), "linear": (1, 0), "conv": (3, 2, 0, 1)}[self.layout]
        value = np.array(value.transpose(*axes), order="C")  # safetensors writes memory as it lies
        parts = [value] if len(self.theirs) == 1 else np.split(value, len(self.theirs))
        return dict(zip(self.theirs, parts, strict=True))


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file, or of a .pt, .bin or .ckpt file where torch is installed.

    Pickles are read with `weights_only=True`, which torch made safe in version 2.6; of a Lightning
    checkpoint the "state_dict" is taken. No code from the file runs.

    Raises:
      UserError: for other files, without a recent torch, or if a pickle holds more than tensors.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        raise UserError(
            f"{path} is no weights file: expected .safetensors, .pt, .pth, .bin or .ckpt"
        )
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix != ".safetensors":
        return _read_pickle(path)
    return {k: np.asarray(v) for k, v in load_file(path).items()}


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    convert = f"convert {path} to .safetensors where you have torch, or install torch >= 2.6"
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path.suffix} files needs torch: {convert}") from error
    if tuple(int(x) for x in torch.__version__.split(".")[:2]) < (2, 6):
        raise UserError(f"torch {torch.__version__} cannot read pickles safely: {convert}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} holds more than weights (OpenAI's .pt files are TorchScript programs): save "
            f"its state_dict as .safetensors and import that ({reason})"
        ) from error
    state = state.get("state_dict", state)
    return {k: v.float().numpy() for k, v in state.items()}


def import_clip(state: StateDict, clip: Clip, towers: Sequence[str] = TOWERS) -> dict[str, Any]:
    """Our parameters from a state dict in either naming.

    Args:
      state: arrays by name, of any float dtype.
      clip: the model they are for; its sizes must be theirs, and its `scan_layers` says the layout.
      towers: both, or the one whose weights `state` holds (then without logit_scale).

    Returns:
      {"vision": ..., "text": ..., "logit_scale": ...}, float32 numpy arrays: what goes under
      "params" in `clip.apply`.

    Raises:
      UserError: for unknown, missing or misshapen tensors.
    """
    state = {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}
    if "text.token_embedding.weight" in state:
        state = {k.removeprefix("text."): v for k, v in state.items()}
    huggingface = any(k.startswith(("vision_model.", "text_model.")) for k in state)
    entries = _entries(clip, "huggingface" if huggingface else "open_clip", towers)
    _check_names(set(state), {k for entry in entries for k in entry.theirs})
    shapes = _shapes(clip)
    flat = {}
    for entry in entries:
        value, wanted = entry.to_ours(state), shapes[entry.ours]
        if value.shape != wanted and not (value.size == 1 and wanted == ()):
            raise UserError(
                f"{entry.theirs[0]} makes {entry.ours} {value.shape}, but this CLIP's is {wanted}: "
                "choose the size (CLIP_SIZES) that the weights were trained with"
            )
        flat[entry.ours] = value.reshape(wanted)
    params = trees.unflatten(flat)
    return stack_layers(params) if clip.scan_layers else params


def export_clip(
    params: Mapping[str, Any], clip: Clip, dialect: str, towers: Sequence[str] = TOWERS
) -> dict[str, np.ndarray]:
    """The inverse of `import_clip`: a float32 state dict, "open_clip" or "huggingface" by name.

    Raises:
      UserError: for an unknown dialect.
    """
    if dialect not in DIALECTS:
        raise UserError(f"unknown CLIP naming {dialect!r}{did_you_mean(dialect, DIALECTS)}")
    flat = trees.flatten(unstack_layers(dict(params)))
    state: dict[str, np.ndarray] = {}
    for entry in _entries(clip, dialect, towers):
        state |= entry.to_theirs(np.asarray(flat[entry.ours], np.float32))
    return state


def _check_names(found: set[str], expected: set[str]) -> None:
    unknown, missing = sorted(found - expected), sorted(expected - found)
    if not unknown and not missing:
        return
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("unknown", unknown), ("missing", missing))
        if names
    ]
    raise UserError(
        f"these are not the weights of this CLIP: {' and '.join(parts)} tensors; check its number "
        "of layers and which towers the file holds"
    )


def _shapes(clip: Clip) -> dict[str, tuple[int, ...]]:
    images = jnp.zeros((1, clip.image_size, clip.image_size, 3))
    tokens = jnp.zeros((1, clip.context_length), jnp.int32)
    init = clip.clone(scan_layers=False).init
    abstract = jax.eval_shape(init, jax.random.key(0), images, tokens)["params"]
    return {path: leaf.shape for path, leaf in trees.flatten(abstract).items()}


def _entries(clip: Clip, dialect: str, towers: Sequence[str]) -> list[Entry]:
    layers = {"vision": clip.vision_layers, "text": clip.text_layers}
    tower = _open_clip_tower if dialect == "open_clip" else _huggingface_tower
    entries = [entry for name in towers for entry in tower(name, layers[name])]
    if set(towers) == set(TOWERS):
        scalars = ["logit_scale"] + ["logit_bias"] * (clip.initial_logit_bias is not None)
        entries += [Entry(name, (name,)) for name in scalars]
    return entries


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}/scale", (f"{theirs}.weight",)),
        Entry(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def _linear(ours: str, *theirs: str) -> list[Entry]:
    fused = len(theirs) == 3
    return [
        Entry(f"{ours}/kernel", tuple(f"{t}.weight" for t in theirs), "linear", fused),
        Entry(f"{ours}/bias", tuple(f"{t}.bias" for t in theirs), fused=fused),
    ]


def _open_clip_tower(name: str, layers: int) -> list[Entry]:
    prefix = "visual." if name == "vision" else ""
    entries = []
    for i in range(layers):
        ours, theirs = f"{name}/transformer/block_{i}", f"{prefix}transformer.resblocks.{i}"
        entries += [
            *_norm(f"{ours}/norm_1", f"{theirs}.ln_1"),
            Entry(f"{ours}/qkv/kernel", (f"{theirs}.attn.in_proj_weight",), "linear", fused=True),
            Entry(f"{ours}/qkv/bias", (f"{theirs}.attn.in_proj_bias",), fused=True),
            *_linear(f"{ours}/attention_out", f"{theirs}.attn.out_proj"),
            *_norm(f"{ours}/norm_2", f"{theirs}.ln_2"),
            *_linear(f"{ours}/mlp_in", f"{theirs}.mlp.c_fc"),
            *_linear(f"{ours}/mlp_out", f"{theirs}.mlp.c_proj"),
        ]
    if name == "text":
        return [
            Entry("text/token_embedding/embedding", ("token_embedding.weight",)),
            Entry("text/position_embedding", ("positional_embedding",)),
            *entries,
            *_norm("text/norm_final", "ln_final"),
            Entry("text_projection/kernel", ("text_projection",)),
        ]
    return [
        Entry("vision/patch_embedding/kernel", ("visual.conv1.weight",), "conv"),
        Entry("vision/class_embedding", ("visual.class_embedding",)),
        Entry("vision/position_embedding", ("visual.positional_embedding",)),
        *_norm("vision/norm_pre", "visual.ln_pre"),
        *entries,
        *_norm("vision/norm_post", "visual.ln_post"),
        Entry("vision_projection/kernel", ("visual.proj",)),
    ]


def _huggingface_tower(name: str, layers: int) -> list[Entry]:
    entries = []
    for i in range(layers):
        ours, theirs = f"{name}/transformer/block_{i}", f"{name}_model.encoder.layers.{i}"
        qkv = [f"{theirs}.self_attn.{x}_proj" for x in "qkv"]
        entries += [
            *_norm(f"{ours}/norm_1", f"{theirs}.layer_norm1"),
            *_linear(f"{ours}/qkv", *qkv),
            *_linear(f"{ours}/attention_out", f"{theirs}.self_attn.out_proj"),
            *_norm(f"{ours}/norm_2", f"{theirs}.layer_norm2"),
            *_linear(f"{ours}/mlp_in", f"{theirs}.mlp.fc1"),
            *_linear(f"{ours}/mlp_out", f"{theirs}.mlp.fc2"),
        ]
    embeddings = f"{name}_model.embeddings"
    positions = Entry(f"{name}/position_embedding", (f"{embeddings}.position_embedding.weight",))
    if name == "text":
        return [
            Entry("text/token_embedding/embedding", (f"{embeddings}.token_embedding.weight",)),
            positions,
            *entries,
            *_norm("text/norm_final", "text_model.final_layer_norm"),
            Entry("text_projection/kernel", ("text_projection.weight",), "linear"),
        ]
    return [
        Entry("vision/patch_embedding/kernel", (f"{embeddings}.patch_embedding.weight",), "conv"),
        Entry("vision/class_embedding", (f"{embeddings}.class_embedding",)),
        positions,
        *_norm("vision/norm_pre", "vision_model.pre_layrnorm"),  # sic
        *entries,
        *_norm("vision/norm_post", "vision_model.post_layernorm"),
        Entry("vision_projection/kernel", ("visual_projection.weight",), "linear"),
    ]
