"""What is wrong with a set of shards, found before a run is paid for.

The headers tell of interleaved, duplicate, missing and cut members; reading every sample
(`content=True`) also finds captions without text, pictures that do not decode, and one picture
under many keys (error pages, placeholders).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np

from unclip_jax.data.captions import choose_caption, read_captions
from unclip_jax.data.catalog import TarShard, summarise
from unclip_jax.data.fields import BadSample, BatchFields
from unclip_jax.data.filters import CLEAN, keep_mask, remember
from unclip_jax.data.images import decode_image
from unclip_jax.data.keys import find_image
from unclip_jax.errors import UserError

ADVICE = {
    "unreadable": "remove the shard from the list, or mend it",
    "interleaved_key": "a key comes back later: sort the tar by name with `unclip data convert`",
    "duplicate_field": "a sample has a member twice; the first one is used",
    "truncated": "the tar is cut or damaged; the samples before that are used",
    "missing_image": "samples without a picture are left out of training",
    "missing_caption": "samples without a caption, or an empty one, are left out of training",
    "image_decode": "pictures that cannot be read are substituted in training",
    "image_too_large": "pictures over the limit are substituted in training",
    "caption_empty": "captions without text are substituted in training",
    "caption_recoded": "captions that are not clean UTF-8 are mended",
    "filtered": "samples that do not pass the filters are left out of training",
    "repeated_image": "the same bytes under several keys: placeholders, or real duplicates",
}
_FATAL = ("unreadable",)
_BAD = ("image_decode", "image_too_large", "caption_empty")
_PROBE_SIDE = 16  # decoding is what is tested, so the smallest scale will do
_FIELDS = BatchFields(image_sizes=(_PROBE_SIDE,), context_length=77)


@dataclass(frozen=True)
class Finding:
    """`count` cases of one problem in one shard; `detail` shows one of them."""

    shard: str
    problem: str
    count: int
    detail: str = ""


@dataclass
class LintReport:
    """What lint_shards saw. `ok` is False if a run could not start."""

    shards: int = 0
    samples: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(finding.problem in _FATAL for finding in self.findings)

    def to_json(self) -> dict:
        """Returns the report as plain values."""
        findings = [asdict(finding) for finding in self.findings]
        return {**vars(self), "fields": dict(self.fields), "findings": findings, "ok": self.ok}

    def totals(self) -> Counter[str]:
        """Returns problem -> number of cases over all shards."""
        totals: Counter[str] = Counter()
        for finding in self.findings:
            totals[finding.problem] += finding.count
        return totals


def lint_shards(
    paths: Sequence[str],
    *,
    fields: BatchFields = _FIELDS,
    content: bool = False,
    where: Sequence[str] = (),
    index_dir: str | None = None,
    threads: int | None = None,
    advance: Callable[[int], object] = lambda shards: None,
) -> LintReport:
    """Looks at shards, which need not all exist or be readable.

    Args:
      paths: the tars.
      fields: what a run would want of a sample.
      content: also read and decode every sample; the filter `clean` then keeps the good ones.
      where: filters, whose result is kept beside the index for the runs to come.
      advance: told 1 after each shard.
    """
    report = LintReport()
    hashes: Counter[bytes] = Counter()

    def look(path: str) -> tuple[TarShard | None, list[Finding], Counter[bytes]]:
        try:
            shard = summarise(path, index_dir)
        except UserError as error:
            return None, [Finding(path, "unreadable", 1, str(error))], Counter()
        own: Counter[bytes] = Counter()
        found = list(_from_headers(shard, fields))
        if where:
            dropped = int((~keep_mask(shard, where)).sum())
            found += [Finding(path, "filtered", dropped)] if dropped else []
        if content:
            found += _from_content(shard, fields, own)
        return shard, found, own

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for shard, found, own in pool.map(look, paths):
            report.shards += 1
            report.findings += found
            if shard is not None:
                report.samples += shard.summary.samples
                report.fields += _field_counts(shard)
                hashes += own
            advance(1)
    repeated = sum(count for count in hashes.values() if count > 1)
    if repeated:
        most = max(hashes.values())
        detail = f"one picture {most} times"
        report.findings.append(Finding("all shards", "repeated_image", repeated, detail))
    return report


def _from_headers(shard: TarShard, fields: BatchFields) -> Iterator[Finding]:
    problems = dict(shard.summary.problems)
    lost = problems.pop("lost_bytes", 0)
    for problem, count in problems.items():
        detail = f"{lost} bytes lost" if problem == "truncated" else ""
        yield Finding(shard.path, problem, count, detail)
    lacking: Counter[str] = Counter()
    for mask, count in shard.summary.masks.items():
        for what in fields.lacks(shard.summary.fields, mask):
            lacking[f"missing_{what}"] += count
    for problem, count in lacking.items():
        yield Finding(shard.path, problem, count)


def _from_content(shard: TarShard, fields: BatchFields, hashes: Counter) -> Iterator[Finding]:
    counts: Counter[str] = Counter()
    details: dict[str, str] = {}
    clean = np.ones(shard.summary.samples, bool)
    for ordinal in range(shard.summary.samples):
        key, members = shard.read(ordinal)
        for problem, detail in _sample_problems(members, fields, hashes):
            counts[problem] += 1
            clean[ordinal] &= problem not in _BAD
            details.setdefault(problem, f"first {key}: {detail}" if detail else f"first {key}")
    remember(shard, CLEAN, clean)
    for problem, count in counts.items():
        yield Finding(shard.path, problem, count, details[problem])


def _sample_problems(members, fields: BatchFields, hashes: Counter) -> Iterator[tuple[str, str]]:
    image = find_image(members)
    if image is not None:
        hashes[hashlib.sha256(image).digest()[:12]] += 1
        try:
            decode_image(image, (_PROBE_SIDE,), max_pixels=fields.max_pixels)
        except BadSample as bad:
            yield bad.reason, bad.detail
    try:
        captions, mended = read_captions(members, fields.caption_fields)
        choose_caption(captions, fields, 0)
        if mended:
            yield "caption_recoded", ""
    except BadSample as bad:
        if bad.reason != "caption_missing":  # the headers have told
            yield bad.reason, bad.detail


def _field_counts(shard: TarShard) -> Counter[str]:
    counts: Counter[str] = Counter()
    for mask, number in shard.summary.masks.items():
        for bit, name in enumerate(shard.summary.fields):
            if mask >> bit & 1 and ":" not in name:
                counts[name] += number
    return counts
