"""Tables and galleries: every pixel of every picture arrives, labels fit, mistakes are named."""

import numpy as np
import pytest

from unclip_jax.pictures import captioned_gallery, labelled_grid
from unclip_jax.pictures.canvas import BACKGROUND
from unclip_jax.pictures.text import ELLIPSIS, line_height, load_font, wrap


def noise(seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def count(sheet, picture: np.ndarray, factor: int) -> int:
    """How often the enlarged picture stands in the sheet, exactly."""
    wanted = np.kron(picture, np.ones((factor, factor, 1), np.uint8))
    pixels = np.asarray(sheet)
    height, width = wanted.shape[:2]
    corners = np.argwhere((pixels == wanted[0, 0]).all(-1))
    return sum(
        np.array_equal(pixels[y : y + height, x : x + width], wanted) for y, x in corners.tolist()
    )


def test_every_picture_is_there_once_enlarged_by_a_whole_number():
    images = [[noise(3 * row + column) for column in range(3)] for row in range(2)]
    sheet = labelled_grid(images, ["a", "b"], ["x", "y", "z"], "title", scale=5)
    assert [count(sheet, picture, 5) for row in images for picture in row] == [1] * 6


def test_rows_go_down_and_columns_go_right():
    marked = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    pixels = np.asarray(labelled_grid([marked[:2], marked[2:]], scale=2))[..., 0]
    (top, left), (_, right), (bottom, _), _ = (
        np.argwhere(pixels == value).mean(0) for value in (10, 20, 30, 40)
    )
    assert top < bottom
    assert left < right


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    small, large = noise(0, 16), noise(1, 64)
    assert count(labelled_grid([[small]]), small, 8) == 1
    assert count(labelled_grid([[noise(2, 256)]]), noise(2, 256), 1) == 1
    mixed = labelled_grid([[small, large, None]], scale=1)
    assert (count(mixed, small, 4), count(mixed, large, 1)) == (1, 1)


def test_empty_cells_show_the_ground():
    sheet = np.asarray(labelled_grid([[np.zeros((8, 8, 3), np.uint8), None]], scale=4))
    right = sheet[:, sheet.shape[1] // 2 + 4 :]
    assert (right == BACKGROUND).all()


def test_labels_are_drawn_outside_the_pictures():
    images = [[noise(0), noise(1)]]
    bare, labelled = labelled_grid(images), labelled_grid(images, ["row"], ["left", "right"], "t")
    assert labelled.width > bare.width
    assert labelled.height > bare.height
    assert count(labelled, images[0][0], 8) == 1
    for text in ("row", "a much longer row label that needs more than one line"):
        sheet = np.asarray(labelled_grid(images, [text]))
        assert (sheet[:, :20] == BACKGROUND).all()  # the margin stays free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no picture"),
        (([[None]],), "no picture"),
        (([[noise(0)], []],), "rows differ"),
        (([[noise(0)]], ["a", "b"]), "2 row labels for 1 rows"),
        (([[noise(0)]], None, []), "0 column labels for 1 columns"),
        (([[noise(0).astype(np.float32)]],), "uint8"),
        (([[noise(0)[..., 0]]],), "uint8"),
    ],
)
def test_mistakes_in_a_table_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        labelled_grid(*arguments)


def test_a_gallery_shows_pairs_side_by_side():
    cards = [[noise(2 * index), noise(2 * index + 1)] for index in range(5)]
    captions = [f"prompt {index}" for index in range(5)]
    sheet = captioned_gallery(
        cards, captions, legend=("real", "generated"), title="t", columns=2, scale=4
    )
    assert [count(sheet, picture, 4) for card in cards for picture in card] == [1] * 10
    assert sheet.width == 2 * 20 + 2 * (2 * 64 + 2) + 16


def test_a_long_prompt_makes_a_gallery_higher_but_not_wider():
    short = captioned_gallery([[noise(0)]], ["taco"], columns=1)
    long = captioned_gallery([[noise(0)]], ["a very long prompt " * 20], columns=1)
    assert long.width == short.width
    assert long.height == short.height + 2 * line_height(load_font(14))


@pytest.mark.parametrize(
    ("arguments", "legend", "message"),
    [
        (([], []), None, "no picture"),
        (([[noise(0)]], []), None, "0 captions for 1 cards"),
        (([[noise(0)], [noise(0)] * 2], ["a", "b"]), None, "cards differ"),
        (([[noise(0)]], ["a"]), ("real", "generated"), "2 legend entries"),
    ],
)
def test_mistakes_in_a_gallery_are_named(arguments, legend, message):
    with pytest.raises(ValueError, match=message):
        captioned_gallery(*arguments, legend=legend)


@pytest.mark.parametrize("width", [30, 75, 200])
def test_wrapped_lines_fit_and_lose_nothing(width):
    font = load_font(14)
    text = "a corgi wearing a red bowtie, and a Donaudampfschifffahrtsgesellschaft too"
    lines = wrap(text, font, width, max_lines=99)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_what_does_not_fit_is_marked():
    font = load_font(14)
    lines = wrap("one two three four five six", font, 60, max_lines=2)
    assert len(lines) == 2
    assert lines[-1].endswith(ELLIPSIS)
    assert font.getlength(lines[-1]) <= 60
    assert wrap("one", font, 60, max_lines=2) == ["one"]
    assert wrap("", font, 60, max_lines=2) == []


def test_the_font_knows_letters_beyond_ascii():
    font = load_font(14)
    missing = font.getmask("\U000fffff").getbbox(), bytes(font.getmask("\U000fffff"))
    for letter in "éñåÇß…’":
        assert (font.getmask(letter).getbbox(), bytes(font.getmask(letter))) != missing
