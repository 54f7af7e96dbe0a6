"""Machines by name, and the one table of what their chips can do."""

import pytest

from unclip_jax.errors import UserError
from unclip_jax.preflight.chips import GIB, GPUS, TPUS
from unclip_jax.preflight.topology import gpu_topology, tpu_topology


def test_a_slice_is_read_from_its_name():
    pod = tpu_topology("v5p:4x4x8", slices=2)
    assert (pod.chips, pod.island, pod.name) == (256, 128, "2 x v5p:4x4x8")
    assert pod.is_tpu
    assert pod.chip.hbm == 95.73 * GIB


def test_links_of_the_torus_add_up_and_short_axes_are_no_rings():
    """How To Scale Your Model: a ring sends both ways, from 4 chips on v5p, from 16 on v5e."""
    assert tpu_topology("v5p:4x4x4").fast == 6 * 9e10
    assert tpu_topology("v5p:2x2x1").fast == 2 * 9e10
    assert tpu_topology("v5e:16x16").fast == 4 * 4.5e10
    assert tpu_topology("v5e:4x4").fast == 2 * 4.5e10


def test_gpus_have_hosts_of_eight():
    assert gpu_topology(4, "H100", None).island == 4
    two_hosts = gpu_topology(16, "A100", 40.0)
    assert (two_hosts.chips, two_hosts.island, two_hosts.name) == (16, 8, "16 x A100")
    assert two_hosts.chip.hbm == 40e9 - 2 * GIB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5p", "is not GENERATION:AxB"),
        ("v5q:2x2x2", "did you mean 'v5p'"),
        ("v5e:2x2x2", "has 2 sides"),
        ("v5p:0x2x2", "has 3 sides"),
    ],
)
def test_topologies_that_do_not_exist_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        tpu_topology(text)


def test_gpus_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="no GPU 'H101'"):
        gpu_topology(8, "H101", None)
    with pytest.raises(UserError, match="in GB"):
        gpu_topology(8, "H100", 1.0)


def test_every_chip_has_a_peak_and_sensible_figures():
    for chip in (*TPUS.values(), *GPUS.values()):
        assert chip.peak > 1e14
        assert 100 < chip.peak / chip.bandwidth < 700  # FLOP per byte: the ridge of its roofline
        assert chip.network < chip.link < chip.bandwidth
