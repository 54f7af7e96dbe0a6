"""Going through a data set with a trained diffusion stage; shared by commands that measure one."""

import argparse
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from unclip_jax import data, stages
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.config import RunConfig
from unclip_jax.config.schema import ClipModel
from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.core import rng
from unclip_jax.interop import read_bundle
from unclip_jax.parallel import ShardingRules, batch_sharding, make_mesh, replicated
from unclip_jax.progress import progress
from unclip_jax.stages import Stage, logical_axes
from unclip_jax.training.datasets import held_out_data

Measure = Callable[..., Any]
"""(config, stage, params, frozen, batch, keys) -> arrays whose last axis is the batch."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A stage of a bundle, with what it needs to run."""

    config: RunConfig
    stage: Stage
    params: Any
    frozen: Any


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `read_subject` and `measured`."""
    add = parser.add_argument
    add("--bundle", required=True, type=pathlib.Path, metavar="DIR", help="see `unclip export`")
    add("--stage", required=True, metavar="NAME", help="prior, decoder, upsampler …")
    add("--shards", required=True, metavar="PATTERN", help="captioned pictures to measure on")
    add("--examples", type=positive, default=1024, metavar="N", help="(default: 1024)")
    add("--batch-size", type=positive, default=64, metavar="B", help="(default: 64)")
    add("--seed", type=int, default=0, help="of the noise (default: 0)")


def read_subject(args: argparse.Namespace) -> Subject:
    """The stage that the arguments name, reading pictures from their shards."""
    kind = args.stage.partition("_")[0]
    names = ["clip", args.stage] if kind in ("prior", "decoder") else [args.stage]
    found = read_bundle(args.bundle, names).cascade.named()
    trained = found[args.stage]
    fields = dataclasses.replace(
        trained.config.data,
        validation=args.shards,
        embeddings="computed",
        text_features="computed",
    )
    config = dataclasses.replace(trained.config, data=fields)
    model, frozen = None, {}
    if "clip" in found and args.stage != "clip":
        model, frozen = found["clip"].model, {"clip": found["clip"].params}
        assert isinstance(model, ClipModel)
    if trained.statistics is not None:
        frozen["statistics"] = dict(trained.statistics)
    return Subject(config, stages.build(config, model), trained.params, frozen)


def measured(subject: Subject, measure: Measure, args: argparse.Namespace) -> Iterator[Any]:
    """What `measure` gives, numpy arrays, for each batch of readable examples.

    The noise of example i is a function of the seed and i: the batch size changes nothing.
    """
    config, stage = subject.config, subject.stage
    dataset = held_out_data(config.data, stage.needs.whole())
    assert dataset is not None
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    size = -(-min(args.batch_size, args.examples) // mesh.size) * mesh.size
    params = jax.device_put(
        subject.params, ShardingRules(mesh, logical_axes).shardings(subject.params)
    )
    frozen = jax.device_put(subject.frozen, replicated(mesh))
    run = jax.jit(lambda *arrays: measure(config, stage, *arrays))
    total = min(args.examples, len(dataset))
    batches = itertools.islice(data.eval_batches(dataset, size), -(-total // size))
    with progress(args.stage, total, "examples") as advance:
        for number, batch in enumerate(batches):
            rows = number * size + np.arange(size, dtype=np.int32)
            valid = batch.pop("valid") & (rows < total)
            keys = rng.example_keys(jax.random.key(args.seed), "measure", 0, rows)
            on_devices = jax.device_put((batch, keys), batch_sharding(mesh))
            result = jax.device_get(run(params, frozen, *on_devices))
            yield jax.tree.map(lambda x, keep=valid: np.asarray(x)[..., keep], result)
            advance(min(size, total - number * size))
