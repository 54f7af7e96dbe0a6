"""`unclip edit …`: each command writes what the pipeline draws; bad input is one clear line."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.interop import write_bundle
from unclip_jax.pictures.note import with_note


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """As in the other tests of operations, whose compiled programs then serve here."""
    with pytest.MonkeyPatch.context() as patch:
        first = jax.local_devices()[:1]
        patch.setattr(jax, "local_devices", lambda: first)
        yield


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    """A bundle, two pictures and a mask."""
    path = tmp_path_factory.mktemp("edit")
    write_bundle(cascade, path / "bundle")
    y, x = np.mgrid[0:1:16j, 0:1:16j]
    for name, channels in (("a", (255 * x, 255 * y, 0 * x)), ("b", (0 * x, 255 * x, 99 + 0 * x))):
        Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(path / f"{name}.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 255
    Image.fromarray(mask).save(path / "mask.png")
    return path


def run(folder, operation, *arguments, out="out"):
    """Runs a command; returns its exit code and the folder of its results."""
    files = {"A": folder / "a.png", "B": folder / "b.png", "MASK": folder / "mask.png"}
    options = [str(files.get(a, a)) for a in arguments]
    shared = ["--bundle", str(folder / "bundle"), "--out", str(folder / out), "--batch-size", "4"]
    return main(["edit", operation, *shared, *options]), folder / out


COMMANDS = {
    "variations": (["--image", "A", "--n", "2", "--eta", "0,1"], (2, 2)),
    "interpolate": (["--image", "A", "--image", "B", "--pictures", "3"], (1, 3)),
    "text-diff": (["--image", "A", "--to", "a fish", "--theta", "0,0.5"], (1, 2)),
    "reconstruct": (["--image", "A", "--from", "PICTURES", "--components", "1,2"], (1, 3)),
    "ablate": (["--prompt", "a fish", "--prompt", "a heart"], (2, 3)),
    "img2img": (["--image", "A", "--prompt", "a fish", "--n", "2"], (1, 2)),
    "grid": (["--prompt", "a fish", "--scale", "2,4", "--n", "2"], (2, 2)),
    "typographic": (["--image", "A", "--label", "a fish", "--word", "tree", "--n", "2"], (2, 2)),
    "inpaint": (["--image", "A", "--mask", "MASK", "--n", "2"], (1, 2)),
    "outpaint": (["--image", "A", "--left", "8", "--n", "2", "--prompt", "a fish"], (1, 2)),
}


@pytest.mark.parametrize("operation", COMMANDS)
def test_every_command_writes_its_table(folder, operation):
    arguments, shape = COMMANDS[operation]
    arguments = [str(folder) if a == "PICTURES" else a for a in arguments]
    code, out = run(folder, operation, *arguments, out=operation)
    assert code == 0
    record = json.loads((out / "edit.json").read_text())
    assert record["operation"] in (operation, operation.replace("_", "-"))
    assert len(record["images"]) == shape[0] * shape[1]
    pictures = {entry["file"] for entry in record["images"]}
    assert {p.name for p in out.glob("*.png")} == pictures | {"grid.png"}
    side = (24, 16) if operation == "outpaint" else (16, 16)
    for name in pictures:
        with Image.open(out / name) as image:
            assert image.size == side


def test_known_pixels_of_an_inpainted_file_are_the_files(folder):
    _, out = run(folder, "inpaint", *COMMANDS["inpaint"][0], out="kept")
    original, mask = (np.asarray(Image.open(folder / f)) for f in ("a.png", "mask.png"))
    filled = np.asarray(Image.open(out / "00_00.png"))
    np.testing.assert_array_equal(filled[mask == 0], original[mask == 0])
    assert (filled[mask > 0] != original[mask > 0]).any()


@pytest.mark.parametrize(
    ("operation", "arguments", "words"),
    [
        ("variations", ["--image", "nowhere.png"], "nowhere.png: can't be read as a picture"),
        ("variations", ["--image", "A", "--eta", "2"], "eta must be between 0 and 1"),
        ("interpolate", ["--image", "A"], "give two --image or two --prompt"),
        ("interpolate", ["--image", "A", "--image", "B", "--pictures", "1"], "at least its two"),
        ("text-diff", ["--image", "A", "--to", "x", "--theta", "3"], "parts of the way"),
        ("reconstruct", ["--image", "A"], "give either --data PATTERN or --from DIR"),
        ("inpaint", ["--image", "A", "--mask", "A", "--method", "trained"], "not trained to"),
        ("inpaint", ["--image", "A", "--mask", "MASK", "--sampler", "heun"], "use ddpm or ddim"),
        ("outpaint", ["--image", "A", "--left", "7"], "multiples of 2 px"),
        ("outpaint", ["--image", "A"], "one must be positive"),
        ("img2img", ["--image", "A", "--prompt", "x", "--strength", "1.5"], "at most 1"),
        ("typographic", ["--image", "A", "--label", "x", "--word", "y", "--template", "z"], "{}"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, operation, arguments, words):
    assert run(folder, operation, *arguments)[0] == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert words in line


def test_a_note_covers_the_middle_and_leaves_the_corners():
    picture = np.full((64, 64, 3), (10, 200, 30), np.uint8)
    noted = with_note(picture, "iPod")
    assert noted.shape == (256, 256, 3)
    np.testing.assert_array_equal(noted[:8, :8], np.broadcast_to((10, 200, 30), (8, 8, 3)))
    middle = noted[118:138]
    assert (middle.mean(axis=2) > 200).mean() > 0.3  # paper
    assert (middle.mean(axis=2) < 60).mean() > 0.05  # letters
