"""Recording a run that is asked for, which may be new, unfinished or over."""

import dataclasses
import secrets

from unclip_jax.errors import UserError

from .record import Record
from .spec import RunSpec


def begin(record: Record, spec: RunSpec, packed: bytes) -> None:
    """Records a new run, goes on with an unfinished one, or starts one that is over again."""
    state = record.state
    if record.exists and state.phase != "over":
        if record.spec != dataclasses.replace(spec, id=record.spec.id):
            raise UserError(
                f"{record.name} is under way with other settings: `unclip launch attach "
                f"{record.name}` goes on with it, `unclip launch stop {record.name}` ends it"
            )
        return
    record.create(dataclasses.replace(spec, id=secrets.token_hex(4)), packed)
    if state.phase == "over":
        record.clear_stop()
        record.change(phase="new", attempt=state.attempt + 1, past=(), result="", text="", job="")
