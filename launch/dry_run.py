"""What a launch would do, as text: the very commands, with what they get on standard input.

Nothing is connected to and no credential is read; secrets are shown by name. The same spec gives
the same text.
"""

import hashlib
import json
import shlex

from . import commands
from .commands import HIDDEN, Command
from .place import HERE
from .spec import Host, RunSpec


def on_hosts(spec: RunSpec, packed: bytes) -> str:
    """The commands of the first attempt on hosts that the spec names."""
    return commands_on(spec, spec.hosts or (HERE,), packed)


def commands_on(spec: RunSpec, hosts: tuple[Host, ...], packed: bytes) -> str:
    """The commands of the first attempt on these hosts."""
    secrets = dict.fromkeys(spec.secrets, HIDDEN)
    steps: list[Command] = []
    if spec.backend != "local":
        for host in hosts:
            steps += commands.prepare(spec, host, packed)
    steps += [commands.start(spec, hosts, 1, p, secrets) for p in range(spec.processes)]
    for process in range(spec.processes):
        host = commands.host_of(spec, hosts, process)
        argv = commands.follow(spec, 1, process, 0)
        steps.append(Command(host, f"follow process {process}", argv))
    return "\n".join(_shown(step) for step in steps)


def _shown(command: Command) -> str:
    text = f"# {command.host.name}: {command.what}\n{shlex.join(command.argv)}"
    if not command.stdin:
        return text + "\n"
    if command.stdin.startswith(b"{"):
        return f"{text} <<'END'\n{json.dumps(json.loads(command.stdin), indent=1)}\nEND\n"
    digest = hashlib.sha256(command.stdin).hexdigest()[:16]
    return f"{text} < {len(command.stdin)} bytes, sha256 {digest}…\n"
