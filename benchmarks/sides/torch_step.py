"""Their side of `train_step.py`: diffusers' networks and torch's AdamW, as its users train."""

import time

BEGAN = time.perf_counter()

import warnings  # noqa: E402

import torch  # noqa: E402
from cells import CELLS, PriorCell, UNetCell, arguments  # noqa: E402
from operators import LIBRARY  # noqa: E402, F401 - before diffusers
from serving import serve  # noqa: E402

ARGS = arguments()
warnings.filterwarnings("ignore")
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel  # noqa: E402


def build(cell: PriorCell | UNetCell) -> torch.nn.Module:
    """The network with our layers; channels-last memory on a GPU, where it is faster."""
    if isinstance(cell, PriorCell):
        return PriorTransformer(
            num_attention_heads=cell.heads,
            attention_head_dim=cell.width // cell.heads,
            num_layers=cell.layers,
            embedding_dim=cell.embedding_dim,
            num_embeddings=cell.text,
        )
    levels = len(cell.multipliers)
    shared = {
        "sample_size": cell.size,
        "in_channels": cell.in_channels,
        "out_channels": 6,
        "layers_per_block": cell.depth,
        "block_out_channels": tuple(cell.channels * m for m in cell.multipliers),
        "resnet_time_scale_shift": "scale_shift",
        "norm_num_groups": 32,
    }
    if not cell.context_width:
        return UNet2DModel(
            down_block_types=("ResnetDownsampleBlock2D",) * levels,
            up_block_types=("ResnetUpsampleBlock2D",) * levels,
            add_attention=False,
            flip_sin_to_cos=True,
            freq_shift=0,
            **shared,
        )
    attending = levels - 1
    return UNet2DConditionModel(
        down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * attending,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) * attending + ("ResnetUpsampleBlock2D",),
        cross_attention_dim=cell.context_width,
        attention_head_dim=64 if cell.channels >= 64 else cell.channels,
        class_embed_type="identity",
        **shared,
    )


def call(net, cell: PriorCell | UNetCell, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The prediction for the cell's inputs."""
    if isinstance(cell, PriorCell):
        return net(
            given["x_t"],
            timestep=given["t"],
            proj_embedding=given["text_embedding"],
            encoder_hidden_states=given["text_states"],
            attention_mask=given["text_mask"],
        ).predicted_image_embedding
    if not cell.context_width:
        return net(given["x"], given["t"]).sample
    return net(
        given["x"],
        given["t"],
        encoder_hidden_states=given["context"],
        class_labels=given["embedding"],
    ).sample


def main() -> None:
    cell, gpu = CELLS[ARGS.cell], ARGS.device == "gpu"
    torch.manual_seed(0)
    torch.set_num_threads(ARGS.threads)
    device = "cuda" if gpu else "cpu"
    batch = ARGS.batch or cell.batch
    net = build(cell).to(device).train()
    given = {k: torch.from_numpy(v).to(device) for k, v in cell.inputs(batch).items()}
    for name, value in given.items():
        if value.ndim == 4:
            layout = torch.channels_last if gpu else torch.contiguous_format
            given[name] = value.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    if gpu and isinstance(cell, UNetCell):
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01, fused=gpu or None)
    run = torch.compile(net) if ARGS.compile else net

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=ARGS.dtype == "bfloat16"):
            predicted = call(run, cell, given)
        loss = torch.nn.functional.mse_loss(predicted.float(), given["target"])
        loss.backward()
        optimizer.step()
        return float(loss.detach())  # waits for the device

    facts = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "batch": batch,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }
    serve(step, facts, BEGAN)


main()
