"""Every launch and sweep that the documentation shows, as a dry run in a repository of its own."""

import pathlib
import re
import shlex
import subprocess

import pytest

from unclip_jax.cli import main, parse

ROOT = pathlib.Path(__file__).parents[2]
BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def documented():
    """(page, words after `unclip`) of commands that start or look after runs."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["unclip"] and words[1] in ("launch", "sweep"):
                    yield page.name, words[1:]


def commands(*, starting):
    return [
        pytest.param(words, id=f"{page}: {' '.join(words)[:50]}")
        for page, words in documented()
        if (words[0] == "sweep" or words[1] == "--on") is starting
    ]


@pytest.mark.parametrize("words", commands(starting=False))
def test_it_parses(words):
    parse(words)


@pytest.mark.parametrize("words", commands(starting=True))
def test_it_can_be_dry_run(words, tmp_path, monkeypatch, capsys):
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (repository / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    (repository / "hosts.txt").write_text("me@node-a address=10.0.0.1\nme@node-b\n")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HOME", str(tmp_path))
    end = words.index("--") if "--" in words else len(words)
    assert main([*words[:end], "--dry-run", *words[end:]]) == 0
    printed = capsys.readouterr().out
    assert printed.strip()
    assert sorted(p.name for p in repository.iterdir()) == [".git", "hosts.txt", "setup.py"]
    assert not (tmp_path / ".unclip").exists()


def test_there_are_some():
    assert len(commands(starting=True)) >= 10
    assert len(commands(starting=False)) >= 10
