"""The command line as a user meets it: help everywhere, mistakes in one line, exit code 2."""

import importlib
import json
import subprocess
import sys

import pytest

from unclip_jax.cli import COMMANDS, main


def test_the_overview_names_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"unclip {name}" in text
    assert "xample" in text
    importlib.import_module(f"unclip_jax.cli.{COMMANDS[name][0]}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no command 'trian' (did you mean 'train'?)"),
        (["data"], "unclip data: which one?"),
        (["inspect", "config", "--config", "decodr:tiny"], "did you mean 'decoder'?"),
        (["inspect", "config", "--config", "decoder:tine"], "did you mean 'tiny'?"),
        (
            ["inspect", "config", "--config", "prior:tiny", "--config.optim.learning_rat=1"],
            "config.optim.learning_rat: no such setting (did you mean 'learning_rate'?)",
        ),
        (["inspect", "config", "--config", "prior:tiny", "--config.seed"], "needs a value"),
        (["demo", "--config.seed=1"], "unclip demo takes no --config.seed"),
        (
            ["train", "--config", "clip:tiny", "--workdir", "W", "--config.data.train=no/*.tar"],
            "no/*.tar: no file matches this pattern",
        ),
        (["train", "--config", "prior:tiny", "--workdir", "W"], "neither a run's workdir nor"),
        (["sample", "--bundle", "nowhere", "--prompt", "x", "--out", "o"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("unclip: ")
    assert "\n" not in error


def test_inspect_config_prints_the_resolved_config(capsys):
    assert main(["inspect", "config", "--config", "clip:tiny", "--config.seed=7"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["seed"] == 7
    assert config["optim"]["beta1"] == 0.9


def test_help_is_fast_because_it_imports_no_jax():
    code = (
        "import sys, unclip_jax; from unclip_jax.cli import main; main(['--help']);"
        "assert not {'jax', 'flax', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
