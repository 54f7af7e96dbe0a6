"""The comparison of samplers in docs/diffusion.md is what they do."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    GaussianProcess,
    initial_noise,
    make_denoiser,
    make_sampler,
    make_schedule,
    sample,
)

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "diffusion.md"
SCHEDULE = make_schedule("cosine")
MODES, STD = 16, 0.1
COLUMNS = ["ddim", "dpm++2m", "heun", "plms"]


def mixture(x_t, t, conditioning):
    """E[x_0 | x_t] of a mixture of Gaussians of equal weight and deviation."""
    means = np.random.default_rng(0).standard_normal((MODES, 8)).astype(np.float32)
    alpha = jnp.sqrt(jnp.asarray(SCHEDULE.alpha_bars, jnp.float32)[t])[:, None]
    variance = alpha**2 * STD**2 + 1 - alpha**2
    distance = jnp.square(x_t[:, None] - alpha[:, :, None] * means[None]).sum(-1)
    mean = jax.nn.softmax(-0.5 * distance / variance, axis=-1) @ means
    return mean + alpha * STD**2 / variance * (x_t - alpha * mean)


@pytest.fixture(scope="module")
def run():
    """(sampler) -> x_0 of 512 fixed x_T."""
    denoiser = make_denoiser(mixture, GaussianProcess(SCHEDULE), "x0")
    x_T = initial_noise(jax.random.split(jax.random.key(0), 512), (8,))
    draw = jax.jit(functools.partial(sample, denoiser=denoiser))
    return lambda sampler: draw(sampler, x_T=x_T, keys=jax.random.split(jax.random.key(0), 512))


@pytest.fixture(scope="module")
def exact(run):
    return run(make_sampler("heun", SCHEDULE, 1000))


@pytest.mark.parametrize("name", COLUMNS)
def test_table(run, exact, name):
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 3
    for calls, values in rows:
        steps = {"heun": (int(calls) + 1) // 2, "plms": int(calls) - 1}.get(name, int(calls))
        x_0 = run(make_sampler(name, SCHEDULE, steps))
        median = np.median(np.linalg.norm(x_0 - exact, axis=1))
        np.testing.assert_allclose(
            float(values.split(" | ")[COLUMNS.index(name)]), median, rtol=0.1
        )
