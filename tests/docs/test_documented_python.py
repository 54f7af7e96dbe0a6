"""The Python examples of the documentation: every name exists and takes what it is given."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import unclip_jax
from unclip_jax.generation import Pipeline
from unclip_jax.generation.inpainting import How

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPERATIONS = {  # what the paper and its users do with a system
    *("variations", "variations_of_embedding", "interpolate", "interpolate_prompts", "text_diff"),
    *("inpaint", "outpaint", "image_to_image", "guidance_grid", "rerank", "ablate", "reconstruct"),
    "typographic_probe",
}


def calls(page):
    """(name, call) of what the page calls on a pipeline; "__call__" for the pipeline itself."""
    for block in BLOCK.findall((DOCS / page).read_text()):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Name("pipeline"):
                    yield "__call__", node
                case ast.Attribute(ast.Name("pipeline"), name):
                    yield name, node


EXAMPLES = [
    pytest.param(name, call, id=f"{page}: {ast.unparse(call)[:60]}")
    for page in ("editing.md", "sampling.md")
    for name, call in calls(page)
]


@pytest.mark.parametrize(("name", "call"), EXAMPLES)
def test_examples_call_what_exists(name, call):
    signature = inspect.signature(getattr(Pipeline, name))
    keywords = {keyword.arg: None for keyword in call.keywords}
    signature.bind(None, *call.args, **keywords)  # TypeError: the method takes no such arguments
    free = {k for k in keywords if k not in signature.parameters}
    assert free <= set(How.__annotations__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_parse_and_import_what_exists(page):
    for block in BLOCK.findall(page.read_text()):
        for node in ast.walk(ast.parse(block)):
            match node:
                case ast.ImportFrom(module) if module.startswith("unclip_jax"):
                    for name in node.names:
                        getattr(importlib.import_module(module), name.name)
                case ast.Call(ast.Attribute(ast.Name("unclip_jax"), name)):
                    keywords = {k.arg: None for k in node.keywords}
                    inspect.signature(getattr(unclip_jax, name)).bind(*node.args, **keywords)


def test_every_operation_has_an_example_and_every_section_a_picture():
    assert {name for name, _ in calls("editing.md")} >= OPERATIONS
    sections = (DOCS / "editing.md").read_text().split("\n## ")[1:]
    bare = [s.splitlines()[0] for s in sections if "](images/" not in s]
    assert bare == ["The model of these pictures"]
