"""The command line: `unclip COMMAND …`, also `python -m unclip_jax COMMAND …`.

One module per command, imported when it is called, so that `unclip --help` is instant. A module
has a docstring (its help: what it does, then an example), `add_arguments(parser)` and
`run(args) -> exit code`. A `UserError` is printed as one line, with exit code 2.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from unclip_jax.cli import environment
from unclip_jax.cli.config_arguments import split_overrides
from unclip_jax.errors import UserError, did_you_mean

# command -> (module, one line for the overview)
COMMANDS = {
    "demo": ("demo", "the whole way on real data: shards, four stages, samples, evaluation"),
    "data emoji": ("data_emoji", "build the captioned emoji set as webdataset shards"),
    "data shapes": ("data_shapes", "build a set of shapes whose captions can be checked"),
    "data index": ("data_index", "index shards ahead of a run"),
    "data lint": ("data_lint", "look for what is wrong with shards"),
    "data convert": (
        "data_convert",
        "make shards of a folder of pictures or another source",
    ),
    "data digest": ("data_digest", "print digests of a data set and of its batches"),
    "embed": ("embed", "store CLIP's embeddings beside shards"),
    "train": ("train", "train one stage, or resume it"),
    "import clip": ("import_clip", "make a bundle of a CLIP trained elsewhere"),
    "sweep": ("sweep", "try many settings and compare"),
    "import diffusers": ("import_diffusers", "make a bundle of a diffusers unCLIP folder"),
    "import karlo": ("import_karlo", "make a bundle of karlo's own checkpoints"),
    "export": ("export", "make a bundle of trained stages, or a format of others"),
    "sample": ("sample", "draw pictures from prompts"),
    "edit variations": ("edit_variations", "draw variations of a picture"),
    "edit interpolate": ("edit_interpolate", "draw the way from one picture or prompt to another"),
    "edit text-diff": ("edit_text_diff", "turn a picture towards a caption"),
    "edit inpaint": ("edit_inpaint", "draw a part of a picture anew"),
    "edit outpaint": ("edit_outpaint", "draw what surrounds a picture"),
    "edit img2img": ("edit_img2img", "draw a prompt starting from a picture"),
    "edit reconstruct": ("edit_reconstruct", "show what principal components hold"),
    "edit ablate": ("edit_ablate", "draw from the caption, the text embedding and the prior"),
    "edit grid": ("edit_grid", "draw a prompt at several guidance scales"),
    "edit typographic": ("edit_typographic", "see whether words on a picture are believed"),
    "eval": ("evaluate", "measure how well pictures follow their prompts"),
    "likelihood": ("likelihood", "bound a stage's negative log-likelihood, in bits per dimension"),
    "moments": ("moments", "estimate what Analytic-DPM samples with, and let a bundle use it"),
    "plan": ("plan", "say whether a run fits on a pod, what it sends and how long it takes"),
    "launch": ("launch", "start a run anywhere and look after it"),
    "launch status": ("launch_status", "show launched runs"),
    "launch logs": ("launch_logs", "print the logs of a launched run"),
    "launch stop": ("launch_stop", "stop a launched run"),
    "launch attach": ("launch_attach", "look after a run whose launcher was killed"),
    "launch gc": ("launch_gc", "clear away what runs that are over left behind"),
    "inspect config": ("inspect_config", "print a resolved config"),
    "inspect run": ("inspect_run", "show a run's progress, processes and goodput"),
    "inspect shardings": ("inspect_shardings", "print how a run would lie on a mesh"),
}
# Commands, by their first word, that compute on devices.
COMPUTE = ("demo", "embed", "train", "export", "sample", "edit", "eval")
# Those that only look: where an accelerator may be missing, or busy with somebody's run.
LOOK = ("plan", "inspect")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names; returns its exit code.

    Without `argv` this is the program itself, which may set up its environment (`environment.py`).
    """
    if argv is None and sys.argv[1:2]:
        if sys.argv[1] in COMPUTE:
            environment.prepare(os.environ)
        if sys.argv[1] in LOOK:
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except UserError as error:
        print(f"unclip: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from unclip_jax import __version__

        print(f"unclip_jax {__version__}")
        return 0
    module, args = parse(argv)
    return module.run(args)


def parse(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The command's module and its parsed arguments; overrides of settings are in `overrides`."""
    argv = list(argv)
    words = 2 if " ".join(argv[:2]) in COMMANDS else 1
    name, rest = " ".join(argv[:words]), argv[words:]
    if name not in COMMANDS:
        raise _unknown(argv)
    # What libraries say through absl is nothing to act on, or is raised as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    module = importlib.import_module(f"unclip_jax.cli.{COMMANDS[name][0]}")
    rest, overrides = split_overrides(rest)
    args = _parser(name, module).parse_args(rest)
    if overrides and not hasattr(args, "config"):
        raise UserError(f"unclip {name} takes no --config.{next(iter(overrides))}")
    args.overrides = overrides
    return module, args


def _unknown(argv: list[str]) -> UserError:
    group = [command for command in COMMANDS if command.startswith(argv[0] + " ")]
    if group:
        return UserError(f"unclip {argv[0]}: which one? {', '.join(group)}")
    asked = " ".join(word for word in argv[:2] if not word.startswith("-"))
    return UserError(f"no command {asked!r}{did_you_mean(asked, COMMANDS)}; see unclip --help")


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"unclip {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = "\n".join(f"  {name:{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return (
        "unclip: train, evaluate, sample and export unCLIP (DALL·E 2) systems in JAX\n\n"
        f"usage: unclip COMMAND [options]\n\n{rows}\n\n"
        "unclip COMMAND --help explains a command, with an example."
    )
