"""Where a run begins: resume > restore > init-from > scratch, and what may be taken."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.core import images, trees
from unclip_jax.errors import UserError
from unclip_jax.stages.stage import Stage
from unclip_jax.training.begin import Initial, choose
from unclip_jax.training.restore import load_params
from unclip_jax.training.run import train
from unclip_jax.training.workdir import prepare


def stage():
    def init(key):
        text, image = jax.random.split(key)
        return {
            "text": {"w": jax.random.normal(text, (3, 4))},
            "image": {"w": jax.random.normal(image, (3, 4))},
        }

    def loss(params, frozen, batch, keys):
        x = images.to_float(batch["image_16"]).mean(axis=(1, 2))
        return jnp.sum((x @ (params["text"]["w"] + params["image"]["w"]) - 1) ** 2, axis=1), {}

    return Stage("toy", BatchNeeds(image_sizes=(16,)), init, loss)


def run(shards, workdir, initial=None, steps=2, **overrides):
    settings = {
        "data.train": str(shards / "train-*.tar"),
        "data.validation": "none",
        "train.duration": f"{steps} steps",
        "train.batch_size": "8",
        "optim.warmup": "1 steps",
        **overrides,
    }
    config = load_config("upsampler:tiny", settings)
    assert train(config, stage(), {}, workdir, initial=initial)
    return params(workdir)


def params(workdir, weights="raw"):
    return load_params(workdir, jax.eval_shape(stage().init, jax.random.key(0)), weights=weights)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


GIVEN = Initial("elsewhere", {"text": {"w": np.full((3, 4), 5.0)}, "image": {"w": np.ones((3, 4))}})
STILL = {"optim.learning_rate": "1e-30"}


@pytest.fixture(scope="module")
def source(shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("source")
    run(shards, workdir, steps=3)
    return workdir


def test_the_first_rule_that_applies_wins(shards, source, tmp_path, capsys):
    scratch, _ = run(shards, tmp_path / "scratch", **STILL)
    assert "parameters: from scratch, seed 0" in capsys.readouterr().err
    given, _ = run(shards, tmp_path / "given", GIVEN, **STILL)
    assert "parameters: parameters from elsewhere" in capsys.readouterr().err
    np.testing.assert_allclose(given["text"]["w"], 5.0)
    restored, step = run(shards, tmp_path / "r", GIVEN, steps=5, **{"init.restore": str(source)})
    assert f"restored step 3 of {source}, goes on in its data" in capsys.readouterr().err
    resumed, _ = run(shards, tmp_path / "given", None, **STILL, **{"init.restore": str(source)})
    assert "resumed from step 2" in capsys.readouterr().err
    assert_equal(resumed, given)
    assert step == 5
    assert float(jnp.abs(scratch["text"]["w"] - given["text"]["w"]).min()) > 0.5
    straight, _ = run(shards, tmp_path / "straight", steps=5)
    assert_equal(restored, straight)


def test_a_restored_run_on_other_data_begins_it(shards, source, tmp_path, capsys):
    other = {"init.restore": str(source), "data.train": str(shards / "train-00000.tar")}
    _, step = run(shards, tmp_path, steps=5, **other)
    assert step == 5
    assert "begins its own data" in capsys.readouterr().err


def test_some_sub_trees_and_the_averages_with_them(shards, tmp_path):
    scratch, _ = run(shards, tmp_path / "scratch", **STILL)
    run(shards, tmp_path / "part", GIVEN, **STILL, **{"init.only": "('text/',)", "init.path": "x"})
    for weights in ("raw", "ema"):
        found, _ = params(tmp_path / "part", weights)
        np.testing.assert_allclose(found["text"]["w"], 5.0)
        np.testing.assert_allclose(found["image"]["w"], scratch["image"]["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("offered", "only", "message"),
    [
        ({"text/w": (3, 4)}, (), "elsewhere has no parameter image/w"),
        (
            {"text/w": (3, 5), "image/w": (3, 4)},
            (),
            r"text/w of shape \(3, 5\), the model \(3, 4\)",
        ),
        (
            {"text/w": (3, 4), "image/w": (3, 4), "old/w": (1,)},
            (),
            "old/w, which the model has not",
        ),
        ({"text/w": (3, 4)}, ("txt/",), r"no parameter begins with 'txt/'; .*'image/', 'text/'"),
        ({"image/w": (3, 4)}, ("text/",), "elsewhere has no parameter text/w"),
    ],
)
def test_what_does_not_fit_is_named(offered, only, message):
    wanted = {"text/w": np.zeros((3, 4)), "image/w": np.zeros((3, 4))}
    tree = trees.unflatten({path: np.zeros(shape) for path, shape in offered.items()})
    with pytest.raises(UserError, match=message):
        choose(Initial("elsewhere", tree), wanted, only)


def test_what_is_left_out_by_rule_may_differ():
    wanted = {"text/w": np.zeros((3, 4)), "image/w": np.zeros((3, 4))}
    tree = {"text": {"w": np.ones((3, 4))}, "image": {"w": np.ones(9)}, "old": {"w": np.ones(1)}}
    assert list(choose(Initial("elsewhere", tree), wanted, ("text/",))) == ["text/w"]


def test_settings_that_contradict_each_other():
    for overrides, message in (
        ({"init.path": "a", "init.restore": "b"}, "both given"),
        ({"init.only": "('text/',)"}, "without config.init.path"),
    ):
        with pytest.raises(UserError, match=message):
            load_config("upsampler:tiny", overrides)


def test_a_bucket_is_no_workdir():
    with pytest.raises(UserError, match="is a URL: give a folder that all hosts share"):
        prepare(load_config("upsampler:tiny", {}), pathlib.Path("gs://bucket/run"))
