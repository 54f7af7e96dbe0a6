"""Pickled weights are read, and what is more than weights is refused without running."""

import os
import pathlib
import pickle

import numpy as np
import pytest
import torch

from unclip_jax.errors import UserError
from unclip_jax.interop.foreign import read_state_dict

# TorchScript, which OpenAI published CLIP as, is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore")


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_state_dicts_are_read(tmp_path):
    weights = {"a": torch.arange(6.0).reshape(2, 3).bfloat16(), "b": torch.ones(())}
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "lightning.ckpt")
    for name in ("plain.pt", "lightning.ckpt"):
        read = read_state_dict(tmp_path / name)
        assert set(read) == {"a", "b"}
        np.testing.assert_array_equal(read["a"], [[0, 1, 2], [3, 4, 5]])
    torch.save((torch.zeros(3), torch.ones(3)), tmp_path / "ViT-L-14_stats.th")
    assert set(read_state_dict(tmp_path / "ViT-L-14_stats.th")) == {"0", "1"}


@pytest.mark.parametrize("name", ["plain.pt", "inside.ckpt", "bare.bin"])
def test_programs_in_a_pickle_do_not_run(tmp_path, name):
    marker = tmp_path / "it ran".replace(" ", "_")
    evil = Evil(marker)
    if name == "bare.bin":
        (tmp_path / name).write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil if name == "plain.pt" else {"state_dict": {"a": evil}}, tmp_path / name)
    with pytest.raises(UserError, match="holds more than weights") as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    # The pickle is as evil as it should be: unprotected, it does make the file.
    pickle.loads(pickle.dumps(evil))
    assert marker.exists()


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "openai.pt")
    torch.save({"state_dict": {}, "callback": pathlib.Path("x")}, tmp_path / "objects.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    for name in ("openai.pt", "objects.pt", "empty.pt"):
        with pytest.raises(UserError, match=f"{name} can't be read: it holds"):
            read_state_dict(tmp_path / name)
