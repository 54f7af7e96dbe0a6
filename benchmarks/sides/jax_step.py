"""Our side of `train_step.py`: the networks of `unclip_jax.models` and optax's AdamW in one jit.

With --split a CPU is one device for each thread, and the batch is split over them, as in a run
with JAX_NUM_CPU_DEVICES.
"""

import time

BEGAN = time.perf_counter()

from cells import CELLS, PriorCell, UNetCell, arguments  # noqa: E402
from serving import choose_jax_platform, serve  # noqa: E402

ARGS = arguments()
choose_jax_platform(ARGS, devices=ARGS.threads if ARGS.split else 1)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from unclip_jax.config import schema  # noqa: E402
from unclip_jax.core import trees  # noqa: E402
from unclip_jax.models import PriorTransformer, UNet  # noqa: E402
from unclip_jax.parallel import batch_sharding, make_mesh, replicated  # noqa: E402
from unclip_jax.preflight import count_flops  # noqa: E402
from unclip_jax.training.throughput import peak_flops  # noqa: E402


def build(cell: PriorCell | UNetCell, dtype: jnp.dtype):
    """(network, names of its positional inputs)."""
    if isinstance(cell, PriorCell):
        net = PriorTransformer(
            embedding_dim=cell.embedding_dim,
            width=cell.width,
            layers=cell.layers,
            heads=cell.heads,
            context_length=cell.text,
            null_text="none",
            dtype=dtype,
        )
        return net, ("x_t", "t")
    net = UNet(
        out_channels=6,
        channels=cell.channels,
        multipliers=cell.multipliers,
        depth=cell.depth,
        attention_factors=tuple(2**i for i in range(1, len(cell.multipliers)))
        if cell.context_width
        else (),
        mid_attention=bool(cell.context_width),
        dtype=dtype,
    )
    return net, ("x", "t")


def main() -> None:
    cell = CELLS[ARGS.cell]
    batch = ARGS.batch or cell.batch
    net, positional = build(cell, jnp.dtype(ARGS.dtype))
    mesh = make_mesh(schema.Mesh())
    rows, whole = batch_sharding(mesh), replicated(mesh)
    given = {k: jax.device_put(v, rows) for k, v in cell.inputs(batch).items()}
    target = given.pop("target")
    inputs = [given.pop(name) for name in positional]

    def loss(params, target, inputs, given):
        y = net.apply({"params": params}, *inputs, **given)
        return jnp.mean((y.astype(jnp.float32) - target) ** 2)

    tx = optax.adamw(1e-4, weight_decay=0.01)

    def update(state, target, inputs, given):
        params, moments = state
        value, grads = jax.value_and_grad(loss)(params, target, inputs, given)
        updates, moments = tx.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    params = jax.jit(net.init, out_shardings=whole)(jax.random.key(0), *inputs, **given)["params"]
    state = [(params, jax.jit(tx.init, out_shardings=whole)(params))]
    jitted = jax.jit(update, donate_argnums=0, out_shardings=(whole, whole))
    compiled = jitted.lower(state[0], target, inputs, given).compile()

    def step() -> float:
        state[0], value = compiled(state[0], target, inputs, given)
        return float(value)

    facts = {
        "parameters": trees.count(params),
        "batch": batch,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "train_flops_per_step": count_flops(loss, params, target, inputs, given).train,
        "peak_flops": peak_flops(jax.devices()[0].device_kind),
    }
    serve(step, facts, BEGAN)


main()
