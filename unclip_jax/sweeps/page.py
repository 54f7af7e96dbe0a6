"""What a sweep leaves for people: results.csv, results.md, pictures, and all on one HTML page."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Sequence

from PIL import Image

from unclip_jax.config import load_config, to_mapping
from unclip_jax.config.sweeps import Sweep
from unclip_jax.sweeps import measure, plots, results
from unclip_jax.sweeps.trials import DONE, SweepFolder, Trial, write_json

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; color: #202124 }
table { border-collapse: collapse } td, th { padding: .25rem .7rem; text-align: left }
th { border-bottom: 2px solid #bdc1c6 } td { border-bottom: 1px solid #e8eaed }
tr.best td { background: #e6f4ea } img { max-width: 100% }
"""


def write_results(sweep: Sweep, folder: SweepFolder) -> list[pathlib.Path]:
    """Writes everything anew from the trials in the folder; returns the files."""
    trials = folder.trials()
    table = results.rows(sweep, trials)
    written = [
        _text(folder.path / "results.csv", results.to_csv(table)),
        _text(folder.path / "results.md", results.to_markdown(table)),
    ]
    pictures = _pictures(sweep, trials)
    for name, picture in pictures.items():
        picture.save(folder.path / f"{name}.png")
        written.append(folder.path / f"{name}.png")
    page = _page(sweep, folder.path.name, table, pictures, results.best(sweep, trials))
    written.append(_text(folder.path / "results.html", page))
    best = results.best(sweep, trials)
    if best is not None:
        written.append(_write_best(sweep, best, folder.path))
    return written


def _pictures(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, Image.Image]:
    found = {}
    curves = plots.training_curves(sweep, trials, {t.id: measure.records(t.out) for t in trials})
    if curves is not None:
        found["curves"] = curves
    if any(trial.status == DONE for trial in trials):
        found["slices"] = plots.slices(sweep, trials)
    shares = results.importance(trials)
    if shares:
        found["importance"] = plots.importances(shares)
    return found


def _write_best(sweep: Sweep, best: Trial, folder: pathlib.Path) -> pathlib.Path:
    """best.json: of a training sweep a config file; of others the settings and their value."""
    path = folder / "best.json"
    if sweep.config:
        overrides = results.as_text({**sweep.base, **best.overrides})
        write_json(path, to_mapping(load_config(sweep.config, overrides)))
    else:
        write_json(path, {"settings": best.overrides, sweep.objective.name: best.value})
    return path


def _page(
    sweep: Sweep,
    title: str,
    table: Sequence[Sequence[str]],
    pictures: dict[str, Image.Image],
    best: Trial | None,
) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table[0])
    body = []
    for i, row in enumerate(table[1:]):
        mark = ' class="best"' if i == 0 and best is not None else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>")
    images = "".join(
        f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{_base64(picture)}">'
        for name, picture in pictures.items()
    )
    goal = f"{sweep.objective.goal} {sweep.objective.name}"
    space = "" if sweep.space is None else f", {sweep.space.search} search"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{html.escape(goal + space)}, {len(table) - 1} trials.</p>"
        f"<table><tr>{head}</tr>{''.join(body)}</table>{images}</html>\n"
    )


def _base64(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _text(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text, encoding="utf-8")
    return path


def summary(sweep: Sweep, folder: SweepFolder) -> str:
    """The last words of a sweep."""
    trials = folder.trials()
    best = results.best(sweep, trials)
    text = results.to_markdown(results.rows(sweep, trials))
    if best is None:
        return f"{text}no trial has ended well yet; all files in {folder.path}"
    settings = json.dumps(best.overrides)
    return f"{text}best: trial {best.number} {settings}; all files in {folder.path}"
