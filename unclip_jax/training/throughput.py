"""How fast a run is, in figures that can be compared: examples, FLOP/s and MFU of a device.

MFU (model FLOPs utilisation; Chowdhery et al. 2022, arXiv 2204.02311, appendix B) is the rate of
useful FLOPs over the data sheet's dense bfloat16 peak. Where the peak is not known, on a CPU for
one, there is no MFU: it is None and not a guess.
"""

import dataclasses
import resource

import jax

# Dense bfloat16 (float16 where there is none) FLOP/s of what JAX calls a device, from data sheets;
# the first name that begins a device kind counts. A TPU v2 or v3 device is half a chip.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
}


def peak_flops(device_kind: str) -> float | None:
    """The peak of a device kind, `jax.Device.device_kind`; None where it is not known."""
    for name, peak in PEAK_FLOPS.items():
        if device_kind == name or device_kind.startswith((name + " ", name + "-")):
            return peak
    return None


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Turns a rate of steps into figures.

    Attributes:
      batch_size: examples a step, over all devices.
      devices: how many there are, over all processes.
      peak: FLOP/s of one of them, if known.
      flops_per_example: of training, forward and backward, if known.
    """

    batch_size: int
    devices: int
    peak: float | None = None
    flops_per_example: float | None = None

    @classmethod
    def here(cls, batch_size: int, flops_per_example: float | None = None) -> "Throughput":
        """On the devices of this program, which are taken to be of one kind."""
        devices = jax.devices()
        return cls(batch_size, len(devices), peak_flops(devices[0].device_kind), flops_per_example)

    def figures(self, steps_per_second: float) -> dict[str, float | None]:
        """Rates for the metrics; TFLOP/s and MFU only where the FLOPs of an example are known."""
        examples = steps_per_second * self.batch_size
        found: dict[str, float | None] = {
            "examples_per_second": examples,
            "examples_per_second_per_device": examples / self.devices,
        }
        if self.flops_per_example is not None:
            rate = examples / self.devices * self.flops_per_example
            found["tflops_per_second_per_device"] = rate / 1e12
            found["mfu"] = None if self.peak is None else rate / self.peak
        return found


def memory_peaks() -> dict[str, float]:
    """Largest memory in use so far in GB: of this process, and of a local device if it says."""
    peaks = {"host_memory_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    in_use = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
    known = [bytes_ for bytes_ in in_use if bytes_ is not None]
    return peaks | ({"device_memory_peak_gb": max(known) / 1e9} if known else {})
