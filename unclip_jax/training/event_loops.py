"""Event loops that let their tasks end before they close.

Orbax writes and reads a checkpoint in an event loop that it closes at the first error, while
tensorstore still works on the other arrays. Each of those then calls back into a closed loop, and
its complaint ("Event loop is closed") stands beside the one line that says what is wrong. Loops are
made by the process-wide policy, the one place where this can be mended from outside.
"""

import asyncio


class _Loop(asyncio.SelectorEventLoop):
    def close(self) -> None:
        if not self.is_closed():
            self.run_until_complete(_others_end())
        super().close()


async def _others_end() -> None:
    await asyncio.sleep(0)  # those that have just ended tell whoever waits for them
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*others, return_exceptions=True)


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop()


def let_tasks_end() -> None:
    """From here on, new event loops of this process run their tasks to the end when closed."""
    if not isinstance(asyncio.get_event_loop_policy(), _Policy):
        asyncio.set_event_loop_policy(_Policy())
