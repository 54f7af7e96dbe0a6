"""Exported programs, in a process that can import jax and numpy and nothing of ours.

By default it is this interpreter without its packages but for those. `make bare-tests` names others
in UNCLIP_BARE_PYTHON: environments where nothing else was ever installed.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from karlo_cascade import CAPTIONS, make_stage
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import stablehlo, write_bundle
from unclip_jax.interop.stablehlo import write_stablehlo
from unclip_jax.interop.stablehlo_programs import programs_of
from unclip_jax.models import PriorTransformer
from unclip_jax.text import tokenize

# What jax itself needs.
ALLOWED = ("jax", "jaxlib", "numpy", "numpy.libs", "ml_dtypes", "opt_einsum", "scipy", "scipy.libs")

PROGRAM = """
import importlib.metadata, json, sys
folder, result, pictures = sys.argv[1:]
known = {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "pip", "setuptools"}
others = {d.name.replace("-", "_") for d in importlib.metadata.distributions()} - known
assert not others, f"{others} are installed here"
sys.path.insert(0, folder)
for name in ("unclip_jax", "flax", "safetensors", "flatbuffers"):
    try:
        __import__(name)
    except ImportError:
        continue
    assert name == "flatbuffers", f"{name} can be imported here"
import numpy as np
import run
programs = run.Programs(folder)
captions = json.loads(sys.stdin.read())
tokens = programs.tokenize(captions)
text = programs.call("clip_text", tokens)
rng = np.random.default_rng(0)
x_t = rng.normal(size=(3, 16)).astype(np.float32)
condition = {name: np.asarray(value)[[0, 1, 1]] for name, value in text.items()}
step = programs.call("prior_step", x_t, np.array([3, 50, 99], np.int32), condition)
np.savez(
    result,
    tokens=tokens,
    embedding=text["text_embedding"],
    step=step,
    four=programs.sample(captions, n=2, seed=3),
)
sys.argv = ["run.py", captions[0], "--n", "1", "--seed", "3", "--out", pictures]
run.main()
"""


@pytest.fixture(scope="module")
def cascade():
    clip = make_stage("clip", text_layers=1)
    prior = make_stage("prior", clip, layers=1)
    decoder = make_stage("decoder", clip, multipliers=(1,), attention_resolutions=(16,))
    upsampler = make_stage("upsampler", multipliers=(1,))
    return compose([clip, prior, decoder, upsampler])


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    write_bundle(cascade, path / "bundle")
    write_stablehlo(cascade, path / "programs")
    return path / "programs"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs Python code where there is only what jax needs: (code, *arguments, input) -> process."""
    command, start = [os.environ.get("UNCLIP_BARE_PYTHON"), "-I", "-c"], ""
    if command[0] is None:
        packages = tmp_path_factory.mktemp("packages")
        site = pathlib.Path(jax.__file__).parents[1]
        for name in ALLOWED:
            if (site / name).exists():
                os.symlink(site / name, packages / name)
        command = [sys.executable, "-I", "-S", "-c"]
        start = f"import sys; sys.path.append({str(packages)!r})\n"
    environment = {k: v for k, v in os.environ.items() if k.startswith("JAX_")}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles twice as fast

    def run(code, *arguments, given=None):
        return subprocess.run(
            [*command, start + code, *map(str, arguments)],
            input=given, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def drawn(folder, bare, tmp_path_factory):
    result = tmp_path_factory.mktemp("result")
    paths = result / "arrays.npz", result / "pictures"
    done = bare(PROGRAM, folder, *paths, given=json.dumps(CAPTIONS))
    assert done.returncode == 0, done.stderr[-2000:]
    [written] = paths[1].iterdir()
    with Image.open(written) as picture:
        return {**np.load(paths[0]), "by main": np.asarray(picture)}


def test_the_pictures_are_the_pipelines(cascade, drawn):
    """Up to rounding before the step to 8 bits: the batch sizes differ."""
    wanted = Pipeline(cascade)(CAPTIONS, images_per_prompt=2, seed=3).images
    difference = np.abs(drawn["four"].reshape(wanted.shape).astype(int) - wanted)
    assert (difference > 0).mean() < 0.01
    assert np.abs(drawn["by main"].astype(int) - drawn["four"][0]).max() <= 2
    assert wanted.std() > 10


def test_tokens_and_embeddings_are_ours(cascade, drawn):
    np.testing.assert_array_equal(drawn["tokens"], tokenize(CAPTIONS, 77))
    wanted = Pipeline(compose([cascade.clip])).embed_texts(CAPTIONS)
    np.testing.assert_allclose(drawn["embedding"], wanted, atol=1e-5)


def test_a_step_is_the_network(cascade, drawn):
    net = PriorTransformer(16, 24, 1, 2, null_text="none")
    clip = cascade.clip
    from unclip_jax.stages.clip import make_clip

    tokens = tokenize([CAPTIONS[0], CAPTIONS[1], CAPTIONS[1]], 77)
    text = make_clip(clip.model, "float32").apply(
        {"params": clip.params}, tokens, method="encode_text"
    )
    wanted = net.apply(
        {"params": cascade.prior.params},
        np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32),
        np.array([3, 50, 99], np.int32),
        text_embedding=text.embedding,
        text_states=text.states,
        text_mask=text.mask,
    )
    np.testing.assert_allclose(drawn["step"], wanted, atol=1e-4)


def test_the_manifest_describes_what_is_there(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    assert set(manifest["programs"]) == {
        *("clip_text", "clip_image", "prior_step", "decoder_step", "upsampler_step", "sample")
    }
    sample = manifest["programs"]["sample"]
    assert sample["inputs"]["tokens"] == "int32[b,77]"
    assert list(sample["outputs"].values()) == ["uint8[b,32,32,3]"]
    assert (folder / sample["file"]).stat().st_size == sample["bytes"]
    weights = sum(f.stat().st_size for f in (folder / "weights").iterdir())
    programs = sum(f.stat().st_size for f in (folder / "programs").iterdir())
    assert programs < weights / 2  # weights are arguments, not constants


def test_an_altered_program_is_not_run(folder, bare, tmp_path):
    copy = tmp_path / "copy"
    for file in ("manifest.json", "run.py", "programs/clip_text.bin"):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_bytes((folder / file).read_bytes())
    program = copy / "programs/clip_text.bin"
    data = bytearray(program.read_bytes())
    data[100] ^= 1
    program.write_bytes(data)
    done = bare(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from run import Programs; Programs(sys.argv[1]).call('clip_text', 0)",
        copy,
    )
    assert "programs/clip_text.bin is altered" in done.stderr


def test_a_part_of_a_cascade_has_the_programs_it_can_have(cascade):
    assert [p.name for p in programs_of(compose([cascade.clip]))] == ["clip_text", "clip_image"]
    assert [p.name for p in programs_of(compose(cascade.upsamplers))] == ["upsampler_step"]


def test_the_command_writes_programs(cascade, tmp_path, capsys):
    write_bundle(compose(cascade.upsamplers), tmp_path / "bundle")
    out = tmp_path / "programs"
    command = ["export", "--workdir", str(tmp_path / "bundle"), "--format", "stablehlo"]
    assert main([*command, "--out", str(out)]) == 0
    assert (out / "run.py").is_file()


def test_without_flatbuffers_it_says_what_to_install(cascade, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UserError, match=r"pip install 'unclip_jax\[stablehlo\]'"):
        write_stablehlo(cascade, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(stablehlo.jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="JAX_PLATFORMS=cpu"):
        write_stablehlo(cascade, tmp_path / "out")
