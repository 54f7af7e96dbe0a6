"""What `unclip demo` ends with: curves of all runs, and where everything is."""

import pathlib

from unclip_jax.cli.demo_steps import SHARES
from unclip_jax.pictures import curves
from unclip_jax.training.writers import read_metrics


def write_summary(out: pathlib.Path, seconds: float) -> str:
    """Draws `curves.png` of every run; returns the closing text."""
    lines = [f"\nDone in {seconds / 60:.1f} minutes (this call).", ""]
    for stage in SHARES:
        workdir = out / "runs" / stage
        picture = workdir / "curves.png"
        curves(read_metrics(workdir), picture, title=stage)
        lines.append(f"  {stage} curves     {picture}")
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
