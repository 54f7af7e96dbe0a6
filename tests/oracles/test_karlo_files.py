"""`unclip import karlo` on real pickles, as Lightning leaves them; and on hostile ones."""

import collections
import os

import jax
import numpy as np
import pytest
import torch
from karlo_cascade import make_cascade
from karlo_files import import_command, karlo_files

from unclip_jax.cli import main
from unclip_jax.generation import compose
from unclip_jax.interop import read_bundle, write_bundle

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cascade():
    return make_cascade()


@pytest.fixture(scope="module")
def clip(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip"
    write_bundle(compose([cascade.clip]), path)
    return path


def checkpoint(state, step):
    """What a trainer of PyTorch Lightning saves beside the weights, where it is plain data."""
    weights = collections.OrderedDict((k, torch.from_numpy(v)) for k, v in state.items())
    moments = {i: {"step": step, "exp_avg": torch.zeros(2)} for i in range(2)}
    return {
        "epoch": 3,
        "global_step": step,
        "pytorch-lightning_version": "1.6.1",
        "state_dict": weights,
        "callbacks": {"ModelCheckpoint": {"monitor": None, "best_model_path": ""}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"cond_drop": 0.1},
    }


def write_files(cascade, folder, *, zipped=True):
    folder.mkdir()
    for name, state in karlo_files(cascade).items():
        content, suffix = checkpoint(state, 1_000_000), "ckpt"
        if name.endswith("_stats"):
            content, suffix = tuple(torch.from_numpy(v) for v in state.values()), "th"
        file = folder / f"{name}.{suffix}"
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return folder


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_karlos_own_files_become_a_bundle(cascade, clip, tmp_path, zipped):
    folder = write_files(cascade, tmp_path / "files", zipped=zipped)
    assert main(import_command(folder, clip, tmp_path / "karlo")) == 0
    found = read_bundle(tmp_path / "karlo").cascade
    assert list(found.named()) == ["clip", "prior", "decoder", "upsampler"]
    for name, stage in found.named().items():
        jax.tree.map(np.testing.assert_array_equal, stage.params, cascade.named()[name].params)
    for name, value in cascade.prior.statistics.items():
        np.testing.assert_array_equal(found.prior.statistics[name], value)
    assert found.upsamplers[0].step == 1_200_000


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def programs(path, state, tmp_path):
    torch.save({"state_dict": state, "hyper_parameters": Evil(tmp_path / "it_ran")}, path)


def twenty_gigabytes(path, state, tmp_path):
    """One number, said to be five billion."""
    torch.save({"state_dict": {**state, "model.x": torch.zeros(1).expand(5 * 10**9)}}, path)


def endless(path, state, tmp_path):
    """A key whose hash takes 2^200 steps: a tuple of twice the same tuple, and so on."""
    doubling = b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))
    path.write_bytes(b"\x80\x02})" + doubling + b"K\x01s.")


def cut_short(path, state, tmp_path):
    torch.save({"state_dict": state}, path)
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (programs, "holds more than weights"),
        (twenty_gigabytes, "allocate memory"),
        (endless, "more processor time"),
        (cut_short, "is damaged"),
    ],
)
def test_hostile_files_are_refused_in_one_line(
    cascade, clip, tmp_path, capsys, monkeypatch, attack, words
):
    monkeypatch.setattr("unclip_jax.interop.foreign.MIN_SECONDS", 5)  # of 60
    folder = write_files(cascade, tmp_path / "files")
    [decoder] = folder.glob("decoder-ckpt*")
    weights = {"model.out.2.bias": torch.zeros(3)}
    attack(decoder, weights, tmp_path)
    assert main(import_command(folder, clip, tmp_path / "karlo")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(decoder) in line
    assert words in line
    assert not (tmp_path / "karlo").exists()
    assert not (tmp_path / "it_ran").exists()
