"""The set of shapes: captions agree with the pixels, splits share no pair, samples are stable."""

import argparse
import re

import numpy as np
import pytest

from unclip_jax.cli import data_shapes
from unclip_jax.data import BatchFields, eval_batches, open_dataset
from unclip_jax.data.lint import lint_shards
from unclip_jax.data.shapes import BACKGROUND, COLOURS, NUMBERS, SHAPES, make_sample, pairs

SIDE = 64


def test_splits():
    train, unseen = pairs("train"), pairs("unseen")
    assert len(train) + len(unseen) == len(COLOURS) * len(SHAPES)
    assert not set(train) & set(unseen)
    assert len(unseen) == 4
    assert {c for c, _ in train} == set(COLOURS)
    assert {s for _, s in train} == set(SHAPES)


def painted(picture, colour):
    return np.abs(picture.astype(int) - COLOURS[colour]).max(axis=-1) < 8


@pytest.mark.parametrize("split", ["train", "unseen"])
def test_pictures_show_what_their_captions_say(split):
    kinds = set()
    for number in range(60):
        picture, caption, truth = make_sample(0, split, number, SIDE)
        kinds.add(truth["kind"])
        assert picture.shape == (SIDE, SIDE, 3)
        words = re.findall("|".join(COLOURS), caption)
        nouns = re.findall("|".join(SHAPES), caption)
        assert set(zip(words, nouns, strict=True)) <= set(pairs(split))
        covered = np.zeros((SIDE, SIDE), bool)
        for thing in truth["objects"]:
            x0, y0, x1, y1 = (round(v * SIDE) for v in thing["box"])
            covered[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = True
            inside = painted(picture, thing["colour"])[y0:y1, x0:x1]
            assert inside.mean() > 0.2
        assert (picture[~covered] == BACKGROUND).all()
        if truth["kind"] == "several":
            assert caption.split()[0] == NUMBERS[len(truth["objects"]) - 1]
        if truth["kind"] == "two":
            first, second = (thing["box"] for thing in truth["objects"])
            axis = 0 if "left of" in caption else 1
            assert first[axis + 2] <= second[axis]
            assert f"{truth['objects'][0]['colour']} " in caption.split(" of ")[0]
    assert kinds == {"one", "several", "two"}


def test_shapes_differ():
    """Filled part of the box: ring pi/4 (1 - 0.56²), star 5 R r sin(pi/5) for R = 0.5, r = 0.21."""
    expected = {"circle": 0.785, "square": 1.0, "triangle": 0.5, "ring": 0.539, "star": 0.309}
    seen = {}
    for number in range(300):
        picture, _, truth = make_sample(1, "train", number, 128)
        if truth["kind"] == "one":
            thing = truth["objects"][0]
            x0, y0, x1, y1 = (v * 128 for v in thing["box"])
            area = painted(picture, thing["colour"]).sum() / ((x1 - x0) * (y1 - y0))
            seen.setdefault(thing["shape"], []).append(area)
    for shape, areas in seen.items():
        assert abs(np.mean(areas) - expected[shape]) < 0.06
    assert set(seen) == set(SHAPES)


def test_samples_are_stable_and_differ():
    again = make_sample(0, "train", 7, SIDE)
    np.testing.assert_array_equal(make_sample(0, "train", 7, SIDE)[0], again[0])
    captions = {make_sample(seed, "train", i, 16)[1] for seed in (0, 1) for i in range(50)}
    assert len(captions) > 70  # 84 expected of 36 single, 108 counted and 2520 paired ones


def test_command(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    data_shapes.add_arguments(parser)
    args = parser.parse_args(["--out", str(tmp_path), "--count", "12", "--size", "32"])
    assert data_shapes.run(args) == 0
    assert lint_shards([str(tmp_path / "00000.tar")], content=True).ok
    dataset = open_dataset(str(tmp_path), BatchFields(image_sizes=(32,), context_length=24))
    batch = next(eval_batches(dataset, 12))
    assert batch["valid"].all()
    np.testing.assert_array_equal(batch["image_32"][5], make_sample(0, "train", 5, 32)[0])
