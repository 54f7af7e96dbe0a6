"""Range reads of remote shards that fail loudly and late: timeouts, retries, a second request.

Transient faults — resets, 5xx, 429, timeouts, short answers — are retried with growing, jittered
waits; then the read raises. They never lead to a substituted sample: batches must not depend on the
network. A request slower than almost all before it gets a twin, and the first answer wins (Dean and
Barroso, The tail at scale, 2013). http(s) is spoken directly, other schemes (gs, s3, …) by fsspec.
"""

import contextlib
import http.client
import random
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from unclip_jax.data.storage import MissingShard, ShardError
from unclip_jax.errors import UserError

_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_VERSION_KEYS = ("etag", "ETag", "generation", "LastModified", "last_modified", "mtime", "created")
_MANY = 100  # latencies that make a 99th percentile worth something


class Transient(Exception):
    """A fault that may be gone at the next try."""


@dataclass(frozen=True)
class Policy:
    """How patient a read is; times in seconds.

    Attributes:
      attempts: tries before the read raises.
      timeout: of one request, for connecting and for each wait for bytes.
      first_wait: before the second try; doubles, with jitter of half of it.
      hedge_after: when a twin request is sent, until enough latencies are known to use their
        99th percentile.
      deadline: of one try, its twin included, after which it counts as failed.
    """

    attempts: int = 6
    timeout: float = 30.0
    first_wait: float = 0.5
    hedge_after: float = 5.0
    deadline: float = 120.0


class RemoteReader:
    """Fetches ranges under a policy, and remembers how long they took."""

    def __init__(self, policy: Policy = Policy()):
        self.policy = policy
        self.latencies: deque[float] = deque(maxlen=512)
        self.retries = 0
        self.hedges = 0
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="range-read")
        self._lock = threading.Lock()

    def stat(self, url: str) -> tuple[int, int]:
        """Returns (bytes, digest of the etag or modification time)."""
        try:
            return self._retried(lambda: _stat(url, self.policy.timeout), url)
        except FileNotFoundError:
            raise MissingShard(f"{url}: no such shard; check the address") from None

    def fetch(self, url: str, size: int, offset: int, length: int) -> bytes:
        """Returns exactly `length` bytes of a shard of `size` bytes. Raises ShardError."""
        what = f"{url} (bytes {offset} to {offset + length})"
        try:
            return self._retried(lambda: self._hedged(url, size, offset, length), what)
        except FileNotFoundError as error:
            raise ShardError(f"{url}: vanished since the run started") from error

    def write(self, url: str, content: bytes) -> None:
        """Puts a whole object; object stores show it whole or not at all."""
        if url.startswith(("http://", "https://")):
            raise UserError(f"{url}: cannot be written to over http; use a bucket or a local path")
        filesystem, path = _filesystem(url)
        self._retried(lambda: _guarded(lambda: filesystem.pipe_file(path, content)), url)

    def remove(self, url: str) -> None:
        """Removes an object if it is there."""
        filesystem, path = _filesystem(url)
        with contextlib.suppress(FileNotFoundError):
            self._retried(lambda: _guarded(lambda: filesystem.rm_file(path)), url)

    def glob(self, url: str) -> list[str]:
        """Returns the objects that match a pattern, sorted, as urls."""
        filesystem, path = _filesystem(url)
        found = self._retried(lambda: _guarded(lambda: filesystem.glob(path)), url)
        return sorted(filesystem.unstrip_protocol(name) for name in found)

    def hedge_delay(self) -> float:
        """Returns how long a request may take before it gets a twin."""
        with self._lock:
            known = sorted(self.latencies)
        return known[int(0.99 * len(known))] if len(known) >= _MANY else self.policy.hedge_after

    def _retried(self, read: Callable, what: str):
        for attempt in range(self.policy.attempts):
            try:
                return read()
            except Transient as error:
                last = error
                self.retries += 1
            if attempt + 1 < self.policy.attempts:
                time.sleep(self.policy.first_wait * 2**attempt * random.uniform(0.5, 1.5))
        raise ShardError(f"{what}: {self.policy.attempts} tries failed, the last with: {last}")

    def _hedged(self, url: str, size: int, offset: int, length: int) -> bytes:
        start = time.monotonic()
        arguments = (url, size, offset, length, self.policy.timeout)
        running = {self._pool.submit(_read, *arguments)}
        done, _ = wait(running, timeout=self.hedge_delay())
        if not done:
            self.hedges += 1
            running.add(self._pool.submit(_read, *arguments))
        content = _first_success(running, start + self.policy.deadline)
        with self._lock:
            self.latencies.append(time.monotonic() - start)
        return content


def _first_success(running: set[Future], deadline: float) -> bytes:
    error: BaseException | None = None
    while running:
        left = max(0.0, deadline - time.monotonic())
        done, running = wait(running, timeout=left, return_when=FIRST_COMPLETED)
        if not done:
            raise Transient("no answer in time")
        for future in done:
            error = future.exception()
            if error is None:
                return future.result()
    assert error is not None
    raise error


def _read(url: str, size: int, offset: int, length: int, timeout: float) -> bytes:
    if url.startswith(("http://", "https://")):
        content = _http_read(url, size, offset, length, timeout)
    else:
        content = _filesystem_read(url, offset, length)
    if len(content) != length:
        raise Transient(f"{len(content)} bytes came instead of {length}")
    return content


def _http_read(url: str, size: int, offset: int, length: int, timeout: float) -> bytes:
    headers = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}

    def answer(response) -> bytes:
        if response.status != 206:
            raise ShardError(f"{url}: the server ignores range requests (status {response.status})")
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit() and int(total) != size:
            raise ShardError(f"{url}: changed since it was indexed ({size} bytes, now {total})")
        return response.read()

    return _http(urllib.request.Request(url, headers=headers), timeout, answer)


def _stat(url: str, timeout: float) -> tuple[int, int]:
    if url.startswith(("http://", "https://")):
        request = urllib.request.Request(
            url, method="HEAD", headers={"Accept-Encoding": "identity"}
        )
        headers = _http(request, timeout, lambda response: response.headers)
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        return int(headers["Content-Length"]), zlib.crc32(version.encode())
    filesystem, path = _filesystem(url)
    info = _guarded(lambda: filesystem.info(path))
    version = repr([info[key] for key in _VERSION_KEYS if key in info])
    return int(info["size"]), zlib.crc32(version.encode())


def _http(request: urllib.request.Request, timeout: float, answer: Callable):
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return answer(response)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(request.full_url) from None
        if error.code in _TRANSIENT_STATUS:
            raise Transient(f"status {error.code}") from None
        raise ShardError(f"{request.full_url}: status {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Transient(repr(error)) from None


def _filesystem_read(url: str, offset: int, length: int) -> bytes:
    filesystem, path = _filesystem(url)
    return _guarded(lambda: filesystem.cat_file(path, start=offset, end=offset + length))


def _filesystem(url: str):
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from None


def _guarded(call: Callable):
    """Sorts a file system's errors into lasting and transient ones."""
    try:
        return call()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        raise
    except (OSError, TimeoutError) as error:
        raise Transient(repr(error)) from None


READER = RemoteReader()
