"""Seconds to draw a picture: this pipeline beside diffusers' UnCLIPPipeline, in one process.

    .venv-oracles/bin/python benchmarks/sampling.py [--runs 5] [--batch 1 8] [--compiled]

karlo's form at a width that two CPU cores bear: prior 4 layers of 256, decoder 32 px with channels
64 x (1, 2, 3, 4), upsampler 32 -> 64 px with its own last step; 10, 10 and 7 steps of DDPM,
guidance 4 and 8, float32. Both sides have the same shapes (parameters are counted and compared),
steps, guidance and number of network calls, and random weights of their own: how long an operation
takes does not depend on the weights. Tokens, the text tower and the conversion to 8 bit are
included on both sides.

Both run alternately; the figures are the median, least and most of the runs after one to warm up.
With --compiled, diffusers' four networks go through torch.compile too. Results are added to
benchmarks/results/sampling.json, with the machine and the date.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import torch

# A CPU build of torch lacks two operators that torchvision's wheels want to describe.
LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel  # noqa: E402
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline  # noqa: E402
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # noqa: E402

from unclip_jax import stages  # noqa: E402
from unclip_jax.config import from_mapping  # noqa: E402
from unclip_jax.core.hashing import weights_hash  # noqa: E402
from unclip_jax.generation import Pipeline, TrainedStage, compose  # noqa: E402
from unclip_jax.text import tokenize  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results" / "sampling.json"
PROMPT = "a red heart on a blue plate"
STEPS = {"prior": 10, "decoder": 10, "upsampler": 7}
GUIDANCE = {"prior": 4.0, "decoder": 8.0}
WIDTH, LAYERS, EMBEDDING, TEXT, CONTEXT = 256, 4, 128, 128, 384
CHANNELS, MULTIPLIERS, DEPTH, SMALL, LARGE = 64, (1, 2, 3, 4), 2, 32, 64
KARLO = {"sampler": "ddpm"}


def our_stage(kind: str, model: dict[str, Any], clip: TrainedStage | None = None) -> TrainedStage:
    """A stage with random weights, none of them zero."""
    config = from_mapping(
        {
            "stage": kind,
            "model": model,
            "data": {"train": "data/*.tar"},
            "train": {"batch_size": 1, "duration": "1 steps"},
            "clip": {"path": "clip"} if clip else {},
            "diffusion": {
                "prediction": "x0" if kind == "prior" else "epsilon",
                "learned_variance": kind == "decoder",
            },
            "sampling": KARLO
            | {
                "steps": STEPS.get(kind, 1),
                "guidance_scale": GUIDANCE.get(kind, 1.0),
                "clip_range": 5.0 if kind == "prior" else 1.0,
            },
        }
    )
    init = stages.build(config, clip.model if clip else None).init
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: (0.05 * generator.normal(size=x.shape)).astype(np.float32),
        jax.eval_shape(init, jax.random.key(0)),
    )
    ones = np.ones(EMBEDDING, np.float32)
    return TrainedStage(
        config=config,
        params=params,
        step=0,
        weights_sha256=weights_hash(params),
        source=kind,
        clip_sha256=clip.weights_sha256 if clip else None,
        statistics={"mean": 0 * ones, "std": ones} if kind == "prior" else None,
    )


def our_pipeline(program: str) -> Pipeline:
    clip = our_stage(
        "clip",
        {
            **{"image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 1},
            **{"vision_heads": 1, "text_width": TEXT, "text_layers": 2, "text_heads": 2},
            **{"embedding_dim": EMBEDDING, "activation": "quick_gelu"},
        },
    )
    unet = {"channels": CHANNELS, "multipliers": MULTIPLIERS, "depth": DEPTH}
    prior = {
        **{"width": WIDTH, "layers": LAYERS, "heads": WIDTH // 64, "null_text": "empty"},
        **{"embedding_scale": "whiten", "scan_layers": False},
    }
    decoder = {
        **unet,
        **{"image_size": SMALL, "attention_resolutions": (16, 8, 4), "context_width": CONTEXT},
        **{"null_text": "empty", "embedding_scale": "raw"},
    }
    upsampler = {**unet, "low_size": SMALL, "image_size": LARGE, "last_step": "own"}
    parts = [
        clip,
        our_stage("prior", prior, clip),
        our_stage("decoder", decoder, clip),
        our_stage("upsampler", upsampler | {"crop_fraction": 0.5}),
    ]
    return Pipeline(compose(parts), program=program)  # type: ignore[arg-type]


class Tokens:
    """A tokenizer for diffusers: CLIP's ids without the files of transformers'."""

    model_max_length = 77

    def __call__(self, texts: Any, padding: str = "", **_: Any) -> Any:
        rows = tokenize([texts] if isinstance(texts, str) else texts, 77)
        ends = rows.argmax(axis=1)
        ids = torch.as_tensor(rows, dtype=torch.long)
        mask = torch.arange(77)[None] <= torch.as_tensor(ends)[:, None]
        length = int(ends.max()) + 1 if padding == "longest" else 77
        return type("Encoded", (), {"input_ids": ids[:, :length], "attention_mask": mask})()


def their_pipeline() -> UnCLIPPipeline:
    torch.manual_seed(0)
    blocks = [CHANNELS * m for m in MULTIPLIERS]
    levels = len(blocks)
    upsampler: dict[str, Any] = {
        "sample_size": LARGE, "in_channels": 6, "out_channels": 3, "layers_per_block": DEPTH,
        "block_out_channels": blocks, "add_attention": False,
        "down_block_types": ["ResnetDownsampleBlock2D"] * levels,
        "up_block_types": ["ResnetUpsampleBlock2D"] * levels,
    }  # fmt: skip
    decoder = UNet2DConditionModel(
        sample_size=SMALL, in_channels=3, out_channels=6, layers_per_block=DEPTH,
        block_out_channels=blocks, cross_attention_dim=CONTEXT, attention_head_dim=64,
        down_block_types=["ResnetDownsampleBlock2D"]
        + ["SimpleCrossAttnDownBlock2D"] * (levels - 1),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=["SimpleCrossAttnUpBlock2D"] * (levels - 1) + ["ResnetUpsampleBlock2D"],
        resnet_time_scale_shift="scale_shift", class_embed_type="identity",
    )  # fmt: skip
    prior = PriorTransformer(
        num_attention_heads=WIDTH // 64, attention_head_dim=64, num_layers=LAYERS,
        embedding_dim=EMBEDDING, num_embeddings=77, additional_embeddings=4,
    )  # fmt: skip
    prior.clip_std.data.fill_(1.0)
    scheduler = {"variance_type": "fixed_small_log", "num_train_timesteps": 1000}
    pipeline = UnCLIPPipeline(
        prior=prior,
        decoder=decoder,
        text_encoder=CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=TEXT,
                intermediate_size=4 * TEXT,
                projection_dim=EMBEDDING,
                num_hidden_layers=2,
                num_attention_heads=2,
            )
        ),
        tokenizer=Tokens(),
        text_proj=UnCLIPTextProjModel(
            clip_extra_context_tokens=4,
            clip_embeddings_dim=EMBEDDING,
            time_embed_dim=4 * CHANNELS,
            cross_attention_dim=CONTEXT,
        ),
        super_res_first=UNet2DModel(**upsampler),
        super_res_last=UNet2DModel(**upsampler),
        prior_scheduler=UnCLIPScheduler(
            prediction_type="sample", clip_sample_range=5.0, **scheduler
        ),
        decoder_scheduler=UnCLIPScheduler(
            prediction_type="epsilon", **(scheduler | {"variance_type": "learned_range"})
        ),
        super_res_scheduler=UnCLIPScheduler(prediction_type="epsilon", **scheduler),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compiled(pipeline: UnCLIPPipeline) -> UnCLIPPipeline:
    """Its four networks through torch.compile."""
    for name in ("prior", "decoder", "super_res_first", "super_res_last"):
        getattr(pipeline, name).compile(dynamic=False)
    return pipeline


def check_sizes(ours: Pipeline, theirs: UnCLIPPipeline) -> dict[str, int]:
    """The parameters of every stage, which must agree but for buffers that diffusers counts."""
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    expected = {
        "prior": count(theirs.prior) - 2 * EMBEDDING,  # mean and deviation of embeddings
        "decoder": count(theirs.decoder) + count(theirs.text_proj),
        "upsampler": count(theirs.super_res_first) + count(theirs.super_res_last),
    }
    found = {name: ours.cascade.named()[name].parameter_count for name in expected}
    if found != expected:
        raise SystemExit(f"the networks differ: ours {found}, diffusers {expected}")
    return found


def measure(runners: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Seconds of each run, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(runs + 1):
        for name, run in runners.items():
            began = time.perf_counter()
            run()
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    ours = {name: our_pipeline(name) for name in ("stages", "whole")}
    theirs = {"diffusers eager": their_pipeline()}
    if args.compiled:
        theirs["diffusers compiled"] = compiled(their_pipeline())
    parameters = check_sizes(ours["stages"], theirs["diffusers eager"])
    rows = []
    for batch in args.batch:
        runners: dict[str, Callable[[], Any]] = {}
        for name, pipeline in ours.items():
            runners[f"unclip_jax {name}"] = lambda p=pipeline, b=batch: p(
                PROMPT, images_per_prompt=b, batch_size=b
            )
        for name, other in theirs.items():
            runners[name] = lambda p=other, b=batch: p(
                PROMPT, num_images_per_prompt=b, output_type="pil",
                prior_num_inference_steps=STEPS["prior"],
                decoder_num_inference_steps=STEPS["decoder"],
                super_res_num_inference_steps=STEPS["upsampler"],
                prior_guidance_scale=GUIDANCE["prior"],
                decoder_guidance_scale=GUIDANCE["decoder"],
            )  # fmt: skip
        for name, seconds in measure(runners, args.runs).items():
            median = statistics.median(seconds)
            rows.append(
                {
                    "batch": batch, "who": name, "median_s": round(median, 3),
                    "least_s": round(min(seconds), 3), "most_s": round(max(seconds), 3),
                }
            )  # fmt: skip
            print(f"batch {batch}  {name:20} {median:7.3f} s", flush=True)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} x {processor()}",
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "versions": {n: version(n) for n in ("jax", "torch", "diffusers", "transformers")},
        "parameters": parameters,
        "runs": args.runs,
        "results": rows,
    }
    records = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*records, record], indent=1) + "\n")


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
