"""Their side of `sampling.py`: UnCLIPPipeline over our exported folder, eager or compiled."""

import argparse
import time

BEGAN = time.perf_counter()

import contextlib  # noqa: E402
import warnings  # noqa: E402

from operators import LIBRARY  # noqa: E402, F401 - before diffusers
from serving import arguments, serve  # noqa: E402

PARSER = argparse.ArgumentParser()
PARSER.add_argument("folder")
PARSER.add_argument("--batch", type=int, required=True)
ARGS = arguments(PARSER)
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from cascade import GUIDANCE, PROMPT, STEPS  # noqa: E402
from diffusers import UnCLIPPipeline, pipelines  # noqa: E402

with contextlib.suppress(ImportError):  # up to 0.37 it is where folders say
    from diffusers.pipelines.deprecated import unclip

    pipelines.unclip = unclip

NETWORKS = ("prior", "decoder", "super_res_first", "super_res_last")


def main() -> None:
    torch.set_num_threads(ARGS.threads)
    device = "cuda" if ARGS.device == "gpu" else "cpu"
    pipeline = UnCLIPPipeline.from_pretrained(ARGS.folder, torch_dtype=getattr(torch, ARGS.dtype))
    pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    for name in NETWORKS:
        network = getattr(pipeline, name)
        if device == "cuda" and name != "prior":
            network.to(memory_format=torch.channels_last)
        if ARGS.compile:
            network.compile(dynamic=False)
    facts = {
        "parameters": {
            name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in NETWORKS
        },
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    draw = lambda: pipeline(  # noqa: E731
        PROMPT,
        num_images_per_prompt=ARGS.batch,
        prior_num_inference_steps=STEPS["prior"],
        decoder_num_inference_steps=STEPS["decoder"],
        super_res_num_inference_steps=STEPS["upsampler"],
        prior_guidance_scale=GUIDANCE["prior"],
        decoder_guidance_scale=GUIDANCE["decoder"],
    )
    serve(draw, facts, BEGAN)


main()
