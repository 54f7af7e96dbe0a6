"""Our tokens against open_clip's SimpleTokenizer, and the recorded vectors of the default tests.

`UNCLIP_RECORD=1` rewrites tests/vectors/clip_tokens.json from the oracle.
"""

import importlib.util
import json
import os
import pathlib
import sys
import unicodedata

import numpy as np
import pytest

from unclip_jax.text import tokenize
from unclip_jax.text.vocabulary import merges, vocabulary

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "clip_tokens.json"
CONTEXT = 77

# U+0345, U+017F after an apostrophe, and the ligature that cleaning splits into U+017F and t.
KNOWN = "\u0345\u017f\ufb05"

LINES = (
    "photo of a cat dog unclip Übergröße naïve café 北京 東京タワー Москва Αθήνα ΣΑΣ İstanbul",
    "ﬁne ＦＵＬＬ ½ ² ٣ १२ don't we'll I'M he'd they've you're it's '' \"quoted\" “curly”",
    "‘single’ … — – &amp; &lt;b&gt; &amp;amp; &#39; &amp;#39; &quot; &nbsp; &copy; &#x1F600;",
    "&notanentity; 😀 👩\u200d👩\u200d👧 🇩🇪 👍🏽 ❤️ ™ © ® $100 50% #tag @user a/b c++ <html>",
    "<start_of_text> <end_of_text> <|endoftext|> </w> http://x.y/z?q=1&amp;r=2 1,234.56 2023",
    "v1.0 ÃƒÂ© Ã© â€™ ÂŁ \ufeff \u200b \u200d \u00ad \u2028 \u3000 \u00a0 \x00 \x07 \x1b[31m",
    "\x1c \x7f \x85 \t \n \r\n \ud83d ꙮ ಠ_ಠ ẞ ß ǅ ﷽ ﬀ ٱ ा ้ 한국어 עברית العربية हिन्दी ไทย",
    "Việt 𝓕𝓪𝓷𝓬𝔂 𝟘𝟙 🜚 ! !! ?! ... !!!??? ~ ` ^ _ __init__ a_b x\ny",
)
WORDS = [word for line in LINES for word in line.split(" ")]


def odd_texts() -> list[str]:
    rng = np.random.default_rng(0)
    texts = [
        "",
        " ",
        "!",
        "\n\t ",
        "hello world",
        "A  b\n\nc\r\nd\te",
        "word " * 100,
        "x" * 300,
        "🎉" * 50,
    ]
    texts += WORDS
    for _ in range(60):
        picked = rng.choice(len(WORDS), rng.integers(2, 9))
        glue = rng.choice(["", " ", "  ", "\n", "-", "'"])
        texts.append(glue.join(WORDS[i] for i in picked))
    return sorted(set(texts))


@pytest.fixture(scope="module")
def oracle():
    """open_clip's tokenizer module alone: importing the package wants a working torchvision."""
    package = importlib.util.find_spec("open_clip")
    path = pathlib.Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def test_odd_texts(oracle, claim):
    texts = odd_texts()
    expected = oracle(texts, CONTEXT).numpy()
    if os.environ.get("UNCLIP_RECORD"):
        rows = [row[: np.flatnonzero(row)[-1] + 1].tolist() for row in expected]
        VECTORS.write_text(json.dumps({"texts": texts, "ids": rows}, indent=None) + "\n")
    claim.equal(
        "tokens of odd texts", "open_clip SimpleTokenizer", tokenize(texts, CONTEXT), expected
    )


def test_vectors_are_the_oracles(oracle):
    recorded = json.loads(VECTORS.read_text())
    expected = oracle(recorded["texts"], CONTEXT).numpy()
    for ids, row in zip(recorded["ids"], expected, strict=True):
        np.testing.assert_array_equal(ids, row[: len(ids)])
        assert not row[len(ids) :].any()


@pytest.mark.parametrize("context", [3, 16, 64])
def test_other_lengths(oracle, context):
    texts = odd_texts()
    np.testing.assert_array_equal(tokenize(texts, context), oracle(texts, context).numpy())


def test_ascii_fast_path(oracle):
    rng = np.random.default_rng(1)
    texts = ["".join(map(chr, rng.integers(32, 127, rng.integers(0, 60)))) for _ in range(5000)]
    np.testing.assert_array_equal(tokenize(texts, CONTEXT), oracle(texts, CONTEXT).numpy())


def test_random_unicode(oracle, claim):
    rng = np.random.default_rng(2)
    texts = []
    for _ in range(5000):
        top = int(rng.choice([0x180, 0x600, 0x3000, 0x11000, 0x20000]))
        points = (chr(p) for p in rng.integers(1, top, rng.integers(1, 20)))
        texts.append(
            "".join(c for c in points if c not in KNOWN and unicodedata.category(c) != "Cn")
        )
    got, wanted = tokenize(texts, CONTEXT), oracle(texts, CONTEXT).numpy()
    claim.equal("tokens of 5,000 random unicode texts", "open_clip SimpleTokenizer", got, wanted)


def test_every_assigned_code_point(oracle):
    """The known differences, and no other one in all of Unicode."""
    different = set()
    batch = []
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        if unicodedata.category(char) not in ("Cn", "Co", "Cs"):
            batch.append(f"a{char}b 1 '{char} {char}")
        if len(batch) == 4096 or point == sys.maxunicode:
            ours, theirs = tokenize(batch, 24), oracle(batch, 24).numpy()
            different |= {batch[i][1] for i in np.flatnonzero((ours != theirs).any(axis=1))}
            oracle.cache = {token: token for token in ("<start_of_text>", "<end_of_text>")}
            batch = []
    assert different == set(KNOWN)


def test_the_tables_are_the_published_ones(oracle):
    ranks = oracle.bpe_ranks
    assert list(merges()) == sorted(ranks, key=ranks.get)
    ours, theirs = vocabulary(), [oracle.decoder[i] for i in range(len(oracle.decoder))]
    assert list(ours[:-2]) == theirs[:-2]  # open_clip calls the last two by other names
