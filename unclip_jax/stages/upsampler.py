"""Stage `upsampler`: sharper pictures from small ones (paper, section 2.1, last paragraph).

It sees no caption and has no attention, so it is trained on crops (a quarter of the side in the
paper) and applied to whole pictures. The small picture is the large one averaged over blocks, then
blurred in half of the examples: what a decoder makes is never as crisp as a real thumbnail.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import RunConfig, Sampling, UpsamplerModel
from unclip_jax.core import images, precision, rng
from unclip_jax.models import UNet, Upsampler
from unclip_jax.stages.objective import diffusion_loss
from unclip_jax.stages.sampling import Conditions, draw
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage


def make_upsampler(config: RunConfig, model: UpsamplerModel) -> Upsampler:
    """The network of a config."""
    shared = {
        "out_channels": 6 if config.diffusion.learned_variance else 3,
        "channels": model.channels,
        "multipliers": model.multipliers,
        "norm_groups": model.norm_groups,
        "dropout": model.dropout,
        "remat": model.remat,
        "dtype": precision.compute_dtype(config.precision.compute),
    }
    if model.architecture == "efficient":
        from unclip_jax.models import EfficientUNet

        return Upsampler(EfficientUNet(depths=(model.depth,) * len(model.multipliers), **shared))
    unet = UNet(
        depth=model.depth,
        attention_factors=(),
        mid_attention=False,
        scale_shift=model.scale_shift,
        space_to_depth=model.space_to_depth,
        **shared,
    )
    return Upsampler(unet)


def build(config: RunConfig, model: UpsamplerModel) -> Stage:
    """The stage of a config whose `stage` is "upsampler"."""
    net = make_upsampler(config, model)
    objective = diffusion_loss(config.diffusion, num_levels=256)
    field = f"image_{model.image_size}"

    def init(key: Key[Array, ""]) -> Params:
        high, low = crop_sizes(model)
        x = jnp.zeros((1, high, high, 3))
        return net.init(key, x, jnp.zeros(1, jnp.int32), low_res=jnp.zeros((1, low, low, 3)))[
            "params"
        ]

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        del frozen
        high = images.to_float(batch[field])
        low = corrupt(model, shrink(high, model.low_size), keys)
        high, low = crop(model, high, low, keys)

        def network(x_t: Array, t: Array) -> Array:
            return net.apply({"params": params}, x_t, t, low_res=low)

        return objective(network, high, keys)

    def preview(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        del frozen
        high = images.to_float(batch[field])
        low = shrink(high, model.low_size)
        drawn = sample_upsampler(config, model, params, low, keys, sampling=config.sampling)
        return {"small": low, "upsampled": drawn, "real": high}

    return Stage("upsampler", BatchNeeds(image_sizes=(model.image_size,)), init, loss, preview)


def sample_upsampler(
    config: RunConfig,
    model: UpsamplerModel,
    params: Params,
    low: Float[Array, "b l l 3"],
    keys: Key[Array, " b"],
    *,
    sampling: Sampling,
) -> Float[Array, "b s s 3"]:
    """Pictures of `image_size` in [-1, 1] from pictures of `low_size`."""
    net = make_upsampler(config, model)

    def network(x_t: Array, t: Array, low_res: Array) -> Array:
        return net.apply({"params": params}, x_t, t, low_res=low_res)

    return draw(
        network,
        Conditions(low),
        (model.image_size, model.image_size, 3),
        keys,
        diffusion=config.diffusion,
        sampling=sampling,
        guidance_scale=1.0,
    )


def crop_sizes(model: UpsamplerModel) -> tuple[int, int]:
    """Sides of the training crops, of the large and of the small picture."""
    high = round(model.crop_fraction * model.image_size)
    return high, high * model.low_size // model.image_size


def shrink(pictures: Float[Array, "b s s 3"], size: int) -> Float[Array, "b l l 3"]:
    """Averages over blocks of pixels; `size` divides the side."""
    batch, side, _, channels = pictures.shape
    block = side // size
    return pictures.reshape(batch, size, block, size, block, channels).mean((2, 4))


def corrupt(
    model: UpsamplerModel, low: Float[Array, "b l l 3"], keys: Key[Array, " b"]
) -> Float[Array, "b l l 3"]:
    """Blurs each picture with the configured probability (3 x 3 Gaussian kernel)."""
    key = rng.fold_in_name(keys, "blur")
    chosen = jax.vmap(jax.random.bernoulli, (0, None))(key, model.blur_probability)
    return jnp.where(chosen[:, None, None, None], blur(low, model.blur_sigma), low)


def blur(pictures: Float[Array, "b h w c"], sigma: float) -> Float[Array, "b h w c"]:
    """Separable 3-tap Gaussian; edges are repeated."""
    side = jnp.exp(-0.5 / sigma**2)
    for axis in (1, 2):
        padding = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        wide = jnp.pad(pictures, padding, mode="edge")
        size = pictures.shape[axis]
        before, middle, after = (
            jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(3)
        )
        pictures = (middle + side * (before + after)) / (1 + 2 * side)
    return pictures


def crop(
    model: UpsamplerModel,
    high: Float[Array, "b s s 3"],
    low: Float[Array, "b l l 3"],
    keys: Key[Array, " b"],
) -> tuple[Float[Array, "b c c 3"], Float[Array, "b k k 3"]]:
    """The same random window of both pictures; it starts on a pixel of the small one."""
    high_side, low_side = crop_sizes(model)
    factor = model.image_size // model.low_size
    last = model.low_size - low_side

    def window(key: Array, high_one: Array, low_one: Array) -> tuple[Array, Array]:
        row, column = jax.random.randint(key, (2,), 0, last + 1)
        start = (row * factor, column * factor, 0)
        return (
            jax.lax.dynamic_slice(high_one, start, (high_side, high_side, 3)),
            jax.lax.dynamic_slice(low_one, (row, column, 0), (low_side, low_side, 3)),
        )

    return jax.vmap(window)(rng.fold_in_name(keys, "crop"), high, low)
