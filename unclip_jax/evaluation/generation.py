"""How well generated pictures fit their captions, beside real pictures and beside chance.

All measurements need embeddings of one CLIP only: of the generated pictures, of the real pictures
of the same captions, and of the captions. Each picture is asked which caption, style and concept it
shows (the nearest text embedding), and the generated ones are compared with the real ones as sets.
Mind that the CLIP that conditions a model flatters it: judge with another one where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.bootstrap import bootstrap_interval
from unclip_jax.evaluation.distances import SMALLEST_SET, random_directions, set_distances
from unclip_jax.evaluation.questions import Captioned, floors, scores
from unclip_jax.evaluation.report import HIGHER, LOWER, Measurement, Report
from unclip_jax.evaluation.style_prompts import StylePrompts
from unclip_jax.evaluation.vectors import Vectors, as_matrix

_NOTES = (
    "style_accuracy is left out where there are not two styles with two concepts each.",
    "ceiling: real pictures of the same captions, measured alike; floor: chance, or noise.",
    "95 %: resampled concepts; for fd, mmd, precision and coverage the spread over 10 halvings.",
    "fd, mmd, precision, coverage: one half of the captions against the real pictures of the other "
    "half, n in each; they depend on n. fd is not FID, which is in Inception features.",
)


def evaluate_generation(
    generated: Vectors,
    real: Vectors,
    text: Vectors,
    *,
    captions: Sequence[str],
    styles: Sequence[str],
    concepts: Sequence[str],
    splits: Sequence[str] | None = None,
    style_embeddings: Mapping[str, np.ndarray] | None = None,
    noise: Vectors | None = None,
    space: str = "clip",
    title: str = "Generation",
    seed: int = 0,
) -> Report:
    """Measures generated pictures, split by split.

    Args:
      generated: CLIP embeddings of the generated pictures, [n, d], of any length.
      real: of the real picture of each caption, [n, d].
      text: of each caption, [n, d].
      captions, styles, concepts: what each row shows, n each.
      splits: the split of each row; None means one split, "all".
      style_embeddings: text embedding [d] of a prompt for each style; None means the average
        caption of the style over all other concepts.
      noise: embeddings of n pictures of noise, the floor of distances; None means random
        directions.
      space: names the CLIP in the names of the metrics.
      title: of the report.
      seed: of resampling, halving and random directions.

    Raises:
      ValueError: sizes that differ.
      UserError: an embedding that is not finite.
    """
    true, vectors = as_matrix("real", real), as_matrix("text", text)
    useless = random_directions(true, seed) if noise is None else as_matrix("noise", noise)
    rows = _Rows(as_matrix("generated", generated), true, useless)
    labels = list(splits) if splits is not None else ["all"] * len(true)
    _check_sizes(
        [rows.generated, rows.real, rows.noise, vectors], [captions, styles, concepts, labels]
    )
    prompts = (
        StylePrompts.averaged(vectors, styles, concepts)
        if style_embeddings is None
        else StylePrompts.given(style_embeddings, styles)
    )
    everything = Captioned(vectors, captions, styles, concepts, prompts)
    measured = {}
    for split in dict.fromkeys(labels):
        members = np.array([label == split for label in labels]).nonzero()[0]
        measured[split] = _measure(rows.take(members), everything.take(members), space, seed)
    return Report(title, measured, _NOTES)


def _check_sizes(matrices: Sequence[np.ndarray], labels: Sequence[Sequence[str]]) -> None:
    shapes = [matrix.shape for matrix in matrices]
    if len(set(shapes)) != 1:
        raise ValueError(f"generated, real, noise and text differ in size: {shapes}")
    counts = [len(each) for each in labels]
    if set(counts) != {shapes[0][0]}:
        raise ValueError(
            f"{shapes[0][0]} embeddings, but captions, styles, concepts and splits: {counts}"
        )


@dataclass(frozen=True)
class _Rows:
    """The picture embeddings, row for row."""

    generated: Float64[np.ndarray, "n d"]
    real: Float64[np.ndarray, "n d"]
    noise: Float64[np.ndarray, "n d"]

    def take(self, members: np.ndarray) -> "_Rows":
        return _Rows(self.generated[members], self.real[members], self.noise[members])


def _measure(rows: _Rows, shown: Captioned, space: str, seed: int) -> tuple[Measurement, ...]:
    value, ceiling = (scores(images, rows.real, shown) for images in (rows.generated, rows.real))
    floor = floors(rows.real, shown)
    measured = []
    for name, numbers in value.items():
        low, high = bootstrap_interval(numbers, shown.concepts, seed=seed)
        measured.append(
            Measurement(
                name.format(space=space),
                float(numbers.mean()),
                low,
                high,
                floor[name],
                float(ceiling[name].mean()),
                LOWER if name.endswith("rank") else HIGHER,
                len(numbers),
            )
        )
    if len(rows.real) >= SMALLEST_SET:
        measured += set_distances(rows.generated, rows.real, rows.noise, space=space, seed=seed)
    return tuple(measured)
