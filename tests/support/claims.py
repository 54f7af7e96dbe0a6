"""What the project says of its numbers, measured where it is tested: the fixture `claim`.

    def test_prediction_equals_the_oracle(claim):
        claim.near("the prior's prediction", "diffusers PriorTransformer", got, wanted, bound=1e-5)

fails as an assertion would. `make oracles` runs all such tests and writes docs/claims.md from what
they measured; tests/docs/test_claims.py holds the page and the tests together.
"""

import datetime
import importlib.metadata
import os
import pathlib
import platform
from dataclasses import dataclass

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"
LIBRARIES = ("jax", "flax", "numpy", "torch", "diffusers", "transformers", "open_clip_torch")

HEADER = """\
# Claims

What the code is said to compute, what says so independently, and how far the two are apart. Errors
are the largest found, relative to the largest value unless the claim names a unit; *exact* is bit
for bit, or to the last digit of a count. Each bound is asserted by the test.

`make oracles` measures all of it anew and writes this page. Last written {date} on {machine},
Python {python}, {versions}.
"""


@dataclass
class Row:
    """One claim; parametrised tests that make the same one share a row."""

    statement: str
    oracle: str
    error: float
    bound: float
    test: str

    def to_markdown(self) -> str:
        error, bound = ("exact" if v == 0 else f"{v:.1e}" for v in (self.error, self.bound))
        return f"| {self.statement} | {self.oracle} | {error} | {bound} | `{self.test}` |"


class Claims:
    """The claims of one test."""

    def __init__(self, test: str, rows: dict[tuple[str, str], Row]):
        self._test, self._rows = test, rows

    def within(self, statement: str, oracle: str, error: float, bound: float) -> None:
        """Asserts error <= bound."""
        error = float(error)
        assert error <= bound, f"{statement} against {oracle}: {error:.3g} exceeds {bound:.3g}"
        row = self._rows.setdefault(
            (statement, oracle), Row(statement, oracle, error, bound, self._test)
        )
        row.error, row.bound = max(row.error, error), max(row.bound, bound)

    def near(self, statement: str, oracle: str, got, wanted, bound: float) -> None:
        """Asserts that arrays agree to `bound`, relative to the largest wanted value."""
        got, wanted = (np.asarray(x, np.float64) for x in (got, wanted))
        assert got.shape == wanted.shape
        self.within(statement, oracle, np.abs(got - wanted).max() / np.abs(wanted).max(), bound)

    def equal(self, statement: str, oracle: str, got, wanted) -> None:
        """Asserts that arrays or numbers are equal."""
        np.testing.assert_array_equal(got, wanted)
        self.within(statement, oracle, 0.0, 0.0)


@pytest.fixture
def claim(request):
    """The `Claims` of the test that asks for it."""
    test = request.node.nodeid.partition("[")[0]
    return Claims(test, request.config.stash[ROWS])


ROWS = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[ROWS] = {}


def pytest_collection_modifyitems(items):
    for item in items:
        if "claim" in getattr(item, "fixturenames", ()) or "oracles" in item.path.parts:
            item.add_marker(pytest.mark.claim)


def pytest_sessionfinish(session, exitstatus):
    if os.environ.get("UPDATE_CLAIMS") and exitstatus == 0:
        PAGE.write_text(render(list(session.config.stash[ROWS].values())), encoding="utf-8")


def render(rows: list[Row]) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    text = HEADER.format(
        date=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} CPU cores ({platform.machine()})",
        python=platform.python_version(),
        versions=versions,
    )
    foreign = [r for r in rows if "/oracles/" in r.test]
    for title, part in (
        ("Against other libraries", foreign),
        (
            "Against closed forms, float64, recordings and published numbers",
            [r for r in rows if r not in foreign],
        ),
    ):
        lines = [r.to_markdown() for r in sorted(part, key=lambda r: (r.test, r.statement))]
        head = "| claim | oracle | error | bound | shown by |\n|---|---|---|---|---|"
        text += "\n".join(["", f"## {title}", "", head, *lines, ""])
    return text
