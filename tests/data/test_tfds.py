"""Prepared tensorflow-datasets sets: written and read here without TensorFlow."""

import pickle
import sys

import numpy as np
import pytest

from unclip_jax.data import BatchFields, eval_batches, open_dataset, train_batches
from unclip_jax.data.convert import convert
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

tfds = pytest.importorskip("tensorflow_datasets", reason="pip install 'unclip_jax[tfds]'")
FIELDS = BatchFields(image_sizes=(8,), context_length=12)
COUNT = 7


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A set in the shape of COCO's: pictures, a list of captions each, a number, an id."""
    from PIL import Image

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
            "score": np.float32,
            "name": tfds.features.Text(),
        }
    )

    class Toy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "toy_captions"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            folder = tmp_path_factory.mktemp("pictures")
            for i in range(COUNT):
                path = folder / f"{i}.jpg"
                Image.new("RGB", (20, 30), (i * 30, 100, 50)).save(path)
                texts = [f"picture {i}", f"another of {i}"][: 1 + i % 2]
                captions = [{"text": text, "id": 10 * i} for text in texts]
                yield i, {"image": str(path), "captions": captions, "score": i, "name": f"n{i}"}

    builder = Toy(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    assert "tensorflow" not in sys.modules
    return str(builder.data_path)


def source(prepared):
    return f"tfds:{prepared}:train?caption=captions/text"


def test_examples_are_samples(prepared):
    dataset = open_dataset(source(prepared), FIELDS)
    assert len(dataset) == COUNT
    batch = next(eval_batches(dataset, COUNT))
    assert batch["valid"].all()
    numbers = np.round((batch["image_8"][:, 4, 4, 0]) / 30).astype(int)
    assert sorted(numbers) == list(range(COUNT))
    np.testing.assert_array_equal(batch["tokens"], tokenize([f"picture {i}" for i in numbers], 12))
    assert "tensorflow" not in sys.modules


def test_one_of_several_captions_is_drawn(prepared):
    fields = BatchFields(
        context_length=12, caption_fields=("json:caption",), caption_choice="random"
    )
    dataset = open_dataset(source(prepared), fields)
    loader = train_batches(dataset, COUNT, seed=0)
    rows = np.concatenate([next(loader)[0]["tokens"] for _ in range(12)])
    loader.close()
    texts = [f"picture {i}" for i in range(COUNT)] + [f"another of {i}" for i in (1, 3, 5)]
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in tokenize(texts, 12)}


def test_numbers_filter_and_workers_read_too(prepared):
    where = ["score >= 3"]
    dataset = open_dataset(source(prepared), FIELDS, where=where)
    assert len(dataset) == COUNT - 3
    again = pickle.loads(pickle.dumps(dataset))
    assert again.fingerprint == dataset.fingerprint
    for sample in range(len(dataset)):
        assert again.read(sample)[1]["json"] == dataset.read(sample)[1]["json"]


def test_converted_to_shards(prepared, tmp_path):
    convert(source(prepared), tmp_path / "out", samples_per_shard=4)
    shards = open_dataset(str(tmp_path / "out"), FIELDS)
    one, other = (
        next(eval_batches(dataset, COUNT))
        for dataset in (shards, open_dataset(source(prepared), FIELDS))
    )
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name: name.partition("?")[0],
            r"which feature is the caption\? captions/text, name are there",
        ),
        (lambda name: name.replace(":train", ":trian"), "no split 'trian'.*'train'"),
        (
            lambda name: name.replace("captions/text", "captions/txt"),
            "did you mean 'captions/text'",
        ),
        (lambda name: name.replace("caption=", "label="), "'label' is not one of image, caption"),
        (lambda name: name.replace("toy_captions", "toy"), r"dataset_info\.json is missing"),
    ],
)
def test_mistakes(prepared, change, message):
    with pytest.raises(UserError, match=message):
        open_dataset(change(source(prepared)), FIELDS)
