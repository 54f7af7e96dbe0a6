"""What was lost when weights were rounded: in the weights, in what networks compute, in pictures.

Each network is run once on standard normal inputs with the weights before and after; a whole
cascade draws pictures with the same seeds from both. Errors are relative: the root mean square of
the difference over that of the original.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from unclip_jax.core import trees
from unclip_jax.generation import Cascade, Pipeline
from unclip_jax.interop.stablehlo_programs import programs_of, stage_weights

EXAMPLES = 2
PROMPT = "a photo of a dog"


def compare(original: Cascade, stored: Cascade) -> dict[str, Any]:
    """A report, plain JSON values.

    Returns:
      {"stages": {name: {"weights": …}}, "outputs": {program: …}, "pictures": {"psnr_db": …} or
      None}: relative errors, and the signal-to-noise ratio of the last stage's pictures.
    """
    before, after = original.named(), stored.named()
    return {
        "stages": {
            name: {"weights": _weights_error(stage.params, after[name].params)}
            for name, stage in before.items()
        },
        "outputs": {
            p.name: _output_error(p, before, after)
            for p in programs_of(original)
            if p.name != "sample"
        },
        "pictures": _pictures(original, stored),
    }


def _weights_error(before: Any, after: Any) -> float:
    old, new = trees.flatten(before), trees.flatten(after)
    difference = sum(float(np.sum((old[k] - new[k]) ** 2)) for k in old)
    return math.sqrt(difference / sum(float(np.sum(old[k] ** 2)) for k in old))


def _output_error(program: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    generator = np.random.default_rng(0)
    inputs = [jax.tree.map(lambda x: _draw(x, generator), i) for i in program.inputs.values()]
    function = jax.jit(program.function)
    found = [
        jax.tree.leaves(function({n: stage_weights(stages[n]) for n in program.weights}, *inputs))
        for stages in (before, after)
    ]
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(*found, strict=True)]
    pairs = [(a, b) for a, b in pairs if a.dtype.kind == "f"]
    difference = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return math.sqrt(difference / sum(float(np.sum(a**2)) for a, _ in pairs))


def _draw(shape: Any, generator: np.random.Generator) -> np.ndarray:
    size = [EXAMPLES if not isinstance(n, int) else n for n in shape.shape]
    if shape.dtype == bool:
        return np.zeros(size, bool) if len(size) == 1 else np.ones(size, bool)
    if shape.dtype.kind in "iu":
        return generator.integers(0, 100, size).astype(shape.dtype)
    return generator.normal(size=size).astype(shape.dtype)


def _pictures(original: Cascade, stored: Cascade) -> dict[str, Any] | None:
    if not (original.clip and original.prior and original.decoder):
        return None
    drawn = [
        Pipeline(cascade)([PROMPT], images_per_prompt=4, seed=0).images.astype(np.float64)
        for cascade in (original, stored)
    ]
    error = float(np.mean((drawn[0] - drawn[1]) ** 2))
    psnr = None if error == 0 else 10 * math.log10(255**2 / error)
    return {"prompt": PROMPT, "count": 4, "psnr_db": psnr}
