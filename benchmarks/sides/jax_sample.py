"""Our side of `sampling.py`: the pipeline over what our importer reads, weights on the device."""

import argparse
import time

BEGAN = time.perf_counter()

from serving import arguments, choose_jax_platform, serve  # noqa: E402

PARSER = argparse.ArgumentParser()
PARSER.add_argument("folder")
PARSER.add_argument("--batch", type=int, required=True)
PARSER.add_argument("--program", choices=("stages", "whole"), required=True)
PARSER.add_argument("--split", action="store_true", help="a device for each thread of a CPU")
ARGS = arguments(PARSER)
choose_jax_platform(ARGS, devices=ARGS.threads if ARGS.split else 1)

import jax  # noqa: E402
from cascade import GUIDANCE, PROMPT, STEPS  # noqa: E402

from unclip_jax.generation import Pipeline  # noqa: E402
from unclip_jax.interop.diffusers import read_folder  # noqa: E402


def main() -> None:
    cascade = read_folder(ARGS.folder)
    pipeline = Pipeline(cascade, program=ARGS.program)
    sampling = {
        name: {
            "steps": steps,
            "guidance_scale": GUIDANCE.get(name, 1.0),
            "compute": ARGS.dtype,
        }
        for name, steps in STEPS.items()
    }
    facts = {
        "parameters": {name: stage.parameter_count for name, stage in cascade.named().items()},
        "device": jax.devices()[0].device_kind,
    }
    draw = lambda: pipeline(  # noqa: E731
        PROMPT, images_per_prompt=ARGS.batch, batch_size=ARGS.batch, sampling=sampling
    )
    serve(draw, facts, BEGAN)


main()
