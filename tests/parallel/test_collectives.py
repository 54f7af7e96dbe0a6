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
