"""The U-Net: attention, structure, published size, gradients, precision and rematerialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.models.resize import depth_to_space, space_to_depth
from unclip_jax.models.spatial_attention import SpatialAttention
from unclip_jax.models.unet import UNet

ONE_LEVEL = {"multipliers": (1,), "attention_factors": (1,)}
TINY = {"out_channels": 2, "channels": 8, "multipliers": (1, 2), "depth": 1}
TINY |= {"attention_factors": (2,), "head_dim": 4, "norm_groups": 4}


def inputs(size=8, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(2, size, size, 3)).astype(dtype),
        "t": np.array([5, 800], np.int32),
        "embedding": rng.normal(size=(2, 32)).astype(dtype),
        "context": rng.normal(size=(2, 5, 6)).astype(dtype),
        "context_mask": np.array([[True, True, False, False, False], [True] * 5]),
    }


@functools.cache
def shapes(**options):
    net = UNet(**{**TINY, **options})
    return jax.eval_shape(lambda: net.init(jax.random.key(0), **inputs()))["params"]


def test_context_keys_come_before_the_maps_own_in_one_softmax(random_params):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 8)).astype(np.float32)
    context = rng.normal(size=(2, 4, 5)).astype(np.float32)
    mask = np.array([[True, False, True, False], [True] * 4])
    block = SpatialAttention(head_dim=4, groups=2)
    params = random_params(lambda: block.init(jax.random.key(0), x, context, mask))
    got = block.apply({"params": params}, x, context, mask)

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    project = lambda name, v: v @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    grouped = np.asarray(x, np.float64).reshape(2, 6, 2, 4)
    mean, variance = (f(grouped, (1, 3), keepdims=True) for f in (np.mean, np.var))
    h = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(2, 6, 8)
    h = h * p["norm"]["scale"] + p["norm"]["bias"]
    out = np.zeros((2, 6, 8))
    for example in range(2):
        seen = np.concatenate([context[example][mask[example]]])
        keys = np.concatenate([project("context_key", seen), project("key", h[example])])
        values = np.concatenate([project("context_value", seen), project("value", h[example])])
        query = project("query", h[example])
        for head in (slice(0, 4), slice(4, 8)):
            weights = np.exp(query[:, head] @ keys[:, head].T / 2)
            weights /= weights.sum(-1, keepdims=True)
            out[example, :, head] = weights @ values[:, head]
    wanted = x + project("out", out).reshape(x.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_attention_refuses_heads_that_do_not_fit():
    with pytest.raises(UserError, match="heads of 3 channels do not divide 8"):
        SpatialAttention(head_dim=3, groups=2).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))


@pytest.mark.parametrize(
    ("factors", "mid", "wanted"),
    [
        ((), False, set()),
        ((2,), True, {"mid", "down_1", "up_1"}),
        ((1, 2), False, {"down_0", "down_1", "up_0", "up_1"}),
    ],
)
def test_attention_sits_where_the_factors_say(factors, mid, wanted):
    names = shapes(attention_factors=factors, mid_attention=mid)
    assert {n.split("_attention")[0] for n in names if "attention" in n} == wanted


def test_factors_count_the_stem():
    names = shapes(attention_factors=(4,), space_to_depth=2, mid_attention=False)
    assert {n for n in names if "attention" in n} == {
        "down_1_attention_0",
        "up_1_attention_0",
        "up_1_attention_1",
    }
    assert names["conv_in"]["kernel"].shape == (3, 3, 12, 8)
    assert names["conv_out"]["kernel"].shape == (3, 3, 8, 8)


def test_a_factor_that_no_level_has_is_an_error():
    with pytest.raises(UserError, match=r"attention_factors \[4, 8\] are not among .* \[1, 2\]"):
        shapes(attention_factors=(2, 4, 8))


def test_space_to_depth_keeps_blocks_together_and_inverts():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(np.float32)
    folded = space_to_depth(jnp.asarray(x), 2)
    np.testing.assert_array_equal(folded[1, 1, 2], x[1, 2:4, 4:6].ravel())
    np.testing.assert_array_equal(depth_to_space(folded, 2), x)


def test_published_sizes(claim):
    """karlo's decoder and upsampler to the last parameter, and the paper's rounded sizes."""
    t = jax.ShapeDtypeStruct((1,), jnp.int32)

    def count(net, channels_in, context=None):
        x = jax.ShapeDtypeStruct((1, 64, 64, channels_in), jnp.float32)
        context = context and jax.ShapeDtypeStruct((1, 4, context), jnp.float32)
        init = lambda x, t, c: net.init(jax.random.key(0), x, t, context=c)  # noqa: E731
        return trees.count(jax.eval_shape(init, x, t, context))

    sizes = []
    upsampler = functools.partial(UNet, attention_factors=(), mid_attention=False)
    sizes.append((count(UNet(6, 320), 3, context=1536), 885_439_686))
    sizes.append((count(upsampler(3, 320, scale_shift=False), 6), 691_579_523))
    sizes.append((count(upsampler(3, 320), 6), 729_702_083))  # the same net with scale and shift
    sizes.append((count(UNet(6, 512), 3, context=2048), 2_238_164_486))
    sizes.append((count(upsampler(6, 192, (1, 1, 2, 2, 4, 4), 2), 6), 282_064_326))
    counted, known = zip(*sizes, strict=True)
    what = "parameters of karlo's and the paper's U-Nets"
    claim.equal(what, "diffusers, and the paper's rounded sizes", counted, known)


def test_a_new_network_predicts_zero_at_any_size_that_can_be_halved():
    net = UNet(**TINY | {"depth": 0})
    variables = jax.jit(net.init)(jax.random.key(0), **inputs())
    predicted = jax.jit(net.apply)(variables, **inputs(12))
    np.testing.assert_array_equal(predicted, np.zeros((2, 12, 12, 2)))
    with pytest.raises(UserError, match=r"9 x 9 px .* divisible by 2"):
        net.init(jax.random.key(0), **inputs(9))


@functools.cache
def loss_of(**options):
    """(loss(params, given), net): a weighted sum of the outputs."""
    net = UNet(**{**TINY, **options})
    weights = np.random.default_rng(1).normal(size=(2, 8, 8, 2))

    def loss(params, given):
        out = net.apply({"params": params}, **given)
        return (out * weights.astype(out.dtype)).mean()

    return loss, net


def params_of(net, random_params):
    return random_params(lambda: net.init(jax.random.key(0), **inputs()))


def test_gradients_equal_finite_differences_in_float64(random_params, claim):
    """One random direction in the space of all parameters; every parameter has a gradient."""
    with jax.enable_x64(True):
        loss, net = loss_of(dtype=jnp.float64, param_dtype=jnp.float64, **ONE_LEVEL)
        params = params_of(net, random_params)
        to64 = lambda tree: jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), tree)  # noqa: E731
        params, given = to64(params), inputs(dtype=np.float64)
        direction = to64(random_params(lambda: {"params": params}, seed=1))
        step = jax.jit(jax.value_and_grad(loss))
        _, gradient = step(params, given)
        shifted = [
            step(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction), given)[0]
            for h in (-1e-5, 1e-5)
        ]
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        what, measured = "gradient of the U-Net (float64)", (shifted[1] - shifted[0]) / 2e-5
        claim.near(what, "finite differences", slope, measured, bound=1e-7)
        silent = [k for k, g in trees.flatten(gradient).items() if not jnp.abs(g).max() > 0]
        # A softmax does not see a constant added to all of its logits, which a key's bias is
        # where there is no context; here it shifts some of them.
        assert silent == []


def test_remat_changes_memory_and_no_number(random_params):
    given = inputs()
    results, stored = {}, {}
    for policy in ("none", "norms", "full"):
        loss, net = loss_of(remat=policy, **ONE_LEVEL)
        params = params_of(net, random_params)
        results[policy] = jax.jit(jax.value_and_grad(loss))(params, given)
        residuals = jax.eval_shape(lambda p, f=loss: jax.vjp(lambda p: f(p, given), p)[1], params)
        stored[policy] = trees.count(residuals) - trees.count(params)
    for policy in ("norms", "full"):
        same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
        jax.tree.map(same, results[policy], results["none"])
    assert stored["full"] < 0.7 * stored["norms"]
    assert stored["norms"] < 0.7 * stored["none"]
    with pytest.raises(UserError, match="did you mean 'norms'"):
        UNet(**TINY, remat="norm").init(jax.random.key(0), **given)


def matmul_dtypes(jaxpr):
    """Operand dtypes of every convolution and matrix product, sub-jaxprs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield from ((equation.primitive.name, str(v.aval.dtype)) for v in equation.invars)
        for inner in jaxprs_in_params(equation.params):
            yield from matmul_dtypes(inner)


def test_bfloat16_reaches_every_convolution_and_product(random_params):
    loss, net = loss_of(dtype=jnp.bfloat16)
    params = params_of(net, random_params)
    forward = jax.make_jaxpr(loss)(params, inputs()).jaxpr
    assert set(matmul_dtypes(forward)) == {
        ("conv_general_dilated", "bfloat16"),
        ("dot_general", "bfloat16"),
    }
    backward = jax.make_jaxpr(jax.grad(loss))(params, inputs()).jaxpr
    assert {d for name, d in matmul_dtypes(backward) if name[:4] == "conv"} == {"bfloat16"}


def test_bfloat16_outputs_are_close_to_float32(random_params):
    params = params_of(UNet(**TINY), random_params)
    outputs = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        net = UNet(**TINY, dtype=dtype)
        outputs[dtype] = np.asarray(jax.jit(net.apply)({"params": params}, **inputs()))
        assert outputs[dtype].dtype == np.float32
    exact, rounded = outputs.values()
    error = np.sqrt(np.mean((rounded - exact) ** 2) / np.mean(exact**2))
    assert error < 0.02  # 2^-8 per rounding over a dozen layers
