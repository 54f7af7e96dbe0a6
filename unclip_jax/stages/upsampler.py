"""Stage `upsampler`: sharper pictures from small ones (paper, section 2.1, last paragraph).

It sees no caption and has no attention, so it is trained on crops (a quarter of the side in the
paper; the loader cuts them out) and applied to whole pictures. The small picture is the crop
averaged over blocks, and made worse: what a decoder draws is never as crisp as a real thumbnail
(`degradation.py`). With `noise_augmentation` it is noised too, by a drawn part of the forward
process, and the network is told how much (conditioning augmentation, Ho et al. 2021, arXiv
2106.15282, section 4).

With `last_step="own"` the last step of sampling, at t = 0 where only fine texture is left, is drawn
by a second network of the same form, as in karlo (super_res_first and super_res_last of diffusers).
Its parameters stand beside the others' under "last_step", and it learns from the examples at t = 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.needs import BatchNeeds, Window
from unclip_jax.config.schema import RunConfig, UpsamplerModel
from unclip_jax.core import images, precision, rng
from unclip_jax.diffusion import GaussianProcess, Known, make_schedule
from unclip_jax.models import UNet, Upsampler
from unclip_jax.stages import degradation
from unclip_jax.stages.objective import Network, diffusion_loss
from unclip_jax.stages.sampling import Conditions, Plan, draw, make_plan, start
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage

LAST_STEP = "last_step"


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

        efficient = EfficientUNet(depths=(model.depth,) * len(model.multipliers), **shared)
        return Upsampler(efficient, noise_conditioning=model.noise_augmentation > 0)
    unet = UNet(
        depth=model.depth,
        attention_factors=(),
        mid_attention=False,
        scale_shift=model.scale_shift,
        space_to_depth=model.space_to_depth,
        **shared,
    )
    return Upsampler(unet, noise_conditioning=model.noise_augmentation > 0)


def build(config: RunConfig, model: UpsamplerModel) -> Stage:
    """The stage of a config whose `stage` is "upsampler"."""
    net = make_upsampler(config, model)
    objective = diffusion_loss(config, num_levels=256)
    field = f"image_{model.image_size}"

    def init(key: Key[Array, ""]) -> Params:
        high, low = crop_sizes(model)
        x, small = jnp.zeros((1, high, high, 3)), jnp.zeros((1, low, low, 3))
        level = {"noise_level": jnp.zeros(1)} if model.noise_augmentation else {}

        def fresh(key: Key[Array, ""]) -> Params:
            return net.init(key, x, jnp.zeros(1, jnp.int32), low_res=small, **level)["params"]

        if model.last_step == "shared":
            return fresh(key)
        return {**fresh(key), LAST_STEP: fresh(rng.fold_in_name(key, LAST_STEP))}

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        high = images.to_float(batch[field])
        low = corrupt(model, high, keys)
        level = {}
        if model.noise_augmentation:
            most = round(model.noise_augmentation * config.diffusion.num_steps)
            steps = jax.vmap(lambda key: jax.random.randint(key, (), 0, most + 1))(
                rng.fold_in_name(keys, "augmentation level")
            )
            low = add_noise(config, low, steps, keys)
            level = {"noise_level": steps / config.diffusion.num_steps}

        def network(x_t: Array, t: Array) -> Array:
            return predict(net, model, params, x_t, t, {"low_res": low, **level})

        return objective(network, high, keys, frozen, batch)

    def task(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Network, Float[Array, "b s s 3"]]:
        """On whole pictures, and without corruption: what sampling does."""
        del frozen
        high = images.to_float(batch[field])
        low = degradation.shrink(high, model.low_size)
        given = condition(config, model, low, keys, make_plan(config).low_noise)
        return partial(predict, net, model, params, given=given), high

    def preview(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        del frozen
        high = images.to_float(batch[field])
        low = degradation.shrink(high, model.low_size)
        drawn = sample_upsampler(config, model, params, low, keys, make_plan(config))
        return {"small": low, "upsampled": drawn, "real": high}

    needs = BatchNeeds(image_sizes=(model.image_size,), window=training_crop(model))
    return Stage(
        "upsampler",
        needs,
        init,
        loss,
        preview,
        memory=objective.memory,
        prepare=objective.prepare,
        task=task,
    )


def predict(
    net: Upsampler,
    model: UpsamplerModel,
    params: Params,
    x_t: Array,
    t: Array,
    given: dict[str, Array],
) -> Array:
    """The output of the network that draws each example's step."""
    output = net.apply({"params": params}, x_t, t, **given)
    if model.last_step == "shared":
        return output
    # Both networks would cost twice as much, and few batches hold an example at t = 0.
    last = jax.lax.cond(
        jnp.any(t == 0),
        lambda: net.apply({"params": params[LAST_STEP]}, x_t, t, **given),
        lambda: output,
    )
    return jnp.where((t == 0)[:, None, None, None], last, output)


def sample_upsampler(
    config: RunConfig,
    model: UpsamplerModel,
    params: Params,
    low: Float[Array, "b l k 3"],
    keys: Key[Array, " b"],
    plan: Plan,
    known: Known | None = None,
) -> Float[Array, "b s r 3"]:
    """Pictures in [-1, 1], `image_size` / `low_size` times as large as the given ones.

    With noise augmentation, `plan.low_noise` steps of noise are put on the small pictures first.

    Args:
      low: of `low_size`, or of any other size: the network is convolutional.
      known: a part of the large picture that is kept.
    """
    net = make_upsampler(config, model)

    def network(
        x_t: Array, t: Array, condition: dict[str, Array], weights: Params = params
    ) -> Array:
        return net.apply({"params": weights}, x_t, t, **condition)

    own = model.last_step == "own"
    factor = model.image_size // model.low_size
    shape = (low.shape[1] * factor, low.shape[2] * factor, 3)
    return draw(
        network,
        Conditions(condition(config, model, low, keys, plan.low_noise)),
        start(plan, config, keys, shape),
        keys,
        config=config,
        plan=plan,
        known=known,
        last_network=partial(network, weights=params[LAST_STEP]) if own else None,
    )


def condition(
    config: RunConfig,
    model: UpsamplerModel,
    low: Float[Array, "b l k 3"],
    keys: Key[Array, " b"],
    noise_steps: Int[Array, ""] | int,
) -> dict[str, Array]:
    """The network's arguments when sampling: the small pictures, noised if it knows noise."""
    if not model.noise_augmentation:
        return {"low_res": low}
    steps = jnp.full(low.shape[:1], noise_steps, jnp.int32)
    low = add_noise(config, low, steps, keys)
    return {"low_res": low, "noise_level": steps / config.diffusion.num_steps}


def crop_sizes(model: UpsamplerModel) -> tuple[int, int]:
    """Sides of the training crops, of the large and of the small picture."""
    high = round(model.crop_fraction * model.image_size)
    return high, high * model.low_size // model.image_size


def training_crop(model: UpsamplerModel) -> Window | None:
    """The crop of the large picture, which begins and ends on pixels of the small one."""
    if model.crop_fraction == 1:
        return None
    return Window(crop_sizes(model)[0], grid=model.image_size // model.low_size)


def corrupt(
    model: UpsamplerModel, high: Float[Array, "b s s 3"], keys: Key[Array, " b"]
) -> Float[Array, "b l l 3"]:
    """The small pictures of training pairs, corrupted as configured."""
    size = high.shape[1] * model.low_size // model.image_size
    if model.corruption == "bsr":
        return degradation.bsr(high, size, keys)
    low = degradation.shrink(high, size)
    if model.corruption == "none":
        return low
    key = rng.fold_in_name(keys, "blur")
    chosen = jax.vmap(jax.random.bernoulli, (0, None))(key, jnp.float32(model.blur_probability))
    blurred = degradation.blur(low, model.blur_sigma)
    return jnp.where(chosen[:, None, None, None], blurred, low)


def add_noise(
    config: RunConfig,
    low: Float[Array, "b l l 3"],
    steps: Int[Array, " b"],
    keys: Key[Array, " b"],
) -> Float[Array, "b l l 3"]:
    """The small pictures after `steps` steps of the forward process; 0 leaves them clean."""
    process = GaussianProcess(make_schedule(config.diffusion.schedule, config.diffusion.num_steps))
    noise = rng.normal(rng.fold_in_name(keys, "augmentation noise"), low.shape[1:])
    noisy = process.corrupt(low, jnp.maximum(steps - 1, 0), noise)
    return jnp.where((steps == 0)[:, None, None, None], low, noisy)
