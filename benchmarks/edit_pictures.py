"""The pictures of docs/editing.md and docs/sampling.md, drawn by a bundle of the emoji set.

    unclip train … (see docs/editing.md), unclip export … --out bundle
    python benchmarks/edit_pictures.py --bundle bundle --data data --out docs/images

Every operation with a fixed seed. The bundle's decoder must be trained with
`--config.model.inpainting=true`, so that both ways of inpainting can be shown, and the shards need
the embeddings of its CLIP (`unclip embed`). --only draws some of them.
"""

import argparse
import dataclasses
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import unclip_jax
from unclip_jax import data
from unclip_jax.data import BatchFields
from unclip_jax.data.keys import find_image
from unclip_jax.generation import Edited, Pipeline
from unclip_jax.generation.editing import fit
from unclip_jax.generation.inpainting import Margins
from unclip_jax.generation.pca import principal_components
from unclip_jax.pictures.grid import Picture, labelled_grid
from unclip_jax.pictures.note import with_note
from unclip_jax.progress import progress

BERRY, HEART = "strawberry, fluent flat style", "blue heart, fluent flat style"
CAT, FACE = "cat face, fluent flat style", "grinning face, fluent flat style"
SIDE = 128  # of a picture on the page; operations stop at the upsampler that makes it
STEPS = (6, 4, 4)  # of the upsamplers: they have little to decide
QUALITY = 75  # of JPEG: no picture above 150 kB


class Given(NamedTuple):
    """What the operations start from."""

    pipeline: Pipeline
    whole: Pipeline
    options: Any
    shards: str
    berry: Picture
    heart: Picture
    cat: Picture


def read_samples(folder: pathlib.Path, captions: Sequence[str]) -> list[Picture]:
    """The pictures of some captions, from the shards of all splits."""
    dataset = data.open_dataset(str(folder / "*.tar"), BatchFields(context_length=77))
    found: dict[str, Picture] = {}
    for number in range(len(dataset)):
        _, members = dataset.read(number)
        caption = bytes(members["txt"]).decode()
        if caption in captions:
            with Image.open(io.BytesIO(find_image(members))) as image:
                found[caption] = np.asarray(image.convert("RGB"))
    missing = set(captions) - set(found)
    if missing:
        raise SystemExit(f"{folder} has no picture of {sorted(missing)}")
    return [found[caption] for caption in captions]


def up_to(side: int, whole: Pipeline) -> Pipeline:
    """The cascade without the upsamplers that make larger pictures."""
    upsamplers = tuple(u for u in whole.cascade.upsamplers if u.model.image_size <= side)
    return Pipeline(dataclasses.replace(whole.cascade, upsamplers=upsamplers))


def shown(picture: Picture) -> Picture:
    """A picture as high as it stands on the page."""
    return fit(picture, SIDE, SIDE * picture.shape[1] // picture.shape[0])


def table(edited: Edited, given: Sequence[Picture] = ()) -> Image.Image:
    """The table of an operation; `given` pictures stand in a first column."""
    rows = [[shown(picture) for picture in row] for row in edited.images]
    columns = list(edited.columns)
    if given:
        rows = [[shown(picture), *row] for picture, row in zip(given, rows, strict=True)]
        columns = ["given", *columns]
    return labelled_grid(rows, list(edited.rows), columns, scale=1)


def cascade(g: Given) -> Image.Image:
    """Every stage's picture."""
    prompts = (HEART, FACE, CAT, BERRY)
    sampling = {name: {"steps": n} for name, n in zip(g.whole.upsamplers, STEPS, strict=False)}
    options = g.options | {"sampling": sampling}
    drawn = g.whole(prompts, images_per_prompt=1, seed=2, **options)
    columns = [f"{stage}, {size} px" for stage, size in g.whole.sizes.items()]
    rows = [[drawn.stages[stage][i, 0] for stage in drawn.stages] for i in range(len(prompts))]
    return labelled_grid(rows, prompts, columns, scale=1)


def inpaint(g: Given, method: Any) -> Image.Image:
    hole = np.zeros(g.cat.shape[:2], bool)
    hole[len(hole) // 2 :] = True
    drawn = g.pipeline.inpaint(g.cat, hole, CAT, count=4, method=method, **g.options)
    return table(drawn, [np.where(hole[..., None], 255, g.cat).astype(np.uint8)])


def outpaint(g: Given) -> Image.Image:
    margin = g.pipeline.final_size // 2
    drawn = g.pipeline.outpaint(
        g.heart, Margins(left=margin, right=margin), HEART, count=2, **g.options
    )
    beside = len(g.heart) // 2
    canvas = np.pad(g.heart, ((0, 0), (beside, beside), (0, 0)), constant_values=255)
    return table(drawn, [canvas])


def prompts_between(g: Given) -> Image.Image:
    drawn = g.pipeline.interpolate_prompts(BERRY, HEART, steps=8, **g.options)
    return table(drawn)


def text_diff(g: Given) -> Image.Image:
    thetas = (0, 0.2, 0.35, 0.5)
    drawn = g.pipeline.text_diff(
        g.heart, "red heart, fluent flat style", base=HEART, thetas=thetas, **g.options
    )
    return table(drawn, [g.heart])


def reconstruct(g: Given) -> Image.Image:
    stored = data.open_dataset(g.shards, BatchFields(embeddings=("image",)))
    basis = principal_components(stored.embedding_rows("image", np.arange(len(stored))))
    drawn = g.pipeline.reconstruct([g.berry, g.cat], basis, components=(2, 8, 32), **g.options)
    return table(drawn, [g.berry, g.cat])


def typographic(g: Given) -> Image.Image:
    attacked = {"as it is": g.berry, "cat": with_note(g.berry, "cat")}
    drawn = g.pipeline.typographic_probe(attacked, (BERRY, CAT), count=4, **g.options)
    print(drawn.facts)
    return table(drawn, list(attacked.values()))


def prompts_changed(g: Given, changes: dict[str, dict[str, Any]]) -> Image.Image:
    """A row for each way of asking, with equal seeds."""
    rows = []
    for how in changes.values():
        drawn = g.pipeline(**{"images_per_prompt": 4, "seed": 1} | how, **g.options)
        rows.append([shown(picture) for picture in drawn.images[0]])
    return labelled_grid(rows, list(changes), scale=1)


def rerank(g: Given) -> Image.Image:
    """All, the best first, with CLIP's cosine above each."""
    drawn = g.pipeline(HEART, images_per_prompt=8, seed=1, **g.options)
    ranked = g.pipeline.rerank(drawn, keep=8)
    scores = [f"{score:.3f}" for score in ranked.scores[0]]
    pictures = [shown(picture) for picture in ranked.generated.images[0]]
    return labelled_grid([pictures], None, scores, scale=1)


NEGATIVE: dict[str, dict[str, Any]] = {
    "red heart": {"prompts": "red heart"},
    "red heart, away from: blue": {"prompts": "red heart", "negative": "blue"},
    "red heart, away from: red": {"prompts": "red heart", "negative": "red"},
}
WEIGHTS: dict[str, dict[str, Any]] = {
    f"a (red:{weight}) heart": {"prompts": f"a (red:{weight}) heart"} for weight in (0, 1, 2)
}
PICTURES: dict[str, Callable[[Given], Image.Image]] = {
    "cascade": cascade,
    "edit_variations": lambda g: table(
        g.pipeline.variations(g.berry, count=2, etas=(0.0, 1.0), **g.options), [g.berry, g.berry]
    ),
    "edit_variations_embedding": lambda g: table(
        g.pipeline.variations_of_embedding(g.berry, count=4, **g.options), [g.berry]
    ),
    "edit_interpolate": lambda g: table(
        g.pipeline.interpolate(g.berry, g.heart, steps=8, **g.options)
    ),
    "edit_interpolate_fixed": lambda g: table(
        g.pipeline.interpolate(g.berry, g.heart, steps=8, noise="fixed", **g.options)
    ),
    "edit_interpolate_prompts": prompts_between,
    "edit_text_diff": text_diff,
    "edit_inpaint_trained": lambda g: inpaint(g, "trained"),
    "edit_inpaint_repaint": lambda g: inpaint(g, "repaint"),
    "edit_outpaint": outpaint,
    "edit_img2img": lambda g: table(
        g.pipeline.image_to_image(g.heart, BERRY, strength=0.6, count=4, **g.options), [g.heart]
    ),
    "edit_grid": lambda g: table(
        g.pipeline.guidance_grid(CAT, scales=(1, 2, 4), count=4, **g.options)
    ),
    "edit_negative": lambda g: prompts_changed(g, NEGATIVE),
    "edit_weights": lambda g: prompts_changed(g, WEIGHTS),
    "edit_rerank": rerank,
    "edit_ablate": lambda g: table(g.pipeline.ablate([CAT, HEART, BERRY, FACE], **g.options)),
    "edit_reconstruct": reconstruct,
    "edit_typographic": typographic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=tuple(PICTURES))
    args = parser.parse_args()
    whole = unclip_jax.load(args.bundle)
    pipeline = up_to(SIDE, whole)
    options = {
        "batch_size": 4,
        "sampling": {
            name: {"steps": n} for name, n in zip(pipeline.upsamplers, STEPS, strict=False)
        },
        "report": lambda stage, total: progress(stage, total, "pictures"),
    }
    shards = str(args.data / "train-*.tar")
    samples = read_samples(args.data, (BERRY, HEART, CAT))
    given = Given(pipeline, whole, options, shards, *samples)
    for name in args.only:
        path = args.out / f"{name}.jpg"
        PICTURES[name](given).save(path, quality=QUALITY, optimize=True)
        print(path, flush=True)


if __name__ == "__main__":
    main()
