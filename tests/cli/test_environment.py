"""What the program sets up before JAX is imported, in folders of the tests' own."""

import os
import pathlib
import subprocess
import sys

import pytest

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
    ("pages", "libc", "given", "wanted"),
    [
        ("always [madvise] never", ("glibc", "2.36"), {}, True),
        ("[always] madvise never", ("glibc", "2.36"), {}, False),
        ("always [madvise] never", ("glibc", "2.31"), {}, False),
        ("always [madvise] never", ("musl", ""), {}, False),
        ("always [madvise] never", ("glibc", "2.36"), {"UNCLIP_HUGE_PAGES": "off"}, False),
        ("always [madvise] never", ("glibc", "2.36"),
         {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, False),
    ],
)  # fmt: skip
def test_huge_pages_are_wanted_where_they_can_be_had(
    tmp_path, monkeypatch, pages, libc, given, wanted
):
    (tmp_path / "enabled").write_text(pages)
    monkeypatch.setattr(environment, "_THP", tmp_path / "enabled")
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: libc)
    assert environment.wants_huge_pages(given) == wanted


def test_the_program_restarts_once_and_keeps_its_arguments(tmp_path):
    """The first program's tunables and process id are those of the second."""
    (tmp_path / "enabled").write_text("[madvise]")
    script = tmp_path / "program.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "from unclip_jax.cli import environment\n"
        f"environment._THP = pathlib.Path({str(tmp_path / 'enabled')!r})\n"
        "environment.platform.libc_ver = lambda: ('glibc', '2.36')\n"
        "print('start', os.getpid(), flush=True)\n"
        "environment.prepare(os.environ)\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:], os.getpid())\n"
    )
    given = dict(os.environ, XDG_CACHE_HOME=str(tmp_path), GLIBC_TUNABLES="glibc.malloc.perturb=0")
    done = subprocess.run(
        [sys.executable, str(script), "a b", "c"], env=given, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    number = lines[0].split()[1]
    assert lines[:2] == [f"start {number}"] * 2, done.stderr
    assert lines[2] == f"glibc.malloc.perturb=0:glibc.malloc.hugetlb=1 ['a b', 'c'] {number}"
