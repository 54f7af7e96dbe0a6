"""Every shipped preset, paper-size ones included: init and train step have consistent shapes."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from presets import CASES, CLIP_OF, PRESETS

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import trees
from unclip_jax.parallel import make_mesh
from unclip_jax.training.ema import decay_schedule
from unclip_jax.training.layout import state_shardings
from unclip_jax.training.optimizer import learning_rate, make_optimizer
from unclip_jax.training.state import init_state
from unclip_jax.training.step import make_train_step


def build(stage, variant):
    config = load_config(f"{stage}:{variant}")
    clip = load_config(f"clip:{CLIP_OF.get(variant, 'tiny')}").model
    return config, clip, stages.build(config, clip)


def abstract_batch(needs, clip, rows):
    shapes = {name: ((rows, s, s, 3), jnp.uint8) for name, s in needs.sides().items()}
    if needs.context_length:
        shapes["tokens"] = ((rows, needs.context_length), jnp.int32)
    for kind in needs.embeddings:
        shapes[f"{kind}_embedding"] = ((rows, clip.embedding_dim), jnp.float32)
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_init_and_train_step_have_consistent_shapes(name, variant):
    """Traced over a mesh of 8 devices, as a run would; nothing is allocated."""
    config, clip, stage = build(name, variant)
    schedule = learning_rate(config.optim, warmup_steps=10, total_steps=100)
    tx = make_optimizer(config.optim, schedule)
    state = jax.eval_shape(lambda: init_state(stage, tx, jax.random.key(0)))
    frozen_clip = stages.build(load_config(f"clip:{CLIP_OF.get(variant, 'tiny')}"))
    dim = jax.ShapeDtypeStruct((clip.embedding_dim,), jnp.float32)
    frozen = {
        "clip": jax.eval_shape(frozen_clip.init, jax.random.key(0)),
        "statistics": {"mean": dim, "std": dim},
    }
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        step = make_train_step(
            stage, tx, schedule, ema_decay=decay_schedule(config.ema.decay), seed=0, mesh=mesh,
            state_shardings=state_shardings(state, config.mesh, mesh),
        )  # fmt: skip
        new, metrics = jax.eval_shape(step, state, frozen, abstract_batch(stage.needs, clip, 8))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(new) == shapes(state)
    assert {m.shape for m in metrics.values()} == {()}
    for path, leaf in trees.flatten(state.params).items():
        assert leaf.dtype == np.float32, path


# Published or counted sizes; the nets' own tests break them down.
@pytest.mark.parametrize(
    ("name", "variant", "least", "most"),
    [
        ("prior", "karlo", 1.02e9, 1.03e9),
        ("prior", "paper", 2.4e9, 2.7e9),  # 1.2 B prior and its 1.3 B text encoder
        ("decoder", "karlo", 0.88e9, 0.90e9),
        ("decoder", "paper", 3.5e9, 3.7e9),
        ("upsampler", "paper_256", 0.69e9, 0.74e9),
        ("upsampler", "paper_1024", 0.27e9, 0.29e9),
        ("clip", "vit_l14", 427e6, 428e6),
    ],
)
def test_sizes_are_the_published_ones(name, variant, least, most):
    _, _, stage = build(name, variant)
    assert least < trees.count(jax.eval_shape(stage.init, jax.random.key(0))) < most


def test_every_variant_is_listed_here():
    for stage, variants in PRESETS.items():
        module = importlib.import_module(f"unclip_jax.configs.{stage}")
        try:
            module.get_config("no such variant")
        except Exception as error:
            text = str(error)
        found = text.partition("valid: ")[2].rstrip(")").split(", ")
        assert sorted(variants) == sorted(found)
