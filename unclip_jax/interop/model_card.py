"""The model card: README.md with the front matter that the Hugging Face Hub reads.

Every line of it is a fact of the bundle. What is not known (a licence nobody stated, metrics nobody
measured) is not there. Front matter values are JSON, which is YAML too.
"""

import json
import pathlib
from typing import Any

from unclip_jax.config.schema import ClipModel, DecoderModel, PriorModel, UpsamplerModel
from unclip_jax.interop.manifest import Manifest, StageEntry

DATA_LICENSES = "DATA_LICENSES.md"

_USE = """\
## Use

```python
import unclip_jax

pipeline = unclip_jax.load("{title}")
pictures = pipeline(["a red heart"], images_per_prompt=4, seed=0).images  # uint8 [1, 4, S, S, 3]
```

```sh
unclip sample --bundle {title} --prompt "a red heart" --out samples
```
"""


def render(
    manifest: Manifest, title: str, folder: pathlib.Path, *, license: str | None = None
) -> str:
    """The card of a bundle that is complete but for bundle.json and the card itself.

    Args:
      title: the name of the bundle's folder.
      folder: where its other files lie.
      license: of the weights, as the Hub names it.
    """
    draws = {"prior", "decoder"} <= manifest.stages.keys()
    parts = [
        _front_matter(draws, license),
        f"# {title}\n",
        f"{_summary(manifest)}\n",
        _stages(manifest),
        _USE.format(title=title) if draws else "",
        _data(manifest, (folder / DATA_LICENSES).is_file()),
        _quality(manifest),
        _samples(folder),
        f"Written {manifest.created} by unclip_jax {manifest.versions['unclip_jax']}"
        f" with jax {manifest.versions['jax']}.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(draws: bool, license: str | None) -> str:
    fields: dict[str, Any] = {"library_name": "unclip_jax"}
    if draws:
        fields["pipeline_tag"] = "text-to-image"
    if license is not None:
        fields["license"] = license
    fields["tags"] = ["unclip_jax", "unclip", "jax", "diffusion"]
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _summary(manifest: Manifest) -> str:
    total = sum(stage.parameters for stage in manifest.stages.values())
    names = ", ".join(manifest.stages)
    return (
        f"Stages of an unCLIP (DALL·E 2) system, [arXiv 2204.06125](https://arxiv.org/abs/"
        f"2204.06125): {names}; {total:,} parameters in all{_which(manifest)}."
    )


def _which(manifest: Manifest) -> str:
    found = {str(s.provenance.get("weights")) for s in manifest.stages.values()}
    words = {
        "ema": "averaged over training (EMA)",
        "raw": "those of the last step",
        "sigma": "averaged over training after the run (post-hoc EMA)",
    }
    kinds = {name.partition(":")[0] for name in found}
    return f", {words[kinds.pop()]}" if len(kinds) == 1 and kinds <= words.keys() else ""


def _stages(manifest: Manifest) -> str:
    rows = [
        "| stage | what it makes | parameters | steps | batch | stored as |",
        "|---|---|---|---|---|---|",
    ]
    rows += [row(name, stage) for name, stage in manifest.stages.items()]
    return "\n".join(["## Stages", "", *rows, ""])


def row(name: str, stage: StageEntry) -> str:
    """The line of the table of stages."""
    imported = "imported" in stage.provenance or "imported_from" in stage.provenance
    batch = "imported" if imported else f"{stage.config.train.batch_size:,}"
    return (
        f"| {name} | {_makes(stage)} | {stage.parameters:,} | {stage.step:,} "
        f"| {batch} | {stage.dtype} |"
    )


def _makes(stage: StageEntry) -> str:
    match stage.config.model:
        case ClipModel() as model:
            pictures = f" and {model.image_size} px pictures" if model.towers == "both" else ""
            return f"embeddings of {model.embedding_dim} numbers, of captions{pictures}"
        case PriorModel():
            return f"image embeddings of captions; {_sampling(stage)}"
        case DecoderModel() as model:
            return f"{model.image_size} px pictures; {_sampling(stage)}"
        case UpsamplerModel() as model:
            return f"{model.image_size} px from {model.low_size} px pictures; {_sampling(stage)}"


def _sampling(stage: StageEntry) -> str:
    sampling = stage.config.sampling
    guidance = f", guidance scale {sampling.guidance_scale:g}"
    upsamples = isinstance(stage.config.model, UpsamplerModel)
    return f"{sampling.sampler}, {sampling.steps} steps{'' if upsamples else guidance}"


def _data(manifest: Manifest, has_licenses: bool) -> str:
    rows = []
    for name, stage in manifest.stages.items():
        data = stage.provenance.get("data")
        if data:
            rows.append(
                f"- {name}: {data['examples']:,} captioned pictures, fingerprint "
                f"`{data['fingerprint']}`"
            )
    if has_licenses:
        rows.append(f"- Their terms are in [{DATA_LICENSES}]({DATA_LICENSES}).")
    return "\n".join(["## Training data", "", *rows, ""]) if rows else ""


def _quality(manifest: Manifest) -> str:
    if manifest.quality is None:
        return ""
    errors = manifest.quality["outputs"]
    lines = [f"- {name}: {error:.2%}" for name, error in errors.items()]
    drawn = manifest.quality["pictures"]
    if drawn and drawn["psnr_db"]:
        lines.append(f"- pictures of {drawn['prompt']!r}: PSNR {drawn['psnr_db']:.1f} dB")
    return "\n".join(
        ["## What int8 cost", "", "Relative error of what each network computes:", "", *lines, ""]
    )


def _samples(folder: pathlib.Path) -> str:
    pictures = sorted(p.name for p in folder.glob("samples/*.png"))
    shown = [p for p in pictures if p == "grid.png"] or pictures[:8]
    lines = [f"![{name}](samples/{name})" for name in shown]
    return "\n".join(["## Samples", "", *lines, ""]) if lines else ""
