"""A diffusion upsampler: a U-Net that sees the low-resolution image beside the noisy one.

    prediction = unet([x_t, bicubic(low_res)], t)

The low-resolution image is resized to the size of x_t with a bicubic filter and concatenated after
it. There is no attention and no text, so the network is convolutional: trained on crops, applied to
whole images (paper, appendix C). With `noise_conditioning` the network is also told how much noise
was put on the low-resolution image (conditioning augmentation).

Any network with the U-Net's call signature serves: `UNet` with no attention, or `EfficientUNet`.

Source: Ramesh et al. 2022 (arXiv 2204.06125) section 2.1; Ho et al. 2021 (2106.15282), noise.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.errors import UserError
from unclip_jax.models.dropout import active_dropout_keys
from unclip_jax.models.efficient_unet import EfficientUNet
from unclip_jax.models.embeddings import TimeEmbedding
from unclip_jax.models.resize import resize_bicubic
from unclip_jax.models.unet import UNet

NOISE_LEVEL_SCALE = 1000.0  # spreads levels over the range that the sinusoids are made for


class Upsampler(nn.Module):
    """Predicts the noise of a large image, given the small one.

    Attributes:
      unet: the network; its dtypes are the upsampler's.
      noise_conditioning: whether the network is told the noise level of the small image.
    """

    unet: UNet | EfficientUNet
    noise_conditioning: bool = False

    @property
    def down_factor(self) -> int:
        """What the height and width of x_t must be divisible by."""
        return self.unet.down_factor

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, "b h w c"],
        t: Int[Array, " b"],
        *,
        low_res: Float[Array, "b h2 w2 c"],
        noise_level: Float[Array, " b"] | None = None,
        deterministic: bool = True,
        dropout_keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w out"]:
        """Applies the upsampler; the result has the dtype of x_t.

        Args:
          x_t: noisy images, [-1, 1] plus noise.
          t: timesteps.
          low_res: small images in [-1, 1], of any size.
          noise_level: how noisy low_res is, in [0, 1]; 0 is clean. Needed with
            `noise_conditioning`, refused without.
          deterministic: False switches dropout on, which then needs `dropout_keys`.
          dropout_keys: one key per example.

        Raises:
          UserError: if noise_level does not fit `noise_conditioning`.
        """
        if (noise_level is not None) != self.noise_conditioning:
            raise UserError(
                f"upsampler with noise_conditioning={self.noise_conditioning} was "
                f"{'not ' if noise_level is None else ''}given a noise_level"
            )
        embedding = None
        if noise_level is not None:
            embedding = TimeEmbedding(
                self.unet.channels,
                self.unet.embedding_width,
                self.unet.dtype,
                self.unet.param_dtype,
                name="noise_embedding",
            )(noise_level * NOISE_LEVEL_SCALE)
        low_res = resize_bicubic(low_res.astype(x_t.dtype), *x_t.shape[1:3])
        return self.unet(
            jnp.concatenate([x_t, low_res], axis=-1),
            t,
            embedding=embedding,
            dropout_keys=active_dropout_keys(self.unet.dropout, deterministic, dropout_keys),
        )
