"""Runs of the toy in real processes, one or several (gloo on the CPU)."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import jax
import pytest
from ports import free_port

from unclip_jax.training.restore import load_params

TOY = pathlib.Path(__file__).with_name("toy.py")
spec = importlib.util.spec_from_file_location("toy", TOY)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


@dataclasses.dataclass
class Processes:
    """Some started processes of one run; `wait` gives their exit codes and outputs."""

    started: list

    def wait(self, timeout=120):
        outputs = [process.communicate(timeout=timeout)[0].decode() for process in self.started]
        return [process.returncode for process in self.started], outputs


@dataclasses.dataclass
class Toy:
    """Starts toy runs; the compilation cache is shared, so restarts compile fast."""

    folder: pathlib.Path
    shards: pathlib.Path
    started: list = dataclasses.field(default_factory=list)

    def arguments(self, workdir, settings):
        defaults = {
            "data.train": str(self.shards / "train-*.tar"),
            "data.validation": "none",
            "train.duration": "40 steps",
            "train.batch_size": "8",
            "train.log_every": "1",
            "train.checkpoint_every": "5 steps",
            "optim.warmup": "1 steps",
            # Well above how gradients of other meshes are rounded, which Adam blows up for weights
            # whose gradients are as small as its eps.
            "optim.eps": "1e-5",
            "faults.heartbeat_seconds": "10",
            "faults.join_seconds": "60",
        }
        merged = {**defaults, **settings}
        overrides = [f"--config.{name}={value}" for name, value in merged.items()]
        return ["train", "--config", "upsampler:tiny", "--workdir", str(workdir), *overrides]

    def start(
        self,
        workdir,
        processes=1,
        devices=2,
        env=(),
        env_of=None,
        folder_of=None,
        only=None,
        **settings,
    ):
        """Starts `processes` processes with `devices` devices in all.

        Args:
          env: variables of all processes; `env_of` {process: variables} of one.
          folder_of: {process: the folder that it runs in} of some.
          only: the processes that are really started.
        """
        settings = {name.replace("__", "."): value for name, value in settings.items()}
        shared = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // processes}",
            **dict(env),
        }
        if processes > 1:
            shared["UNCLIP_COORDINATOR"] = f"127.0.0.1:{free_port()}"
            shared["UNCLIP_NUM_PROCESSES"] = str(processes)
        running = []
        for number in range(processes) if only is None else only:
            own = {"UNCLIP_PROCESS_ID": str(number)} if processes > 1 else {}
            running.append(
                subprocess.Popen(
                    [sys.executable, str(TOY), *self.arguments(workdir, settings)],
                    cwd=(folder_of or {}).get(number),
                    env={**shared, **own, **(env_of or {}).get(number, {})},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
        self.started += running
        return Processes(running)

    def run(self, workdir, **options):
        """(exit codes, outputs) of a run that is waited for."""
        return self.start(workdir, **options).wait()

    def wait_until(self, condition, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)

    def params(self, workdir, weights="ema"):
        abstract = jax.eval_shape(toy.toy_stage().init, jax.random.key(0))
        return load_params(workdir, abstract, weights=weights)


@pytest.fixture
def toy_runs(toy_cache, shards):
    runs = Toy(toy_cache, shards)
    yield runs
    for process in runs.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="session")
def undisturbed(toy_cache, shards):
    """The workdir of a run of 40 steps on two devices of one process that nothing happened to."""
    workdir = toy_cache / "undisturbed"
    codes, outputs = Toy(toy_cache, shards).run(workdir)
    assert codes == [0], outputs[0]
    return workdir
