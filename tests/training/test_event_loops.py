"""Event loops let their tasks end before they close, also when one of them failed."""

import asyncio
import gc
import threading

import pytest

from unclip_jax.training.event_loops import let_tasks_end


@pytest.fixture(autouse=True)
def policy():
    before = asyncio.get_event_loop_policy()
    let_tasks_end()
    yield
    asyncio.set_event_loop_policy(before)


def run_as_orbax_does(main):
    """Closes the loop at the first error, whatever else is on its way."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_what_is_on_its_way_ends_before_the_loop_closes(caplog):
    first_failed, ended, complaints = threading.Event(), [], []

    def answer(future):
        first_failed.wait()
        try:
            future.get_loop().call_soon_threadsafe(future.set_exception, OSError("the second"))
        except RuntimeError as complaint:
            complaints.append(str(complaint))

    async def slow():
        future = asyncio.get_running_loop().create_future()
        threading.Thread(target=answer, args=(future,)).start()
        try:
            await future
        finally:
            ended.append(True)

    async def fails():
        raise OSError("the first")

    async def both():
        try:
            await asyncio.gather(slow(), fails())
        finally:
            threading.Timer(0.05, first_failed.set).start()

    with pytest.raises(OSError, match="the first"):
        run_as_orbax_does(both())
    gc.collect()
    assert ended == [True]
    assert not complaints
    assert not caplog.records


@pytest.mark.parametrize("turn", range(6))
def test_a_later_failure_is_not_told_beside_the_first(turn, caplog):
    async def fails(after):
        for _ in range(after):
            await asyncio.sleep(0)
        raise OSError(f"after {after}")

    async def both():
        await asyncio.gather(fails(0), fails(turn))

    with pytest.raises(OSError, match="after 0"):
        run_as_orbax_does(both())
    gc.collect()
    assert not caplog.records
