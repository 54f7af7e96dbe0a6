"""`unclip data digest`: one digest a global batch, whoever reads it."""

import pytest

from unclip_jax.cli import main


def lines(capsys, *arguments):
    assert main(["data", "digest", *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    return [line for line in out if "until" in line], out[-1].removeprefix("position ")


@pytest.fixture
def config(shards):
    return ["--config", "clip:tiny", f"--config.data.train={shards / 'train-*.tar'}"]


def test_a_config_gives_the_same_batches_on_any_number_of_hosts(config, capsys):
    whole, position = lines(capsys, *config, "--batches", "6")
    assert len(set(whole)) == 6
    assert lines(capsys, *config, "--batches", "6", "--hosts", "4") == (whole, position)
    _, middle = lines(capsys, *config, "--batches", "2")
    assert lines(capsys, *config, "--batches", "4", "--position", middle)[0] == whole[2:]
    share, _ = lines(capsys, *config, "--batches", "6", "--hosts", "4", "--host", "3")
    assert not set(share) & set(whole)


def test_patterns_need_no_config(shards, capsys):
    pattern = str(shards / "train-*.tar")
    options = ["--image-size", "8", "--batch-size", "8", "--batches", "2"]
    whole, _ = lines(capsys, pattern, *options)
    assert lines(capsys, pattern, *options, "--hosts", "2")[0] == whole
    main(["data", "digest", pattern, "--content"])
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either patterns of shards or --config"),
        (["--batches", "1", "--hosts", "3"], "not a multiple of 3 hosts"),
        (["--batches", "1", "--hosts", "2", "--host", "2"], "numbered 0 to 1"),
    ],
)
def test_mistakes(shards, capsys, arguments, message):
    shards = [str(shards / "train-*.tar")] if arguments else []
    assert main(["data", "digest", *shards, *arguments]) == 2
    assert message in capsys.readouterr().err
