"""Our samplers against recorded runs of diffusers' schedulers, step by step, with their noise.

The record, and the runs it is of, come from tests/oracles/test_schedulers.py.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    GaussianProcess,
    StaticThresholding,
    make_denoiser,
    make_sampler,
    make_schedule,
    rescale_zero_terminal_snr,
    spaced_timesteps,
)
from unclip_jax.diffusion.samplers.base import State

VECTORS = np.load(pathlib.Path(__file__).parents[1] / "vectors" / "schedulers.npz")
CASES = json.loads(str(VECTORS["cases"]))


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_step(name):
    case = CASES[name]
    options = case.get("options", {})
    learned = options.get("variance") == "learned_range"

    def network(x, t, conditioning):
        pattern = jnp.arange(x.size, dtype=jnp.float32).reshape(x.shape)
        t = t[:, None]
        output = 0.6 * x + jnp.sin(t / 50 + pattern)
        return jnp.concatenate([output, jnp.cos(t / 70 + pattern)], -1) if learned else output

    schedule = make_schedule(case["schedule"])
    denoiser = make_denoiser(
        network,
        GaussianProcess(schedule),
        case["prediction"],
        learned_variance=learned,
        thresholding=StaticThresholding(case["clip"]) if "clip" in case else None,
    )
    sampler = make_sampler(case["sampler"], schedule, case["steps"], **options)
    expected, noise = VECTORS[f"{name}/states"], VECTORS[f"{name}/noise"]
    step = jax.jit(lambda state, row, noise: sampler.step(denoiser, state, row, noise))
    x = jnp.asarray(expected[0])
    state = State(x, (jnp.zeros_like(x),) * sampler.memory_size)
    for i in range(len(noise)):
        row = {column: values[i] for column, values in sampler.table.items()}
        state = step(state, row, noise[i] if sampler.stochastic else None)
        scale = np.abs(expected[i + 1]).max()
        np.testing.assert_allclose(
            state.x, expected[i + 1], rtol=0, atol=1e-5 * scale, err_msg=f"step {i}"
        )
    # PLMS lands on x_0 where diffusers extrapolates: that step is not recorded.
    assert len(sampler) - len(noise) == (name == "plms")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2"])
def test_betas(name):
    betas = make_schedule(name).betas
    np.testing.assert_allclose(betas, VECTORS[f"betas/{name}"], rtol=1e-5, atol=1e-7)


def test_zero_terminal_snr():
    schedule = rescale_zero_terminal_snr(make_schedule("scaled_linear"))
    expected = VECTORS["zero_terminal_snr/alpha_bars"]
    np.testing.assert_allclose(schedule.alpha_bars, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("count", [2, 7, 15, 25, 27, 50, 64, 250])
def test_spacing(count):
    np.testing.assert_array_equal(spaced_timesteps(1000, count), VECTORS[f"timesteps/{count}"])
