"""The report as Markdown and JSON."""

import json

import pytest

from unclip_jax.evaluation import Measurement, Report

RECALL = Measurement("caption_recall@1", 0.51234, 0.48, 0.5456, 0.00417, 0.9, "higher", 240)
DISTANCE = Measurement("fd_clip", 1234.5, None, None, None, float("nan"), "lower", 1200)
REPORT = Report("Decoder", {"val": (RECALL, DISTANCE), "train": (RECALL,)}, ("read with care",))


def test_markdown():
    assert REPORT.to_markdown() == (
        "# Decoder\n"
        "\n"
        "## val\n"
        "\n"
        "| metric | better | value | 95 % | floor | ceiling | n |\n"
        "|---|---|---:|---:|---:|---:|---:|\n"
        "| caption_recall@1 | higher | **0.512** | 0.480 – 0.546 | 0.00417 | 0.900 | 240 |\n"
        "| fd_clip | lower | **1,234** |  | – | nan | 1,200 |\n"
        "\n"
        "## train\n"
        "\n"
        "| metric | better | value | 95 % | floor | ceiling | n |\n"
        "|---|---|---:|---:|---:|---:|---:|\n"
        "| caption_recall@1 | higher | **0.512** | 0.480 – 0.546 | 0.00417 | 0.900 | 240 |\n"
        "\n"
        "* read with care\n"
    )


def test_json_is_strict_and_whole(tmp_path):
    REPORT.write(tmp_path / "new" / "folder")
    text = (tmp_path / "new" / "folder" / "report.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    value = json.loads(text, parse_constant=refuse)
    assert value["splits"]["val"]["caption_recall@1"]["value"] == 0.51234
    assert value["splits"]["val"]["fd_clip"]["ceiling"] is None
    assert value["notes"] == ["read with care"]
    assert (tmp_path / "new" / "folder" / "report.md").read_text() == REPORT.to_markdown()


def test_lookup():
    assert REPORT["val", "fd_clip"] is DISTANCE
    with pytest.raises(KeyError, match="fd_clip"):
        REPORT["train", "fd_clip"]
