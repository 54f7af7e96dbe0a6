"""From a config to data: mixtures whose weights change in mid-run, captions, the order's shape."""

import numpy as np
import pytest

from unclip_jax import data
from unclip_jax.config import from_mapping, load_config, to_mapping
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.errors import UserError
from unclip_jax.training.datasets import held_out_data, training_batches, training_data

NEEDS = BatchNeeds(image_sizes=(8,), context_length=12)
COLOURS = {"train-00000": 0, "train-00001": 1}


def config(**settings):
    named = {f"data.{name.replace('__', '.')}": str(value) for name, value in settings.items()}
    return load_config("clip:tiny", {"train.batch_size": "8", **named})


def mixed(shards, first, second):
    return config(
        train="none",
        mixture__large__shards=shards / "train-00000.tar",
        mixture__large__weight=first,
        mixture__small__shards=shards / "train-00001.tar",
        mixture__small__weight=second,
    )


def draw(config, steps, position=None):
    """Returns (share of rows that come from the larger set, position after them)."""
    mixture = training_data(config.data, NEEDS)
    order = data.plan.make_plan(mixture, 8, config.seed, position, None)[1]
    loader = training_batches(config, mixture, position, rows=None)
    first = (position.examples if position else 0) // 8
    drawn = np.concatenate([order.samples(lane, first, steps)[1] for lane in range(8)])
    for _ in range(steps):
        _, position = next(loader)
    loader.close()
    return float(np.mean(drawn < 24)), position


def test_weights_may_change_when_a_run_goes_on(shards):
    share, position = draw(mixed(shards, 0.8, 0.2), 100)
    assert abs(share - 0.8) < 0.01
    share, later = draw(mixed(shards, 0.1, 0.9), 100, position)
    assert abs(share - 0.1) < 0.01
    assert [segment.start for segment in later.mixing.segments] == [0, 100]
    assert later.fingerprint == position.fingerprint
    assert data.DataPosition.from_json(later.to_json()) == later


def test_a_mixture_survives_being_written_down(shards):
    first = mixed(shards, 0.8, 0.2)
    assert from_mapping(to_mapping(first)) == first
    assert first.data.mixture["large"].weight == 0.8


def test_settings_reach_the_data(shards):
    chosen = config(
        train=shards / "train-*.tar",
        validation=shards / "val-*.tar",
        where='["a >= 1"]',
        caption_fields="('json:captions', 'txt')",
        caption_choice="random",
        crop="random",
        min_crop=0.5,
        flip="true",
        max_aspect=3,
        lanes=4,
        chunk=8,
        window=16,
    )
    assert chosen.data.where == ("a >= 1",)
    with pytest.raises(UserError, match="no sample"):  # the shards of this test have no json
        training_data(chosen.data, NEEDS)
    held_out = held_out_data(chosen.data, NEEDS)
    assert not held_out.fields.is_random
    assert held_out.fields.caption_fields == ("json:captions", "txt")
    plain = config(**{"train": shards / "train-*.tar", "lanes": 4, "chunk": 8, "window": 16})
    loader = training_batches(plain, training_data(plain.data, NEEDS), None, rows=None)
    assert loader.position.layout == data.Layout(4, 8, 16)
    next(loader)
    figures = loader.metrics()
    assert figures["data/bad_fraction"] == 0
    assert figures["data/read_ms"] > 0
    assert figures["data/decode_ms"] > 0
    assert figures["data/megabytes_per_second"] > 0
    loader.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "none"}, "either train .* or mixture"),
        ({"mixture.a.shards": "x.tar"}, "either train .* or mixture"),
        ({"train": "none", "mixture.a.shard": "x.tar"}, r"mixture\.a\.shard: .*'shards'"),
        ({"lanes": "4"}, "lanes, chunk and window together"),
        ({"lanes": "4", "chunk": "0", "window": "0"}, "start at 1"),
        ({"lanes": "3", "chunk": "1", "window": "0"}, "not a multiple of config.data.lanes=3"),
        ({"train": "none", "mixture.a.shards": "x", "where": "a > 1"}, "mixture.NAME.where"),
    ],
)
def test_settings_that_contradict(settings, message):
    with pytest.raises(UserError, match=message):
        load_config("clip:tiny", {f"data.{name}": value for name, value in settings.items()})
