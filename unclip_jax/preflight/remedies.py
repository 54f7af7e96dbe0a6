"""What to change when a run does not fit: every candidate is tried by the model, none is guessed.

Candidates change the fewest settings that help, among
  config.mesh.fsdp         more of it (powers of two, inside a slice); the batch stays
  config.model.remat       a policy that keeps less
  config.train.accumulate  the batch in more parts
and only if no combination of these fits, a smaller config.train.batch_size, which changes the
training itself. Among equally small changes the one with the shortest step wins.
"""

import dataclasses
import itertools
from collections.abc import Iterator

from unclip_jax.config import RunConfig
from unclip_jax.errors import UserError
from unclip_jax.preflight.forecast import Forecast, Traces, forecast
from unclip_jax.preflight.topology import Topology

POLICIES = ("none", "norms", "full")  # from what keeps most to what keeps least


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Settings that make a run fit, and what the model says of it then."""

    settings: dict[str, str]
    forecast: Forecast


def smallest_remedy(
    now: Forecast, topology: Topology, traces: Traces, beyond: float = 1.0
) -> Remedy | None:
    """The smallest change with which the run fits; None if none of them helps.

    Args:
      beyond: how many times the model's bytes a program really takes, where that is known.
    """
    for equally_small in _by_size(now, topology):
        tried = [_tried(now, settings, topology, traces) for settings in equally_small]
        fitting = [
            remedy
            for remedy in tried
            if remedy and beyond * remedy.forecast.memory.total <= topology.chip.hbm
        ]
        if fitting:
            return min(fitting, key=lambda remedy: remedy.forecast.time.step)
    return None


def _by_size(now: Forecast, topology: Topology) -> Iterator[list[dict[str, str]]]:
    """Candidates, the smallest changes first; then batches of half the size, a quarter …"""
    candidates = sorted(_candidates(now, topology), key=_changes)
    for changes, equally_small in itertools.groupby(candidates, key=_changes):
        if changes:
            yield list(equally_small)
    # In one part: parts of the whole batch have been tried above.
    unparted = [settings for settings in candidates if "train.accumulate" not in settings]
    batch = now.config.train.batch_size // 2
    while batch:
        yield [{**settings, "train.batch_size": str(batch)} for settings in unparted]
        batch //= 2


def _changes(settings: dict[str, str]) -> int:
    return len(settings.keys() - {"mesh.data"})  # which only makes room for more fsdp


def apply(config: RunConfig, settings: dict[str, str]) -> RunConfig:
    """The config with settings such as {"mesh.fsdp": "16"} changed."""
    groups: dict[str, dict[str, object]] = {}
    for path, text in settings.items():
        group, name = path.split(".")
        groups.setdefault(group, {})[name] = int(text) if text.lstrip("-").isdigit() else text
    changed = {
        group: dataclasses.replace(getattr(config, group), **values)
        for group, values in groups.items()
    }
    return dataclasses.replace(config, **changed)


def _candidates(now: Forecast, topology: Topology) -> Iterator[dict[str, str]]:
    island = topology.chips // topology.slices // now.mesh["tensor"]
    ways = [1 << i for i in range(island.bit_length()) if island % (1 << i) == 0]
    fsdps = [None, *(f for f in ways if f > now.mesh["fsdp"])]
    policies = [None, *POLICIES[POLICIES.index(now.config.model.remat) + 1 :]]
    parts = [None, *(now.config.train.accumulate * 2**i for i in range(1, now.rows.bit_length()))]
    for fsdp in fsdps:
        for policy in policies:
            for accumulate in parts:
                settings = {}
                if fsdp is not None:
                    settings["mesh.fsdp"] = str(fsdp)
                    settings["mesh.data"] = "-1"
                if policy is not None:
                    settings["model.remat"] = policy
                if accumulate is not None:
                    settings["train.accumulate"] = str(accumulate)
                yield settings


def _tried(
    now: Forecast, settings: dict[str, str], topology: Topology, traces: Traces
) -> Remedy | None:
    try:
        return Remedy(settings, forecast(apply(now.config, settings), topology, traces))
    except UserError:  # the batch or the networks do not divide like that
        return None
