"""A workdir that is full, read-only or gone: one line, exit code 74, and nothing lost."""

import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB: two checkpoints of the toy, and a part of the third."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def one_line(output, workdir, why):
    lines = [line for line in output.splitlines() if line.startswith("unclip: ")]
    return (
        "Traceback" not in output
        and len(lines) == 1
        and f"{workdir}" in lines[0]
        and (why in lines[0])
    )


@needs_mounts
def test_a_full_disk_and_room_made_later(toy_runs, undisturbed, small_disk):
    workdir = small_disk / "run"
    codes, outputs = toy_runs.run(workdir)
    assert codes == [74], outputs
    assert one_line(outputs[0], workdir, "no space is left"), outputs[0]
    remount(small_disk, "size=64m")
    codes, outputs = toy_runs.run(workdir)
    assert codes == [0], outputs
    assert "resumed from step" in outputs[0]
    jax.tree.map(
        np.testing.assert_array_equal, toy_runs.params(workdir), toy_runs.params(undisturbed)
    )


@needs_mounts
def test_a_read_only_workdir(toy_runs, small_disk):
    remount(small_disk, "ro")
    codes, outputs = toy_runs.run(small_disk / "run")
    assert codes == [74], outputs
    assert one_line(outputs[0], small_disk / "run", "ead-only"), outputs[0]


def test_a_workdir_that_vanishes(toy_runs, tmp_path):
    workdir = tmp_path / "run"
    run = toy_runs.start(workdir, env={"TOY_SLOW": "0.05"})
    toy_runs.wait_until(lambda: (workdir / "checkpoints" / "5").is_dir())
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.rmtree(workdir, ignore_errors=True)
    codes, outputs = run.wait()
    assert codes == [74], outputs
    assert one_line(outputs[0], workdir, "vanished"), outputs[0]
