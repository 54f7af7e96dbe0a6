"""Chunks of remote shards held in memory: a sample costs a request only with 63 others.

The order reads whole chunks window by window, so a chunk is used up soon after it came. The least
recently used go when the budget is full; a smaller budget costs requests, never other data.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

CHUNK = 64  # samples read together
_Key = tuple[str, int, int]


class ChunkCache:
    """Least-recently-used chunks up to `budget` bytes; each is fetched by one thread only."""

    def __init__(self, budget: int):
        self.budget = budget
        self._chunks: OrderedDict[_Key, Future[memoryview]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def get(self, key: _Key, fetch: Callable[[], memoryview]) -> memoryview:
        """Returns the chunk of this key, fetching it if it is not here."""
        with self._lock:
            future = self._chunks.get(key)
            mine = future is None
            if future is None:
                future = self._chunks[key] = Future()
            else:
                self._chunks.move_to_end(key)
        if mine:
            self._fill(key, future, fetch)
        return future.result()

    def _fill(self, key: _Key, future: Future, fetch: Callable[[], memoryview]) -> None:
        try:
            content = fetch()
        except BaseException as error:
            with self._lock:
                del self._chunks[key]
            future.set_exception(error)
            return
        with self._lock:
            self._held += len(content)
            future.set_result(content)
            for old in list(self._chunks):
                if self._held <= self.budget:
                    break
                if old != key and self._chunks[old].done():
                    self._held -= len(self._chunks.pop(old).result())


CACHE = ChunkCache(4 << 30)
