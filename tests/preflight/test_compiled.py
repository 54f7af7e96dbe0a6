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
