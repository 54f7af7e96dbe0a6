"""Hosts shared out among trials: equal groups, no host in two of them, kept by whoever has one."""

import asyncio
import itertools
import sys

import pytest

from unclip_jax.cli import main
from unclip_jax.errors import UserError
from unclip_jax.launch.record import Record
from unclip_jax.launch.spec import Host, Limits, RunSpec
from unclip_jax.sweeps.driver import Driver
from unclip_jax.sweeps.host_groups import divide, free_group
from unclip_jax.sweeps.trials import DONE, SweepFolder

SIX = tuple(Host(name=f"h{i}", address=f"10.0.0.{i}") for i in range(1, 7))


@pytest.mark.parametrize(("count", "sizes"), [(1, [6]), (2, [3, 3]), (3, [2] * 3), (6, [1] * 6)])
def test_groups_are_equal_and_hold_every_host_once(count, sizes):
    groups = divide(SIX, count)
    assert [len(group) for group in groups] == sizes
    assert tuple(itertools.chain(*groups)) == SIX


@pytest.mark.parametrize("count", [4, 5, 7, 12])
def test_what_does_not_divide_names_the_numbers(count):
    with pytest.raises(UserError) as caught:
        divide(SIX, count)
    assert str(caught.value) == (
        f"--concurrency {count}: 6 hosts don't make {count} groups of equal size; "
        "with these hosts it can be 1, 2, 3, 6"
    )


def test_a_group_is_free_if_none_of_its_hosts_is_taken():
    pairs = divide(SIX, 3)
    assert free_group(pairs, []) == SIX[:2]
    assert free_group(pairs, [SIX[1:2]]) == SIX[2:4]  # taken when groups were smaller
    assert free_group(pairs, [SIX[:3], SIX[5:]]) is None
    assert free_group(divide((), 4), [(), ()]) == ()  # a backend that finds its own


@pytest.fixture
def driver(toy, tmp_path):
    """`driver(groups, …)`: trials are processes here; only their records name the hosts."""
    folder = SweepFolder(tmp_path / "s")

    def launch(trial, hosts):
        spec = RunSpec(
            name=trial.run_name,
            backend="local",
            command=(*toy().command[:2], str(trial.out), "steps=3", "delay=0.15"),
            hosts=hosts,
            root=str(tmp_path / "root"),
            cwd=str(tmp_path),
            host_python=sys.executable,
            progress="^",
            limits=Limits(grace_seconds=1, drain_seconds=1),
        )
        return spec, b""

    def make(groups, trials):
        sweep = toy(trials=[{"x": float(i)} for i in range(trials)])
        places = {"backend": "local", "concurrency": len(groups), "groups": groups}
        return Driver(sweep, folder, launch, **places, seed=0, grace=1.0, show=print)

    make.folder, make.launch = folder, launch
    folder.open({})
    yield make
    folder.close()


def hosts_of(folder):
    """Names of the hosts of each trial, by number."""
    records = (Record(folder.path / "launch", trial.run_name) for trial in folder.trials())
    return ["".join(host.name for host in record.spec.hosts) for record in records]


def test_trials_take_turns_on_groups(driver):
    groups = divide(SIX[:4], 2)
    assert asyncio.run(driver(groups, trials=4).run())
    trials = driver.folder.trials()
    assert [trial.status for trial in trials] == [DONE] * 4
    assert sorted(hosts_of(driver.folder)) == ["h1h2", "h1h2", "h3h4", "h3h4"]
    assert hosts_of(driver.folder)[:2] == ["h1h2", "h3h4"]
    lives = sorted(
        (hosts, (trial.out / "starts").stat().st_mtime, (trial.folder / "result.json").stat())
        for hosts, trial in zip(hosts_of(driver.folder), trials, strict=True)
    )
    for (hosts, _, over), (others, begun, _) in itertools.pairwise(lives):
        assert hosts != others or over.st_mtime <= begun  # no host had two trials at once


def test_what_is_under_way_keeps_its_hosts_and_goes_first(driver):
    """The third trial was left by a killed driver of three groups; now there is only one."""
    folder = driver.folder
    trials = [folder.begin({"x": float(i)}) for i in range(3)]
    spec, packed = driver.launch(trials[2], SIX[4:])
    left = Record(folder.path / "launch", trials[2].run_name)
    left.create(spec, packed)
    left.change(phase="starting")
    assert asyncio.run(driver(divide(SIX, 1), trials=3).run())
    assert hosts_of(folder) == ["h1h2h3h4h5h6", "h1h2h3h4h5h6", "h5h6"]
    ended = [(trial.folder / "result.json").stat().st_mtime for trial in folder.trials()]
    assert ended[2] < ended[0] < ended[1]


def test_the_command_line_shows_groups_and_refuses_what_does_not_divide(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("a\nb\nc\nd\n")
    words = [
        *("sweep", "--config", "prior_lr:tiny", "--workdir", str(tmp_path / "s"), "--dry-run"),
        *("--on", "ssh", "--hosts", "hosts", "--code", "none", "--python", "python3"),
    ]
    assert main([*words, "--concurrency", "2"]) == 0
    printed = capsys.readouterr().out
    assert "# 2 trials at a time, each on one of\n#   a, b\n#   c, d\n" in printed
    assert "# b: start process 1" in printed
    assert "# c:" not in printed
    assert main([*words, "--concurrency", "3"]) == 2
    assert "4 hosts don't make 3 groups" in capsys.readouterr().err
