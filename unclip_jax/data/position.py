"""Where a run stands in its data: all that a checkpoint keeps of the loader."""

import json
from dataclasses import asdict, dataclass, replace

from unclip_jax.data.mixture import Mixing, Segment
from unclip_jax.data.order import Layout
from unclip_jax.errors import UserError

_VERSION = 1


@dataclass(frozen=True)
class DataPosition:
    """How many examples a run has consumed, and of what order.

    It names no host, no worker and no batch size: a run may go on with other numbers of each, so
    long as the new global batch is a multiple of `layout.lanes`.
    """

    examples: int
    seed: int
    layout: Layout
    fingerprint: str
    mixing: Mixing | None = None

    def advance(self, examples: int) -> "DataPosition":
        return replace(self, examples=self.examples + examples)

    def to_json(self) -> str:
        return json.dumps({"version": _VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "DataPosition":
        """Raises UserError if the text is not a position of this version."""
        try:
            values = json.loads(text)
            version = values.pop("version")
            layout = Layout(**values.pop("layout"))
            mixing = _mixing_from(values.pop("mixing", None))
            position = cls(layout=layout, mixing=mixing, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"data position {text[:80]!r} cannot be read: {error!r}") from None
        if version != _VERSION:
            raise UserError(f"data position of version {version}; this release reads {_VERSION}")
        return position


def _mixing_from(values: dict | None) -> Mixing | None:
    if values is None:
        return None
    segments = tuple(Segment(s["start"], tuple(s["shares"])) for s in values["segments"])
    return Mixing(segments, tuple(Layout(**layout) for layout in values["layouts"]))
