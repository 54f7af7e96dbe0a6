"""Mistakes in launches and sweeps: one line that says what to do, before anything starts."""

import pytest

from unclip_jax.cli import main

TRAIN = ("--config", "clip:tiny")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--on", "local"], "give either --config FILE:VARIANT, or a command"),
        (["--on", "local", "--", "true"], "--name is missing"),
        (["--on", "local", *TRAIN], "--workdir is missing"),
        (["--on", "local", "--config", "clip:tinny", "--workdir", "w"], "did you mean 'tiny'?"),
        (["--on", "local", "--name", "A B", "--", "true"], "--name 'A B': use lower-case"),
        (["--on", "ssh", *TRAIN, "--workdir", "/w"], "--on ssh needs --hosts FILE"),
        (["--on", "local", "--hosts", "h", "--name", "a", "--", "true"], "takes no --hosts"),
        (["--on", "gke", *TRAIN, "--workdir", "w"], "must be an absolute path, of a folder"),
        (["--on", "gke", *TRAIN, "--workdir", "/w"], "needs --option gke.image="),
        (["--on", "gcp-tpu", *TRAIN, "--workdir", "/w", "--code", "none"], "needs --python PATH"),
        (
            ["--on", "local", "--name", "a", "--env", "API_TOKEN=x", "--", "true"],
            "--env API_TOKEN: looks like a secret; use --secret API_TOKEN",
        ),
        (["--on", "local", "--name", "a", "--env", "A", "--", "true"], "write NAME=VALUE"),
        (["--on", "local", "--name", "a", "--secret", "NO_SUCH", "--", "true"], "no such variable"),
        (
            ["--on", "local", "--name", "a", "--option", "limit.grace_seconds=1", "--", "true"],
            "no such group (did you mean 'limits'?)",
        ),
        (
            ["--on", "local", "--name", "a", "--option", "limits.grace=1", "--", "true"],
            "spec.limits.grace: no such setting (did you mean 'grace_seconds'?)",
        ),
        (
            ["--on", "slurm", "--name", "a", "--option", "slurm.array=0-3", "--", "true"],
            "the command must hold {array}",
        ),
        (["status", "nothing"], "no run 'nothing'"),
        (["logs", "nothing"], "no run 'nothing'"),
        (["stop", "nothing"], "no run 'nothing'"),
        (["attach", "nothing"], "no run 'nothing'"),
        (["gc", "nothing"], "no run 'nothing'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNCLIP_LAUNCH_HOME", str(tmp_path / "home"))
    assert main(["launch", *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("unclip: ")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--on", "skypilot"], "a sweep waits for results"),
        (
            ["--on", "ssh", "--hosts", "h", "--concurrency", "2"],
            "--hosts h: can't be read",
        ),
        (["--on", "local", "--given", "clip"], "--given clip: write NAME=VALUE"),
    ],
)
def test_mistakes_in_sweeps(argv, message, capsys, tmp_path):
    words = ("sweep", "--config", "prior_lr:tiny", "--workdir", str(tmp_path / "s"))
    assert main([*words, *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "s").exists()
