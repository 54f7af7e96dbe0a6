import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    GaussianProcess,
    Objective,
    PredictionType,
    make_schedule,
    split_output,
    training_loss,
)
from unclip_jax.errors import UserError


@pytest.fixture(scope="module")
def process():
    return GaussianProcess(make_schedule("cosine"))


@pytest.fixture(scope="module")
def batch(process):
    """Two small images, their noise, and x_t at an early and a late step."""
    levels = jax.random.randint(jax.random.key(0), (3, 2, 2, 1), 0, 256)
    x0 = levels / 127.5 - 1
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    t = jnp.array([0, 200, 900])
    return {"x0": x0, "noise": noise, "t": t, "x_t": process.corrupt(x0, t, noise)}


def snr(process, t):
    alpha_bar = process.schedule.alpha_bars[np.asarray(t)]
    return alpha_bar / (1 - alpha_bar)


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "v"])
def test_a_perfect_output_costs_nothing(process, batch, prediction):
    alpha_bar = process.schedule.alpha_bars[np.asarray(batch["t"])].reshape(3, 1, 1, 1)
    x0, noise = np.asarray(batch["x0"], np.float64), np.asarray(batch["noise"], np.float64)
    v = np.sqrt(alpha_bar) * noise - np.sqrt(1 - alpha_bar) * x0
    perfect = {"x0": x0, "epsilon": noise, "v": v}[prediction]
    loss, diagnostics = training_loss(
        process, Objective(prediction), jnp.asarray(perfect, jnp.float32), **batch
    )
    assert loss.shape == (3,)
    # v is derived from x_t by division with sigma = 0.006 at step 0.
    np.testing.assert_allclose(loss, 0, atol=1e-9)
    assert list(diagnostics) == ["simple"]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("l2", [0.25, 4.0]), ("l1", [0.5, 2.0]), ("huber", [0.125, 1.5])],
)
def test_distances(process, batch, loss, expected):
    """Errors of 0.5 and of 2; Huber with delta 1."""
    for error, value in zip([0.5, 2.0], expected, strict=True):
        got, _ = training_loss(
            process, Objective("epsilon", loss=loss), batch["noise"] - error, **batch
        )
        np.testing.assert_allclose(got, value, rtol=1e-5)


def test_huber_delta(process, batch):
    got, _ = training_loss(
        process, Objective("x0", loss="huber", huber_delta=0.25), batch["x0"] + 2.0, **batch
    )
    np.testing.assert_allclose(got, 0.25 * (2 - 0.125), rtol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "weighting", "factor"),
    [
        # Hang et al. 2023, section 3.4: the weights of the three targets.
        ("x0", "min_snr", lambda s: np.minimum(s, 5)),
        ("epsilon", "min_snr", lambda s: np.minimum(s, 5) / s),
        ("v", "min_snr", lambda s: np.minimum(s, 5) / (s + 1)),
        # Choi et al. 2022, eq. 9, for epsilon.
        ("epsilon", "p2", lambda s: 1 / (1 + s)),
        ("x0", "unit", lambda s: np.ones_like(s)),
        ("epsilon", "unit", lambda s: np.ones_like(s)),
    ],
)
def test_weightings(process, batch, prediction, weighting, factor):
    target = batch["x0"] if prediction == "x0" else batch["noise"]
    if prediction == "v":
        alpha_bar = process.schedule.alpha_bars[np.asarray(batch["t"])].reshape(3, 1, 1, 1)
        v = np.sqrt(alpha_bar) * np.asarray(batch["noise"], np.float64)
        target = jnp.asarray(v - np.sqrt(1 - alpha_bar) * np.asarray(batch["x0"]), jnp.float32)
    objective = Objective(prediction, weighting=weighting)
    loss, diagnostics = training_loss(process, objective, target + 0.5, **batch)
    np.testing.assert_allclose(loss, 0.25 * factor(snr(process, batch["t"])), rtol=2e-4)
    np.testing.assert_allclose(diagnostics["simple"], 0.25, rtol=2e-4)


@pytest.mark.parametrize("weighting", ["min_snr", "p2"])
def test_a_weighting_means_the_same_for_every_prediction(process, batch, weighting):
    """One wrong x_0, told as x0, epsilon or v, costs the same."""
    t = jnp.array([100, 500, 900])
    noise, x0 = batch["noise"], batch["x0"]
    alpha_bar = process.schedule.alpha_bars[np.asarray(t)].reshape(3, 1, 1, 1)
    alpha, sigma = (jnp.asarray(np.sqrt(a), jnp.float32) for a in (alpha_bar, 1 - alpha_bar))
    wrong_noise = noise + 0.1
    wrong_x0 = x0 - 0.1 * sigma / alpha
    outputs = {
        "x0": wrong_x0,
        "epsilon": wrong_noise,
        "v": alpha * wrong_noise - sigma * wrong_x0,
    }
    x_t = process.corrupt(x0, t, noise)
    losses = [
        training_loss(
            process, Objective(name, weighting=weighting), output, x0=x0, x_t=x_t, noise=noise, t=t
        )[0]
        for name, output in outputs.items()
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)


def test_the_bound_trains_the_variance_only(process, batch):
    output = jax.random.normal(jax.random.key(2), (3, 2, 2, 2))

    def total(output, vlb_weight):
        objective = Objective("epsilon", learned_variance=True, vlb_weight=vlb_weight)
        return training_loss(process, objective, output, **batch)[0].sum()

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    plain, hybrid = gradient(output, 0.0), gradient(output, 1e-3)
    np.testing.assert_array_equal(plain[..., 0], hybrid[..., 0])
    assert not np.any(plain[..., 1])
    assert np.all(hybrid[..., 1] != 0)


def test_hybrid_loss_in_float64(process, batch, claim):
    """Nichol & Dhariwal: L_simple + 0.001 T L_t, L_t = KL in bits, for t > 0; all in numpy."""
    output = 0.3 * jax.random.normal(jax.random.key(3), (3, 2, 2, 2))
    objective = Objective("epsilon", learned_variance=True)
    loss, diagnostics = training_loss(process, objective, output, **batch)
    schedule = process.schedule
    for row, t in enumerate(np.asarray(batch["t"])):
        if t == 0:
            continue
        x_t, x0, noise = (
            np.asarray(batch[k], np.float64)[row, ..., 0] for k in ("x_t", "x0", "noise")
        )
        epsilon, u = np.moveaxis(np.asarray(output, np.float64)[row], -1, 0)
        now, prev = schedule.alpha_bars[t], schedule.alpha_bars[t - 1]
        beta = 1 - now / prev
        small = beta * (1 - prev) / (1 - now)
        variance = beta ** ((u + 1) / 2) * small ** (1 - (u + 1) / 2)
        x0_hat = (x_t - np.sqrt(1 - now) * epsilon) / np.sqrt(now)
        mean_gap = np.sqrt(prev) * beta / (1 - now) * (x0 - x0_hat)
        kl = 0.5 * (np.log(variance / small) + (small + mean_gap**2) / variance - 1)
        vlb = 1000 * kl.mean() / np.log(2)
        source = "float64 numpy"
        claim.near("term of the bound, T L_t", source, diagnostics["vlb"][row], vlb, bound=1e-4)
        simple = np.mean((epsilon - noise) ** 2)
        wanted = simple + 1e-3 * vlb
        claim.near("hybrid loss L_simple + 0.001 L_vlb", source, loss[row], wanted, bound=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_bound_reads_every_prediction_as_what_it_is(process, batch, prediction):
    """The same x_0, said in another way, has the same bound."""
    x0_hat, variance = 0.9 * batch["x0"], jnp.full_like(batch["x0"], 0.2)
    source, target = PredictionType.X0, PredictionType(prediction)
    said = {
        "x0": x0_hat,
        prediction: process.convert(x0_hat, source, target, batch["x_t"], batch["t"]),
    }
    vlb = {
        kind: training_loss(
            process,
            Objective(kind, learned_variance=True),
            jnp.concatenate([output, variance], axis=-1),
            **batch,
        )[1]["vlb"]
        for kind, output in said.items()
    }
    np.testing.assert_allclose(vlb[prediction], vlb["x0"], rtol=1e-3)


def test_half_precision_outputs_are_read_in_float32():
    output = jnp.full((1, 4), 0.00390625, jnp.bfloat16)  # 1 + 2^-8 is no bfloat16
    prediction, fraction = split_output(output, (1, 2), learned_variance=True)
    assert prediction.dtype == jnp.float32
    np.testing.assert_array_equal(fraction, 0.501953125)


def test_mistakes_are_named(process, batch):
    with pytest.raises(UserError, match="did you mean 'huber'"):
        Objective("x0", loss="hubert")
    with pytest.raises(UserError, match="unknown weighting"):
        Objective("x0", weighting="snr")
    with pytest.raises(UserError, match="with a learned variance needs 2 channels"):
        training_loss(process, Objective("x0", learned_variance=True), batch["x0"], **batch)
