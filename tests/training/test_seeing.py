"""Metrics, trackers, the profile window and pictures: what a run shows while it trains."""

import json
import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.config.schema import Profile
from unclip_jax.core import rng
from unclip_jax.errors import UserError
from unclip_jax.training.clock import Clock
from unclip_jax.training.metric_log import MetricLog
from unclip_jax.training.preview import make_previewer
from unclip_jax.training.profile import ProfileWindow
from unclip_jax.training.startup import Startup
from unclip_jax.training.throughput import Throughput, memory_peaks, peak_flops
from unclip_jax.training.trackers import open_trackers
from unclip_jax.training.writers import MetricWriter, read_metrics


class Value:
    """A metric that remembers whether it was read."""

    def __init__(self, value):
        self.value, self.read = value, False

    def __array__(self, dtype=None, copy=None):
        self.read = True
        return np.asarray(self.value, dtype)


class Records:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.kept = []

    def scalars(self, step, values):
        self.kept.append({"step": step, **values})


def make_log(every=1, **throughput):
    records = Records()
    throughput = Throughput(batch_size=8, devices=2, **throughput)
    log = MetricLog(records, Clock(0.0), every=every, throughput=throughput, startup=Startup())
    return log, records


def test_metrics_are_read_when_the_next_step_is_on_its_way():
    log, records = make_log()
    first, second = Value(1.0), Value(2.0)
    assert log.note(1, {"loss": first}) == {}
    assert not first.read
    assert log.note(2, {"loss": second})["loss"] == 1.0
    assert first.read
    assert not second.read
    log.flush()
    assert [r["loss"] for r in records.kept] == [1.0, 2.0]


def test_steps_between_records_are_not_read_at_all():
    log, records = make_log(every=3)
    values = [Value(float(i)) for i in range(1, 8)]
    for step, value in enumerate(values, 1):
        log.note(step, {"loss": value})
    assert [r["step"] for r in records.kept] == [3, 6]
    assert [v.read for v in values] == [False, False, True, False, False, True, False]


def test_rates_leave_the_first_step_out_and_the_start_is_told_once(monkeypatch):
    now = iter(np.arange(0.0, 1000.0, 0.5))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    log, records = make_log(every=1, flops_per_example=1e12, peak=1e14)
    for step in (1, 2, 3):
        log.note(step, {"loss": Value(1.0)})
    first, second = records.kept
    assert "startup/seconds_to_first_step" in first
    assert "examples_per_second" not in first
    assert "startup/seconds_to_first_step" not in second
    assert second["examples_per_second_per_device"] * 2 == second["examples_per_second"]
    assert second["mfu"] == pytest.approx(second["examples_per_second"] / 2 * 1e12 / 1e14)
    assert 0 <= second["data_wait_fraction"] <= 1


def test_figures_of_a_rate():
    figures = Throughput(batch_size=32, devices=4, peak=2e12, flops_per_example=5e9).figures(10.0)
    assert figures == {
        "examples_per_second": 320.0,
        "examples_per_second_per_device": 80.0,
        "tflops_per_second_per_device": pytest.approx(0.4),
        "mfu": pytest.approx(0.2),
    }
    assert "mfu" not in Throughput(batch_size=32, devices=4, peak=2e12).figures(1.0)


def test_an_unknown_device_has_no_mfu():
    here = Throughput.here(8, flops_per_example=1e9)
    assert here.devices == 8
    assert here.figures(1.0)["mfu"] is None


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", None),  # not a kind that JAX reports
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", None),
        ("cpu", None),
    ],
)
def test_peaks_by_device_kind(kind, tflops):
    assert peak_flops(kind) == (None if tflops is None else tflops * 1e12)


def test_the_memory_peak_is_that_of_the_process():
    before = memory_peaks()["host_memory_peak_gb"]
    block = np.ones(100_000_000, np.uint8)
    assert 0.01 < before <= memory_peaks()["host_memory_peak_gb"] < 1000
    assert block.sum() == len(block)


def test_a_start_counts_its_compilations():
    with Startup() as startup:
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x) + 0.125)(jnp.ones((7, 7))).block_until_ready()
    figures = startup.figures()
    assert 0 < figures["startup/compile_seconds"] <= figures["startup/seconds_to_first_step"]
    assert startup.figures() == {}
    jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x) + 0.25)(jnp.ones((7, 7)))
    assert startup._compiling == figures["startup/compile_seconds"]  # it listens no longer


def test_records_hold_null_for_what_is_not_known_or_not_finite(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.scalars(1, {"loss": 0.5, "mfu": None, "simple_q0": float("nan")})
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5, "mfu": None, "simple_q0": None}]


def write_with(names, workdir, step=1):
    config = load_config("upsampler:tiny", {"train.writers": names})
    writer = MetricWriter(workdir, step - 1, open_trackers(config, workdir, step - 1))
    writer.scalars(step, {"loss": 0.5 / step, "mfu": None})
    writer.image(step, "samples", np.zeros((4, 6, 3), np.uint8))
    writer.close()


def test_the_console_shows_a_record_in_one_line(tmp_path, capsys):
    write_with("console,tensorboard", tmp_path)
    assert capsys.readouterr().err == "step 1  loss 0.5\n"
    assert any((tmp_path / "tensorboard").iterdir())


WANDB_PROGRAM = """
import pathlib, sys
import numpy as np
from unclip_jax.config import load_config
from unclip_jax.training.trackers import WandbTracker

tracker = WandbTracker(load_config("upsampler:tiny"), pathlib.Path(sys.argv[1]))
tracker.scalars(1, {"loss": 0.5})
tracker.image(1, "samples", np.zeros((4, 6, 3), np.uint8))
tracker.close()
"""


def test_wandb_gets_scalars_and_pictures_offline(tmp_path):
    """The real package, without a network and in a process of its own, since it starts others."""
    pytest.importorskip("wandb")
    given = dict(os.environ, WANDB_MODE="offline", WANDB_SILENT="true")
    program = [sys.executable, "-c", WANDB_PROGRAM, str(tmp_path)]
    done = subprocess.run(program, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    name = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    record = (folder / f"run-{name}.wandb").read_bytes()
    assert b"loss" in record
    assert b"learning_rate" in record  # the config
    assert len(list(folder.glob("files/media/images/samples_*.png"))) == 1


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_one_run_over_restarts(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(logging.getLogger("mlflow"), "disabled", True)
    write_with("mlflow", tmp_path, step=1)
    write_with("mlflow", tmp_path, step=2)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("unclip_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED"
    assert {"config.json", "images"} <= {f.path for f in client.list_artifacts(run.info.run_id)}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    config = load_config("upsampler:tiny", {"train.writers": name})
    with pytest.raises(UserError, match=rf"pip install 'unclip_jax\[{name}\]'"):
        open_trackers(config, tmp_path, 0)


def test_an_unknown_writer_is_refused():
    with pytest.raises(UserError, match=r"config\.train\.writers\[0\].*not one of console"):
        load_config("upsampler:tiny", {"train.writers": "tensorbord"})


def test_a_profile_holds_the_steps_of_its_window(tmp_path, monkeypatch):
    """From before the first step is dispatched to the end of the last; nothing around them."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    window = ProfileWindow(Profile(first_step=3, steps=2), tmp_path)
    for step in range(1, 7):
        window.before_step(step)
        calls.append(step)
        window.after_step(step, jnp.ones(()))
    window.close()
    assert calls == [1, 2, "start", 3, 4, "stop", 5, 6]


def test_a_profile_is_written_under_the_workdir_even_if_the_run_ends_in_it(tmp_path):
    window = ProfileWindow(Profile(first_step=1, steps=100), tmp_path)
    window.before_step(1)
    window.after_step(1, jax.jit(lambda x: x + 1)(jnp.ones(3)))
    window.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_resumed_behind_the_window_takes_no_profile(tmp_path):
    window = ProfileWindow(Profile(first_step=3, steps=2), tmp_path)
    window.before_step(5)
    window.after_step(5, None)
    assert not (tmp_path / "profile").exists()
    ProfileWindow(Profile(), tmp_path).before_step(0)


def test_the_preview_of_prompts_needs_nothing_but_tokens():
    clip = load_config("clip:tiny").model
    stage = stages.build(load_config("decoder:tiny"), clip)
    params = jax.eval_shape(stage.init, jax.random.key(0))
    frozen = jax.eval_shape(stages.build(load_config("clip:tiny")).init, jax.random.key(0))
    keys = rng.example_keys(jax.random.key(0), "preview", 0, 2)
    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    drawn = jax.eval_shape(stage.preview_text, params, {"clip": frozen}, {"tokens": tokens}, keys)
    assert {k: v.shape for k, v in drawn.items()} == {"from the text alone": (2, 8, 8, 3)}


@pytest.mark.slow
def test_the_decoder_draws_prompts_from_their_text_alone():
    """Other texts give other pictures from the same keys; the image embedding has no part."""
    clip = load_config("clip:tiny").model
    overrides = {"sampling.steps": "2", "data.embeddings": "stored"}
    stage = stages.build(load_config("decoder:tiny", overrides), clip)

    def init(key):  # none of it zero, as the last layer is at first
        noise = lambda x: 0.1 * jax.random.normal(jax.random.fold_in(key, x.size), x.shape)  # noqa: E731
        return jax.tree.map(lambda x: x + noise(x), stage.init(key))

    params = jax.jit(init)(jax.random.key(0))
    frozen = {
        "clip": jax.jit(stages.build(load_config("clip:tiny")).init)(jax.random.key(1)),
        "statistics": {"mean": jnp.zeros(16), "std": jnp.ones(16)},
    }
    tokens = jnp.asarray([[49406, 320, 736, 49407] + [0] * 12, [49406, 1774, 49407] + [0] * 13])
    keys = rng.example_keys(jax.random.key(0), "preview", 0, 1)
    keys = jnp.concatenate([keys, keys])
    (drawn,) = jax.jit(stage.preview_text)(params, frozen, {"tokens": tokens}, keys).values()
    assert drawn.shape == (2, 8, 8, 3)
    assert float(jnp.abs(drawn[0] - drawn[1]).max()) > 1e-3


def test_prompts_for_a_stage_that_cannot_draw_them_are_refused(tmp_path):
    config = load_config("upsampler:tiny", {"train.preview.prompts": "a heart"})
    stage = stages.build(config)
    with pytest.raises(UserError, match="draws nothing from text alone"):
        make_previewer(config, stage, {}, None, None, tmp_path, None)
