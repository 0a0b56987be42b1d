"""A process that hangs ends itself, and the next one goes on where it was."""

import asyncio

from services.runtime.watchdog import HUNG
from tests.runtime.stage import Stage


async def test_a_worker_whose_event_loop_hangs_ends_itself_and_nothing_is_lost(own: Stage) -> None:
    worker = await own.start(failpoints="before_commit=block@1", watchdog_seconds=2).ready()
    await own.say(*[own.event("k", number) for number in range(1, 9)])
    assert await worker.ended() == HUNG
    assert '"part": "event loop"' in worker.said()
    await own.start().ready()
    await own.settle()
    assert await own.counted("k") == "1 2 3 4 5 6 7 8"
    await own.check()


async def test_a_worker_that_was_suspended_for_longer_than_the_limit_goes_on(own: Stage) -> None:
    worker = await own.start(watchdog_seconds=1, session_timeout_ms=30_000).ready()
    worker.pause()
    await asyncio.sleep(3)  # the time that passes is what is tested
    worker.resume()
    await own.say(own.event("s", 1))
    await own.settle()
    assert worker.running
    assert await own.counted("s") == "1"
