"""The shared transformer: layouts that change nothing, causality, gradients, initialisation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.models import stack_layers, unstack_layers
from unclip_jax.models.transformer import ACTIVATIONS, Transformer, causal_mask

SIZE = {"layers": 2, "heads": 2, "mlp_dim": 24}


@pytest.fixture(scope="module")
def net():
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    init = Transformer(**SIZE).init
    abstract = jax.eval_shape(init, jax.random.key(0), x, causal_mask(5))["params"]
    rng = np.random.default_rng(0)  # biases and scales too, which start at 0 and 1
    fill = lambda p: jnp.asarray(rng.normal(size=p.shape) / p.shape[-1] ** 0.5, "f4")  # noqa: E731
    return jax.tree.map(fill, abstract), x


@pytest.fixture(scope="module")
def plain(net):
    """Outputs and gradients without scan and remat."""
    return value_and_grads(*net)


def value_and_grads(params, x, **options):
    def loss(params, x):
        out = Transformer(**SIZE, **options).apply({"params": params}, x, causal_mask(5))
        return jnp.sum(jnp.sin(out)), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    return out, grads


@pytest.mark.parametrize(
    ("scan_layers", "remat"),
    [(False, "norms"), (False, "full"), (True, "none"), (True, "norms"), (True, "full")],
)
def test_scan_and_remat_change_no_output_and_no_gradient(net, plain, scan_layers, remat, claim):
    params, x = net
    wanted, (wanted_params, wanted_x) = plain
    given = stack_layers(params) if scan_layers else params
    got, (got_params, got_x) = value_and_grads(given, x, scan_layers=scan_layers, remat=remat)
    what = "scanned and rematerialised layers, value and gradients"
    both = (got, got_x, unstack_layers(got_params)), (wanted, wanted_x, wanted_params)
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        claim.near(what, "the plain transformer", a, b, bound=1e-5)


def test_stacking_keeps_order_and_everything_around_it():
    layer = lambda i: {"qkv": {"kernel": jnp.full((2, 6), i)}, "norm_1": {"scale": jnp.full(2, i)}}  # noqa: E731
    blocks = {f"block_{i}": layer(i) for i in range(12)}
    tree = {"text": {"transformer": blocks, "position": jnp.ones(3)}, "scale": jnp.ones(())}
    stacked = stack_layers(tree)
    kernel = stacked["text"]["transformer"]["blocks"]["qkv"]["kernel"]
    assert kernel.shape == (12, 2, 6)
    np.testing.assert_array_equal(kernel[:, 0, 0], np.arange(12))  # block_10 is not after block_1
    back = unstack_layers(stacked)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    for function, fixed in ((stack_layers, stacked), (unstack_layers, tree)):
        again = function(fixed)
        assert jax.tree.structure(again) == jax.tree.structure(fixed)


def test_scanned_and_unrolled_models_ask_for_each_others_layout():
    x = jnp.zeros((1, 5, 8))
    shapes = {
        scan: jax.eval_shape(Transformer(**SIZE, scan_layers=scan).init, jax.random.key(0), x)
        for scan in (False, True)
    }
    stacked = jax.eval_shape(stack_layers, shapes[False]["params"])
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes[True]["params"])


def test_layers_of_a_scanned_model_start_different():
    x = jnp.zeros((1, 5, 8))
    params = jax.jit(Transformer(**SIZE, scan_layers=True).init)(jax.random.key(0), x)["params"]
    kernel = params["blocks"]["qkv"]["kernel"]
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0.1


def test_a_causal_mask_hides_what_comes_later(net):
    params, x = net
    apply = jax.jit(lambda x, mask: Transformer(**SIZE).apply({"params": params}, x, mask))
    moved = x.at[:, 3, 0].add(1.0)  # one feature: norms do not see a shift of all of them

    def change(mask):
        return jnp.abs(apply(x, mask) - apply(moved, mask)).max(axis=(0, 2))

    causal, free = change(causal_mask(5)), change(jnp.ones((1, 1, 5, 5), bool))
    np.testing.assert_array_equal(causal[:3], 0)
    assert float(causal[3:].min()) > 1e-3
    assert float(free.min()) > 1e-3


def test_gradients_equal_finite_differences_in_float64(net, claim):
    params, x = stack_layers(net[0]), net[1]
    model = Transformer(**SIZE, scan_layers=True, dtype=jnp.float64, param_dtype=jnp.float64)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (params, x))
        direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

        @jax.jit
        @jax.value_and_grad
        def loss(step):  # along one direction through all parameters
            moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
            return jnp.sum(jnp.sin(model.apply({"params": moved}, x, causal_mask(5))))

        h = 1e-6
        (ahead, _), (behind, _), (_, got) = loss(h), loss(-h), loss(0.0)
    measured = float(ahead - behind) / (2 * h)
    what = "gradient of the transformer (float64)"
    claim.near(what, "finite differences", float(got), measured, bound=1e-7)


@pytest.mark.parametrize("x", [-3.0, -0.5, 0.0, 0.7, 2.5])
def test_activations_are_the_closed_forms(x):
    gelu = x * (1 + math.erf(x / math.sqrt(2))) / 2
    assert float(ACTIVATIONS["gelu"](jnp.asarray(x))) == pytest.approx(gelu, rel=1e-5, abs=1e-7)
    quick = x / (1 + math.exp(-1.702 * x))
    assert float(ACTIVATIONS["quick_gelu"](jnp.asarray(x))) == pytest.approx(quick, rel=1e-5)


def test_initial_spread_is_the_documented_one():
    x = jnp.zeros((1, 2, 128))
    init = jax.jit(Transformer(layers=4, heads=2, scan_layers=True).init)
    block = init(jax.random.key(0), x)["params"]["blocks"]
    wanted = {
        "qkv": 128**-0.5,
        "attention_out": (2 * 4 * 128) ** -0.5,
        "mlp_in": (2 * 128) ** -0.5,
        "mlp_out": (2 * 4 * 128) ** -0.5,
    }
    for name, std in wanted.items():
        assert float(jnp.std(block[name]["kernel"])) == pytest.approx(std, rel=0.03)
        assert not bool(block[name]["bias"].any())


def test_unknown_names_and_uneven_heads_are_refused():
    x = jnp.zeros((1, 5, 8))
    for options, message in (
        ({"activation": "gelo"}, r"unknown activation 'gelo' \(did you mean 'gelu'\?\)"),
        ({"remat": "ful"}, r"unknown remat policy 'ful' \(did you mean 'full'\?\)"),
        ({"heads": 3}, "width 8 is not a multiple of its 3 heads"),
    ):
        with pytest.raises(UserError, match=message):
            Transformer(**{**SIZE, **options}).init(jax.random.key(0), x)


def test_the_slope_of_gelu_is_the_closed_form_and_can_be_taken_inside_a_shard_map():
    points = np.linspace(-6, 6, 48)
    normal = np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in points])
    wanted = normal + points * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    slope = jax.vmap(jax.grad(ACTIVATIONS["gelu"]))
    np.testing.assert_allclose(slope(jnp.asarray(points, jnp.float32)), wanted, atol=5e-7)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    with jax.set_mesh(mesh):
        split = jax.jit(jax.shard_map(slope, in_specs=rows, out_specs=rows))
        np.testing.assert_allclose(split(jnp.asarray(points, jnp.float32)), wanted, atol=5e-7)
