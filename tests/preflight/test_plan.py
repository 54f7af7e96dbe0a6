"""Plans by the model: closed forms, exact bytes of the state, and remedies that really fit."""

import dataclasses
import math

import jax
import pytest

from unclip_jax import cli
from unclip_jax.config import load_config
from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.parallel import abstract_mesh
from unclip_jax.parallel.collectives import Collective
from unclip_jax.preflight import compiled
from unclip_jax.preflight.forecast import Traces, forecast
from unclip_jax.preflight.page import record
from unclip_jax.preflight.plan import make_plan
from unclip_jax.preflight.remedies import apply, smallest_remedy
from unclip_jax.preflight.topology import Topology, gpu_topology, tpu_topology
from unclip_jax.preflight.traffic import Traffic, compiled_traffic, seconds
from unclip_jax.preflight.work import Operation

CLIP = load_config("clip:tiny").model
SMALL = {
    "model.width": "64",
    "model.heads": "2",
    "model.layers": "3",
    "mesh.min_size": "1000",
    "mesh.max_whole": "0.9",
    "precision.compute": "bfloat16",
}


@pytest.fixture(scope="module")
def traces():
    return Traces(CLIP)


def prior(**overrides):
    return load_config(
        "prior:tiny", SMALL | {k.replace("_", ".", 1): v for k, v in overrides.items()}
    )


def small_chips(topology, hbm):
    return dataclasses.replace(topology, chip=dataclasses.replace(topology.chip, hbm=hbm))


def test_the_state_is_counted_to_the_byte(traces):
    config, pod = prior(mesh_fsdp="4"), tpu_topology("v5e:2x4")
    found = forecast(config, pod, traces)
    target = traces.step(config, abstract_mesh(config.mesh, 8)).program.target
    for part, tree in (("parameters", target.params), ("optimizer", target.opt_state)):
        expected = 0
        for leaf in jax.tree.leaves(tree):
            split = math.prod(4 for axis in leaf.sharding.spec if axis == "fsdp")
            expected += leaf.size * leaf.dtype.itemsize // split
        assert getattr(found.memory, part) == expected
    assert found.memory.averages == found.memory.parameters
    assert (found.rows, found.mesh) == (2, {"data": 2, "fsdp": 4, "tensor": 1})


def test_batches_and_parts_move_activations_in_proportion(traces):
    pod = tpu_topology("v5e:2x2")
    once = forecast(prior(train_batch_size="64"), pod, traces)
    parts = forecast(prior(train_batch_size="64", train_accumulate="4"), pod, traces)
    assert once.memory.activations == 4 * parts.memory.activations > 0
    assert parts.memory.parameters == once.memory.parameters
    assert parts.time.useful == pytest.approx(once.time.useful)


def test_the_traffic_of_a_mesh_in_closed_form(traces):
    """With P numbers split by fsdp and W whole: 2 P gathered, P scattered, (W + P / 4) summed."""
    config = prior(mesh_fsdp="4")
    found = forecast(config, tpu_topology("v5e:2x4"), traces)
    program = traces.step(config, abstract_mesh(config.mesh, 8)).program
    layout = trees.flatten(program.layout.params)
    split = whole = 0
    for path, leaf in trees.flatten(program.target.params).items():
        if "fsdp" in layout[path].spec:
            split += leaf.size
        else:
            whole += leaf.size
    assert split > 10 * whole > 0
    sent = {(t.kind, t.parties): t.bytes for t in found.traffic}
    assert sent == {
        ("all-gather", 4): 2 * split * 2,
        ("reduce-scatter", 4): split * 2,
        ("all-reduce", 4): whole * 2,
        ("all-reduce", 2): (whole + split / 4) * 2,
    }


def test_accumulation_gathers_in_every_part_where_weights_are_split(traces):
    pod = tpu_topology("v5e:2x2")

    def gathered(**overrides):
        found = forecast(prior(train_batch_size="64", **overrides), pod, traces).traffic
        return sum(t.bytes for t in found if t.kind == "all-gather")

    assert gathered(mesh_fsdp="2", train_accumulate="4") == 4 * gathered(mesh_fsdp="2")


def test_gradients_of_parts_are_summed_over_data_once_in_float32(traces):
    pod = tpu_topology("v5e:2x2")

    def summed(**overrides):
        found = forecast(prior(train_batch_size="64", **overrides), pod, traces).traffic
        return found[-1].kind, found[-1].parties, found[-1].bytes

    for fsdp in ("1", "2"):
        kind, parties, once = summed(mesh_fsdp=fsdp)
        assert (kind, parties) == ("all-reduce", 4 // int(fsdp))
        for parts in ("2", "4"):
            assert summed(mesh_fsdp=fsdp, train_accumulate=parts) == (kind, parties, 2 * once)


def test_between_slices_only_shares_of_gradients_travel(traces):
    pod = tpu_topology("v5e:2x2", slices=2)
    found = forecast(prior(mesh_fsdp="4"), pod, traces)
    (network,) = [t for t in found.traffic if t.link == "network"]
    assert (network.kind, network.parties) == ("all-reduce", 2)
    pure = forecast(prior(), pod, traces).traffic
    inside, across = (next(t for t in pure if t.link == link) for link in ("fast", "network"))
    assert (inside.parties, across.parties) == (4, 2)
    assert across.bytes == inside.bytes / 4
    with pytest.raises(UserError, match="stay inside one"):
        forecast(prior(mesh_fsdp="8", mesh_data="1"), pod, traces)


def test_rings_send_what_they_must():
    """All-reduce: 2 (n - 1) / n of its bytes; a gather half of that."""
    assert Traffic("all-reduce", "fast", 100.0, 4).sent == 150.0
    assert Traffic("all-gather", "fast", 100.0, 4).sent == 75.0
    pod = tpu_topology("v5e:4x4")
    assert seconds([Traffic("all-gather", "fast", 9e10, 2)], pod) == {"fast": 0.5, "network": 0.0}


def test_compiled_collectives_are_told_apart_by_the_links_that_they_need():
    pod = tpu_topology("v5e:2x2", slices=2)
    inside = Collective("all-gather", (), 100, True, "", times=3, group=(0, 1, 2, 3))
    across = Collective("all-reduce", (), 10, False, "", group=(0, 4))
    found = compiled_traffic([inside, inside, across], pod)
    assert found == [
        Traffic("all-gather", "fast", 600.0, 4),
        Traffic("all-reduce", "network", 10.0, 2),
    ]


def test_channels_are_padded_to_the_matrix_unit():
    """The published waste of 320 channels: x 1.44 on units of 128, of 256 x 2.56 in one product."""
    product = Operation(1, True, False, 100.0, 0.0, 0.0, contracted=320, produced=320)
    assert product.padded(128) == pytest.approx(100 * (384 / 320) ** 2)
    assert product.padded(256) == pytest.approx(100 * (512 / 320) ** 2)


def test_a_compute_bound_step_takes_its_flops_over_the_peak(traces):
    """Wide layers, many rows: the bound is three passes of every product, hardly more."""
    overrides = {"model.width": "1024", "model.heads": "8", "train.batch_size": "4096"}
    config = load_config("prior:tiny", SMALL | overrides)
    found = forecast(config, tpu_topology("v5e:2x2"), Traces(CLIP))
    assert found.time.bound_by == "arithmetic and HBM"
    assert 0.5 < found.time.mfu < 1.0
    assert found.time.compute > found.time.useful


def test_remedies_fit_and_are_the_smallest_change(traces):
    pod = tpu_topology("v5e:2x2")
    config = prior(train_batch_size="512")
    now = forecast(config, pod, traces)
    state = now.memory.parameters + now.memory.optimizer + now.memory.averages
    rest = now.memory.total - state
    tight = small_chips(pod, now.memory.total - rest / 4)
    remedy = smallest_remedy(now, tight, traces)
    assert len(remedy.settings.keys() - {"mesh.data"}) == 1
    assert forecast(apply(config, remedy.settings), tight, traces).fits(tight)
    desperate = smallest_remedy(now, small_chips(pod, now.memory.frozen + 0.75 * state), traces)
    assert "mesh.fsdp" in desperate.settings
    assert len(desperate.settings) > 2
    assert smallest_remedy(now, small_chips(pod, 1000.0), traces) is None


def test_a_smaller_batch_comes_last(traces):
    pod = tpu_topology("v5e:2x2")
    config = prior(mesh_fsdp="4", mesh_data="1", train_batch_size="8", model_remat="full")
    now = forecast(config, pod, traces)
    spare = now.memory.activations / 3
    remedy = smallest_remedy(now, small_chips(pod, now.memory.total - spare), traces)
    assert "train.batch_size" not in remedy.settings


def test_the_command_plans_without_compiling(capsys, tmp_path):
    page = tmp_path / "plans.md"
    arguments = ["plan", "--config", "prior:tiny", "--clip-config", "clip:tiny"]
    where = ["--topology", "v5e:2x2", "--fast"]
    assert cli.main([*arguments, *where, "--record", str(page)]) == 0
    out = capsys.readouterr().out
    for words in ("nothing compiled", "fits,", "all-reduce", "197 TFLOP/s", "chip-hours"):
        assert words in out
    cli.main([*arguments, *where, "--record", str(page)])
    assert page.read_text().count("| `unclip plan") == 1
    assert "analytic" in page.read_text()
    assert cli.main([*arguments, "--devices", "8", "--hbm", "80"]) == 0
    assert "no compiler for GPUs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --topology"),
        (["--topology", "v5e:2x2", "--devices", "4"], "one of --topology"),
        (["--topology", "v5e:2x2", "--hbm", "80"], "belongs to --devices"),
        (["--devices", "8", "--slices", "2"], "belongs to --topology"),
        (["--devices", "8", "--attained", "1.5"], "is a share"),
        (["--devices", "3"], "does not divide over the 3 devices"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message, capsys):
    start = ["plan", "--config", "prior:tiny", "--clip-config", "clip:tiny"]
    assert cli.main([*start, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_libtpu_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(compiled, "has_libtpu", lambda: False)
    start = ["plan", "--config", "prior:tiny", "--clip-config", "clip:tiny"]
    assert cli.main([*start, "--topology", "v5e:2x2"]) == 2
    assert "pip install 'unclip_jax[tpu]'" in capsys.readouterr().err


def test_a_plan_that_does_not_fit_names_the_change(tmp_path):
    config = prior(train_batch_size="512")
    pod: Topology = tpu_topology("v5e:2x2")
    total = make_plan(config, CLIP, pod, compiling=False).answer.forecast.memory.total
    plan = make_plan(config, CLIP, small_chips(pod, 0.9 * total), compiling=False)
    assert not plan.answer.fits(plan.topology)
    assert plan.remedied.fits(plan.topology)
    page = tmp_path / "plans.md"
    record(page, plan, 0.5, "unclip plan x")
    assert "--config." in page.read_text()


def test_lengths_in_epochs_need_the_size_of_the_data():
    config = load_config("prior:emoji", {"model.embedding_scale": "unit"})
    gpus = gpu_topology(1, "H100", None)
    assert make_plan(config, CLIP, gpus, compiling=False).steps is None
    plan = make_plan(config, CLIP, gpus, compiling=False, examples=1280)
    assert plan.steps == 300 * 10


def test_the_compilers_refusal_is_read():
    message = "total memory required for HLO temporaries (35.76G) exceeds available HBM (15.75G)"
    assert compiled.needed_bytes(message) == pytest.approx(35.76 * 2**30)
    assert compiled.needed_bytes("Ran out of memory") is None
