"""Soak test: a toy run through random faults must end with the parameters of an undisturbed run.

    python benchmarks/soak.py --faults 30 --minutes 10 --log benchmarks/results/soak.txt

Every attempt is `unclip train` as one process of two devices or two processes of one (which give
the same bits), killed, signalled, frozen, stalled or left with a damaged checkpoint at a random
moment, and then started again. The faults follow from the seed, their moments from the machine.
"""

import argparse
import datetime
import os
import pathlib
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from unclip_jax import cli
from unclip_jax.training import goodput
from unclip_jax.training.restore import complete_steps, load_params

TOY = pathlib.Path(__file__).parents[1] / "tests" / "integration" / "toy.py"
STEPS = 6_000
STEP_SECONDS = 0.03  # of the disturbed attempts, so that they do not get through
KILLED, ABORTED = -signal.SIGKILL, -signal.SIGABRT


class Soak:
    """A run in a folder: attempts, faults, and a log of both."""

    def __init__(self, folder: pathlib.Path, seed: int, log: Callable[[str], None]):
        self.folder, self.workdir = folder, folder / "disturbed"
        self.random, self.log = random.Random(seed), log
        self.started: list[subprocess.Popen] = []

    def start(
        self, workdir: pathlib.Path, processes: int, save_every: int = 50, **env: str
    ) -> list[subprocess.Popen]:
        """Starts an attempt; output goes to a file per process."""
        settings = {
            "data.train": str(self.folder / "shards" / "train" / "*.tar"),
            "data.validation": str(self.folder / "shards" / "unseen" / "*.tar"),
            "train.duration": f"{STEPS} steps",
            "train.batch_size": "8",
            "train.log_every": "100",
            "train.checkpoint_every": f"{save_every} steps",
            "train.validate_every": "200 steps",
            "train.preview.examples": "0",
            "train.keep_checkpoints": "4",
            "faults.heartbeat_seconds": "10",
            "faults.join_seconds": "30",
            "faults.stall_minutes": "0.4",
        }
        common = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}",
            **env,
        }
        if processes > 1:
            common["UNCLIP_COORDINATOR"] = f"127.0.0.1:{_free_port()}"
            common["UNCLIP_NUM_PROCESSES"] = str(processes)
        overrides = [f"--config.{name}={value}" for name, value in settings.items()]
        command = [*(sys.executable, str(TOY), "train", "--config", "upsampler:tiny")]
        command += ["--workdir", str(workdir), *overrides]
        started = []
        for number in range(processes):
            own = {"UNCLIP_PROCESS_ID": str(number)} if processes > 1 else {}
            with (self.folder / f"output_{number}.txt").open("ab") as output:
                started.append(
                    subprocess.Popen(
                        command, env={**common, **own}, stdout=output, stderr=subprocess.STDOUT
                    )
                )
        self.started += started
        return started

    def newest(self) -> int:
        """The newest checkpoint's step, 0 without one."""
        folder = self.workdir / "checkpoints"
        return next(iter(complete_steps(folder)), 0) if folder.is_dir() else 0

    def disturb(self, number: int, began: float) -> None:
        """One attempt with one fault."""
        name = self.random.choice(list(FAULTS))
        processes = self.random.choice((1, 2))
        before = self.newest()
        codes = FAULTS[name](self, processes)
        self.log(
            f"{time.monotonic() - began:6.1f} s  fault {number:2}  {name:34} {processes} process"
            f"{'es' if processes > 1 else '  '}  checkpoint {before:5} -> {self.newest():5}  "
            f"exit codes {codes}"
        )

    def wait(self, processes: list[subprocess.Popen], allowed: set[int]) -> list[int]:
        """Exit codes; a code that is not allowed ends the soak."""
        codes = [process.wait(timeout=300) for process in processes]
        if not set(codes) <= allowed:
            raise SystemExit(f"unexpected exit codes {codes}; allowed {sorted(allowed)}")
        return codes

    def pause(self) -> None:
        """From within the start to some seconds of steps."""
        time.sleep(self.random.choice((0.5, 2.0, 4.0)) + self.random.uniform(0, 4.0))


def _kill(soak: Soak, processes: int) -> list[int]:
    attempt = soak.start(soak.workdir, processes, TOY_SLOW=str(STEP_SECONDS))
    soak.pause()
    soak.random.choice(attempt).kill()
    return soak.wait(attempt, {KILLED, ABORTED, 69})


def _kill_in_phase(phase: str, most: int) -> Callable[[Soak, int], list[int]]:
    def fault(soak: Soak, processes: int) -> list[int]:
        moment = f"{phase}:{soak.random.randint(1, most)}:{soak.random.uniform(0, 0.03):.4f}"
        attempt = soak.start(soak.workdir, processes, TOY_SLOW=str(STEP_SECONDS), TOY_KILL=moment)
        return soak.wait(attempt, {KILLED, ABORTED, 69})

    return fault


def _signal(number: int) -> Callable[[Soak, int], list[int]]:
    def fault(soak: Soak, processes: int) -> list[int]:
        attempt = soak.start(soak.workdir, processes, TOY_SLOW=str(STEP_SECONDS))
        _until_steps(soak, attempt)
        time.sleep(soak.random.uniform(0, 3))
        soak.random.choice(attempt).send_signal(number)
        return soak.wait(attempt, {75})

    return fault


def _freeze(soak: Soak, processes: int) -> list[int]:
    """A stopped process: JAX ends its peer; on its own it goes on, and is asked to stop."""
    attempt = soak.start(soak.workdir, processes, TOY_SLOW=str(STEP_SECONDS))
    _until_steps(soak, attempt)
    frozen = soak.random.choice(attempt)
    frozen.send_signal(signal.SIGSTOP)
    time.sleep(12)
    frozen.send_signal(signal.SIGCONT)
    if processes == 1:
        frozen.terminate()
        return soak.wait(attempt, {75})
    return soak.wait(attempt, {ABORTED, 69})


def _stall(soak: Soak, processes: int) -> list[int]:
    attempt = soak.start(soak.workdir, processes, TOY_STALL=str(soak.newest() + 73))
    return soak.wait(attempt, {76, ABORTED, 69})


def _damage(change: Callable[[pathlib.Path, random.Random], None]) -> Callable[..., list[int]]:
    """Kills, then damages the newest checkpoint; there are always older ones."""

    def fault(soak: Soak, processes: int) -> list[int]:
        attempt = soak.start(soak.workdir, processes, TOY_SLOW=str(STEP_SECONDS))
        _until_steps(soak, attempt)
        time.sleep(soak.random.uniform(2, 4))
        attempt[0].kill()
        codes = soak.wait(attempt, {KILLED, ABORTED, 69})
        if len(complete_steps(soak.workdir / "checkpoints")) > 1:
            folder = soak.workdir / "checkpoints" / str(soak.newest()) / "state"
            files = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d")
            change(soak.random.choice(files), soak.random)
        return codes

    return fault


def _flip(path: pathlib.Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _truncate(path: pathlib.Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


FAULTS: dict[str, Callable[[Soak, int], list[int]]] = {
    "kill -9 at any moment": _kill,
    "kill -9 in compilation": _kill_in_phase("compile", 1),
    "kill -9 in evaluation": _kill_in_phase("evaluate", 300),
    "kill -9 in a save": _kill_in_phase("save", 4),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGINT": _signal(signal.SIGINT),
    "SIGSTOP for 12 s": _freeze,
    "stall of a live process": _stall,
    "kill -9, then a bit flips": _damage(_flip),
    "kill -9, then a file is truncated": _damage(_truncate),
}


def _until_steps(soak: Soak, attempt: list[subprocess.Popen]) -> None:
    """Until this attempt has saved: it has then made steps of its own."""
    before, deadline = soak.newest(), time.monotonic() + 90
    while soak.newest() <= before and time.monotonic() < deadline:
        if any(process.poll() is not None for process in attempt):
            raise SystemExit(f"an attempt ended by itself: {[p.poll() for p in attempt]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _params(workdir: pathlib.Path) -> tuple[dict, int]:
    shapes = {
        "inner": {"w": (768, 96), "b": (96,)},
        "outer": {"w": (96, 16), "b": (16,)},
    }
    abstract = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    return load_params(workdir, abstract, weights="raw")


def _equal(a: dict, b: dict) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def main() -> int:
    """Runs the soak; exit code 0 if the parameters are equal bit for bit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10.0, help="no new fault after this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=pathlib.Path, help="also write what is printed here")
    args = parser.parse_args()
    lines: list[str] = []

    def log(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, args.seed, log)
    try:
        same = _soak(soak, args, log)
    finally:
        for process in soak.started:
            process.kill()
        if args.log:
            args.log.write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder)
    return 0 if same else 1


def _soak(soak: Soak, args: argparse.Namespace, log: Callable[[str], None]) -> bool:
    log(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, seed {args.seed}")
    for split, count in (("train", "1000"), ("unseen", "64")):
        where = ["--out", str(soak.folder / "shards" / split), "--split", split, "--count", count]
        cli.main(["data", "shapes", *where])
    undisturbed = soak.folder / "undisturbed"
    soak.wait(soak.start(undisturbed, 1, save_every=1000), {0})
    began, done = time.monotonic(), 0
    while done < args.faults and time.monotonic() - began < 60 * args.minutes:
        done += 1
        soak.disturb(done, began)
    minutes = (time.monotonic() - began) / 60
    soak.wait(soak.start(soak.workdir, 1, save_every=1000), {0})
    (expected, _), (found, step) = _params(undisturbed), _params(soak.workdir)
    same = _equal(expected, found)
    seconds = goodput.report(goodput.read(soak.workdir))
    log(f"{done} faults in {minutes:.1f} minutes, then to step {step} undisturbed")
    log("seconds: " + ", ".join(f"{cause} {spent:.0f}" for cause, spent in seconds.items()))
    log(f"parameters equal to the undisturbed run's, bit for bit: {same}")
    return same and done == args.faults


if __name__ == "__main__":
    sys.exit(main())
