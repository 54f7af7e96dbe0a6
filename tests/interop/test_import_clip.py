"""`unclip import clip`: from files as others publish them to a bundle with their embeddings."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from karlo_cascade import make_stage
from safetensors.numpy import save_file

from unclip_jax.cli import main
from unclip_jax.cli.frozen import load_clip
from unclip_jax.errors import UserError
from unclip_jax.interop import read_bundle
from unclip_jax.interop.clip_facts import Facts, clip_model, facts_of_config
from unclip_jax.interop.clip_folder import write_clip_folder
from unclip_jax.interop.clip_weights import export_clip
from unclip_jax.interop.import_clip import import_clip_stage
from unclip_jax.models import CLIP_SIZES, Clip
from unclip_jax.stages.clip import make_clip

SIZE = {
    "image_size": 16, "patch_size": 8, "vision_width": 24, "vision_layers": 2, "vision_heads": 3,
    "text_width": 16, "text_layers": 1, "text_heads": 2, "embedding_dim": 12, "vision_mlp_dim": 40,
    "context_length": 8, "activation": "quick_gelu",
}  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    net = Clip(**SIZE, scan_layers=False)
    images, tokens = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 8), jnp.int32)
    return net, jax.jit(net.init)(jax.random.key(0), images, tokens)["params"]


def write_hub_folder(folder, clip, dialect):
    """The files of a model's repository, in the naming of Hugging Face or of open_clip."""
    net, params = clip
    state, config = export_clip(params, net, dialect), {}
    folder.mkdir()
    if dialect == "huggingface":
        save_file(state, folder / "model.safetensors")
        config["vision_config"] = {"num_attention_heads": 3}  # activations are left at the default
        config["text_config"] = {"num_attention_heads": 2, "hidden_act": "quick_gelu"}
        (folder / "config.json").write_text(json.dumps(config))
        return folder
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: state[name] for name in held}, folder / part)
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / "open_clip_model.safetensors.index.json").write_text(json.dumps(index))
    vision, text = {"width": 24, "head_width": 8}, {"heads": 2}
    model = {"quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    return folder


@pytest.mark.parametrize("dialect", ["huggingface", "open_clip"])
def test_a_folder_of_the_hub_becomes_a_clip_to_build_on(clip, tmp_path, capsys, dialect):
    folder, out = write_hub_folder(tmp_path / dialect, clip, dialect), tmp_path / "bundle"
    assert main(["import", "clip", "--weights", str(folder), "--out", str(out)]) == 0
    assert "12 numbers" in capsys.readouterr().out
    loaded = load_clip(str(out))
    assert {k: v for k, v in vars(loaded.model).items() if k in SIZE} == SIZE
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1.0)
    tokens = jnp.asarray([[49406, 320, 49407, 0, 0, 0, 0, 0], [49406, 9, 8, 7, 49407, 0, 0, 0]])
    wanted = jax.jit(clip[0].apply)({"params": clip[1]}, images, tokens)
    got = jax.jit(make_clip(loaded.model, "float32").apply)(
        {"params": loaded.params}, images, tokens
    )
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    stage = read_bundle(out).cascade.clip
    assert stage.provenance["imported_from"][0]["name"].endswith(".safetensors")


def test_openais_layout_goes_out_and_comes_back_by_its_marks(tmp_path):
    """One file, which says the activation and the heads by being OpenAI's."""
    sizes = {"vision_width": 64, "vision_heads": 1, "text_width": 64, "text_heads": 1}
    clip = make_stage("clip", **sizes)
    write_clip_folder(clip, tmp_path / "openai", "openai")
    assert [p.name for p in (tmp_path / "openai").iterdir()] == ["model.safetensors"]
    found = import_clip_stage(tmp_path / "openai")
    assert found.weights_sha256 == clip.weights_sha256
    assert found.model == clip.model


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("vision_heads", 2),
        ("text_heads", 2),
        ("activation", "gelu"),
        ("loss", "sigmoid"),
        ("text_mlp_dim", 32),
    ],
)
def test_what_openais_class_cannot_be_is_refused(setting, value, tmp_path):
    sizes = {"vision_width": 64, "vision_heads": 1, "text_width": 64, "text_heads": 1}
    clip = make_stage("clip", **{**sizes, setting: value})
    with pytest.raises(UserError, match=f"no other {setting}"):
        write_clip_folder(clip, tmp_path / "openai", "openai")
    assert not (tmp_path / "openai").exists()


def test_options_stand_in_for_a_missing_config(clip, tmp_path, capsys):
    net, params = clip
    weights = tmp_path / "clip.safetensors"
    save_file(export_clip(params, net, "open_clip"), weights)
    command = ["import", "clip", "--weights", str(weights), "--out", str(tmp_path / "bundle")]
    assert main(command) == 2
    assert "give --vision-heads" in capsys.readouterr().err
    heads = ["--vision-heads", "3", "--text-heads", "2"]
    assert main([*command, *heads]) == 2
    assert "give --activation" in capsys.readouterr().err
    assert main([*command, *heads, "--activation", "gelu"]) == 0
    assert load_clip(str(tmp_path / "bundle")).model.activation == "gelu"


class Shaped:
    """A tensor of which only the shape is looked at."""

    def __init__(self, *shape):
        self.shape = shape


def published_state(name):
    """The tensors of a published CLIP that tell its sizes."""
    s = CLIP_SIZES[name]
    patches = (s["image_size"] // s["patch_size"]) ** 2
    mlp = s.get("vision_mlp_dim", 4 * s["vision_width"])
    layers = {
        f"visual.transformer.resblocks.{i}.mlp.c_fc.weight": Shaped(mlp, s["vision_width"])
        for i in range(s["vision_layers"])
    } | {
        f"transformer.resblocks.{i}.mlp.c_fc.weight": Shaped(4 * s["text_width"], s["text_width"])
        for i in range(s["text_layers"])
    }
    return layers | {
        "visual.conv1.weight": Shaped(s["vision_width"], 3, s["patch_size"], s["patch_size"]),
        "visual.positional_embedding": Shaped(patches + 1, s["vision_width"]),
        "token_embedding.weight": Shaped(49408, s["text_width"]),
        "positional_embedding": Shaped(77, s["text_width"]),
        "text_projection": Shaped(s["text_width"], s["embedding_dim"]),
    }


@pytest.mark.parametrize("name", [n for n in CLIP_SIZES if n.startswith("ViT")])
def test_published_sizes_are_recognised(name):
    found = clip_model(published_state(name), Facts(activation=CLIP_SIZES[name]["activation"]))
    assert CLIP_SIZES[name].items() <= found.items()


def test_openais_marks_tell_activation_and_heads():
    marks = {k: Shaped() for k in ("input_resolution", "context_length", "vocab_size")}
    found = clip_model(published_state("ViT-L/14") | marks, Facts())
    assert found == found | CLIP_SIZES["ViT-L/14"]


def test_a_sigmoid_clip_is_told_by_its_bias():
    state = published_state("ViT-B/32") | {"logit_bias": Shaped()}
    assert clip_model(state, Facts("gelu"))["loss"] == "sigmoid"


def test_other_vocabularies_and_preprocessings_are_refused(tmp_path, capsys):
    state = published_state("ViT-B/32") | {"token_embedding.weight": Shaped(32000, 512)}
    with pytest.raises(UserError, match="vocabulary of 32,000 tokens"):
        clip_model(state, Facts("gelu"))
    config = {
        "model_cfg": {"vision_cfg": {}, "text_cfg": {}},
        "preprocess_cfg": {"mean": [0.5] * 3},
    }
    with pytest.raises(UserError, match="normalised with mean"):
        facts_of_config(config, "open_clip_config.json")
    with pytest.raises(UserError, match="different activations"):
        facts_of_config({"text_config": {"hidden_act": "gelu"}}, "config.json")
    both = {"hidden_act": "relu"}
    with pytest.raises(UserError, match="activation 'relu'"):
        facts_of_config({"text_config": both, "vision_config": both}, "config.json")
    with pytest.raises(UserError, match=r"no tensor visual\.positional_embedding"):
        clip_model({}, Facts())
    assert main(["import", "clip", "--weights", str(tmp_path), "--out", "bundle"]) == 2
    assert "holds none of model.safetensors" in capsys.readouterr().err
