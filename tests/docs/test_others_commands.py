"""Commands of other programs that the documentation shows: gcloud, pip and ssh-keygen."""

import ast
import json
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(program):
    return [
        pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}")
        for page in PAGES
        for block in BLOCK.findall(page.read_text())
        for line in block.replace("\\\n", " ").splitlines()
        if (words := shlex.split(line, comments=True)) and pathlib.Path(words[0]).name == program
    ]


def extras_of_setup():
    """Keys that setup.py gives EXTRAS, at once or one by one."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.Assign) and "EXTRAS" in ast.unparse(node.targets[0]):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Subscript):
                found.add(ast.literal_eval(target.slice))
            elif isinstance(value, ast.Dict):
                found |= {ast.literal_eval(key) for key in value.keys if key is not None}
    return found


@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud")
@pytest.mark.parametrize("words", commands("gcloud"))
def test_gcloud_knows_command_and_flags(words):
    """By its own parser; nothing is asked of Google."""
    argv = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={shlex.join(words)}"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    (found,) = json.loads(ran.stdout)
    assert found["success"], found["error_message"]


@pytest.mark.parametrize("words", commands("pip"))
def test_pip_is_asked_for_extras_that_exist(words):
    ours = extras_of_setup()
    assert words[1] == "install"
    for wanted in words[2:]:
        name, extras = re.fullmatch(r"([a-z_]+)\[([a-z0-9,]+)\]", wanted).groups()
        assert name in ("unclip_jax", "jax")
        assert name == "jax" or set(extras.split(",")) <= ours


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
@pytest.mark.parametrize("words", commands("ssh-keygen"))
def test_keys_are_made(words, tmp_path):
    (tmp_path / ".ssh").mkdir()
    argv = [word.replace("~", str(tmp_path)) for word in words]
    subprocess.run(argv, check=True, capture_output=True)
    assert len(list((tmp_path / ".ssh").glob("*.pub"))) == 1


def test_there_are_some():
    assert [len(commands(program)) for program in ("gcloud", "pip", "ssh-keygen")] == [3, 3, 1]
