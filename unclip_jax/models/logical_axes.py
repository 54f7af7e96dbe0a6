"""What the dimensions of a parameter mean, by the parameter's name.

    "embed"   the stream between blocks: a transformer's width, a feature map's channels
    "hidden"  inside one block: an MLP's units, a residual block's channels between convolutions
    "heads"   queries, keys and values, head after head
    "layers"  the layers that a scan runs over
    None      everything else: taps, positions, vocabulary, projections from and to other spaces

These names say nothing about devices: `parallel.sharding` maps them to a mesh. They come from one
table over paths, so parameters stay plain arrays in plain dicts, and an optimiser's moments, whose
paths end like their parameter's, have the names of the parameter.
"""

import re

Names = tuple[str | None, ...]

STACKED = re.compile(r"(^|/)blocks/")

_ATTENTION = r"attention(_\d+)?"

# (end of the path, names of the last dimensions); the first match counts.
TABLE: tuple[tuple[re.Pattern[str], Names], ...] = tuple(
    (re.compile(rf"(^|/){path}$"), names)
    for path, names in (
        (r"qkv/kernel", ("embed", None, "heads")),
        (r"qkv/bias", (None, "heads")),
        (r"attention_out/kernel", ("heads", "embed")),
        (r"mlp_in/kernel", ("embed", "hidden")),
        (r"mlp_in/bias", ("hidden",)),
        (r"mlp_out/kernel", ("hidden", "embed")),
        (_ATTENTION.join((r"\w*", r"/(context_)?(query|key|value)/kernel")), ("embed", "heads")),
        (_ATTENTION.join((r"\w*", r"/(context_)?(query|key|value)/bias")), ("heads",)),
        (_ATTENTION.join((r"\w*", r"/out/kernel")), ("heads", "embed")),
        (r"conv1/kernel", (None, None, "embed", "hidden")),
        (r"conv1/bias", ("hidden",)),
        (r"norm2/(scale|bias)", ("hidden",)),
        (r"conv2/kernel", (None, None, "hidden", "embed")),
        (r"(token|position|padding)_embedding(/embedding)?", (None, "embed")),
    )
)


def logical_axes(path: str, ndim: int) -> Names:
    """The names of a parameter's `ndim` dimensions; `path` is as `core.trees.flatten` writes it.

    An array whose path ends like a parameter's and which has another number of dimensions (a
    factored moment) gets none.
    """
    layers: Names = ("layers",) if STACKED.search(path) else ()
    for pattern, names in TABLE:
        if pattern.search(path) and ndim == len(layers) + len(names):
            return (*layers, *names)
    return (*layers, *(None,) * (ndim - len(layers)))[:ndim]
