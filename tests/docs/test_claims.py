"""docs/claims.md and the tests that it names belong together."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"
ROW = re.compile(r"^\| (.+) \| (.+) \| (\S+) \| (\S+) \| `(\S+)::(\w+)` \|$", re.MULTILINE)


def functions(path):
    """{name of each test function: names of its arguments}."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return {f.name: {a.arg for a in f.args.args} for f in found if f.name.startswith("test_")}


@pytest.fixture(scope="module")
def rows():
    return ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_every_claim_names_a_test_that_makes_it_and_is_within_its_bound(rows):
    for statement, _, error, bound, file, test in rows:
        assert "claim" in functions(ROOT / file).get(test, ()), (statement, file, test)
        value = lambda text: 0.0 if text == "exact" else float(text)  # noqa: E731
        assert value(error) <= value(bound), statement


def test_every_test_that_claims_something_is_on_the_page(rows):
    listed = {(file, test) for *_, file, test in rows}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, arguments in functions(path).items():
            if "claim" in arguments:
                file = path.relative_to(ROOT).as_posix()
                assert (file, name) in listed, f"{file}::{name}: run `make oracles`"
