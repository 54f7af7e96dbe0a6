"""What a file name in a shard means: webdataset's rule for keys and fields.

The key is the path up to the first dot of the base name, the field is the rest in lower case:
`d.ir/a.b.JPG` has key `d.ir/a` and field `b.jpg`. Adjacent members with one key are a sample.
"""

import re
from collections.abc import Mapping

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "avif")
_META = re.compile(r"__[^/]*__($|/)")


def split_name(name: str) -> tuple[str, str] | None:
    """Returns (key, field), or None for a member that belongs to no sample (`.x`, `x`, `__m__`)."""
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    if dot <= base or dot + 1 == len(name) or (name.startswith("__") and _META.match(name)):
        return None
    return name[:dot], name[dot + 1 :].lower()


def find_image(members: Mapping[str, memoryview]) -> memoryview | None:
    """Returns the bytes of a sample's first member that is a picture by name and not empty."""
    for field, content in members.items():
        if extension(field) in IMAGE_EXTENSIONS and len(content):
            return content
    return None


def extension(field: str) -> str:
    """Returns what says how a field is encoded: its last component (`b.jpg` is a `jpg`)."""
    return field.rpartition(".")[2]
