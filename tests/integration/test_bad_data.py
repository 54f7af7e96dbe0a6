"""One host has bad data, none, or all have what diverges: all processes stop, at the same step."""

import io
import json
import re
import shutil
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from unclip_jax.training.restore import complete_steps

PROCESSES = 2
ROWS = 2048  # of a process: five batches of them are 10,000 rows


@pytest.fixture
def folders(shards, tmp_path):
    """A copy of the shards for each process."""
    copies = {number: tmp_path / f"host{number}" for number in range(PROCESSES)}
    for copy in copies.values():
        shutil.copytree(shards, copy)
    return copies


def damage_every_third_picture(folder):
    for path in folder.glob("train-*.tar"):
        with tarfile.open(path) as tar:
            pictures = [member for member in tar if member.name.endswith("png")]
        content = bytearray(path.read_bytes())
        for member in pictures[::3]:
            content[member.offset_data : member.offset_data + 8] = bytes(8)
        path.write_bytes(content)


def the_line(output):
    (line,) = [line for line in output.splitlines() if line.startswith("unclip: ")]
    assert "Traceback" not in output
    return line


def test_too_many_bad_samples_on_one_host_stop_all(toy_runs, folders, tmp_path):
    """Their state is saved, and each says the same one line, which names the host."""
    workdir = tmp_path / "run"
    damage_every_third_picture(folders[1])
    codes, outputs = toy_runs.run(
        workdir,
        processes=PROCESSES,
        folder_of=folders,
        data__train="train-*.tar",
        train__batch_size=str(PROCESSES * ROWS),
        train__checkpoint_every="1000 steps",
    )
    assert codes == [2, 2], outputs
    for output in outputs:
        line = the_line(output)
        assert line.startswith("unclip: process 1 on ")
        assert re.search(r"\d+ bad samples in \d+ rows \(image_decode", line)
        assert "process 0 on" not in line
    (step,) = complete_steps(workdir / "checkpoints")
    assert 0 < step < 20


def test_shards_that_one_host_loses_stop_all(toy_runs, folders, undisturbed, tmp_path):
    """Saved before the first batch that is not there: with the shards back nothing was lost."""
    workdir = tmp_path / "run"
    settings = {"processes": PROCESSES, "folder_of": folders, "data__train": "train-*.tar"}
    run = toy_runs.start(workdir, env={"TOY_SLOW": "0.1"}, **settings)
    toy_runs.wait_until(lambda: (workdir / "checkpoints" / "5").is_dir(), timeout=240)
    for path in folders[1].glob("train-*.tar"):
        path.rename(path.with_suffix(".gone"))
    codes, outputs = run.wait(timeout=240)
    assert codes == [2, 2], outputs
    for output in outputs:
        assert re.match(
            r"unclip: process 1 on \S+: train-\d+\.tar: cannot be opened \(No such file",
            the_line(output),
        )
    stopped = max(complete_steps(workdir / "checkpoints"))
    assert 5 < stopped < 40
    for path in folders[1].glob("train-*.gone"):
        path.rename(path.with_suffix(".tar"))
    codes, outputs = toy_runs.run(workdir, **settings)
    assert codes == [0, 0], outputs
    assert f"step {stopped}" in outputs[0]
    jax.tree.map(
        np.testing.assert_array_equal, toy_runs.params(workdir), toy_runs.params(undisturbed)
    )


def test_shards_that_one_host_never_could_read_stop_all(toy_runs, tmp_path):
    codes, outputs = toy_runs.run(tmp_path, processes=2, env_of={1: {"TOY_UNREADABLE": "1"}})
    assert codes == [2, 2], outputs
    for output in outputs:
        line = the_line(output)
        assert line.startswith("unclip: process 1 on ")
        assert line.endswith(".tar: cannot be read (Input/output error)")


@pytest.fixture
def black(tmp_path):
    """A shard of 40 black pictures, whose loss is infinite."""
    folder = tmp_path / "black"
    folder.mkdir()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture, "PNG")
    with tarfile.open(folder / "train-00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(40):
            for name, content in (("png", picture.getvalue()), ("txt", b"black")):
                info = tarfile.TarInfo(f"{i:06d}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def test_all_processes_of_a_run_that_diverged_say_so(toy_runs, black, tmp_path):
    """One that leaves late (`TOY_LATE`) still tells its own story, not of the others' end."""
    workdir = tmp_path / "run"
    codes, outputs = toy_runs.run(
        workdir,
        processes=PROCESSES,
        env_of={1: {"TOY_LATE": "1"}},
        data__train=str(black / "train-*.tar"),
        faults__max_skipped="3",
        faults__max_rollbacks="1",
    )
    assert codes == [65, 65], outputs
    for output in outputs:
        line = the_line(output)
        assert line.startswith("unclip: 3 updates in steps 1 to 3 were not finite, after 1 roll")
        assert f"{workdir}/diverged.json has the data positions" in line
    rows = json.loads((workdir / "diverged.json").read_text())
    assert [json.loads(row["position"])["examples"] for row in rows] == [24, 32, 40]
