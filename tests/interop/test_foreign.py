"""Weights that others wrote. tests/oracles/test_pickles.py tries real pickles, with torch."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import save_file

from unclip_jax.errors import UserError
from unclip_jax.interop import foreign, pickle_reader
from unclip_jax.interop.foreign import read_folder_weights, read_state_dict


def test_safetensors_files_are_read(tmp_path):
    half = {"a": np.arange(6, dtype=np.float16).reshape(2, 3)}
    save_file(half, tmp_path / "clip.safetensors")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "clip.safetensors")["a"], half["a"])


def test_files_that_are_not_there_or_no_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no weights file"):
        read_state_dict(tmp_path / "clip.npz")
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "clip.safetensors")
    (tmp_path / "clip.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="not a safetensors file"):
        read_state_dict(tmp_path / "clip.safetensors")
    with pytest.raises(UserError, match="holds no weights"):
        read_folder_weights(tmp_path, ("model",))


@pytest.mark.parametrize("version", [None, "2.5.1+cpu"])
def test_pickles_need_a_recent_torch(tmp_path, monkeypatch, version):
    """The child is given a torch of our making."""
    (tmp_path / "weights.pt").write_bytes(b"")
    fake = tmp_path / "fake" / "torch"
    fake.mkdir(parents=True)
    text = "raise ImportError" if version is None else f"__version__ = {version!r}"
    (fake / "__init__.py").write_text(text)
    if version:
        (tmp_path / "fake" / "safetensors").mkdir()
        (tmp_path / "fake" / "safetensors" / "__init__.py").write_text("")
        (tmp_path / "fake" / "safetensors" / "torch.py").write_text("save_file = None")
    starter = tmp_path / "start.py"
    starter.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'fake')!r})\n"
        f"exec(open({str(foreign._READER)!r}).read())\n"
    )
    monkeypatch.setattr(foreign, "_READER", starter)
    with pytest.raises(UserError, match="2.6 or newer" if version else "torch >= 2.6") as caught:
        read_state_dict(tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)


ATTEMPTS = {
    "a program": "import os; os.system('true')",
    "a child": "import subprocess; subprocess.run(['true'])",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "a file": "open(sys.argv[1] + '.other', 'w')",
    "a file by number": "import os; os.open(sys.argv[1] + '.other', os.O_WRONLY | os.O_CREAT)",
    "a deletion": "import os; os.remove(sys.argv[1])",
    "a library": "import ctypes; ctypes.CDLL('libm.so.6')",
}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_restricted_process_cannot_make(what, tmp_path):
    """Even code that ran in it, against all expectation."""
    kept = tmp_path / "kept"
    kept.write_text("here")
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(foreign._READER.parent)!r})
        import ctypes, os, pickle_reader, socket, subprocess
        pickle_reader.restrict(sys.argv[2], 1000, 60)
        try:
            {ATTEMPTS[what]}
        except PermissionError as error:
            assert "the file tried" in str(error), error
            open(sys.argv[2], "w").write("still allowed")
        """
    )
    target = tmp_path / "target"
    command = [sys.executable, "-I", "-c", program, str(kept), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "still allowed"
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "target"}


def test_memory_and_time_are_limited(tmp_path):
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(foreign._READER.parent)!r})
        import pickle_reader, resource
        pickle_reader.restrict("target", 1000, 7)
        print(*(resource.getrlimit(r)[0] for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU)))
        """
    )
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    memory, seconds = map(int, done.stdout.split())
    assert memory <= 16 * pickle_reader.GIB + 6000
    assert 7 < seconds < 7 + 10  # from then on, after what its start took


def test_a_reader_that_uses_up_its_time_is_ended(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(b"")
    reader = tmp_path / "reader.py"
    reader.write_text(
        f"import sys; sys.path.insert(0, {str(foreign._READER.parent)!r})\n"
        "import pickle_reader; pickle_reader.restrict(sys.argv[2], 0, int(sys.argv[3]))\n"
        "while True: pass\n"
    )
    monkeypatch.setattr(foreign, "_READER", reader)
    monkeypatch.setattr(foreign, "MIN_SECONDS", 0)
    with pytest.raises(UserError, match="more processor time than weights of its size need"):
        read_state_dict(tmp_path / "weights.pt")
