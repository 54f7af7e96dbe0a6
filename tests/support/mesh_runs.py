"""Training steps of any stage on any mesh of virtual devices, and what their programs send."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unclip_jax import stages
from unclip_jax.config.schema import Mesh
from unclip_jax.core import trees
from unclip_jax.parallel import batch_sharding, make_mesh
from unclip_jax.parallel.collectives import collectives
from unclip_jax.training import ema
from unclip_jax.training.layout import state_shardings
from unclip_jax.training.optimizer import Optimizer
from unclip_jax.training.state import init_state
from unclip_jax.training.step import make_train_step

COMPLAINT = "full rematerialization"  # the partitioner's, on standard error: it gathers an array


@contextlib.contextmanager
def compiled_anew():
    """Within it nothing comes from the persistent cache: only a compilation complains."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


@dataclasses.dataclass
class Run:
    """A compiled step on a mesh, with what it needs."""

    step: object
    state: object
    layout: object
    batch: object
    frozen: object
    mesh: object

    @functools.cached_property
    def compiled(self):
        with jax.set_mesh(self.mesh):
            return self.step.lower(self.state, self.frozen, self.batch).compile()

    @functools.cached_property
    def sent(self):
        """All collectives of arrays; sums of a few scalars (norms, losses) are left out."""
        found = [c for c in collectives(self.compiled.as_text()) if c.bytes > 256]
        print(*found, sep="\n")  # shown where a test fails
        return found


def start(stage, batch, *, accumulate=1, frozen=None, draw=True, tx=None, **axes):
    """The step of a stage on a mesh of so many devices along its axes.

    Args:
      draw: False fills parameters by numpy: the program that draws them need not be compiled.
      tx: the optimiser, AdamW without clips by default.
    """
    config = Mesh(**{"min_size": 1000, "max_whole": 0.5, **axes})
    count = int(np.prod([s for a in ("data", "fsdp", "tensor") if (s := axes.get(a, 1)) > 0]))
    mesh = make_mesh(config, jax.devices()[:count])
    if config.fsdp > 1:
        stage = stages.with_rows_over(stage, ("data", "fsdp"))
    schedule = optax.constant_schedule(1e-3)
    tx = tx or Optimizer((), optax.adamw(schedule))
    init = functools.partial(init_state, stage, tx, jax.random.key(0))
    with jax.set_mesh(mesh):
        layout = state_shardings(jax.eval_shape(init), config, mesh)
        step = make_train_step(
            stage,
            tx,
            schedule,
            ema_decay=ema.decay_schedule(0.9),
            seed=0,
            mesh=mesh,
            state_shardings=layout,
            accumulate=accumulate,
        )
        return Run(
            step,
            jax.jit(init, out_shardings=layout)() if draw else filled(init, layout),
            layout,
            jax.device_put(batch, batch_sharding(mesh)),
            jax.device_put(frozen or {}, NamedSharding(mesh, P())),
            mesh,
        )


def filled(init, layout):
    """A state with normal parameters of standard deviation 0.05, all other arrays zero."""
    generator = np.random.default_rng(0)
    abstract = jax.eval_shape(init)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    params = jax.tree.map(
        lambda x: 0.05 * generator.normal(size=x.shape).astype(x.dtype), abstract.params
    )
    state = dataclasses.replace(zeros, params=params, ema_params=params)
    return jax.device_put(state, layout)


def losses(run, steps=3):
    """Metrics of some steps, each from a program that is compiled once."""
    records, state = [], run.state
    assert_placed(state, run.layout)
    with jax.set_mesh(run.mesh):
        for _ in range(steps):
            state, metrics = run.step(state, run.frozen, run.batch)
            records.append([float(metrics[k]) for k in sorted(metrics)])
    assert_placed(state, run.layout)
    assert run.step._cache_size() == 1, "compiled again after the first step"
    return np.array(records)


def losses_ahead(run, steps=2):
    """The same, from the program that `run.sent` reads: a large one is compiled once for both."""
    records, state = [], run.state
    for _ in range(steps):
        state, metrics = run.compiled(state, run.frozen, run.batch)
        records.append([float(metrics[k]) for k in sorted(metrics)])
    return np.array(records)


def assert_placed(state, layout):
    """The state was born, and after the steps still is, where its layout says."""
    placed = trees.flatten(layout)
    for path, leaf in trees.flatten(state).items():
        assert leaf.sharding.is_equivalent_to(placed[path], leaf.ndim), path
