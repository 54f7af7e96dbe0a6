"""The demo's bookkeeping: its commands are ordinary ones, done steps are not done again."""

import pathlib

import pytest

from unclip_jax.cli import demo, parse
from unclip_jax.cli.demo_steps import Step, shares, steps
from unclip_jax.errors import UserError

OUT = pathlib.Path("out")


@pytest.mark.parametrize("quick", [True, False])
def test_every_step_is_a_command_that_parses(quick):
    for step in steps(OUT, minutes=10, quick=quick):
        module, _ = parse(step.arguments)
        assert hasattr(module, "run")


@pytest.mark.parametrize(("quick", "runs"), [(False, 4), (True, 5)])
def test_training_time_is_shared_out_whole(quick, runs):
    assert sum(shares(quick).values()) == pytest.approx(1.0)
    limits = [
        float(argument.partition("=")[2])
        for step in steps(OUT, minutes=10, quick=quick)
        for argument in step.arguments
        if argument.startswith("--config.train.time_limit_minutes")
    ]
    assert len(limits) == runs
    assert sum(limits) == pytest.approx(10, rel=1e-3)


def test_another_plan_in_the_same_folder_is_refused(tmp_path):
    plan = demo.Plan(minutes=5, quick=False)
    assert demo._agree(tmp_path, plan) == demo._agree(tmp_path, plan) == plan
    with pytest.raises(UserError, match="was begun with minutes=5 quick=False, not --minutes 6"):
        demo._agree(tmp_path, demo.Plan(minutes=6, quick=False))


def test_done_steps_are_left_alone_and_failed_ones_stop_the_demo(tmp_path, capfd):
    product = tmp_path / "product"
    failing = Step("a step", ("no-such-command",), product)
    assert demo._run(failing) == 2
    assert not product.exists()
    product.touch()
    assert demo._run(failing) == 0
    output = capfd.readouterr()
    assert "no command 'no-such-command'" in output.err
    assert "done before" in output.out
