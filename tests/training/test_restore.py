"""Damaged checkpoints are found, set aside, and the one before is used."""

import dataclasses
import gc
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unclip_jax.errors import UserError
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.restore import load_params, newest_whole
from unclip_jax.training.state import TrainState

PROGRESS = Progress("{}", 2.0, skipped=((3, None, "{}"),), rollbacks=1)


@pytest.fixture(autouse=True)
def leave_nothing_to_complain_later():
    yield
    gc.collect()


def state_at(step):
    kernel = jax.random.normal(jax.random.key(step), (64, 64))  # random, so that nothing compresses
    params = {"layer": {"kernel": kernel, "bias": jnp.arange(8.0)}}
    return TrainState(
        jnp.int32(step),
        params,
        jax.tree.map(lambda x: x * 2, params),
        {"mu": jax.tree.map(jnp.ones_like, params)},
    )


def abstract(sharding=None):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or one), state_at(0)
    )


@pytest.fixture(scope="module")
def three_checkpoints(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("checkpoints")
    checkpointer = Checkpointer(workdir, keep=3)
    for step in (1, 2, 3):
        checkpointer.save(step, state_at(step), dataclasses.replace(PROGRESS, seconds=step))
    checkpointer.wait()
    checkpointer.close()
    return workdir


@pytest.fixture
def workdir(three_checkpoints, tmp_path):
    shutil.copytree(three_checkpoints, tmp_path / "run")
    return tmp_path / "run"


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def data_files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 4
    path.write_bytes(content)


def restored(workdir, target=None):
    steps = sorted((int(p.name) for p in (workdir / "checkpoints").iterdir()), reverse=True)
    return newest_whole(workdir, target or abstract(), steps)


def test_what_was_saved_is_restored(workdir):
    step, state, progress = restored(workdir)
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, state, state_at(3))
    assert progress == dataclasses.replace(PROGRESS, seconds=3)


def test_it_is_restored_on_another_mesh(workdir):
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    target = abstract(NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    kernel = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=split)
    target.params["layer"]["kernel"] = kernel
    step, state, _ = restored(workdir, target)
    assert (step, state.params["layer"]["kernel"].sharding) == (3, split)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(largest_file(folder)),
        lambda folder: os.truncate(largest_file(folder), largest_file(folder).stat().st_size // 2),
        lambda folder: largest_file(folder).unlink(),
        lambda folder: shutil.rmtree(folder / "state"),
        lambda folder: flip(folder / "record" / "metadata"),
        lambda folder: (folder / "record" / "metadata").write_text("{}"),
        lambda folder: [path.write_bytes(b"") for path in data_files(folder)],
    ],
    ids=["bit flip", "truncated", "file gone", "no state", "record", "empty record", "all empty"],
)
def test_a_damaged_newest_checkpoint_is_set_aside(workdir, damage, capsys):
    damage(workdir / "checkpoints" / "3")
    step, state, _ = restored(workdir)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, state, state_at(2))
    assert (workdir / "set_aside" / "3").is_dir()
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2"]
    assert "checkpoint 3" in capsys.readouterr().err


def test_no_flip_in_any_file_restores_wrong_values(workdir):
    """Wherever a byte changes: the same values, or the checkpoint before."""
    for path in data_files(workdir / "checkpoints" / "3"):
        for at in (0.1, 0.6):
            before = path.read_bytes()
            flip(path, at)
            step, state, _ = newest_whole(workdir, abstract(), (3, 2), set_aside=False)
            jax.tree.map(np.testing.assert_array_equal, state, state_at(step))
            path.write_bytes(before)


def test_when_none_is_whole_nothing_is_moved(workdir):
    for step in "123":
        flip(workdir / "checkpoints" / step / "record" / "metadata")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be restored"):
        restored(workdir)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2", "3"]


def test_weights_or_averages_alone(workdir):
    params = jax.eval_shape(lambda: state_at(0).params)
    for weights, tree in (("raw", state_at(3).params), ("ema", state_at(3).ema_params)):
        found, step = load_params(workdir, params, weights=weights)
        assert step == 3
        jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_averages_of_a_damaged_checkpoint_come_from_the_one_before(workdir):
    record = workdir / "checkpoints" / "3" / "record" / "metadata"
    content = json.loads(record.read_text())
    content["digests"]["ema_params/layer/kernel"] = "0" * 16
    record.write_text(json.dumps(content))
    _, step = load_params(workdir, jax.eval_shape(lambda: state_at(0).params), weights="ema")
    assert step == 2


def test_the_newest_and_one_of_every_so_many_are_kept(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2, keep_every=3)
    for step in range(1, 9):
        checkpointer.save(step, state_at(step), PROGRESS)
        checkpointer.wait()
    assert checkpointer.steps() == [8, 7, 6, 3]
    checkpointer.forget_after(6)
    assert checkpointer.steps() == [6, 3]
    checkpointer.save(7, state_at(7), PROGRESS)
    checkpointer.wait()
    checkpointer.close()
    assert restored(tmp_path)[0] == 7


def test_a_step_that_was_set_aside_is_saved_again(workdir):
    flip(workdir / "checkpoints" / "3" / "record" / "metadata")
    checkpointer = Checkpointer(workdir, keep=3)
    assert newest_whole(workdir, abstract(), checkpointer.steps())[0] == 2
    checkpointer.look_again()
    checkpointer.save(3, state_at(3), PROGRESS)
    checkpointer.wait()
    checkpointer.close()
    assert restored(workdir)[0] == 3
