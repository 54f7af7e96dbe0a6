"""Shard specs: braces, globs, folders, and the errors for specs that name nothing."""

import pytest

from unclip_jax.data.shards import expand_braces, expand_shards
from unclip_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a{8..11}.tar", ["a8.tar", "a9.tar", "a10.tar", "a11.tar"]),
        ("a{008..011}", ["a008", "a009", "a010", "a011"]),
        ("{x,y}{0..1}", ["x0", "x1", "y0", "y1"]),
        ("{x,y{0..1}}.t", ["x.t", "y0.t", "y1.t"]),
        ("{a}", ["a"]),
    ],
)
def test_braces(text, expected):
    assert expand_braces(text) == expected


@pytest.fixture
def folder(tmp_path):
    for name in ["b.tar", "a.tar", "c.txt", "00.tar", "01.tar"]:
        (tmp_path / name).touch()
    return tmp_path


def names(paths):
    return [path.rsplit("/", 1)[1] for path in paths]


def test_specs(folder):
    assert names(expand_shards(str(folder))) == ["00.tar", "01.tar", "a.tar", "b.tar"]
    assert names(expand_shards(f"{folder}/[ab].tar")) == ["a.tar", "b.tar"]
    assert names(expand_shards(f"{folder}/b.tar::{folder}/{{00..01}}.tar")) == [
        "b.tar",
        "00.tar",
        "01.tar",
    ]
    assert names(expand_shards([f"file://{folder}/b.tar", f"{folder}/a.tar"])) == ["b.tar", "a.tar"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{0}/x.tar", "no such shard"),
        ("{0}/*.zip", "no file matches"),
        ("{0}/a.tar::{0}/*.tar", "more than once"),
        ("{0}/{{00..03}}.tar", "02.tar: no such shard"),
        ("{0}/{{1..0}}.tar", "backwards"),
        ("{0}/{{1..0.tar", "never closed"),
        ("pipe:cat {0}/a.tar", "pipes are not run"),
    ],
)
def test_errors(folder, spec, message):
    with pytest.raises(UserError, match=message):
        expand_shards(spec.format(folder))


def test_nothing(tmp_path):
    with pytest.raises(UserError, match="no shards"):
        expand_shards([])
    with pytest.raises(UserError, match=r"no \.tar files"):
        expand_shards(str(tmp_path))
