"""The one interface samplers see: (x_t, t) -> what the model believes x_0 and epsilon to be.

A denoiser binds a network to its conditioning, its prediction type, guidance and thresholding.
After thresholding, epsilon is derived anew from the confined x_0, so that the pair still makes up
x_t.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int

from unclip_jax.diffusion.choices import parse
from unclip_jax.diffusion.guidance import Conditioning, Guidance, Network, guided_output
from unclip_jax.diffusion.objective import split_output
from unclip_jax.diffusion.predictions import PredictionType
from unclip_jax.diffusion.process import GaussianProcess
from unclip_jax.diffusion.thresholding import Thresholding
from unclip_jax.errors import UserError


class Denoised(NamedTuple):
    """float32, of x_t's shape: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) epsilon.

    variance_fraction places a learned log variance between the posterior's (0) and log beta (1).
    """

    x0: Array
    epsilon: Array
    variance_fraction: Array | None = None


Denoiser = Callable[[Array, Array], Denoised]
"""(x_t [B, ...], t int32 [B], timesteps of the training schedule) -> Denoised."""


def make_denoiser(
    network: Network,
    process: GaussianProcess,
    prediction: PredictionType | str,
    *,
    conditioning: Conditioning = None,
    learned_variance: bool = False,
    guidance: Guidance | None = None,
    thresholding: Thresholding | None = None,
) -> Denoiser:
    """The denoiser of a network.

    Args:
      network: (x_t, t, conditioning) -> raw output.
      process: of the schedule the network was trained with, not of a respaced one.
      conditioning: given to the network; with guidance, the guidance carries it instead.
      thresholding: None leaves x_0 as predicted.
    """
    prediction = parse(PredictionType, "prediction", prediction)
    if guidance is not None and conditioning is not None:
        raise UserError("give a denoiser its conditioning or guidance, which has its own; not both")

    def denoise(x_t: Float[Array, "b *data"], t: Int[Array, " b"]) -> Denoised:
        if guidance is None:
            output = network(x_t, t, conditioning)
        else:
            output = guided_output(network, x_t, t, guidance)
        output, fraction = split_output(output, x_t.shape, learned_variance)
        x0 = process.convert(output, prediction, PredictionType.X0, x_t, t)
        if thresholding is None:
            epsilon = process.convert(output, prediction, PredictionType.EPSILON, x_t, t)
        else:
            x0 = thresholding(x0)
            epsilon = process.convert(x0, PredictionType.X0, PredictionType.EPSILON, x_t, t)
        return Denoised(x0, epsilon, fraction)

    return denoise
