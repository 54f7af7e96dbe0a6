"""Given hosts shared out among trials: as many groups of equal size as trials run at a time.

A trial keeps the hosts that it was started on for as long as it may run there, also after the
driver was called again with another number of groups; a new one gets a group that is free of all
of these.
"""

from collections.abc import Iterable, Sequence

from unclip_jax.errors import UserError
from unclip_jax.launch.spec import Host

Hosts = tuple[Host, ...]


def divide(hosts: Hosts, count: int) -> tuple[Hosts, ...]:
    """`count` groups of neighbours in the list; without hosts (a backend finds its own) one, empty.

    Raises:
      UserError: if there are no such groups.
    """
    if not hosts:
        return ((),)
    if len(hosts) % count:
        fitting = ", ".join(str(n) for n in range(1, len(hosts) + 1) if len(hosts) % n == 0)
        raise UserError(
            f"--concurrency {count}: {len(hosts)} hosts don't make {count} groups of equal size; "
            f"with these hosts it can be {fitting}"
        )
    size = len(hosts) // count
    return tuple(hosts[i : i + size] for i in range(0, len(hosts), size))


def free_group(groups: Sequence[Hosts], taken: Iterable[Hosts]) -> Hosts | None:
    """The first group that shares no host with those taken."""
    busy = {host.name for hosts in taken for host in hosts}
    return next((g for g in groups if busy.isdisjoint(host.name for host in g)), None)
