"""What README and docs tell people to type: every command parses, every target and link exists."""

import importlib
import pathlib
import re
import shlex

import pytest

from unclip_jax.cli import COMMANDS, parse

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)")


def shell_lines(page):
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            if words:
                yield words


def commands(program):
    return [
        pytest.param(words[1:], id=f"{page.relative_to(ROOT)}: {' '.join(words)[:60]}")
        for page in PAGES
        for words in shell_lines(page)
        if words[0] == program
    ]


@pytest.mark.parametrize("arguments", commands("unclip"))
def test_unclip_commands_parse(arguments):
    if arguments != ["--help"] and arguments[-1] != "--help":
        parse(arguments)


@pytest.mark.parametrize("arguments", commands("make"))
def test_make_targets_exist(arguments):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert next(a for a in arguments if "=" not in a) in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_examples_in_help_texts_parse():
    for module, _ in COMMANDS.values():
        text = importlib.import_module(f"unclip_jax.cli.{module}").__doc__
        examples = re.findall(r"^  unclip ((?:[^\\\n]|\\\n)*)$", text, re.MULTILINE)
        assert examples, module
        for example in examples:
            parse(shlex.split(example.replace("\\\n", " "), comments=True))
