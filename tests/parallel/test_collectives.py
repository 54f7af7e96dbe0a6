"""Collectives are read from programs whose traffic is known by construction."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unclip_jax.config.schema import Mesh
from unclip_jax.parallel import make_mesh
from unclip_jax.parallel.collectives import bytes_by_kind, collectives


def compiled(function, spec, out, *shapes):
    mesh = make_mesh(Mesh())
    arguments = [
        jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(mesh, spec)) for s in shapes
    ]
    layout = NamedSharding(mesh, out)
    return jax.jit(function, out_shardings=layout).lower(*arguments).compile().as_text()


def test_a_sum_over_devices_is_one_all_reduce_of_its_result():
    (found,) = collectives(compiled(lambda x: x.sum(0), P("data"), P(), (16, 24)))
    assert (found.kind, found.bytes, found.shapes) == ("all-reduce", 24 * 4, ("f32[24]",))
    assert not found.in_loop
    assert found.source.endswith("reduce_sum")


def test_a_gather_counts_the_whole_array_and_loops_are_marked():
    def turns(x):
        return jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(x + c[None]).sum(0), jnp.zeros(24))

    found = collectives(compiled(turns, P("data"), P(), (16, 24)))
    assert [(c.kind, c.in_loop) for c in found] == [("all-reduce", True)]
    found = collectives(compiled(lambda x: x * 2, P("data"), P(), (16, 24)))
    assert bytes_by_kind(found) == {"all-gather": 16 * 24 * 4}


def test_loops_are_entered_as_often_as_they_turn():
    def turns(x):
        def inner(i, c):
            return jnp.sin(x + c[None]).sum(0)

        def outer(carry, _):
            return jax.lax.fori_loop(0, 3, inner, carry), None

        return jax.lax.scan(outer, jnp.zeros(24), length=5)[0]

    (found,) = collectives(compiled(turns, P("data"), P(), (16, 24)))
    assert (found.times, found.bytes, found.group) == (15, 24 * 4, tuple(range(8)))


TPU_TEXT = """
%all-reduce-scatter.1 (p: bf16[256,64]) -> bf16[128,64] {
  %all-reduce.2 = bf16[256,64]{1,0:T(8,128)} all-reduce(%p), channel_id=7, replica_groups={{0,1}}
}
%start (p: bf16[8,4]) -> bf16[8,8] {
  %all-gather.1 = bf16[8,8]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,2]<=[4]
}
%done (p: bf16[8,4]) -> bf16[8,8] {
  %all-gather.2 = bf16[8,8]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,2]<=[4]
}
%turn (s: s32[]) -> s32[] {
  %f = bf16[8,8]{1,0} fusion(%s), kind=kCustom, calls=%start
  %g = bf16[8,8]{1,0} fusion(%s), kind=kCustom, calls=%done
}
%go_on (s: s32[]) -> pred[] {
  %limit = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[]{:T(512)} compare(%s, %limit), direction=LT
}
ENTRY %main (x: s32[]) -> s32[] {
  %w = s32[] while(%x), condition=%go_on, body=%turn
  %r = bf16[128,64]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_the_parts_of_a_collective_on_a_tpu_count_as_one():
    """As libtpu writes it: spread over fusions of one channel, sum and slice in one fusion."""
    scatter, gather = collectives(TPU_TEXT)
    assert (scatter.kind, scatter.bytes, scatter.times) == ("reduce-scatter", 256 * 64 * 2, 1)
    assert (gather.kind, gather.bytes, gather.times) == ("all-gather", 8 * 8 * 2, 24)
    assert gather.in_loop
    assert gather.group == (0, 1)


def test_an_exchange_that_is_begun_counts_its_result_and_not_its_handles():
    line = (
        "  %c = (f32[8,4]{1,0}, f32[8,4]{1,0}, u32[], u32[]) collective-permute-start(%p), "
        "channel_id=2, source_target_pairs={{0,1},{1,0}}"
    )
    (found,) = collectives(f"ENTRY %main (p: f32[8,4]) -> f32[8,4] {{\n{line}\n}}\n")
    assert (found.kind, found.bytes, found.group) == ("collective-permute", 8 * 4 * 4, (0, 1))


def test_a_sum_between_slices_is_read_from_what_hosts_send():
    """As libtpu 0.0.42.1 writes it for two slices of four chips, with its recv beside it."""
    between = (
        "channel_id=8, is_host_transfer=true, frontend_attributes={"
        '_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    lines = (
        f"  %s = (bf16[3,8,128]{{2,1,0}}, u32[], token[]) send(%p, %after), {between}\n"
        f"  %r = (bf16[3,8,128]{{2,1,0}}, u32[], token[]) recv(%after), {between}\n"
    )
    (found,) = collectives(f"ENTRY %main (p: bf16[3,8,128]) -> f32[] {{\n{lines}}}\n")
    assert (found.kind, found.bytes, found.group) == ("all-reduce", 3 * 8 * 128 * 2, (0, 4))
