"""Likelihood bound and moments of a stage whose network is the exact denoiser of its data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.core import rng
from unclip_jax.diffusion import Variance, respace, spaced_timesteps
from unclip_jax.diffusion.process import fixed_log_variance, posterior_table
from unclip_jax.errors import UserError
from unclip_jax.stages import measure
from unclip_jax.stages.schedule import training_schedule
from unclip_jax.stages.stage import Stage

CONFIG = load_config("prior:tiny", {"diffusion.num_steps": "50", "sampling.steps": "5"})


def unit_gaussian_stage():
    """x_0 ~ N(0, I), so E[x_0 | x_t] = sqrt(alpha_bar_t) x_t."""
    root = jnp.asarray(np.sqrt(training_schedule(CONFIG).alpha_bars), jnp.float32)

    def task(params, frozen, batch, keys):
        return lambda x_t, t: root[t][:, None] * x_t, batch["x0"]

    return Stage("prior", BatchNeeds(), lambda key: {}, lambda *_: None, task=task)


@pytest.fixture(scope="module")
def batch():
    keys = rng.example_keys(jax.random.key(0), "measure", 0, 4096)
    return {"x0": jax.random.normal(jax.random.key(1), (4096, 32))}, keys


@pytest.mark.parametrize("steps", [None, 10])
def test_the_bound_of_gaussian_data_is_its_entropy_but_for_the_last_step(batch, steps, claim):
    """Beta is the exact reverse variance of unit data; the last step's is another, s^2."""
    found = measure.bound(
        CONFIG, unit_gaussian_stage(), {}, {}, *batch, variance=Variance.FIXED_LARGE, steps=steps
    )
    schedule = respace(training_schedule(CONFIG), spaced_timesteps(50, steps or 50))
    s2 = np.exp(fixed_log_variance(posterior_table(schedule), Variance.FIXED_LARGE)[0])
    ratio = schedule.betas[0] / s2
    x0 = np.asarray(batch[0]["x0"], np.float64)
    nats = 0.5 * (x0**2 + np.log(2 * np.pi)).mean() + 0.5 * (ratio - 1 - np.log(ratio))
    error = abs(float(found.total.mean()) - nats / np.log(2))
    what = "variational bound of 4,096 examples (bits per dimension)"
    claim.within(what, "entropy of Gaussian data", error, bound=0.01)
    assert found.terms.shape == (steps or 50, 4096)


def test_moments_are_those_of_the_exact_denoiser(batch):
    found = measure.moments(CONFIG, unit_gaussian_stage(), {}, {}, *batch)
    visited = [0, 12, 24, 37, 49]
    wanted = 1 - training_schedule(CONFIG).alpha_bars[visited]
    assert found.shape == (5, 4096)
    # 131,072 values of variance 2 w^2: three standard errors are 1.2 %.
    np.testing.assert_allclose(found.mean(axis=1), wanted, rtol=0.012)


def test_a_stage_without_diffusion_has_nothing_to_measure(batch):
    clip = Stage("clip", BatchNeeds(), lambda key: {}, lambda *_: None)
    with pytest.raises(UserError, match="stage clip draws nothing"):
        measure.moments(CONFIG, clip, {}, {}, *batch)
