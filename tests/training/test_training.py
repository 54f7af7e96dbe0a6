"""The loop on real (tiny) shards: a stopped run goes on as if nothing had happened."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import Optim
from unclip_jax.core import images, rng
from unclip_jax.errors import UserError
from unclip_jax.stages.stage import Stage
from unclip_jax.training import ema
from unclip_jax.training.optimizer import decay_mask, learning_rate, make_optimizer
from unclip_jax.training.restore import load_ema_params
from unclip_jax.training.run import train
from unclip_jax.training.step import make_eval_step
from unclip_jax.training.weights import load_weights
from unclip_jax.training.writers import read_metrics


def toy_stage():
    """A stage is a value, so the loop can be tested on one that compiles in a moment.

    It predicts noise drawn from each example's key, from the noisy picture, by one large matrix:
    large enough that an fsdp axis splits it.
    """

    def init(key):
        return {"w": jax.random.normal(key, (768, 768)) / 768, "b": jnp.zeros(768)}

    def loss(params, frozen, batch, keys):
        x = images.to_float(batch["image_16"]).reshape(-1, 768)
        noise = rng.normal(keys, (768,))
        error = (x + noise) @ params["w"] + params["b"][None] - noise
        losses = jnp.mean(error**2, axis=1)
        return losses, {"bright": (losses, (x.mean(axis=1) > 0).astype(jnp.float32))}

    return Stage("toy", BatchNeeds(image_sizes=(16,)), init, loss)


def toy_config(shards: pathlib.Path, **overrides: str):
    """The config of any stage will do: its model is not looked at."""
    settings = {
        "data.train": str(shards / "train-*.tar"),
        "data.validation": "none",
        "train.duration": "6 steps",
        "train.batch_size": "8",
        "train.log_every": "1",
        "train.checkpoint_every": "2 steps",
        "ema.others": "(0.2,)",
        "ema.power": "(0.05, 0.1)",
    }
    return load_config("upsampler:tiny", {**settings, **overrides})


def run(config, workdir):
    stage = toy_stage()
    complete = train(config, stage, {}, workdir)
    abstract = jax.eval_shape(stage.init, jax.random.key(0))
    return complete, load_ema_params(workdir, abstract)


def average(config, workdir, weights):
    abstract = jax.eval_shape(toy_stage().init, jax.random.key(0))
    return load_weights(workdir, abstract, weights, config.ema)[0]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def uninterrupted(shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return workdir, *run(toy_config(shards), workdir)


def test_a_run_leaves_what_it_promises(uninterrupted):
    workdir, complete, (_, step) = uninterrupted
    assert complete
    assert step == 6
    records = read_metrics(workdir)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(r["loss"]) and r["host_memory_peak_gb"] > 0 for r in records)
    assert records[0]["startup/compile_seconds"] > 0
    assert all(r["examples_per_second"] > 0 for r in records[1:])  # the first step compiles
    assert all(0 <= r["data_wait_fraction"] <= 1 for r in records[1:])
    assert records[0]["data/bad_fraction"] == 0
    assert records[0]["data/decode_ms"] > 0
    assert json.loads((workdir / "config.json").read_text())["stage"] == "upsampler"
    facts = json.loads((workdir / "run.json").read_text())
    assert facts[0]["data"]["examples"] == 40
    for name, value in facts[0]["startup"].items():
        assert value == records[0][f"startup/{name}"]
    assert any((workdir / "tensorboard").iterdir())


@pytest.mark.parametrize("waiting", [("host", "device"), ("device", "host"), ("host", "host")])
def test_moments_may_move_to_the_host_and_back_when_a_run_goes_on(
    waiting, shards, tmp_path, uninterrupted
):
    _, _, (expected, _) = uninterrupted
    for where, steps in zip(waiting, ("3 steps", "6 steps"), strict=True):
        there = {"mesh.moments": where, "mesh.min_size": "700"}  # a row has 768
        _, (params, step) = run(toy_config(shards, **there, **{"train.duration": steps}), tmp_path)
    assert step == 6
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)
    jax.tree.map(close, params, expected)


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(shards, tmp_path, uninterrupted):
    workdir, _, (expected, _) = uninterrupted
    config = toy_config(shards)
    run(toy_config(shards, **{"train.duration": "3 steps"}), tmp_path)
    complete, (params, step) = run(config, tmp_path)
    assert (complete, step) == (True, 6)
    assert_equal(params, expected)
    for weights in ("ema:0.2", "sigma:0.1"):
        ours, theirs = (average(config, folder, weights) for folder in (tmp_path, workdir))
        assert_equal(ours, theirs)
        assert not np.array_equal(ours["w"], params["w"])
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    starts = json.loads((tmp_path / "run.json").read_text())
    assert [s["resumed_from_step"] for s in starts] == [None, 3]


def test_the_mesh_does_not_change_the_losses(shards, tmp_path, uninterrupted):
    workdir = uninterrupted[0]
    run(toy_config(shards, **{"mesh.data": "2", "mesh.fsdp": "4"}), tmp_path)
    ours, theirs = ([r["loss"] for r in read_metrics(folder)] for folder in (tmp_path, workdir))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_another_run_in_the_same_workdir_is_refused(shards, uninterrupted):
    other = toy_config(shards, **{"optim.learning_rate": "0.5"})
    with pytest.raises(UserError, match=r"holds a run with config\.optim\.learning_rate=0\.001"):
        run(other, uninterrupted[0])


def test_validation_is_exact_over_a_padded_last_batch(shards, tmp_path):
    """10 validation examples in batches of 8: the mean over 10, whatever the batch size."""
    losses = []
    for batch_size in ("8", "16"):
        config = toy_config(
            shards,
            **{
                "data.validation": str(shards / "val-*.tar"),
                "train.duration": "1 steps",
                "train.batch_size": batch_size,
                "train.preview.examples": "0",
                "optim.learning_rate": "1e-30",
            },
        )
        folder = tmp_path / batch_size
        run(config, folder)
        losses += [r["validation/loss"] for r in read_metrics(folder) if "validation/loss" in r]
    # Noise comes from (batch number, row), so only the first 8 rows share it; the two estimates
    # of the same mean differ, but a mean over padding would differ by a factor.
    assert len(losses) == 2
    assert 0.8 < losses[0] / losses[1] < 1.25


def test_a_stage_that_compares_examples_is_told_of_padding():
    def loss(params, frozen, batch, keys):
        return jnp.full(4, float("valid" in batch)), {}

    batch = {"x": jnp.zeros((4, 1)), "valid": jnp.array([True, True, True, False])}
    for whole_batch in (True, False):
        stage = Stage("toy", BatchNeeds(), lambda key: {}, loss, whole_batch=whole_batch)
        sums = make_eval_step(stage, seed=0)({}, {}, batch, np.int32(0))
        assert (float(sums["loss"]), float(sums["examples"])) == (3.0 * whole_batch, 3.0)


def test_ema_is_the_stated_recurrence():
    at = ema.decay_schedule(0.99)
    np.testing.assert_allclose([at(jnp.int32(n)) for n in (0, 8, 10_000)], [0.1, 0.5, 0.99], 1e-6)
    late = ema.decay_schedule(0.99, warmup=False, start=5)
    np.testing.assert_allclose([late(jnp.int32(n)) for n in (0, 4, 5)], [0, 0, 0.99], 1e-6)
    new = ema.update({"w": jnp.float32(2.0)}, {"w": jnp.float32(4.0)}, jnp.float32(0.75))
    assert float(new["w"]) == 2.5


def test_learning_rate_schedules():
    def at(schedule, *steps):
        return [float(schedule(s)) for s in steps]

    config = Optim(learning_rate=1.0, schedule="cosine")
    schedule = learning_rate(config, warmup_steps=4, total_steps=104)
    np.testing.assert_allclose(at(schedule, 0, 3, 4, 54, 104), [0.25, 1, 1, 0.5, 0], atol=1e-6)
    rsqrt = learning_rate(Optim(learning_rate=1.0, schedule="rsqrt"), warmup_steps=4, total_steps=9)
    np.testing.assert_allclose(at(rsqrt, 4, 16), [1.0, 0.5], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon"])
def test_every_optimiser_lowers_a_quadratic(name):
    config = Optim(name=name, learning_rate=0.05, warmup="1 steps")
    tx = make_optimizer(config, optax.constant_schedule(0.05))
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}

    def loss(p):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(p))

    state = tx.init(params)
    for _ in range(60):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert float(loss(params)) < 0.5 * 20


def test_weight_decay_leaves_biases_gains_and_vectors_alone():
    layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    stacked = {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((4, 2)), "scale": jnp.ones((4, 2))}
    mask = decay_mask({"layer": layer, "stacked": stacked, "logit_scale": jnp.ones(())})
    assert mask == {
        "layer": {"kernel": True, "bias": False},
        "stacked": {"kernel": True, "bias": False, "scale": False},
        "logit_scale": False,
    }
