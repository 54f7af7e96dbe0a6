"""One name and one concept for an emoji, however a set spells it."""

import json
from collections import Counter

import pytest

from unclip_jax.data.emoji.catalog import Picture
from unclip_jax.data.emoji.names import (
    Name,
    codes_by_name,
    first_known,
    format_code,
    is_private,
    load_names,
    name_of,
    normalise,
    parse_code,
)
from unclip_jax.data.emoji.splits import (
    HELD_OUT,
    assign_splits,
    choose_concepts,
    shuffle,
    unit_hash,
)

STYLES = ("noto", "fluent-3d", "fluent-color", "fluent-flat")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1F32E", "1f32e"),
        ("0023-FE0F-20E3", "23-20e3"),
        ("23-fe0f-20e3", "23-20e3"),
        ("1f3f4-e0067_e0062_e0065_e006e_e0067", "1f3f4-e0067-e0062-e0065-e006e-e0067-e007f"),
        ("1f3f4-e0067-e0062-e0065-e006e-e0067-e007f",) * 2,
    ],
)
def test_codes_are_compared_without_spelling(text, code):
    assert format_code(parse_code(text)) == code


@pytest.mark.parametrize(
    ("spellings", "normal"),
    [
        (("flag: Norway", "flag-for-norway", "flag norway"), "flag norway"),
        (("man’s shoe", "mans-shoe"), "mans shoe"),
        (("Ceuta & Melilla", "ceuta-and-melilla"), "ceuta and melilla"),
    ],
)
def test_normalise_unites_spellings(spellings, normal):
    assert {normalise(spelling) for spelling in spellings} == {normal}


def table():
    wave = {
        "label": "waving hand",
        "hexcode": "1F44B",
        "tags": ["hello"],
        "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}],
    }
    return load_names(json.dumps([wave, {"label": "man’s shoe", "hexcode": "1F45E"}]).encode())


def test_a_skin_tone_belongs_to_the_concept_of_its_base():
    names = table()
    wave, dark = parse_code("1f44b"), parse_code("1f44b-1f3ff")
    assert names[wave] == Name("waving hand", ("hello",), wave, "waving hand", False)
    assert names[dark] == Name("waving hand: dark skin tone", ("hello",), wave, "waving hand", True)
    assert names[parse_code("1f45e")].label == "man's shoe"


def test_an_unlisted_code_is_named_by_the_set():
    names = table()
    pickle = parse_code("1fadd")
    assert name_of(pickle, "pickle", names) == Name("pickle", (), pickle, "pickle", False)
    light = name_of(parse_code("1f44b-1f3fb"), "waving hand light skin tone", names)
    assert (light.concept, light.concept_label, light.has_tone) == (
        parse_code("1f44b"),
        "waving hand",
        True,
    )
    swatch = parse_code("1f3fb")  # a skin tone alone is an emoji of its own
    assert not name_of(swatch, "light skin tone", names).has_tone


def test_names_lead_to_codes_first_match_first():
    codes = codes_by_name(table())
    assert first_known(["hand-waving", "waving-hand", "mans-shoe"], codes) == parse_code("1f44b")
    assert first_known(["robot"], codes) is None


def test_private_codes_are_told_apart():
    assert is_private(parse_code("e50a"))
    assert is_private(parse_code("fe82b"))
    assert not is_private(parse_code("1f44b-1f3ff"))


def picture(style: str, number: int, tone: int | None = None) -> Picture:
    base = (0x1F300 + number,)
    code = base if tone is None else (*base, 0x1F3FB + tone)
    return Picture(style, code, Name(f"thing {number}", (), base, "thing", tone is not None), b"")


def test_splits_hold_out_four_percent_of_each_kind():
    pictures = [picture(style, number) for number in range(5000) for style in STYLES]
    splits = assign_splits(pictures)
    counts = Counter(splits)
    # Binomial, four standard deviations: 5000 concepts, and 19200 remaining pairs.
    assert abs(counts["val_concept"] / 4 - 200) < 4 * (5000 * 0.04 * 0.96) ** 0.5
    pairs = len(pictures) - counts["val_concept"]
    assert abs(counts["val_style"] - HELD_OUT * pairs) < 4 * (pairs * 0.04 * 0.96) ** 0.5
    by_concept: dict[tuple, set[str]] = {}
    for each, split in zip(pictures, splits, strict=True):
        by_concept.setdefault(each.name.concept, set()).add(split)
    for found in by_concept.values():
        assert found == {"val_concept"} or "train" in found


def test_a_concept_with_one_style_is_never_held_out_by_style():
    splits = assign_splits([picture("noto", number) for number in range(2000)])
    assert set(splits) == {"train", "val_concept"}


def test_skin_tones_share_the_split_of_their_base():
    pictures = [
        picture(style, number, tone)
        for number in range(500)
        for style in STYLES
        for tone in (None, 0, 4)
    ]
    seen: dict[tuple, set[str]] = {}
    for each, split in zip(pictures, assign_splits(pictures), strict=True):
        seen.setdefault((each.name.concept, each.style), set()).add(split)
    assert {len(splits) for splits in seen.values()} == {1}
    assert set().union(*seen.values()) == {"train", "val_concept", "val_style"}


def test_splits_depend_on_no_other_concept():
    pictures = [picture(style, number) for number in range(300) for style in STYLES]
    whole = dict(zip(((p.style, p.code) for p in pictures), assign_splits(pictures), strict=True))
    some = choose_concepts(pictures, 100)
    assert len(some) == 400
    for each, split in zip(some, assign_splits(some), strict=True):
        assert whole[each.style, each.code] == split


def test_limit_is_a_choice_that_grows_and_does_not_favour_a_split():
    pictures = [picture("noto", number) for number in range(3000)]
    small, large = choose_concepts(pictures, 500), choose_concepts(pictures, 1500)
    assert set(map(id, small)) < set(map(id, large))
    held_out = Counter(assign_splits(large))["val_concept"] / 1500
    assert abs(held_out - 0.04) < 4 * (0.04 * 0.96 / 1500) ** 0.5


def test_the_hash_never_changes():
    # From coreutils: printf 'concept\\0001f32e' | b2sum -l 64. A change would move pictures.
    assert unit_hash("concept", "1f32e") == 0x5934BCC762B0BF80 / 2**64
    assert unit_hash("style", "1f32e", "noto") != unit_hash("style", "1f32enoto")


def test_the_order_mixes_styles():
    pictures = [picture(style, number) for style in STYLES for number in range(250)]
    mixed = shuffle(pictures)
    assert sorted(map(id, mixed)) == sorted(map(id, pictures))
    assert shuffle(reversed(pictures)) == mixed
    first = Counter(each.style for each in mixed[:200])
    assert all(20 < first[style] < 80 for style in STYLES)
