"""What a user writes -> `Captions`: prompts, no caption at all, negative prompts, emphasis.

    None                        no caption: the network's null stands in
    "a red heart"               as written
    "a (red:1.5) heart"         the phrase in parentheses weighs 1.5; below 1 it recedes, 0 is gone

Weights act on the hidden states of the phrase's tokens (see `stages.captions`). Of the pooled
embedding the part that the phrase contributes is scaled alike,

    shift = sum over phrases of (weight - 1) (e(whole caption) - e(caption without the phrase))

Parentheses without a weight are text like any other.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unclip_jax.errors import UserError
from unclip_jax.stages.captions import Captions
from unclip_jax.text import END_OF_TEXT, START_OF_TEXT, tokenize

Prompt = str | None
EmbedTexts = Callable[[Sequence[str]], Float[np.ndarray, "n e"]]

WEIGHTED = re.compile(r"\(([^()]+):(\d*\.?\d+)\)")


@dataclass(frozen=True)
class Phrase:
    """A part of a prompt and its weight."""

    text: str
    weight: float = 1.0


def parse(prompt: str) -> list[Phrase]:
    """The phrases of a prompt, in order."""
    phrases, end = [], 0
    for match in WEIGHTED.finditer(prompt):
        phrases += [Phrase(prompt[end : match.start()]), Phrase(match[1], float(match[2]))]
        end = match.end()
    phrases.append(Phrase(prompt[end:]))
    return [phrase for phrase in phrases if phrase.text.strip()]


def plain(prompt: str) -> str:
    """A prompt without its weights."""
    return " ".join("".join(phrase.text for phrase in parse(prompt)).split())


def encode(
    prompts: Sequence[Prompt], length: int, *, embed_texts: EmbedTexts | None = None
) -> Captions:
    """The captions of prompts, on the host.

    Args:
      length: of the rows of tokens.
      embed_texts: CLIP's; None for networks with a text encoder of their own.

    Raises:
      UserError: a weighted phrase for such a network.
    """
    dropped = np.array([prompt is None for prompt in prompts])
    parsed = [parse(prompt or "") for prompt in prompts]
    if all(phrase.weight == 1.0 for phrases in parsed for phrase in phrases):
        # Not `plain`: prompts without weights are tokenized as they are.
        return Captions(tokenize([prompt or "" for prompt in prompts], length), dropped)
    if embed_texts is None:
        raise UserError(
            "(phrase:weight) needs a stage that reads CLIP's text tower, but this one has a text "
            "encoder of its own: write the prompt without weights"
        )
    rows = [_weighted_row(phrases, length) for phrases in parsed]
    tokens, weights = (np.stack(parts) for parts in zip(*rows, strict=True))
    return Captions(tokens, dropped, weights, _shift(parsed, embed_texts))


def _weighted_row(phrases: Sequence[Phrase], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [L] of phrases one after the other, and the weight of each."""
    ids, weights = [START_OF_TEXT], [1.0]
    for phrase in phrases:
        [row] = tokenize([phrase.text], max(length, 3))
        words = row[1 : int(np.argmax(row == END_OF_TEXT))]
        ids += words.tolist()
        weights += [phrase.weight] * len(words)
    ids, weights = [*ids[: length - 1], END_OF_TEXT], [*weights[: length - 1], 1.0]
    padding = length - len(ids)
    return (
        np.array(ids + [0] * padding, np.int32),
        np.array(weights + [1.0] * padding, np.float32),
    )


def _shift(parsed: Sequence[Sequence[Phrase]], embed_texts: EmbedTexts) -> Float[np.ndarray, "n e"]:
    def joined(phrases: Sequence[Phrase]) -> str:
        return "".join(phrase.text for phrase in phrases)

    texts, owners, factors = [], [], []
    for i, phrases in enumerate(parsed):
        for j, phrase in enumerate(phrases):
            if phrase.weight != 1.0:
                texts.append(joined([*phrases[:j], *phrases[j + 1 :]]))
                owners.append(i)
                factors.append(phrase.weight - 1.0)
    z = embed_texts([joined(phrases) for phrases in parsed] + texts)
    whole, without = z[: len(parsed)], z[len(parsed) :]
    shift = np.zeros_like(whole)
    np.add.at(shift, owners, np.array(factors)[:, None] * (whole[owners] - without))
    return shift.astype(np.float32)
