"""One host's disk gives pictures that can't be decoded: all processes stop, at the same step."""

import re
import shutil
import tarfile

import pytest

from unclip_jax.training.restore import complete_steps

PROCESSES = 2
ROWS = 2048  # of a process: five batches of them are 10,000 rows


@pytest.fixture
def folders(shards, tmp_path):
    """A copy of the shards for each process, the last one's with every third picture damaged."""
    copies = [tmp_path / f"host{number}" for number in range(PROCESSES)]
    for copy in copies:
        shutil.copytree(shards, copy)
    for path in copies[-1].glob("train-*.tar"):
        with tarfile.open(path) as tar:
            pictures = [member for member in tar if member.name.endswith("png")]
        content = bytearray(path.read_bytes())
        for member in pictures[::3]:
            content[member.offset_data : member.offset_data + 8] = bytes(8)
        path.write_bytes(content)
    return dict(enumerate(copies))


def test_too_many_bad_samples_on_one_host_stop_all(toy_runs, folders, tmp_path):
    """Their state is saved, and each says the same one line, which names the host."""
    workdir = tmp_path / "run"
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
        (line,) = [line for line in output.splitlines() if line.startswith("unclip: ")]
        assert line.startswith("unclip: process 1 on ")
        assert re.search(r"\d+ bad samples in \d+ rows \(image_decode", line)
        assert "process 0 on" not in line
        assert "Traceback" not in output
    (step,) = complete_steps(workdir / "checkpoints")
    assert 0 < step < 20
