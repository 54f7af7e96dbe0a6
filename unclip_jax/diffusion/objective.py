"""The training loss: L_simple, weighted, plus the variational bound when the variance is learned.

    L_hybrid = w_t mean |target - prediction|^2 + vlb_weight * T * L_t

L_t is one term of the variational bound in bits per dimension, T of them make the whole bound, so
T L_t estimates it from one step. Its x_0 is behind a stop-gradient: the bound trains the variance
only (Nichol & Dhariwal 2021, section 3.1, eq. 16, vlb_weight = 0.001).

Losses are [B]; the caller masks and reduces them once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unclip_jax.diffusion.bound import bound_term
from unclip_jax.diffusion.choices import parse
from unclip_jax.diffusion.predictions import PredictionType
from unclip_jax.diffusion.process import GaussianProcess, Variance, at
from unclip_jax.diffusion.weighting import WEIGHTINGS, loss_weights
from unclip_jax.errors import UserError, did_you_mean

DISTANCES = ("l2", "l1", "huber")


@dataclass(frozen=True)
class Objective:
    """What a network is trained to predict, and how its error is measured.

    Attributes:
      prediction: the type of the output, and of the target; the enum or its value ("x0", ..).
      learned_variance: the output has a second half of channels for the variance, see
        `split_output`.
      loss: "l2", "l1" or "huber" (quadratic e^2 / 2 below huber_delta, linear above).
      weighting: "unit", "min_snr" or "p2", see `weighting`.
      vlb_weight: factor of the bound; acts only with learned_variance.
      num_levels: values a data channel can take, evenly over [-1, 1] (256 for uint8 images), for
        the likelihood of step 0; None for continuous data such as embeddings.
    """

    prediction: PredictionType | str
    learned_variance: bool = False
    loss: str = "l2"
    weighting: str = "unit"
    vlb_weight: float = 1e-3
    huber_delta: float = 1.0
    min_snr_gamma: float = 5.0
    p2_gamma: float = 1.0
    p2_k: float = 1.0
    num_levels: int | None = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "prediction", parse(PredictionType, "prediction", self.prediction))
        for name, value, valid in (
            ("loss", self.loss, DISTANCES),
            ("weighting", self.weighting, WEIGHTINGS),
        ):
            if value not in valid:
                raise UserError(f"unknown {name} {value!r}{did_you_mean(value, valid)}")


def training_loss(
    process: GaussianProcess,
    objective: Objective,
    output: Float[Array, "b *out"],
    *,
    x0: Float[Array, "b *data"],
    x_t: Float[Array, "b *data"],
    noise: Float[Array, "b *data"],
    t: Int[Array, " b"],
) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
    """The loss of each example for a network's raw output at (x_t, t).

    Returns:
      loss [B] and diagnostics {name: [B]}: "simple", the unweighted error; with a learned variance
      also "vlb", the estimate T L_t of the bound in bits per dimension. Reduce them over quartiles
      of t with `quartiles.quartile_sums`: the scale of the loss depends strongly on t.

    Raises:
      UserError: the output has the wrong number of channels for the objective.
    """
    kind = PredictionType(objective.prediction)
    prediction, fraction = split_output(output, x0.shape, objective.learned_variance)
    target = {
        PredictionType.X0: lambda: x0,
        PredictionType.EPSILON: lambda: noise,
        PredictionType.V: lambda: process.convert(x0, PredictionType.X0, PredictionType.V, x_t, t),
    }[kind]()
    simple = _mean_over_data(_distance(objective, prediction - target))
    weights = loss_weights(
        process.schedule,
        kind,
        objective.weighting,
        min_snr_gamma=objective.min_snr_gamma,
        p2_gamma=objective.p2_gamma,
        p2_k=objective.p2_k,
    )
    loss, diagnostics = at(weights, t, simple) * simple, {"simple": simple}
    if fraction is not None:
        x0_hat = process.convert(prediction, kind, PredictionType.X0, x_t, t)
        reverse = process.reverse(
            jax.lax.stop_gradient(x0_hat), x_t, t, Variance.LEARNED_RANGE, fraction
        )
        vlb = process.num_steps * bound_term(
            process, reverse, x0, x_t, t, num_levels=objective.num_levels
        )
        loss, diagnostics["vlb"] = loss + objective.vlb_weight * vlb, vlb
    return loss, diagnostics


def split_output(
    output: Float[Array, "b *out"], data_shape: tuple[int, ...], learned_variance: bool
) -> tuple[Float[Array, "b *data"], Float[Array, "b *data"] | None]:
    """A network's raw output as float32 (prediction, variance fraction).

    With a learned variance the last axis is twice the data's: prediction, then a value u whose
    fraction (u + 1) / 2 lies between the posterior's log variance and log beta.
    """
    channels = data_shape[-1] * (2 if learned_variance else 1)
    if output.shape != (*data_shape[:-1], channels):
        raise UserError(
            f"the network's output has shape {output.shape}, but data of shape {data_shape} "
            f"{'with' if learned_variance else 'without'} a learned variance needs "
            f"{channels} channels"
        )
    output = output.astype(jnp.float32)
    if not learned_variance:
        return output, None
    prediction, variance = jnp.split(output, 2, axis=-1)
    return prediction, (variance + 1) / 2


def _distance(objective: Objective, error: Array) -> Array:
    if objective.loss == "l2":
        return jnp.square(error)
    if objective.loss == "l1":
        return jnp.abs(error)
    delta = objective.huber_delta
    size = jnp.abs(error)
    return jnp.where(size < delta, 0.5 * jnp.square(error), delta * (size - 0.5 * delta))


def _mean_over_data(values: Float[Array, "b *data"]) -> Float[Array, " b"]:
    return values.reshape(len(values), -1).mean(axis=1)
