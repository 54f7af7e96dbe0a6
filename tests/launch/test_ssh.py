"""Three real SSH hosts in network namespaces: pushed code, pulled cables, killed hosts."""

import itertools
import shutil
import signal
import subprocess
import sys

import pytest
import ssh_lab

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(bool(ssh_lab.reason_to_skip()), reason=str(ssh_lab.reason_to_skip())),
]

HERE_ALREADY = ("--code", "none", "--python", sys.executable)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    made = ssh_lab.Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture
def on_lab(lab, launcher):
    """A launcher whose workdir all hosts see."""
    launcher.workdir = lab.shared / launcher.home.parent.name

    def start(name, *toy, options=(), more=HERE_ALREADY):
        return launcher.start(name, *toy, on=lab.place(*more), options=options, processes=3)

    launcher.start_on_lab = start
    return launcher


def finish(process, timeout=90):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def test_three_hosts_run_together(lab, on_lab):
    code, output = finish(on_lab.start_on_lab("a", "--say", "LAB_HOST"))
    assert code == 0, output
    for i, name in enumerate(lab.names):
        assert f"[{i} {lab.address(name)}] LAB_HOST={name}" in output
        assert on_lab.steps(i) == [1, 2, 3, 4, 5]
        assert on_lab.starts(i)[0][1].startswith(lab.address("h1") + ":")
        assert list((lab.folder / f"disk-{name}").glob(f"runs/a-*/001/{i:03d}/log"))
    assert on_lab.command("gc", "a")[0] == 0
    assert not list((lab.folder / "disk-h1").glob("runs/*"))


def test_code_is_pushed_and_installed_once(lab, on_lab, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    (repository / "toypackage").mkdir(parents=True)
    (repository / "toypackage" / "__init__.py").write_text("NAME = 'one'\n")
    (repository / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='toypackage', packages=['toypackage'])\n"
    )
    (repository / "main.py").write_text(
        "import os, sys, toypackage\n"
        "print('package', toypackage.NAME, os.path.dirname(toypackage.__file__))\n"
        "print('venv', sys.prefix)\n"
    )
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    download = ("pip", "download", "-q", "-d", str(lab.wheels), "setuptools", "wheel")
    subprocess.run([sys.executable, "-m", *download], check=True)
    argv = [
        *(sys.executable, "-m", "unclip_jax", "launch", "--on", *lab.place()),
        *("--home", str(on_lab.home), "--code", str(repository), "--name"),
    ]

    def launch(name):
        words = [*argv, name, "--", "{python}", "main.py"]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    output = launch("one")
    assert output.count("package one") == 3
    assert output.count(f"venv {lab.disk}/venvs/") == 3
    (repository / "toypackage" / "__init__.py").write_text("NAME = 'two'\n")
    output = launch("two")  # other code in the same environment
    assert output.count("package two") == 3
    disk = lab.folder / "disk-h2"
    assert len([p for p in (disk / "venvs").iterdir() if p.is_dir()]) == 1
    assert len(list((disk / "code").iterdir())) == 2
    shutil.rmtree(repository)


def test_a_host_whose_key_is_not_known_is_refused(lab, on_lab, tmp_path):
    (tmp_path / "nobody").touch()
    more = (*HERE_ALREADY, "--known-hosts", str(tmp_path / "nobody"))
    code, output = finish(on_lab.start_on_lab("a", more=more))
    assert code == 2
    assert "is not known" in output
    assert not on_lab.workdir.exists()


def test_a_login_that_is_refused_is_one_clear_line(lab, on_lab):
    more = (*HERE_ALREADY, "--identity", str(lab.folder / "stranger"))
    code, output = finish(on_lab.start_on_lab("a", more=more))
    assert code == 2
    assert "refuses the login" in output


def test_a_cable_that_is_pulled_for_a_moment_costs_nothing(lab, on_lab, wait_until):
    process = on_lab.start_on_lab("a", "--steps", "250", "--delay", "0.05")
    wait_until(lambda: len(on_lab.steps(2)) > 5)
    lab.pull_cable("h3")
    before = len(on_lab.steps(2))
    wait_until(lambda: len(on_lab.steps(2)) > before + 20)  # it goes on meanwhile
    lab.plug_cable("h3")
    code, output = finish(process)
    assert code == 0, output
    for i in range(3):
        assert len(on_lab.starts(i)) == 1
        log = (on_lab.home / "a" / "logs" / f"attempt-001.process-{i:03d}.log").read_text()
        assert log.splitlines() == [f"toy: {step}/250 steps" for step in range(1, 251)]


def test_a_cable_that_stays_pulled_makes_a_new_attempt(lab, on_lab, wait_until):
    options = ("--option", "limits.lost_seconds=2", "--option", "restarts.backoff_seconds=2")
    process = on_lab.start_on_lab("a", "--steps", "300", "--delay", "0.1", options=options)
    wait_until(lambda: len(on_lab.steps(2)) > 5)
    lab.pull_cable("h3")
    try:
        wait_until(lambda: "waiting" in on_lab.command("status", "a")[1], 60)
    finally:
        lab.plug_cable("h3")
    code, output = finish(process, 120)
    assert code == 0, output
    assert "process 2 can't be reached" in output
    for i in range(3):
        assert on_lab.steps(i)[-1] == 300
    # The one that was cut off was ended before its successor began: no step was made twice at once.
    steps = on_lab.steps(2)
    assert sum(b <= a for a, b in itertools.pairwise(steps)) <= 1


def test_a_host_that_loses_power_comes_back(lab, on_lab, wait_until):
    options = (
        *("--option", "limits.lost_seconds=2", "--option", "restarts.backoff_seconds=1"),
        *("--option", "restarts.backoff_limit_seconds=1"),
    )
    process = on_lab.start_on_lab("a", "--steps", "100", "--delay", "0.1", options=options)
    wait_until(lambda: len(on_lab.steps(1)) > 5)
    lab.kill("h2")
    try:
        wait_until(lambda: "waiting" in on_lab.command("status", "a")[1], 60)
    finally:
        lab.start_sshd("h2")
    code, output = finish(process, 120)
    assert code == 0, output
    assert [on_lab.steps(i)[-1] for i in range(3)] == [100, 100, 100]


def test_ctrl_c_ends_everything_on_every_host(lab, on_lab, wait_until, alive):
    process = on_lab.start_on_lab("a", "--steps", "1000", "--orphan")
    wait_until(lambda: all(len(on_lab.steps(i)) > 3 for i in range(3)))
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 130, output
    for i in range(3):
        assert int((on_lab.workdir / f"state-{i}").read_text()) == on_lab.steps(i)[-1]
        assert not alive(int((on_lab.workdir / f"orphan-{i}").read_text()))


def test_a_killed_launcher_is_replaced(lab, on_lab, wait_until):
    process = on_lab.start_on_lab("a", "--steps", "200")
    wait_until(lambda: len(on_lab.steps(1)) > 3)
    process.kill()
    process.wait()
    code, output = on_lab.command("attach", "a")
    assert code == 0, output
    for i in range(3):
        assert on_lab.steps(i) == list(range(1, 201))
