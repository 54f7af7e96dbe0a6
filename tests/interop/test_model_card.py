"""The model card says what the bundle says, and nothing that is not known."""

import pytest
import yaml

from unclip_jax.generation import compose
from unclip_jax.interop import Extras, write_bundle


def card(cascade, path, **extras):
    write_bundle(cascade, path, extras=Extras(**extras))
    _, front, text = (path / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def plain(cascade, tmp_path_factory):
    return card(cascade, tmp_path_factory.mktemp("card") / "emoji-unclip")


def test_the_front_matter_is_what_the_hub_reads(plain):
    front, _ = plain
    assert front == {
        "library_name": "unclip_jax",
        "pipeline_tag": "text-to-image",
        "tags": ["unclip_jax", "unclip", "jax", "diffusion"],
    }


def test_stages_sizes_and_data_are_stated(plain, cascade):
    _, text = plain
    assert text.lstrip().startswith("# emoji-unclip")
    for name, stage in cascade.named().items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {stage.parameter_count:,} | 1,234 | 16 | float32 |" in row
    assert "8 px pictures; ddim, 20 steps, guidance scale 2" in text
    assert "16 px from 8 px pictures" in text
    assert "7,000 captioned pictures, fingerprint `" + "f" * 64 in text
    assert 'unclip_jax.load("emoji-unclip")' in text


def test_what_was_not_given_is_not_there(plain):
    front, text = plain
    assert "license" not in front
    assert "terms" not in text
    assert "## Samples" not in text


def test_licences_and_samples_are_shown(cascade, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("grid.png", "000_a_seed0_0.png"):
        (pictures / name).write_bytes(b"\x89PNG")
    (pictures / "samples.json").write_text("{}")
    front, text = card(
        cascade, tmp_path / "b", license="apache-2.0", data_licenses="MIT, ©", samples=pictures
    )
    assert front["license"] == "apache-2.0"
    assert "![grid.png](samples/grid.png)" in text
    assert "DATA_LICENSES.md" in text
    assert (tmp_path / "b" / "DATA_LICENSES.md").read_text() == "MIT, ©"
    copied = {p.name for p in (tmp_path / "b" / "samples").iterdir()}
    assert copied == {"grid.png", "000_a_seed0_0.png"}


def test_a_bundle_that_draws_nothing_does_not_say_it_does(cascade, tmp_path):
    front, text = card(compose([cascade.clip]), tmp_path / "b")
    assert "pipeline_tag" not in front
    assert "unclip sample" not in text
    assert "embeddings of 16 numbers" in text
