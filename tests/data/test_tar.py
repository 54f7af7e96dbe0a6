"""The tar reader against Python's tarfile, on every dialect that shards come in."""

import io
import os
import tarfile

import pytest
import webdataset

from unclip_jax.data.tar import TarError, TarScanner, parse_members

LONG = "deep/" * 40 + "name"


def scan(path):
    with open(path, "rb") as file:
        scanner = TarScanner(file, os.path.getsize(path))
        return list(scanner), scanner


def assert_same_as_tarfile(path):
    members, scanner = scan(path)
    assert scanner.problem is None
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        theirs = [(m.name, archive.extractfile(m).read()) for m in archive if m.isreg()]
    assert [(m.name, content[m.data : m.data + m.size]) for m in members] == theirs
    for first, following in zip(members, [*members[1:], None], strict=True):
        end = following.start if following else scanner.end
        piece = [(n, bytes(c)) for n, c in parse_members(memoryview(content)[first.start : end])]
        assert piece == [(first.name, content[first.data : first.data + first.size])]


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_dialects(tmp_path, tools, dialect):
    names = ["a.txt", "dir.x/b.jpg", "é€.txt", "x" * 100, f"{'p' * 120}/{'n' * 90}.txt"]
    if dialect != tarfile.USTAR_FORMAT:
        names += [LONG + str(i) + ".txt" for i in range(3)]
    path = tmp_path / "a.tar"
    members = [(name, bytes([i]) * (i * 300)) for i, name in enumerate(names)]
    tools.write_tar(path, members, format=dialect)
    assert_same_as_tarfile(path)


def test_things_between(tmp_path):
    """Folders, links and an archive-wide PAX header are passed over."""
    path = tmp_path / "a.tar"
    with tarfile.open(
        path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "é"}
    ) as archive:
        for name, kind, link in [("d", tarfile.DIRTYPE, ""), ("l", tarfile.SYMTYPE, LONG)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
        info = tarfile.TarInfo("d/a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    members, scanner = scan(path)
    assert [m.name for m in members] == ["d/a.txt"]
    assert scanner.problem is None


def test_gnu_long_link(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 300
        archive.addfile(link)
        info = tarfile.TarInfo("a.txt")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"a"))
    assert [m.name for m in scan(path)[0]] == ["a.txt"]


def test_webdataset_writer(tmp_path):
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(5):
            writer.write({"__key__": f"{i:09d}", "txt": f"caption {i}", "json": {"i": i}})
    assert_same_as_tarfile(path)


@pytest.mark.parametrize("dialect", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sizes_above_8_gib(tmp_path, dialect):
    """GNU tar writes these in base 256, PAX in an extra header: here a sparse file of 8 GiB + 5."""
    path = tmp_path / "a.tar"
    size = (8 << 30) + 5
    info = tarfile.TarInfo("big.bin")
    info.size = size
    after = tarfile.TarInfo("b.txt")
    after.size = 1
    with path.open("wb") as file:
        header = info.tobuf(dialect)
        file.write(header)
        file.seek(len(header) + -(-size // 512) * 512)
        file.write(after.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0") + bytes(1024))
    members, scanner = scan(path)
    assert [(m.name, m.size) for m in members] == [("big.bin", size), ("b.txt", 1)]
    assert scanner.problem is None


@pytest.mark.parametrize("cut", [100, 700, 1024, 1030, 1535, 1540])
def test_truncated(tmp_path, tools, cut):
    path = tmp_path / "a.tar"
    tools.write_tar(path, [("a.txt", b"a" * 500), ("b.txt", b"b" * 300)])
    path.write_bytes(path.read_bytes()[:cut])
    members, scanner = scan(path)
    assert [m.name for m in members] == (["a.txt"] if cut >= 1024 else [])
    assert (scanner.problem is None) == (cut == 1024)
    assert scanner.end == (1024 if cut >= 1024 else 0)


def test_damaged_header(tmp_path, tools):
    path = tmp_path / "a.tar"
    tools.write_tar(path, [("a.txt", b"a"), ("b.txt", b"b")])
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)
    members, scanner = scan(path)
    assert [m.name for m in members] == ["a.txt"]
    assert "checksum" in scanner.problem


def test_piece_that_ends_inside_a_member(tmp_path, tools):
    path = tmp_path / "a.tar"
    tools.write_tar(path, [("a.txt", b"a" * 500)])
    with pytest.raises(TarError, match=r"cut inside 'a.txt'"):
        list(parse_members(memoryview(path.read_bytes())[:600]))
