"""The data room's data sets, opened with what a stage needs and a config says."""

import dataclasses

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.config.data_settings import Data
from unclip_jax.config.needs import BatchNeeds


def training_data(config: Data, needs: BatchNeeds) -> data.Dataset | data.Mixture:
    """The data set, or the mixture of several, that a config trains on."""
    fields = _fields(config, needs)
    if config.train is not None:
        return _open(config.train, fields, config, config.where)
    parts = {
        name: _open(part.shards, fields, config, part.where)
        for name, part in config.mixture.items()
    }
    return data.Mixture(parts, {name: part.weight for name, part in config.mixture.items()})


def whole(dataset: data.Dataset | data.Mixture) -> data.Dataset:
    """All samples as one data set, whatever their weights."""
    return dataset.dataset if isinstance(dataset, data.Mixture) else dataset


def held_out_data(config: Data, needs: BatchNeeds) -> data.Dataset | None:
    """The validation set, if there is one: centre crops, first captions, windows that stay put."""
    if config.validation is None:
        return None
    fixed = dataclasses.replace(config, crop="center", flip=False, caption_choice="first")
    return _open(config.validation, _fields(fixed, needs), fixed, ())


def training_batches(
    config: RunConfig,
    dataset: data.Dataset | data.Mixture,
    position: data.DataPosition | None,
    rows: data.Rows | None,
    quarantine: str | None = None,
) -> data.TrainBatches:
    """The rows of each global batch, from a saved position on; the loop asks for `bad.too_many`."""
    own = config.data
    layout = None
    if own.lanes is not None and own.chunk is not None and own.window is not None:
        layout = data.Layout(own.lanes, own.chunk, own.window)
    return data.train_batches(
        dataset,
        config.train.batch_size,
        seed=config.seed,
        position=position,
        layout=layout,
        workers=own.workers,
        rows=rows,
        max_bad_fraction=own.max_bad_fraction,
        quarantine=quarantine,
        patient=True,
    )


def open_dataset(shards: str, needs: BatchNeeds, index_dir: str | None = None) -> data.Dataset:
    """The samples of the shards that the pattern names, as the stage needs them."""
    plain = Data(train=shards, index_dir=index_dir)
    return _open(shards, _fields(plain, needs), plain, ())


def _open(
    shards: str, fields: data.BatchFields, config: Data, where: tuple[str, ...]
) -> data.Dataset:
    return data.open_dataset(
        shards,
        fields,
        where=where,
        index_dir=config.index_dir,
        counts=config.counts,
        skip_missing=config.missing_shards == "skip",
    )


def _fields(config: Data, needs: BatchNeeds) -> data.BatchFields:
    return data.BatchFields(
        image_sizes=needs.image_sizes,
        window=needs.window,
        context_length=needs.context_length,
        embeddings=needs.embeddings,
        caption_fields=config.caption_fields,
        caption_choice=config.caption_choice,
        empty_caption=config.empty_caption,
        crop=config.crop,
        min_crop=config.min_crop,
        flip=config.flip,
        quality=config.quality,
        min_side=config.min_side,
        max_aspect=config.max_aspect,
    )
