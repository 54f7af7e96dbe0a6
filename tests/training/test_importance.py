"""Loss-aware time sampling in the loop: remembered, saved, and without effect on validation."""

import jax
import jax.numpy as jnp
import numpy as np

from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.core import images, rng
from unclip_jax.stages.objective import diffusion_loss
from unclip_jax.stages.stage import Stage
from unclip_jax.training.restore import load_ema_params
from unclip_jax.training.run import train

SETTINGS = {
    "diffusion.time_sampler": "importance",
    "diffusion.num_steps": "8",
    "sampling.steps": "8",
    "data.validation": "none",
    "train.batch_size": "8",
    "train.checkpoint_every": "2 steps",
}


def make(shards, duration="6 steps"):
    settings = SETTINGS | {"data.train": str(shards / "train-*.tar"), "train.duration": duration}
    return load_config("upsampler:tiny", settings)


def toy_stage(config):
    """Denoising by one number for each timestep."""
    objective = diffusion_loss(config, num_levels=256)

    def loss(params, frozen, batch, keys):
        def network(x_t, t):
            return params["gain"][t][:, None, None, None] * x_t

        return objective(network, images.to_float(batch["image_16"]), keys, frozen, batch)

    needs = BatchNeeds(image_sizes=(16,))
    return Stage("toy", needs, lambda key: {"gain": jnp.zeros(8)}, loss, memory=objective.memory)


def run(config, workdir):
    stage = toy_stage(config)
    train(config, stage, {}, workdir)
    return load_ema_params(workdir, jax.eval_shape(stage.init, jax.random.key(0)))[0]


def test_a_resumed_run_remembers_its_losses(shards, tmp_path):
    whole = run(make(shards), tmp_path / "whole")
    run(make(shards, "3 steps"), tmp_path / "parts")
    parts = run(make(shards), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_the_memory_follows_the_uncorrected_losses(shards):
    config = make(shards)
    stage = toy_stage(config)
    batch = {"image_16": np.zeros((64, 16, 16, 3), np.uint8)}
    keys = rng.example_keys(jax.random.key(0), "train", 0, 64)
    memory = jnp.asarray([100.0, 1, 1, 1, 1, 1, 1, 1])
    losses, _ = stage.loss({"gain": jnp.zeros(8)}, {"memory": memory}, batch, keys)
    t, correction = diffusion_loss(config, 256).timesteps(keys, memory)
    assert np.mean(t == 0) > 0.4  # ten of seventeen parts of the weight
    updated = stage.memory.update(memory, losses, keys)
    at_zero = (losses / correction)[t == 0]
    count = int(np.sum(t == 0))
    wanted = 0.9**count * 100 + (1 - 0.9**count) * np.mean(at_zero**2)
    np.testing.assert_allclose(updated[0], wanted, rtol=1e-5)


def test_without_memory_timesteps_are_uniform(shards):
    keys = rng.example_keys(jax.random.key(0), "validate", 0, 4096)
    t, correction = diffusion_loss(make(shards), 256).timesteps(keys, None)
    assert np.all(correction == 1)
    counts = np.bincount(t, minlength=8)
    assert abs(counts - 512).max() < 85  # four standard deviations
