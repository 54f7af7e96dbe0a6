"""The real train step compiled ahead of time for TPUs that are not here, by their own compiler.

libtpu (the extra `tpu`) describes a topology and compiles for it on any Linux machine; nothing can
be run. What is compiled is `training.program`'s step, with the shardings and the donation that
training uses. Too large a program is refused with the bytes that it would need.
"""

import dataclasses
import importlib.util
import os
import re
import time
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from unclip_jax.config import RunConfig
from unclip_jax.errors import UserError
from unclip_jax.parallel import make_mesh
from unclip_jax.parallel.collectives import collectives
from unclip_jax.preflight.memory import Memory, compiled_memory
from unclip_jax.preflight.topology import Topology
from unclip_jax.preflight.traffic import Traffic, compiled_traffic
from unclip_jax.training.program import Program

NO_LIBTPU = (
    "compiling for a TPU needs its compiler, which is not installed: pip install "
    "'unclip_jax[tpu]', or give --fast for the analytic answer"
)
# Silences libtpu's search for a TPU, and lets several processes compile at once.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # whatever is compiled for
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_TOO_LARGE = re.compile(r"\(?([\d.]+)([KMGT])\)? exceeds|Used ([\d.]+)([KMGT]) of")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says.

    Attributes:
      memory: of one chip; None if the program is too large.
      needed: bytes that a program that is too large would need, if the compiler said.
      traffic: of a step.
      seconds: that compiling took.
    """

    memory: Memory | None
    needed: float | None
    traffic: list[Traffic]
    seconds: float


def has_libtpu() -> bool:
    """Whether the TPU's compiler is installed."""
    return importlib.util.find_spec("libtpu") is not None


def described_mesh(config: RunConfig, topology: Topology) -> Mesh:
    """The mesh of a config on the devices of a topology that need not be here.

    Raises:
      UserError: without libtpu, or if it knows no such topology.
    """
    if not has_libtpu():
        raise UserError(NO_LIBTPU)
    os.environ.update(_ENVIRONMENT)
    options: dict[str, Any] = {}
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, not one a core
    if topology.chips == topology.slices:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.slice_name, **options
        )
    except Exception as error:  # libtpu's errors have no common type
        reason = str(error).splitlines()[0]
        raise UserError(f"libtpu has no topology {topology.name}: {reason}") from None
    return make_mesh(config.mesh, described.devices)


def compile_step(
    program: Program, frozen: Any, batch: Any, mesh: Mesh, topology: Topology
) -> Compiled:
    """Compiles the step for the devices of `mesh`; minutes for large networks.

    Args:
      frozen, batch: shapes with shardings.
    """
    begun = time.monotonic()
    # A program for a machine that is not here can't be read back from the persistent cache.
    settings: Any = jax.config
    cached = settings.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with jax.set_mesh(mesh):
            step: Any = program.step  # a jitted function
            compiled = step.lower(program.target, frozen, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(None, needed_bytes(str(error)), [], time.monotonic() - begun)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    analysis = compiled.memory_analysis()
    beside = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    beside += analysis.generated_code_size_in_bytes - analysis.alias_size_in_bytes
    return Compiled(
        memory=compiled_memory(program, frozen, batch, beside),
        needed=None,
        traffic=compiled_traffic(collectives(compiled.as_text()), topology),
        seconds=time.monotonic() - begun,
    )


def needed_bytes(message: str) -> float | None:
    """The bytes of a program that the compiler found too large, if its message says them."""
    match = _TOO_LARGE.search(message)
    if match is None:
        return None
    number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return float(number) * _UNITS[unit]
