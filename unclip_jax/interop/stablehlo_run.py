"""Runs the programs that lie beside it; needs jax and numpy, and nothing else.

    python run.py "a red heart" --n 2 --seed 0 --out pictures

    from run import Programs
    programs = Programs(".")
    pictures = programs.sample(["a red heart"], seed=0)     # uint8 [1, S, S, 3]
    embedding = programs.call("clip_text", tokens)["text_embedding"]

manifest.json lists each program's inputs. Image j of prompt i is drawn with the key
fold_in(fold_in(key(seed), j), i), as unclip_jax does, so the pictures are the same.
"""

import argparse
import hashlib
import html
import itertools
import json
import pathlib
import re
import struct
import zlib

import jax
import numpy as np
from jax import export

START, END = "<|startoftext|>", "<|endoftext|>"
# A word, a digit, or a run of signs: CLIP's pattern.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class Programs:
    """The programs of a folder, loaded when they are first called."""

    def __init__(self, folder="."):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        self._weights, self._programs = {}, {}

    def call(self, name, *inputs):
        """A program by name, on arrays or dicts of arrays in the order of manifest.json."""
        entry = self.manifest["programs"][name]
        if name not in self._programs:
            blob = bytearray(self._read(entry))
            self._programs[name] = jax.jit(export.deserialize(blob).call)
        weights = {stage: self.weights(stage) for stage in entry["weights"]}
        return self._programs[name](weights, *inputs)

    def weights(self, stage):
        """The arrays of a stage: {"params": nested dict, "statistics": dict}."""
        if stage not in self._weights:
            self._read(self.manifest["weights"][stage])  # compares the checksum
            tree = {}
            with np.load(self.folder / "weights" / f"{stage}.npz", allow_pickle=False) as arrays:
                for path in arrays.files:
                    head, *names = path.split("/")
                    names = names if head == "statistics" else [head, *names]
                    group = tree.setdefault("statistics" if head == "statistics" else "params", {})
                    for part in names[:-1]:
                        group = group.setdefault(part, {})
                    group[names[-1]] = jax.numpy.asarray(arrays[path])
            self._weights[stage] = tree
        return self._weights[stage]

    def sample(self, prompts, n=1, seed=0, prior_scale=None, decoder_scale=None):
        """Pictures uint8 [prompts * n, S, S, 3], prompt by prompt."""
        scales = [
            np.float32(self.manifest["sampling"][stage]["guidance_scale"] if s is None else s)
            for stage, s in (("prior", prior_scale), ("decoder", decoder_scale))
        ]
        length = int(self.manifest["programs"]["sample"]["inputs"]["tokens"][:-1].split(",")[1])
        tokens = np.repeat(self.tokenize(prompts, length), n, axis=0)
        root = jax.random.key(np.uint32(seed))
        keys = [
            jax.random.key_data(jax.random.fold_in(jax.random.fold_in(root, j), i))
            for i in range(len(prompts))
            for j in range(n)
        ]
        return np.asarray(self.call("sample", tokens, np.stack(keys), *scales))

    def tokenize(self, prompts, length=77):
        """CLIP's tokens, int32 [prompts, length]."""
        vocabulary = json.loads((self.folder / "tokenizer/vocab.json").read_text(encoding="utf-8"))
        lines = (self.folder / "tokenizer/merges.txt").read_text(encoding="utf-8").splitlines()[1:]
        ranks = {tuple(line.split()): i for i, line in enumerate(lines)}
        rows = np.zeros((len(prompts), length), np.int32)
        for row, prompt in zip(rows, prompts, strict=True):
            text = " ".join(html.unescape(html.unescape(prompt)).split()).lower()
            ids = [vocabulary[p] for word in WORDS.findall(text) for p in _merge(word, ranks)]
            ids = [vocabulary[START], *ids[: length - 2], vocabulary[END]]
            row[: len(ids)] = ids
        return rows

    def _read(self, entry):
        data = (self.folder / entry["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise SystemExit(f"{entry['file']} is altered: its SHA-256 is not the recorded one")
        return data


def _merge(word, ranks):
    """Byte-pair encoding of one word."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = itertools.count(256)
    names = {b: chr(b) if b in visible else chr(next(others)) for b in range(256)}
    parts = [names[b] for b in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
        rank, i = min(
            (ranks.get(p, len(ranks)), i) for i, p in enumerate(itertools.pairwise(parts))
        )
        if rank == len(ranks):
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def write_png(path, picture):
    """Writes uint8 [H, W, 3]."""
    height, width = picture.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            checksum = zlib.crc32(kind + data)
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))


def main():
    """Draws the pictures of a prompt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("pictures"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = Programs(pathlib.Path(__file__).parent).sample([args.prompt], args.n, args.seed)
    for i, picture in enumerate(pictures):
        write_png(args.out / f"{i}.png", picture)
    print(f"{len(pictures)} pictures in {args.out}")


if __name__ == "__main__":
    main()
