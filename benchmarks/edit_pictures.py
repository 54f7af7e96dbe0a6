"""The pictures of docs/editing.md, drawn by a bundle of the emoji set.

    unclip train … (see docs/editing.md), unclip export … --out bundle
    python benchmarks/edit_pictures.py --bundle bundle --data data --out docs/images

Every operation with a fixed seed; the bundle's decoder must be trained with
`--config.model.inpainting=true`, so that both ways of inpainting can be shown.
"""

import argparse
import io
import pathlib
import tarfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

import unclip_jax
from unclip_jax import data
from unclip_jax.data import BatchFields
from unclip_jax.generation import Edited, Pipeline
from unclip_jax.generation.inpainting import Margins
from unclip_jax.generation.pca import principal_components
from unclip_jax.pictures.grid import Picture, labelled_grid
from unclip_jax.pictures.note import with_note
from unclip_jax.progress import progress

APPLE, HEART = "red apple, fluent flat style", "blue heart, fluent flat style"
FACE = "grinning face, fluent flat style"


def read_samples(folder: pathlib.Path, captions: Sequence[str]) -> dict[str, Picture]:
    """The pictures of some captions, from the shards of all splits."""
    found: dict[str, Picture] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {m.name: m for m in tar.getmembers()}
            for name in members:
                if not name.endswith(".txt"):
                    continue
                caption = tar.extractfile(name).read().decode()  # type: ignore[union-attr]
                if caption in captions:
                    png = tar.extractfile(name.removesuffix("txt") + "png").read()  # type: ignore[union-attr]
                    with Image.open(io.BytesIO(png)) as image:
                        found[caption] = np.asarray(image.convert("RGB"))
    missing = set(captions) - set(found)
    if missing:
        raise SystemExit(f"{folder} has no picture of {sorted(missing)}")
    return found


def save(edited: Edited, path: pathlib.Path, given: Sequence[Picture | None] = ()) -> None:
    """The table of an operation; `given` pictures stand in a first column."""
    rows: list[list[Picture | None]] = [list(row) for row in edited.images]
    columns = list(edited.columns)
    if given:
        rows = [[picture, *row] for picture, row in zip(given, rows, strict=True)]
        columns = ["given", *columns]
    labelled_grid(rows, list(edited.rows), columns, scale=1).save(path, optimize=True)
    print(path, flush=True)


def draw_all(pipeline: Pipeline, folder: pathlib.Path, out: pathlib.Path) -> None:
    samples = read_samples(folder, [APPLE, HEART, FACE])
    apple, heart, face = samples[APPLE], samples[HEART], samples[FACE]
    options: Any = {
        "batch_size": 4,
        "sampling": {"upsampler": {"steps": 6}},
        "report": lambda stage, total: progress(stage, total, "pictures"),
    }
    half = np.zeros(face.shape[:2], bool)
    half[32:, :] = True
    for method in ("trained", "repaint"):
        drawn = pipeline.inpaint(face, half, FACE, count=3, method=method, **options)
        shown = np.where(half[..., None], 255, face).astype(np.uint8)
        save(drawn, out / f"edit_inpaint_{method}.png", [shown])
    drawn = pipeline.outpaint(heart, Margins(left=32, right=32), HEART, count=2, **options)
    save(drawn, out / "edit_outpaint.png", [heart])
    drawn = pipeline.variations(apple, count=3, etas=(0.0, 1.0), **options)
    save(drawn, out / "edit_variations.png", [apple, apple])
    drawn = pipeline.variations_of_embedding(apple, count=3, **options)
    save(drawn, out / "edit_variations_embedding.png", [apple])
    save(pipeline.interpolate(apple, heart, steps=7, **options), out / "edit_interpolate.png")
    drawn = pipeline.interpolate_prompts(APPLE, HEART, steps=7, **options)
    save(drawn, out / "edit_interpolate_prompts.png")
    drawn = pipeline.text_diff(
        heart, "red heart, fluent flat style", base=HEART, thetas=(0, 0.2, 0.35, 0.5), **options
    )
    save(drawn, out / "edit_text_diff.png", [heart])
    drawn = pipeline.image_to_image(heart, APPLE, strength=0.6, count=3, **options)
    save(drawn, out / "edit_img2img.png", [heart])
    drawn = pipeline.guidance_grid(FACE, scales=(1, 2, 4), count=3, **options)
    save(drawn, out / "edit_grid.png")
    save(pipeline.ablate([FACE, APPLE], **options), out / "edit_ablate.png")
    stored = data.open_dataset(str(folder / "train-*.tar"), BatchFields(embeddings=("image",)))
    basis = principal_components(stored.embedding_rows("image", np.arange(4000)))
    drawn = pipeline.reconstruct([apple, face], basis, components=(2, 8, 32), **options)
    save(drawn, out / "edit_reconstruct.png", [apple, face])
    attacked = {"as it is": apple, "face": with_note(apple, "face")}
    labels = (APPLE, FACE)
    drawn = pipeline.typographic_probe(attacked, labels, count=3, **options)
    print(drawn.facts)
    save(drawn, out / "edit_typographic.png", list(attacked.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images"))
    args = parser.parse_args()
    draw_all(unclip_jax.load(args.bundle), args.data, args.out)


if __name__ == "__main__":
    main()
