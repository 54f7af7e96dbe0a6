"""`unclip train` with a stage that compiles in a moment, and with faults on demand.

    python toy.py train --config upsampler:tiny --workdir DIR …

The environment asks for faults. TOY_KILL=PHASE:N:SECONDS kills the process (SIGKILL) so many
seconds after it enters a phase for the Nth time; TOY_STALL=STEP sleeps for ever before that step;
TOY_SLOW is the least time of a step in seconds; TOY_UNREADABLE makes every shard unreadable;
TOY_LATE waits so many seconds before it closes its checkpoints.
"""

import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp

from unclip_jax import cli, stages
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.core import images, rng
from unclip_jax.data import catalog, storage
from unclip_jax.stages.stage import Stage
from unclip_jax.training import checkpoint, phases, program


def toy_stage():
    """Predicts noise from the noisy picture by two matrices; a black picture's loss is not finite.

    One matrix is large enough that an fsdp axis splits it.
    """

    def init(key):
        first, second = jax.random.split(key)
        return {
            "inner": {"w": jax.random.normal(first, (768, 96)) / 28, "b": jnp.zeros(96)},
            "outer": {"w": jax.random.normal(second, (96, 16)) / 10, "b": jnp.zeros(16)},
        }

    def loss(params, frozen, batch, keys):
        x = images.to_float(batch["image_16"]).reshape(-1, 768)
        noise = rng.normal(keys, (768,))
        hidden = jnp.tanh((x + noise) @ params["inner"]["w"] + params["inner"]["b"][None])
        error = hidden @ params["outer"]["w"] + params["outer"]["b"][None] - noise[:, :16]
        poison = jnp.where(jnp.all(x == -1, axis=1), jnp.inf, 1.0)
        return jnp.mean(error**2, axis=1) * poison, {}

    def preview(params, frozen, batch, keys):
        noise = rng.normal(keys, (768,)) @ params["inner"]["w"]
        shade = jnp.tanh(jnp.mean(noise, axis=1))[:, None, None, None]
        return {
            "given": images.to_float(batch["image_16"]),
            "drawn": shade * jnp.ones((1, 16, 16, 3)),
        }

    return Stage("toy", BatchNeeds(image_sizes=(16,)), init, loss, preview)


def kill_in_phase(phase, number, delay):
    enter, seen = phases.Phases.enter, [0]

    def enter_and_die(self, name, step=None):
        enter(self, name, step)
        seen[0] += name == phase
        if seen[0] == number and name == phase:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    phases.Phases.enter = enter_and_die


def before_each_step(act):
    make = program.make_train_step

    def make_acting(*args, **kwargs):
        step = make(*args, **kwargs)

        def acting(state, frozen, batch):
            act(state)
            return step(state, frozen, batch)

        return acting

    program.make_train_step = make_acting


def fail_to_read(path, *_):
    raise storage.ShardError(f"{path}: cannot be read (Input/output error)")


def main():
    stages.build = lambda config, clip=None: toy_stage()
    if wanted := os.environ.get("TOY_KILL"):
        phase, number, delay = wanted.split(":")
        kill_in_phase(phase, int(number), float(delay))
    if "TOY_STALL" in os.environ:
        last = int(os.environ["TOY_STALL"])
        before_each_step(lambda state: int(state.step) == last and time.sleep(10_000))
    if "TOY_SLOW" in os.environ:
        pause = float(os.environ["TOY_SLOW"])
        before_each_step(lambda state: time.sleep(pause))
    if "TOY_UNREADABLE" in os.environ:
        catalog.read_range = fail_to_read
    if "TOY_LATE" in os.environ:
        close = checkpoint.Checkpointer.close
        checkpoint.Checkpointer.close = lambda self: (
            time.sleep(float(os.environ["TOY_LATE"])),
            close(self),
        )
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
