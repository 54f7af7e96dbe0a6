"""Where processes that we start ourselves run: given hosts, or hosts that are provisioned first."""

from typing import Protocol

from .attempt import Show
from .hosts import Connection, ThisMachine
from .record import Record
from .spec import Host, RunSpec
from .ssh import SshConnection

HERE = Host(name="local", address="127.0.0.1")


class Place(Protocol):
    """A source of hosts.

    Attributes:
      rented: whether `release` takes the hosts away, and all that is on them.
    """

    rented: bool

    async def hosts(self, record: Record, show: Show) -> tuple[Host, ...]:
        """The hosts of the run, provisioned if need be; may be asked again at every attempt."""
        ...

    def connect(self, host: Host) -> Connection:
        """A connection, opened when it is first used."""
        ...

    async def release(self, record: Record, show: Show) -> None:
        """Gives back what was provisioned."""
        ...


class Local:
    """This machine."""

    rented = False

    async def hosts(self, record: Record, show: Show) -> tuple[Host, ...]:
        """Always the one."""
        return (HERE,)

    def connect(self, host: Host) -> Connection:
        """Child processes."""
        return ThisMachine()

    async def release(self, record: Record, show: Show) -> None:
        """Nothing was provisioned."""


class GivenHosts:
    """The hosts of the spec, over SSH."""

    rented = False

    def __init__(self, spec: RunSpec):
        self._spec = spec

    async def hosts(self, record: Record, show: Show) -> tuple[Host, ...]:
        """Those of the hosts file."""
        return self._spec.hosts

    def connect(self, host: Host) -> Connection:
        """An SSH connection."""
        return SshConnection(host, self._spec.known_hosts, self._spec.identity)

    async def release(self, record: Record, show: Show) -> None:
        """They are not ours."""
