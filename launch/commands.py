"""What is run on the hosts, as pure functions of the spec: `--dry-run` prints just these."""

import functools
import hashlib
import io
import json
import pathlib
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from .spec import Host, RunSpec

HERE = pathlib.Path(__file__).resolve().parent
AGENT = HERE / "agent"  # a folder that Python runs as it is; pushed as one file, by `agent_app`
HIDDEN = "(taken from the environment)"  # what a secret looks like in a dry run

# Proxies stand between processes that must find each other, and make JAX hang at its start.
PROXIES = tuple(
    name
    for kind in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for name in (kind, kind.upper())
)


@dataclass(frozen=True)
class Command:
    """One command on one host, and what it gets on standard input."""

    host: Host
    what: str
    argv: tuple[str, ...]
    stdin: bytes = b""


def host_of(spec: RunSpec, hosts: tuple[Host, ...], process: int) -> Host:
    """Where a process runs: neighbours in number share a host."""
    return hosts[process * len(hosts) // spec.processes]


def run_folder(spec: RunSpec) -> str:
    """What a run keeps on a host, besides its workdir."""
    return f"{spec.root}/runs/{spec.name}-{spec.id}"


def process_folder(spec: RunSpec, attempt: int, process: int) -> str:
    """The folder of one process of one attempt, on its host."""
    return f"{run_folder(spec)}/{attempt:03d}/{process:03d}"


def coordinator(spec: RunSpec, hosts: tuple[Host, ...], attempt: int) -> str:
    """Address and port where the processes of an attempt meet."""
    return f"{hosts[0].address}:{coordinator_port(spec, attempt)}"


def coordinator_port(spec: RunSpec, attempt: int) -> int:
    """Another one for each run and attempt, below those that Linux gives out by itself."""
    digest = hashlib.sha256(f"{spec.name} {spec.id} {attempt}".encode()).digest()
    return 20000 + int.from_bytes(digest[:4], "big") % 10000


def environment(
    spec: RunSpec, hosts: tuple[Host, ...], attempt: int, process: int
) -> dict[str, str]:
    """What a process finds in its environment, besides secrets."""
    found = dict(pair.split("=", 1) for pair in spec.env)
    found |= {"UNCLIP_RUN": spec.name, "UNCLIP_ATTEMPT": str(attempt)}
    if spec.processes > 1:
        found |= {
            "UNCLIP_COORDINATOR": coordinator(spec, hosts, attempt),
            "UNCLIP_NUM_PROCESSES": str(spec.processes),
            "UNCLIP_PROCESS_ID": str(process),
            "UNCLIP_HOSTS": ",".join(host_of(spec, hosts, p).name for p in range(spec.processes)),
        }
    return found | {"PYTHONUNBUFFERED": "1"}


def start(
    spec: RunSpec,
    hosts: tuple[Host, ...],
    attempt: int,
    process: int,
    secrets: Mapping[str, str],
) -> Command:
    """Starts one process; does nothing if it was started before."""
    job = {
        "argv": list(spec.command),
        "cwd": _cwd(spec),
        "env": environment(spec, hosts, attempt, process),
        "unset": list(PROXIES) if spec.processes > 1 else [],
        "packages": _packages(spec) if spec.install else None,
        "secrets": dict(secrets),
        "grace_seconds": spec.limits.grace_seconds,
        "lease_seconds": spec.limits.lease_seconds,
        "replaces": process_folder(spec, attempt - 1, process) if attempt > 1 else None,
    }
    host = host_of(spec, hosts, process)
    folder = process_folder(spec, attempt, process)
    return Command(
        host, f"start process {process}", _agent(spec, "start", folder), json.dumps(job).encode()
    )


def follow(spec: RunSpec, attempt: int, process: int, offset: int) -> tuple[str, ...]:
    """Follows the log of a process from a byte on, and its end."""
    return _agent(spec, "follow", process_folder(spec, attempt, process), str(offset))


def stop(spec: RunSpec, attempt: int, process: int, grace: float) -> tuple[str, ...]:
    """Ends a process: SIGTERM, `grace` seconds, SIGKILL."""
    return _agent(spec, "stop", process_folder(spec, attempt, process), f"{grace:g}")


def status(spec: RunSpec, attempt: int, process: int) -> tuple[str, ...]:
    """Whether a process runs."""
    return _agent(spec, "status", process_folder(spec, attempt, process))


def prepare(spec: RunSpec, host: Host, packed: bytes) -> list[Command]:
    """What a host needs before the first process: the agent, the code, the environment."""
    commands = [Command(host, "put the agent there", *_put_agent(spec))]
    if spec.setup:
        commands.append(Command(host, "set it up", ("sh", "-c", spec.setup)))
    if spec.code is None:
        return commands
    code = code_folder(spec)
    commands.append(Command(host, "unpack the code", _agent(spec, "unpack", code), packed))
    if spec.install is not None:
        for what, folder, steps in (
            ("install the environment", venv_folder(spec), _environment_steps(spec)),
            ("install the code", _packages(spec), _package_steps(spec)),
        ):
            job = json.dumps({"commands": steps}).encode()
            commands.append(Command(host, what, _agent(spec, "install", folder), job))
    return commands


def remove(spec: RunSpec, host: Host) -> Command:
    """Removes what a run left on a host; code and environments are shared and stay."""
    return Command(host, "remove its folder", ("rm", "-rf", run_folder(spec)))


def code_folder(spec: RunSpec) -> str:
    """Where pushed code lies on a host."""
    assert spec.code is not None
    return f"{spec.root}/code/{spec.code.sha256}"


def venv_folder(spec: RunSpec) -> str:
    """Where the Python environment lies on a host."""
    assert spec.install is not None
    return f"{spec.root}/venvs/{spec.install.lock}"


def _environment_steps(spec: RunSpec) -> list[list[str]]:
    assert spec.install is not None
    venv, extras = venv_folder(spec), spec.install.extras
    what = _pip_path(code_folder(spec)) + (f"[{extras}]" if extras else "")
    pins = ["-c", f"{code_folder(spec)}/{spec.install.pins}"] if spec.install.pins else []
    return [
        [spec.install.python, "-m", "venv", venv],
        [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", *pins, what],
    ]


def _package_steps(spec: RunSpec) -> list[list[str]]:
    pip = [f"{venv_folder(spec)}/bin/python", "-m", "pip", "install", "--quiet"]
    return [[*pip, "--no-deps", "--target", _packages(spec), _pip_path(code_folder(spec))]]


def _pip_path(folder: str) -> str:
    """A folder that pip does not take for the name of a package."""
    return folder if folder.startswith("/") else f"./{folder}"


def _packages(spec: RunSpec) -> str:
    assert spec.code is not None
    assert spec.install is not None
    return f"{spec.root}/packages/{spec.code.sha256}-{spec.install.lock}"


def _cwd(spec: RunSpec) -> str:
    return spec.cwd or (code_folder(spec) if spec.code else ".")


def _agent(spec: RunSpec, *arguments: str) -> tuple[str, ...]:
    place = str(AGENT) if spec.backend == "local" else _agent_there(spec)
    return (spec.host_python, place, *arguments)


@functools.cache
def agent_app() -> bytes:
    """The agent as a zip file that Python runs; the same code gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as app:
        for path in sorted(AGENT.glob("*.py")):
            app.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return buffer.getvalue()


def _agent_there(spec: RunSpec) -> str:
    return f"{spec.root}/agent/{hashlib.sha256(agent_app()).hexdigest()[:16]}/agent.pyz"


def _put_agent(spec: RunSpec) -> tuple[tuple[str, ...], bytes]:
    """(argv, standard input) that write it, whole or not at all."""
    place = _agent_there(spec)
    folder = place.rpartition("/")[0]
    folder, place = shlex.quote(folder), shlex.quote(place)
    shell = f"umask 077; mkdir -p {folder} && cat > {place}.$$ && mv {place}.$$ {place}"
    return ("sh", "-c", shell), agent_app()
