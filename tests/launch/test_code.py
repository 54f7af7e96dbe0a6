"""Pushed code: the same bytes for the same content; what must not leave the machine is refused."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from unclip_jax.errors import UserError
from unclip_jax.launch import secrets
from unclip_jax.launch.code import LARGEST_FILE, lock_of, pack
from unclip_jax.launch.commands import AGENT, agent_app

# Put together here, so that this file may be pushed itself.
PRIVATE_KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----"
TOKEN = "ghp_" + 36 * "a"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("runs/\n")
    (folder / "a.py").write_text("print('a')\n")
    (folder / "b").mkdir()
    (folder / "b" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "b" / "run.sh").chmod(0o755)
    (folder / "runs").mkdir()
    (folder / "runs" / "ignored").write_text("x")
    return folder


def members(packed):
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return {member.name: member.mode for member in tar}


def test_what_git_would_know_is_packed_the_same_each_time(repository):
    code, packed = pack(repository)
    assert members(packed) == {".gitignore": 0o644, "a.py": 0o644, "b/run.sh": 0o755}
    for path in repository.rglob("*"):
        os.utime(path, (1, 1))
    assert pack(repository) == (code, packed)
    (repository / "a.py").write_text("print('b')\n")
    assert pack(repository)[0].sha256 != code.sha256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (".env", "A=1", "looks like a secret by its name"),
        ("host.pem", "", "looks like a secret by its name"),
        ("notes.txt", f"key\n{PRIVATE_KEY}\nabc", "a private key"),
        ("x.json", json.dumps({"t": TOKEN}), "a GitHub token"),
        ("weights.bin", "0" * (LARGEST_FILE + 1), "more than 10"),
    ],
)
def test_secrets_and_huge_files_are_refused_unless_git_ignores_them(
    repository, name, content, message
):
    (repository / name).write_text(content)
    with pytest.raises(UserError, match=message):
        pack(repository)
    (repository / ".gitignore").write_text(f"runs/\n{name}\n")
    pack(repository)


def test_links_out_of_the_folder_are_refused(repository, tmp_path):
    (tmp_path / "outside").write_text("x")
    (repository / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of"):
        pack(repository)


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(UserError, match="no git repository"):
        pack(tmp_path)


def test_the_lock_follows_what_pins_the_environment(repository):
    first = lock_of(repository, "python3")
    assert first != lock_of(repository, "python3.12")
    (repository / "a.py").write_text("other code")
    assert lock_of(repository, "python3") == first
    (repository / "constraints.txt").write_text("jax==1\n")
    assert lock_of(repository, "python3") != first


def test_the_pushed_agent_needs_nothing_but_python(tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_app())
    agent_app.cache_clear()
    assert agent_app() == path.read_bytes()  # hosts know it by its hash
    argv = [sys.executable, "-I", "-S", str(path), "status", str(tmp_path / "nothing")]
    ran = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(ran.stdout)["state"] == "absent"


def unpack(folder, packed):
    argv = [sys.executable, str(AGENT), "unpack", str(folder)]
    return subprocess.run(argv, input=packed, capture_output=True)


def test_unpacking_on_a_host(repository, tmp_path):
    _, packed = pack(repository)
    folder = tmp_path / "there" / "code"
    assert json.loads(unpack(folder, packed).stdout) == {"state": "unpacked"}
    assert (folder / "a.py").read_text() == "print('a')\n"
    assert os.access(folder / "b" / "run.sh", os.X_OK)
    assert json.loads(unpack(folder, packed).stdout) == {"state": "present"}


@pytest.mark.parametrize("kind", ["absolute", "parent", "link"])
def test_a_hostile_tar_is_refused(tmp_path, kind):
    info = tarfile.TarInfo({"absolute": "/tmp/x", "parent": "a/../../x", "link": "x"}[kind])
    if kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(info)
    ran = unpack(tmp_path / "code", buffer.getvalue())
    assert ran.returncode
    assert b"not a plain file below" in ran.stderr
    assert not (tmp_path / "code").exists()


def test_installing_runs_once_and_not_half(tmp_path):
    folder, count = tmp_path / "venv", tmp_path / "count"
    shell = f"mkdir -p {folder}; echo x >> {count}; test -e {tmp_path}/ready"
    job = json.dumps({"commands": [["sh", "-c", shell]]}).encode()
    argv = [sys.executable, str(AGENT), "install", str(folder)]
    states = []
    for ready in (False, True, True):
        if ready:
            (tmp_path / "ready").touch()
        ran = subprocess.run(argv, input=job, capture_output=True)
        states.append(json.loads(ran.stdout)["state"] if ran.returncode == 0 else "failed")
    assert states == ["failed", "installed", "present"]
    assert count.read_text() == "x\nx\n"


@pytest.mark.parametrize(
    "word", ["--api_key=abc", "WANDB_TOKEN=x", TOKEN, "s3://user:pass1@host/x"]
)
def test_secrets_in_commands_are_refused(word):
    with pytest.raises(UserError, match="--secret"):
        secrets.refuse_in_command(("python", "x.py", word))


def test_ordinary_commands_are_no_secrets():
    secrets.refuse_in_command(
        ("unclip", "train", "--config.data.train=gs://bucket/{000..123}.tar", "--config.seed=1")
    )
