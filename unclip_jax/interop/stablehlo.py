"""A cascade as StableHLO programs (`jax.export`): runs where there is only jax and numpy.

    manifest.json     programs with their inputs and outputs, checksums, versions
    programs/NAME.bin  serialised `jax.export.Exported`, for every platform that was asked for
    weights/STAGE.npz  parameters by path, float32; arguments of the programs, never constants
    tokenizer/         CLIP's vocabulary and merges
    run.py             loads and calls them; no import but jax, numpy and the standard library
    flatbuffers/       what jax reads programs with, and does not bring along

Programs: `clip_text` and `clip_image`; `prior_step`, `decoder_step` and `upsampler_step`, one pass
of a network; `sample`, the whole way from tokens to pictures at the cascade's own settings, with
guidance scales and seeds as arguments. The batch is symbolic: one program serves every batch size.

jax promises that a program can be loaded for six months of later versions; the weights and the
bundle they came from have no such date. Export again from the bundle when the time has come.
"""

import hashlib
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.generation import Cascade
from unclip_jax.interop.folders import whole_folder
from unclip_jax.interop.stablehlo_programs import Program, programs_of
from unclip_jax.interop.tokenizer_files import write_json, write_tokenizer

PLATFORMS = ("cpu", "cuda", "tpu")
MANIFEST = "manifest.json"


def write_stablehlo(
    cascade: Cascade,
    path: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes the programs of a cascade, whole or not at all.

    Raises:
      UserError: without flatbuffers, or on an accelerator: a program that is to run everywhere is
        traced where no accelerator's own kernels are chosen.
    """
    check_can_export()
    programs = programs_of(cascade)
    with whole_folder(pathlib.Path(path), MANIFEST, "StableHLO export") as fresh:
        (fresh / "programs").mkdir()
        (fresh / "weights").mkdir()
        entries = {p.name: _write_program(p, fresh, platforms) for p in programs}
        for name, stage in cascade.named().items():
            arrays = {k: np.asarray(v) for k, v in trees.flatten(stage.params).items()}
            if stage.statistics is not None:
                arrays |= {f"statistics/{k}": v for k, v in stage.statistics.items()}
            np.savez(fresh / "weights" / f"{name}.npz", allow_pickle=False, **arrays)
        if cascade.clip is not None:
            write_tokenizer(fresh / "tokenizer", cascade.clip.model.context_length)
        _copy_flatbuffers(fresh / "flatbuffers")
        shutil.copy(pathlib.Path(__file__).with_name("stablehlo_run.py"), fresh / "run.py")
        write_json(fresh / MANIFEST, _manifest(cascade, entries, platforms, fresh))


def check_can_export() -> None:
    """Raises `UserError` if programs can't be exported in this process."""
    try:
        import flatbuffers  # noqa: F401  jax serialises with it
    except ImportError:
        raise UserError(
            "exporting programs needs flatbuffers: pip install 'unclip_jax[stablehlo]'"
        ) from None
    if jax.default_backend() != "cpu":
        raise UserError("programs for every platform are traced on the CPU: set JAX_PLATFORMS=cpu")


def _write_program(
    program: Program, folder: pathlib.Path, platforms: Sequence[str]
) -> dict[str, Any]:
    exported = export.export(jax.jit(program.function), platforms=platforms)(
        program.weights, *program.inputs.values()
    )
    blob = exported.serialize()
    (folder / "programs" / f"{program.name}.bin").write_bytes(blob)
    outputs = trees.flatten({"": jax.tree.unflatten(exported.out_tree, exported.out_avals)})
    return {
        "file": f"programs/{program.name}.bin",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "bytes": len(blob),
        "weights": list(program.weights),
        "inputs": {name: _describe(value) for name, value in program.inputs.items()},
        "outputs": {name.strip("/"): _shape(value) for name, value in outputs.items()},
    }


def _copy_flatbuffers(target: pathlib.Path) -> None:
    import flatbuffers

    source = pathlib.Path(flatbuffers.__file__).parent
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _manifest(
    cascade: Cascade, entries: Mapping[str, Any], platforms: Sequence[str], folder: pathlib.Path
) -> dict[str, Any]:
    from unclip_jax import __version__

    weights = {}
    for file in sorted((folder / "weights").iterdir()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        weights[file.stem] = {"file": f"weights/{file.name}", "sha256": digest}
    return {
        "format": "unclip_jax stablehlo",
        "version": 1,
        "versions": {"unclip_jax": __version__, "jax": jax.__version__},
        "platforms": list(platforms),
        "programs": dict(entries),
        "weights": weights,
        "sampling": {
            name: {
                "sampler": s.config.sampling.sampler,
                "steps": s.config.sampling.steps,
                "guidance_scale": s.config.sampling.guidance_scale,
            }
            for name, s in cascade.named().items()
            if name != "clip"
        },
        "context_length": cascade.clip.model.context_length if cascade.clip else None,
    }


def _describe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shape(leaf) for name, leaf in value.items()}
    return _shape(value)


def _shape(value: Any) -> str:
    return f"{value.dtype.name}[{','.join(map(str, value.shape))}]"
