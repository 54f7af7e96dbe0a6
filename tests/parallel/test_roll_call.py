"""The roll call, in threads over loopback: who is missing or differs is named to everyone."""

import socket
import threading

import pytest
from ports import free_port

from unclip_jax.errors import MissingProcess, UserError
from unclip_jax.parallel.cluster import Cluster
from unclip_jax.parallel.roll_call import roll_call


def call(rows, timeout=5.0, before=None):
    """What each process met: None or its error. `rows` are (process, processes, facts)."""
    address = f"127.0.0.1:{free_port()}"
    met = {}

    def one(key, process, processes, facts):
        cluster = Cluster("test", address, processes, process)
        try:
            roll_call(cluster, {"host": f"host-{key}", **facts}, timeout, None)
            met[key] = None
        except UserError as error:
            met[key] = error

    threads = [threading.Thread(target=one, args=(i, *row)) for i, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    if before:
        before(address)
    for thread in threads:
        thread.join()
    return met


def test_all_there_and_alike():
    assert call([(i, 4, {"jax": "1"}) for i in range(4)]) == dict.fromkeys(range(4))


def test_the_missing_one_is_named_to_those_that_came():
    met = call([(0, 3, {}), (2, 3, {})], timeout=1.0)
    for error in met.values():
        assert isinstance(error, MissingProcess)
        assert "process 1 of 3 did not join within 1 s" in str(error)
        assert "process 2 on host-1" in str(error)


def test_without_process_0_the_others_say_where_they_looked():
    (error,) = call([(1, 2, {})], timeout=1.0).values()
    assert isinstance(error, MissingProcess)
    assert "process 0 did not answer process 1 on host-0 at 127.0.0.1:" in str(error)


def test_the_one_that_differs_is_named():
    met = call([(0, 3, {"jax": "1"}), (1, 3, {"jax": "1"}), (2, 3, {"jax": "2"})])
    told = [str(error) for error in met.values() if error is not None]
    assert len(told) >= 2
    for text in told:
        assert "process 2 on host-2 has jax '2', but process 0 on host-0 has '1'" in text


def test_two_of_the_same_number_are_named():
    met = call([(0, 3, {}), (1, 3, {}), (1, 3, {})])
    assert all("two processes say that they are process 1" in str(error) for error in met.values())


def test_strangers_at_the_port_do_no_harm():
    def knock(address):
        host, port = address.split(":")
        for _ in range(50):
            try:
                with socket.create_connection((host, int(port)), timeout=1) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return
            except OSError:
                threading.Event().wait(0.02)

    def both(address):
        knock(address)
        late = Cluster("test", address, 2, 1)
        roll_call(late, {"host": "late"}, 5.0, None)

    assert call([(0, 2, {})], before=both) == {0: None}


def test_an_address_that_is_not_process_0s():
    with pytest.raises(UserError, match=r"can't listen at 192\.0\.2\.1:9"):
        roll_call(Cluster("test", "192.0.2.1:9", 2, 0), {"host": "a"}, 1.0, None)
