"""What the program sets up before JAX is imported, in folders of the tests' own."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

from unclip_jax import cli
from unclip_jax.cli import environment


def settings(tmp_path, **more):
    return {"XDG_CACHE_HOME": str(tmp_path), **more}


def test_compiled_programs_are_kept_in_a_private_folder(tmp_path):
    found = settings(tmp_path)
    environment.keep_compiled_programs(found)
    folder = pathlib.Path(found[environment.CACHE])
    assert folder.parent == tmp_path / "unclip_jax" / "compiled"
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_open_to_others_is_closed(tmp_path):
    folder = tmp_path / "unclip_jax" / "compiled"
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    environment.keep_compiled_programs(settings(tmp_path))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    found = settings(tmp_path)
    environment.keep_compiled_programs(found)
    assert environment.CACHE not in found
    assert "others may write to it" in capsys.readouterr().err


@pytest.mark.parametrize("chosen", ["", "/elsewhere"])
def test_the_user_decides_about_the_cache(tmp_path, chosen):
    found = settings(tmp_path, **{environment.CACHE: chosen})
    environment.keep_compiled_programs(found)
    assert found[environment.CACHE] == chosen
    assert not list(tmp_path.iterdir())


def test_an_unwritable_home_costs_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    found = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    environment.keep_compiled_programs(found)
    assert environment.CACHE not in found
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "plugin", "wanted"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"JAX_PLATFORMS": "cpu"}, True, True),
        ({"JAX_PLATFORMS": "cuda"}, True, False),
        ({"JAX_PLATFORMS": "cpu", "UNCLIP_KEEP_MEMORY": "off"}, False, False),
        ({"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, False, False),
    ],
)
def test_freed_memory_is_kept_where_cpus_compute(monkeypatch, given, plugin, wanted):
    monkeypatch.setattr(environment, "_has_accelerator_plugin", lambda: plugin)
    assert environment.wants_freed_memory(given) == wanted


BLOCKS = """
import resource, sys, threading
import numpy as np
from unclip_jax.cli import environment

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1] == "keep":
    print(environment.keep_freed_memory())

def work():
    for _ in range(3):
        before = faults()
        np.ones(64 << 20, np.uint8)
        print(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_is_mapped_once(keep):
    """64 MiB are 16,384 pages; numpy would ask for huge ones, hence the switch."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS, "keep" if keep else "give back"],
        env=dict(os.environ, NUMPY_MADVISE_HUGEPAGE="0"),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.split()
    assert not done.returncode, done.stderr
    if keep:
        assert lines.pop(0) == "True"
    first, *later = map(int, lines)
    assert first > 16_000
    assert all(n < 100 if keep else n > 16_000 for n in later)


@pytest.mark.parametrize(
    ("command", "said", "platforms"),
    [
        ("plan", None, "cpu"),
        ("inspect", None, "cpu"),
        ("plan", "tpu", "tpu"),
        ("train", None, None),
    ],
)
def test_commands_that_only_look_wake_no_accelerator(monkeypatch, command, said, platforms):
    monkeypatch.setattr(os, "environ", {} if said is None else {"JAX_PLATFORMS": said})
    monkeypatch.setattr(sys, "argv", ["unclip", command, "--help"])
    monkeypatch.setattr(cli, "_dispatch", lambda argv: 0)
    monkeypatch.setattr(environment, "prepare", lambda environment: None)
    assert cli.main() == 0
    assert os.environ.get("JAX_PLATFORMS") == platforms
