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


SCHEDULERS = {
    **dict.fromkeys([n for n in CASES if n.startswith("unclip")], "UnCLIPScheduler"),
    "ddpm_large": "DDPMScheduler",
    **dict.fromkeys(["ddim", "ddim_noisy"], "DDIMScheduler"),
    "ddim_inversion": "DDIMInverseScheduler",
    **dict.fromkeys(["dpm_solver", "dpm_solver_sde"], "DPMSolverMultistepScheduler"),
    "heun": "HeunDiscreteScheduler",
    "plms": "PNDMScheduler",
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_step(name, claim):
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
        what = f"every step of {case['sampler']} with injected noise"
        claim.near(what, f"diffusers {SCHEDULERS[name]}", state.x, expected[i + 1], bound=1e-5)
    # PLMS lands on x_0 where diffusers extrapolates: that step is not recorded.
    assert len(sampler) - len(noise) == (name == "plms")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2"])
def test_betas(name, claim):
    betas = make_schedule(name).betas
    wanted = VECTORS[f"betas/{name}"]
    np.testing.assert_allclose(betas, wanted, rtol=1e-5, atol=1e-7)
    claim.near(f"betas of {name}", "diffusers (in float32)", betas, wanted, bound=1e-6)


def test_zero_terminal_snr(claim):
    schedule = rescale_zero_terminal_snr(make_schedule("scaled_linear"))
    expected = VECTORS["zero_terminal_snr/alpha_bars"]
    what = "alpha_bars rescaled to zero terminal SNR"
    claim.near(what, "diffusers (in float32)", schedule.alpha_bars, expected, bound=2e-6)


@pytest.mark.parametrize("count", [2, 7, 15, 25, 27, 50, 64, 250])
def test_spacing(count, claim):
    wanted = VECTORS[f"timesteps/{count}"]
    what = "spacing of 2 to 250 steps"
    claim.equal(what, "diffusers UnCLIPScheduler", spaced_timesteps(1000, count), wanted)
