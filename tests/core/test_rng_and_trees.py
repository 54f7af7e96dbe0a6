"""Keys are pure functions of name, step and row; trees flatten and come back."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from unclip_jax.core import images, rng, trees

ROOT = jax.random.key(0)


def draws(keys):
    return np.asarray(rng.normal(keys, (3,)))


def test_a_row_draws_the_same_in_any_batch():
    whole = draws(rng.example_keys(ROOT, "train", 5, 8))
    some = draws(rng.example_keys(ROOT, "train", 5, jnp.array([6, 2])))
    np.testing.assert_array_equal(some, whole[[6, 2]])


def test_names_steps_and_rows_give_different_draws():
    keys = [
        rng.example_keys(ROOT, "train", 5, 4),
        rng.example_keys(ROOT, "train", 6, 4),
        rng.example_keys(ROOT, "preview", 5, 4),
    ]
    keys += [rng.fold_in_name(keys[0], "noise"), rng.fold_in_name(keys[0], "drop")]
    values = np.concatenate([draws(k) for k in keys])
    assert len(np.unique(values)) == values.size


def test_keys_are_the_same_in_another_process():
    code = (
        "import jax; from unclip_jax.core import rng;"
        "print(jax.random.key_data(rng.fold_in_name(jax.random.key(0), 'noise')).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = jax.random.key_data(rng.fold_in_name(ROOT, "noise")).tolist()
    assert done.stdout.strip() == str(mine)


def test_noise_does_not_depend_on_the_mesh():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def keys(root):
        return rng.example_keys(root, "train", 1, 16)

    def bits(root):
        return jax.vmap(lambda key: jax.random.bits(key, (4,)))(keys(root))

    def normals(root):
        return rng.normal(keys(root), (4,))

    def on_mesh_and_off(draw):
        return jax.jit(draw, out_shardings=split)(ROOT), jax.jit(draw)(ROOT)

    np.testing.assert_array_equal(*on_mesh_and_off(bits))
    # The same bits; newer XLA rounds the inverse error function by how it vectorises a shape.
    np.testing.assert_array_max_ulp(*map(np.asarray, on_mesh_and_off(normals)), maxulp=1)


def test_trees_flatten_and_come_back():
    tree = {"b": {"kernel": np.zeros((2, 3))}, "a": np.ones(4)}
    flat = trees.flatten(tree)
    assert list(flat) == ["a", "b/kernel"]
    assert jax.tree.structure(trees.unflatten(flat)) == jax.tree.structure(tree)
    assert trees.count(tree) == 10


def test_pictures_round_trip_exactly():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    floats = images.to_float(levels)
    assert float(floats.min()) == -1.0
    assert float(floats.max()) == 1.0
    np.testing.assert_array_equal(images.to_uint8(floats), levels)
    np.testing.assert_array_equal(
        images.to_uint8(jnp.array([[[-3.0, 3.0, 0.0]]])), [[[0, 255, 128]]]
    )
