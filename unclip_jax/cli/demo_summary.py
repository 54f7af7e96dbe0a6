"""What `unclip demo` ends with: curves of all runs, and where everything is."""

import pathlib
from collections.abc import Iterable

from unclip_jax.pictures import curves
from unclip_jax.training.writers import read_metrics

METRICS = ("loss", "validation/loss", "accuracy", "simple_q0", "simple_q3", "grad_norm")


def write_summary(out: pathlib.Path, runs: Iterable[str], seconds: float) -> str:
    """Draws `curves.png` of every run; returns the closing text."""
    lines = [f"\nDone in {seconds / 60:.1f} minutes (this call).", ""]
    for run in runs:
        workdir = out / "runs" / run
        picture = workdir / "curves.png"
        records = read_metrics(workdir)
        present = {name for record in records for name in record}
        curves({run: records}, [m for m in METRICS if m in present], title=run).save(picture)
        lines.append(f"  {run + ' curves':22} {picture}")
    report = out / "evaluation" / "report.md"
    lines += [
        f"  pictures from prompts  {out / 'samples' / 'grid.png'}",
        f"  generated beside real  {out / 'evaluation' / 'grid.png'}",
        f"  measures               {report}",
        f"  the model              {out / 'bundle'}",
        "",
        report.read_text(),
        "Draw your own:",
        f"  unclip sample --bundle {out / 'bundle'} --prompt 'pizza, noto style' --out mine",
    ]
    return "\n".join(lines)
