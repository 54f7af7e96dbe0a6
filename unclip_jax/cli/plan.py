"""Say before paying whether a run fits on a machine, what it sends, and how long it takes.

Compiles the train step itself for TPUs that need not be here (pip install 'unclip_jax[tpu]'); with
--fast, and for GPUs, a model answers in seconds. If the run does not fit, tries what would help:
more fsdp, remat, accumulation, a smaller batch. Exit code 1 if the config as given does not fit.

Example:
  unclip plan --config prior:paper --clip-config clip:paper --topology v5p:4x4x4 --fast
  unclip plan --config upsampler:paper_256 --devices 8 --hbm 80
"""

import argparse
import os
import pathlib
import shlex

from unclip_jax.cli.argument_types import positive
from unclip_jax.cli.clip_arguments import add_clip_argument, clip_model
from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.errors import UserError
from unclip_jax.preflight.chips import GPUS, TPUS
from unclip_jax.preflight.page import record
from unclip_jax.preflight.plan import make_plan
from unclip_jax.preflight.report import report
from unclip_jax.preflight.roofline import ATTAINED
from unclip_jax.preflight.topology import Topology, gpu_topology, tpu_topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config_arguments(parser)
    add_clip_argument(parser)
    parser.add_argument(
        "--topology",
        metavar="GENERATION:AxBxC",
        help=f"a TPU slice, such as v5p:4x4x4; generations: {', '.join(TPUS)}",
    )
    parser.add_argument("--slices", type=positive, help="how many such slices (1)")
    parser.add_argument("--devices", type=positive, metavar="N", help="GPUs, 8 a host")
    parser.add_argument("--gpu", metavar="NAME", help=f"one of {', '.join(GPUS)} (H100)")
    parser.add_argument("--hbm", type=float, metavar="GB", help="memory of a GPU, if not the usual")
    parser.add_argument("--fast", action="store_true", help="the model only, nothing compiled")
    parser.add_argument(
        "--examples", type=positive, metavar="N", help="of the data set, if durations are in epochs"
    )
    parser.add_argument(
        "--attained",
        type=float,
        default=ATTAINED,
        metavar="SHARE",
        help="of the least step time that the run will reach (%(default)s), for days",
    )
    parser.add_argument(
        "--record", type=pathlib.Path, metavar="PAGE.md", help="write the plan into this page too"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the plan; exit code 0 if the run fits, 1 if not."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a TPU or GPU that is here is not needed
    config, topology = config_from(args), _topology(args)
    if not 0 < args.attained <= 1:
        raise UserError(f"--attained {args.attained:g}: is a share, above 0 and at most 1")
    plan = make_plan(
        config,
        clip_model(config, args.clip_config),
        topology,
        compiling=topology.is_tpu and not args.fast,
        examples=args.examples,
    )
    print(report(plan, args.attained))
    if args.record is not None:
        record(args.record, plan, args.attained, _command(args))
    return 0 if plan.answer.fits(topology) else 1


def _topology(args: argparse.Namespace) -> Topology:
    if (args.topology is None) == (args.devices is None):
        raise UserError("give one of --topology (TPUs) and --devices (GPUs)")
    if args.topology is not None:
        for name in ("gpu", "hbm"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} belongs to --devices; TPUs have what they have")
        return tpu_topology(args.topology, args.slices or 1)
    if args.slices is not None:
        raise UserError("--slices belongs to --topology; GPUs are taken as 8 a host")
    return gpu_topology(args.devices, args.gpu or "H100", args.hbm)


def _command(args: argparse.Namespace) -> str:
    """The command again, without where it is recorded."""
    words = ["unclip", "plan", "--config", args.config]
    for name in ("clip_config", "topology", "slices", "devices", "gpu", "hbm", "examples"):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--fast"] if args.fast else []
    words += [f"--config.{path}={text}" for path, text in args.overrides.items()]
    return shlex.join(words)
