"""A page of plans in Markdown: one row for each command, written by the command itself."""

import datetime
import importlib.metadata
import pathlib

from unclip_jax.preflight.chips import GIB
from unclip_jax.preflight.plan import Plan
from unclip_jax.preflight.report import sent

HEADER = (
    "| command | fits with | how | GiB a chip, of | state, GiB | a chip sends a step, MB | "
    "least step, ms | its MFU | days at {attained:.0%} of that | chip-hours | written |"
)
TITLE = """# Plans for pods

Written by `unclip plan --record`, a row for each command; `make plans` writes all of them anew.
[planning.md](planning.md) says what the columns mean and how far to trust them. "compiled" rows
have the compiler's word on memory and traffic; "analytic" rows are the model's alone, because
nothing was compiled.

"""


def record(page: pathlib.Path, plan: Plan, attained: float, command: str) -> None:
    """Writes the row of `command`; with or without --fast it has the same place."""
    lines = page.read_text().splitlines() if page.exists() else TITLE.splitlines()
    rows = {_place(line.split("`")[1]): line for line in lines if line.startswith("| `")}
    rows[_place(command)] = row(plan, attained, command)
    head = [line for line in lines if not line.startswith("|")]
    header = HEADER.format(attained=attained)
    table = [header, "|---" * (header.count("|") - 1) + "|", *(rows[c] for c in sorted(rows))]
    text = "\n".join(head).rstrip() + "\n\n" + "\n".join(table) + "\n"
    page.write_text(text)


def _place(command: str) -> str:
    return command.replace(" --fast", "")


def row(plan: Plan, attained: float, command: str) -> str:
    """The plan as a row: of the config as given, or of the smallest change that makes it fit."""
    answer = plan.remedied or plan.answer
    settings = plan.remedy.settings if plan.remedy else {}
    changes = " ".join(f"`--config.{path}={text}`" for path, text in settings.items())
    fits = answer.fits(plan.topology)
    compiled = answer.compiled.memory if answer.compiled else None
    memory = compiled or answer.forecast.memory
    traffic = answer.compiled.traffic if answer.compiled and compiled else answer.forecast.traffic
    state = memory.parameters + memory.optimizer + memory.averages
    seconds = None if plan.steps is None else plan.steps * answer.time.step / attained
    cells = [
        f"`{command}`",
        (changes or "as it is") if fits else "**does not fit**",
        _how(answer.compiled is not None),
        f"{memory.total / GIB:.2f} of {plan.topology.chip.hbm / GIB:.2f}",
        f"{state / GIB:.2f}",
        f"{sent(traffic) / 1e6:,.0f}",
        f"{answer.time.step * 1e3:,.1f}",
        f"{answer.time.mfu:.0%}",
        "unknown" if seconds is None else f"{seconds / 86_400:,.1f}",
        "unknown" if seconds is None else f"{seconds / 3600 * plan.topology.chips:,.0f}",
        datetime.date.today().isoformat(),
    ]
    return "| " + " | ".join(cells) + " |"


def _how(compiled: bool) -> str:
    jax = importlib.metadata.version("jax")
    if not compiled:
        return f"analytic, jax {jax}"
    return f"compiled, jax {jax}, libtpu {importlib.metadata.version('libtpu')}"
