"""A plan in words, for people."""

from collections.abc import Sequence

from unclip_jax.preflight.chips import GIB
from unclip_jax.preflight.memory import Memory
from unclip_jax.preflight.plan import Answer, Plan
from unclip_jax.preflight.roofline import StepTime, assumptions
from unclip_jax.preflight.topology import Topology
from unclip_jax.preflight.traffic import Traffic

_LABELS = {
    "parameters": "parameters",
    "optimizer": "optimiser",
    "averages": "averages (EMA)",
    "frozen": "frozen CLIP",
    "batch": "batch",
    "activations": "activations",
    "temporaries": "temporaries",
}


def report(plan: Plan, attained: float) -> str:
    """All lines of a plan.

    Args:
      attained: the share of the bound that the real step is taken to reach.
    """
    lines = _answer(plan, plan.answer, attained)
    if plan.answer.fits(plan.topology):
        return "\n".join(lines)
    if plan.remedy is None or plan.remedied is None:
        return "\n".join([*lines, "", "no mesh, remat policy, accumulation or batch makes it fit"])
    settings = " ".join(f"--config.{path}={text}" for path, text in plan.remedy.settings.items())
    verified = "compiled" if plan.remedied.compiled else "by the model"
    lines += ["", f"the smallest change that was found to fit ({verified}): {settings}", ""]
    return "\n".join([*lines, *_answer(plan, plan.remedied, attained)])


def _answer(plan: Plan, answer: Answer, attained: float) -> list[str]:
    found, topology = answer.forecast, plan.topology
    config = found.config
    mesh = " ".join(f"{axis}={size}" for axis, size in found.mesh.items())
    flops = found.cost.flops.train
    lines = [
        f"{config.stage} of {found.cost.parameters / 1e6:,.1f} M parameters on {topology.name}, "
        f"{topology.chips} chips",
        f"mesh {mesh}; batch {config.train.batch_size}, {found.rows} examples a chip at a time in "
        f"{config.train.accumulate} part{'s' * (config.train.accumulate > 1)}; "
        f"remat {config.model.remat}, compute {config.precision.compute}",
        _how(answer, topology),
        "",
        *_memory(answer, topology),
        "",
        *_traffic(answer, found.mesh["tensor"]),
        "",
        f"{_flops(flops)} an example, {_flops(flops * config.train.batch_size)} a step",
        *_time(answer.time, topology),
        *duration_lines(plan, answer.time, attained),
    ]
    return lines


def _flops(count: float) -> str:
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if count >= size:
            return f"{count / size:,.3g} {prefix}FLOP"
    return f"{count / 1e6:,.3g} MFLOP"


def _how(answer: Answer, topology: Topology) -> str:
    if answer.compiled is not None:
        return f"compiled by libtpu in {answer.compiled.seconds:.0f} s, beside the analytic model"
    if topology.is_tpu:
        return "analytic model only, nothing compiled (--fast)"
    return "analytic model only: no compiler for GPUs works without one"


def _memory(answer: Answer, topology: Topology) -> list[str]:
    model, hbm = answer.forecast.memory, topology.chip.hbm
    compiled = answer.compiled.memory if answer.compiled else None
    title = f"{'memory of a chip, GiB':24}{'model':>9}"
    rows = [title + (f"{'compiled':>10}" if compiled else "")]
    for name, label in _LABELS.items():
        row = f"  {label:22}{getattr(model, name) / GIB:9.3f}"
        if compiled and name not in ("activations", "temporaries"):
            row += f"{getattr(compiled, name) / GIB:10.3f}"
        rows.append(row)
    if compiled:
        rows.append(_both(model, compiled))
    rows.append(
        f"  {'together':22}{model.total / GIB:9.3f}"
        + (f"{compiled.total / GIB:10.3f}" if compiled else "")
        + f"  of {hbm / GIB:.2f}"
    )
    if model.host:
        rows.append(
            f"  {'moments on the host':22}{model.host / GIB:9.3f}"
            + " " * 10 * bool(compiled)
            + "  there and back every step, which the time below leaves out"
        )
    return [*rows, _verdict(answer, topology)]


def _both(model: Memory, compiled: Memory) -> str:
    ours = model.activations + model.temporaries
    theirs = compiled.activations + compiled.temporaries
    return (
        f"  {'the last two':22}{ours / GIB:9.3f}{theirs / GIB:10.3f}  "
        f"model {(ours / theirs - 1):+.0%}, {(model.total / compiled.total - 1):+.0%} of all"
    )


def _verdict(answer: Answer, topology: Topology) -> str:
    hbm = topology.chip.hbm
    if answer.compiled and answer.compiled.memory is None:
        needed = answer.compiled.needed
        said = f" it would need {needed / GIB:.2f} GiB" if needed else ""
        return f"DOES NOT FIT: the compiler refuses it;{said}"
    memory = answer.compiled.memory if answer.compiled else None
    total = (memory or answer.forecast.memory).total
    if total > hbm:
        return f"DOES NOT FIT: {(total - hbm) / GIB:.2f} GiB too much"
    return f"fits, {(hbm - total) / GIB:.2f} GiB ({1 - total / hbm:.0%}) to spare"


def _traffic(answer: Answer, tensor: int) -> list[str]:
    model = answer.forecast.traffic
    compiled = answer.compiled.traffic if answer.compiled and answer.compiled.memory else None
    shown = model if compiled is None else compiled
    source = "model" if compiled is None else "compiled"
    lines = [f"sent in a step, MB ({source})"] + [
        f"  {t.kind:20}{t.link:9}{t.bytes / 1e6:14,.1f}  among {t.parties} chips" for t in shown
    ]
    if not shown:
        lines = ["sent in a step: nothing"]
    if compiled is not None:
        ours, theirs = sent(model), sent(compiled)
        if theirs:
            lines.append(
                f"  a chip sends {theirs / 1e6:,.1f} MB; by the model {ours / 1e6:,.1f} "
                f"({ours / theirs - 1:+.0%})"
            )
    elif tensor > 1:
        lines.append("  sums of activations over `tensor` are not modelled: compile to see them")
    return lines


def sent(traffic: Sequence[Traffic]) -> float:
    """Bytes that a chip sends, on rings."""
    return sum(t.sent for t in traffic)


def _time(time: StepTime, topology: Topology) -> list[str]:
    parts = ", ".join(
        f"{label} {seconds * 1e3:,.1f}"
        for label, seconds in (
            ("arithmetic", time.compute),
            ("optimiser", time.optimizer),
            ("fast links", time.fast),
            ("network", time.network),
        )
    )
    return [
        f"least time of a step: {time.step * 1e3:,.1f} ms (ms: {parts}), bound by {time.bound_by}, "
        f"MFU {time.mfu:.0%}",
        f"  assumed: {assumptions(topology)}; elementwise work fused, communication hidden",
    ]


def duration_lines(plan: Plan, time: StepTime, attained: float) -> list[str]:
    """Days and chip-hours of the run."""
    if plan.steps is None:
        return ["the run's length is in epochs: give --examples to know days and chip-hours"]
    lines = [f"{plan.steps:,} steps on {plan.topology.chips} chips"]
    for share, label in ((1.0, "at that bound"), (attained, f"at {attained:.0%} of it")):
        seconds = plan.steps * time.step / share
        lines.append(
            f"  {label:16}{seconds / 86_400:10,.1f} days "
            f"{seconds / 3600 * plan.topology.chips:14,.0f} chip-hours, MFU {time.mfu * share:.0%}"
        )
    return lines
