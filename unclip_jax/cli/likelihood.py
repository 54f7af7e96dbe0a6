"""Bound the negative log-likelihood of held-out data under a stage, in bits per dimension.

The variational bound of Ho et al. 2020, every step of the chain evaluated once per example. Lower
is better; runs are comparable if data, stage and --steps are the same. Pictures are counted as
values of 256 levels. The prior's embeddings are continuous: theirs bounds a density, and can be
negative. Conditions (captions, embeddings of the pictures, small pictures) are given.

Example:
  unclip likelihood --bundle bundle --stage decoder --shards 'data/val_style-*.tar' --steps 100
"""

import argparse
import json
import math
import pathlib
from functools import partial
from typing import Any

import numpy as np

from unclip_jax.cli.measuring import add_measuring_arguments, measured, read_subject
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.diffusion import Variance
from unclip_jax.errors import UserError
from unclip_jax.stages.measure import bound, default_variance

VARIANCES = tuple(v.value for v in Variance)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_measuring_arguments(parser)
    add = parser.add_argument
    add("--steps", type=positive, metavar="N", help="of the chain (default: all of training)")
    add(
        "--variance", choices=VARIANCES,
        help="of the reverse steps (default: the learned one, else fixed_large)",
    )  # fmt: skip
    add("--out", type=pathlib.Path, metavar="FILE", help="also write the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; exit code 0."""
    subject = read_subject(args)
    variance = Variance(args.variance) if args.variance else default_variance(subject.config)
    measure = partial(bound, variance=variance, steps=args.steps)
    parts = list(measured(subject, measure, args))
    summary = summarise(
        np.concatenate([part.total for part in parts]),
        np.concatenate([part.prior for part in parts]),
        np.concatenate([part.terms for part in parts], axis=-1),
    )
    summary |= {"stage": args.stage, "variance": variance.value, "seed": args.seed}
    if args.out:
        args.out.write_text(json.dumps(summary, indent=1))
    quartiles = "  ".join(f"q{i} {value:.4f}" for i, value in enumerate(summary["quartiles"]))
    print(
        f"{args.stage}: at most {summary['bits_per_dim']:.4f} ± {summary['standard_error']:.4f} "
        f"bits per dimension\n{summary['examples']} examples, {summary['steps']} steps, variance "
        f"{variance.value}\nby quartile of t, cleanest first: {quartiles}  "
        f"prior {summary['prior']:.4f}"
    )
    return 0


def summarise(total: np.ndarray, prior: np.ndarray, terms: np.ndarray) -> dict[str, Any]:
    """Means over examples of the bound [N], its prior term [N] and its terms [T, N]."""
    if not len(total):
        raise UserError("none of the examples can be read")
    quarter = 4 * np.arange(len(terms)) // len(terms)
    return {
        "bits_per_dim": float(total.mean()),
        "standard_error": float(total.std(ddof=1) / math.sqrt(len(total)))
        if len(total) > 1
        else math.nan,
        "prior": float(prior.mean()),
        "quartiles": [float(terms[quarter == q].sum(axis=0).mean()) for q in range(4)],
        "examples": len(total),
        "steps": len(terms),
    }
