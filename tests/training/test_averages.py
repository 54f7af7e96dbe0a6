"""Several averages at once, by name, and averages of any length made after the run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.config import load_config, to_mapping
from unclip_jax.config.schema import Ema
from unclip_jax.errors import UserError
from unclip_jax.training import ema
from unclip_jax.training.begin import check_averages
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.post_hoc import Profile, coefficients, distance
from unclip_jax.training.state import TrainState
from unclip_jax.training.weights import load_weights

CONFIG = Ema(decay=0.99, others=(0.9, 0.5), power=(0.05, 0.1))
STEPS = 64


def walk(steps, size=40, seed=0):
    """Weights that wander, [steps, size], float64."""
    return np.cumsum(np.random.default_rng(seed).normal(size=(steps, size)), axis=0)


def power_average(weights, length):
    """By its profile, float64: the share of update k is (k^g - (k-1)^g) / t^g."""
    exponent = ema.gamma_of(length) + 1
    edges = (np.arange(len(weights) + 1) / len(weights)) ** exponent
    return np.diff(edges) @ weights


def test_gamma_of_the_published_lengths():
    """Karras et al. 2023, section 3.1: gamma = 16.97 and 6.94 for 5 % and 10 %."""
    np.testing.assert_allclose([ema.gamma_of(s) for s in (0.05, 0.1)], [16.97, 6.94], atol=5e-3)
    gamma = ema.gamma_of(0.2)
    assert np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) == pytest.approx(0.2)


@pytest.mark.parametrize("length", [0.05, 0.2])
def test_the_recurrence_has_the_stated_profile(length):
    weights, rate = walk(300), jax.jit(ema.power_rate(length))
    average = np.zeros(weights.shape[1])
    for step, now in enumerate(weights):
        average += float(rate(jnp.int32(step))) * (now - average)
    np.testing.assert_allclose(average, power_average(weights, length), rtol=1e-4)


def test_late_rates_keep_their_digits():
    """1 - decay is near 2e-6 here, where float32 decays have no digit left."""
    step, exponent = 10_000_000, ema.gamma_of(0.05) + 1
    exact = -np.expm1(exponent * np.log1p(-1 / (step + 1)))
    assert float(ema.power_rate(0.05)(jnp.int32(step))) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("length", [0.03, 0.075, 0.15, 0.2])
def test_a_length_made_afterwards_is_nearly_the_tracked_one(length):
    weights, every = walk(4000), 250
    stored = [Profile(t, s) for t in range(every, 4001, every) for s in (0.05, 0.1)]
    averages = np.stack([power_average(weights[: p.step], p.length) for p in stored])
    wanted = Profile(4000, length)
    shares = coefficients(stored, wanted)
    direct = power_average(weights, length)
    error = np.linalg.norm(shares @ averages - direct) / np.linalg.norm(direct)
    assert error < 0.01
    assert distance(stored, wanted, shares) < 0.05
    assert sum(shares) == pytest.approx(1, abs=0.01)


def test_a_stored_length_is_itself():
    stored = [Profile(t, s) for t in (50, 100) for s in (0.05, 0.1)]
    shares = coefficients(stored, Profile(100, 0.1))
    np.testing.assert_allclose(shares, [0, 0, 0, 1], atol=1e-9)
    assert distance(stored, Profile(100, 0.1), shares) < 1e-6


def test_lengths_products_are_integrals():
    """Of the two densities, by a fine sum."""
    a, b = Profile(80, 0.1), Profile(100, 0.2)
    grid = (np.arange(400_000) + 0.5) / 4000
    density = [
        (g + 1) * grid**g / p.step ** (g + 1) * (grid < p.step)
        for p in (a, b)
        for g in [ema.gamma_of(p.length)]
    ]
    integral = np.mean(density[0] * density[1]) * 100
    # The nearest multiple of one density to another is <a, b> / <a, a>.
    own = np.mean(density[0] ** 2) * 100
    assert coefficients([a], b)[0] == pytest.approx(integral / own, rel=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's workdir with four checkpoints of wandering weights, and these weights."""
    workdir = tmp_path_factory.mktemp("run")
    weights = walk(STEPS).astype(np.float32)
    rates = ema.further_averages(CONFIG, start=0)
    update = jax.jit(lambda a, p, step: ema.update_all(a, p, rates, step))
    averages = {name: {"w": jnp.zeros(40)} for name in rates}
    checkpointer = Checkpointer(workdir, keep=4)
    for step, now in enumerate(weights):
        params = {"w": jnp.asarray(now)}
        averages = update(averages, params, jnp.int32(step))
        if (step + 1) % 16 == 0:
            state = TrainState(jnp.int32(step + 1), params, params, {"mu": params}, {}, averages)
            checkpointer.save(step + 1, state, Progress("{}", 0.0))
    checkpointer.wait()
    checkpointer.close()
    return workdir, weights


def load(run, weights, config=CONFIG):
    abstract = {"w": jax.ShapeDtypeStruct((40,), jnp.float32)}
    params, step = load_weights(run[0], abstract, weights, config)
    assert step == STEPS
    return np.asarray(params["w"])


def test_each_average_is_had_by_its_name(run):
    average = np.zeros(40)
    for n, now in enumerate(run[1]):
        average += (1 - min(0.9, (1 + n) / (10 + n))) * (now - average)
    np.testing.assert_allclose(load(run, "ema:0.9"), average, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(load(run, "ema:0.99"), load(run, "ema"))
    np.testing.assert_array_equal(load(run, "raw"), run[1][-1])


def test_a_length_is_made_of_the_checkpoints(run, capsys):
    direct = power_average(run[1].astype(np.float64), 0.1)
    np.testing.assert_allclose(load(run, "sigma:0.1"), direct, rtol=1e-4, atol=1e-4)
    other = power_average(run[1].astype(np.float64), 0.07)
    error = np.linalg.norm(load(run, "sigma:0.07") - other) / np.linalg.norm(other)
    assert error < 0.02
    assert "of 4 checkpoints: its profile is met to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("ema:0.7", "it has ema:0.99, ema:0.9, ema:0.5 and raw"),
        ("best", "write ema, raw, ema:DECAY or sigma:LENGTH"),
        ("sigma:0.5", "between 0 and 0.28"),
    ],
)
def test_weights_that_are_not_there(run, weights, message):
    with pytest.raises(UserError, match=message):
        load(run, weights)


def test_a_run_without_power_averages_makes_no_lengths(run):
    with pytest.raises(UserError, match="ran without"):
        load(run, "sigma:0.1", dataclasses.replace(CONFIG, power=()))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ema.others", "(0.99,)", "names a decay twice"),
        ("ema.others", "(1.0,)", "less than 1"),
        ("ema.power", "(0.1,)", "two different lengths"),
        ("ema.power", "(0.1, 0.5)", "between 0 and 0.28"),
    ],
)
def test_averages_that_make_no_sense(setting, value, message):
    with pytest.raises(UserError, match=message):
        load_config("clip:tiny", {setting: value, "ema.decay": "0.99"})


def test_a_run_with_other_averages_is_not_restored(tmp_path):
    other = load_config("clip:tiny", {"ema.others": "(0.9,)"})
    (tmp_path / "config.json").write_text(json.dumps(to_mapping(other)))
    check_averages(other, tmp_path)
    with pytest.raises(UserError, match=r"ema.others=\(0.9,\), but \(\) is asked for"):
        check_averages(load_config("clip:tiny"), tmp_path)
