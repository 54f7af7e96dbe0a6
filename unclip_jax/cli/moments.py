"""Estimate what Analytic-DPM must know of a stage, and let the bundle sample with it.

Of each timestep that the stage visits, the mean squared epsilon that its network predicts: from it
follows the best variance of every step (Bao et al. 2022). The numbers are written into the bundle's
bundle.json, as the stage's sampling.moments, and its sampler becomes analytic_dpm. Use training
shards. The unCLIP paper samples its prior so, in 64 steps.

Example:
  unclip moments --bundle bundle --stage prior --shards 'data/train-*.tar' --steps 64
"""

import argparse
import dataclasses

import numpy as np

from unclip_jax.cli.measuring import add_measuring_arguments, measured, read_subject
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.errors import UserError
from unclip_jax.interop.sampling import set_sampling
from unclip_jax.stages.configured_sampler import check_sampling
from unclip_jax.stages.measure import moments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_measuring_arguments(parser)
    parser.add_argument("--steps", type=positive, metavar="N", help="(default: the stage's own)")


def run(args: argparse.Namespace) -> int:
    """Estimates, writes and prints; exit code 0."""
    subject = read_subject(args)
    chosen = subject.config.sampling
    if args.steps is not None:
        chosen = dataclasses.replace(chosen, steps=args.steps, spacing=None)
    chosen = dataclasses.replace(chosen, sampler="analytic_dpm", moments=())
    config = dataclasses.replace(subject.config, sampling=chosen)
    check_sampling(config)
    subject = dataclasses.replace(subject, config=config)
    each = np.concatenate(list(measured(subject, moments, args)), axis=-1).astype(np.float64)
    if not each.size:
        raise UserError("none of the examples can be read")
    found = tuple(float(m) for m in each.mean(axis=-1))
    set_sampling(args.bundle, args.stage, dataclasses.replace(chosen, moments=found))
    print(
        f"{args.stage}: moments of {len(found)} steps from {each.shape[-1]} examples, "
        f"{found[0]:.4f} at the cleanest to {found[-1]:.4f} at the noisiest\n"
        f"{args.bundle} now samples its {args.stage} with analytic_dpm"
    )
    return 0
