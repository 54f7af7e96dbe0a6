"""A bundle: trained stages in a folder, for generation, evaluation, fine-tuning and the Hub.

    bundle.json                 what is in it, with checksums (`manifest.py`)
    clip.safetensors            averaged weights of each stage (`tensor_files.py`)
    prior.safetensors  decoder.safetensors  upsampler.safetensors  upsampler_256.safetensors
    statistics.safetensors      prior/mean, prior/std …, where a stage whitens embeddings
    README.md                   the model card (`model_card.py`)
    tokenizer/                  CLIP's vocabulary and merges, for other libraries
    DATA_LICENSES.md  samples/  where they were given

Nothing but JSON, safetensors, Markdown and PNG: reading a bundle runs no code from it.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation import Cascade, TrainedStage, compose
from unclip_jax.interop import manifest, model_card, tensor_files
from unclip_jax.interop.folders import whole_folder
from unclip_jax.interop.manifest import FileEntry, Manifest, StageEntry
from unclip_jax.interop.tokenizer_files import write_tokenizer

STATISTICS = "statistics"
TOKENIZER = "tokenizer"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was read.

    Attributes:
      cascade: its stages.
      manifest: its bundle.json.
      sha256: of bundle.json, which names the checksums of all weights: the bundle's identity.
    """

    cascade: Cascade
    manifest: Manifest
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a bundle carries beside the stages.

    Attributes:
      license: the weights' licence as the Hub names it, such as "apache-2.0".
      data_licenses: text on the terms of the training data.
      samples: a folder whose PNG files are copied.
    """

    license: str | None = None
    data_licenses: str | None = None
    samples: pathlib.Path | None = None


def write_bundle(
    cascade: Cascade,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    extras: Extras | None = None,
    max_file_bytes: int = tensor_files.MAX_BYTES,
) -> None:
    """Writes a cascade as a bundle, whole or not at all; replaces a bundle that is there.

    Args:
      dtype: "float32", "bfloat16" for half the size and about three decimal digits, or "int8" for
        a quarter (see `int8.py`); with int8 the bundle says what that cost (`quality.py`).

    Raises:
      UserError: an unknown dtype, a path that is taken by something else or can't be written.
    """
    path, extras = pathlib.Path(path).absolute(), extras or Extras()
    tensor_files.check_dtype(dtype, tensor_files.BUNDLE_DTYPES)
    with whole_folder(path, manifest.FILE, "bundle") as fresh:
        _fill(fresh, cascade, path.name, dtype, extras, max_file_bytes)


def read_bundle(path: str | os.PathLike[str], stages: Collection[str] | None = None) -> Bundle:
    """Reads a bundle, checking every file that is loaded against its checksum.

    Args:
      stages: names of the stages to load, such as ("clip",); all by default.

    Raises:
      UserError: no bundle there, a missing or altered file, an unknown stage name.
    """
    folder = pathlib.Path(path)
    found = manifest.read(folder)
    for name in stages or ():
        if name not in found.stages:
            raise UserError(f"{folder} has no stage {name!r}{did_you_mean(name, found.stages)}")
    statistics = {}
    if found.statistics is not None:
        statistics = tensor_files.load_tree(folder, [found.statistics])
    for entry in found.others:
        tensor_files.check_file(folder, entry)
    loaded = [
        TrainedStage(
            config=entry.config,
            params=tensor_files.load_tree(folder, entry.files),
            step=entry.step,
            weights_sha256=entry.weights_sha256,
            source=f"{folder}/{name}",
            clip_sha256=entry.clip_sha256,
            statistics=statistics.get(name),
            provenance=entry.provenance,
        )
        for name, entry in found.stages.items()
        if stages is None or name in stages
    ]
    digest = hashlib.sha256((folder / manifest.FILE).read_bytes()).hexdigest()
    return Bundle(compose(loaded), found, digest)


def _fill(
    folder: pathlib.Path,
    cascade: Cascade,
    title: str,
    dtype: str,
    extras: Extras,
    max_file_bytes: int,
) -> None:
    stages = cascade.named()
    entries = {
        name: StageEntry(
            config=stage.config,
            dtype=dtype,
            files=tensor_files.save_tree(
                stage.params, folder, name, dtype=dtype, max_bytes=max_file_bytes
            ),
            step=stage.step,
            parameters=stage.parameter_count,
            weights_sha256=stage.weights_sha256,
            clip_sha256=stage.clip_sha256,
            provenance=stage.provenance,
        )
        for name, stage in stages.items()
    }
    if "clip" in stages:
        write_tokenizer(folder / TOKENIZER, stages["clip"].model.context_length)
    if extras.data_licenses is not None:
        (folder / model_card.DATA_LICENSES).write_text(extras.data_licenses, encoding="utf-8")
    if extras.samples is not None:
        _copy_pictures(extras.samples, folder / "samples")
    content = Manifest(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        stages=entries,
        statistics=_save_statistics(folder, stages),
        others=_others(folder),
        quality=_quality(folder, cascade, entries) if dtype == "int8" else None,
    )
    card = model_card.render(content, title, folder, license=extras.license)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / manifest.FILE).write_text(manifest.to_json(content), encoding="utf-8")


def _others(folder: pathlib.Path) -> tuple[FileEntry, ...]:
    """Entries of what is neither weights nor written after them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".safetensors")
    return tuple(
        dataclasses.replace(manifest.file_entry(p), name=p.relative_to(folder).as_posix())
        for p in files
    )


def _quality(
    folder: pathlib.Path, cascade: Cascade, entries: dict[str, StageEntry]
) -> dict[str, Any]:
    from unclip_jax.interop import quality  # compiles networks, which other dtypes have no need of

    stored = [
        dataclasses.replace(stage, params=tensor_files.load_tree(folder, entries[name].files))
        for name, stage in cascade.named().items()
    ]
    return quality.compare(cascade, compose(stored))


def _save_statistics(folder: pathlib.Path, stages: dict[str, TrainedStage]) -> FileEntry | None:
    found = {n: dict(s.statistics) for n, s in stages.items() if s.statistics is not None}
    return tensor_files.save_tree(found, folder, STATISTICS)[0] if found else None


def _copy_pictures(source: pathlib.Path, target: pathlib.Path) -> None:
    pictures = sorted(source.glob("*.png"))
    if not pictures:
        raise UserError(f"{source} holds no PNG files to put into the bundle")
    target.mkdir()
    for picture in pictures:
        shutil.copy(picture, target)


def _versions() -> dict[str, str]:
    from unclip_jax import __version__

    return {"unclip_jax": __version__, "jax": importlib.metadata.version("jax")}
