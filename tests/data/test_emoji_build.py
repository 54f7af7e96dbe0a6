"""The whole emoji set from tiny packages made here: bytes, splits, resuming, reuse, licences."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from unclip_jax.cli import data_emoji
from unclip_jax.data.emoji import STYLES, build, build_emoji_set
from unclip_jax.data.emoji.packages import NAMES
from unclip_jax.errors import UserError

CONCEPTS = 75
TWINS = (3, 4)  # drawn alike in the fluent flat style


def disc(number: int, radius: int) -> str:
    color = f"#{(number * 2654435761) % 2**24:06x}"
    return f'<circle cx="16" cy="16" r="{radius}" fill="{color}"/>'


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def iconify(icons: dict[str, str], codes: dict[str, str], **more) -> dict[str, bytes]:
    bodies = {name: {"body": body} for name, body in icons.items()}
    bodies["hidden-one"] = {"body": disc(0, 3), "hidden": True}
    table = {"prefix": "x", "icons": bodies, "width": 32, "height": 32, **more}
    return {"icons.json": json.dumps(table).encode(), "chars.json": json.dumps(codes).encode()}


def webp(number: int) -> bytes:
    pixels = np.full((40, 40, 4), 255, np.uint8)
    pixels[8:32, 8:32, :3] = (number, 255 - number, 7)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory):
    """Packages of every layout: 75 concepts, one with a skin tone, one without a code."""
    folder = tmp_path_factory.mktemp("packages")
    hexcodes = [f"{0x1F300 + number:X}" for number in range(CONCEPTS)]
    entries = [
        {"label": f"thing {number}", "hexcode": code, "tags": [f"tag{number}"]}
        for number, code in enumerate(hexcodes)
    ]
    entries[0]["skins"] = [{"label": "thing 0: dark skin tone", "hexcode": "1F300-1F3FF"}]
    slugs = {code.lower(): f"thing-{number}" for number, code in enumerate(hexcodes)}
    tones = {"1f300-1f3ff": "thing-0-dark"}
    flat = {f"thing-{n}": disc(TWINS[0] if n == TWINS[1] else n, 14) for n in range(CONCEPTS)}
    color = {f"thing-{n}": disc(n, 12) for n in range(CONCEPTS)}
    color |= {"thing-0-dark": disc(5, 11), "logo": disc(0, 4)}
    noto = {f"thing-{n}": disc(n, 10) for n in range(CONCEPTS)} | {"thing-0-dark": disc(0, 9)}
    openmoji = [
        {"hexcode": code, "annotation": f"thing {n}"} for n, code in enumerate(hexcodes[:20])
    ]
    openmoji.append({"hexcode": "E001", "annotation": "some logo"})
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{}</svg>'
    content = {
        NAMES: {"en/data.json": json.dumps(entries).encode(), "fr/data.json": b"unwanted"},
        STYLES["noto"].package: iconify(noto, slugs | tones),
        STYLES["fluent-flat"].package: iconify(flat | {"thing-0-dark": disc(7, 2)}, slugs | tones),
        STYLES["fluent-color"].package: iconify(color, {}),
        STYLES["fluent-3d"].package: {
            f"assets/{code.lower()}.webp": webp(n) for n, code in enumerate(hexcodes)
        },
        STYLES["openmoji"].package: {
            "data/openmoji.json": json.dumps(openmoji).encode(),
            **{
                f"color/svg/{entry['hexcode']}.svg": svg.format(disc(n, 8)).encode()
                for n, entry in enumerate(openmoji)
            },
        },
    }
    return {
        package: tarball(folder / f"{number}.tgz", members)
        for number, (package, members) in enumerate(content.items())
    }


@pytest.fixture
def offline(tarballs, monkeypatch):
    """Serves the tiny packages in place of downloads."""
    monkeypatch.setattr(build, "fetch", lambda package, cache: tarballs[package])
    monkeypatch.setattr(build, "PICTURES_PER_SHARD", 100)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(paths) -> list[dict]:
    """The samples of some shards, as webdataset groups them: by key up to the first dot."""
    grouped: dict[str, dict] = {}
    for path in paths:
        with tarfile.open(path) as archive:
            for info in archive:
                key, _, extension = info.name.partition(".")
                sample = grouped.setdefault(key, {"__key__": key})
                sample[extension] = archive.extractfile(info).read()
    return list(grouped.values())


@pytest.fixture(scope="module")
def built(tarballs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "fetch", lambda package, cache: tarballs[package])
        patch.setattr(build, "PICTURES_PER_SHARD", 100)
        return build_emoji_set(tmp_path_factory.mktemp("emoji") / "set", jobs=1)


def test_counts(built):
    # 4 styles of every concept; one of the twins, the code-less logo and the tones are left out.
    assert sum(built.splits.values()) == 4 * CONCEPTS - 1
    assert built.duplicates == 1
    assert built.unnamed == 1
    assert built.concepts == CONCEPTS
    assert built.captions == 4 * CONCEPTS - 1
    assert sum(built.styles.values()) == sum(built.splits.values())
    # thing, 0..74, style, noto, fluent, 3d, color, flat
    assert built.vocabulary == 1 + CONCEPTS + 1 + 5


# webdataset leaves the files open that it has read to the end.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(built):
    train = list(webdataset.WebDataset(built.paths("train"), shardshuffle=False))
    for theirs, ours in zip(train, samples(built.paths("train")), strict=True):
        assert {key: theirs[key] for key in ours} == ours


def test_samples(built):
    train = samples(built.paths("train"))
    assert len(train) == built.splits["train"] > 200
    assert len(built.paths("train")) == -(-len(train) // 100)
    assert len({sample["__key__"] for sample in train}) == len(train)
    for sample in train[:20]:
        fields = json.loads(sample["json"])
        assert sample["txt"].decode() == f"{fields['name']}, {fields['style']}"
        assert sample["__key__"] == f"{fields['set']}_{fields['code']}"
        assert fields["concept"] == fields["name"]
        assert fields["license"] in ("MIT", "Apache-2.0")
        assert fields["tags"] == ["tag" + fields["name"].split()[1]]
        assert Image.open(io.BytesIO(sample["png"])).size == (64, 64)


def test_pictures_belong_to_their_captions(built):
    for sample in samples(built.paths("val_style") + built.paths("val_concept")):
        fields = json.loads(sample["json"])
        number = int(fields["name"].split()[1])
        centre = np.asarray(Image.open(io.BytesIO(sample["png"])))[32, 32]
        flat = (number, 255 - number, 7)
        value = (number * 2654435761) % 2**24
        disc_color = (value >> 16, value >> 8 & 255, value & 255)
        expected = flat if fields["set"] == "fluent-3d" else disc_color
        assert np.abs(centre.astype(int) - expected).max() <= 1


def test_held_out_concepts_are_unseen_and_held_out_styles_are_of_known_concepts(built):
    concepts = {
        split: {json.loads(sample["json"])["concept"] for sample in samples(built.paths(split))}
        for split in ("train", "val_concept", "val_style")
    }
    assert all(concepts.values())
    assert not concepts["val_concept"] & (concepts["train"] | concepts["val_style"])
    assert concepts["val_style"] <= concepts["train"]


def test_tars_are_plain_ustar_without_dates(built):
    for path in built.paths("train"):
        raw = Path(path).read_bytes()
        assert raw[257:263] == b"ustar\0"
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        assert {(member.mtime, member.uid, member.type) for member in members} == {
            (0, 0, tarfile.REGTYPE)
        }
        assert not any(member.pax_headers for member in members)


def test_stats_are_the_value_that_was_returned(built):
    stats = json.loads((built.directory / "stats.json").read_text())
    assert stats["splits"] == built.splits
    assert stats["recipe"]["packages"][NAMES.spec] == NAMES.integrity
    digests = {shard["name"]: shard["sha256"] for shard in stats["shards"]}
    listed = subprocess.check_output(["sha256sum", *sorted(digests)], cwd=built.directory)
    assert dict(reversed(line.split()) for line in listed.decode().splitlines()) == digests


def test_documents_name_the_terms(built):
    files = content(built.directory)
    assert not [name for name in files if ".drawing" in name or "partial" in name]
    assert {"licenses/MIT.txt", "licenses/Apache-2.0.txt"} <= set(files)
    terms = files["LICENSES.md"].decode()
    for style in built.recipe.styles:
        assert f"| {style} | © {STYLES[style].credit} | [{STYLES[style].license}]" in terms
    assert f"{sum(built.splits.values()):,} captioned pictures" in files["README.md"].decode()
    sheet = Image.open(io.BytesIO(files["contact_sheet.png"]))
    assert sheet.width > 12 * 64


def test_same_arguments_give_the_same_bytes(built, offline, tmp_path):
    again = build_emoji_set(tmp_path / "again", jobs=2)
    assert content(again.directory) == content(built.directory)


def test_a_finished_set_is_reused_at_once(built, monkeypatch):
    def refuse(*args):
        raise AssertionError("nothing may be fetched or drawn")

    for name in ("fetch", "draw_all", "renderer_version"):
        monkeypatch.setattr(build, name, refuse)
    assert build_emoji_set(built.directory) == built


def test_a_missing_shard_is_made_again(built, offline, tmp_path):
    fresh = build_emoji_set(tmp_path / "set", jobs=1)
    before = content(fresh.directory)
    Path(fresh.paths("train")[0]).unlink()
    assert build_emoji_set(fresh.directory, jobs=1) == fresh
    assert content(fresh.directory) == before


def test_a_set_of_another_recipe_is_refused(built, offline, tmp_path):
    with pytest.raises(UserError, match=r"built with {'size': 64}, not {'size': 128}"):
        build_emoji_set(built.directory, size=128)
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="holds other files"):
        build_emoji_set(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"size": 32}, "64, 128 or 256"), ({"limit": 0}, "at least 1"), ({"jobs": 0}, "at least 1")],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        build_emoji_set(tmp_path / "x", **arguments)


def test_limit_tones_sizes_and_other_styles(offline, tmp_path):
    few = build_emoji_set(tmp_path / "few", styles=["noto", "openmoji"], limit=30, size=128, jobs=1)
    assert few.concepts == 30
    assert few.styles["noto"] == 30
    assert few.unnamed == 1  # openmoji's logo has a private code
    first = samples(few.paths("train"))[0]
    assert Image.open(io.BytesIO(first["jpg"])).size == (128, 128)
    assert "CC-BY-SA-4.0" in (few.directory / "LICENSES.md").read_text()
    toned = build_emoji_set(tmp_path / "toned", styles=["noto"], tones=True, jobs=1)
    assert toned.styles == {"noto": CONCEPTS + 1}
    assert toned.concepts == CONCEPTS


KILLED_BUILD = """
import json, os, signal, sys
from pathlib import Path
from unclip_jax.data.emoji import build
from unclip_jax.data.emoji.packages import Package
tarballs = {Package(*fields): Path(path) for fields, path in json.loads(sys.argv[2])}
build.fetch = lambda package, cache: tarballs[package]
build.PICTURES_PER_SHARD = 100
def report(stage, done, total):
    if stage == "draw" and done > 150:
        os.kill(os.getpid(), signal.SIGKILL)
build.build_emoji_set(sys.argv[1], jobs=1, progress=report)
"""


def test_a_killed_build_goes_on_where_it_was(built, offline, tarballs, tmp_path):
    out = tmp_path / "set"
    served = [[dataclasses.astuple(package), str(path)] for package, path in tarballs.items()]
    environment = os.environ | {"PYTHONPATH": str(Path(build.__file__).parents[3])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BUILD, str(out), json.dumps(served)], env=environment
    )
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match=r"built with {'limit': None}, not {'limit': 5}"):
        build_emoji_set(out, limit=5)
    said = []
    resumed = build_emoji_set(out, jobs=1, progress=lambda *report: said.append(report))
    assert ("draw", 160, 4 * CONCEPTS) in said  # the first report: 5 chunks of 32 were there
    assert said[[stage for stage, *_ in said].index("draw")][1] == 160
    assert content(resumed.directory) == content(built.directory)


def test_command(offline, tmp_path, capsys):
    parser = data_emoji.argparse.ArgumentParser()
    data_emoji.add_arguments(parser)
    out = str(tmp_path / "set")
    arguments = ["--out", out, "--limit", "9", "--jobs", "1", "--styles", "noto", "fluent-flat"]
    assert data_emoji.run(parser.parse_args(arguments)) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: ")
    assert "9 concepts, 2 styles, 64 px" in printed.out
    lines = printed.err.splitlines()
    assert lines[0].startswith("download: 3/3 packages")
    assert lines[1].startswith("draw: 18/18 pictures")
    assert lines[-1].startswith("write: 18/18 pictures")
