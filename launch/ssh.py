"""Hosts over SSH (asyncssh). Host keys are checked always; a host that is not known is refused.

Keepalives find a dead link in a few seconds. A command that is cut off does not end what runs on
the host: that is the keeper's, and a later connection follows it from where this one stopped.
"""

import asyncio
import os
import pathlib
import shlex
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from unclip_jax.errors import UserError

from .hosts import HostLost, Ran
from .spec import Host

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 5.0
KEEPALIVES_MISSED = 3
COMMAND_SECONDS = 3600.0  # the longest: installing an environment


class SshConnection:
    """One host; connects when first used, and again after the connection broke."""

    def __init__(self, host: Host, known_hosts: str = "", identity: str = ""):
        self._host, self._known_hosts, self._identity = host, known_hosts, identity
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def run(self, argv: Sequence[str], stdin: bytes = b"") -> Ran:
        """Runs a command to its end."""
        import asyncssh

        connection = await self._connect()
        try:
            ran = await connection.run(
                shlex.join(argv), input=stdin, encoding=None, timeout=COMMAND_SECONDS
            )
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise await self._lost(error) from None
        if ran.exit_status is None:  # the connection ended before the command did
            raise await self._lost(ConnectionError("connection lost"))
        return Ran(ran.exit_status, ran.stdout or b"", ran.stderr or b"")

    async def lines(self, argv: Sequence[str]) -> AsyncGenerator[str, None]:
        """The lines that a command prints, as they come."""
        import asyncssh

        connection = await self._connect()
        try:
            async with connection.create_process(shlex.join(argv), errors="replace") as process:
                async for line in process.stdout:
                    yield line
                await process.wait()
                if process.exit_status is None:
                    raise ConnectionError("connection lost")
        except (asyncssh.Error, OSError) as error:
            raise await self._lost(error) from None

    async def close(self) -> None:
        """Closes the connection, also one that has gone dead."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _connect(self) -> Any:
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._open()
            return self._connection

    async def _open(self) -> Any:
        try:
            import asyncssh
        except ImportError:
            raise UserError(
                "reaching hosts needs asyncssh: pip install 'unclip_jax[ssh]'"
            ) from None
        host = self._host
        options: dict[str, Any] = {
            "port": host.port,
            "connect_timeout": CONNECT_SECONDS,
            "login_timeout": CONNECT_SECONDS,
            "keepalive_interval": KEEPALIVE_SECONDS,
            "keepalive_count_max": KEEPALIVES_MISSED,
        }
        if host.user:
            options["username"] = host.user
        if self._known_hosts:
            options["known_hosts"] = self._known_hosts
        if self._identity:
            options["client_keys"] = [os.path.expanduser(self._identity)]
        config = pathlib.Path("~/.ssh/config").expanduser()
        if config.is_file():
            options["config"] = [str(config)]
        try:
            return await asyncssh.connect(host.login or host.address, **options)
        except asyncssh.HostKeyNotVerifiable as error:
            raise UserError(
                f"the key of host {host.name} is not known ({error}): log in once by hand to check "
                "it, or give a file of known keys with --known-hosts"
            ) from None
        except asyncssh.PermissionDenied:
            raise UserError(
                f"host {host.name} refuses the login {_login(host)}: check the user and "
                "the key (--identity)"
            ) from None
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise HostLost(f"{host.name}: {error or type(error).__name__}") from None

    async def _lost(self, error: BaseException) -> HostLost:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        return HostLost(f"{self._host.name}: {error or type(error).__name__}")


def _login(host: Host) -> str:
    where = host.login or host.address
    return f"{host.user}@{where}" if host.user else where


def read_hosts(path: pathlib.Path) -> tuple[Host, ...]:
    """The hosts of a file: `[user@]host[:port] [address=10.0.0.1]` on each line; # for comments.

    `address` is what the other hosts reach it at, if that is not what we log in to.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"--hosts {path}: can't be read: {error.strerror}") from None
    hosts = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            hosts.append(_host(words, f"{path}:{number}"))
    if not hosts:
        raise UserError(f"--hosts {path}: no host in it; write one per line, as in user@10.0.0.1")
    names = [host.name for host in hosts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--hosts {path}: {name} is listed twice")
    return tuple(hosts)


def _host(words: list[str], where: str) -> Host:
    user, _, place = words[0].rpartition("@")
    login, colon, port = place.partition(":")
    if not login or (colon and not port.isdecimal()):
        raise UserError(f"{where}: {words[0]!r} is not [user@]host[:port]")
    address = login
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key != "address" or not equals or not value:
            raise UserError(f"{where}: {word!r} is not address=…")
        address = value
    name = login if not colon else f"{login}:{port}"
    return Host(
        name=name, address=address, login=login, user=user or None, port=int(port) if colon else 22
    )
