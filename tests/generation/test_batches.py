"""Batches of one size: every example once, in order, padding dropped, split over the devices."""

import jax
import numpy as np
import pytest

from unclip_jax.config.schema import Mesh
from unclip_jax.generation.batches import choose_batch_size, run_batched
from unclip_jax.parallel import make_mesh


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(Mesh())


@pytest.mark.parametrize(
    ("examples", "wanted", "devices", "size"),
    [(1, None, 1, 1), (3, None, 1, 4), (9, None, 1, 16), (100, None, 1, 16), (100, 5, 1, 5),
     (1, 4, 1, 4), (3, None, 8, 8), (100, None, 8, 16), (100, 20, 8, 24)],
)  # fmt: skip
def test_batch_size_holds_all_examples_and_suits_the_devices(examples, wanted, devices, size):
    mesh = make_mesh(Mesh(), jax.devices()[:devices])
    assert choose_batch_size(examples, wanted, mesh) == size


@pytest.mark.parametrize("total", [1, 8, 21])
def test_each_example_comes_out_once_and_in_order(mesh, total):
    shapes, counts = [], []

    def program(x, keys):
        shapes.append((x.shape, len(x.sharding.device_set)))
        return 2 * x + jax.vmap(jax.random.bits)(keys)[:, None] % 2

    x = np.arange(3 * total).reshape(total, 3)
    keys = jax.random.split(jax.random.key(0), total)
    out = run_batched(program, [x, keys], batch_size=8, mesh=mesh, advance=counts.append)
    odd = np.array(
        [int(jax.random.bits(key)) % 2 for key in jax.random.split(jax.random.key(0), total)]
    )
    np.testing.assert_array_equal(out, 2 * x + odd[:, None])
    assert set(shapes) == {((8, 3), 8)}
    assert sum(counts) == total
    assert len(counts) == -(-total // 8)
