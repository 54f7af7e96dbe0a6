"""The real step, compiled for TPUs that are not here, beside the model that answers without."""

import pytest

from unclip_jax.config import load_config
from unclip_jax.preflight.compiled import has_libtpu
from unclip_jax.preflight.plan import make_plan
from unclip_jax.preflight.report import report
from unclip_jax.preflight.topology import tpu_topology

pytestmark = pytest.mark.skipif(
    not has_libtpu(), reason="needs the TPU's compiler, the extra `tpu`; `make plans` installs it"
)
SMALL = {
    "model.width": "256",
    "model.heads": "4",
    "model.layers": "3",
    "mesh.fsdp": "2",
    "mesh.min_size": "1000",
    "mesh.max_whole": "0.9",
    "precision.compute": "bfloat16",
}


def test_model_and_compiler_agree_on_a_small_prior():
    clip, pod = load_config("clip:tiny").model, tpu_topology("v5e:2x2")
    plan = make_plan(load_config("prior:tiny", SMALL), clip, pod, compiling=True)
    answer = plan.answer
    model, memory = answer.forecast, answer.compiled.memory
    # State and traffic are accounting; activations and workspace are an estimate.
    assert memory.parameters == model.memory.parameters
    # libtpu may write a sum and a slice as a sum, which sends more: arrays are compared, not sends.
    for kinds in (("all-gather",), ("reduce-scatter", "all-reduce")):
        ours, theirs = (
            sum(t.bytes for t in traffic if t.kind in kinds)
            for traffic in (model.traffic, answer.compiled.traffic)
        )
        assert ours == pytest.approx(theirs, rel=0.05)
    assert 0.4 < model.memory.total / memory.total < 1.6
    gathers = [t for t in answer.compiled.traffic if t.kind == "all-gather"]
    assert [(t.parties, t.link) for t in gathers] == [(2, "fast")]
    text = report(plan, attained=0.5)
    assert "compiled by libtpu" in text
    assert "by the model" in text


def test_what_slices_send_each_other_is_as_the_model_says():
    """Two slices of four: gradients are summed inside each, then their shares between them."""
    clip, pod = load_config("clip:tiny").model, tpu_topology("v5e:2x2", slices=2)
    config = load_config("prior:tiny", SMALL | {"mesh.fsdp": "4"})
    answer = make_plan(config, clip, pod, compiling=True).answer
    ours, theirs = (
        {(t.kind, t.parties): t.bytes for t in traffic if t.link == "network"}
        for traffic in (answer.forecast.traffic, answer.compiled.traffic)
    )
    assert list(ours) == list(theirs) == [("all-reduce", 2)]
    # Small arrays are padded to tiles of 8 x 128 on their way through the hosts.
    assert ours["all-reduce", 2] == pytest.approx(theirs["all-reduce", 2], rel=0.25)
    assert answer.time.network > 0


@pytest.mark.parametrize("fsdp", ["1", "2"])
def test_gradients_of_a_batch_in_parts_are_summed_over_data_once_in_float32(fsdp):
    """The loop over parts adds up float32; a sum of bfloat16 in each would be twice as much."""
    clip, pod = load_config("clip:tiny").model, tpu_topology("v5e:2x2")
    settings = {"mesh.fsdp": fsdp, "train.batch_size": "32", "train.accumulate": "4"}
    config = load_config("prior:tiny", SMALL | settings)
    answer = make_plan(config, clip, pod, compiling=True).answer
    ours, theirs = (
        sum(t.bytes for t in traffic if t.kind in ("reduce-scatter", "all-reduce"))
        for traffic in (answer.forecast.traffic, answer.compiled.traffic)
    )
    assert ours == pytest.approx(theirs, rel=0.05)


def test_what_is_too_large_is_refused_and_its_remedy_compiles():
    """What would help is tried by the model, with the compiler's word on size; then compiled."""
    clip, pod = load_config("clip:tiny").model, tpu_topology("v5e:2x2")
    large = {"train.batch_size": "65536", "mesh.fsdp": "1"}
    plan = make_plan(load_config("prior:tiny", SMALL | large), clip, pod, compiling=True)
    assert plan.answer.compiled.memory is None
    assert plan.answer.compiled.needed > pod.chip.hbm
    assert plan.remedy is not None
    assert plan.remedied.fits(pod)
    assert plan.remedied.compiled.memory.total < pod.chip.hbm
    text = report(plan, attained=0.5)
    assert "DOES NOT FIT: the compiler refuses it" in text
    assert "the smallest change that was found to fit (compiled): --config." in text


def test_a_topology_that_libtpu_does_not_know_is_one_line():
    from unclip_jax.errors import UserError

    clip = load_config("clip:tiny").model
    with pytest.raises(UserError, match="no topology v5e:3x5"):
        make_plan(
            load_config("prior:tiny", {"train.batch_size": "15"}),
            clip,
            tpu_topology("v5e:3x5"),
            compiling=True,
        )


def test_moments_on_the_host_leave_the_chip():
    """One slice of them at a time is fetched; compiled, their room on the chip is free."""
    clip, pod = load_config("clip:tiny").model, tpu_topology("v5e:2x2")
    plans = {
        where: make_plan(
            load_config("prior:tiny", SMALL | {"mesh.moments": where, "model.layers": "12"}),
            clip,
            pod,
            compiling=True,
        )
        for where in ("device", "host")
    }
    here, there = (plans[where].answer.compiled.memory for where in ("device", "host"))
    assert here.host == 0
    assert there.host + there.optimizer == here.optimizer
    assert here.total - there.total > 0.8 * there.host
    assert "moments on the host" in report(plans["host"], attained=0.5)
