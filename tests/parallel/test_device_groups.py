"""Groups of devices in all the ways that HLO writes them."""

import pytest

from unclip_jax.parallel.device_groups import device_groups


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}, use_global_device_ids=true", (0, 2)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['a'=1,'b'=64] {'b'}, x={'y'}", tuple(range(64))),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", (0, 1)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", (0, 2)),
        ("source_target_pairs={{0,1},{1,2},{2,3},{3,0}}, x", (0, 1, 2, 3)),
        ("source_target_pairs={{0,4},{1,5}}", (0, 4)),
        ("to_apply=%add", ()),
    ],
)
def test_groups_are_read(text, group):
    line = f"  %r = f32[8]{{0}} all-reduce(f32[8]{{0}} %p), channel_id=1, {text}"
    assert device_groups(line) == group
