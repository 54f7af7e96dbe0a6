"""Updates that are not finite: left out on the device, counted, rolled back, and given up on."""

import io
import json
import math
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from unclip_jax import data
from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import Faults
from unclip_jax.core import rng
from unclip_jax.data.device import needed_rows
from unclip_jax.errors import Diverged
from unclip_jax.parallel import batch_sharding
from unclip_jax.stages.stage import Stage
from unclip_jax.training.datasets import training_batches
from unclip_jax.training.guard import Guard, all_finite, keep_if_finite
from unclip_jax.training.restore import load_params
from unclip_jax.training.run import train
from unclip_jax.training.setup import set_up
from unclip_jax.training.state import TrainState
from unclip_jax.training.writers import read_metrics

BATCH = 8


def grey_of(batch):
    return np.asarray(batch["image_16"])[:, 0, 0, 0]


def stage():
    """Fits one number per batch; the loss of a picture whose grey is in `frozen` is infinite."""

    def loss(params, frozen, batch, keys):
        grey = batch["image_16"][:, 0, 0, 0].astype(jnp.float32)
        error = params["w"] * grey / 255 - rng.normal(keys, ())
        bad = jnp.any(grey[:, None] == frozen["poison"][None], axis=1)
        return jnp.where(bad, jnp.inf, 1.0) * error**2, {}

    return Stage("toy", BatchNeeds(image_sizes=(16,)), lambda key: {"w": jnp.ones(())}, loss)


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    """160 pictures, each of a grey of its own: 20 batches of 8 in an epoch."""
    folder = tmp_path_factory.mktemp("greys")
    with tarfile.open(folder / "train-00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for grey in range(160):
            buffer = io.BytesIO()
            Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(buffer, "PNG")
            for name, content in (("png", buffer.getvalue()), ("txt", b"a grey")):
                info = tarfile.TarInfo(f"{grey:06d}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def config_of(greys, **overrides):
    settings = {
        "data.train": str(greys / "train-*.tar"),
        "data.validation": "none",
        "train.duration": "12 steps",
        "train.batch_size": str(BATCH),
        "train.log_every": "1",
        "train.checkpoint_every": "2 steps",
        "train.keep_checkpoints": "10",
        "faults.max_skipped": "3",
        "faults.skip_window": "10",
    }
    return load_config("upsampler:tiny", {**settings, **overrides})


def first_batches(config, count):
    """Batches as (arrays on the host, grey of each picture), in the order of training."""
    run = set_up(config, stage(), {"poison": np.array([999.0], np.float32)}, None, None)
    rows = needed_rows(batch_sharding(run.mesh), BATCH)
    stream = training_batches(config, run.dataset, None, rows=rows)
    batches = [next(stream)[0] for _ in range(count)]
    stream.close()
    return run, batches


def poison(batches):
    return {"poison": np.concatenate([grey_of(b) for b in batches]).astype(np.float32)}


def trained(config, frozen, workdir):
    assert train(config, stage(), frozen, workdir)
    params, _ = load_params(workdir, jax.eval_shape(stage().init, jax.random.key(0)), weights="raw")
    return float(params["w"])


def by_hand(run, frozen, batches):
    """The same steps without a loop, on these batches."""
    state = run.fresh.state()
    for batch in batches:
        state, _ = run.step(state, frozen, batch)
    return float(state.params["w"])


def test_the_choice_keeps_every_bit_of_the_old_state():
    old = TrainState(jnp.int32(4), {"w": jnp.arange(3.0)}, {"w": jnp.ones(3)}, {"mu": jnp.ones(2)})
    new = TrainState(
        jnp.int32(5),
        *(
            jax.tree.map(lambda x: x * jnp.nan, t)
            for t in (old.params, old.ema_params, old.opt_state)
        ),
    )
    for values, expected in (
        ((jnp.float32(1), jnp.float32(jnp.nan)), old),
        ((jnp.float32(jnp.inf), jnp.float32(1)), old),
        ((jnp.float32(1), jnp.float32(2)), new),
    ):
        kept = jax.jit(keep_if_finite)(all_finite(*values), new, old)
        jax.tree.map(np.testing.assert_array_equal, kept, expected)


def test_a_bad_batch_is_left_out_and_counted(greys, tmp_path):
    config = config_of(greys)
    run, batches = first_batches(config, 12)
    bad = poison([batches[4]])
    w = trained(config, bad, tmp_path)
    records = read_metrics(tmp_path)
    assert [r["step"] for r in records if r["skipped"]] == [5]
    assert records[4]["param_norm"] is not None or records[4]["loss"] is None
    assert math.isfinite(w)
    with jax.set_mesh(run.mesh):
        assert w == by_hand(run, bad, batches)


def test_too_many_roll_back_and_their_data_is_left_out(greys, tmp_path, capsys):
    """Steps 5 to 7 fail: back to the checkpoint of step 4, and on with the eighth batch."""
    config = config_of(greys)
    run, batches = first_batches(config, 15)
    bad = poison(batches[4:7])
    w = trained(config, bad, tmp_path)
    assert "back to step 4" in capsys.readouterr().err
    with jax.set_mesh(run.mesh):
        assert w == by_hand(run, bad, [*batches[:4], *batches[7:15]])
    assert [r["step"] for r in read_metrics(tmp_path)] == list(range(1, 13))


def test_when_rolling_back_does_not_help_the_batches_are_named(greys, tmp_path):
    config = config_of(greys, **{"faults.max_rollbacks": "1"})
    everything = {"poison": np.arange(160, dtype=np.float32)}
    with pytest.raises(Diverged, match=r"3 updates in steps 1 to 3 .* after 1 rollbacks") as error:
        train(config, stage(), everything, tmp_path)
    assert error.value.exit_code == 65
    _, batches = first_batches(config, 6)
    rows = json.loads((tmp_path / "diverged.json").read_text())
    assert [row["step"] for row in rows] == [1, 2, 3]
    run, _ = first_batches(config, 1)
    for row, expected in zip(rows, batches[3:6], strict=True):  # 1 to 3 were given up before
        position = data.DataPosition.from_json(row["position"])
        replayed = training_batches(config, run.dataset, position, rows=np.arange(BATCH))
        np.testing.assert_array_equal(grey_of(next(replayed)[0]), grey_of(expected))
        replayed.close()


def test_only_the_window_counts():
    guard = Guard(Faults(max_skipped=2, skip_window=5), ())
    for step in range(1, 20):
        guard.note(step, "before", "after", jnp.float32(step % 6 == 0))
        assert not guard.tripped
    guard.note(20, "before", "after", jnp.float32(1))
    guard.read()
    assert guard.tripped
    assert [skip[0] for skip in guard.skipped] == [18, 20]
