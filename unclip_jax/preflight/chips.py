"""What a chip can do: the one table that every estimate is made from.

Peaks are those of `training.throughput`, from data sheets. Sources of the rest:
  HBM           TPUs: what their compiler says it may use (jax 0.10.2, "exceeds available HBM");
                GPUs: data sheets, less the runtime's 2 GiB
  HBM bandwidth data sheets (TPU v5p 2.765 TB/s, v6e 1.64, v5e 0.819, v4 1.2; NVIDIA's for GPUs)
  links         TPUs: Austin et al. 2025 (How to Scale Your Model, chapter 2), bytes/s one way of a
                link; an axis of the torus is a ring, with a link each way, from `ring` chips on.
                GPUs: NVLink, bytes/s one way of a GPU, all links together
  network       TPUs: 25 GB/s a host (the same); GPUs: one 400 Gbit/s port each (A100: 200)

GPUs were compared with these on 2026-11-24; NVIDIA states NVLink both ways together, twice `link`:
  A100 (SXM, 80 GB)  NVLink 600 GB/s: NVIDIA's blog on HGX A100 (2020); HBM 2,039 GB/s
  H100 (SXM)         NVLink 900 GB/s, 450 one way: NVIDIA/nccl, thread 1264; HBM 3.35 TB/s
  H200 (SXM)         141 GB, 18 NVLinks with 900 GB/s, ports of 400 Gbit/s: NVIDIA's own system
                     description in MLPerf Inference 4.1; HBM 4.8 TB/s
  B200 (HGX, DGX)    8 with 1,440 GB, 14.4 TB/s of NVLink, 8 ConnectX-7 of 400 Gbit/s: NVIDIA's DGX
                     B200 user guide; HBM 8.0 TB/s: docs.vultr.com, HGX B200 hardware overview
The bandwidths of HBM were read in pages that repeat the data sheets, not in these; no source was
found for the ports of an A100 host.
"""

from dataclasses import dataclass, replace

from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.training.throughput import peak_flops

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as in a topology, "v5p" or "H100".
      kind: what JAX calls it.
      hbm: bytes that a program may use.
      bandwidth: of HBM, bytes/s.
      link: bytes/s one way: of a link to a neighbour (TPU), of all links together (GPU).
      network: bytes/s of a chip's share of its host's network.
      host: chips on a host.
      ring: chips along an axis from which on it is a ring; 0 for GPUs, which have switches.
      unit: channels that its matrix unit takes at once; fewer are padded.
    """

    name: str
    kind: str
    hbm: float
    bandwidth: float
    link: float
    network: float
    host: int
    ring: int = 0
    unit: int = 64

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns to whose multiples it fills up the last two sides of arrays in HBM."""
        return (8, 128) if self.ring else (1, 1)

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        peak = peak_flops(self.kind)
        assert peak is not None, f"no peak for {self.kind}"
        return peak


TPUS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 30.75 * GIB, 1.2e12, 4.5e10, 6.25e9, 4, 4, 128),
        Chip("v5e", "TPU v5 lite", 15.75 * GIB, 0.819e12, 4.5e10, 3.125e9, 8, 16, 128),
        Chip("v5p", "TPU v5", 95.73 * GIB, 2.765e12, 9e10, 6.25e9, 4, 4, 128),
        Chip("v6e", "TPU v6 lite", 31.24 * GIB, 1.64e12, 9e10, 3.125e9, 8, 16, 256),
    )
}
GPUS = {
    chip.name: chip
    for chip in (
        Chip("A100", "NVIDIA A100", 80e9 - 2 * GIB, 2.04e12, 3.0e11, 2.5e10, 8),
        Chip("H100", "NVIDIA H100", 80e9 - 2 * GIB, 3.35e12, 4.5e11, 5e10, 8),
        Chip("H200", "NVIDIA H200", 141e9 - 2 * GIB, 4.8e12, 4.5e11, 5e10, 8),
        Chip("B200", "NVIDIA B200", 180e9 - 2 * GIB, 8.0e12, 9.0e11, 5e10, 8),
    )
}


def tpu(name: str) -> Chip:
    """A TPU by its generation."""
    if name not in TPUS:
        hint = did_you_mean(name, TPUS)
        raise UserError(f"no TPU generation {name!r}{hint}; known are {', '.join(TPUS)}")
    return TPUS[name]


def gpu(name: str, hbm_gb: float | None = None) -> Chip:
    """A GPU by its name, with `hbm_gb` GB (1e9 bytes) instead of its usual memory if given."""
    if name not in GPUS:
        raise UserError(f"no GPU {name!r}{did_you_mean(name, GPUS)}; known are {', '.join(GPUS)}")
    chip = GPUS[name]
    if hbm_gb is None:
        return chip
    if hbm_gb * 1e9 <= 2 * GIB:
        raise UserError(f"--hbm {hbm_gb:g}: is in GB a GPU, such as 80")
    return replace(chip, hbm=hbm_gb * 1e9 - 2 * GIB)
