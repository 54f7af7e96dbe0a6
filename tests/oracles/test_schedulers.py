"""Records diffusers' schedulers, step by step, with injected noise; checks the record.

Each case is a run of one scheduler on a made-up network (any smooth function of x and t, since only
the scheduler's arithmetic is in question). tests/diffusion/test_scheduler_vectors.py repeats the
runs with our samplers and compares every step. `UNCLIP_RECORD=1` rewrites the vectors.

The schedulers compute alpha_bars in float32; here their float32 betas are cumulated in float64, so
that a comparison to 1e-5 does not measure that.
"""

import json
import os
import pathlib
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore")
VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "schedulers.npz"
BATCH, CHANNELS = 2, 3

# What our side needs to repeat a run: sampler, its options, spacing, schedule, prediction, clip.
UNCLIP = {"sampler": "ddpm", "schedule": "squaredcos_cap_v2"}
CASES = {
    "unclip_prior": {**UNCLIP, "steps": 25, "prediction": "x0", "clip": 5.0},
    "unclip_decoder": {
        **UNCLIP,
        "steps": 25,
        "prediction": "epsilon",
        "clip": 1.0,
        "options": {"variance": "learned_range"},
    },
    "unclip_upsampler": {**UNCLIP, "steps": 7, "prediction": "epsilon", "clip": 1.0},
    "unclip_two_steps": {**UNCLIP, "steps": 2, "prediction": "epsilon", "clip": 1.0},
    "ddpm_large": {
        "sampler": "ddpm",
        "schedule": "scaled_linear",
        "steps": 12,
        "prediction": "v",
        "options": {"variance": "fixed_large"},
    },
    "ddim": {
        "sampler": "ddim",
        "schedule": "linear",
        "steps": "ddim10",
        "prediction": "epsilon",
        "clip": 1.0,
    },
    "ddim_noisy": {
        "sampler": "ddim",
        "schedule": "squaredcos_cap_v2",
        "steps": "ddim10",
        "prediction": "v",
        "options": {"eta": 0.7},
    },
    "ddim_inversion": {
        "sampler": "ddim_inversion",
        "schedule": "linear",
        "steps": "ddim10",
        "prediction": "epsilon",
    },
    "dpm_solver": {
        "sampler": "dpm++2m",
        "schedule": "squaredcos_cap_v2",
        "steps": 12,
        "prediction": "x0",
        "options": {"max_weight": float("inf")},
    },
    "dpm_solver_sde": {
        "sampler": "dpm++2m_sde",
        "schedule": "scaled_linear",
        "steps": 12,
        "prediction": "epsilon",
        "options": {"max_weight": float("inf")},
    },
    "heun": {
        "sampler": "heun",
        "schedule": "linear",
        "steps": 8,
        "prediction": "epsilon",
        "options": {"coordinate": "sigma"},
    },
    "plms": {
        "sampler": "plms",
        "schedule": "scaled_linear",
        "steps": "ddim10",
        "prediction": "epsilon",
        "options": {"coordinate": "sigma"},
    },
}
BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "squaredcos_cap_v2": (0, 0)}
PREDICTIONS = {"x0": "sample", "epsilon": "epsilon", "v": "v_prediction"}


def network(x, t, learned):
    """Repeated in the replaying test."""
    pattern = torch.arange(x.numel(), dtype=torch.float64).reshape(x.shape)
    output = 0.6 * x + torch.sin(t / 50 + pattern)
    return torch.cat([output, torch.cos(t / 70 + pattern)], dim=1) if learned else output


def make(scheduler_class, case, **options):
    start, end = BETAS[case["schedule"]]
    # Each scheduler warns of options that it has not.
    known = scheduler_class.__init__.__wrapped__.__code__.co_varnames
    common = {
        "beta_start": start,
        "beta_end": end,
        "beta_schedule": case["schedule"],
        "prediction_type": PREDICTIONS[case["prediction"]],
        "clip_sample": "clip" in case,
        "clip_sample_range": case.get("clip", 1.0),
        **options,
    }
    scheduler = scheduler_class(**{k: v for k, v in common.items() if k in known})
    scheduler.betas = scheduler.betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    return scheduler


def run(name, case):
    """x before the first step and after each, and the noise of each step."""
    rng = np.random.default_rng(sum(map(ord, name)))
    noise = torch.from_numpy(rng.standard_normal((30, BATCH, CHANNELS)))
    x = torch.from_numpy(rng.standard_normal((BATCH, CHANNELS)))
    states = list(RUNS[name](case, x, noise))
    return {
        "states": np.stack([x, *states]).astype(np.float32),
        "noise": noise[: len(states)].numpy().astype(np.float32),
    }


def unclip(case, x, noise):
    variance = case.get("options", {}).get("variance", "fixed_small_log")
    scheduler = make(diffusers.UnCLIPScheduler, case, variance_type=variance)
    scheduler.set_timesteps(case["steps"])
    for i, t in enumerate(scheduler.timesteps):
        following = scheduler.timesteps[i + 1].item() if i + 1 < len(scheduler.timesteps) else None
        output = network(x, t, variance == "learned_range")
        module = "diffusers.schedulers.scheduling_unclip.randn_tensor"
        # The scheduler asks for noise of the output's shape, before or after it is split.
        with mock.patch(module, lambda shape, i=i, **_: noise[i]):
            x = scheduler.step(output, t.item(), x, prev_timestep=following).prev_sample
        yield x


def ddpm(case, x, noise):
    scheduler = make(diffusers.DDPMScheduler, case, variance_type="fixed_large")
    scheduler.set_timesteps(timesteps=_evenly(case["steps"]))
    for i, t in enumerate(scheduler.timesteps):
        module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
        with mock.patch(module, lambda *_, i=i, **__: noise[i]):
            x = scheduler.step(network(x, t, False), t, x).prev_sample
        yield x


def ddim(case, x, noise):
    eta = case.get("options", {}).get("eta", 0.0)
    scheduler = make(diffusers.DDIMScheduler, case, set_alpha_to_one=True)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(10)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(
            network(x, t, False),
            t,
            x,
            eta=eta,
            use_clipped_model_output="clip" in case,
            variance_noise=noise[i] if eta else None,
        ).prev_sample
        yield x


def ddim_inversion(case, x, noise):
    scheduler = make(diffusers.DDIMInverseScheduler, case, set_alpha_to_one=True)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t, False), t, x).prev_sample
        yield x


def dpm_solver(case, x, noise):
    sde = case["sampler"].endswith("sde")
    scheduler = make(
        diffusers.DPMSolverMultistepScheduler,
        case,
        algorithm_type="sde-dpmsolver++" if sde else "dpmsolver++",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=_evenly(case["steps"]))
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(
            network(x, t, False), t, x, variance_noise=noise[i] if sde else None
        ).prev_sample
        yield x


def heun(case, x, noise):
    scheduler = make(diffusers.HeunDiscreteScheduler, case)
    scheduler.set_timesteps(timesteps=_evenly(case["steps"]))
    sigmas = scheduler.sigmas.double()
    # It walks x / alpha.
    y = x * torch.sqrt(1 + sigmas[0] ** 2)
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(network(scheduler.scale_model_input(y, t), t, False), t, y).prev_sample
        yield y / torch.sqrt(1 + sigmas[i + 1] ** 2)


def plms(case, x, noise):
    scheduler = make(diffusers.PNDMScheduler, case, skip_prk_steps=True, set_alpha_to_one=True)
    scheduler.set_timesteps(10)
    # The last step is left out: there it extrapolates, where ours returns x_0.
    for t in scheduler.timesteps[:-1]:
        x = scheduler.step(network(x, t, False), t, x).prev_sample
        yield x


def _evenly(count):
    """Improved DDPM's spacing, noisiest first."""
    return [round(i * 999 / (count - 1)) for i in reversed(range(count))]


RUNS = {
    "unclip_prior": unclip,
    "unclip_decoder": unclip,
    "unclip_upsampler": unclip,
    "unclip_two_steps": unclip,
    "ddpm_large": ddpm,
    "ddim": ddim,
    "ddim_noisy": ddim,
    "ddim_inversion": ddim_inversion,
    "dpm_solver": dpm_solver,
    "dpm_solver_sde": dpm_solver,
    "heun": heun,
    "plms": plms,
}


def record():
    arrays = {"cases": np.array(json.dumps(CASES))}
    for name, case in CASES.items():
        for field, value in run(name, case).items():
            arrays[f"{name}/{field}"] = value
    for name in (*BETAS, "sigmoid"):
        start, end = BETAS.get(name, (1e-4, 0.02))
        scheduler = diffusers.DDPMScheduler(beta_schedule=name, beta_start=start, beta_end=end)
        arrays[f"betas/{name}"] = scheduler.betas.numpy()
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
    )
    arrays["zero_terminal_snr/alpha_bars"] = scheduler.alphas_cumprod.numpy()
    scheduler = diffusers.UnCLIPScheduler()
    for count in (2, 7, 15, 25, 27, 50, 64, 250):
        scheduler.set_timesteps(count)
        arrays[f"timesteps/{count}"] = scheduler.timesteps.numpy()[::-1].astype(np.int32)
    return arrays


def test_the_record_is_what_diffusers_computes():
    arrays = record()
    if os.environ.get("UNCLIP_RECORD"):
        np.savez_compressed(VECTORS, **arrays)
    recorded = np.load(VECTORS)
    assert set(recorded) == set(arrays)
    for name, value in arrays.items():
        if name == "cases":
            assert json.loads(str(recorded[name])) == json.loads(str(value))
        else:
            np.testing.assert_allclose(value, recorded[name], rtol=1e-6, atol=1e-6, err_msg=name)
