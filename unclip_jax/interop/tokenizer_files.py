"""CLIP's tokenizer as files that other libraries read (transformers' CLIPTokenizer).

Padding is the end-of-text token: every network here masks what follows it. karlo's own folder pads
with "!", which makes "!" a special token and tokenizes "hi!" differently from CLIP.
"""

import json
import pathlib

from unclip_jax.text.vocabulary import merges, vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: pathlib.Path, context_length: int) -> None:
    """Writes vocab.json, merges.txt and their settings into a folder."""
    folder.mkdir(exist_ok=True)
    ids = {token: i for i, token in enumerate(vocabulary())}
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "do_lower_case": True,
        "errors": "replace",
        "add_prefix_space": False,
        **special,
    }
    write_json(folder / "vocab.json", ids)
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges())]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special)


def write_json(path: pathlib.Path, values: object) -> None:
    """Writes indented UTF-8 JSON."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
