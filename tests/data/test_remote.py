"""Remote shards: the same batches as local ones, through resets, stalls, short answers and 503s."""

import http.server
import itertools
import os
import re
import socket
import threading
import time

import fsspec
import numpy as np
import pytest

from unclip_jax.data import BatchFields, Layout, ShardError, open_dataset, train_batches
from unclip_jax.data import chunks as chunks_module
from unclip_jax.data import remote as remote_module
from unclip_jax.data.catalog import summarise
from unclip_jax.data.chunks import ChunkCache
from unclip_jax.data.remote import Policy, RemoteReader
from unclip_jax.errors import UserError

FIELDS = BatchFields(image_sizes=(8,), context_length=8)
LAYOUT = Layout(lanes=4, chunk=8, window=16)
FAST = Policy(attempts=4, timeout=1.0, first_wait=0.01, hedge_after=0.2)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder with range requests; `faults` yields what goes wrong with each GET."""

    daemon_threads = True

    def __init__(self, folder):
        self.folder = folder
        self.faults = itertools.repeat(None)
        self.gets = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address):
        """Broken connections are what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, head):
        path = self.server.folder + self.path
        if not os.path.exists(path):
            return self.send_error(404)
        fault = None
        if not head:
            with self.server.lock:
                self.server.gets += 1
                fault = next(self.server.faults)
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            return None
        if fault == "stall":
            time.sleep(3)
        with open(path, "rb") as file:
            content = file.read()
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.close_connection = True
        if head or span is None or fault == "whole":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
        else:
            first, last = map(int, span.groups())
            piece = content[first : last + 1]
            total = len(content) + (fault == "grown")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            piece = piece[:-9] if fault == "fewer" else piece
            self.send_header("Content-Length", str(len(piece)))
            content = piece[: len(piece) // 2] if fault == "short" else piece
        self.send_header("ETag", f'"{os.stat(path).st_mtime_ns}"')
        self.end_headers()
        if not head:
            self.wfile.write(content)
        return None


@pytest.fixture
def served(tmp_path, make_shards, monkeypatch):
    folder = make_shards(tmp_path / "s", (100, 30))
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(remote_module, "READER", RemoteReader(FAST))
    cache = ChunkCache(1 << 30)
    monkeypatch.setattr("unclip_jax.data.catalog.CACHE", cache)
    yield server, f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def first_batches(dataset, steps=10, **options):
    loader = train_batches(dataset, 8, seed=2, layout=LAYOUT, **options)
    batches = [next(loader)[0] for _ in range(steps)]
    loader.close()
    return batches


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def open_remote(address, tmp_path):
    return open_dataset(address + "/{00000..00001}.tar", FIELDS, index_dir=str(tmp_path / "index"))


def test_same_batches_as_local_shards_by_few_requests(served, tmp_path):
    server, address, folder = served
    remote, local = open_remote(address, tmp_path), open_dataset(folder, FIELDS)
    assert remote.fingerprint == local.fingerprint
    assert not remote.is_local
    assert server.gets == 2  # both shards fit one block of the index scan
    assert_same(first_batches(remote), first_batches(local))
    assert server.gets == 5  # and chunks of 64, 36 and 30 samples


@pytest.mark.parametrize("fault", ["reset", "short", "fewer", 503, 429])
def test_transient_faults_are_retried(served, tmp_path, fault):
    server, address, folder = served
    server.faults = itertools.cycle([fault, None, None])
    remote = open_remote(address, tmp_path)
    assert_same(first_batches(remote, 4), first_batches(open_dataset(folder, FIELDS), 4))
    assert remote_module.READER.retries >= 1


def test_a_stalled_request_gets_a_twin(served, tmp_path):
    server, address, _ = served
    remote = open_remote(address, tmp_path)
    server.faults = itertools.chain(["stall"], itertools.repeat(None))
    start = time.monotonic()
    assert remote.read(0)[0] == "000000000"
    assert time.monotonic() - start < 0.9  # before the request's own timeout
    assert remote_module.READER.hedges == 1
    assert remote_module.READER.retries == 0


def test_the_delay_of_a_twin_follows_the_latencies():
    reader = RemoteReader(FAST)
    assert reader.hedge_delay() == 0.2
    reader.latencies.extend([0.01] * 198 + [0.5, 0.6])
    assert reader.hedge_delay() == 0.5


def test_lasting_faults_raise(served, tmp_path):
    server, address, _ = served
    remote = open_remote(address, tmp_path)
    for fault, message in [
        (503, "4 tries failed, the last with: status 503"),
        ("reset", "4 tries failed"),
        (403, "status 403"),
        ("whole", "ignores range requests"),
        ("grown", "changed since it was indexed"),
    ]:
        server.faults = itertools.repeat(fault)
        with pytest.raises(ShardError, match=message):
            remote.read(0)
    server.faults = itertools.repeat(None)
    assert remote.read(0)[0] == "000000000"  # a failed fetch leaves nothing behind


def test_missing_shards_and_index_dir(served, tmp_path):
    _, address, folder = served
    with pytest.raises(UserError, match="no such shard"):
        summarise(address + "/gone.tar", str(tmp_path / "index"))
    with pytest.raises(UserError, match="index_dir"):
        summarise(address + "/00000.tar")
    remote = open_remote(address, tmp_path)
    os.unlink(folder + "/00000.tar")
    with pytest.raises(ShardError, match="vanished"):
        remote.read(0)


def test_a_changed_remote_shard_is_indexed_anew(served, tmp_path, make_shards):
    _, address, _ = served
    assert len(open_remote(address, tmp_path)) == 130
    make_shards(tmp_path / "s", (101, 30))
    assert len(open_remote(address, tmp_path)) == 131


def test_other_schemes_go_through_fsspec(tmp_path, make_shards, monkeypatch):
    folder = make_shards(tmp_path / "s", (20,))
    memory = fsspec.filesystem("memory")
    with open(folder + "/00000.tar", "rb") as file:
        memory.pipe("/bucket/00000.tar", file.read())
    dataset = open_dataset("memory://bucket/00000.tar", FIELDS, index_dir=str(tmp_path / "i"))
    local = open_dataset(folder, FIELDS)
    assert dataset.fingerprint == local.fingerprint
    assert_same(first_batches(dataset, 4), first_batches(local, 4))
    with pytest.raises(UserError, match="no such shard"):
        summarise("memory://bucket/gone.tar", str(tmp_path / "i"))
    with pytest.raises(UserError, match="nosuchscheme"):
        summarise("nosuchscheme://bucket/gone.tar", str(tmp_path / "i"))


def test_cache_keeps_its_budget_and_fetches_once():
    cache, fetched = ChunkCache(100), []
    release = threading.Event()

    def fetch(number):
        def run():
            fetched.append(number)
            release.wait(5)
            return memoryview(bytes(40))

        return run

    threads = [threading.Thread(target=cache.get, args=(("a", 0, 0), fetch(0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join()
    assert fetched == [0]
    for number in (1, 0, 2, 0, 1):
        cache.get(("a", 0, number), fetch(number))
    assert fetched == [0, 1, 2, 1]  # 2 pushed out 1, not the 0 used just before
    assert chunks_module.CHUNK == 64


def test_a_file_system_that_never_answers_is_an_error(monkeypatch):
    """Of fsspec's file systems not all time out by themselves."""
    released = threading.Event()
    monkeypatch.setattr(remote_module, "_read", lambda *_: released.wait(10))
    reader = RemoteReader(Policy(attempts=2, first_wait=0.01, hedge_after=0.02, deadline=0.1))
    try:
        with pytest.raises(ShardError, match=r"bytes 3 to 8.*2 tries failed.*no answer in time"):
            reader.fetch("memory://x/a.tar", 100, 3, 5)
        assert reader.hedges == 2
    finally:
        released.set()
